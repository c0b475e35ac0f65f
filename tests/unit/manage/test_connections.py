"""Connections over the API: recorded before they take effect, in force when the answer is there."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.manage.errors import PreconditionError

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


def test_two_administrators_do_not_overwrite_each_other(world: World) -> None:
    tag = world.client.post(URL, json={"name": "prod"}).headers["etag"]
    assert world.client.get(f"{URL}/prod").headers["etag"] == tag
    first = world.client.put(f"{URL}/prod", json={"name": "prod", "region": "eu-west-1"}, headers={"If-Match": tag})
    assert first.status_code == 200 and first.headers["etag"] != tag
    world.events.clear()
    for method, body in (("PUT", {"name": "prod", "region": "us-east-1"}), ("DELETE", None)):
        late = world.client.request(method, f"{URL}/prod", json=body, headers={"If-Match": tag})
        assert late.status_code == 412 and late.json()["code"] == "precondition_failed"
    weak = world.client.delete(f"{URL}/prod", headers={"If-Match": f"W/{first.headers['etag']}"})
    assert weak.status_code == 412, "If-Match compares strongly"
    assert world.events == [] and world.store.connection("prod").region == "eu-west-1"
    one_of = {"If-Match": f'"other", {first.headers["etag"]}'}
    assert world.client.put(f"{URL}/prod", json={"name": "prod"}, headers=one_of).status_code == 200
    assert world.client.delete(f"{URL}/prod", headers={"If-Match": "*"}).status_code == 204
    assert world.client.delete(f"{URL}/prod", headers={"If-Match": "*"}).status_code == 404


def test_a_change_between_the_look_and_the_write_is_refused(world: World) -> None:
    world.client.post(URL, json={"name": "prod"})
    seen = world.store.connection("prod")
    world.client.put(f"{URL}/prod", json={"name": "prod", "region": "eu-west-1"})
    with pytest.raises(PreconditionError):
        world.store.replace_connection(seen, seen)
    with pytest.raises(PreconditionError):
        world.store.remove_connection("prod", seen)
    assert names(world) == ["prod"] and world.store.connection("prod").region == "eu-west-1"


def test_a_creation_that_is_sent_again_is_made_once(world: World) -> None:
    key = {"Idempotency-Key": "4f2c-1"}
    first = world.client.post(URL, json={"name": "prod"}, headers=key)
    again = world.client.post(URL, json={"name": "prod"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201) and again.json() == first.json()
    assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
    assert [m["action"] for name, m in world.events if name == "ADMIN"] == ["connection.add"]
    other = world.client.post(URL, json={"name": "other"}, headers=key)
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["detail"]
    assert world.client.post(URL, json={"name": "prod"}).status_code == 409
    assert world.client.post(URL, json={"name": "prod"}, headers={"Idempotency-Key": "4f2c-2"}).status_code == 409
    assert world.client.post(URL, json={"name": "x"}, headers={"Idempotency-Key": "a b"}).status_code == 422
    world.now_s += 24 * 3600 + 1
    assert world.client.post(URL, json={"name": "prod"}, headers=key).status_code == 409, "kept for a day"
    world.client.delete(f"{URL}/prod")
    assert world.client.post(URL, json={"name": "prod"}, headers=key).status_code == 201


def test_a_creation_that_was_not_recorded_may_be_sent_again(world: World) -> None:
    key = {"Idempotency-Key": "k"}
    world.broken = "fsync failed"
    assert world.client.post(URL, json={"name": "prod"}, headers=key).status_code == 503
    world.broken = ""
    assert world.client.post(URL, json={"name": "prod"}, headers=key).status_code == 201
