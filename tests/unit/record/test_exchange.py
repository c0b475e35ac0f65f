"""The frames of one exchange: one opening, one closing, bodies split, nothing after the end."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from narrows.core import ids
from narrows.core.errors import RecorderFailed
from narrows.core.values import Outcome
from narrows.record.exchange import PIECE, ExchangeRecord
from narrows.record.log.frame import Flag, Kind

SESSION = bytes(range(16))


@dataclass
class Appended:
    kind: int
    flags: int
    session: bytes
    exchange: bytes
    meta: bytes
    data: bytes


class Fake:
    """A recorder that keeps what it is given, and a clock that steps."""

    def __init__(self) -> None:
        self.frames: list[Appended] = []
        self.fails = False
        self._now = 1_700_000_000_000_000_000

    def append(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes | memoryview
    ) -> int:
        if self.fails:
            raise RecorderFailed("no")
        self.frames.append(Appended(kind, flags, session, exchange, meta, bytes(data)))
        return len(self.frames) - 1

    async def durable(self, seq: int) -> None:
        raise NotImplementedError

    async def room(self) -> None:
        raise NotImplementedError

    def wall_ns(self) -> int:
        self._now += 1
        return self._now

    mono_ns = wall_ns


def opened(fake: Fake, data: bytes = b"GET", *, whole: bool = True, buffered: bool = False) -> ExchangeRecord:
    record = ExchangeRecord(fake, fake)
    record.open(SESSION, {"kind": "aws.call"}, data, whole=whole, buffered=buffered)
    return record


def test_a_short_exchange_is_three_frames() -> None:
    fake = Fake()
    record = opened(fake)
    record.sent(b"head", {"host": "h"})
    record.close(b"answer", Outcome.COMPLETE, {"status": 200})
    assert [(f.kind, f.flags) for f in fake.frames] == [
        (Kind.REQUEST, Flag.BEGIN | Flag.END),
        (Kind.SENT, 0),
        (Kind.RESPONSE, Flag.END | Flag.FINAL),
    ]
    assert {(f.session, f.exchange) for f in fake.frames} == {(SESSION, record.id)}
    assert json.loads(fake.frames[-1].meta) == {
        "status": 200, "outcome": "complete", "bytes_in": 3, "bytes_out": 6,
    }  # fmt: skip
    assert record.last == 2
    assert ids.millis(record.id) == 1_700_000_000_000


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_long_pieces_are_split_and_flags_and_meta_stand_once(size: int) -> None:
    fake = Fake()
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    record = opened(fake, data, buffered=True)
    record.close(memoryview(data), Outcome.COMPLETE, {})
    for kind in (Kind.REQUEST, Kind.RESPONSE):
        frames = [f for f in fake.frames if f.kind == kind]
        assert b"".join(f.data for f in frames) == data
        assert all(len(f.data) <= PIECE for f in frames)
        assert [bool(f.flags & Flag.END) for f in frames] == [False] * (len(frames) - 1) + [True]
        assert sum(bool(f.meta) for f in frames) == 1
    assert sum(bool(f.flags & Flag.BEGIN) for f in fake.frames) == 1
    assert sum(bool(f.flags & Flag.FINAL) for f in fake.frames) == 1
    assert all(f.flags & Flag.BUFFERED for f in fake.frames)


def test_further_bytes_of_a_request() -> None:
    fake = Fake()
    record = opened(fake, whole=False)
    record.request(b"more", end=False)
    record.request(b"", end=True)
    assert [f.flags for f in fake.frames] == [Flag.BEGIN, 0, Flag.END]
    assert record.bytes_in == 7


def test_ensure_closed_closes_what_is_open_once() -> None:
    fake = Fake()
    ExchangeRecord(fake, fake).ensure_closed(Outcome.INTERNAL, {})
    assert not fake.frames
    record = opened(fake)
    record.ensure_closed(Outcome.INTERNAL, {})
    record.ensure_closed(Outcome.COMPLETE, {})
    assert len(fake.frames) == 2
    assert json.loads(fake.frames[1].meta)["outcome"] == "internal"


def test_a_failed_close_is_not_tried_again() -> None:
    fake = Fake()
    record = opened(fake)
    fake.fails = True
    with pytest.raises(RecorderFailed):
        record.close(b"", Outcome.COMPLETE, {})
    fake.fails = False
    record.ensure_closed(Outcome.INTERNAL, {})
    assert len(fake.frames) == 1


def test_ids_are_unique_and_random() -> None:
    fake = Fake()
    found = {ExchangeRecord(fake, fake).id for _ in range(2000)}
    assert len(found) == 2000
    assert len({one[9:] for one in found}) == 2000
