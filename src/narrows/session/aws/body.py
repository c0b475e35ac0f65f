"""Request bodies of AWS calls: checked against what the head declared and, where chunks are signed, re-signed.

Sources: AWS "Signature Version 4 for streaming uploads" (chunked and trailer forms) and the Smithy event-stream
signing of `STREAMING-AWS4-HMAC-SHA256-EVENTS`.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

from narrows.core.errors import Refusal
from narrows.core.ports import Clock
from narrows.wire import aws_chunked, eventstream

CHUNK = 64 * 1024
"""Payload bytes of one re-signed chunk. AWS asks for at least 8 KiB in every chunk but the last."""


class DeclaredDigest:
    """A body whose SHA-256 stands in `x-amz-content-sha256`: passed on while it is hashed."""

    __slots__ = ("_declared", "_hash")

    def __init__(self, declared: str) -> None:
        self._declared = declared
        self._hash = sha256()

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Hash and pass on."""
        self._hash.update(data)
        return data

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """Compare. Raises Refusal, so that the held-back end of the body is never sent."""
        if not compare_digest(self._hash.hexdigest(), self._declared):
            raise Refusal(
                "The body is not the one that was signed",
                "its SHA-256 differs from x-amz-content-sha256",
                "the request was not completed at the target; send it again",
                code="payload_mismatch",
                status=400,
                aws_code="XAmzContentSHA256Mismatch",
            )
        return b""


class UnsignedChunks:
    """aws-chunked without chunk signatures: the same bytes go on; the framing is checked on the way."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: aws_chunked.Decoder) -> None:
        self._decoder = decoder

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Check the framing and pass on. Raises ProtocolError."""
        self._decoder.feed(bytes(data))
        return data

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """Raises ProtocolError when the last chunk or a declared trailer is missing."""
        self._decoder.finish()
        return b""


class ResignedChunks:
    """aws-chunked with chunk signatures: each of the client's is verified, and the payload signed anew.

    The client's chunk boundaries are not kept: payload goes on in chunks of CHUNK bytes, so that a client's chunk
    of any size never has to be held. A bad signature surfaces before the last chunk is sent.
    """

    __slots__ = ("_decoder", "_encoder", "_trailers")

    def __init__(self, decoder: aws_chunked.Decoder, encoder: aws_chunked.Encoder) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Verify what is whole, return what can be signed. Raises AuthError, ProtocolError."""
        out = []
        for event in self._decoder.feed(bytes(data)):
            if isinstance(event, aws_chunked.Chunk):
                out.append(self._encoder.feed(event.data))
            elif isinstance(event, aws_chunked.Done):
                self._trailers = list(event.trailers)
        return b"".join(out)

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """The last chunk and, where declared, the signed trailer."""
        self._decoder.finish()
        return self._encoder.finish(self._trailers)


class ResignedEvents:
    """An event stream as input, each event signed: verified, and signed anew with the same date.

    An event goes on as soon as it is whole, so that a conversation in both directions is not held up.
    """

    __slots__ = ("_clock", "_decoder", "_signer", "_verifier")

    def __init__(self, verifier: eventstream.EventVerifier, signer: eventstream.EventSigner, clock: Clock) -> None:
        self._decoder = eventstream.Decoder()
        self._verifier = verifier
        self._signer = signer
        self._clock = clock

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Verify and re-sign the events that are whole. Raises AuthError, ProtocolError."""
        out = []
        for message in self._decoder.feed(data):
            payload = self._verifier.verify(message, self._clock.wall_ns() / 1e9)
            date = message.headers[":date"].value
            assert isinstance(date, int)  # the verifier saw to it
            out.append(eventstream.encode(self._signer.sign(payload, date)))
        return b"".join(out)

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """Raises ProtocolError when the stream ends inside an event."""
        self._decoder.finish()
        return b""
