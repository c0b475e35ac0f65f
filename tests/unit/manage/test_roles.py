"""Role x endpoint: every route has a row, every row is a route, and each role gets exactly what its row says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from narrows.core import ids
from narrows.core.issuers import ROLES, RoleMap, roles_from
from narrows.core.values import Connection, CredentialSource, Principal
from narrows.manage.app import create_app
from narrows.manage.roles import PUBLIC, TABLE, Verdict, judge
from narrows.manage.tokens import TokenStore

from .conftest import World, exchange_row, put

MAP = roles_from({role: [role] for role in ROLES})


def _routes(world: World) -> Iterator[tuple[str, str]]:
    app = create_app(world.deps)
    assert app.openapi_url is not None
    yield "GET", app.openapi_url
    for path, methods in app.openapi()["paths"].items():
        yield from ((method.upper(), path) for method in methods)


def test_every_route_has_a_row_and_every_row_a_route(world: World) -> None:
    assert set(_routes(world)) == set(TABLE)


def test_public_is_what_anybody_may_know() -> None:
    assert {row for row, roles in TABLE.items() if roles == PUBLIC} == {
        ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/api/v1/signin"), ("POST", "/api/v1/token"),
        ("POST", "/api/v1/token/revoke"),
    }  # fmt: skip


def test_who_may_change_things() -> None:
    changing = {row: roles for row, roles in TABLE.items() if row[0] != "GET" and roles}
    for row, roles in changing.items():
        assert not roles & {"auditor", "approver"}, f"{row}: an auditor changes nothing"
        mine = row[1].startswith(("/api/v1/sessions", "/api/v1/leases"))
        assert ("user" in roles) == mine, row


@pytest.fixture
def roles(world: World, tmp_path: Path) -> Iterator[World]:
    world.deps.tokens = TokenStore(tmp_path / "tokens.db", world, MAP)
    world.store.add_connection(Connection("prod", "aws", credential=CredentialSource("chain")))
    yield world
    world.deps.tokens.close()


def token(world: World, *groups: str, name: str = "al") -> dict[str, str]:
    """The header of someone in these groups."""
    assert world.deps.tokens is not None
    who = Principal(name, "user", "https://login.example.com", groups)
    issued = world.deps.tokens.sign_in(who, world.now_s + 900, world.now_s + 3600)
    return {"Authorization": f"Bearer {issued.access}"}


@pytest.mark.parametrize("role", [*ROLES, "nothing"])
@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_each_role_gets_what_its_row_says(roles: World, row: tuple[str, str], role: str) -> None:
    method, path = row
    allowed = TABLE[row]
    filled = re.sub(r"\{name\}", "nosuch", re.sub(r"\{\w+\}", ids.text(bytes(15) + b"\7"), path))
    answer = roles.client.request(method, filled, headers=token(roles, role))
    assert answer.status_code < 500
    denied = answer.status_code == 403 and answer.json()["code"] == "role_denied"
    assert denied == (bool(allowed) and role not in allowed), answer.text
    nobody = roles.client.request(method, filled, headers={"Authorization": ""})
    assert (nobody.status_code == 401) == bool(allowed)


def test_a_refusal_is_on_record_and_stands_when_it_cannot_be(roles: World) -> None:
    header = token(roles, "auditor")
    assert roles.client.delete("/api/v1/connections/prod", headers=header).status_code == 403
    kind, meta = roles.events[-1]
    assert kind == "ADMIN" and meta["action"] == "refused" and meta["by"] == "al"
    assert (meta["method"], meta["path"], meta["code"]) == ("DELETE", "/api/v1/connections/prod", "role_denied")
    for broken in ("full", "hangs"):
        roles.broken = broken
        assert roles.client.delete("/api/v1/connections/prod", headers=header).status_code == 403


@pytest.mark.parametrize("path", ["/api/v1/sessions/", "/api/v1//sessions", "/API/v1/sessions", "/api/v1/keys/a/b"])
def test_a_path_beside_the_table_is_nothing(roles: World, path: str) -> None:
    assert judge("GET", path, frozenset(ROLES)) is Verdict.NO_ROUTE
    assert roles.client.get(path).status_code == 404
    assert roles.client.patch("/api/v1/sessions").status_code == 405


def test_a_user_sees_own_sessions_and_others_are_not_there(roles: World) -> None:
    al, bo, eve = token(roles, "user"), token(roles, "user", name="bo"), token(roles, "auditor", name="eve")
    body = {"agent": {"name": "x"}, "connections": ["prod"]}
    opened = roles.client.post("/api/v1/sessions", json=body, headers=al).json()
    row = exchange_row(5)
    row.session = ids.parse(opened["id"])
    exchange = put(roles, row)
    for path in (
        f"/sessions/{opened['id']}", f"/exchanges/{exchange}", f"/exchanges/{exchange}/why",
        f"/exchanges/{exchange}/raw?direction=request", f"/exchanges/{exchange}/check",
    ):  # fmt: skip
        got = [roles.client.get(f"/api/v1{path}", headers=who).status_code for who in (al, bo, eve)]
        assert got == [200, 404, 200], path
    for act in ("kill", "close"):
        missing = ids.text(bytes(15) + b"\7")
        other = roles.client.post(f"/api/v1/sessions/{opened['id']}/{act}", headers=bo)
        nothing = roles.client.post(f"/api/v1/sessions/{missing}/{act}", headers=bo)
        assert other.status_code == nothing.status_code == 404
        assert other.text.replace(opened["id"], missing) == nothing.text, "the two look the same"
    lease = {"session": opened["id"], "connection": "prod"}
    assert roles.client.post("/api/v1/leases", json=lease, headers=bo).status_code == 404
    assert roles.client.post("/api/v1/leases", json=lease, headers=al).status_code == 201
    timeline = f"/api/v1/sessions/{opened['id']}/timeline"
    assert roles.client.get(timeline, headers=bo).json()["items"] == []
    assert roles.client.get("/api/v1/exchanges", headers=bo).json()["items"] == []
    assert len(roles.client.get("/api/v1/exchanges", headers=al).json()["items"]) == 1
    assert roles.client.post(f"/api/v1/sessions/{opened['id']}/kill", headers=al).json()["state"] == "killed"


def test_a_name_of_another_issuer_is_somebody_else(roles: World) -> None:
    opened = roles.client.post(
        "/api/v1/sessions", json={"agent": {"name": "x"}, "connections": ["prod"]}, headers=token(roles, "user")
    ).json()
    assert roles.deps.tokens is not None
    other = Principal("al", "user", "https://evil.example", ("user",))
    issued = roles.deps.tokens.sign_in(other, roles.now_s + 900, None)
    header = {"Authorization": f"Bearer {issued.access}"}
    assert roles.client.get(f"/api/v1/sessions/{opened['id']}", headers=header).status_code == 404


def test_a_connection_for_other_groups_is_not_there(roles: World) -> None:
    roles.store.add_connection(Connection("secret", "aws", credential=CredentialSource("chain"), groups=("ops",)))
    mine = roles.client.get("/api/v1/connections", headers=token(roles, "user")).json()["items"]
    assert [one["name"] for one in mine] == ["prod"]
    assert roles.client.get("/api/v1/connections/secret", headers=token(roles, "user")).status_code == 404
    assert roles.client.get("/api/v1/connections/secret", headers=token(roles, "user", "ops")).status_code == 200
    assert roles.client.get("/api/v1/connections/secret", headers=token(roles, "auditor")).status_code == 200


def test_roles_come_from_groups() -> None:
    some = roles_from({"admin": ["ops"], "auditor": ["sec", "ops"]})
    assert some.of(Principal("x", groups=("ops",))) == {"admin", "auditor", "user"}
    assert some.of(Principal("x")) == {"user"} == RoleMap().of(Principal("x", groups=("admin", "owner")))
    assert MAP.of(Principal("x", groups=("admin",))) == {"admin"}
