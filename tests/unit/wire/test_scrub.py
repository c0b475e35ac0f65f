"""What is masked in recorded heads and in what a target repeats, and that lengths stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.wire import scrub
from narrows.wire.http1 import RequestHead, RequestParser


def parsed(raw: bytes) -> RequestHead:
    parser = RequestParser()
    parser.feed(raw)
    head = parser.next()
    assert isinstance(head, RequestHead)
    return head


@pytest.mark.parametrize(
    ("target", "masked"),
    [
        (b"/b/k?X-Amz-Signature=abc&x=1", b"/b/k?X-Amz-Signature=***&x=1"),
        (b"/b/k?x=1&x-amz-security-token=a%2Fb", b"/b/k?x=1&x-amz-security-token=*****"),
        (b"/b/k?X-Amz-Security-%54oken=abc", b"/b/k?X-Amz-Security-%54oken=***"),
        (b"/b/k?%58-amz-signature=abc&a=%20", b"/b/k?%58-amz-signature=***&a=%20"),
        (b"/b/k?Signature=abc&Signature=def", b"/b/k?Signature=***&Signature=***"),
        (b"/b/k?mysignature=abc", b"/b/k?mysignature=abc"),
        (b"/b/signature=abc", b"/b/signature=abc"),
        (b"/b/k?signature", b"/b/k?signature"),
        (b"/b/k?key-marker=abc&prefix=%2F", b"/b/k?key-marker=abc&prefix=%2F"),
    ],
)
def test_query_parameters(target: bytes, masked: bytes) -> None:
    assert scrub.target(target) == masked
    line = b"GET " + target + b" HTTP/1.1"
    assert scrub.target(line) == b"GET " + masked + b" HTTP/1.1"


@pytest.mark.parametrize("name", sorted(scrub.HEADERS))
def test_headers(name: bytes) -> None:
    raw = b"GET /?a=b HTTP/1.1\r\nHost: h\r\n" + name.title() + b":  secret value\r\nX-Other: kept\r\n\r\n"
    head = parsed(raw)
    masked = scrub.head(head.raw, head.lines, head.shape)
    assert masked == raw.replace(b" secret value", b"*" * 13)
    assert len(masked) == len(raw)


def test_a_repeated_header_is_masked_each_time() -> None:
    head = parsed(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie:b=2\r\n\r\n")
    masked = scrub.head(head.raw, head.lines, head.shape)
    assert b"a=1" not in masked
    assert b"b=2" not in masked


def test_a_head_with_nothing_to_hide_is_returned_as_it_is() -> None:
    head = parsed(b"\r\nGET /?a=b HTTP/1.1\r\nHost:\t h \r\nX-A:\t b \r\n\r\n")
    assert scrub.head(head.raw, head.lines, head.shape) == head.raw


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b"Cookie: x", b"X-A:b", b"Authorization:  y ", b"X-B: \t"])), st.booleans())
def test_lengths_stay(lines: list[bytes], query: bool) -> None:
    raw = b"GET /" + b"?Signature=1%20" * query + b" HTTP/1.1\r\nHost: h\r\n"
    raw += b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    head = parsed(raw)
    assert len(scrub.head(head.raw, head.lines, head.shape)) == len(raw)


def test_secrets_are_masked_wherever_they_are() -> None:
    assert scrub.secrets(b"a-token-b-token", (b"token", b"")) == b"a-*****-b-*****"
    data = b"nothing"
    assert scrub.secrets(data, (b"token",)) is data


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        (b"x tok", b"x ***"),
        (b"x token", b"x *****"),
        (b"tokens", b"*****s"),
        (b"", b""),
        (b"x t", b"x *"),
        (b"x o", b"x *"),
    ],
)
def test_the_beginning_of_a_secret_at_a_cut_is_masked(data: bytes, masked: bytes) -> None:
    assert scrub.secrets(data, (b"token", b"other"), cut=True) == masked


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_long_piece_of_a_secret_survives_a_cut(before: bytes, at: int) -> None:
    secret = b"SECRETSECRET-0123456789"
    data = (before + secret)[:at]
    masked = scrub.secrets(data, (secret,), cut=True)
    assert len(masked) == len(data)
    assert at <= len(before) or not masked.endswith(secret[: at - len(before)])
