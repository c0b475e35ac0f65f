"""Invariant: garbage gives messages or ProtocolError, the same whole as byte by byte; what is decoded encodes back."""

from __future__ import annotations

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError
from narrows.wire import eventstream
from narrows.wire.eventstream import Decoder, Message


def framed(headers: bytes, payload: bytes) -> bytes:
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


HEADERS = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.builds(
            lambda name, kind, value: bytes((len(name),)) + name + bytes((kind,)) + value,
            st.binary(max_size=3),
            st.integers(0, 10),
            st.binary(max_size=20),
        ),
        st.builds(
            lambda name, value: bytes((len(name),)) + name + b"\x07" + len(value).to_bytes(2, "big") + value,
            st.binary(min_size=1, max_size=3),
            st.binary(max_size=6),
        ),
    ),
    max_size=4,
).map(b"".join)
STREAMS = st.lists(
    st.one_of(st.builds(framed, HEADERS, st.binary(max_size=20)), st.binary(max_size=20)), max_size=4
).map(b"".join)


def run(stream: bytes, step: int) -> tuple[list[Message], str]:
    decoder = Decoder()
    messages: list[Message] = []
    try:
        for at in range(0, len(stream), step):
            messages += decoder.feed(stream[at : at + step])
        decoder.finish()
    except ProtocolError as error:
        return messages, str(error)
    return messages, ""


@settings(max_examples=300, deadline=None)
@given(stream=STREAMS)
def test_garbage_whole_and_byte_by_byte(stream: bytes) -> None:
    whole, slow = run(stream, len(stream) or 1), run(stream, 1)
    assert whole[1] == slow[1]
    if not whole[1]:
        assert whole == slow
        assert b"".join(eventstream.encode(message) for message in whole[0]) == stream


@settings(max_examples=200, deadline=None)
@given(headers=HEADERS, payload=st.binary(max_size=20))
def test_hostile_headers_in_a_right_frame(headers: bytes, payload: bytes) -> None:
    raw = framed(headers, payload)
    messages, error = run(raw, len(raw))
    assert bool(error) != bool(messages)
    if messages:
        assert eventstream.encode(messages[0]) == raw
