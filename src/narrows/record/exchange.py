"""The record of one exchange: exactly one opening and one closing frame, whatever happens between.

The path makes one of these per request and passes every byte through it. `close` may be called once only from
the path's happy end or from any of its refusals; `ensure_closed` is for the path's last `finally`.
"""

from __future__ import annotations

import os
from typing import Any

import orjson

from narrows.core import ids
from narrows.core.ports import Clock, Recorder
from narrows.core.values import Outcome
from narrows.record.log.frame import Flag, Kind

_BEGIN = int(Flag.BEGIN)
_END = int(Flag.END)
_FINAL = int(Flag.FINAL)
_BUFFERED = int(Flag.BUFFERED)
_REQUEST = int(Kind.REQUEST)
_SENT = int(Kind.SENT)
_RESPONSE = int(Kind.RESPONSE)

class _Chance:
    """Random bytes, fetched from the system many at a time: a call for ten bytes costs as much as one for 4 KiB."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def ten(self) -> bytes:
        """Ten bytes, each handed out once."""
        if self._at + 10 > len(self._pool):
            self._pool = os.urandom(4000)
            self._at = 0
        self._at += 10
        return self._pool[self._at - 10 : self._at]


_chance = _Chance()

PIECE = 1024 * 1024
"""Longest data of one frame, bytes; longer pieces are split."""


class ExchangeRecord:
    """Writes the frames of one exchange. Sizes are bytes on the wire; `started_ns` is monotonic."""

    __slots__ = (
        "_mark", "_recorder", "bytes_in", "bytes_out", "closed", "id", "last", "opened", "session", "started_ns",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._mark = 0
        self.id = ids.uuid7(clock.wall_ns(), _chance.ten())
        self.session = ids.NIL
        self.started_ns = clock.mono_ns()
        self.opened = False
        self.closed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.last = -1

    def open(self, session: bytes, facts: dict[str, Any], data: bytes, *, whole: bool, buffered: bool) -> None:
        """Write the opening frame: who, what, the decision, and what has come of the request so far."""
        self.opened = True
        self.session = session
        self._mark = _BUFFERED if buffered else 0
        self.bytes_in += len(data)
        meta = orjson.dumps(facts)
        flags = self._mark | _BEGIN
        if len(data) <= PIECE:
            self.last = self._recorder.append(_REQUEST, flags | _END if whole else flags, session, self.id, meta, data)
            return
        self.last = self._recorder.append(_REQUEST, flags, session, self.id, meta, data[:PIECE])
        self._split(_REQUEST, memoryview(data)[PIECE:], _END if whole else 0, b"")

    def request(self, data: bytes | memoryview, *, end: bool) -> None:
        """Write further bytes of the request."""
        self.bytes_in += len(data)
        self._split(_REQUEST, data, _END if end else 0, b"")

    def sent(self, data: bytes, facts: dict[str, Any]) -> None:
        """Write the head that goes upstream (scrubbed by the caller), and to where."""
        self.last = self._recorder.append(_SENT, self._mark, self.session, self.id, orjson.dumps(facts), data)

    def response(self, data: bytes | memoryview) -> None:
        """Write bytes of the answer."""
        self.bytes_out += len(data)
        self._split(_RESPONSE, data, 0, b"")

    def close(self, data: bytes | memoryview, outcome: Outcome, facts: dict[str, Any]) -> None:
        """Write the last bytes of the answer and how the exchange ended. Nothing may follow."""
        self.closed = True
        self.bytes_out += len(data)
        facts["outcome"] = outcome.value
        facts["bytes_in"] = self.bytes_in
        facts["bytes_out"] = self.bytes_out
        self._split(_RESPONSE, data, _END | _FINAL, orjson.dumps(facts))

    def ensure_closed(self, outcome: Outcome, facts: dict[str, Any]) -> None:
        """Close an exchange that was opened and not closed; otherwise do nothing."""
        if self.opened and not self.closed:
            self.close(b"", outcome, facts)

    def _split(self, kind: int, data: bytes | memoryview, flags: int, meta: bytes) -> None:
        """Append `data` in frames of at most PIECE; flags and meta go on the last."""
        flags |= self._mark
        if len(data) <= PIECE:
            self.last = self._recorder.append(kind, flags, self.session, self.id, meta, data)
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            final = start + PIECE >= len(view)
            self.last = self._recorder.append(
                kind, flags if final else self._mark, self.session, self.id, meta if final else b"", piece
            )
