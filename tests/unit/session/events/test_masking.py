"""Secrets of the gateway in what agents report: gone, length for length, and nothing else with them."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.session.events.masking import mask, mask_gzip

TOKEN = "nrw1.eyJzIjoiMDFhMjBmNWU2NDE4.b8Zk_-x3"
SECRET = "i6GG_L7PGiYdHsxkYe9LCXh1TBJcDWMGmnRdgA2zxA4"


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        json.dumps({"out": f"NARROWS_TOKEN={TOKEN}\nrest"}),
        "https://narrows:" + TOKEN + "@host",
        "Proxy-Authorization: Basic " + __import__("base64").b64encode(f"narrows:{TOKEN}".encode()).decode(),
        json.dumps({"SecretAccessKey": SECRET}),
        json.dumps({"stdout": json.dumps({"secret_access_key": SECRET})}),
        json.dumps({"a": json.dumps({"b": json.dumps({"SecretAccessKey": SECRET})})}),
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"export AWS_SECRET_ACCESS_KEY='{SECRET}'",
        f"aws_secret_access_key = {SECRET}",
        "broken off in the middle nrw1.eyJzIjoiMDFh",
    ],
)
def test_secrets_are_masked_in_every_form(text: str) -> None:
    raw = text.encode()
    masked = mask(raw)
    assert len(masked) == len(raw) and masked != raw
    for secret in (TOKEN, SECRET, TOKEN[5:], "eyJz", "bmFycm93czpucncxLm"):
        assert secret.encode() not in masked
    if text.startswith("{"):
        assert json.loads(masked).keys() == json.loads(raw).keys(), "it is as well-formed as it was"


def test_what_is_no_secret_stays() -> None:
    raw = json.dumps({"command": "aws s3 ls", "note": "the access key is in the vault; nrw2.x", "k": "A" * 60}).encode()
    assert mask(raw) == raw
    assert mask(b"") == b""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_length_is_kept_whatever_comes(before: bytes, after: bytes) -> None:
    raw = before + TOKEN.encode() + after
    masked = mask(raw)
    assert len(masked) == len(raw) and TOKEN.encode() not in masked
    assert mask(masked) == masked or len(mask(masked)) == len(masked)


@pytest.mark.parametrize("rest", [0, 1, 50, 5000])
def test_packed_bytes_are_masked_and_stay_a_gzip_of_the_same_length(rest: int) -> None:
    plain = (TOKEN + "x" * rest).encode() + os.urandom(rest)
    packed = gzip.compress(plain)
    masked = mask(plain)
    out = mask_gzip(packed, plain, masked)
    assert len(out) == len(packed)
    assert gzip.decompress(out) == masked


def test_packed_bytes_without_a_secret_stay_as_they_are_and_those_that_cannot_be_packed_anew_go() -> None:
    packed = gzip.compress(b"plain")
    assert mask_gzip(packed, b"plain", mask(b"plain")) is packed
    assert mask_gzip(packed[:20], b"ab", b"**") == b"*" * 20
