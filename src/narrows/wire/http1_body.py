"""Bodies and blocks: what `http1` builds its two parsers on. See there for what is guaranteed."""

from __future__ import annotations

import re
from collections import deque
from typing import ClassVar, Final

from narrows.core.errors import ProtocolError
from narrows.wire.http1_head import (
    CHUNKED,
    FIELDS,
    LENGTH,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_LENGTH,
    NO_BODY,
    TOKEN,
    Head,
    split_fields,
    too_many_headers,
)
from narrows.wire.http1_refuse import bad_chunk_line, forbidden_trailer, too_large, why_trailers, wrong_byte
from narrows.wire.shape import Headers

MAX_EXTENSIONS: Final = 256
"""Limit of the extensions of one chunk, in bytes, from the first semicolon."""
_MAX_LINE: Final = 16 + MAX_EXTENSIONS + 2

# Below this a slice is copied, which is cheaper than a view and does not keep the whole block alive.
_COPY_BELOW: Final = 8192

# RFC 9112 7.1.1 without "bad whitespace": readers differ on it, and nobody sends it.
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSIONS: Final = rb"(?:;" + TOKEN + rb"+(?:=(?:" + TOKEN + rb"+|" + _QUOTED + rb"))?)*"
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(" + _EXTENSIONS + rb")\r\n")
_CHUNK_LINE_SO_FAR: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t -~\x80-\xff]*)?\r?")
_LAST: Final = re.compile(rb"0+" + _EXTENSIONS + rb"\r\n" + FIELDS + rb"\r\n")

# What comes next.
HEAD: Final = 0
_FIXED: Final = 1
_CHUNK: Final = 2
_CHUNK_DATA: Final = 3
_CHUNK_END: Final = 4
_TRAILERS: Final = 5
_UNTIL_CLOSE: Final = 6
_END: Final = 7
_CLOSED: Final = 8


class Data:
    """A piece of a body: `raw` as on the wire with its chunk framing, `payload` the body's bytes in it.

    For LENGTH and UNTIL_CLOSE the two are one object. For CHUNKED `payload` is empty where only framing came.
    Large pieces are views of the block that was fed; they stay valid as long as they are held.
    """

    __slots__ = ("payload", "raw")

    def __init__(self, raw: bytes | memoryview, payload: bytes | memoryview) -> None:
        self.raw = raw
        self.payload = payload

    def __repr__(self) -> str:
        return f"<Data {len(self.payload)} bytes>"


class End:
    """The end of a message: `raw` is the last chunk and trailers, or empty; `trailers` are as headers."""

    __slots__ = ("raw", "trailers")

    def __init__(self, raw: bytes, trailers: Headers) -> None:
        self.raw = raw
        self.trailers = trailers

    def __repr__(self) -> str:
        return f"<End {len(self.trailers)} trailers>"


class Parser:
    """Blocks in, pieces of messages out: all that requests and responses have in common.

    A block that was fed is read where it lies: `_buffer` from `_at` on, then the blocks in `_waiting`. Only a
    head, chunk line or trailer section that does not end in its block is gathered, in `_part`.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_closed",
        "_error",
        "_left",
        "_max_head",
        "_part",
        "_state",
        "_waiting",
        "_waiting_size",
    )

    _is_request: ClassVar[bool] = True

    def __init__(self, max_head: int = MAX_HEAD) -> None:
        self._max_head = max_head
        self._buffer = b""
        self._at = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_size = 0
        self._part = bytearray()
        self._state = HEAD
        self._left = 0
        self._closed = False
        self._error: ProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take a block from the peer. Nothing is copied or looked at. ValueError after `eof`."""
        if self._error is not None or not data:
            return
        if self._closed:
            raise ValueError("fed after eof")
        if self._at == len(self._buffer) and not self._waiting:
            self._buffer = data
            self._at = 0
        else:
            self._waiting.append(data)
            self._waiting_size += len(data)

    def eof(self) -> None:
        """The peer closed. Raises ProtocolError inside a message; `next` does so if bytes are yet to be read.

        A body that lasts until the close ends here: the following `next` gives its End. A server that closes
        before its answer began broke no rule: `mid_message` is False then.
        """
        if self._error is not None:
            return
        self._closed = True
        if self._at == len(self._buffer) and not self._waiting and self._state != _END:
            try:
                self._starved()
            except ProtocolError as error:
                self._fail(error)
                raise

    @property
    def buffered(self) -> int:
        """Bytes held."""
        return len(self._part) + len(self._buffer) - self._at + self._waiting_size

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun, be it by one byte, whose End was not given out yet."""
        if self._state != HEAD:
            return self._state != _CLOSED
        held = self.buffered
        return held > 0 and not (self._is_request and held == 2 and self._held() == b"\r\n")

    def take(self) -> bytes:
        """Give up all bytes held, as for a tunnel after CONNECT, where what follows is not HTTP."""
        rest = self._held()
        self._drop()
        return rest

    # -- errors and blocks

    def _fail(self, error: ProtocolError) -> None:
        """Keep the error for every later call (a copy: the raised one holds frames and their bytes)."""
        if not self._is_request:
            error.status = 502
        self._error = again(error)
        self._drop()

    def _drop(self) -> None:
        self._buffer = b""
        self._at = 0
        self._waiting.clear()
        self._waiting_size = 0
        self._part.clear()

    def _more(self) -> bool:
        """Whether the buffer has an unread byte, after going on to the next block if it had none."""
        if self._at < len(self._buffer):
            return True
        if self._waiting:
            self._buffer = self._waiting.popleft()
            self._waiting_size -= len(self._buffer)
            self._at = 0
            return True
        self._buffer = b""
        self._at = 0
        return False

    def _held(self) -> bytes:
        return bytes(self._part) + self._buffer[self._at :] + b"".join(self._waiting)

    def _starved(self) -> None:
        """No byte is left. Fine as long as the peer may still send; after `eof` only between messages."""
        if not self._closed or self._state == _UNTIL_CLOSE or self._state == _CLOSED:
            return
        if self._state == HEAD and (not self._part or (self._is_request and self._part == b"\r\n")):
            return
        raise ProtocolError("A message was cut short", "the peer closed the connection inside it")

    def _slice(self, start: int, end: int) -> bytes | memoryview:
        buffer = self._buffer
        if end - start == len(buffer):
            return buffer
        if end - start < _COPY_BELOW:
            return buffer[start:end]
        return memoryview(buffer)[start:end]

    def _unit(self, stop: bytes, limit: int) -> bytes | None:
        """The bytes up to and with the first `stop`, at most `limit` of them; None if not all have come."""
        part = self._part
        while self._more():
            buffer = self._buffer
            at = self._at
            had = len(part)
            if not had:
                found = buffer.find(stop, at, at + limit)
                if found >= 0:
                    self._at = found + len(stop)
                    return buffer[at : self._at]
            size = min(len(buffer) - at, limit - had)
            part += buffer[at : at + size]
            found = part.find(stop, max(0, had - len(stop) + 1))
            if found >= 0:
                unit = bytes(part[: found + len(stop)])
                self._at = at + len(unit) - had
                part.clear()
                return unit
            self._at = at + size
            self._check_part(had, limit)
        self._starved()
        return None

    def _check_part(self, had: int, limit: int) -> None:
        """Refuse an incomplete unit that no further byte can mend; `had` bytes of it were checked before."""
        part = self._part
        if self._state == _CHUNK:
            if len(part) >= limit or _CHUNK_LINE_SO_FAR.fullmatch(part) is None:
                raise bad_chunk_line()
            return
        wrong = wrong_byte(part, max(0, had - 1))
        if wrong is not None:
            raise wrong
        if len(part) >= limit:
            raise too_large(bytes(part), self._is_request and self._state == HEAD)

    # -- bodies

    def _begin(self, head: Head) -> None:
        framing = head.framing
        if framing == NO_BODY:
            self._state = _END
        elif framing == LENGTH:
            self._left = head.length
            self._state = _FIXED if head.length else _END
        elif framing == CHUNKED:
            self._state = _CHUNK
        else:
            self._state = _UNTIL_CLOSE

    def _body(self) -> Data | End | None:
        """The next piece of the body; called in every state but HEAD."""
        state = self._state
        if state == _END:
            self._state = HEAD
            return End(b"", [])
        if state == _FIXED:
            return self._fixed()
        if state == _CHUNK:
            return self._chunk()
        if state == _CHUNK_DATA:
            return self._next_data()
        if state == _CHUNK_END:
            return self._chunk_end()
        if state == _TRAILERS:
            return self._trailers()
        if state == _UNTIL_CLOSE:
            return self._until_close()
        return None

    def _fixed(self) -> Data | None:
        if not self._more():
            self._starved()
            return None
        start = self._at
        end = min(len(self._buffer), start + self._left)
        piece = self._slice(start, end)
        self._at = end
        self._left -= end - start
        if not self._left:
            self._state = _END
        return Data(piece, piece)

    def _until_close(self) -> Data | End | None:
        if self._more():
            piece = self._slice(self._at, len(self._buffer))
            self._at = len(self._buffer)
            return Data(piece, piece)
        if self._closed:
            self._state = _CLOSED
            return End(b"", [])
        return None

    def _chunk(self) -> Data | End | None:
        """A chunk line and, if they came with it, the chunk's bytes."""
        if not self._part and self._more():
            match = _CHUNK_LINE.match(self._buffer, self._at, self._at + _MAX_LINE)
            if match is not None:
                self._left = _chunk_size(match)
                if self._left:
                    return self._chunk_data(self._at, match.end())
                self._left = match.end() - self._at
                self._state = _TRAILERS
                return self._trailers()
        line = self._unit(b"\r\n", _MAX_LINE)
        if line is None:
            return None
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise bad_chunk_line()
        self._left = _chunk_size(match)
        if self._left:
            # Given out alone: joining it to the bytes after it would copy them.
            self._state = _CHUNK_DATA
            return Data(line, b"")
        self._left = len(line)
        self._state = _TRAILERS
        self._part += line
        return self._trailers()

    def _next_data(self) -> Data | None:
        if self._more():
            return self._chunk_data(self._at, self._at)
        self._starved()
        return None

    def _chunk_data(self, start: int, begin: int) -> Data:
        """What the buffer has of the chunk with bytes at `begin`; its line, if not out yet, is at `start`."""
        buffer = self._buffer
        end = min(len(buffer), begin + self._left)
        self._left -= end - begin
        stop = end
        if self._left:
            self._state = _CHUNK_DATA
        elif buffer.startswith(b"\r\n", end):
            stop = end + 2
            self._state = _CHUNK
        else:
            self._state = _CHUNK_END
        self._at = stop
        return Data(self._slice(start, stop), self._slice(begin, end))

    def _chunk_end(self) -> Data | None:
        """The CRLF after a chunk's bytes, when it did not come with them."""
        part = self._part
        while self._more():
            part.append(self._buffer[self._at])
            self._at += 1
            if part == b"\r\n":
                part.clear()
                self._state = _CHUNK
                return Data(b"\r\n", b"")
            if part != b"\r":
                raise ProtocolError("A chunk is malformed", "its bytes are not followed by CRLF")
        self._starved()
        return None

    def _trailers(self) -> End | None:
        """The last chunk line (`_left` bytes), the trailer lines and the empty line, as one unit."""
        section = self._unit(b"\r\n\r\n", self._left + self._max_head)
        if section is None:
            return None
        if _LAST.fullmatch(section) is None:
            raise why_trailers(section)
        lines = section.split(b"\r\n")
        if len(lines) - 3 > MAX_HEADERS:
            raise too_many_headers()
        trailers = split_fields(lines[1:-2])
        assert trailers is not None  # _LAST has matched them
        forbidden = forbidden_trailer([name for name, _ in trailers])
        if forbidden is not None:
            raise forbidden
        self._state = HEAD
        return End(section, trailers)


def again(error: ProtocolError) -> ProtocolError:
    """A copy of an error, free of the frames of the raised one."""
    return ProtocolError(error.what, error.why, error.hint, status=error.status)


def _chunk_size(match: re.Match[bytes]) -> int:
    size = int(match[1], 16)
    if size > MAX_LENGTH or match.end(2) - match.start(2) > MAX_EXTENSIONS:
        raise bad_chunk_line()
    return size
