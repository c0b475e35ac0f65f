"""Sessions over the API: what is on the record, and what works, at each moment."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import unquote

import pytest

from narrows.core import ids
from narrows.manage.sessions import end_expired, proxy_url
from narrows.record.index.rows import SessionRow

from .conftest import OWNER, World


@pytest.fixture
def prod(world: World) -> World:
    answer = world.client.post("/api/v1/connections", json={"name": "prod", "region": "eu-west-1"})
    assert answer.status_code == 201
    world.events.clear()
    return world


def state(world: World, session: str) -> str:
    world.directory.refresh()
    return world.directory.session_ended(ids.parse(session))


def test_opening_records_first_and_gives_all_that_a_client_needs(prod: World) -> None:
    opened = prod.open("prod", host="laptop", pid=7, ttl_s=600)
    assert [name for name, _ in prod.events] == ["SESSION_OPEN", "lease"]
    meta = prod.events[0][1]
    assert meta["principal"] == "alice" and meta["groups"] == ["dev"] and meta["command"] == ["aws"]
    assert meta["session"] == ids.parse(opened["id"]) and meta["expires"] == prod.now_s + 600
    assert meta["cwd"] == "/src" and meta["host"] == "laptop" and meta["pid"] == 7
    assert opened["expires"] == prod.now_s + 600
    assert opened["gateway_url"] == "http://127.0.0.1:8080"
    assert opened["proxy_url"] == f"http://narrows:pt%2F{ids.parse(opened['id']).hex()}@127.0.0.1:8080"
    assert opened["ca_pem"].startswith("-----BEGIN")
    (lease,) = opened["leases"]
    assert lease["connection"] == "prod" and lease["kind"] == "aws" and lease["region"] == "eu-west-1"
    assert lease["expires"] == opened["expires"]
    assert lease["access_key_id"] and lease["secret_access_key"] and lease["session_token"]


MODEL = {"name": "claude", "kind": "llm", "provider": "anthropic", "credential": {"kind": "file", "path": "/k"}}


def test_a_model_apis_lease_is_a_key_with_the_base_url_to_use_it_at(prod: World) -> None:
    assert prod.client.post("/api/v1/connections", json=MODEL).status_code == 201
    credential = {"kind": "environment", "variable": "K"}
    for name, provider, endpoint in (
        ("gpt", "openai", ""), ("groq", "openai-compatible", "https://g.example.com/openai/v1"),
        ("own", "openai-compatible", "https://o.example.com/base"), ("gem", "gemini", ""),
    ):  # fmt: skip
        body = {"name": name, "kind": "llm", "provider": provider, "endpoint": endpoint, "credential": credential}
        assert prod.client.post("/api/v1/connections", json=body).status_code == 201
    opened = prod.open("prod", "claude", "gpt", "groq", "own", "gem")
    assert opened["token"] in unquote(opened["proxy_url"])
    aws, claude, *others = opened["leases"]
    assert aws["kind"] == "aws" and "api_key" not in aws
    assert set(claude) == {"connection", "kind", "provider", "base_url", "api_key", "access_key_id", "expires"}
    assert claude["kind"] == "llm" and claude["provider"] == "anthropic" and claude["api_key"].startswith("ak/")
    assert claude["base_url"] == "http://127.0.0.1:8080/llm/claude"
    assert [one["base_url"].removeprefix("http://127.0.0.1:8080") for one in others] == [
        "/llm/gpt/v1", "/llm/groq/v1", "/llm/own", "/llm/gem",
    ]  # fmt: skip
    fresh = prod.client.post("/api/v1/leases", json={"session": opened["id"], "connection": "claude"}).json()
    assert fresh["base_url"] == claude["base_url"] and fresh["api_key"]
    noted = prod.store.leases(ids.parse(opened["id"]))
    assert claude["access_key_id"] in {row["access_key_id"] for row in noted}
    assert claude["api_key"] not in json.dumps(noted)


def test_no_lease_without_a_record(prod: World) -> None:
    prod.broken = "disk full"
    body = {"agent": {"name": "x"}, "connections": ["prod"]}
    answer = prod.client.post("/api/v1/sessions", json=body)
    assert answer.status_code == 503 and answer.json()["code"] == "recorder_failed"
    assert answer.json()["detail"] == "disk full"
    assert prod.store.sessions() == [] and prod.events == []


def test_a_session_without_a_lease_is_closed_again(prod: World) -> None:
    prod.client.post("/api/v1/connections", json={"name": "unissuable"})
    prod.events.clear()
    body = {"agent": {"name": "x"}, "connections": ["prod", "unissuable"]}
    answer = prod.client.post("/api/v1/sessions", json=body)
    assert answer.status_code == 404
    assert [name for name, _ in prod.events] == ["SESSION_OPEN", "lease", "lease", "SESSION_CLOSE"]
    assert prod.store.sessions() == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"connections": ["nowhere"]}, 404),
        ({"connections": []}, 422),
        ({"agent": {"name": ""}}, 422),
        ({"agent": {"name": "a\x1b[2J"}}, 422),
        ({"ttl_s": 0}, 422),
        ({"ttl_s": 10**9}, 422),
        ({"principal": "root"}, 422),
    ],
)
def test_wrong_requests_open_nothing(prod: World, change: dict[str, Any], status: int) -> None:
    body = {"agent": {"name": "x"}, "connections": ["prod"]} | change
    answer = prod.client.post("/api/v1/sessions", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert prod.events == [] and prod.store.sessions() == []


def test_a_connection_for_other_groups_is_refused(prod: World) -> None:
    prod.client.post("/api/v1/connections", json={"name": "ops", "groups": ["ops"]})
    prod.client.post("/api/v1/connections", json={"name": "devs", "groups": ["ops", "dev"]})
    answer = prod.client.post("/api/v1/sessions", json={"agent": {"name": "x"}, "connections": ["ops"]})
    assert answer.status_code == 403 and answer.json()["code"] == "not_in_group"
    prod.open("devs")


def test_close_revokes_and_is_recorded(prod: World) -> None:
    session = prod.open("prod")["id"]
    answer = prod.client.post(f"/api/v1/sessions/{session}/close", json={"exit_code": 3})
    assert answer.status_code == 200 and answer.json()["state"] == "closed"
    name, meta = prod.events[-1]
    assert name == "SESSION_CLOSE" and meta["why"] == "closed" and meta["exit_code"] == 3
    assert meta["at"]["ended"] == "", "recorded before it took effect"
    assert state(prod, session) == "closed"
    count = len(prod.events)
    assert prod.client.post(f"/api/v1/sessions/{session}/close").json()["exit_code"] == 3
    assert len(prod.events) == count, "a second close records nothing"


def test_kill_revokes_before_the_answer(prod: World) -> None:
    session = prod.open("prod")["id"]
    answer = prod.client.post(f"/api/v1/sessions/{session}/kill")
    assert answer.status_code == 200 and answer.json()["state"] == "killed"
    assert state(prod, session) == "killed"
    assert [name for name, _ in prod.events[-2:]] == ["ADMIN", "SESSION_CLOSE"]
    assert prod.events[-2][1]["action"] == "session.killed" and prod.events[-2][1]["by"] == "alice"


@pytest.mark.parametrize("broken", ["disk full", "hangs"])
def test_kill_revokes_even_if_it_cannot_be_recorded_and_says_so(prod: World, broken: str) -> None:
    session = prod.open("prod")["id"]
    prod.broken = broken
    begin = time.monotonic()
    answer = prod.client.post(f"/api/v1/sessions/{session}/kill")
    assert time.monotonic() - begin < 1.0
    assert answer.status_code == 503 and "not on the record" in answer.json()["title"]
    assert state(prod, session) == "killed"


def test_expired_sessions_are_ended_and_recorded(prod: World) -> None:
    session = prod.open("prod", ttl_s=60)["id"]
    portal = prod.client.portal
    assert portal is not None
    assert portal.call(end_expired, prod.deps) == 0
    prod.now_s += 60
    assert portal.call(end_expired, prod.deps) == 1
    assert prod.events[-1][1]["why"] == "expired" and state(prod, session) == "expired"


def test_a_lease_is_renewed_for_an_open_session_only(prod: World) -> None:
    opened = prod.open("prod")
    ask = {"session": opened["id"], "connection": "prod"}
    answer = prod.client.post("/api/v1/leases", json=ask)
    assert answer.status_code == 201 and answer.json() == opened["leases"][0]
    for body, status, code in (
        ({**ask, "connection": "other"}, 403, "not_in_session"),
        ({**ask, "session": "nonsense"}, 404, "not_found"),
        ({**ask, "session": ids.text(bytes(16))}, 404, "not_found"),
    ):
        answer = prod.client.post("/api/v1/leases", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    prod.client.post(f"/api/v1/sessions/{opened['id']}/kill")
    answer = prod.client.post("/api/v1/leases", json=ask)
    assert (answer.status_code, answer.json()["code"]) == (403, "session_ended")


def test_no_lease_for_a_session_past_its_expiry_though_nobody_ended_it(prod: World) -> None:
    opened = prod.open("prod", ttl_s=60)
    prod.now_s += 60
    answer = prod.client.post("/api/v1/leases", json={"session": opened["id"], "connection": "prod"})
    assert (answer.status_code, answer.json()["code"]) == (403, "session_ended")


def test_a_session_is_shown_before_it_is_sealed_and_after(prod: World) -> None:
    opened = prod.open("prod")
    shown = prod.client.get(f"/api/v1/sessions/{opened['id']}").json()
    assert shown["indexed"] is False and shown["state"] == "open" and shown["agent"] == "claude-code"
    assert shown["leases"][0]["access_key_id"] == opened["leases"][0]["access_key_id"]
    row = SessionRow(ids.parse(opened["id"]), principal="alice", exchanges=4)
    prod.session_rows[opened["id"]] = row
    prod.client.post(f"/api/v1/sessions/{opened['id']}/kill")
    shown = prod.client.get(f"/api/v1/sessions/{opened['id'][:8]}").json()
    assert shown["indexed"] is True and shown["exchanges"] == 4
    assert shown["state"] == "killed", "the state is told at once, the index may lag"
    assert prod.client.get("/api/v1/sessions/ffff").status_code == 404


def test_sessions_are_listed_with_their_state(prod: World) -> None:
    opened = prod.open("prod")
    prod.session_rows[opened["id"]] = SessionRow(ids.parse(opened["id"]))
    other = SessionRow(bytes(16), state="closed")
    prod.session_rows[ids.text(other.id)] = other
    prod.client.post(f"/api/v1/sessions/{opened['id']}/close")
    answer = prod.client.get("/api/v1/sessions", params={"q": "service:s3", "limit": 7, "cursor": "c"}).json()
    assert [item["state"] for item in answer["items"]] == ["closed", "closed"] and answer["next"] == "more"
    assert prod.asked[-1] == {"q": "service:s3", "limit": 7, "cursor": "c", "now": prod.wall_ns()}


def test_no_get_ever_holds_a_secret(prod: World) -> None:
    opened = prod.open("prod")
    secrets = [opened["leases"][0][k] for k in ("secret_access_key", "session_token")] + ["pt%2F", "pt/"]
    prod.session_rows[opened["id"]] = SessionRow(ids.parse(opened["id"]))
    for path in (
        "sessions",
        f"sessions/{opened['id']}",
        "exchanges",
        "connections",
        "connections/prod",
        "log/status",
        "log/checkpoint",
        "openapi.json",
    ):
        answer = prod.client.get(f"/api/v1/{path}")
        assert answer.status_code == 200, path
        assert not any(secret in answer.text for secret in secrets), path
    recorded = json.dumps([str(event) for event in prod.events])
    assert not any(secret in recorded for secret in secrets)


def test_the_proxy_url_quotes_its_token() -> None:
    assert proxy_url("http://[::1]:8", "a/b+c@") == "http://narrows:a%2Fb%2Bc%40@[::1]:8"


def test_the_owner_is_who_the_token_says(prod: World) -> None:
    assert prod.store.session(ids.parse(prod.open("prod")["id"])).principal == OWNER
