"""Frames without what can be computed come back as they were."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log.bare import bare, whole
from narrows.record.log.frame import Chain

payloads = st.lists(st.tuples(st.booleans(), st.binary(max_size=20), st.binary(max_size=200)), min_size=1, max_size=8)


def frames(items: list[tuple[bool, bytes, bytes]]) -> tuple[bytes, list[int]]:
    """Frames of two writers, alternating where told, with holes; and the counts of their runs."""
    chains, raw, counts, last = (Chain(), Chain(7, b"r" * 32)), b"", [0], False
    for number, (second, meta, data) in enumerate(items):
        if second != last and counts[-1]:
            counts.append(0)
        last = second
        if number % 3 == 2:
            chains[second].encode_whole(4, 0, bytes(16), bytes(16), 1, 2, b"", b"of another session")
        raw += chains[second].encode_whole(4, 1, b"s" * 16, b"x" * 16, -5, 2**40, meta, data)
        counts[-1] += 1
    return raw, counts


@settings(max_examples=100, deadline=None)
@given(payloads)
def test_whole_undoes_bare(items: list[tuple[bool, bytes, bytes]]) -> None:
    raw, counts = frames(items)
    packed, places = bare(raw, counts)
    assert len(raw) - 68 * len(items) <= len(packed) <= len(raw) - 36 * len(items)
    assert len(places) == len(items)
    assert whole(packed, counts, len(raw)) == raw


@settings(max_examples=200, deadline=None)
@given(payloads, st.data())
def test_damage_gives_other_bytes_or_a_proof_error(items: list[tuple[bool, bytes, bytes]], data: st.DataObject) -> None:
    raw, counts = frames(items)
    packed, _ = bare(raw, counts)
    at = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[:at] + data.draw(st.binary(max_size=3)) + packed[at + data.draw(st.integers(0, 3)) :]
    with suppress(ProofError):
        assert (whole(changed, counts, len(raw)) == raw) == (changed == packed)


def test_counts_that_are_not_those_of_the_frames_are_damage() -> None:
    raw, _ = frames([(False, b"", b"x")] * 4)
    packed, _ = bare(raw, [4])
    for counts in ([3], [5], []):
        with pytest.raises(ProofError):
            whole(packed, counts, len(raw))
        with pytest.raises(ProofError):
            bare(raw, counts)
    with pytest.raises(ProofError):
        whole(packed, [4], len(raw) - 1)
