"""Why, and the timeline, over the API."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.core import ids
from narrows.record.index.rows import ExchangeRow

from .conftest import World, exchange_row, put

SECOND = 1_000_000_000
SESSION = ids.text(bytes(15) + b"\1")
TREE = [{"pid": 7, "start": 5, "ppid": 1, "argv": ["sh", "-c", "aws s3 rm s3://b/k"], "cwd": "/src", "exe": "/bin/sh"}]


def _items(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return list(items)


@pytest.fixture
def talk(world: World) -> World:
    """A prompt, a tool call, a lease for its process, an AWS call."""
    asked = {"type": "prompt", "said_by": "request", "text": "remove k\x1b[2J" + "!" * 9000}
    called = {
        "type": "tool_call",
        "said_by": "response",
        "id": "t1",
        "name": "Bash",
        "data": {"command": "aws s3 rm s3://b/k"},
    }
    rows = [
        exchange_row(
            1,
            kind="llm.message",
            service="anthropic",
            operation="messages",
            model="claude",
            agent="claude-code",
            agent_version="2",
            items=_items(asked, called),
            started_ns=SECOND,
            ended_ns=2 * SECOND,
        ),
        exchange_row(
            2,
            kind="agent.event",
            service="narrows",
            operation="lease.issued",
            started_ns=3 * SECOND,
            facts={"lease": "NRWL1", "process": TREE, "process_from": "kernel"},
        ),
        exchange_row(
            3,
            kind="aws.call",
            service="s3",
            operation="DeleteObject",
            started_ns=4 * SECOND,
            status=204,
            outcome="complete",
            facts={"lease": "NRWL1"},
            resources=[{"arn": "arn:aws:s3:::b/k", "exact": True}],
        ),
    ]
    for row in rows:
        put(world, row)
    return world


def _why(world: World, what: str, **query: Any) -> dict[str, Any]:
    answer = world.client.get(f"/api/v1/exchanges/{what}/why", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_why_leads_from_the_call_to_the_prompt(talk: World) -> None:
    found = _why(talk, "03")
    assert [step["link"] and step["link"]["evidence"] for step in found["steps"]] == [
        "proven",
        "reported",
        "proven",
        None,
    ]
    assert found["reached"] and found["weakest"] == "reported" and found["direction"] == "up" and not found["notes"]
    process = found["steps"][1]
    assert process["process"][0]["argv"][-1] == "aws s3 rm s3://b/k" and process["process_from"] == "kernel"
    prompt = found["steps"][-1]
    assert prompt["item"]["text"].startswith("remove k") and prompt["item"]["cut"]
    assert (prompt["model"], prompt["agent_version"]) == ("claude", "2") and prompt["node"].endswith("#0")
    assert len(prompt["item"]["text"]) == 4096


def test_why_down_gives_what_the_prompt_caused(talk: World) -> None:
    found = _why(talk, "01", direction="down", item=0)
    assert [node["node"][:2] for node in found["nodes"]] == ["01", "02", "03"]
    assert [node["depth"] for node in found["nodes"]] == [1, 2, 3] and not found["cut"]


def test_why_of_what_is_not_there(talk: World) -> None:
    for path in ("/api/v1/exchanges/ff/why", "/api/v1/exchanges/03/why?item=5"):
        assert talk.client.get(path).status_code == 404
    for query in ("direction=sideways", "item=-1", "item=x"):
        assert talk.client.get(f"/api/v1/exchanges/03/why?{query}").status_code == 422


def test_an_exchange_of_no_session_is_alone(world: World) -> None:
    put(world, ExchangeRow(b"\5" + bytes(15), ids.NIL, kind="http.request"))
    found = _why(world, "05")
    assert len(found["steps"]) == 1 and found["steps"][0]["link"] is None and "no session" in found["notes"][0]


def test_facts_of_any_shape_break_nothing(world: World) -> None:
    for number, tree in enumerate(
        [None, 5, "x", [5], [{"pid": "x"}], [{"pid": 1, "argv": 5}], [{"pid": 1, "argv": [5]}]]
    ):
        put(
            world,
            exchange_row(
                number,
                kind="agent.event",
                service="narrows",
                operation="lease.issued",
                facts={"lease": number, "process": tree, "process_from": tree},
            ),
        )
        assert _why(world, f"{number:02x}")["steps"]


def test_the_timeline_is_paged_and_in_order(talk: World) -> None:
    answer = talk.client.get(f"/api/v1/sessions/{SESSION}/timeline", params={"limit": 2}).json()
    assert [entry["type"] for entry in answer["items"]] == ["prompt", "tool_call", "process"]
    rest = talk.client.get(f"/api/v1/sessions/{SESSION}/timeline", params={"limit": 2, "cursor": answer["next"]}).json()
    (call,) = rest["items"]
    assert call["type"] == "call" and call["status"] == 204 and call["item"] is None and rest["next"] == ""
    assert [entry["time_ns"] for entry in answer["items"]] == [SECOND, 2 * SECOND, 3 * SECOND]


def test_a_row_is_checked_when_asked(talk: World) -> None:
    assert talk.client.get("/api/v1/exchanges/03/check").json()["ok"] is True
    differs = [{"field": "operation", "index": "GetObject", "recording": "DeleteObject"}]
    talk.deps.check_row = lambda row: differs
    answer = talk.client.get("/api/v1/exchanges/03/check").json()
    assert answer == {"exchange": ids.text(b"\3" + bytes(15)), "ok": False, "differences": differs}
