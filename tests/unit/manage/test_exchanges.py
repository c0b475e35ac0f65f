"""Exchanges and the log over the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from narrows.core.errors import NarrowsError, ProofError

from .conftest import World, exchange_row, put

URL = "/api/v1/exchanges"


def test_a_search_hands_its_arguments_to_the_index(world: World) -> None:
    key = put(world, exchange_row(1, service="s3", text="the searched text", location=["secret place"]))
    answer = world.client.get(URL, params={"q": "a b", "session": "01", "limit": 5, "order": "asc"})
    assert answer.json()["items"][0]["id"] == key and answer.json()["next"] == ""
    assert "searched text" not in answer.text and "secret place" not in answer.text
    assert world.asked == [
        {"q": "a b", "session": "01", "limit": 5, "cursor": "", "order": "asc", "now": world.wall_ns()}
    ]


def test_a_follower_asks_by_leaf(world: World) -> None:
    world.client.get(URL, params={"after": 41, "session": "01"})
    assert world.asked == [{"after": 41, "q": "", "session": "01", "limit": 50}]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "order=up", "q=" + "x" * 4097, "after=x", f"after={2**63}"])
def test_arguments_out_of_bounds_are_refused(world: World, query: str) -> None:
    assert world.client.get(f"{URL}?{query}").status_code == 422
    assert world.asked == []


def test_show_by_prefix(world: World) -> None:
    key = put(world, exchange_row(0xAB, operation="GetObject", parameters={"a": "\udcff", "n": 2**70}))
    shown = world.client.get(f"{URL}/ab").json()
    assert shown["id"] == key and shown["operation"] == "GetObject"
    assert shown["parameters"] == {"a": "?", "n": str(2**70)}, "what JSON cannot hold is replaced, not refused"
    assert world.client.get(f"{URL}/cd").status_code == 404


def test_raw_bytes_are_given_exactly_and_the_reading_is_recorded_first(world: World) -> None:
    key = put(world, exchange_row(1, location=[["part", 0]]))
    world.raw = [b"\x00\xff", b"", b"tail\r\n"]
    answer = world.client.get(f"{URL}/01/raw", params={"direction": "response"})
    assert answer.content == b"\x00\xfftail\r\n"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    (name, meta), (second, asked) = world.events
    assert name == "ADMIN" and meta["action"] == "exchange.read" and meta["exchange"] == key
    assert meta["direction"] == "response" and meta["by"] == "alice"
    assert (second, asked) == ("raw", ([["part", 0]], "response"))


def test_no_raw_byte_without_a_record_of_the_reading(world: World) -> None:
    put(world, exchange_row(1))
    world.broken = "disk full"
    answer = world.client.get(f"{URL}/01/raw", params={"direction": "request"})
    assert answer.status_code == 503 and b"GET /" not in answer.content and world.events == []


@pytest.mark.parametrize("direction", ["", "up", None])
def test_raw_needs_a_direction(world: World, direction: str | None) -> None:
    put(world, exchange_row(1))
    params = {} if direction is None else {"direction": direction}
    assert world.client.get(f"{URL}/01/raw", params=params).status_code == 422


def test_a_recording_that_cannot_be_read_is_an_error(world: World) -> None:
    def damaged(_: Any, __: str) -> Iterator[bytes]:
        if world.raw:
            raise ProofError("A frame is damaged", "at offset 7")
        yield b""

    put(world, exchange_row(1))
    world.deps.iter_raw = damaged
    answer = world.client.get(f"{URL}/01/raw", params={"direction": "request"})
    assert answer.status_code == 500 and answer.json()["code"] == "proof_error"
    assert answer.json()["detail"] == "at offset 7"


def test_an_error_of_the_query_is_the_callers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class QueryError(NarrowsError):
        code = "query_error"

    def refuse(*_: Any, **__: Any) -> Any:
        raise QueryError("The query was not understood", "at position 3")

    monkeypatch.setattr(world.deps.index, "exchanges", refuse)
    answer = world.client.get(URL, params={"q": "("})
    assert answer.status_code == 400 and answer.json()["detail"] == "at position 3"


def test_a_bug_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> Any:
        raise RuntimeError("something private")

    monkeypatch.setattr(world.deps.index, "exchanges", bug)
    answer = world.client.get(URL)
    assert answer.status_code == 500 and answer.json()["code"] == "internal" and "private" not in answer.text


def test_the_head_of_the_log(world: World) -> None:
    answer = world.client.get("/api/v1/log/checkpoint")
    assert answer.text == world.checkpoint() and answer.headers["content-type"].startswith("text/plain")
    assert world.client.get("/api/v1/log/status").json() == {"size": 3, "time": 5, "lag": 0, "indexed": 2}
