"""The API over the real recording: recorded frames, sealed, indexed, asked for, and read back to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from starlette.testclient import TestClient
from tests.sealed_world import ORIGIN
from tests.sealed_world import World as Recording

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.values import Described, StoredExchange
from narrows.identity.lease import LeaseIssuer
from narrows.manage.app import create_app
from narrows.manage.deps import Deps
from narrows.record.index.sqlite import SqliteIndex
from narrows.record.indexer import Indexer
from narrows.record.log.frame import Kind
from narrows.record.log.leaf import Place
from narrows.record.reader import iter_raw
from narrows.record.sealed import sealed_size

from .conftest import TOKEN, World


class FileLog:
    """The log's port over its files."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def checkpoint(self) -> str:
        try:
            return (self.data / "log" / "checkpoint").read_text()
        except FileNotFoundError as error:
            raise NotFound("There is no checkpoint yet") from error

    def status(self) -> dict[str, Any]:
        return {"size": sealed_size(self.data)}


def describe(exchange: StoredExchange) -> Described:
    return Described(service="s3", operation="GetObject", status=200, text=exchange.response.decode())


class Whole:
    def __init__(self, world: World, data: Path) -> None:
        self.recording = Recording(data)
        self.writer = self.recording.writer()
        self.index = SqliteIndex(data / "index.db")
        self.indexer = Indexer(data, self.index, describe)
        self.issuer = LeaseIssuer(bytes(32))
        deps: Deps = replace(
            world.deps,
            index=self.index,
            log=FileLog(data),
            issuer=self.issuer,
            record=self.record,
            iter_raw=lambda location, direction: iter_raw(data, Place.parse(location), cast(Any, direction)),
        )
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = TestClient(create_app(deps), base_url="http://127.0.0.1:1", headers=headers)

    async def record(self, kind: int, session: bytes, meta: dict[str, Any]) -> None:
        self.writer.frame(kind, 0, session, ids.NIL, orjson.dumps(meta))

    def seal(self) -> None:
        self.recording.seal()
        self.indexer.catch_up()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def whole(world: World, tmp_path: Path) -> Iterator[Whole]:
    made = Whole(world, tmp_path)
    with made.client:
        yield made
    made.index.close()


def test_from_the_session_to_the_bytes(whole: Whole, world: World) -> None:
    client = whole.client
    assert client.get("/api/v1/log/checkpoint").status_code == 404
    assert whole.get("log/status") == {"size": 0, "indexed": -1}

    assert client.post("/api/v1/connections", json={"name": "prod"}).status_code == 201
    opened = client.post(
        "/api/v1/sessions", json={"agent": {"name": "claude-code"}, "connections": ["prod"], "command": ["aws"]}
    ).json()
    session = ids.parse(opened["id"])
    lease = opened["leases"][0]
    checked = whole.issuer.check(lease["access_key_id"], lease["session_token"].encode(), world.now_s)
    assert checked.session == session and checked.secret_access_key == lease["secret_access_key"]

    exchange = ids.text(whole.writer.call(session, 7))
    assert client.post(f"/api/v1/sessions/{opened['id']}/close", json={"exit_code": 0}).status_code == 200
    whole.seal()

    (row,) = whole.get("exchanges", q='service:s3 "answer 7"')["items"]
    assert row["id"] == exchange and row["session"] == opened["id"] and row["decision"] == "allow"
    shown = whole.get(f"sessions/{opened['id'][:13]}")
    assert (shown["exchanges"], shown["state"], shown["exit_code"]) == (1, "closed", 0)
    assert shown["agent"] == "claude-code" and shown["command"] == ["aws"] and shown["indexed"] is True
    assert [s["id"] for s in whole.get("sessions")["items"]] == [opened["id"]]

    raw = client.get(f"/api/v1/exchanges/{exchange}/raw", params={"direction": "response"})
    assert raw.content == b"HTTP/1.1 200 OK\r\n\r\nanswer 7"
    whole.seal()
    admin = [orjson.loads(record_meta) for record_meta in _admin(whole)]
    assert [meta["action"] for meta in admin] == ["connection.add", "exchange.read"]
    assert admin[1]["exchange"] == exchange and admin[1]["by"] == "alice"

    assert client.get("/api/v1/log/checkpoint").text.startswith(ORIGIN)
    status = whole.get("log/status")
    assert status["size"] > 0 and status["indexed"] == status["size"] - 1
    assert whole.recording.verify().ok


def _admin(whole: Whole) -> list[bytes]:
    return [
        orjson.dumps(record.request_facts)
        for record in whole.recording.sealed
        if record.type == Kind.ADMIN.name.lower()
    ]


def test_no_secret_reaches_the_disk(whole: Whole, tmp_path: Path) -> None:
    client = whole.client
    client.post("/api/v1/connections", json={"name": "prod"})
    opened = client.post("/api/v1/sessions", json={"agent": {"name": "x"}, "connections": ["prod"]}).json()
    client.post("/api/v1/leases", json={"session": opened["id"], "connection": "prod"})
    client.post(f"/api/v1/sessions/{opened['id']}/kill")
    whole.seal()
    lease = opened["leases"][0]
    secrets = [lease["secret_access_key"], lease["session_token"], opened["proxy_url"].split(":")[2].split("@")[0]]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path
