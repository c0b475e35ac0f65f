"""Reads the recorded bytes of one exchange back to heads and bodies without framing, as far as they go."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from narrows.core.errors import NarrowsError, ProtocolError
from narrows.wire import aws_chunked
from narrows.wire.http1 import Data, End, RequestHead, RequestParser, ResponseHead, ResponseParser
from narrows.wire.sigv4 import PayloadKind

INFLATED = 8 << 20
"""Bytes to which a compressed body is expanded at most."""


@dataclass(slots=True)
class Message:
    """A request or response as recorded. `whole` is False where its end is missing."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    problems: list[str] = field(default_factory=list)

    def header(self, name: bytes) -> str:
        """The first value of a header (lower-case name), or an empty string."""
        for given, value in self.headers:
            if len(given) == len(name) and given.lower() == name:
                return value.decode("latin-1")
        return ""


def read_request(raw: bytes) -> Message:
    """A recorded request. What is malformed is told in `problems`."""
    out = Message()
    parser = RequestParser()
    parts: list[bytes] = []
    try:
        parser.feed(raw)
        while (event := parser.next()) is not None:
            if isinstance(event, RequestHead):
                out.method, out.target, out.headers = event.method, event.target, event.headers
            elif isinstance(event, Data):
                parts.append(bytes(event.payload))
            elif isinstance(event, End):
                out.whole = True
                break
    except ProtocolError as error:
        out.problems.append(f"request: {error}")
    out.body = _aws_chunked(b"".join(parts), out)
    return _inflated(out, "request")


def read_response(raw: bytes, method: bytes, *, cut: bool) -> Message:
    """The final response in recorded bytes, after any 1xx. `cut` says that the bytes are only the first ones."""
    out = Message()
    parser = ResponseParser()
    parts: list[bytes] = []
    try:
        parser.expect(method or b"GET")
        parser.feed(raw)
        if not cut:
            parser.eof()
        while (event := parser.next()) is not None:
            if isinstance(event, ResponseHead):
                out.status, out.headers = event.status, event.headers
            elif isinstance(event, Data):
                parts.append(bytes(event.payload))
            elif isinstance(event, End):
                out.whole = True
                break
    except ProtocolError as error:
        out.problems.append(f"response: {error}")
    out.body = b"".join(parts)
    return _inflated(out, "response")


def _aws_chunked(body: bytes, message: Message) -> bytes:
    """A request body without aws-chunked framing. Signatures are not checked here: the path has checked them."""
    declared = message.header(b"x-amz-content-sha256")
    if not declared.startswith("STREAMING-") or declared.endswith("-EVENTS"):
        return body
    try:
        kind = PayloadKind(declared)
        decoder = aws_chunked.Decoder(kind, None, None, _trailers(message), unverified=True)
        chunks = [event.data for event in decoder.feed(body) if isinstance(event, aws_chunked.Chunk)]
    except (NarrowsError, ValueError) as error:
        message.problems.append(f"request: aws-chunked: {error}")
        return b""
    return b"".join(bytes(chunk) for chunk in chunks)


def _trailers(message: Message) -> frozenset[bytes]:
    names = message.header(b"x-amz-trailer").lower().split(",")
    return frozenset(name.strip().encode("latin-1") for name in names if name.strip())


def _inflated(message: Message, which: str) -> Message:
    """gzip bodies of API calls expanded, within bounds; an S3 object keeps the encoding it was stored with."""
    coding = message.header(b"content-encoding").lower().replace("aws-chunked", "").strip(" ,")
    if coding not in ("gzip", "x-gzip") or not message.body:
        return message
    machine = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        inflated = machine.decompress(message.body, INFLATED)
    except zlib.error as error:
        message.problems.append(f"{which}: gzip: {error}")
        return message
    if machine.unconsumed_tail:
        message.problems.append(f"{which}: gzip body of more than {INFLATED} bytes, not decoded further")
        message.whole = False
    message.body = inflated
    return message
