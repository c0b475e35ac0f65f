"""WebSocket frames, one direction at a time, as somebody reads them who stands between the two ends.

Sans-I/O and pure. Sources: RFC 6455 (the protocol), RFC 7692 (permessage-deflate, in `websocket_deflate`).

    frame = FIN RSV1-3 opcode (1 byte) | MASK length (1 byte) | length (0, 2 or 8 bytes) | key (4 bytes) | payload

Guaranteed: whatever bytes come in, the parser gives events or raises ProtocolError, the same however the bytes were cut
into pieces. It refuses what an end must refuse: a client's frame that is not masked or a server's that is (5.1), bits
and opcodes that nobody agreed on (5.2), lengths that are not in their shortest form, fragmented or long control frames
(5.5), text that is not UTF-8 (8.1), close codes that may not be sent (7.4), bytes after a close frame. It holds at most
one message, up to its limit also where it is compressed.

Order of calls: `feed`, then `next` until it gives None, again; `finish` when no more bytes come. Nothing is answered:
bytes go on as they came, and `consumed` says up to where they have been read and understood. (The libraries for
WebSockets are made to be an end: they answer, and wsproto expands a compressed message without a limit.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from narrows.core.errors import ProtocolError
from narrows.wire.http1_body import again
from narrows.wire.websocket_deflate import Deflate, Inflater

MAX_MESSAGE: Final = 64 << 20
"""Bytes of one message, after it was expanded."""

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FIN, _RSV1, _RSV, _OPCODE, _MASK, _LENGTH = 0x80, 0x40, 0x70, 0x0F, 0x80, 0x7F
_CONTROL: Final = 125
_CODES: Final = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


@dataclass(frozen=True, slots=True)
class Text:
    """A text message, whole. `end` counts the stream's bytes up to its last frame's end; so in all events."""

    text: str
    end: int


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary message, whole."""

    data: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping; may stand between the frames of a message."""

    data: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong; likewise."""

    data: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Close:
    """The close frame, after which nothing comes. `code` is 0 where it gave none."""

    code: int
    reason: str
    end: int


Event = Text | Binary | Ping | Pong | Close


class Parser:
    """Parses one direction. After an error it is dead: `next` raises the same error again.

    `masked` is True for what a client sends. `deflate` is what the handshake agreed on, None for no compression.
    `max_message` bounds a message in bytes.
    """

    __slots__ = (
        "_buffer", "_closed", "_compressed", "_data", "_error", "_from_client", "_inflater", "_max", "_opcode",
        "consumed",
    )  # fmt: skip

    def __init__(self, *, masked: bool, deflate: Deflate | None = None, max_message: int = MAX_MESSAGE) -> None:
        self.consumed = 0
        """Bytes of the stream that were read as whole frames."""
        self._from_client = masked
        self._max = max_message
        self._inflater = Inflater(deflate.takeover(from_client=masked)) if deflate is not None else None
        self._buffer = bytearray()
        self._opcode = CONTINUATION  # of the message that is under way; CONTINUATION stands for none
        self._compressed = False
        self._data = bytearray()
        self._closed = False
        self._error: ProtocolError | None = None

    @property
    def closed(self) -> bool:
        """Whether the close frame came."""
        return self._closed

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self._error is None:
            self._buffer += data

    def next(self) -> Event | None:
        """The next event, None when more bytes are needed. Raises ProtocolError."""
        if self._error is not None:
            raise again(self._error)
        try:
            return self._next()
        except ProtocolError as error:
            self._error = error
            self._buffer.clear()
            self._data.clear()
            raise

    def finish(self) -> None:
        """Say that no more bytes come, after `next` gave None. Raises ProtocolError within a frame or a message."""
        if self._error is not None:
            raise again(self._error)
        if self._buffer or self._opcode:
            self._error = _bad("it ended within a message")
            raise self._error

    def _next(self) -> Event | None:
        while self._buffer:
            if self._closed:
                raise _bad("it went on after its close frame")
            head = self._head()
            if head is None:
                return None
            first, start, size = head
            if len(self._buffer) < start + size:
                return None
            payload = bytes(memoryview(self._buffer)[start : start + size])
            if self._from_client:
                payload = mask(payload, bytes(self._buffer[start - 4 : start]))
            del self._buffer[: start + size]
            self.consumed += start + size
            event = self._frame(first, payload)
            if event is not None:
                return event
        return None

    def _head(self) -> tuple[int, int, int] | None:
        """(first byte, where the payload starts, its length) of the frame at hand; None when its head is not whole.

        Every rule is checked as soon as its bytes are there, before a payload is waited for.
        """
        buffer = self._buffer
        first = buffer[0]
        self._check_first(first)
        if len(buffer) < 2:
            return None
        if bool(buffer[1] & _MASK) is not self._from_client:
            raise _bad("a client's frame is not masked" if self._from_client else "a server's frame is masked")
        size, start = buffer[1] & _LENGTH, 2
        if first & CLOSE and size > _CONTROL:
            raise _bad(f"a control frame is longer than {_CONTROL} bytes")
        if size > _CONTROL:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
            if size <= (_CONTROL if start == 4 else 0xFFFF):
                raise _bad("a frame's length is not in its shortest form")
        if not first & CLOSE and size + len(self._data) > self._max:
            raise _bad(f"a message is longer than {self._max} bytes")
        if self._from_client:
            start += 4
        return first, start, size

    def _check_first(self, first: int) -> None:
        opcode = first & _OPCODE
        if opcode not in _OPCODES:
            raise _bad("a frame has an opcode that does not exist")
        starts = opcode in (TEXT, BINARY)
        if first & _RSV and not (first & _RSV == _RSV1 and starts and self._inflater is not None):
            raise _bad("a frame has a reserved bit set that was not agreed on")
        if opcode & CLOSE:
            if not first & _FIN:
                raise _bad("a control frame is fragmented")
        elif starts and self._opcode:
            raise _bad("a message begins before the one under way ended")
        elif not starts and not self._opcode:
            raise _bad("a frame continues a message that did not begin")

    def _frame(self, first: int, payload: bytes) -> Event | None:
        opcode = first & _OPCODE
        if opcode == PING:
            return Ping(payload, self.consumed)
        if opcode == PONG:
            return Pong(payload, self.consumed)
        if opcode == CLOSE:
            self._closed = True
            code, reason = _closing(payload)
            return Close(code, reason, self.consumed)
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & _RSV1)
        self._data += payload
        if not first & _FIN:
            return None
        return self._message()

    def _message(self) -> Event:
        data, opcode = bytes(self._data), self._opcode
        self._data.clear()
        self._opcode = CONTINUATION
        if self._compressed and self._inflater is not None:
            data = self._inflater.message(data, self._max)
        if opcode == BINARY:
            return Binary(data, self.consumed)
        return Text(_utf8(data, "a text message"), self.consumed)


def mask(payload: bytes, key: bytes) -> bytes:
    """A payload masked, or unmasked, with a key of 4 bytes (5.3)."""
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def frame(opcode: int, payload: bytes, key: bytes = b"", *, fin: bool = True, compressed: bool = False) -> bytes:
    """The bytes of one frame in its shortest form, masked where `key` (4 bytes) is given."""
    size = len(payload)
    bit = _MASK if key else 0
    out = bytearray((opcode | (_FIN if fin else 0) | (_RSV1 if compressed else 0),))
    if size <= _CONTROL:
        out.append(bit | size)
    elif size <= 0xFFFF:
        out += bytes((bit | 126,)) + size.to_bytes(2, "big")
    else:
        out += bytes((bit | 127,)) + size.to_bytes(8, "big")
    return bytes(out) + key + (mask(payload, key) if key else payload)


def close_frame(code: int, reason: str = "", key: bytes = b"") -> bytes:
    """A close frame. Raises ValueError for a code that may not be sent and a reason of more than 123 bytes."""
    text = reason.encode()
    if not _may_be_sent(code) or len(text) > _CONTROL - 2:
        raise ValueError("a close frame has a code that may be sent and a reason of at most 123 bytes")
    return frame(CLOSE, code.to_bytes(2, "big") + text, key)


def read_all(raw: bytes, parser: Parser) -> tuple[list[Event], str]:
    """(the events of bytes that came whole, what broke the protocol at their end or an empty string)."""
    events: list[Event] = []
    parser.feed(raw)
    try:
        while (event := parser.next()) is not None:
            events.append(event)
        parser.finish()
    except ProtocolError as error:
        return events, str(error)
    return events, ""


def _closing(payload: bytes) -> tuple[int, str]:
    if not payload:
        return 0, ""
    if len(payload) < 2:
        raise _bad("a close frame's code is cut off")
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):
        raise _bad("a close frame has a code that may not be sent")
    return code, _utf8(payload[2:], "a close frame's reason")


def _may_be_sent(code: int) -> bool:
    return code in _CODES or 3000 <= code <= 4999


def _utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"{what} is not UTF-8") from error


def _bad(why: str) -> ProtocolError:
    return ProtocolError("the WebSocket was not understood", why)
