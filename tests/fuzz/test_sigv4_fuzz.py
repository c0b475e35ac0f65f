"""Invariant: garbage gives None, a claim, or AuthError, and never another exception, in `parse` and in `verify`."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.wire import sigv2, sigv4

NAMES = st.sampled_from(
    [b"authorization", b"x-amz-date", b"date", b"host", b"x-amz-content-sha256", b"x-amz-security-token", b"x-amz-a"]
)
PIECES = st.sampled_from(
    [
        b"AWS4-HMAC-SHA256",
        b" Credential=",
        b"AKID/20261124/us-east-1/s3/aws4_request",
        b", SignedHeaders=",
        b"host;x-amz-date",
        b", Signature=",
        b"0" * 64,
        b"20261124T170000Z",
        b"Tue, 24 Nov 2026 17:00:00 GMT",
        b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        b"AWS4-ECDSA-P256-SHA256",
        b"AWS ",
        b"host",
        b";",
        b"  ",
        b"\t",
        b"\xff",
    ]
)
VALUES = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=8).map(b"".join))
HEADERS = st.lists(st.tuples(st.one_of(NAMES, st.binary(min_size=1, max_size=6)), VALUES), max_size=8)
PARAMS = st.sampled_from(
    [
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256",
        b"X-Amz-Credential=AKID%2F20261124%2Fus-east-1%2Fs3%2Faws4_request",
        b"X-Amz-Date=20261124T170000Z",
        b"X-Amz-Expires=60",
        b"X-Amz-SignedHeaders=host",
        b"X-Amz-Signature=" + b"0" * 64,
        b"X-Amz-Security-Token=%ff",
        b"AWSAccessKeyId=AKID",
        b"Expires=1175139620",
        b"Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D",
        b"x-amz-acl=%",
        b"acl",
        b"%zz=%",
        b"",
    ]
)
QUERIES = st.one_of(
    st.binary(max_size=60), st.lists(st.one_of(PARAMS, st.binary(max_size=10)), max_size=10).map(b"&".join)
)
TARGETS = st.builds(lambda path, query: b"/" + path + b"?" + query, st.binary(max_size=20), QUERIES)
FULL = b"&".join(
    [
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256",
        b"X-Amz-Credential=AKID%2F20261124%2Fus-east-1%2Fs3%2Faws4_request",
        b"X-Amz-Date=20261124T170000Z",
        b"X-Amz-Expires=60",
        b"X-Amz-SignedHeaders=host",
        b"X-Amz-Signature=" + b"0" * 64,
    ]
)
HEADER = (
    b"authorization",
    b"AWS4-HMAC-SHA256 Credential=AKID/20261124/us-east-1/%b/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
)


def ask(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    with contextlib.suppress(sigv4.AuthError):
        claim = sigv4.parse(method, target, headers)
        if claim is not None:
            sigv4.verify(claim, method, target, headers, bytes(32), 1_795_539_600, "0" * 64)
            raise AssertionError("garbage verified")
    with contextlib.suppress(sigv4.AuthError):
        claim_v2 = sigv2.parse(method, target, headers)
        if claim_v2 is not None:
            sigv2.verify(claim_v2, "secret", 0)
            raise AssertionError("garbage verified")


@settings(max_examples=300, deadline=None)
@given(method=st.binary(max_size=6), target=TARGETS, headers=HEADERS)
def test_garbage(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    ask(method, target, headers)


@settings(max_examples=300, deadline=None)
@given(target=TARGETS, headers=HEADERS, service=st.sampled_from([b"s3", b"dynamodb"]))
def test_garbage_about_a_whole_claim(target: bytes, headers: list[tuple[bytes, bytes]], service: bytes) -> None:
    host = (b"host", b"gw")
    date = (b"x-amz-date", b"20261124T170000Z")
    ask(b"GET", target, [host, date, (HEADER[0], HEADER[1] % service), *headers])
    ask(b"GET", target + b"&" + FULL, [host, *headers])


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(FULL) - 1), byte=st.integers(0, 255))
def test_one_changed_byte_of_a_presigned_url(at: int, byte: int) -> None:
    changed = bytearray(FULL)
    changed[at] = byte
    ask(b"GET", b"/k?" + bytes(changed), [(b"host", b"gw")])
