"""Invariant: garbage gives events, ProtocolError or AuthError, the same whole as byte by byte, and never a `Done` that
is not earned."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError
from narrows.wire.aws_chunked import Chunk, ChunkEnd, Decoder, Done, Encoder
from narrows.wire.sigv4 import AuthError, ChunkSigner, PayloadKind

KINDS = st.sampled_from([kind for kind in PayloadKind if kind.chunked])
PIECES = st.sampled_from(
    [
        b"5\r\nhello\r\n",
        b"5",
        b"0",
        b"\r\n",
        b"\n",
        b"\r",
        b";chunk-signature=" + b"0" * 64,
        b"x-amz-checksum-crc32:AAAAAA==",
        b"x-amz-trailer-signature:" + b"0" * 64,
        b"ffffffffffffffff",
        b"hello",
        b":",
    ]
)
GARBAGE = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=12).map(b"".join))


def signer() -> ChunkSigner:
    return ChunkSigner(bytes(32), "scope", "20261124T170000Z", "0" * 64)


def run(kind: PayloadKind, body: bytes, step: int) -> tuple[bytes, list[int], object]:
    """Payload, sizes of verified chunks, and how it ended: trailers, or the kind and text of the error."""
    unsigned = kind is PayloadKind.STREAMING_UNSIGNED_TRAILER
    decoder = Decoder(kind, None if unsigned else signer(), None, frozenset({b"x-amz-checksum-crc32"}))
    payload, sizes = b"", []
    end: object = None
    try:
        for at in range(0, len(body), step):
            for event in decoder.feed(body[at : at + step]):
                if isinstance(event, Chunk):
                    payload += event.data
                elif isinstance(event, ChunkEnd):
                    sizes.append(event.size)
                elif isinstance(event, Done):
                    end = event.trailers
        decoder.finish()
    except (ProtocolError, AuthError) as error:
        return payload, sizes, (type(error), str(error))
    return payload, sizes, end


@settings(max_examples=300, deadline=None)
@given(kind=KINDS, body=GARBAGE)
def test_garbage_whole_and_byte_by_byte(kind: PayloadKind, body: bytes) -> None:
    whole, slow = run(kind, body, len(body) or 1), run(kind, body, 1)
    assert whole[2] == slow[2]
    if not isinstance(whole[2], tuple):
        assert whole == slow
        assert sum(whole[1]) == len(whole[0])
        assert kind is PayloadKind.STREAMING_UNSIGNED_TRAILER, "garbage was taken for signed"


@settings(max_examples=200, deadline=None)
@given(
    kind=KINDS,
    payload=st.binary(max_size=100),
    chunk_size=st.integers(1, 40),
    cuts=st.integers(1, 50),
    step=st.integers(1, 200),
)
def test_what_is_encoded_decodes(kind: PayloadKind, payload: bytes, chunk_size: int, cuts: int, step: int) -> None:
    unsigned = kind is PayloadKind.STREAMING_UNSIGNED_TRAILER
    with_trailers = kind is not PayloadKind.STREAMING_SIGNED
    trailers = [(b"x-amz-checksum-crc32", b"AAAAAA==")] if with_trailers else []
    encoder = Encoder(None if unsigned else signer(), with_trailers, chunk_size)
    body = b"".join(encoder.feed(payload[at : at + cuts]) for at in range(0, len(payload), cuts))
    body += encoder.finish(trailers)
    decoder = Decoder(kind, None if unsigned else signer(), len(payload), frozenset(name for name, _ in trailers))
    events = [event for at in range(0, len(body), step) for event in decoder.feed(body[at : at + step])]
    decoder.finish()
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == payload
    assert events[-1] == Done(trailers)
