"""Event streams and CBOR: decoded to what they say, and harmless whatever they say."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.session.aws import cbor
from narrows.session.aws.events import decode_events
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.values import Protocol, Target
from narrows.wire.eventstream import STRING, Header, Message, encode


def target(models: Models, service: str, operation: str, protocol: Protocol) -> Target:
    found = models.service(service)
    assert found is not None
    return found.operations[operation].target(protocol, "us-east-1")


def event(kind: str, payload: bytes, message_type: str = "event") -> bytes:
    name = ":exception-type" if message_type == "exception" else ":event-type"
    headers = {":message-type": Header(STRING, message_type), name: Header(STRING, kind)}
    return encode(Message(headers, payload))


def test_converse_stream(models: Models) -> None:
    call = target(models, "bedrock-runtime", "ConverseStream", Protocol.REST_JSON)
    body = event("messageStart", b'{"role":"assistant","p":"abc"}')
    body += event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hello"}}')
    body += event("throttlingException", b'{"message":"slow"}', "exception")
    events, problems = decode_events(models, call, body)
    assert problems == []
    assert events == [
        {"type": "messageStart", "role": "assistant", "p": "abc"},
        {"type": "contentBlockDelta", "contentBlockIndex": 0, "delta": {"text": "Hello"}},
        {"type": "exception", "error": "throttlingException", "message": "slow"},
    ]


def test_a_models_own_json_inside_a_chunk_is_decoded(models: Models) -> None:
    call = target(models, "bedrock-runtime", "InvokeModelWithResponseStream", Protocol.REST_JSON)
    inner = base64.b64encode(b'{"type":"message_delta"}').decode()
    events, problems = decode_events(models, call, event("chunk", json.dumps({"bytes": inner}).encode()))
    assert (events, problems) == ([{"type": "chunk", "bytes": {"type": "message_delta"}}], [])


def test_select_object_content(models: Models) -> None:
    call = target(models, "s3", "SelectObjectContent", Protocol.REST_XML)
    stats = b"<Stats><BytesScanned>512</BytesScanned></Stats>"
    events, _ = decode_events(models, call, event("Records", b"a,b\n") + event("Stats", stats) + event("End", b""))
    assert events == [
        {"type": "Records", "Payload": "a,b\n"},
        {"type": "Stats", "Details": {"BytesScanned": 512}},
        {"type": "End"},
    ]


def test_a_cut_or_broken_stream_keeps_what_came_before(models: Models) -> None:
    call = target(models, "bedrock-runtime", "ConverseStream", Protocol.REST_JSON)
    good = event("messageStart", b'{"role":"assistant"}')
    cut = good + event("messageStop", b'{"stopReason":"end_turn"}')[:20]
    events, problems = decode_events(models, call, cut)
    assert [e["type"] for e in events] == ["messageStart"] and problems
    assert decode_events(models, call, cut, truncated=True) == (events, [])
    broken = bytearray(good + good)
    broken[-1] ^= 1
    events, problems = decode_events(models, call, bytes(broken))
    assert [e["type"] for e in events] == ["messageStart"] and problems


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda b: event("chunk", b))))
def test_any_bytes_give_events_or_problems(models: Models, data: bytes) -> None:
    for service, operation, protocol in (
        ("bedrock-runtime", "InvokeModelWithResponseStream", Protocol.REST_JSON),
        ("s3", "SelectObjectContent", Protocol.REST_XML),
        ("kinesis", "SubscribeToShard", Protocol.JSON11),
    ):
        json.dumps(decode_events(models, target(models, service, operation, protocol), data))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a0", {}),
        ("bfff", {}),
        ("a161610a", {"a": 10}),
        ("bf6161 9f01 20 ff ff", {"a": [1, -1]}),
        ("a16161c11a65e5a3a7", {"a": 1709548455}),
        ("a161617f6162 6163ff", {"a": "bc"}),
        ("a16161f97e00", None),
        ("a16161fb3ff8000000000000", {"a": 1.5}),
        ("a161615f4101 4102ff", {"a": b"\x01\x02"}),
        ("a16161f5", {"a": True}),
    ],
)
def test_cbor(text: str, value: object) -> None:
    got = cbor.decode(bytes.fromhex(text.replace(" ", "")))
    if value is None:
        assert isinstance(got, dict) and got["a"] != got["a"]
    else:
        assert got == value


@pytest.mark.parametrize(
    "text", ["", "a1", "ff", "9bffffffffffffffff", "bbffffffffffffffff", "5bffffffffffffffff", "a00a", "61ff", "a1010a"]
)
def test_hostile_cbor_is_a_problem(text: str) -> None:
    with pytest.raises(DecodeProblem):
        cbor.decode(bytes.fromhex(text))
    with pytest.raises(DecodeProblem):
        cbor.decode(b"\x81" * 100_000 + b"\x01")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=100))
def test_any_bytes_are_cbor_or_a_problem(data: bytes) -> None:
    with contextlib.suppress(DecodeProblem):
        cbor.decode(data)
