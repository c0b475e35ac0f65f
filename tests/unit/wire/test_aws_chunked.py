"""aws-chunked: the grammar, its limits, and what an unverified byte can and cannot do."""

from __future__ import annotations

import base64
import zlib
from hashlib import sha1, sha256

import pytest

from narrows.core.errors import NarrowsError, ProtocolError
from narrows.wire import aws_chunked
from narrows.wire.aws_chunked import Chunk, ChunkEnd, Decoder, Done, Encoder, encoded_length
from narrows.wire.checksums import Checksum
from narrows.wire.sigv4 import AuthError, ChunkSigner, PayloadKind

UNSIGNED = PayloadKind.STREAMING_UNSIGNED_TRAILER
SIGNED = PayloadKind.STREAMING_SIGNED
TRAILER = PayloadKind.STREAMING_SIGNED_TRAILER
CRC = (b"x-amz-checksum-crc32", b"AAAAAA==")
NAMES = frozenset({CRC[0]})


def signer() -> ChunkSigner:
    return ChunkSigner(bytes(32), "20261124/us-east-1/s3/aws4_request", "20261124T170000Z", "0" * 64)


def encoded(kind: PayloadKind, payload: bytes, chunk_size: int = 10) -> bytes:
    trailers = [CRC] if kind is not SIGNED else []
    encoder = Encoder(None if kind is UNSIGNED else signer(), kind is not SIGNED, chunk_size)
    return encoder.feed(payload) + encoder.finish(trailers)


def decoder(kind: PayloadKind, length: int | None = None) -> Decoder:
    return Decoder(kind, None if kind is UNSIGNED else signer(), length, NAMES if kind is not SIGNED else frozenset())


def payload_of(events: list[aws_chunked.Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Chunk))


@pytest.mark.parametrize("kind", [UNSIGNED, SIGNED, TRAILER])
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 4097])
def test_round_trip_whole_and_byte_by_byte(kind: PayloadKind, size: int) -> None:
    payload = bytes(range(256)) * 17
    payload = payload[:size]
    body = encoded(kind, payload)
    lines = [CRC[0] + b":" + CRC[1]] if kind is not SIGNED else None
    assert encoded_length(size, 10, lines, signatures=kind is not UNSIGNED) == len(body)
    for step in (len(body), 1, 7):
        taken = decoder(kind, size)
        events: list[aws_chunked.Event] = []
        for at in range(0, len(body), step):
            assert not taken.done
            events += taken.feed(body[at : at + step])
        taken.finish()
        assert taken.done
        assert payload_of(events) == payload
        assert [event.size for event in events if isinstance(event, ChunkEnd)] == [10] * (size // 10) + (
            [size % 10] if size % 10 else []
        )
        assert events[-1] == Done([CRC] if kind is not SIGNED else [])


def test_the_encoder_does_not_care_how_payload_comes() -> None:
    one = encoded(TRAILER, b"x" * 35)
    encoder = Encoder(signer(), True, 10)
    pieces = [encoder.feed(memoryview(b"x" * n)) for n in (1, 2, 0, 30, 2)]
    assert b"".join(pieces) + encoder.finish([CRC]) == one


def test_botocores_unsigned_body() -> None:
    taken = decoder(UNSIGNED, 5)
    events = taken.feed(b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n")
    taken.finish()
    assert payload_of(events) == b"hello"
    assert events[-1] == Done([CRC])


def test_trailers_the_way_minio_go_ends_them() -> None:
    body = encoded(TRAILER, b"hello").replace(CRC[1] + b"\r\n", CRC[1] + b"\n\r\n")
    taken = decoder(TRAILER, 5)
    assert taken.feed(body)[-1] == Done([CRC])
    taken.finish()
    for split in range(1, 4):
        taken = decoder(UNSIGNED, 5)
        body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n\r\n"
        events = taken.feed(body[:-split]) + taken.feed(body[-split:])
        assert events[-1] == Done([CRC])
        taken.finish()


@pytest.mark.parametrize("kind", [SIGNED, TRAILER])
def test_every_changed_byte_is_found_before_the_end(kind: PayloadKind) -> None:
    body = encoded(kind, b"0123456789abc")
    for at in range(len(body)):
        changed = bytearray(body)
        changed[at] ^= 1
        taken = decoder(kind, 13)
        events: list[aws_chunked.Event] = []
        with pytest.raises(NarrowsError) as caught:
            events = taken.feed(bytes(changed))
            taken.finish()
        assert isinstance(caught.value, ProtocolError | AuthError)
        assert not any(isinstance(event, Done) for event in events)
        with pytest.raises(ProtocolError):
            taken.feed(b"")


def test_a_chunk_left_out_or_swapped_is_found() -> None:
    chunk = len(b"a;chunk-signature=") + 64 + 2 + 10 + 2
    body = encoded(SIGNED, b"0123456789abcdefghij")
    first, second, rest = body[:chunk], body[chunk : 2 * chunk], body[2 * chunk :]
    for changed in (second + rest, first + rest, second + first + rest, first + first + rest):
        with pytest.raises(AuthError) as caught:
            decoder(SIGNED).feed(changed)
        assert (caught.value.aws_code, caught.value.code) == ("SignatureDoesNotMatch", "chunk_signature_mismatch")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (UNSIGNED, b"x\r\n"),
        (UNSIGNED, b"\r\n"),
        (UNSIGNED, b"5\n"),
        (UNSIGNED, b" 5\r\n"),
        (UNSIGNED, b"0x5\r\n"),
        (UNSIGNED, b"-5\r\n"),
        (UNSIGNED, b"5_0\r\n"),
        (UNSIGNED, b"5;a=b\r\n"),
        (UNSIGNED, b"5;chunk-signature=" + b"0" * 64 + b"\r\n"),
        (UNSIGNED, b"5\r\nhello!\r\n"),
        (UNSIGNED, b"5\r\nhello\n"),
        (UNSIGNED, b"0" * 17 + b"\r\n"),
        (UNSIGNED, b"10000000001\r\n"),
        (SIGNED, b"5\r\n"),
        (SIGNED, b"5;chunk-signature=" + b"0" * 63 + b"\r\n"),
        (SIGNED, b"5;chunk-signature=" + b"A" * 64 + b"\r\n"),
        (UNSIGNED, b"0\r\n\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-sha1:a\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:a\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32 :a\r\n"),
        (UNSIGNED, b"0\r\nno colon\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\0b\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\n\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\r\nx-amz-trailer-signature:" + b"0" * 64 + b"\r\n"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\r\n\r\nmore"),
        (UNSIGNED, b"0\r\nx-amz-checksum-crc32:a\r\n\r\n\r\n\r\n"),
    ],
)
def test_grammar(kind: PayloadKind, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decoder(kind).feed(body)
    assert caught.value.status == 400
    with pytest.raises(ProtocolError):
        taken = decoder(kind)
        for at in range(len(body)):
            taken.feed(body[at : at + 1])


def test_bytes_after_a_signed_body() -> None:
    with pytest.raises(ProtocolError):
        decoder(SIGNED).feed(encoded(SIGNED, b"a") + b"\r\n")


@pytest.mark.parametrize("kind", [UNSIGNED, SIGNED, TRAILER])
def test_a_cut_body_is_not_whole(kind: PayloadKind) -> None:
    body = encoded(kind, b"0123456789abc")
    for cut in range(len(body)):
        taken = decoder(kind)
        assert not any(isinstance(event, Done) for event in taken.feed(body[:cut]))
        with pytest.raises(ProtocolError, match="too early"):
            taken.finish()


@pytest.mark.parametrize("length", [12, 14, 0])
def test_the_decoded_length_is_held_to(length: int) -> None:
    with pytest.raises(ProtocolError, match="decoded-content-length"):
        decoder(SIGNED, length).feed(encoded(SIGNED, b"0123456789abc"))


def test_a_chunk_beyond_the_length_is_refused_at_its_header() -> None:
    with pytest.raises(ProtocolError, match="decoded-content-length"):
        decoder(UNSIGNED, 5).feed(b"6\r\n")


def test_limits() -> None:
    assert decoder(UNSIGNED).feed(b"10000000000\r\n") == []  # 2**40
    taken = decoder(UNSIGNED)
    with pytest.raises(ProtocolError, match="longer than 1024"):
        for _ in range(1027):
            taken.feed(b"0")
    at_limit = b"0\r\n" + CRC[0] + b":" + b"a" * (aws_chunked.MAX_TRAILERS - len(CRC[0]) - 5)
    assert isinstance(decoder(UNSIGNED).feed(at_limit + b"\r\n\r\n")[-1], Done)
    with pytest.raises(ProtocolError, match="longer than 16384"):
        decoder(UNSIGNED).feed(at_limit + b"a\r\n\r\n")


def test_the_signature_of_the_trailers_must_come() -> None:
    body = encoded(TRAILER, b"a")
    start = body.index(b"x-amz-trailer-signature")
    with pytest.raises(ProtocolError, match="did not come"):
        decoder(TRAILER).feed(body[:start] + b"\r\n\r\n")
    with pytest.raises(AuthError, match="trailers' signature"):
        decoder(TRAILER).feed(body.replace(b"AAAAAA==", b"AAAAAB=="))


def test_a_signed_body_is_not_decoded_without_a_key_by_mistake() -> None:
    for kind, key in ((SIGNED, None), (TRAILER, None), (UNSIGNED, signer())):
        with pytest.raises(ValueError, match="signer"):
            Decoder(kind, key, None)
    for kind in (PayloadKind.HEX, PayloadKind.UNSIGNED, PayloadKind.EVENTS):
        with pytest.raises(ValueError, match="no chunk framing"):
            Decoder(kind, None, None)
    reader = Decoder(TRAILER, None, None, NAMES, unverified=True)
    assert payload_of(reader.feed(encoded(TRAILER, b"recorded"))) == b"recorded"


def test_pieces_are_views_of_what_was_fed() -> None:
    body = b"100000\r\n" + bytes(0x100000)
    events = decoder(UNSIGNED).feed(body)
    assert isinstance(events[0], Chunk)
    assert events[0].data.obj is body


def test_checksums() -> None:
    data = b"hello world" * 100
    known = {
        b"x-amz-checksum-crc32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")),
        b"x-amz-checksum-sha1": base64.b64encode(sha1(data).digest()),
        b"x-amz-checksum-sha256": base64.b64encode(sha256(data).digest()),
    }
    for name, value in known.items():
        checksum = Checksum(name)
        for at in range(0, len(data), 7):
            checksum.update(memoryview(data)[at : at + 7])
        assert checksum.matches(value) is True
        assert checksum.matches(b"AAAA") is False
    crc32c = Checksum(b"x-amz-checksum-crc32c")
    crc32c.update(b"a" * 65536)
    crc32c.update(b"a" * 1024)
    assert crc32c.matches(b"sOO8/Q==") is True
    for name in (b"x-amz-checksum-crc64nvme", b"content-md5"):
        assert Checksum(name).matches(b"AAAA") is None
