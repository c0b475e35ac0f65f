"""Decoding against botocore's own serializers, and against bytes that no client sends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.session.aws import botoside

from narrows.session.aws import documents
from narrows.session.aws.decode import decode_request, decode_response
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.resolve import resolve
from narrows.session.aws.shapes import OPEN_SERVICES
from narrows.session.aws.values import Protocol, Target

VECTORS = Path(__file__).parents[3] / "vectors" / "aws" / "requests.json"
PROTOCOLS = {
    "json": Protocol.JSON10,
    "query": Protocol.QUERY,
    "ec2": Protocol.EC2,
    "rest-json": Protocol.REST_JSON,
    "rest-xml": Protocol.REST_XML,
    "smithy-rpc-v2-cbor": Protocol.CBOR,
}
NOT_INVERTIBLE = {
    ("s3", "PutBucketNotification"),  # deprecated: two of its members share one wire name
    ("bedrock-agentcore", "InvokeAgentRuntimeCommand"),  # its Content-Type is a member that the client also sets
}


def target_of(models: Models, service: str, operation: str, protocol: str) -> Target:
    found = models.service(service)
    assert found is not None
    return found.operations[operation].target(PROTOCOLS[protocol], "us-east-1")


def calls(models: Models, step: int) -> Iterator[tuple[str, str, str, bool]]:
    index = 0
    for services in models.signing_names().values():
        for service in services:
            model = models.service_model(service)
            for name in model.operation_names:
                index += 1
                if index % step == 0 or service in ("s3", "dynamodb", "sqs", "cloudwatch", "lambda"):
                    for protocol in model.metadata.get("protocols") or [model.metadata["protocol"]]:
                        yield service, name, protocol, index // step % 2 == 0


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.deep), 13])
def test_parameters_come_back_as_they_were_given(models: Models, step: int) -> None:
    count: dict[str, int] = dict.fromkeys(PROTOCOLS, 0)
    for service, name, protocol, full in calls(models, step):
        if (service, name) in NOT_INVERTIBLE:
            continue
        operation = models.service_model(service).operation_model(name)
        if operation.has_event_stream_input:
            continue
        params = botoside.parameters(operation, full=full)
        request = botoside.request(operation, params, protocol)
        target = target_of(models, service, name, protocol)
        if service == "s3":
            target.bucket = params.get("Bucket", "")
            target.key = request.target.decode().partition("?")[0][1:].partition("/")[2]
        got = decode_request(models, target, request.method, request.target, request.headers, request.body)
        want = botoside.expected_parameters(operation, params, hide=service not in OPEN_SERVICES)
        for member in ("ContentLength", "ContentType", "contentType"):
            if member not in want:
                got.pop(member, None)  # headers that the HTTP client adds and that are members too
        assert got == want, f"{service}.{name} over {protocol}"
        json.dumps(got)
        count[protocol] += 1
    assert min(count.values()) > 15, count


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda v: v["name"])
def test_vectors(models: Models, vector: dict[str, Any]) -> None:
    """Recorded requests of botocore's serializers: resolved and decoded to the same operation and parameters."""
    headers = [(n.encode(), v.encode()) for n, v in vector["headers"]]
    target = resolve(
        models,
        method=vector["method"].encode(),
        target=vector["target"].encode(),
        headers=headers,
        signing_name=vector["signing_name"],
        region="us-east-1",
        body=bytes.fromhex(vector["body"]),
    )
    assert (target.service, target.operation, target.protocol) == (
        vector["service"],
        vector["operation"],
        vector["protocol"],
    )
    got = decode_request(
        models,
        target,
        vector["method"].encode(),
        vector["target"].encode(),
        headers,
        bytes.fromhex(vector["body"]),
    )
    assert got == vector["parameters"]


def ddb(models: Models, body: bytes) -> dict[str, Any]:
    target = target_of(models, "dynamodb", "PutItem", "json")
    return decode_request(models, target, b"POST", b"/", [], body)


def test_unknown_members_stay_and_sensitive_ones_do_not(models: Models) -> None:
    assert ddb(models, b'{"TableName":"t","New":{"a":[1]}}') == {"TableName": "t", "New": {"a": [1]}}
    target = target_of(models, "secretsmanager", "PutSecretValue", "json")
    got = decode_request(models, target, b"POST", b"/", [], b'{"SecretId":"s","SecretString":"hunter2"}')
    assert got == {"SecretId": "s", "SecretString": "(sensitive)"}
    query = target_of(models, "iam", "CreateLoginProfile", "query")
    body = b"Action=CreateLoginProfile&Version=2010-05-08&UserName=u&Password=hunter2&Odd.1=x"
    assert decode_request(models, query, b"POST", b"/", [], body) == {
        "UserName": "u",
        "Password": "(sensitive)",
        "Odd.1": "x",
    }


def test_long_blobs_are_named_by_their_hash(models: Models) -> None:
    import base64

    blob = base64.b64encode(b"x" * 257).decode()
    got = ddb(models, json.dumps({"Item": {"a": {"B": blob}}}).encode())
    assert got["Item"]["a"]["B"]["bytes"] == 257 and len(got["Item"]["a"]["B"]["sha256"]) == 64
    short = base64.b64encode(b"x" * 256).decode()
    assert ddb(models, json.dumps({"Item": {"a": {"B": short}}}).encode())["Item"]["a"]["B"] == short


def test_streams_are_not_read_and_json_payloads_are(models: Models) -> None:
    put = target_of(models, "s3", "PutObject", "rest-xml")
    put.bucket, put.key = "b", "a%20k"
    got = decode_request(models, put, b"PUT", b"/b/a%20k", [(b"x-amz-meta-Color", b"red")], b"{" * 1000)
    assert got == {"Bucket": "b", "Key": "a k", "Body": {"stream": 1000}, "Metadata": {"color": "red"}}
    invoke = target_of(models, "bedrock-runtime", "InvokeModel", "rest-json")
    got = decode_request(models, invoke, b"POST", b"/model/m%3A1/invoke", [], b'{"prompt":"hi"}')
    assert got == {"modelId": "m:1", "body": {"prompt": "hi"}}


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"[]", b"1", b'{"a":1', b"{" + b" " * (documents.BODY + 1)],
)
def test_hostile_json_is_a_problem(models: Models, body: bytes) -> None:
    with pytest.raises(DecodeProblem):
        ddb(models, body)


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Tagging>&b;</Tagging>'


@pytest.mark.parametrize(
    "body",
    [BOMB, BOMB.decode().encode("utf-16"), b"<a>" * 100_000, b"<a", b"<TagSet>" * 200 + b"</TagSet>" * 200, b"\x00"],
)
def test_hostile_xml_is_a_problem_or_harmless(models: Models, body: bytes) -> None:
    target = target_of(models, "s3", "PutBucketTagging", "rest-xml")
    with pytest.raises(DecodeProblem):
        decode_request(models, target, b"PUT", b"/b?tagging", [], body)
    for answer in (BOMB, BOMB.decode().encode("utf-16")):
        with pytest.raises(DecodeProblem):
            decode_response(models, target_of(models, "s3", "GetBucketTagging", "rest-xml"), 200, [], answer)


SOME = [
    ("dynamodb", "PutItem", "json"),
    ("ec2", "RunInstances", "ec2"),
    ("iam", "CreateRole", "query"),
    ("lambda", "CreateFunction", "rest-json"),
    ("s3", "PutBucketLifecycleConfiguration", "rest-xml"),
    ("cloudwatch", "PutMetricData", "smithy-rpc-v2-cbor"),
]


@pytest.mark.parametrize(("service", "operation", "protocol"), SOME)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_give_a_problem_or_a_result(
    models: Models, service: str, operation: str, protocol: str, data: st.DataObject
) -> None:
    model = models.service_model(service).operation_model(operation)
    target = target_of(models, service, operation, protocol)
    valid = botoside.request(model, botoside.parameters(model, full=True), protocol)
    at = data.draw(st.integers(0, len(valid.body)))
    body = data.draw(st.one_of(st.binary(max_size=200), st.just(valid.body[:at]), st.just(valid.body[at:])))
    path = data.draw(st.one_of(st.just(valid.target), st.binary(max_size=60)))
    status = data.draw(st.sampled_from([200, 204, 301, 400, 404, 500, 503]))
    headers = data.draw(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4))
    for call in (
        lambda: decode_request(models, target, valid.method, path, headers, body),
        lambda: decode_response(models, target, status, headers, body),
    ):
        with contextlib.suppress(DecodeProblem):
            json.dumps(call())


def test_results_errors_and_request_ids(models: Models) -> None:
    identifier = [(b"x-amzn-RequestId", b"R1"), (b"Content-Type", b"application/x-amz-json-1.0")]
    get = target_of(models, "dynamodb", "GetItem", "json")
    assert decode_response(models, get, 200, identifier, b'{"Item":{"a":{"S":"x"}}}') == (
        {"Item": {"a": {"S": "x"}}},
        "",
        "",
        "R1",
    )
    body = b'{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}'
    assert decode_response(models, get, 400, identifier, body) == ({}, "ResourceNotFoundException", "gone", "R1")
    role = target_of(models, "sts", "GetCallerIdentity", "query")
    body = (
        b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        b"<Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>R2</RequestId>"
        b"</ResponseMetadata></GetCallerIdentityResponse>"
    )
    assert decode_response(models, role, 200, [], body) == ({"Account": "123456789012"}, "", "", "R2")


def test_s3_errors_after_200_and_binary_objects(models: Models) -> None:
    copy = target_of(models, "s3", "CopyObject", "rest-xml")
    body = b'<?xml version="1.0"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>'
    assert decode_response(models, copy, 200, [(b"x-amz-request-id", b"R")], body) == (
        {},
        "InternalError",
        "again",
        "R",
    )
    get = target_of(models, "s3", "GetObject", "rest-xml")
    result, *_ = decode_response(models, get, 200, [(b"ETag", b'"x"'), (b"Content-Length", b"4")], b"\xff\xfe\x00\x01")
    assert result["Body"] == {"stream": 4} and result["ETag"] == '"x"'
    assert decode_response(models, get, 404, [], b"")[1] == "404"


def test_an_object_that_looks_like_an_error_is_an_object(models: Models) -> None:
    get = target_of(models, "s3", "GetObject", "rest-xml")
    body = b"<Error><Code>AccessDenied</Code></Error>"
    result, code, *_ = decode_response(models, get, 200, [], body)
    assert (result["Body"], code) == ({"stream": len(body)}, "")


def test_problems_do_not_quote_the_body(models: Models) -> None:
    identity = target_of(models, "sts", "AssumeRole", "query")
    with pytest.raises(DecodeProblem) as caught:
        decode_response(models, identity, 200, [], b"<a><SecretAccessKey>hunter2</SecretAccessKey>")
    assert "hunter2" not in str(caught.value)


def test_secrets_in_results_are_hidden(models: Models) -> None:
    get = target_of(models, "secretsmanager", "GetSecretValue", "json")
    result, *_ = decode_response(models, get, 200, [], b'{"Name":"n","SecretString":"hunter2"}')
    assert result == {"Name": "n", "SecretString": "(sensitive)"}
