"""Canonical JSON, facts, places, and the part codec against damage and garbage."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
import zstandard
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log.leaf import Place, Span, brief, canonical, facts
from narrows.record.log.part import (
    Run,
    compressor,
    decode_body,
    decode_head,
    decode_table,
    encode_block,
    encode_table,
    head_size,
    merge_runs,
    table_size,
)

VALUES = st.recursive(
    st.text() | st.integers(0, 2**63),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_canonical_json_is_what_json_dumps_writes(value: object) -> None:
    assert canonical(value) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_canonical_json_of_awkward_characters() -> None:
    value = {"é": '\x7f\x1f\b\u2028\U0001f600"\\/', "a": "\n"}
    assert canonical(value) == b'{"a":"\\n","\\u00e9":"\\u007f\\u001f\\b\\u2028\\ud83d\\ude00\\"\\\\/"}'


def test_long_texts_become_digests_and_other_things_nothing() -> None:
    assert brief("x" * 128) == "x" * 128
    assert brief("x" * 129) == "sha256:" + sha256(b"x" * 129).hexdigest()
    assert brief("ü" * 65) == "sha256:" + sha256(("ü" * 65).encode()).hexdigest()
    assert brief(None) == brief(3) == brief(["a"]) == ""


@pytest.mark.parametrize("meta", [b"", b"[]", b"nope", b'"x"', b"\xff"])
def test_a_meta_that_is_no_object_has_no_facts(meta: bytes) -> None:
    assert facts(meta) == {}


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.lists(st.tuples(*[st.integers(0, 2**40)] * 3), max_size=5))
def test_a_place_goes_through_its_text(session: bytes, spans: list[tuple[int, int, int]]) -> None:
    place = Place(session, bytes(16), tuple(Span(*span) for span in spans))
    assert Place.parse(str(place)) == place


def block(raw: bytes = b"frames" * 100, runs: list[Run] | None = None):  # type: ignore[no-untyped-def]
    return encode_block(0, 0, raw, sha256(raw).digest(), runs or [("w1", 0, 9, 3)], compressor())


def test_a_block_comes_back_and_the_zstd_format_holds() -> None:
    encoded, made = block()
    head = encoded[: head_size(encoded[:8], 0)]
    assert decode_head(head, 0) == made
    raw = decode_body(encoded[made.body :], made, zstandard.ZstdDecompressor())
    assert raw == b"frames" * 100
    table = encode_table([made])
    assert table_size(table[-8:]) == len(table)
    assert decode_table(table) == [(0, len(encoded), 0, 600)]
    assert head_size(table[:8], 0) == 0


def test_every_flipped_bit_of_a_block_is_found() -> None:
    encoded, made = block()
    zstd = zstandard.ZstdDecompressor()
    for offset in range(len(encoded)):
        for bit in (1, 128):
            changed = bytearray(encoded)
            changed[offset] ^= bit
            with pytest.raises(ProofError):
                head = bytes(changed[: head_size(bytes(changed[:8]), 0)])
                found = decode_head(head, 0)
                decode_body(bytes(changed[found.body :]), found, zstd)
                assert found != made
                raise ProofError("the head says something else: the table and the frames tell")


def test_a_frame_that_claims_a_huge_size_makes_no_memory() -> None:

    bomb = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1 << 24))
    _, made = block()
    fake = type(made)(0, 0, 0, 600, len(bomb), crc32c(bomb), made.sha256, made.runs)
    with pytest.raises(ProofError, match="length"):
        decode_body(bomb, fake, zstandard.ZstdDecompressor())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_proof_errors_only(raw: bytes) -> None:
    for read in (lambda r: decode_head(r, 0), lambda r: head_size(r, 0), decode_table):
        try:
            read(raw)
        except ProofError:
            continue


def test_runs_of_one_writer_join() -> None:
    runs: list[Run] = []
    merge_runs(runs, (("a", 0, 3, 2), ("b", 0, 0, 1)))
    merge_runs(runs, (("b", 4, 5, 2), ("a", 9, 9, 1)))
    assert runs == [("a", 0, 3, 2), ("b", 0, 5, 3), ("a", 9, 9, 1)]
