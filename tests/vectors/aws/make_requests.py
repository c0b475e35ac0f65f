"""Make `requests.json` with botocore's serializers: `.venv/bin/python -m tests.vectors.aws.make_requests`.

The vectors stay as they are when botocore changes; the differential tests beside them follow it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.session.aws import botoside

from narrows.session.aws.models import Models
from narrows.session.aws.values import Protocol

CALLS = """
json dynamodb dynamodb PutItem BatchWriteItem TransactWriteItems Query UpdateItem
json sqs sqs SendMessage ReceiveMessage
json kms kms Decrypt CreateKey
json logs logs PutLogEvents FilterLogEvents
json ssm ssm PutParameter StartSession
query sts sts AssumeRole GetCallerIdentity
query iam iam CreateRole AttachRolePolicy TagUser
query sns sns Publish CreateTopic
query cloudformation cloudformation CreateStack
query autoscaling autoscaling CreateAutoScalingGroup
ec2 ec2 ec2 RunInstances DescribeInstances AuthorizeSecurityGroupIngress CreateTags
rest-json lambda lambda CreateFunction ListFunctions TagResource UpdateFunctionConfiguration
rest-json bedrock bedrock-runtime Converse ApplyGuardrail
rest-json eks eks CreateCluster DescribeCluster
rest-json apigateway apigateway GetRestApis PutIntegration
rest-json batch batch SubmitJob
rest-xml s3 s3 PutObject GetObject ListObjectsV2 DeleteObjects CopyObject PutBucketPolicy UploadPart
rest-xml s3 s3 PutBucketLifecycleConfiguration CompleteMultipartUpload PutBucketTagging
rest-xml route53 route53 ChangeResourceRecordSets ListHostedZones
rest-xml cloudfront cloudfront CreateInvalidation
smithy-rpc-v2-cbor monitoring cloudwatch PutMetricData GetMetricData PutMetricAlarm
"""
OURS = {
    "query": Protocol.QUERY,
    "ec2": Protocol.EC2,
    "rest-json": Protocol.REST_JSON,
    "rest-xml": Protocol.REST_XML,
    "smithy-rpc-v2-cbor": Protocol.CBOR,
}


def main() -> None:
    """Write the file."""
    models = Models(None)
    out = []
    for line in CALLS.split("\n"):
        if not line:
            continue
        protocol, signing, service, *names = line.split()
        model = models.service_model(service)
        json_protocol = Protocol.JSON10 if model.metadata.get("jsonVersion") == "1.0" else Protocol.JSON11
        for name in names:
            operation = model.operation_model(name)
            given = botoside.parameters(operation, full=True)
            request = botoside.request(operation, given, protocol)
            out.append(
                {
                    "name": f"{service}.{name}",
                    "signing_name": signing,
                    "service": service,
                    "operation": name,
                    "protocol": OURS.get(protocol, json_protocol),
                    "method": request.method.decode(),
                    "target": request.target.decode(),
                    "headers": [[n.decode(), v.decode()] for n, v in request.headers],
                    "body": request.body.hex(),
                    "parameters": botoside.expected_parameters(operation, given, hide=service != "bedrock-runtime"),
                }
            )
    Path(__file__).with_name("requests.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
