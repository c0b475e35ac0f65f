"""Reading many records one after another gives what reading each by itself gives, in any order, whatever the part."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.sealed_world import World, ident

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import text
from narrows.record import bulk
from narrows.record.bulk import BulkReader
from narrows.record.log.leaf import Place, Sealed, Span
from narrows.record.reader import read_exchange
from narrows.record.sealed import iter_stored

ONE, TWO = ident(1), ident(2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two sessions whose exchanges lie across each other, in many blocks; one is longer than a block."""
    world = World(tmp_path)
    one, two = world.writer("w1"), world.writer("w2")
    under_way: list[tuple[bytes, bytes]] = []
    with world.sealer() as sealer:
        for number in range(40):
            session, writer = (ONE, TWO)[number % 2], (one, two)[number % 3 == 0]
            writer.call(session, number)
            one.begin(session, ident(100 + number), b"POST / HTTP/1.1\r\n\r\n%d" % number)
            under_way.append((session, ident(100 + number)))
            if number % 5 == 4:
                one.finish(*under_way.pop(0))
                sealer.step()
        long = ident(99)
        one.begin(ONE, long)
        for piece in range(6):
            one.more(ONE, long, bytes([piece]) * (1 << 20))
        one.finish(ONE, long)
        one.stop()
        two.stop()
        sealer.drain()
    return world


def places(world: World) -> list[Place]:
    return [s.place for s in world.sealed if s.type == "exchange"]


def check(world: World, order: list[Place]) -> None:
    with BulkReader(world.data) as reader:
        for place in order:
            assert reader.read(place, 1000).stored() == read_exchange(world.data, place, 1000)


def test_every_record_reads_as_by_itself_growing_and_final(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(4711)
    for _ in range(2):
        for order in (places(world), places(world)[::-1], chance.sample(places(world), 40)):
            check(world, order)
        with monkeypatch.context() as small:
            small.setattr(bulk, "HELD_RAW", 1000)
            small.setattr(bulk, "OPEN_PARTS", 1)
            check(world, chance.sample(places(world), 20))
        world.finalise()
        world.finalise()
    assert not list(world.data.rglob("*.open"))


def test_a_part_that_becomes_final_meanwhile_is_read_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are others then, at other offsets in the file."""
    monkeypatch.setattr(bulk, "OPEN_PARTS", 1)
    both = places(world)
    expected = [read_exchange(world.data, place) for place in both]
    with BulkReader(world.data) as reader:
        assert [reader.read(place).stored() for place in both] == expected
        world.finalise()
        world.finalise()
        assert [reader.read(place).stored() for place in both] == expected


def test_records_and_their_facts_come_together(world: World) -> None:
    found = list(iter_stored(world.data, -1, 10))
    assert [record for record, _ in found] == world.sealed
    told = {r.exchange: (r, s) for r, s in found if r.type == "exchange" and s is not None}
    record, stored = told[ident(99)]
    assert record.response_facts == stored.response_facts == {"outcome": "complete", "status": 200}
    assert record.sent_facts == {"host": "aws"}
    assert (len(stored.response), stored.response_length, stored.response_truncated) == (10, (6 << 20) + 24, True)


def test_what_is_gone_is_said_to_be_gone(world: World) -> None:
    for path in (world.data / "objects/sessions" / text(TWO)).iterdir():
        path.unlink()
    gone = {record.session for record, stored in iter_stored(world.data, -1, 10) if stored is None and record.erased}
    assert gone == {TWO}


def test_damage_is_told_with_its_place_and_never_read_over(world: World) -> None:
    last: Sealed = [s for s in world.sealed if s.session == TWO][-1]
    place = last.place
    with BulkReader(world.data) as reader:
        with pytest.raises(ProofError, match="shorter"):
            reader.read(Place(TWO, place.exchange, (Span(0, place.spans[0].offset, 10_000_000),)))
        with pytest.raises(ProofError, match="raw offset"):  # not where a frame begins
            reader.read(Place(TWO, place.exchange, (Span(0, place.spans[0].offset + 1, 200),)))
        with pytest.raises(NotFound):
            reader.read(Place(TWO, place.exchange, (Span(7, 0, 100),)))
    path = world.data / "objects/sessions" / text(TWO) / "00000.open"
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    with BulkReader(world.data) as reader, pytest.raises(ProofError, match=r"00000\.open.*offset \d+"):
        reader.read(place)
