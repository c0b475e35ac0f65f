"""Gathering frames into records, and a record's leaf. Pure; the sealer and `narrows verify` share it.

Rules: REQUEST, SENT, RESPONSE and EVENT frames with the same exchange id are one record; the frame marked FINAL ends
it, and an EVENT always does. SESSION_OPEN, SESSION_CLOSE, GAP, ADMIN and WRITER_CLOSE are a record each, and so is
the SEGMENT frame with sequence number 0 (a writer begins). Other SEGMENT frames are in the chain only. A record is
known by its writer and its first sequence number.
"""

from __future__ import annotations

from hashlib import sha256

from narrows.core.ids import text
from narrows.record.log.frame import Flag, Frame, Kind
from narrows.record.log.leaf import EMPTY_SHA256, VERSION, Place, Sealed, Span, brief, canonical, facts

MAX_SPANS = 64
JOIN = 64 * 1024
"""Spans closer than this are one: reading on is cheaper than another seek."""

UNFINISHED = "unfinished"
_TYPES = {
    Kind.SESSION_OPEN: "session_open",
    Kind.SESSION_CLOSE: "session_close",
    Kind.GAP: "gap",
    Kind.ADMIN: "admin",
    Kind.WRITER_CLOSE: "writer_close",
    Kind.SEGMENT: "writer_open",
}
_EXCHANGE = frozenset((Kind.REQUEST, Kind.SENT, Kind.RESPONSE, Kind.EVENT))
_FINAL = int(Flag.FINAL)


class Direction:
    """Length and SHA-256 of one direction's bytes."""

    __slots__ = ("hash", "length")

    def __init__(self) -> None:
        self.length = 0
        self.hash = sha256()

    def add(self, data: bytes) -> None:
        """Take further bytes in."""
        self.length += len(data)
        self.hash.update(data)

    def value(self) -> dict[str, object]:
        """What the leaf says of this direction."""
        return {"length": self.length, "sha256": self.hash.hexdigest() if self.length else EMPTY_SHA256}


class Record:
    """A record that is being gathered: digests and places, no bytes. Memory is bounded whatever its size."""

    __slots__ = (
        "closed_ns", "exchange", "first_seq", "frames", "last_seq", "metas", "opened_ns", "request",
        "request_facts", "response", "response_facts", "sent", "sent_facts", "session", "spans", "type", "writer",
    )  # fmt: skip

    def __init__(self, type_: str, writer: str, frame: Frame) -> None:
        self.type = type_
        self.writer = writer
        self.session = frame.session
        self.exchange = frame.exchange
        self.first_seq = self.last_seq = frame.seq
        self.opened_ns = self.closed_ns = frame.wall_ns
        self.frames = 0
        self.metas = sha256()
        self.request = Direction()
        self.sent = Direction()
        self.response = Direction()
        self.request_facts: dict[str, object] = {}
        self.sent_facts: dict[str, object] = {}
        self.response_facts: dict[str, object] = {}
        self.spans: list[list[int]] = []

    def add(self, frame: Frame, part: int, offset: int) -> None:
        """Take the next frame in, which lies in `part` at raw `offset`."""
        self.frames += 1
        self.last_seq = frame.seq
        self.closed_ns = frame.wall_ns
        self._place(part, offset, frame.size)
        kind, meta, data = frame.kind, frame.meta, frame.data
        if meta:
            self.metas.update(bytes((kind,)) + len(meta).to_bytes(4, "big") + meta)
        if kind == Kind.RESPONSE:
            if data:
                self.response.add(data)
            if meta:
                self.response_facts.update(facts(meta))
        elif kind == Kind.SENT:
            if data:
                self.sent.add(data)
            if meta:
                self.sent_facts.update(facts(meta))
        else:
            if data:
                self.request.add(data)
            if meta and not self.request_facts:
                self.request_facts = facts(meta)

    def _place(self, part: int, offset: int, size: int) -> None:
        spans = self.spans
        if spans:
            last = spans[-1]
            gap = offset - last[1] - last[2]
            if last[0] == part and (gap <= JOIN or len(spans) >= MAX_SPANS):
                last[2] = offset + size - last[1]
                return
        spans.append([part, offset, size])

    @property
    def key(self) -> tuple[str, int]:
        """Writer and first sequence number: no two records have the same."""
        return self.writer, self.first_seq

    def finish(self, *, unfinished: bool = False) -> tuple[bytes, Sealed]:
        """The leaf's bytes, and what the index gets (its `leaf_index` is still to be set)."""
        told = self.request_facts
        outcome = UNFINISHED if unfinished else brief(self.response_facts.get("outcome"))
        kind = brief(told.get("kind")) if self.type == "exchange" else ""
        request, response = self.request.value(), self.response.value()
        sent = self.sent.hash.hexdigest() if self.sent.length else EMPTY_SHA256
        leaf = canonical(
            {
                "closed_ns": self.closed_ns,
                "decision": brief(told.get("decision")),
                "durability": brief(told.get("durability")),
                "exchange": text(self.exchange),
                "facts_sha256": self.metas.hexdigest(),
                "first_seq": self.first_seq,
                "frames": self.frames,
                "kind": kind,
                "last_seq": self.last_seq,
                "opened_ns": self.opened_ns,
                "outcome": outcome,
                "policy_version": brief(told.get("policy_version")),
                "request": request,
                "response": response,
                "sent_sha256": sent,
                "session": text(self.session),
                "type": self.type,
                "v": VERSION,
                "writer": self.writer,
            }
        )
        place = Place(self.session, self.exchange, tuple(Span(*span) for span in self.spans))
        sealed = Sealed(
            self.type, -1, place, kind, self.writer, self.first_seq, self.last_seq, self.opened_ns, self.closed_ns,
            outcome, self.request.length, self.response.length, str(request["sha256"]), str(response["sha256"]), sent,
            told, self.response_facts, self.sent_facts,
        )  # fmt: skip
        return leaf, sealed


class Gatherer:
    """Open records by exchange. Frames of one writer come in their order."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: dict[bytes, Record] = {}

    def feed(self, writer: str, frame: Frame, part: int, offset: int) -> Record | None:
        """Take a frame in; returns the record that it completes, if it does."""
        kind = frame.kind
        if kind in _EXCHANGE:
            exchange = frame.exchange
            record = self.open.get(exchange)
            if record is None:
                record = Record("exchange", writer, frame)
                if not (frame.flags & _FINAL or kind == Kind.EVENT):
                    self.open[exchange] = record
            record.add(frame, part, offset)
            if frame.flags & _FINAL or kind == Kind.EVENT:
                self.open.pop(exchange, None)
                return record
            return None
        type_ = _TYPES.get(Kind(kind)) if kind in Kind._value2member_map_ else "gap"
        if type_ is None or (kind == Kind.SEGMENT and frame.seq):
            return None
        if kind == Kind.ADMIN and facts(frame.meta).get("action") == "erasure":
            type_ = "erasure"
        record = Record(type_, writer, frame)
        record.add(frame, part, offset)
        return record

    def of_writer(self, writer: str) -> list[Record]:
        """Open records of that writer, in the order in which they began."""
        return sorted((r for r in self.open.values() if r.writer == writer), key=lambda r: r.first_seq)
