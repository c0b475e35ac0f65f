"""The real hosts, against those that botocore's own clients choose."""

from __future__ import annotations

from urllib.parse import urlsplit

import botocore.session
import pytest

from narrows.core.errors import Refusal
from narrows.session.aws.endpoints import aws_hosts, host_for, partition
from narrows.session.aws.models import Models
from narrows.session.aws.resolve import resolve
from narrows.session.aws.values import Protocol, Target

SERVICES = "dynamodb dynamodbstreams iam sts cloudfront route53 organizations bedrock-runtime elbv2 cloudwatch sesv2"
REGIONS = ("eu-west-1", "us-gov-west-1", "cn-north-1")


@pytest.mark.parametrize("service", SERVICES.split())
def test_hosts_are_those_of_botocore(models: Models, service: str) -> None:
    session = botocore.session.get_session()
    session.set_credentials("a", "b")
    found = models.service(service)
    assert found is not None
    operation = next(op for op in found.operations.values() if not op.host_prefix)
    for region in REGIONS:
        if service == "cloudfront" and region != "eu-west-1":
            continue  # not offered there; the rules and the older endpoint list disagree on what that means
        client = session.create_client(service, region_name=region)
        host = urlsplit(client.meta.endpoint_url).hostname
        got = host_for(operation.target(Protocol.QUERY, region))
        if service == "sts" and host == "sts.amazonaws.com":
            host = f"sts.{region}.amazonaws.com"
        assert got.host == host, (service, region)
        assert got.signing_region


def test_global_services_sign_for_their_own_region(models: Models) -> None:
    iam = models.service("iam")
    assert iam is not None
    target = iam.operations["ListUsers"].target(Protocol.QUERY, "eu-west-1")
    assert host_for(target) == ("iam.amazonaws.com", "us-east-1")
    assert host_for(target, "cn-northwest-1") == ("iam.cn-north-1.amazonaws.com.cn", "cn-north-1")
    assert host_for(target, "us-gov-east-1") == ("iam.us-gov.amazonaws.com", "us-gov-west-1")


def test_host_prefixes(models: Models) -> None:
    logs, control = models.service("logs"), models.service("s3control")
    assert logs is not None and control is not None
    tail = logs.operations["StartLiveTail"].target(Protocol.JSON11, "eu-west-1")
    assert host_for(tail).host.endswith("logs.eu-west-1.amazonaws.com")
    assert host_for(tail).host != "logs.eu-west-1.amazonaws.com"
    point = resolve(
        models,
        method=b"GET",
        target=b"/v20180820/accesspoint/a",
        headers=[(b"x-amz-account-id", b"123456789012")],
        signing_name="s3",
        region="eu-west-1",
    )
    assert host_for(point).host == "123456789012.s3-control.eu-west-1.amazonaws.com"


def test_s3_hosts(models: Models) -> None:
    def target(path: bytes, signing: str = "s3") -> Target:
        return resolve(models, method=b"GET", target=path, headers=[], signing_name=signing, region="eu-west-1")

    assert host_for(target(b"/bkt/k")).host == "s3.eu-west-1.amazonaws.com"
    assert host_for(target(b"/bkt/k"), virtual_host=True).host == "bkt.s3.eu-west-1.amazonaws.com"
    assert host_for(target(b"/bkt/k"), "cn-north-1").host == "s3.cn-north-1.amazonaws.com.cn"
    assert host_for(target(b"/", "s3express")).host == "s3express-control.eu-west-1.amazonaws.com"
    for bucket in (b"/evil.com%23/k", b"/a%40b/k"):
        with pytest.raises(Refusal):
            host_for(target(bucket), virtual_host=True)
    with pytest.raises(Refusal):
        host_for(target(b"/bkt/k"), "evil.com/")


def test_hosts_that_only_the_caller_knows_are_refused(models: Models) -> None:
    for service in ("kinesis-video-media", "mediastore-data", "cloudsearchdomain", "apigatewaymanagementapi"):
        found = models.service(service)
        assert found is not None
        operation = next(iter(found.operations.values()))
        with pytest.raises(Refusal, match="proxy form"):
            host_for(operation.target(Protocol.REST_JSON, "eu-west-1"))


def test_every_host_is_an_aws_host(models: Models) -> None:
    patterns = aws_hosts()
    missing = set()
    for services in models.signing_names().values():
        for name in services:
            service = models.service(name)
            assert service is not None
            for key, (host, _) in service.hosts.items():
                named = host.replace("{region}", "eu-west-1")
                known = any(named == p or (p.startswith("*.") and named.endswith(p[1:])) for p in patterns)
                if not known and not key.startswith("aws-iso") and "isob" not in key:
                    missing.add((name, key, named))
    assert {name for name, _, _ in missing} <= {"signin"}, missing


def test_partitions() -> None:
    assert partition("eu-west-1")[:2] == ("aws", "amazonaws.com")
    assert partition("cn-north-1")[:2] == ("aws-cn", "amazonaws.com.cn")
    assert partition("us-gov-east-1")[:2] == ("aws-us-gov", "amazonaws.com")
    assert partition("us-isob-east-1")[0] == "aws-iso-b"
    assert partition("mars-north-1")[0] == "aws"
