"""The API over a real control store, with fakes for the recorder, the index and the lease issuer.

Every fake writes what it is asked into one list, `world.events`, so that a test can assert the order of
things.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from narrows.core import ids
from narrows.core.errors import NotFound, RecorderFailed
from narrows.core.issuers import same_principal
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.directory import FileDirectory
from narrows.manage.app import create_app
from narrows.manage.control import ControlStore
from narrows.manage.deps import Deps
from narrows.manage.guard import LocalOwner
from narrows.record.index.rows import ExchangeRow, Page, SessionRow
from narrows.record.log.frame import Kind

TOKEN = "t" * 43
OWNER = Principal("alice", groups=("dev",))


@dataclass
class World:
    """What the tests turn and look at."""

    directory: FileDirectory
    store: ControlStore = field(init=False)
    client: TestClient = field(init=False)
    deps: Deps = field(init=False)
    now_s: int = 1_800_000_000
    events: list[tuple[str, Any]] = field(default_factory=list)
    broken: str = ""
    not_ready: str = ""
    exchanges: dict[str, ExchangeRow] = field(default_factory=dict)
    session_rows: dict[str, SessionRow] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=lambda: [b"GET / HTTP/1.1\r\n", b"\r\n"])
    asked: list[dict[str, Any]] = field(default_factory=list)

    def wall_ns(self) -> int:
        return self.now_s * 1_000_000_000

    def mono_ns(self) -> int:
        return self.wall_ns()

    async def record(self, kind: int, session: bytes, meta: dict[str, Any]) -> None:
        if self.broken == "hangs":
            await asyncio.Event().wait()
        if self.broken:
            raise RecorderFailed("The recorder cannot write", self.broken)
        json.dumps(meta)
        self.directory.refresh()
        state = {
            "connections": [c.name for c in self.directory.connections()],
            "ended": self.directory.session_ended(session),
        }
        self.events.append((Kind(kind).name, {"session": session, **meta, "at": state}))

    def issue(
        self,
        *,
        session: bytes,
        connection: str,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
    ) -> Lease:
        self.events.append(("lease", connection))
        if connection == "unissuable":
            raise NotFound("No lease key", "it is gone")
        secret = hashlib.sha256(session + connection.encode()).hexdigest()
        key = f"NRWL{secret[:16].upper()}"
        return Lease(session, connection, principal, agent, expires, key, f"sk/{secret}", f"st+{secret}")

    def api_key(
        self,
        *,
        session: bytes,
        connection: str,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
    ) -> Lease:
        self.events.append(("key", connection))
        name = hashlib.sha256(session + connection.encode()).hexdigest()
        return Lease(session, connection, principal, agent, expires, f"NRWL{name[:16].upper()}", "", f"ak/{name}")

    def proxy_token(
        self,
        *,
        session: bytes,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
        connections: tuple[str, ...] = (),
    ) -> str:
        return f"pt/{session.hex()}"

    def checkpoint(self) -> str:
        return "narrows.example/log\n3\nhash\n\n— sig\n"

    def status(self) -> dict[str, Any]:
        return {"size": 3, "time": 5, "lag": 0}

    def sessions(
        self, query: str = "", limit: int = 50, cursor: str = "", *, now_ns: int, owner: Principal | None = None
    ) -> Page[SessionRow]:
        self.asked.append({"q": query, "limit": limit, "cursor": cursor, "now": now_ns})
        return Page([row for row in self.session_rows.values() if self.owns(row.id, owner)], "more")

    def owns(self, session: bytes, owner: Principal | None) -> bool:
        """Whether a session is the owner's, or all are to be seen."""
        try:
            return owner is None or same_principal(self.store.session(session).principal, owner)
        except NotFound:
            return False

    def exchanges_page(self, owner: Principal | None, **asked: Any) -> Page[ExchangeRow]:
        self.asked.append(asked)
        return Page([row for row in self.exchanges.values() if self.owns(row.session, owner)], "")

    def iter_raw(self, location: Any, direction: str) -> Iterator[bytes]:
        self.events.append(("raw", (location, direction)))
        yield from self.raw

    async def test_connection(self, connection: Connection) -> dict[str, Any]:
        return {"ok": True, "identity": "arn:aws:iam::123456789012:user/x"}

    def open(self, *connections: str, **more: Any) -> dict[str, Any]:
        """Open a session through the API."""
        body = {"agent": {"name": "claude-code", "version": "2"}, "command": ["aws"], "cwd": "/src"}
        answer = self.client.post("/api/v1/sessions", json=body | {"connections": list(connections)} | more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


class FakeIndex:
    """The index over the world's dictionaries."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions = world.sessions

    def exchanges(
        self,
        query: str = "",
        session: str = "",
        limit: int = 50,
        cursor: str = "",
        order: str = "desc",
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        asked = {"session": session, "limit": limit, "cursor": cursor, "order": order, "now": now_ns}
        return self.world.exchanges_page(owner, q=query, **asked)

    def exchanges_after(
        self,
        leaf_index: int,
        query: str = "",
        session: str = "",
        limit: int = 50,
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        return self.world.exchanges_page(owner, after=leaf_index, q=query, session=session, limit=limit)

    def exchange(self, id_or_prefix: str, *, owner: Principal | None = None) -> ExchangeRow:
        for key, row in self.world.exchanges.items():
            if key.startswith(id_or_prefix) and self.world.owns(row.session, owner):
                return row
        raise NotFound("There is no such exchange")

    def stories(
        self, session: str, cursor: str = "", limit: int = 500, *, owner: Principal | None = None
    ) -> Page[ExchangeRow]:
        mine = [row for row in self.world.exchanges.values() if self.world.owns(row.session, owner)]
        rows = [row for row in mine if ids.text(row.session) == session]
        rows.sort(key=lambda row: row.started_ns)
        begin = int(cursor or 0)
        return Page(rows[begin : begin + limit], str(begin + limit) if len(rows) > begin + limit else "")

    def session(self, id_or_prefix: str, *, owner: Principal | None = None) -> SessionRow:
        for key, row in self.world.session_rows.items():
            if key.startswith(id_or_prefix) and self.world.owns(row.id, owner):
                return row
        raise NotFound("There is no such session")

    def cursor(self) -> int:
        return 2


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(FileDirectory(tmp_path / "directory.json"))
    made.store = ControlStore(tmp_path / "control.db", tmp_path / "directory.json", made)
    made.deps = Deps(
        store=made.store,
        index=FakeIndex(made),
        log=made,
        issuer=made,
        record=made.record,
        iter_raw=made.iter_raw,
        clock=made,
        verify_token=LocalOwner(TOKEN, OWNER),
        gateway_url="http://127.0.0.1:8080",
        ca_pem="-----BEGIN CERTIFICATE-----\n",
        test_connection=made.test_connection,
        random=lambda n: bytes(range(n)),
        ready=lambda: made.not_ready,
        hosts=frozenset({"console.example.net"}),
        origins=frozenset({"https://console.example.net"}),
    )
    app = create_app(made.deps)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, base_url="http://127.0.0.1:9000", headers=headers, raise_server_exceptions=False) as client:
        made.client = client
        yield made
    made.store.close()


def exchange_row(number: int, **more: Any) -> ExchangeRow:
    """A row whose id begins with `number` in hexadecimal."""
    return ExchangeRow(bytes([number]) + bytes(15), bytes(15) + b"\1", leaf_index=number, **more)


def put(world: World, row: ExchangeRow) -> str:
    """Let the fake index know a row; returns its id."""
    key = ids.text(row.id)
    world.exchanges[key] = row
    return key
