"""The indexer: every sealed record ends up in the index once, whatever fails on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from narrows.core import ids
from narrows.core.errors import ProofError
from narrows.core.values import Described, Resource, StoredExchange
from narrows.record import indexer as module
from narrows.record.index.sqlite import Batch, SqliteIndex
from narrows.record.indexer import Indexer
from narrows.record.log.leaf import Place, Sealed, Span

from .conftest import ALICE, NOW, SECOND, key

HEADS = "heads"


def sealed(leaf: int, type_: str = "exchange", /, **facts: object) -> Sealed:
    exchange = key(leaf) if type_ == "exchange" else ids.NIL
    place = Place(ALICE, exchange, (Span(0, leaf * 100, 100),))
    made = Sealed(type_, leaf, place, "aws.call", "w1", 0, 1, NOW + leaf * SECOND, NOW + leaf * SECOND + 9, "complete")
    made.request_facts = dict(facts)
    made.request_length, made.response_length = 11, 22
    return made


class World:
    """A log in memory; what is not Sealed stands for a heads leaf or for damage."""

    def __init__(self, path: Path) -> None:
        self.log: list[Sealed | str] = []
        self.index = SqliteIndex(path / "index.db")
        self.described: list[StoredExchange] = []
        self.fails: Exception | None = None
        self.indexer = Indexer(
            path,
            self.index,
            self.describe,
            iter_stored=self.iter_stored,
            sealed_size=lambda _: len(self.log),
        )

    def iter_stored(
        self, _: Path, after: int, max_body: int | None
    ) -> Generator[tuple[Sealed, StoredExchange | None], None, None]:
        assert max_body is not None
        for record in self.log[after + 1 :]:
            if record == "damaged":
                raise ProofError("A frame is damaged", "its CRC does not match")
            if isinstance(record, Sealed):
                place = record.place
                gone = record.erased or not place.spans
                yield record, None if gone else StoredExchange(place.exchange, place.session, "", request=b"GET /")

    def describe(self, exchange: StoredExchange) -> Described:
        self.described.append(exchange)
        if self.fails:
            raise self.fails
        return Described(
            service="s3",
            operation="GetObject",
            status=200,
            resources=[Resource("arn:aws:s3:::b", True)],
            parameters={"Bucket": "b"},
            text="hello world",
            problems=["half decoded"],
        )

    def leaves(self, query: str = "") -> list[int]:
        return [r.leaf_index for r in self.index.exchanges(query, order="asc", limit=1000, now_ns=NOW).items]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.index.close()


def test_an_exchange_is_indexed_with_its_facts_and_its_meaning(world: World) -> None:
    record = sealed(
        0,
        connection="prod",
        principal="alice",
        agent="claude-code",
        host="s3.amazonaws.com",
        method="GET",
        target="/b",
        service="guess",
        decision="allow",
        reason="lease",
        durability="strict",
        client="127.0.0.1:9",
        groups=["dev"],
    )
    record.response_facts = {"outcome": "complete", "status": 206, "bytes_in": 5, "gateway_ns": 7, "retries": 1}
    record.sent_facts = {"host": "real"}
    world.log.append(record)
    assert world.indexer.step() == 1
    got = world.index.exchange(ids.text(record.exchange))
    assert (got.principal, got.connection, got.host, got.decision) == ("alice", "prod", "s3.amazonaws.com", "allow")
    assert (got.service, got.operation, got.status) == ("s3", "GetObject", 200)
    assert (got.bytes_in, got.bytes_out, got.gateway_ns) == (5, 22, 7)
    assert got.resources == [{"arn": "arn:aws:s3:::b", "exact": True}] and got.parameters == {"Bucket": "b"}
    assert got.facts == {"client": "127.0.0.1:9", "groups": ["dev"], "retries": 1, "sent": {"host": "real"}}
    assert got.problems == ["half decoded"] and Place.parse(got.location) == record.place
    assert (got.started_ns, got.ended_ns) == (NOW, NOW + 9)
    (stored,) = world.described
    assert (stored.kind, stored.leaf_index, stored.started_ns) == ("aws.call", 0, NOW)
    assert world.leaves("hello") == [0]
    assert world.indexer.step() == 0


@pytest.mark.parametrize("error", [ValueError("secret bytes"), RecursionError(), ProofError("x", "y")])
def test_what_cannot_be_described_is_found_all_the_same(world: World, error: Exception) -> None:
    world.log += [sealed(0, principal="alice"), sealed(1)]
    world.fails = error
    assert world.indexer.step() == 2
    row = world.index.exchange(ids.text(key(0)))
    assert row.principal == "alice" and "could not be described" in row.problems[0]
    assert "secret" not in row.problems[0]


def test_what_is_gone_is_found_all_the_same(world: World) -> None:
    gone = sealed(0, principal="alice")
    gone.erased = True
    nowhere = sealed(1)
    nowhere.place = Place(ALICE, key(1), ())
    world.log += [gone, nowhere]
    world.indexer.step()
    assert "gone" in world.index.exchange(ids.text(key(0))).problems[0]
    assert "where" in world.index.exchange(ids.text(key(1))).problems[0]
    assert world.described == []


def test_a_damaged_leaf_is_a_row_and_does_not_stop_the_rest(world: World) -> None:
    world.log += [sealed(0), "damaged", sealed(2)]
    assert world.indexer.catch_up() == 3
    assert world.leaves() == [1, 0, 2]
    (damaged,) = world.index.exchanges("kind:damaged", now_ns=NOW).items
    assert "CRC" in damaged.problems[0]


def test_sessions_gaps_and_other_records(world: World) -> None:
    world.log += [
        sealed(0, "writer_open"),
        sealed(1, "session_open", principal="alice", agent="claude-code", command=["aws"]),
        HEADS,
        sealed(3, "admin", what="connection.add"),
        sealed(4, "gap", why="a torn tail", writer="w1"),
        sealed(5),
        sealed(6, "session_close", why="killed", exit_code=9),
        HEADS,
    ]
    assert world.indexer.step() == 8 and world.index.cursor() == 7
    session = world.index.session(ids.text(ALICE))
    assert (session.principal, session.command, session.state, session.exit_code) == ("alice", ["aws"], "killed", 9)
    assert session.exchanges == 1 and session.closed_ns == NOW + 6 * SECOND
    (gap,) = world.index.exchanges("kind:gap torn", now_ns=NOW).items
    assert gap.reason == "a torn tail" and gap.session == ids.NIL and gap.facts["session"] == ids.text(ALICE)
    assert world.leaves() == [4, 5]


def test_it_goes_on_where_the_index_says_and_a_crash_loses_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    world.log += [sealed(n) for n in range(8)]
    assert world.indexer.step() == 3

    def crash(_: Batch) -> int:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(world.index, "insert", crash)
        with pytest.raises(sqlite3.OperationalError):
            world.indexer.step()
    assert world.index.cursor() == 2
    assert world.indexer.catch_up() == 5
    assert world.leaves() == list(range(8))


def test_batches_are_bounded_by_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 60)
    world.log += [sealed(n) for n in range(5)]  # 33 bytes each
    assert [world.indexer.step() for _ in range(4)] == [2, 2, 1, 0]


def test_rebuilding_gives_the_same_index(world: World) -> None:
    world.log += [sealed(0, "session_open", principal="alice"), *(sealed(n) for n in range(1, 5))]
    world.indexer.catch_up()
    before = world.index.exchanges(now_ns=NOW), world.index.session(ids.text(ALICE))
    world.index.rebuild()
    assert world.indexer.catch_up() == 5
    assert (world.index.exchanges(now_ns=NOW), world.index.session(ids.text(ALICE))) == before


@pytest.mark.parametrize("facts", [{"principal": 7, "status": "x", "kind": None}, {"target": "\udc80", "host": "a\0b"}])
def test_facts_of_the_wrong_kind_are_no_reason_to_fail(world: World, facts: dict[str, object]) -> None:
    record = sealed(0, "exchange", **facts)
    record.response_facts = {"status": True, "bytes_in": 2.5}
    world.log.append(record)
    assert world.indexer.step() == 1 and world.leaves() == [0]
