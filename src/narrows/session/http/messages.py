"""Reads the recorded bytes of one exchange back to heads and bodies without framing, as far as they go."""

from __future__ import annotations

from dataclasses import dataclass, field

from narrows.core.errors import NarrowsError, ProtocolError
from narrows.session.http.codings import decode
from narrows.wire import aws_chunked
from narrows.wire.http1 import Data, End, RequestHead, RequestParser, ResponseHead, ResponseParser
from narrows.wire.sigv4 import PayloadKind

INFLATED = 8 << 20
"""Bytes to which a compressed body is expanded at most."""


@dataclass(slots=True)
class Message:
    """A request or response as recorded. `whole` is False where its end is missing.

    `body` is without framing and content codings, `stored` without framing only: what the target takes as the content.
    """

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    stored: bytes = b""
    whole: bool = False
    problems: list[str] = field(default_factory=list)

    def header(self, name: bytes) -> str:
        """The first value of a header (lower-case name), or an empty string."""
        for given, value in self.headers:
            if len(given) == len(name) and given.lower() == name:
                return value.decode("latin-1")
        return ""


def read_request(raw: bytes, limit: int = INFLATED) -> Message:
    """A recorded request, a compressed body expanded to `limit` bytes. What is malformed is told in `problems`."""
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
    return _decoded(out, "request", limit)


def read_response(raw: bytes, method: bytes, *, cut: bool, limit: int = INFLATED) -> Message:
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
    return _decoded(out, "response", limit)


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


def _decoded(message: Message, which: str, limit: int) -> Message:
    """The body without its content codings, within bounds."""
    message.stored = message.body
    codings = message.header(b"content-encoding").lower().replace("aws-chunked", "")
    if not message.body or not codings.strip(" ,"):
        return message
    message.body, whole, wrong = decode(codings, message.body, limit)
    if wrong:
        message.problems.append(f"{which}: {wrong}")
    elif not whole:
        message.problems.append(f"{which}: a compressed body of more than {limit} bytes, not decoded further")
        message.whole = False
    return message
