"""The body of a block of version 2: what it may name, and that nothing else comes of it than errors."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log.tokens import MIN_COPY, WINDOW, Sequence, Shape, encode, expand

EARLIER = bytes(range(256)) * 4
"""The literals of the blocks before."""
TEXT = b"new text, and more of it that is worth a copy" * 2
OTHER = b"head"
START = len(EARLIER)


def fetch(wanted: list[tuple[int, int]]) -> list[bytes]:
    assert all(offset >= 0 and offset + length <= len(EARLIER) for offset, length in wanted)
    return [EARLIER[offset : offset + length] for offset, length in wanted]


def made(sequences: list[Sequence], packed: int, other: bytes = OTHER, start: int = START) -> bytes:
    rest = other + encode(sequences, start)
    return expand(Shape(start, len(TEXT), len(other), packed, 1), TEXT, rest, fetch)


def test_other_bytes_text_and_copies_come_in_their_order() -> None:
    sequences = [Sequence(3, 50, 100, 20), Sequence(0, 0, 40, START + 5), Sequence(1, len(TEXT) - 50, 0, 0)]
    whole = b"hea" + TEXT[:50] + EARLIER[20:120] + TEXT[5:45] + b"d" + TEXT[50:]
    assert made(sequences, len(whole)) == whole


@pytest.mark.parametrize(
    ("copy", "source"),
    [
        (MIN_COPY - 1, 0),  # too short
        (MIN_COPY, START + len(TEXT) - MIN_COPY + 1),  # beyond the block's text
        (MIN_COPY, START - 1),  # from an earlier block into this one
        (MIN_COPY, START + 1000),  # forward
        (1 << 39, 0),  # a length bomb
        (MIN_COPY, -1),  # before the part
    ],
)
def test_a_copy_of_what_is_not_before_it_is_damage(copy: int, source: int) -> None:
    with pytest.raises(ProofError):
        made([Sequence(4, len(TEXT), copy, source)], len(TEXT) + 4 + copy)


def test_text_that_is_put_later_cannot_be_copied() -> None:
    sequences = [Sequence(4, 40, 40, START + 1), Sequence(0, len(TEXT) - 40, 0, 0)]
    with pytest.raises(ProofError, match="not before it"):
        made(sequences, len(TEXT) + 44)


def test_a_copy_from_too_far_back_is_damage() -> None:
    with pytest.raises(ProofError, match="not before it"):
        made([Sequence(4, len(TEXT), MIN_COPY, 0)], len(TEXT) + 4 + MIN_COPY, start=WINDOW + 1)


def test_steps_that_make_more_or_less_than_the_head_says_are_damage() -> None:
    for packed in (len(TEXT) + 3, len(TEXT) + 5):
        with pytest.raises(ProofError, match="head says"):
            made([Sequence(4, len(TEXT), 0, 0)], packed)
    with pytest.raises(ProofError, match="cannot be"):
        made([Sequence(0, 0, 0, 0), Sequence(4, len(TEXT), 0, 0)], len(TEXT) + 4)
    with pytest.raises(ProofError, match="head says"):
        made([Sequence(4, len(TEXT) - 1, 0, 0)], len(TEXT) + 3)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 100))
def test_garbage_gives_proof_errors_only(rest: bytes, packed: int, other: int) -> None:
    shape = Shape(START, len(TEXT), other, packed, 1)
    with suppress(ProofError):
        assert len(expand(shape, TEXT, rest, fetch)) == packed
