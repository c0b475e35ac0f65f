"""What boto3 gets, as one JSON object: run against the AWS stand-in itself and through the gateway, and compared.

It knows nothing of Narrows. `TAG` names what it makes, so that runs do not meet; answers are told without it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

TAG = os.environ["TAG"]
BUCKET = f"bucket-{TAG}"
MB = 1024 * 1024
KEYS = [
    "plain.txt", "a//b", "a/../b", "./dot", "trailing/", "sp ace+plus", "percent%2Fescaped", "åäö/日本.txt",
    "emoji-\N{ROCKET}", "q?u=e&r#y", "~tilde'(quotes)*!",
]  # fmt: skip


def body_of(key: str) -> bytes:
    """A body that is found again by its bytes."""
    return b"body of " + key.encode() + b" \x00\xff " + TAG.encode()


def code(call: Callable[[], object]) -> str:
    """The exception that a call raises, by class and code."""
    try:
        call()
    except ClientError as error:
        return f"{type(error).__name__}:{error.response['Error']['Code']}"
    return "no error"


def objects(s3: Any) -> dict[str, Any]:
    """Keys that paths usually spoil, bodies of every byte, empty bodies."""
    told: dict[str, Any] = {}
    for key in KEYS:
        etag = s3.put_object(Bucket=BUCKET, Key=key, Body=body_of(key), Metadata={"n": "1"})["ETag"]
        got = s3.get_object(Bucket=BUCKET, Key=key)
        assert got["Body"].read() == body_of(key)
        told[key] = [etag == got["ETag"], got["ContentLength"] - len(TAG), got["Metadata"]]
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    told["empty"] = s3.get_object(Bucket=BUCKET, Key="empty")["Body"].read().decode()
    told["head"] = s3.head_object(Bucket=BUCKET, Key="empty")["ContentLength"]
    told["range"] = s3.get_object(Bucket=BUCKET, Key="plain.txt", Range="bytes=2-7")["Body"].read().decode()
    told["listed"] = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    told["copied"] = s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "a//b"})[
        "ResponseMetadata"
    ]["HTTPStatusCode"]
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "copy"}, {"Key": "a//b"}]})
    told["deleted"] = sorted(item["Key"] for item in gone["Deleted"])
    return told


def fetch(url: str, data: bytes | None = None) -> list[Any]:
    """A presigned URL, used without any AWS library."""
    method, headers = ("GET", {}) if data is None else ("PUT", {"Content-Type": "text/plain"})
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]


def presigned() -> dict[str, Any]:
    """Both signatures that S3 knows in a URL, both directions."""
    told = {}
    for version in ("s3", "s3v4"):
        s3 = boto3.client("s3", config=Config(signature_version=version))
        key = {"Bucket": BUCKET, "Key": f"signed {version}/ü"}
        typed = key | {"ContentType": "text/plain"}  # SigV2 signs the type that is sent
        put = s3.generate_presigned_url("put_object", Params=typed, ExpiresIn=300)
        get = s3.generate_presigned_url("get_object", Params=key, ExpiresIn=300)
        told[version] = [fetch(put, f"presigned {version}".encode()), fetch(get)]
    return told


def transfer(s3: Any) -> dict[str, Any]:
    """Multipart up and down, from a file object and from a stream that cannot be sought."""
    config = TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB, max_concurrency=4)
    block = b"".join(i.to_bytes(4, "big") for i in range(13 * MB // 4))
    s3.upload_fileobj(io.BytesIO(block), BUCKET, "big", Config=config)
    down = io.BytesIO()
    s3.download_fileobj(BUCKET, "big", down, Config=config)
    assert down.getvalue() == block
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            out.write(block[: 6 * MB])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        s3.upload_fileobj(stream, BUCKET, "piped", Config=config)
    streamed = s3.get_object(Bucket=BUCKET, Key="piped")["Body"]
    digest = hashlib.sha256()
    for piece in streamed.iter_chunks(65536):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(block[: 6 * MB]).digest()
    return {
        "big": s3.head_object(Bucket=BUCKET, Key="big")["ETag"],
        "piped": s3.head_object(Bucket=BUCKET, Key="piped")["ContentLength"],
    }


def errors(s3: Any) -> dict[str, str]:
    """The exceptions that programs catch by their class."""
    dynamodb = boto3.client("dynamodb")
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"1")
    etag = s3.head_object(Bucket=BUCKET, Key="once")["ETag"]
    put = {"TableName": f"table-{TAG}", "Item": {"id": {"S": "once"}}}
    dynamodb.put_item(**put)
    return {
        "no key": code(lambda: s3.get_object(Bucket=BUCKET, Key="nowhere")),
        "no bucket": code(lambda: s3.list_objects_v2(Bucket=f"{BUCKET}-none")),
        "head": code(lambda: s3.head_object(Bucket=BUCKET, Key="nowhere")),
        "unchanged": code(lambda: s3.get_object(Bucket=BUCKET, Key="once", IfNoneMatch=etag)),
        "changed": code(lambda: s3.get_object(Bucket=BUCKET, Key="once", IfMatch='"0"')),
        "exists": code(lambda: s3.put_object(Bucket=BUCKET, Key="once", Body=b"2", IfNoneMatch="*")),
        "condition": code(lambda: dynamodb.put_item(**put, ConditionExpression="attribute_not_exists(id)")),
        "no table": code(lambda: dynamodb.describe_table(TableName=f"none-{TAG}")),
        "no role": code(lambda: boto3.client("iam").get_role(RoleName=f"none-{TAG}")),
        "no queue": code(lambda: boto3.client("sqs").get_queue_url(QueueName=f"none-{TAG}")),
        "no secret": code(lambda: boto3.client("secretsmanager").get_secret_value(SecretId=f"none-{TAG}")),
    }


def pages(s3: Any) -> dict[str, Any]:
    """A paginator over S3 and one over DynamoDB, a waiter of each."""
    for number in range(7):
        s3.put_object(Bucket=BUCKET, Key=f"pages/{number}", Body=b"x")
    listed = s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="pages/", PaginationConfig={"PageSize": 3}
    )
    dynamodb = boto3.client("dynamodb")
    dynamodb.create_table(
        TableName=f"table-{TAG}", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    dynamodb.get_waiter("table_exists").wait(TableName=f"table-{TAG}")
    s3.get_waiter("object_exists").wait(Bucket=BUCKET, Key="pages/1")
    dynamodb.batch_write_item(
        RequestItems={f"table-{TAG}": [{"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(9)]}
    )
    scanned = dynamodb.get_paginator("scan").paginate(TableName=f"table-{TAG}", PaginationConfig={"PageSize": 4})
    return {
        "s3": [[item["Key"] for item in page["Contents"]] for page in listed],
        "dynamodb": sorted(item["id"]["S"] for page in scanned for item in page["Items"]),
    }


def services() -> dict[str, Any]:
    """One call at least of each protocol: query, ec2, json 1.0 and 1.1, rest-json, rest-xml, cbor."""
    queue = boto3.client("sqs").create_queue(QueueName=f"queue-{TAG}")["QueueUrl"]
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody="a message & <more>")
    received = boto3.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    topic = boto3.client("sns").create_topic(Name=f"topic-{TAG}")["TopicArn"]
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=f"/group/{TAG}")
    metrics = boto3.client("cloudwatch")
    metrics.put_metric_data(Namespace=f"space-{TAG}", MetricData=[{"MetricName": "m", "Value": 1.5}])
    template = json.dumps({"Resources": {"T": {"Type": "AWS::SNS::Topic"}}})
    return {
        "sts": boto3.client("sts").get_caller_identity()["Account"],
        "ec2": boto3.client("ec2").describe_instances()["Reservations"],
        "iam": boto3.client("iam").list_users(PathPrefix=f"/{TAG}/")["Users"],
        "sqs": [message["Body"] for message in received],
        "sns": topic,
        "logs": [g["logGroupName"] for g in logs.describe_log_groups(logGroupNamePrefix=f"/group/{TAG}")["logGroups"]],
        "cloudwatch": [m["MetricName"] for m in metrics.list_metrics(Namespace=f"space-{TAG}")["Metrics"]],
        "cloudformation": boto3.client("cloudformation").validate_template(TemplateBody=template)["Parameters"],
        "lambda": boto3.client("lambda").list_functions()["Functions"],
        "route53": boto3.client("route53").list_hosted_zones()["HostedZones"],
        "kms": len(boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]),
        "ssm": boto3.client("ssm").put_parameter(Name=f"/p/{TAG}", Value="v", Type="String")["Version"],
    }


def main() -> None:
    """All of it."""
    style: Any = {"addressing_style": os.environ["STYLE"]}
    s3 = boto3.client("s3", config=Config(s3=style))
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_REGION"]})
    told = {"objects": objects(s3), "presigned": presigned()}
    if os.environ["STYLE"] == "auto":
        told |= {"transfer": transfer(s3), "pages": pages(s3), "errors": errors(s3), "services": services()}
    print(json.dumps(told).replace(TAG, "TAG"))


if __name__ == "__main__":
    main()
