"""Resolution against botocore's own serializers, and the cases where a guess would be dangerous."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.session.aws import botoside

from narrows.core.errors import Refusal
from narrows.session.aws.models import Models
from narrows.session.aws.resolve import Protocol, Target, bucket_of_host, needs_body, resolve

FORM = (b"Content-Type", b"application/x-www-form-urlencoded; charset=utf-8")
JSON = (b"Content-Type", b"application/x-amz-json-1.0")
GATEWAY = ("gw.test", "localhost")


def get(
    models: Models,
    signing: str,
    method: str,
    target: str,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    host: str = "",
    body: bytes = b"",
) -> Target:
    return resolve(
        models,
        method=method.encode(),
        target=target.encode(),
        headers=headers or [],
        signing_name=signing,
        region="eu-west-1",
        host=host,
        body=body,
        gateway_hosts=GATEWAY,
    )


SAME_API = {("neptune", "rds"), ("docdb", "rds"), ("qconnect", "wisdom"), ("pinpoint-sms-voice", "sms-voice")}
SAME_API |= {("greengrassv2", "greengrass"), ("lambda-microvms", "lambda"), ("signer-data", "signer")}
"""Models of one host and IAM action: which of them is named makes no difference."""


def every(models: Models, step: int) -> Iterator[tuple[str, str, str, botoside.Request]]:
    index = 0
    for signing, services in models.signing_names().items():
        if signing.startswith("s3") and signing != "s3":
            continue
        for service in services:
            model = models.service_model(service)
            for name in model.operation_names:
                index += 1
                if index % step and model.service_name != "s3":
                    continue
                if name in ("ListDirectoryBuckets", "WriteGetObjectResponse"):
                    continue  # signed as s3express and s3-object-lambda, see below
                operation = model.operation_model(name)
                for protocol in model.metadata.get("protocols") or [model.metadata["protocol"]]:
                    given = botoside.parameters(operation, full=bool(index & 1))
                    yield signing, service, name, botoside.request(operation, given, protocol)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.deep), 11])
def test_what_botocore_serializes_is_resolved_to_its_operation(models: Models, step: int) -> None:
    wrong: list[str] = []
    ambiguous = count = 0
    for signing, service, name, request in every(models, step):
        count += 1
        try:
            target = resolve(
                models,
                method=request.method,
                target=request.target,
                headers=request.headers,
                signing_name=signing,
                region="eu-west-1",
                body=request.body,
            )
        except Refusal as refusal:
            assert refusal.code == "aws_ambiguous", refusal
            ambiguous += 1
            continue
        if target.operation == name and (target.service == service or (service, target.service) in SAME_API):
            continue
        if service == "s3" and name in ("GetBucketLifecycle", "GetBucketNotification", "PutBucketLifecycle"):
            continue  # deprecated names of what the newer operation does with the same request
        if service in ("s3", "s3control") and name in ("PutBucketNotification", "CreateBucket"):
            continue
        wrong.append(f"{service}.{name} -> {target.service}.{target.operation} {request.target!r}")
    assert not wrong
    assert count > 1500
    assert ambiguous < count * 0.01


@pytest.mark.parametrize("step", [13])
def test_the_true_host_settles_what_is_ambiguous(models: Models, step: int) -> None:
    """In proxy form every operation of a shared signing name is found, by the host that the SDK would use."""
    for signing in ("chime", "bedrock", "ivs", "timestream", "lex", "execute-api"):
        for service in models.signing_names()[signing]:
            model = models.service_model(service)
            host = models.service(service).hosts["aws"][0].replace("{region}", "us-east-1")  # type: ignore[union-attr]
            if service in ("apigatewaymanagementapi",):
                continue
            for name in [*model.operation_names[::step], "ListTagsForResource", "DescribeEndpoints"]:
                if name not in model.operation_names:
                    continue
                operation = model.operation_model(name)
                request = botoside.request(
                    operation, botoside.parameters(operation, full=False), model.resolved_protocol
                )
                target = resolve(
                    models,
                    method=request.method,
                    target=request.target,
                    headers=request.headers,
                    signing_name=signing,
                    region="us-east-1",
                    host=host,
                    body=request.body,
                )
                assert (target.service, target.operation) == (service, name)


def test_an_ambiguous_call_in_endpoint_form_is_refused_and_names_the_candidates(models: Models) -> None:
    with pytest.raises(Refusal) as caught:
        get(models, "bedrock", "POST", "/listTagsForResource")
    assert caught.value.code == "aws_ambiguous"
    assert "bedrock.ListTagsForResource" in str(caught.value)
    assert "bedrock-data-automation.ListTagsForResource" in str(caught.value)


@pytest.mark.parametrize(
    ("signing", "headers", "body", "why"),
    [
        ("dynamodb", [(b"X-Amz-Target", b"DynamoDB_20120810.PutItem"), (b"X-Amz-Target", b"x.Scan")], b"", "twice"),
        ("monitoring", [FORM, (b"X-Amz-Target", b"GraniteServiceVersion20100801.PutMetricData")], b"", "content type"),
        ("sts", [FORM], b"Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", "twice"),
        ("sts", [FORM], b"Action=GetCallerIdentity&%41ction=AssumeRole", "twice"),
        ("dynamodb", [JSON, (b"X-Amz-Target", b"DynamoDB_20120810.DoEvil")], b"", "no operation"),
        ("dynamodb", [JSON, (b"X-Amz-Target", b"Logs_20140328.PutLogEvents")], b"", "no operation"),
        ("sts", [FORM], b"Action=..%2Fx", "not a name"),
    ],
)
def test_contradictions_and_unknown_names_are_refused(
    models: Models, signing: str, headers: list[tuple[bytes, bytes]], body: bytes, why: str
) -> None:
    with pytest.raises(Refusal) as caught:
        get(models, signing, "POST", "/", headers=headers, body=body)
    assert caught.value.code in ("aws_ambiguous", "aws_unknown_operation")
    assert why in str(caught.value)


def test_an_action_in_the_query_and_another_in_the_body_are_refused(models: Models) -> None:
    with pytest.raises(Refusal, match="twice"):
        get(models, "sts", "POST", "/?Action=GetCallerIdentity", headers=[FORM], body=b"Action=AssumeRole")
    assert needs_body(b"POST", b"/?Action=GetCallerIdentity", [FORM], "sts")


def test_an_unknown_service_is_refused(models: Models) -> None:
    with pytest.raises(Refusal) as caught:
        get(models, "no-such", "GET", "/")
    assert caught.value.code == "aws_unknown_service"


def test_dot_segments_are_refused_not_normalised(models: Models) -> None:
    for path in ("/2015-03-31/functions/../functions", "/2015-03-31/%2e%2e/functions", "/2015-03-31//functions"):
        with pytest.raises(Refusal):
            get(models, "lambda", "GET", path)


def test_versions_tell_query_services_apart(models: Models) -> None:
    def elb(version: str) -> str:
        body = f"Action=DescribeLoadBalancers&Version={version}".encode()
        return get(models, "elasticloadbalancing", "POST", "/", headers=[FORM], body=body).service

    assert elb("2012-06-01") == "elb"
    assert elb("2015-12-01") == "elbv2"
    with pytest.raises(Refusal):
        elb("1999-01-01")
    old = get(models, "ec2", "POST", "/", headers=[FORM], body=b"Action=DescribeInstances&Version=2014-09-01")
    assert (old.operation, old.protocol) == ("DescribeInstances", Protocol.EC2)


def test_all_protocols_of_one_service(models: Models) -> None:
    target = (b"X-Amz-Target", b"GraniteServiceVersion20100801.PutMetricData")
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    found = [
        get(models, "monitoring", "POST", "/", headers=[JSON, target]),
        get(models, "monitoring", "POST", path, headers=[(b"smithy-protocol", b"rpc-v2-cbor")]),
        get(models, "monitoring", "POST", "/", headers=[FORM], body=b"Action=PutMetricData&Version=2010-08-01"),
        get(models, "sqs", "POST", "/123456789012/q", headers=[FORM], body=b"Action=SendMessage&Version=2012-11-05"),
    ]
    assert [t.protocol for t in found] == [Protocol.JSON10, Protocol.CBOR, Protocol.QUERY, Protocol.QUERY]
    assert {t.action for t in found} == {"cloudwatch:PutMetricData", "sqs:SendMessage"}


S3_CASES = [
    ("GET", "/", "ListBuckets", "s3:ListAllMyBuckets", "", ""),
    ("GET", "/b", "ListObjects", "s3:ListBucket", "b", ""),
    ("GET", "/b/?list-type=2&prefix=x", "ListObjectsV2", "s3:ListBucket", "b", ""),
    ("GET", "/b?versions", "ListObjectVersions", "s3:ListBucketVersions", "b", ""),
    ("GET", "/b?uploads=", "ListMultipartUploads", "s3:ListBucketMultipartUploads", "b", ""),
    ("GET", "/b?analytics", "ListBucketAnalyticsConfigurations", "s3:GetAnalyticsConfiguration", "b", ""),
    ("GET", "/b?analytics&id=1", "GetBucketAnalyticsConfiguration", "s3:GetAnalyticsConfiguration", "b", ""),
    ("GET", "/b/k/l%20m", "GetObject", "s3:GetObject", "b", "k/l%20m"),
    ("GET", "/b//k", "GetObject", "s3:GetObject", "b", "/k"),
    ("GET", "/b/k?versionId=v", "GetObject", "s3:GetObjectVersion", "b", "k"),
    ("GET", "/b/k?partNumber=1", "GetObject", "s3:GetObject", "b", "k"),
    ("GET", "/b/k?uploadId=u", "ListParts", "s3:ListMultipartUploadParts", "b", "k"),
    ("GET", "/b/k?acl", "GetObjectAcl", "s3:GetObjectAcl", "b", "k"),
    ("GET", "/b/k?response-content-type=text%2Fplain&x-id=GetObject", "GetObject", "s3:GetObject", "b", "k"),
    ("GET", "/b/k?AWSAccessKeyId=a&Signature=s&Expires=1", "GetObject", "s3:GetObject", "b", "k"),
    ("PUT", "/b/k?AWSAccessKeyId=a&Signature=s&content-type=t&content-md5=m", "PutObject", "s3:PutObject", "b", "k"),
    ("GET", "/b/k?X-Amz-Algorithm=a&X-Amz-Signature=s", "GetObject", "s3:GetObject", "b", "k"),
    ("HEAD", "/b/k", "HeadObject", "s3:GetObject", "b", "k"),
    ("HEAD", "/b", "HeadBucket", "s3:ListBucket", "b", ""),
    ("PUT", "/b", "CreateBucket", "s3:CreateBucket", "b", ""),
    ("PUT", "/b/k?x-id=PutObject", "PutObject", "s3:PutObject", "b", "k"),
    ("PUT", "/b/k?partNumber=2&uploadId=u", "UploadPart", "s3:PutObject", "b", "k"),
    ("PUT", "/b/k?x-amz-copy-source=%2Fa%2Fb", "CopyObject", "s3:PutObject", "b", "k"),
    ("PUT", "/b?policy", "PutBucketPolicy", "s3:PutBucketPolicy", "b", ""),
    ("PUT", "/b?lifecycle", "PutBucketLifecycleConfiguration", "s3:PutLifecycleConfiguration", "b", ""),
    ("POST", "/b?delete", "DeleteObjects", "s3:DeleteObject", "b", ""),
    ("POST", "/b/k?uploads", "CreateMultipartUpload", "s3:PutObject", "b", "k"),
    ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload", "s3:PutObject", "b", "k"),
    ("POST", "/b/k?select&select-type=2", "SelectObjectContent", "s3:GetObject", "b", "k"),
    ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload", "s3:AbortMultipartUpload", "b", "k"),
    ("DELETE", "/b/k?versionId=v", "DeleteObject", "s3:DeleteObjectVersion", "b", "k"),
]


@pytest.mark.parametrize(("method", "target", "operation", "action", "bucket", "key"), S3_CASES)
def test_s3_path_style(
    models: Models, method: str, target: str, operation: str, action: str, bucket: str, key: str
) -> None:
    found = get(models, "s3", method, target)
    assert (found.operation, found.action, found.bucket, found.key) == (operation, action, bucket, key)
    assert found.access_level
    if bucket and target.startswith("/b"):
        rest = target[2:]
        rest = rest if rest.startswith("/") else "/" + rest
        for host in ("b.s3.eu-west-1.amazonaws.com", "b.s3.amazonaws.com", "b.s3.dualstack.eu-west-1.amazonaws.com"):
            virtual = get(models, "s3", method, rest, host=host)
            assert (virtual.operation, virtual.bucket, virtual.virtual_host) == (operation, "b", True)
        for host in ("b.gw.test", "b.s3.gw.test", "b.localhost"):
            local = get(models, "s3", method, rest, headers=[(b"Host", f"{host}:8080".encode())])
            assert (local.operation, local.bucket) == (operation, "b")
        assert get(models, "s3", method, target, headers=[(b"host", b"gw.test:8080")]).bucket == "b"
        assert get(models, "s3", method, target, host="s3.eu-west-1.amazonaws.com").bucket == "b"


def test_s3_copies_and_parts_are_told_apart_by_header(models: Models) -> None:
    source = [(b"x-amz-copy-source", b"/a/b")]
    assert get(models, "s3", "PUT", "/b/k", headers=source).operation == "CopyObject"
    assert get(models, "s3", "PUT", "/b/k?partNumber=1&uploadId=u", headers=source).operation == "UploadPartCopy"


@pytest.mark.parametrize(
    "target",
    ["/b?acl&policy", "/b/k?newSubresource", "/b/k?acl&tagging", "/b?list-type=2&list-type=1", "/../k", "/b%2Fc/k"],
)
def test_s3_sub_resources_that_could_mean_something_else_are_refused(models: Models, target: str) -> None:
    for method in ("GET", "PUT"):
        with pytest.raises(Refusal):
            get(models, "s3", method, target)


def test_s3_control_is_not_taken_for_a_bucket(models: Models) -> None:
    account = [(b"x-amz-account-id", b"123456789012")]
    found = get(models, "s3", "GET", "/v20180820/accesspoint/ap", headers=account)
    assert (found.service, found.operation, found.host_prefix) == ("s3control", "GetAccessPoint", "123456789012.")
    bucket = get(models, "s3", "GET", "/v20180820/accesspoint/ap", headers=account, host="s3.eu-west-1.amazonaws.com")
    assert (bucket.service, bucket.bucket) == ("s3", "v20180820")
    with pytest.raises(Refusal):
        get(models, "s3", "GET", "/v20180820/accesspoint/ap", headers=[(b"x-amz-account-id", b"evil.com/")])


def test_s3_express_and_object_lambda_sign_with_their_own_names(models: Models) -> None:
    assert get(models, "s3express", "GET", "/").operation == "ListDirectoryBuckets"
    assert get(models, "s3-object-lambda", "POST", "/WriteGetObjectResponse").operation == "WriteGetObjectResponse"
    session = get(models, "s3", "GET", "/?session", host="b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com")
    assert (session.operation, session.bucket, session.issues_credentials) == (
        "CreateSession",
        "b--use1-az4--x-s3",
        True,
    )


def test_customer_defined_apis_only_by_their_true_host(models: Models) -> None:
    api = get(models, "execute-api", "GET", "/prod/x", host="abc.execute-api.eu-west-1.amazonaws.com")
    assert (api.service, api.operation, api.action) == ("execute-api", "", "execute-api:Invoke")
    url = get(models, "lambda", "POST", "/anything", host="abcdef.lambda-url.eu-west-1.on.aws")
    assert (url.operation, url.action) == ("", "lambda:InvokeFunctionUrl")
    for host in ("", "abc.execute-api.evil.example", "lambda.eu-west-1.amazonaws.com"):
        with pytest.raises(Refusal):
            get(models, "lambda", "POST", "/anything", host=host)


def test_issuing_and_streaming_are_marked(models: Models) -> None:
    assume = get(models, "sts", "POST", "/", headers=[FORM], body=b"Action=AssumeRole&Version=2011-06-15")
    assert assume.issues_credentials
    stream = get(models, "bedrock", "POST", "/model/m/converse-stream")
    assert stream.event_stream_out and not stream.event_stream_in and not stream.issues_credentials


def test_bucket_of_host() -> None:
    assert bucket_of_host("my.dotted.bucket.s3.us-east-1.amazonaws.com", ()) == "my.dotted.bucket"
    assert bucket_of_host("s3.us-east-1.amazonaws.com", ()) == ""
    assert bucket_of_host("b.gw.test", GATEWAY) == "b"
    assert bucket_of_host("b.s3.us-east-1.amazonaws.com.evil.test", GATEWAY) == ""


def test_needs_body() -> None:
    assert needs_body(b"POST", b"/", [FORM], "sts")
    assert needs_body(b"POST", b"/", [], "sts")
    assert not needs_body(b"GET", b"/?Action=x", [], "sts")
    assert not needs_body(b"POST", b"/", [(b"x-amz-target", b"a.b")], "dynamodb")
    assert not needs_body(b"POST", b"/b?delete", [FORM], "s3")


def test_hot_calls_are_fast(models: Models) -> None:
    common = [(b"Host", b"gw"), (b"User-Agent", b"x"), (b"Authorization", b"x"), (b"X-Amz-Date", b"x")] * 2
    json_call = [*common, (b"X-Amz-Target", b"DynamoDB_20120810.PutItem"), JSON]
    best = {}
    for name, signing, method, target, headers in (
        ("dynamodb", "dynamodb", "POST", "/", json_call),
        ("s3 get", "s3", "GET", "/bucket/key", common),
        ("s3 put", "s3", "PUT", "/bucket/key?x-id=PutObject", common),
    ):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(400):
                get(models, signing, method, target, headers=headers)
            times.append((time.perf_counter() - start) / 400)
        best[name] = min(times) * 1e6
    assert max(best.values()) < 25, best  # 6 us on an idle machine; the suite shares its cores


PIECES = st.sampled_from(
    ["/", "//", "..", "%2e%2e", "%2F", "%", "?", "&", "=", "acl", "uploads", "Action=", "Version", "v20180820", "tags"]
)
TARGETS = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=12).map(lambda p: "".join(p).encode()))
NAMES = st.sampled_from(
    [b"Host", b"X-Amz-Target", b"Content-Type", b"smithy-protocol", b"x-amz-copy-source", b"x-amz-account-id", b"x"]
)


@settings(max_examples=300, deadline=None)
@given(
    signing=st.sampled_from(["s3", "dynamodb", "sts", "lambda", "bedrock", "monitoring", "s3express", "execute-api"]),
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"\xff"]),
    target=TARGETS,
    headers=st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=5),
    body=st.binary(max_size=40),
    host=st.sampled_from(["", "b.s3.amazonaws.com", "lambda.eu-west-1.amazonaws.com", "evil.test", "..", "gw.test"]),
)
def test_any_request_is_resolved_or_refused(
    models: Models,
    signing: str,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    host: str,
) -> None:
    needs_body(method, target, headers, signing)
    with contextlib.suppress(Refusal):
        resolve(
            models,
            method=method,
            target=target,
            headers=headers,
            signing_name=signing,
            region="eu-west-1",
            host=host,
            body=body,
            gateway_hosts=GATEWAY,
        )
