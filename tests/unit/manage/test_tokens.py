"""Tokens of the API: how one gets them, what is kept of them, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narrows.core.errors import Refusal
from narrows.core.issuers import Issuer, roles_from
from narrows.core.values import Connection, CredentialSource, Principal
from narrows.manage.signin import BURST, EXCHANGE
from narrows.manage.tokens import TokenStore

from .conftest import World

ISSUER = "https://login.example.com"
JWT = "urn:ietf:params:oauth:token-type:jwt"
GOOD = {"grant_type": EXCHANGE, "subject_token": "good", "subject_token_type": JWT}


@dataclass
class Told:
    principal: Principal
    subject: str = "u1"
    token_id: str = "j1"


class Desk:
    """Verifies the tokens `good` (of a person) and `job` (of a workload)."""

    groups: tuple[str, ...] = ("dev",)

    def __call__(self, token: str, nonce: str | None = None) -> tuple[Told, Issuer]:
        if token not in ("good", "job") or nonce == "wrong":
            raise Refusal("The token was refused", "it is not good", code="token_signature", status=401)
        if token == "job":
            return Told(Principal("job", "service", ISSUER, ("ci",))), Issuer(ISSUER, kind="workload", audience="gw")
        return Told(Principal("al", "user", ISSUER, self.groups)), Issuer(ISSUER, client_id="narrows")


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Iterator[Desk]:
    made = Desk()
    roles = roles_from({"user": ["dev", "ci"], "admin": ["ops"]})
    world.deps.tokens = TokenStore(tmp_path / "tokens.db", world, roles)
    world.deps.verify_identity = made
    world.deps.issuers = (Issuer(ISSUER, client_id="narrows"), Issuer(ISSUER, kind="workload", audience="gw"))
    world.store.add_connection(Connection("prod", "aws", credential=CredentialSource("chain"), groups=("dev", "ci")))
    yield made
    world.deps.tokens.close()


def ask(world: World, path: str = "token", **form: str) -> Any:
    return world.client.post(f"/api/v1/{path}", data=form, headers={"Authorization": ""})


def exchange(world: World, token: str = "good", **more: str) -> Any:
    return ask(world, grant_type=EXCHANGE, subject_token=token, subject_token_type=JWT, **more)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def identity(world: World, token: str) -> Any:
    return world.client.get("/api/v1/identity", headers=bearer(token))


def test_an_identity_becomes_a_token(world: World, desk: Desk, tmp_path: Path) -> None:
    answer = exchange(world)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert told["token_type"] == "Bearer" and told["expires_in"] == 900 and told["roles"] == ["user"]
    who = identity(world, told["access_token"]).json()
    assert (who["principal"], who["issuer"], who["groups"]) == ("al", ISSUER, ["dev"])
    assert who["expires"] == world.now_s + 900
    kind, meta = world.events[0]
    assert kind == "ADMIN" and meta["action"] == "token.issue" and meta["by"] == "al" and meta["subject"] == "u1"
    for path in tmp_path.iterdir():
        raw = path.read_bytes() if path.is_file() else b""
        assert told["access_token"].encode() not in raw and told["refresh_token"].encode() not in raw
    world.now_s += 900
    assert identity(world, told["access_token"]).status_code == 401


def test_a_workload_gets_no_refresh_token(world: World, desk: Desk) -> None:
    told = exchange(world, "job").json()
    assert "refresh_token" not in told and identity(world, told["access_token"]).json()["kind"] == "service"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, "token_request"),
        ({"grant_type": "password"}, "token_request"),
        ({"grant_type": EXCHANGE, "subject_token": "good"}, "token_request"),
        ({"grant_type": EXCHANGE, "subject_token": "good", "subject_token_type": "saml2"}, "token_request"),
        ({"grant_type": EXCHANGE, "subject_token": "bad", "subject_token_type": JWT}, "token_signature"),
        (GOOD | {"nonce": "wrong"}, "token_signature"),
        (GOOD | {"actor_token": "x"}, "token_request"),
        (GOOD | {"requested_token_type": JWT}, "token_request"),
        ({"grant_type": "refresh_token", "refresh_token": "nrr_made-up"}, "token_revoked"),
        ({"grant_type": "refresh_token"}, "token_revoked"),
    ],
)
def test_what_is_refused_is_on_record_and_gives_nothing(world: World, desk: Desk, form: Any, code: str) -> None:
    answer = ask(world, **form)
    assert answer.status_code == 400 and answer.json()["code"] == code and "access_token" not in answer.json()
    assert answer.json()["error"] in ("invalid_request", "invalid_grant")
    kind, meta = world.events[-1]
    assert kind == "ADMIN" and meta["action"] == "token.refused" and meta["code"] == code


@pytest.mark.parametrize("body", [b"a=1&a=2", b"%", b"\xff=1", b"{}", b"grant_type=" + b"x" * 70_000, b"a=1&" * 40])
def test_a_malformed_form(world: World, desk: Desk, body: bytes) -> None:
    header = {"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"}
    assert world.client.post("/api/v1/token", content=body, headers=header).json()["code"] == "token_request"
    as_json = world.client.post("/api/v1/token", json={"grant_type": EXCHANGE}, headers={"Authorization": ""})
    assert as_json.json()["code"] == "token_request"


def test_nothing_is_issued_that_is_not_on_record(world: World, desk: Desk) -> None:
    world.broken = "disk full"
    answer = exchange(world)
    assert answer.status_code == 503 and "access_token" not in answer.text


def test_who_has_no_role_does_not_come_in(world: World, desk: Desk) -> None:
    desk.groups = ("strangers",)
    answer = exchange(world)
    assert answer.status_code == 403 and answer.json()["code"] == "no_role"


def test_too_many_are_turned_away_and_counted(world: World, desk: Desk) -> None:
    for _ in range(BURST):
        assert exchange(world, "bad").status_code == 400
    before = len(world.events)
    assert [exchange(world).status_code for _ in range(3)] == [429] * 3 and len(world.events) == before
    world.now_s += 1
    assert exchange(world, "bad").status_code == 400
    assert world.events[-1][1]["turned_away"] == 3


def test_a_refresh_token_is_good_once_and_a_second_time_ends_all(world: World, desk: Desk) -> None:
    first = exchange(world).json()
    second = ask(world, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    assert identity(world, second["access_token"]).status_code == 200
    again = ask(world, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert again.status_code == 400 and again.json()["code"] == "token_revoked"
    assert identity(world, second["access_token"]).status_code == 401
    assert ask(world, grant_type="refresh_token", refresh_token=second["refresh_token"]).status_code == 400


def test_a_sign_in_ends_whatever_is_renewed(world: World, desk: Desk) -> None:
    told = exchange(world).json()
    world.now_s += world.deps.login_ttl_s - 10
    told = ask(world, grant_type="refresh_token", refresh_token=told["refresh_token"]).json()
    assert told["expires_in"] == 10
    world.now_s += 10
    assert identity(world, told["access_token"]).status_code == 401
    assert ask(world, grant_type="refresh_token", refresh_token=told["refresh_token"]).status_code == 400


def test_kinds_of_tokens_do_not_stand_in_for_each_other(world: World, desk: Desk) -> None:
    told = exchange(world).json()
    assert identity(world, told["refresh_token"]).status_code == 401
    assert ask(world, grant_type="refresh_token", refresh_token=told["access_token"]).status_code == 400
    for token in ("nra_", "nrk_" + told["access_token"][4:], told["access_token"] + "x", "nra_" + "A" * 500, "é"):
        header = {b"Authorization": f"Bearer {token}".encode()}
        assert world.client.get("/api/v1/identity", headers=header).status_code == 401


def test_giving_back_ends_the_whole_sign_in(world: World, desk: Desk) -> None:
    told = exchange(world).json()
    assert ask(world, "token/revoke", token=told["refresh_token"]).status_code == 200
    assert identity(world, told["access_token"]).status_code == 401
    assert ask(world, "token/revoke", token="nra_unknown").status_code == 200


def test_sessions_beyond_the_new_groups_are_killed_at_the_next_sign_in(world: World, desk: Desk) -> None:
    told = exchange(world).json()
    body = {"agent": {"name": "x"}, "connections": ["prod"]}
    opened = world.client.post("/api/v1/sessions", json=body, headers=bearer(told["access_token"])).json()
    desk.groups = ("dev", "more")
    exchange(world)
    assert world.client.get(f"/api/v1/sessions/{opened['id']}").json()["state"] == "open"
    desk.groups = ("ops",)
    exchange(world)
    shown = world.client.get(f"/api/v1/sessions/{opened['id']}").json()
    assert shown["state"] == "killed" and "groups" in shown["why"]


def test_a_key_is_bounded_and_its_sessions_end_with_it(world: World, desk: Desk) -> None:
    world.store.add_connection(Connection("other", "aws", credential=CredentialSource("chain")))
    body = {"name": "ci", "groups": ["ci"], "connections": ["prod"], "days": 1}
    made = world.client.post("/api/v1/keys", json=body).json()
    assert made["key"] not in world.client.get("/api/v1/keys").text
    assert world.client.post("/api/v1/keys", json=body).status_code == 409
    header = bearer(made["key"])
    opening: dict[str, Any] = {"agent": {"name": "x"}, "connections": ["prod"], "ttl_s": 7 * 86400}
    opened = world.client.post("/api/v1/sessions", json=opening, headers=header).json()
    assert opened["expires"] == world.now_s + 86_400, "a session lives no longer than its key"
    refused = world.client.post("/api/v1/sessions", json=opening | {"connections": ["other"]}, headers=header)
    assert refused.status_code == 403 and refused.json()["code"] == "not_in_key"
    assert [one["name"] for one in world.client.get("/api/v1/connections", headers=header).json()["items"]] == ["prod"]
    assert world.client.delete("/api/v1/keys/ci").status_code == 204
    assert identity(world, made["key"]).status_code == 401
    assert world.client.get(f"/api/v1/sessions/{opened['id']}").json()["state"] == "killed"
    assert [meta["action"] for kind, meta in world.events if kind == "ADMIN" and "key." in meta["action"]] == [
        "key.create", "key.create", "key.revoke",
    ]  # fmt: skip


def test_keys_of_owners_are_made_by_nobody(world: World, desk: Desk) -> None:
    answer = world.client.post("/api/v1/keys", json={"name": "x", "roles": ["owner"]})
    assert answer.status_code == 403
    assert world.client.post("/api/v1/keys", json={"name": "x", "connections": ["nosuch"]}).status_code == 404
    assert world.client.post("/api/v1/keys", json={"name": "x", "days": 367}).status_code == 422


def test_what_anybody_may_know(world: World, desk: Desk) -> None:
    told = world.client.get("/api/v1/signin", headers={"Authorization": ""}).json()
    assert told == {"issuers": [{"issuer": ISSUER, "client_id": "narrows", "scopes": ["openid", "email", "profile"]}]}
