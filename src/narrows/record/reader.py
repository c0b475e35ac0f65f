"""Reading sealed records back from a session's parts.

Every byte that leaves here has passed the block's digest and the frame's: what is damaged raises ProofError and
names file and offset. Memory is bounded, whatever the body's length: one block and its compressed form, the text of
earlier blocks that it names, which is no longer than the block, one such earlier block, and what is cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from narrows.core.errors import ProofError
from narrows.core.values import StoredExchange
from narrows.record.log.frame import Frame, Kind, check_payload, decode
from narrows.record.log.leaf import Place, Span, facts
from narrows.record.partfile import CACHE, PartFile, part_path

_KINDS = {"request": Kind.REQUEST, "sent": Kind.SENT, "response": Kind.RESPONSE}
WHOLE = {"llm.message": 64 << 20, "bedrock-runtime": 64 << 20, "lambda": 64 << 20}
"""Kinds of exchange, and services, of which a limited reader keeps more than it was told to: what is new in a model
call stands at its end, and code that is deployed is joined to its text by the digest of the whole."""


def frames_of(raw: bytes, start: int, stop: int, path: Path, at: int) -> Iterator[Frame]:
    """The frames in raw[start:stop] of a block that begins at raw offset `at`. Raises ProofError."""
    while start < stop:
        try:
            frame = decode(raw, start)
        except ProofError as bad:
            raise ProofError("A frame in a part is damaged", f"{path}, raw offset {at + start}") from bad
        yield frame
        start += frame.size


def iter_frames(data: Path, session: bytes, span: Span) -> Iterator[tuple[Frame, int]]:
    """Every frame of a span with its raw offset in the part. Raises ProofError, NotFound."""
    path = part_path(data, session, span.part)
    end = span.offset + span.length
    at = span.offset
    with PartFile.open(path) as part:
        for block in part.blocks_of(span):
            try:
                raw = CACHE.read(part, block)
            except ProofError as bad:
                raise ProofError(bad.what, f"{path}: {bad.why}") from bad
            start, stop = max(span.offset - block.at, 0), min(end - block.at, block.raw)
            for frame in frames_of(raw, start, stop, path, block.at):
                yield frame, block.at + frame.offset
                at = block.at + frame.offset + frame.size
    if at != end:
        raise ProofError("A part is shorter than the log says", f"{path}: {at} of {end} raw bytes")


def iter_record(data: Path, place: Place) -> Iterator[Frame]:
    """The frames of one record, payload digests checked. Raises ProofError, NotFound."""
    for span in place.spans:
        for frame, _ in iter_frames(data, place.session, span):
            if frame.exchange == place.exchange:
                check_payload(frame)
                yield frame


def iter_raw(data: Path, place: Place, direction: Literal["request", "sent", "response"]) -> Iterator[bytes]:
    """The exact wire bytes of one direction, in pieces. Raises ProofError, NotFound."""
    kind = _KINDS[direction]
    for frame in iter_record(data, place):
        if frame.kind == kind and frame.data:
            yield frame.data


class _Body:
    __slots__ = ("length", "limit", "pieces", "size")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.pieces: list[bytes] = []
        self.size = self.length = 0

    def add(self, data: bytes) -> None:
        self.length += len(data)
        room = len(data) if self.limit is None else self.limit - self.size
        if room > 0 and data:
            self.pieces.append(data[:room])
            self.size += len(self.pieces[-1])

    @property
    def cut(self) -> bool:
        return self.size < self.length


class Assembly:
    """One record put together from its frames, at most `max_body` bytes of each direction (None: all of them)."""

    __slots__ = ("_place", "_request", "_response", "_sent", "_stored", "sent_facts")

    def __init__(self, place: Place, max_body: int | None) -> None:
        self._place = place
        self._stored = StoredExchange(place.exchange, place.session, "")
        self._request, self._sent, self._response = _Body(max_body), _Body(max_body), _Body(max_body)
        self.sent_facts: dict[str, object] = {}

    def _widen(self, facts: dict[str, object]) -> None:
        least = max(WHOLE.get(str(facts.get(key)), 0) for key in ("kind", "service"))
        for body in (self._request, self._response):
            if body.limit is not None:
                body.limit = max(body.limit, least)

    def add(self, frame: Frame) -> None:
        """Take the next frame in."""
        stored, kind, meta = self._stored, frame.kind, frame.meta
        stored.started_ns = stored.started_ns or frame.wall_ns
        stored.ended_ns = frame.wall_ns
        if kind == Kind.RESPONSE:
            self._response.add(frame.data)
            if meta:
                stored.response_facts.update(facts(meta))
        elif kind == Kind.SENT:
            self._sent.add(frame.data)
            if meta:
                self.sent_facts.update(facts(meta))
        else:
            if meta and not stored.request_facts:
                stored.request_facts = facts(meta)
                self._widen(stored.request_facts)
            self._request.add(frame.data)

    def stored(self) -> StoredExchange:
        """The record. The lengths are the full ones."""
        stored, request, response = self._stored, self._request, self._response
        kind = stored.request_facts.get("kind")
        stored.kind = kind if isinstance(kind, str) else ""
        stored.request, stored.response = b"".join(request.pieces), b"".join(response.pieces)
        stored.sent = b"".join(self._sent.pieces)
        stored.request_truncated, stored.response_truncated = request.cut, response.cut
        stored.request_length, stored.response_length = request.length, response.length
        return stored


def read_exchange(data: Path, place: Place, max_body: int | None = None) -> StoredExchange:
    """Read one record whole, keeping at most `max_body` bytes of each direction (None: all of them).

    The lengths are the full ones. Raises ProofError, NotFound.
    """
    assembly = Assembly(place, max_body)
    for frame in iter_record(data, place):
        assembly.add(frame)
    return assembly.stored()
