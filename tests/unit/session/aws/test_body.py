"""Bodies on their way up: what is checked, what is signed anew, and that nothing ends before it is right."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError, Refusal
from narrows.session.aws import body
from narrows.wire import aws_chunked, eventstream, sigv4

SCOPE = "20260101/eu-west-1/s3/aws4_request"
DATE = "20260101T000000Z"
THEIRS, OURS = bytes(32), bytes(range(32))


def signer(key: bytes) -> sigv4.ChunkSigner:
    return sigv4.ChunkSigner(key, SCOPE, DATE, "ab" * 32)


def signed(payload: bytes, chunk: int, key: bytes = THEIRS) -> bytes:
    encoder = aws_chunked.Encoder(signer(key), False, chunk)
    return bytes(encoder.feed(payload)) + encoder.finish([])


def resigned(size: int) -> body.ResignedChunks:
    kind = sigv4.PayloadKind.STREAMING_SIGNED
    return body.ResignedChunks(
        aws_chunked.Decoder(kind, signer(THEIRS), size), aws_chunked.Encoder(signer(OURS), False, body.CHUNK)
    )


def read_back(wire: bytes, size: int) -> bytes:
    decoder = aws_chunked.Decoder(sigv4.PayloadKind.STREAMING_SIGNED, signer(OURS), size)
    events = decoder.feed(wire)
    decoder.finish()
    return b"".join(bytes(event.data) for event in events if isinstance(event, aws_chunked.Chunk))


def test_a_declared_digest() -> None:
    pipe = body.DeclaredDigest(sha256(b"hello").hexdigest())
    assert bytes(pipe.feed(b"he")) + bytes(pipe.feed(memoryview(b"llo"))) == b"hello"
    assert pipe.finish([]) == b""


@pytest.mark.parametrize("data", [b"", b"hell", b"hello!", b"Hello"])
def test_a_body_of_another_digest(data: bytes) -> None:
    pipe = body.DeclaredDigest(sha256(b"hello").hexdigest())
    pipe.feed(data)
    with pytest.raises(Refusal) as caught:
        pipe.finish([])
    assert caught.value.aws_code == "XAmzContentSHA256Mismatch"
    assert sha256(b"hello").hexdigest() not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300_000), st.integers(8192, 100_000), st.integers(1, 100_000))
def test_chunks_are_signed_anew_with_the_length_that_was_announced(size: int, chunk: int, step: int) -> None:
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]
    wire = signed(payload, chunk)
    pipe = resigned(size)
    out = b"".join(bytes(pipe.feed(wire[at : at + step])) for at in range(0, len(wire), step)) + pipe.finish([])
    assert read_back(out, size) == payload
    assert len(out) == aws_chunked.encoded_length(size, body.CHUNK, None)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_change_of_signed_chunks_gets_through_whole(data: st.DataObject) -> None:
    payload = bytes(20_000)
    wire = bytearray(signed(payload, 8192))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    pipe = resigned(len(payload))
    try:
        out = bytes(pipe.feed(bytes(wire))) + pipe.finish([])
    except (Refusal, ProtocolError):
        return
    assert read_back(out, len(payload)) == payload, "what got through is what was signed"


@pytest.mark.parametrize("cut", [1, 2, 50, 9000])
def test_cut_chunks_do_not_end(cut: int) -> None:
    pipe = resigned(20_000)
    pipe.feed(signed(bytes(20_000), 8192)[:-cut])
    with pytest.raises(ProtocolError):
        pipe.finish([])


def test_unsigned_chunks_pass_as_they_are() -> None:
    wire = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    kind = sigv4.PayloadKind.STREAMING_UNSIGNED_TRAILER
    pipe = body.UnsignedChunks(aws_chunked.Decoder(kind, None, 5, frozenset({b"x-amz-checksum-crc32"})))
    assert b"".join(bytes(pipe.feed(wire[at : at + 3])) for at in range(0, len(wire), 3)) == wire
    assert pipe.finish([]) == b""
    other = body.UnsignedChunks(aws_chunked.Decoder(kind, None, 5, frozenset({b"x-amz-checksum-crc32"})))
    other.feed(b"5\r\nhello\r\n0\r\n\r\n"[:-2])
    with pytest.raises(ProtocolError):
        other.finish([])


class Clock:
    def wall_ns(self) -> int:
        return 1_767_225_600_000_000_000

    mono_ns = wall_ns


def event_pipe() -> body.ResignedEvents:
    return body.ResignedEvents(
        eventstream.EventVerifier(lambda day: THEIRS, "eu-west-1", "transcribe", "cd" * 32),
        eventstream.EventSigner(lambda day: OURS, "eu-west-1", "transcribe", "ef" * 32),
        Clock(),
    )


def event_wire(payloads: list[bytes]) -> bytes:
    theirs = eventstream.EventSigner(lambda day: THEIRS, "eu-west-1", "transcribe", "cd" * 32)
    return b"".join(eventstream.encode(theirs.sign(one, 1_767_225_600_000)) for one in payloads)


def test_events_are_signed_anew_one_by_one() -> None:
    payloads = [eventstream.encode(eventstream.Message({}, b"audio%d" % n)) for n in range(3)] + [b""]
    wire = event_wire(payloads)
    pipe = event_pipe()
    out = b"".join(bytes(pipe.feed(wire[at : at + 11])) for at in range(0, len(wire), 11)) + pipe.finish([])
    reader = eventstream.Decoder()
    ours = eventstream.EventVerifier(lambda day: OURS, "eu-west-1", "transcribe", "ef" * 32)
    assert [ours.verify(message, Clock().wall_ns() / 1e9) for message in reader.feed(out)] == payloads


def test_a_changed_event_stops_the_stream() -> None:
    wire = bytearray(event_wire([b"one"]))
    pipe = body.ResignedEvents(
        eventstream.EventVerifier(lambda day: OURS, "eu-west-1", "transcribe", "cd" * 32),
        eventstream.EventSigner(lambda day: OURS, "eu-west-1", "transcribe", "ef" * 32),
        Clock(),
    )
    with pytest.raises(Refusal):
        pipe.feed(bytes(wire))
    cut = event_pipe()
    cut.feed(event_wire([b"one"])[:-1])
    with pytest.raises(ProtocolError):
        cut.finish([])
