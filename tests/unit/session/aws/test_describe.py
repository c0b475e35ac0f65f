"""What a recorded exchange is described as, from its raw bytes."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.ports import Describe
from narrows.core.values import StoredExchange
from narrows.session.aws.describe import TEXT, AwsDescriber
from narrows.session.aws.models import Models
from narrows.wire.eventstream import STRING, Header, Message, encode


@pytest.fixture(scope="module")
def describe(models: Models) -> Describe:
    return AwsDescriber(models, ("localhost",))


DDB: dict[str, object] = {
    "service": "dynamodb",
    "operation": "PutItem",
    "action": "dynamodb:PutItem",
    "access_level": "Write",
    "protocol": "json-1.0",
    "region": "eu-west-1",
}
S3: dict[str, object] = {"service": "s3", "protocol": "rest-xml", "region": "eu-west-1", "host": "localhost:8080"}


def http(start: str, headers: dict[str, str], body: bytes = b"", *, chunked: bool = False) -> bytes:
    lines = [start, *(f"{n}: {v}" for n, v in headers.items())]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def exchange(request: bytes, response: bytes, facts: dict[str, object], **more: Any) -> StoredExchange:
    return StoredExchange(b"", b"", "aws.call", request=request, response=response, request_facts=facts, **more)


PUT = http(
    "POST / HTTP/1.1",
    {
        "Host": "localhost:8080",
        "Authorization": "*" * 60,
        "X-Amz-Target": "DynamoDB_20120810.PutItem",
        "amz-sdk-invocation-id": "0f0f",
        "amz-sdk-request": "attempt=2; max=3",
    },
    b'{"TableName":"orders","Item":{"pk":{"S":"customer-exports"}}}',
)


def test_a_call_and_its_error(describe: Describe) -> None:
    body = b'{"__type":"x#ConditionalCheckFailedException","message":"The conditional request failed"}'
    out = describe(exchange(PUT, http("HTTP/1.1 400 Bad Request", {"x-amzn-RequestId": "RID"}, body), dict(DDB)))
    assert (out.service, out.operation, out.action, out.access_level) == (
        "dynamodb",
        "PutItem",
        "dynamodb:PutItem",
        "Write",
    )
    assert out.parameters == {"TableName": "orders", "Item": {"pk": {"S": "customer-exports"}}}
    assert (out.status, out.error_code) == (400, "ConditionalCheckFailedException")
    assert (out.request_id, out.invocation_id, out.attempt) == ("RID", "0f0f", 2)
    assert [r.arn for r in out.resources] == ["arn:aws:dynamodb:eu-west-1::table/orders"]
    assert "customer-exports" in out.text and "conditional request failed" in out.text
    assert out.problems == []


def test_an_upload_in_aws_chunks(describe: Describe) -> None:
    framed = b"b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    headers = {
        "Host": "localhost:8080",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-decoded-content-length": "11",
    }
    for chunked in (False, True):
        request = http("PUT /bucket/a%20key HTTP/1.1", headers, framed, chunked=chunked)
        response = http("HTTP/1.1 200 OK", {"x-amz-request-id": "R", "x-amz-id-2": "HOSTID", "ETag": '"e"'})
        out = describe(exchange(request, response, S3 | {"operation": "PutObject", "action": "s3:PutObject"}))
        assert out.problems == []
        assert out.parameters["Body"] == {"stream": 11}
        assert (out.parameters["Bucket"], out.parameters["Key"]) == ("bucket", "a key")
        assert [(r.arn, r.exact) for r in out.resources] == [("arn:aws:s3:::bucket/a key", True)]
        assert out.request_id == "R" and "HOSTID" in out.text
        assert "hello world" in out.text


def test_a_virtual_host_and_a_binary_object(describe: Describe) -> None:
    request = http("GET /k HTTP/1.1", {"Host": "bkt.localhost:8080"})
    response = b"HTTP/1.1 100 Continue\r\n\r\n" + http("HTTP/1.1 200 OK", {"x-amz-request-id": "R"}, b"\x00\x01secret")
    facts = S3 | {"operation": "GetObject", "action": "s3:GetObject", "host": "bkt.localhost:8080"}
    out = describe(exchange(request, response, facts))
    assert out.status == 200 and out.problems == []
    assert [r.arn for r in out.resources] == ["arn:aws:s3:::bkt/k"]
    assert "secret" not in out.text


def test_secrets_are_not_in_the_description(describe: Describe) -> None:
    facts = DDB | {"service": "secretsmanager", "operation": "GetSecretValue", "protocol": "json-1.1"}
    request = http("POST / HTTP/1.1", {"Host": "h"}, b'{"SecretId":"db"}')
    response = http("HTTP/1.1 200 OK", {}, b'{"Name":"db","SecretString":"hunter2"}')
    out = describe(exchange(request, response, facts))
    assert "hunter2" not in repr(out) and "db" in out.text


def test_event_streams_become_events(describe: Describe) -> None:
    def event(kind: str, payload: bytes) -> bytes:
        return encode(Message({":message-type": Header(STRING, "event"), ":event-type": Header(STRING, kind)}, payload))

    facts = DDB | {"service": "bedrock-runtime", "operation": "ConverseStream", "protocol": "rest-json"}
    request = http("POST /model/m/converse-stream HTTP/1.1", {"Host": "h"}, b'{"messages":[]}')
    body = event("contentBlockDelta", b'{"delta":{"text":"bonjour"}}') + event(
        "messageStop", b'{"stopReason":"end_turn"}'
    )
    response = http("HTTP/1.1 200 OK", {"x-amzn-requestid": "R"}, body, chunked=True)
    out = describe(exchange(request, response, facts))
    assert out.events == [
        {"type": "contentBlockDelta", "delta": {"text": "bonjour"}},
        {"type": "messageStop", "stopReason": "end_turn"},
    ]
    assert [(item.type, item.text) for item in out.items] == [("answer", "bonjour")]
    assert out.request_id == "R" and "bonjour" in out.text and out.problems == []


def test_compressed_answers_are_read(describe: Describe) -> None:
    body = gzip.compress(b'{"Attributes":{"pk":{"S":"found"}}}')
    out = describe(exchange(PUT, http("HTTP/1.1 200 OK", {"Content-Encoding": "gzip"}, body), dict(DDB)))
    assert "found" in out.text and out.problems == []
    bomb = gzip.compress(b" " * (64 << 20))
    out = describe(exchange(PUT, http("HTTP/1.1 200 OK", {"Content-Encoding": "gzip"}, bomb), dict(DDB)))
    assert out.problems


def test_what_is_cut_says_so(describe: Describe) -> None:
    response = http("HTTP/1.1 200 OK", {}, b"{}")
    out = describe(exchange(PUT[:-10], response, dict(DDB), request_truncated=True))
    assert out.status == 200 and any("first" in p for p in out.problems)
    assert describe(exchange(PUT, b"", dict(DDB))).status == 0
    assert describe(exchange(PUT, response[:-1], dict(DDB), response_truncated=True)).status == 200


def test_a_call_that_was_refused_before_it_was_understood(describe: Describe) -> None:
    out = describe(exchange(PUT, http("HTTP/1.1 403 Forbidden", {"x-amzn-RequestId": "R"}, b"{}"), {}))
    assert (out.status, out.request_id, out.service, out.parameters) == (403, "R", "", {})


def test_search_text_is_bounded(describe: Describe) -> None:
    body = json.dumps({"TableName": "t", "Item": {"a": {"S": "x" * 300_000}}}).encode()
    out = describe(exchange(http("POST / HTTP/1.1", {"Host": "h"}, body), b"", dict(DDB)))
    assert len(out.text) <= 2 * TEXT + 2


@settings(max_examples=150, deadline=None)
@given(
    request=st.binary(max_size=200),
    response=st.binary(max_size=200),
    body=st.binary(max_size=100),
    which=st.sampled_from(["dynamodb.PutItem", "s3.GetObject", "ec2.RunInstances", "sts.AssumeRole", "x.y"]),
    protocol=st.sampled_from(["json-1.0", "rest-xml", "query", "ec2", "rpc-v2-cbor", "nonsense"]),
    well_framed=st.booleans(),
)
def test_hostile_bytes_never_raise(
    describe: Describe, request: bytes, response: bytes, body: bytes, which: str, protocol: str, well_framed: bool
) -> None:
    service, operation = which.split(".")
    if well_framed:
        request = http("POST /a/b?c HTTP/1.1", {"Host": "h"}, body)
        response = http("HTTP/1.1 200 OK", {}, body)
    out = describe(exchange(request, response, {"service": service, "operation": operation, "protocol": protocol}))
    json.dumps([out.parameters, out.events, out.text, out.problems])
