"""Model calls and agents' events in the index: items, identifiers, findings; and an index of an older version."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from narrows.core import ids
from narrows.core.errors import ConfigError
from narrows.core.values import Described, Finding, Item
from narrows.record.index import store
from narrows.record.index.schema import VERSION
from narrows.record.index.sqlite import Batch, SqliteIndex
from narrows.record.log.leaf import Sealed

from .conftest import ALICE, NOW, key, row
from .test_indexer import World, sealed

DESCRIBED = Described(
    service="anthropic",
    operation="messages",
    model="claude-sonnet-4-5",
    agent="claude-code",
    agent_version="2.1.197",
    text="remove the exports",
    items=[
        Item("prompt", "remove the exports"),
        Item("tool_call", "", "toolu_1", "Bash", {"command": "ls"}, False, "response"),
        Item("tool_result", "gone", "toolu_0", error=True),
    ],
    refs=[("tool_call", "toolu_1"), ("agent_session", "s-1"), ("request", "req_1")],
    llm={
        "provider": "anthropic",
        "usage": {"input": 12, "output": 34, "cache_read": None},
        "cost_usd": 0.25,
        "messages": 3,
    },
    findings=[Finding("aws-access-key", "prompt", 3, 20, 2)],
    request_id="req_1",
)


@pytest.fixture
def described(tmp_path: Path) -> Any:
    world = World(tmp_path)
    world.indexer._describe = lambda exchange: DESCRIBED
    yield world
    world.index.close()


def _add(world: World, *records: Sealed) -> None:
    world.log += records
    world.indexer.catch_up()


def test_what_a_model_call_says_is_in_its_row(described: World) -> None:
    _add(described, sealed(0, lease="NRWL9"))
    found = described.index.exchange(ids.text(key(0)))
    assert found.items == [
        {"type": "prompt", "said_by": "request", "text": "remove the exports"},
        {"type": "tool_call", "said_by": "response", "id": "toolu_1", "name": "Bash", "data": {"command": "ls"}},
        {"type": "tool_result", "said_by": "request", "text": "gone", "id": "toolu_0", "error": True},
    ]
    assert found.refs == [("lease", "NRWL9"), *DESCRIBED.refs]
    assert (found.tokens_in, found.tokens_out, found.cost_usd) == (12, 34, 0.25)
    assert found.llm["messages"] == 3 and found.findings[0]["count"] == 2
    assert (found.agent, found.agent_version, found.model) == ("claude-code", "2.1.197", "claude-sonnet-4-5")
    assert not found.problems


def test_an_agent_that_the_session_names_stays(described: World) -> None:
    _add(described, sealed(0, agent="mine", agent_version="1"), sealed(1, agent="claude-code"))
    named, versioned = (described.index.exchange(ids.text(key(n))) for n in (0, 1))
    assert (named.agent, named.agent_version) == ("mine", "1")
    assert (versioned.agent, versioned.agent_version) == ("claude-code", "2.1.197")


def test_a_session_whose_launcher_did_not_know_its_agent_learns_it(described: World) -> None:
    _add(described, sealed(0, "session_open", principal="alice"), sealed(1))
    assert described.index.session(ids.text(ALICE)).agent == "claude-code"


@pytest.mark.parametrize(
    "query",
    [
        "model:claude-sonnet-4-5",
        "model:claude*",
        "tool:bash",
        "tool:Ba*",
        "finding:*",
        "finding:aws-access-key",
        "remove exports",
        "tool:Bash AND finding:aws* AND model:*",
        "kind:aws.call tool:Bash after:1d",
    ],
)
def test_it_is_found(described: World, query: str) -> None:
    _add(described, sealed(0))
    described.index.insert(Batch(1, [row(1)]))
    assert described.leaves(query) == [0]
    assert described.leaves(f"NOT ({query})") == [1]


@pytest.mark.parametrize("query", ["tool:Write", "finding:pii", "model:gpt*", "tool:toolu_1", "model:Bash"])
def test_it_is_not_found(described: World, query: str) -> None:
    _add(described, sealed(0))
    assert described.leaves(query) == []


def test_identifiers_lead_to_exchanges_exactly_and_back(described: World) -> None:
    _add(described, sealed(0), sealed(1))
    by_ref = described.index.by_ref
    assert [found.leaf_index for found in by_ref("tool_call", "toolu_1")] == [0, 1]
    assert ("tool_call", "toolu_1") in by_ref("agent_session", "s-1", 1)[0].refs
    assert [found.leaf_index for found in by_ref("request", "req_1")] == [0, 1]
    assert by_ref("tool_call", "TOOLU_1") == [] and by_ref("turn", "toolu_1") == []
    assert by_ref("tool_call", "toolu_1", 1)[0].items, "with what it says"


def test_an_identifier_cannot_pretend_to_be_a_model_or_finding(described: World, tmp_path: Path) -> None:
    described.index.insert(Batch(0, [row(0, refs=[("finding", "x"), ("tool", "y"), ("model", "z")])]))
    for query in ("finding:*", "tool:*", "model:*"):
        assert described.leaves(query) == []


def test_what_is_too_large_is_cut_and_said(index: SqliteIndex) -> None:
    items = [
        {"type": "system", "text": "s" * 200_000},
        {"type": "tool_call", "id": "t", "name": "Write", "data": {"content": "c" * 99_999}},
        {"type": "answer", "text": "short"},
    ]
    index.insert(
        Batch(0, [row(0, items=items, findings=[{"kind": "k"}] * 600, refs=[("file", str(n)) for n in range(600)])])
    )
    found = index.exchange(ids.text(key(0, NOW)))
    assert [item.get("cut", False) for item in found.items] == [True, True, False]
    assert len(found.items[0]["text"]) <= store.MAX_ITEM and found.items[2]["text"] == "short"
    assert len(found.refs) == len(found.findings) == store.MAX_COUNT
    assert sum("see the recording" in problem for problem in found.problems) == 3


def test_many_items_keep_their_ends(index: SqliteIndex) -> None:
    items = [{"type": "context", "text": f"{n} " + "x" * 300} for n in range(5000)]
    index.insert(Batch(0, [row(0, items=items)]))
    kept = index.exchange(ids.text(key(0, NOW))).items
    assert len(kept) == store.MAX_COUNT and kept[0]["text"].startswith("0 ") and kept[-1]["text"].startswith("4999 ")


def test_large_facts_lose_the_largest_only(index: SqliteIndex) -> None:
    index.insert(Batch(0, [row(0, facts={"lease": "NRWL1", "process": ["x" * 100_000], "form": "proxy"})]))
    found = index.exchange(ids.text(key(0, NOW)))
    assert found.facts == {"lease": "NRWL1", "form": "proxy"} and "process" in found.problems[0]


def test_hostile_values_are_kept(index: SqliteIndex) -> None:
    items = [{"type": "\0", "text": "\udcff", "data": {"n": 2**90, "deep": None}}]
    hostile = row(
        0, items=items, refs=[("\0", "\udcff"), ("x" * 999, "y" * 9999)], model="\udcff", cost_usd=float("nan")
    )
    index.insert(Batch(0, [hostile]))
    assert index.exchange(ids.text(key(0, NOW))).items


def test_listings_leave_items_out_and_stories_have_them(described: World) -> None:
    _add(described, *(sealed(n) for n in range(5)))
    assert all(not found.items for found in described.index.exchanges(now_ns=NOW).items)
    session = ids.text(ALICE)
    page = described.index.stories(session, limit=3)
    rest = described.index.stories(session, page.next, limit=3)
    assert [found.leaf_index for found in [*page.items, *rest.items]] == list(range(5)) and not rest.next
    assert all(found.items for found in page.items)


def test_an_older_index_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "index.db"
    made = SqliteIndex(path)
    made.insert(Batch(7, [row(0)]))
    made.close()
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE refs; PRAGMA user_version=1;")
    db.close()
    with caplog.at_level(logging.WARNING):
        again = SqliteIndex(path)
    assert again.cursor() == -1 and again.count() == 0 and "made again from the recording" in caplog.text
    again.insert(Batch(7, [row(0)]))
    again.close()
    SqliteIndex(path).close()
    assert len(caplog.records) == 1, "once"


def test_a_newer_index_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    SqliteIndex(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match="schema"):
        SqliteIndex(path)
