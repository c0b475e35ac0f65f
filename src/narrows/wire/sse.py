"""Server-sent events: bytes in, events out, no I/O.

Source: WHATWG HTML, "Server-sent events", section 9.2.6 (interpreting an event stream).

Guaranteed: whatever bytes come in, the parser gives events or raises ProtocolError, the same however the bytes were cut
into pieces; it holds at most one line and one event, each up to its limit. Bytes that are not UTF-8 become U+FFFD.

Order of calls: `feed`, then `next` until it gives None, again; `finish` when no more bytes come.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from narrows.core.errors import ProtocolError

MAX_LINE: Final = 32 << 20
"""Bytes of one line. An answer with an image in it is one line of some megabytes."""
MAX_EVENT: Final = 64 << 20
"""Bytes of the data lines of one event together."""

_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `name` and `id` are empty where the stream gave none (the standard's `message` is not filled in)."""

    name: str
    data: str
    id: str = ""


class Parser:
    """Parses one stream. After an error it is dead: `next` raises the same error again."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_error",
        "_first",
        "_id",
        "_line",
        "_max_event",
        "_max_line",
        "_name",
        "_ready",
        "_size",
    )

    def __init__(self, max_line: int = MAX_LINE, max_event: int = MAX_EVENT) -> None:
        self._max_line = max_line
        self._max_event = max_event
        self._line = bytearray()
        self._ready: deque[Event] = deque()
        self._data: list[str] = []
        self._size = 0
        self._name = ""
        self._id = ""
        self._first = True
        self._after_cr = False
        self._error: ProtocolError | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises nothing: an error comes from `next`, after the events before it."""
        raw = bytes(data)
        if self._after_cr and raw:
            self._after_cr = False
            if raw[0] == 10:
                raw = raw[1:]  # the second half of a line end that was cut
        if not raw or self._error is not None:
            return
        *lines, rest = _END.split(raw)
        for line in lines:
            self._line += line
            if not self._end_of_line():
                return
        self._after_cr = raw.endswith(b"\r")
        self._line += rest
        if len(self._line) > self._max_line:
            self._fail("a line is too long", f"more than {self._max_line} bytes")

    def next(self) -> Event | None:
        """The next event, or None if it has not come yet. Raises ProtocolError."""
        if self._ready:
            return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return None

    def finish(self) -> Event | None:
        """The event that the end of the stream left without its blank line, if there is one.

        The standard drops it. Who describes a stream that was cut wants it, and has to know that it may be half.
        """
        if self._error is None and self._line:
            self._end_of_line()
        if self._error is not None or not self._data:
            return None
        event = Event(self._name, "\n".join(self._data), self._id)
        self._forget()
        return event

    def _end_of_line(self) -> bool:
        """Take the line that is held; False if it was refused."""
        line = bytes(self._line)
        self._line.clear()
        if len(line) > self._max_line:
            self._fail("a line is too long", f"more than {self._max_line} bytes")
            return False
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                self._ready.append(Event(self._name, "\n".join(self._data), self._id))
            self._forget()
        elif line[0] != 58:  # a line that starts with a colon is a comment
            self._field(line)
        return self._error is None

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self._max_event:
                self._fail("an event is too long", f"more than {self._max_event} bytes of data")
                return
            self._data.append(text)
        elif name == b"event":
            self._name = text
        elif name == b"id" and "\x00" not in text:
            self._id = text

    def _forget(self) -> None:
        self._data = []
        self._size = 0
        self._name = ""

    def _fail(self, why: str, detail: str) -> None:
        self._error = ProtocolError(f"The event stream was refused: {why}", detail)
