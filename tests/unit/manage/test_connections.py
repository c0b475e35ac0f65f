"""Connections over the API: recorded before they take effect, in force when the answer is there."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import World

URL = "/api/v1/connections"


def names(world: World) -> list[str]:
    world.directory.refresh()
    return [c.name for c in world.directory.connections()]


def test_the_life_of_a_connection(world: World) -> None:
    answer = world.client.post(URL, json={"name": "prod", "account": "123456789012"})
    assert answer.status_code == 201 and answer.headers["location"] == f"{URL}/prod"
    assert answer.json()["hosts"], "defaults are filled in"
    assert names(world) == ["prod"]
    assert world.client.get(f"{URL}/prod").json() == answer.json()
    assert world.client.get(URL).json() == {"items": [answer.json()]}

    changed = world.client.put(f"{URL}/prod", json={"name": "prod", "region": "eu-west-1"})
    assert changed.status_code == 200 and changed.json()["region"] == "eu-west-1"
    tested = world.client.post(f"{URL}/prod/test")
    assert tested.status_code == 200 and tested.json()["ok"] is True
    assert world.client.delete(f"{URL}/prod").status_code == 204
    assert names(world) == []
    assert world.client.get(f"{URL}/prod").status_code == 404

    admin = [meta for name, meta in world.events if name == "ADMIN"]
    assert [m["action"] for m in admin] == [
        "connection.add",
        "connection.change",
        "connection.test",
        "connection.remove",
    ]
    assert all(m["by"] == "alice" for m in admin)
    assert admin[0]["at"]["connections"] == [], "recorded before it took effect"
    assert admin[1]["before"]["region"] == "" and admin[1]["connection"]["region"] == "eu-west-1"
    assert admin[3]["at"]["connections"] == ["prod"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"name": "new"}),
        ("PUT", "/prod", {"name": "prod", "region": "eu-west-1"}),
        ("DELETE", "/prod", None),
        ("POST", "/prod/test", None),
    ],
)
def test_nothing_changes_without_a_record(world: World, method: str, path: str, body: Any) -> None:
    world.client.post(URL, json={"name": "prod"})
    before = world.store.connections()
    world.broken = "fsync failed"
    answer = world.client.request(method, URL + path, json=body)
    assert answer.status_code == 503 and answer.json()["code"] == "recorder_failed"
    assert world.store.connections() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", {"name": "prod"}, 409),
        ("POST", "", {"name": "Bad"}, 422),
        ("POST", "", {"name": "x", "secret": "hunter2-hunter2"}, 422),
        ("POST", "", {"name": "x", "endpoint": "https://me:hunter2-hunter2@host"}, 422),
        ("POST", "", "hunter2-hunter2", 422),
        ("PUT", "/prod", {"name": "other"}, 422),
        ("PUT", "/other", {"name": "other"}, 404),
        ("DELETE", "/other", None, 404),
        ("GET", "/other", None, 404),
        ("GET", "/..%2fx", None, 404),
        ("GET", "/UPPER", None, 422),
        ("POST", "/other/test", None, 404),
        ("PATCH", "/prod", {}, 405),
    ],
)
def test_wrong_requests_are_told_why_and_leave_no_record(
    world: World, method: str, path: str, body: Any, status: int
) -> None:
    world.client.post(URL, json={"name": "prod"})
    world.events.clear()
    answer = world.client.request(method, URL + path, json=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"type", "title", "detail", "hint", "code", "status"} and problem["status"] == status
    assert problem["title"] and "hunter2" not in answer.text
    assert world.events == [] and names(world) == ["prod"]
