"""ARNs of the resources that a call touches."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.session.aws.models import Models
from narrows.session.aws.resources import LIMIT, account_of, resources_of
from narrows.session.aws.values import Protocol, Target


def target(models: Models, service: str, operation: str, bucket: str = "", key: str = "") -> Target:
    found = models.service(service)
    assert found is not None
    out = found.operations[operation].target(Protocol.JSON11, "eu-west-1")
    out.bucket, out.key = bucket, key
    return out


CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("dynamodb", "PutItem", {"TableName": "t"}, "arn:aws:dynamodb:eu-west-1:1:table/t"),
    ("dynamodb", "BatchWriteItem", {"RequestItems": {"t": []}}, "arn:aws:dynamodb:eu-west-1:1:table/t"),
    (
        "dynamodb",
        "TransactWriteItems",
        {"TransactItems": [{"Put": {"TableName": "t"}}]},
        "arn:aws:dynamodb:eu-west-1:1:table/t",
    ),
    ("lambda", "Invoke", {"FunctionName": "f"}, "arn:aws:lambda:eu-west-1:1:function:f"),
    (
        "sqs",
        "SendMessage",
        {"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/q"},
        "arn:aws:sqs:eu-west-1:123456789012:q",
    ),
    ("iam", "CreateRole", {"RoleName": "r"}, "arn:aws:iam::1:role/r"),
    ("iam", "DeleteUser", {"UserName": "u"}, "arn:aws:iam::1:user/u"),
    ("secretsmanager", "GetSecretValue", {"SecretId": "s"}, "arn:aws:secretsmanager:eu-west-1:1:secret:s"),
    ("kms", "Decrypt", {"KeyId": "k"}, "arn:aws:kms:eu-west-1:1:key/k"),
    ("ec2", "TerminateInstances", {"InstanceIds": ["i-1"]}, "arn:aws:ec2:eu-west-1:1:instance/i-1"),
    ("ssm", "GetParameter", {"Name": "/a/b"}, "arn:aws:ssm:eu-west-1:1:parameter/a/b"),
    ("logs", "PutLogEvents", {"logGroupName": "g", "logStreamName": "s"}, "arn:aws:logs:eu-west-1:1:log-group:g"),
    ("cloudformation", "DeleteStack", {"StackName": "s"}, "arn:aws:cloudformation:eu-west-1:1:stack/s/*"),
    ("ecr", "BatchGetImage", {"repositoryName": "r"}, "arn:aws:ecr:eu-west-1:1:repository/r"),
    ("kinesis", "PutRecord", {"StreamName": "s"}, "arn:aws:kinesis:eu-west-1:1:stream/s"),
]


@pytest.mark.parametrize(("service", "operation", "parameters", "arn"), CASES)
def test_best_effort(models: Models, service: str, operation: str, parameters: dict[str, Any], arn: str) -> None:
    found = resources_of(target(models, service, operation), parameters, account="1")
    assert any(r.arn.startswith(arn) and not r.exact for r in found), found


def test_s3_is_exact(models: Models) -> None:
    put = target(models, "s3", "PutObject", "b", "a%20key/x")
    assert [(r.arn, r.exact) for r in resources_of(put, {})] == [("arn:aws:s3:::b/a key/x", True)]
    delete = target(models, "s3", "DeleteObjects", "b")
    keys = {"Delete": {"Objects": [{"Key": "1"}, {"Key": "2"}]}}
    assert [r.arn for r in resources_of(delete, keys)] == ["arn:aws:s3:::b", "arn:aws:s3:::b/1", "arn:aws:s3:::b/2"]
    copy = target(models, "s3", "CopyObject", "b", "k")
    assert "arn:aws:s3:::src/o" in [r.arn for r in resources_of(copy, {"CopySource": "/src/o?versionId=1"})]
    assert resources_of(target(models, "s3", "ListBuckets"), {}) == []
    china = resources_of(put, {}, region="cn-north-1")
    assert china[0].arn == "arn:aws-cn:s3:::b/a key/x"


def test_arns_in_parameters_are_exact(models: Models) -> None:
    arn = "arn:aws:sns:eu-west-1:123456789012:topic"
    found = resources_of(target(models, "sns", "Publish"), {"TopicArn": arn, "Message": "arn:not one"})
    assert [(r.arn, r.exact) for r in found] == [(arn, True)]
    assert account_of({"TopicArn": arn}) == "123456789012"
    assert account_of({}, {"Account": "210987654321"}) == "210987654321"
    assert account_of({"QueueUrl": "http://x/123456789012/q"}) == "123456789012"
    assert account_of({"QueueUrl": "x"}, None) == ""


def test_the_number_is_bounded(models: Models) -> None:
    many = {"Delete": {"Objects": [{"Key": str(n)} for n in range(1000)]}}
    assert len(resources_of(target(models, "s3", "DeleteObjects", "b"), many)) <= LIMIT
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep, "TableName": "t"}
    assert resources_of(target(models, "dynamodb", "PutItem"), deep)
