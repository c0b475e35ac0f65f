"""Reading back: damage is told with its place, and what is cached never outlives what is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sealed_world import World, ident

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import text
from narrows.record.log.leaf import Place, Span
from narrows.record.reader import iter_frames, iter_raw, read_exchange

SESSION = ident(1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    writer = world.writer()
    with world.sealer() as sealer:
        for number in range(30):
            writer.call(SESSION, number)
            sealer.step()
        sealer.drain()
    return world


def answers(world: World) -> list[bytes]:
    places = [s.place for s in world.sealed if s.type == "exchange"]
    return [read_exchange(world.data, place).response.split(b"\r\n\r\n")[1] for place in reversed(places)]


def test_every_exchange_reads_the_same_in_any_order_growing_and_final(world: World) -> None:
    expected = [b"answer %d" % number for number in reversed(range(30))]
    assert answers(world) == expected
    world.finalise()
    world.finalise()
    assert answers(world) == expected


def test_a_growing_part_that_was_cut_back_and_grew_otherwise_is_read_as_it_is(world: World) -> None:
    path = world.data / "objects/sessions" / text(SESSION) / "00000.open"
    assert answers(world)[0] == b"answer 29"  # its blocks are known now
    whole = path.read_bytes()
    half = whole.index(b"NRB1", len(whole) // 2) - 8
    head_end = whole.index(b"NRB1", half + 12) - 8
    path.write_bytes(whole[:half] + whole[head_end:])
    last = next(s for s in reversed(world.sealed) if s.type == "exchange").place
    with pytest.raises(ProofError, match="shorter"):
        list(iter_raw(world.data, Place(last.session, last.exchange, (Span(0, last.spans[0].offset, 10_000),)), "sent"))
    path.write_bytes(whole)
    assert answers(world)[0] == b"answer 29"


def test_a_damaged_block_is_named_with_its_file(world: World) -> None:
    path = world.data / "objects/sessions" / text(SESSION) / "00000.open"
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    last = next(s for s in reversed(world.sealed) if s.type == "exchange").place
    with pytest.raises(ProofError, match=r"00000\.open.*offset \d+"):
        read_exchange(world.data, last)


def test_a_span_that_is_not_there_is_an_error_not_an_empty_answer(world: World) -> None:
    with pytest.raises(ProofError, match="shorter"):
        list(iter_frames(world.data, SESSION, Span(0, 10_000_000, 100)))
    with pytest.raises(NotFound):
        list(iter_frames(world.data, SESSION, Span(7, 0, 100)))
    with pytest.raises(NotFound):
        list(iter_frames(world.data, ident(9), Span(0, 0, 100)))
