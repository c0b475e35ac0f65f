"""Invariant: whatever bytes the frame codec is fed, whole or split, it gives frames or TornFrame, nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.record.log.frame import Chain, Frame, TornFrame, decode, frames

payloads = st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60), st.binary(max_size=300))


def stream(items: list[tuple[int, int, bytes, bytes]]) -> bytes:
    chain = Chain()
    return b"".join(
        chain.encode_whole(kind, flags, b"s" * 16, b"x" * 16, 1, 2, meta, data) for kind, flags, meta, data in items
    )


def read(buffer: bytes) -> tuple[list[Frame], TornFrame | None]:
    found: list[Frame] = []
    try:
        for frame in frames(buffer):
            found.append(frame)
    except TornFrame as error:
        return found, error
    return found, None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_garbage_is_torn(garbage: bytes) -> None:
    found, error = read(garbage)
    assert not found
    assert (error is None) == (not garbage)


@settings(max_examples=100, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=4), st.data())
def test_a_mutated_stream_gives_its_leading_frames_and_torn(
    items: list[tuple[int, int, bytes, bytes]], data: st.DataObject
) -> None:
    good = stream(items)
    at = data.draw(st.integers(0, len(good) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=200))
    bad = good[:at] + junk + good[at + len(junk) :]
    found, _ = read(bad)
    whole = [frame for frame in read(good)[0] if frame.offset + frame.size <= at]
    assert [frame.raw for frame in found[: len(whole)]] == [frame.raw for frame in whole]


@settings(max_examples=100, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=4), st.integers(1, 40))
def test_fed_in_pieces_the_frames_are_the_same(items: list[tuple[int, int, bytes, bytes]], step: int) -> None:
    good = stream(items)
    buffer = b""
    found: list[bytes] = []
    for start in range(0, len(good), step):
        buffer += good[start : start + step]
        while buffer:
            try:
                frame = decode(memoryview(buffer))
            except TornFrame as error:
                assert error.incomplete
                break
            found.append(frame.raw)
            buffer = buffer[frame.size :]
    assert not buffer
    assert found == [frame.raw for frame in frames(good)]
