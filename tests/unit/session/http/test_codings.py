"""Content codings are undone within a bound, as far as the bytes go."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.session.http.codings import decode

TEXT = b"".join(b"line %d of an answer\n" % i for i in range(5000))


def raw_deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(data) + machine.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "zstd": zstandard.compress,
    "br": brotli.compress,
}


@pytest.mark.parametrize("name", CODINGS)
def test_each_coding(name: str) -> None:
    coded = CODINGS[name](TEXT)
    assert decode(name, coded, 1 << 20) == (TEXT, True, "")
    assert decode(name, coded, len(TEXT)) == (TEXT, True, "")
    body, whole, wrong = decode(name, coded, len(TEXT) - 1)
    assert (body, whole, wrong) == (TEXT[:-1], False, "")


@pytest.mark.parametrize("name", CODINGS)
def test_a_body_that_was_cut_gives_what_came(name: str) -> None:
    coded = CODINGS[name](TEXT)
    body, _, wrong = decode(name, coded[: len(coded) - 8], 1 << 20)
    assert wrong == "" and TEXT.startswith(body)
    if name != "zstd":  # its blocks are too long for this one to leave a part
        assert len(body) > 1000


@pytest.mark.parametrize("name", CODINGS)
def test_bombs_stay_within_the_bound(name: str) -> None:
    body, whole, _ = decode(name, CODINGS[name](bytes(32 << 20)), 1 << 20)
    assert len(body) == 1 << 20 and not whole


def test_several_and_unknown() -> None:
    assert decode("gzip, br", brotli.compress(gzip.compress(TEXT)), 1 << 20) == (TEXT, True, "")
    assert decode("identity", TEXT, 10) == (TEXT, True, "")
    assert decode("sdch", TEXT, 1 << 20) == (TEXT, False, "sdch: the coding is not known")
    assert decode("gzip," * 9, b"x", 10)[2]


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from([*CODINGS, "br,gzip"]), body=st.binary(max_size=60))
def test_garbage_never_raises(name: str, body: bytes) -> None:
    out, _, _ = decode(name, body, 1000)
    assert len(out) <= max(1000, len(body))
