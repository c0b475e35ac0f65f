"""The HTTP/1.1 codec of the path: bytes in, events out, strict RFC 9112, no I/O.

What is guaranteed, for `RequestParser` and `ResponseParser` alike:

- Verbatim: the `raw` of all events, one after another, followed by the bytes still held, is what was fed.
- Exact: what a peer may not send is refused with ProtocolError, and nothing else is ever raised for any
  bytes. A refused connection stays refused: every further `next` raises the same error, further bytes are
  dropped.
- However the bytes are cut into pieces, the events are the same once adjacent Data are joined, and so is the
  error.
- Bounded and linear: a head, a chunk line or a trailer section is held up to its limit, a body never; each
  byte is copied at most once and each search goes on where the last one ended. Bytes that `next` was not yet
  asked for are held too: who feeds looks at `buffered` and stops reading.

A message is: its head, any number of Data, one End. A 1xx response is a head alone. Order of calls: `feed`,
then `next` until it gives None, again; `eof` when the peer closed. Requests come out one after another
however they were pipelined; whether the second one waits is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from narrows.core.errors import ProtocolError
from narrows.wire.http1_body import HEAD, Data, End, Parser, again
from narrows.wire.http1_head import (
    CHUNKED,
    LENGTH,
    MAX_HEAD,
    MAX_HEADERS,
    NO_BODY,
    SWITCHING,
    UNTIL_CLOSE,
    RequestHead,
    ResponseHead,
    parse_request,
    parse_response,
)
from narrows.wire.http1_refuse import why_request, why_response

__all__ = [
    "CHUNKED",
    "LAST_CHUNK",
    "LENGTH",
    "MAX_HEAD",
    "MAX_HEADERS",
    "NO_BODY",
    "SWITCHING",
    "UNTIL_CLOSE",
    "Data",
    "End",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
    "build_head",
    "encode_chunk",
]

LAST_CHUNK: Final = b"0\r\n\r\n"
"""The end of a chunked body without trailers."""


class RequestParser(Parser):
    """Reads what a client sends on one connection. See the module for what is guaranteed.

    `max_head` limits a head and a trailer section, in bytes. Errors carry the status to answer with: 400,
    414, 417, 431, 501 or 505.
    """

    __slots__ = ()

    def next(self) -> RequestHead | Data | End | None:
        """The next event, or None if more bytes are needed. Raises ProtocolError."""
        if self._error is not None:
            raise again(self._error)
        try:
            if self._state != HEAD:
                return self._body()
            head: RequestHead | None = None
            if not self._part:
                if self._at == len(self._buffer) and not self._more():
                    return None
                head = parse_request(self._buffer, self._at, self._max_head)
            if head is not None:
                self._at += len(head.raw)
            else:
                unit = self._unit(b"\r\n\r\n", self._max_head)
                if unit is None:
                    return None
                head = parse_request(unit, 0, self._max_head)
                if head is None:
                    raise why_request(unit)
            self._begin(head)
            return head
        except ProtocolError as error:
            self._fail(error)
            raise


class ResponseParser(Parser):
    """Reads what a server sends on one connection. See the module for what is guaranteed.

    Every response must be announced by `expect`: bytes that answer no request are refused, so that what is
    left of one exchange never becomes the answer to another. All errors carry status 502.
    """

    __slots__ = ("_method",)

    _is_request: ClassVar[bool] = False

    def __init__(self, max_head: int = MAX_HEAD) -> None:
        super().__init__(max_head)
        self._method = b""

    def expect(self, method: bytes) -> None:
        """A request of `method` was sent; its response comes next. ValueError if one is still due.

        After the head of a 101, which only SWITCHING allows, all that follows is for `take`.
        """
        if self._method:
            raise ValueError("a response is still due")
        self._method = method

    def next(self) -> ResponseHead | Data | End | None:
        """The next event, or None if more bytes are needed. Raises ProtocolError."""
        if self._error is not None:
            raise again(self._error)
        try:
            if self._state != HEAD:
                return self._body()
            head: ResponseHead | None = None
            if not self._part:
                if self._at == len(self._buffer) and not self._more():
                    return None
                if not self._method:
                    raise ProtocolError("The server sent bytes that answer no request", "no response is due")
                head = parse_response(self._buffer, self._at, self._max_head, self._method)
            if head is not None:
                self._at += len(head.raw)
            else:
                unit = self._unit(b"\r\n\r\n", self._max_head)
                if unit is None:
                    return None
                head = parse_response(unit, 0, self._max_head, self._method)
                if head is None:
                    raise why_response(unit)
            if head.status >= 200:
                self._method = b""
                self._begin(head)
            return head
        except ProtocolError as error:
            self._fail(error)
            raise


def encode_chunk(payload: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """The pieces of one chunk, to be written in order; `payload` is not copied. None for an empty payload."""
    if not len(payload):
        return ()
    return (b"%x\r\n" % len(payload), payload, b"\r\n")


def build_head(first_line: bytes, lines: Iterable[bytes]) -> bytes:
    """A head from its first line and header lines, all without line ends.

    Raises ProtocolError if a line is empty or holds a CR or LF: it would add lines of its own.
    """
    parts = [first_line, *lines, b"", b""]
    head = b"\r\n".join(parts)
    breaks = len(parts) - 1
    added = head.count(b"\r") != breaks or head.count(b"\n") != breaks
    if added or not first_line or head.find(b"\r\n\r\n") != len(head) - 4:
        raise ProtocolError("A head could not be built", "one of its lines is empty or holds a line break")
    return head
