"""Invariant: any bytes give events, then perhaps ProtocolError; the same whole, in pieces and byte by byte."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError
from narrows.wire.sse import Event, Parser

LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b"", b"data", b"data:", b"data: x", b"data:  y", b"event: ping", b"event", b": c", b"id: 7", b"id:\0"]
        ),
        st.builds(lambda value: b"data: " + value, st.binary(max_size=12)),
        st.binary(max_size=12),
    ),
    max_size=12,
)
STREAMS = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda bom, lines, ends: bom + b"".join(a + b for a, b in zip(lines, ends, strict=False)),
        st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
        LINES,
        st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\r", b"\n\n"]), min_size=12, max_size=12),
    ),
)


def run(stream: bytes, cuts: list[int]) -> tuple[list[Event], Event | None, str]:
    parser = Parser(max_line=24, max_event=40)
    events: list[Event] = []
    error = ""
    edges = [0, *sorted(cuts), len(stream)]
    try:
        for start, stop in pairwise(edges):
            parser.feed(stream[start:stop])
            while (event := parser.next()) is not None:
                events.append(event)
    except ProtocolError as refused:
        error = str(refused)
    return events, parser.finish(), error


@settings(max_examples=500, deadline=None)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 80), max_size=6))
def test_the_same_however_the_bytes_are_cut(stream: bytes, cuts: list[int]) -> None:
    whole = run(stream, [])
    assert run(stream, [cut for cut in cuts if cut <= len(stream)]) == whole
    assert run(stream, list(range(len(stream)))) == whole
