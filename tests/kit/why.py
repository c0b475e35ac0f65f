"""A sealed recording of an agent's session as it comes over the wire, with its index and the API over both.

The bytes are those of Claude Code's requests, its hooks' reports, a lease for a process and AWS calls; what is made of
them is made by the describers that the gateway uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from tests.sealed_world import START_NS, Writer, ident
from tests.sealed_world import World as Sealing

from narrows.core import ids
from narrows.core.values import Described, Principal, StoredExchange
from narrows.manage.app import create_app
from narrows.manage.control import ControlStore
from narrows.manage.deps import Deps
from narrows.manage.guard import LocalOwner
from narrows.record.index.check import check_row
from narrows.record.index.sqlite import SqliteIndex
from narrows.record.indexer import Indexer
from narrows.record.log.frame import Flag, Kind
from narrows.record.log.leaf import Place
from narrows.record.reader import iter_raw
from narrows.session.agents.describe import AgentDescriber
from narrows.session.llm.describe import LlmDescriber

TOKEN = "t" * 43
SESSION = ident(1)
AGENT_SESSION = "0f6c4f3e-2d8a-4f6e-9f0e-7f1a52c6b001"
COMMAND = "aws s3 rm s3://exports/2019.csv"
HOSTILE = "\x1b]0;owned\x07\u202e\x1b[2J"
PROMPT = f"remove the exports of 2019 {HOSTILE}"
SECOND = 1_000_000_000


def describe(exchange: StoredExchange) -> Described:
    """As the gateway does, but AWS calls by their facts alone."""
    if exchange.kind == "llm.message":
        return LlmDescriber()(exchange)
    if exchange.kind == "agent.event":
        return AgentDescriber()(exchange)
    return Described(text="an AWS call", parameters={"Bucket": "exports", "Key": f"2019.csv{HOSTILE}"})


@dataclass
class Why:
    """The data directory and what is in it, exchanges by name."""

    data: Path
    index: SqliteIndex
    client: TestClient
    sealing: Sealing
    ids: dict[str, str] = field(default_factory=dict)


class _Recording:
    """Writes exchanges, a second apart."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.ids: dict[str, str] = {}

    def add(self, name: str, facts: dict[str, Any], request: bytes, response: bytes, status: int = 200) -> None:
        exchange = ident(1_000 + len(self.ids))
        self.ids[name] = ids.text(exchange)
        writer = self._writer
        writer.time = START_NS + len(self.ids) * SECOND
        known = {
            "principal": "alice",
            "connection": "prod",
            "decision": "allow",
            "reason": "default",
            "durability": "strict",
        }
        writer.frame(
            Kind.REQUEST, Flag.BEGIN | Flag.END, SESSION, exchange, json.dumps(known | facts).encode(), request
        )
        writer.time += SECOND // 2
        told = json.dumps({"outcome": "complete", "status": status, "first_byte_ns": SECOND // 4}).encode()
        writer.frame(Kind.RESPONSE, Flag.END | Flag.FINAL, SESSION, exchange, told, response)

    def model(self, name: str, messages: list[Any], content: list[Any]) -> None:
        body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "system": "You are", "messages": messages}
        answer = {
            "id": f"msg_{name}",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": content,
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 100, "output_tokens": 20},
        }
        head = (
            b"X-Claude-Code-Session-Id: %s\r\nUser-Agent: claude-cli/2.1.197 (external, sdk-cli)\r\n"
            % AGENT_SESSION.encode()
        )
        facts = {
            "kind": "llm.message",
            "service": "anthropic",
            "operation": "messages",
            "protocol": "anthropic-messages",
        }
        self.add(name, facts, _request("/llm/claude/v1/messages", body, head), _response(answer))

    def hook(self, name: str, event: str, **more: Any) -> None:
        body = {"session_id": AGENT_SESSION, "prompt_id": "p-1", "hook_event_name": event, "cwd": "/src", **more}
        facts = {"kind": "agent.event", "service": "claude-code", "operation": event}
        answer = {"decision": "allow", "reason": "", "exchange": ""}
        self.add(name, facts, _request("/_narrows/events/claude-code", body), _response(answer))

    def lease(self, name: str, lease: str, argv: list[str], source: str = "kernel") -> None:
        tree = [
            {"pid": 42 + n, "start": 9 + n, "ppid": 41 + n, "argv": words, "cwd": "/src", "exe": words[0]}
            for n, words in enumerate((["narrows", "aws-credentials"], argv, ["claude"]))
        ]
        facts = {
            "kind": "agent.event",
            "service": "narrows",
            "operation": "lease.issued",
            "lease": lease,
            "process": tree,
            "process_from": source,
        }
        answer = {"access_key_id": lease, "secret_access_key": "*" * 40, "session_token": "*" * 40}
        self.add(name, facts, _request("/_narrows/leases", {"connection": "prod"}), _response(answer))

    def call(self, name: str, operation: str, lease: str = "") -> None:
        facts = {
            "kind": "aws.call",
            "service": "s3",
            "operation": operation,
            "action": f"s3:{operation}",
            "access_level": "Write",
            "host": "s3.amazonaws.com",
            "method": "DELETE",
            "target": f"/exports/{HOSTILE}",
            "agent": "claude-code",
            "lease": lease,
        }
        self.add(
            name,
            facts,
            b"DELETE /exports/2019.csv HTTP/1.1\r\nHost: s3\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            204,
        )


def _request(path: str, body: Any, head: bytes = b"") -> bytes:
    raw = json.dumps(body).encode()
    return (
        b"POST %s HTTP/1.1\r\nHost: gateway\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (path.encode(), head, len(raw))
    ) + raw


def _response(body: Any) -> bytes:
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw


def _record(writer: Writer) -> dict[str, str]:
    recording = _Recording(writer)
    asked = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    called = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": COMMAND}}
    recording.hook("prompt", "UserPromptSubmit", prompt=PROMPT)
    recording.model("first", asked, [{"type": "text", "text": "I remove it."}, called])
    recording.hook("before", "PreToolUse", tool_name="Bash", tool_input={"command": COMMAND}, tool_use_id="toolu_1")
    recording.lease("lease", "NRWL1", ["/bin/bash", "-c", f"source x && eval '{COMMAND}' < /dev/null"])
    recording.call("call", "DeleteObject", "NRWL1")
    recording.hook(
        "after",
        "PostToolUse",
        tool_name="Bash",
        tool_input={"command": COMMAND},
        tool_use_id="toolu_1",
        tool_response={"stdout": "", "stderr": "denied", "interrupted": False},
    )
    said = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "denied", "is_error": True}
    history = [*asked, {"role": "assistant", "content": [called]}, {"role": "user", "content": [said]}]
    recording.model("second", history, [{"type": "text", "text": "It was denied."}])
    recording.call("stray", "GetObject")
    return recording.ids


@contextmanager
def recorded(data: Path) -> Iterator[Why]:
    """The recording, sealed and indexed, under the data directory."""
    data.mkdir(mode=0o700, exist_ok=True)
    sealing = Sealing(data)
    writer = sealing.writer()
    writer.frame(
        Kind.SESSION_OPEN, 0, SESSION, ids.NIL, b'{"principal":"alice","agent":"claude-code","command":["claude"]}'
    )
    names = _record(writer)
    writer.close_session(SESSION)
    writer.stop()
    sealing.seal()
    index = SqliteIndex(data / "index.db")
    Indexer(data, index, describe).catch_up()

    async def record(kind: int, session: bytes, meta: dict[str, Any]) -> None:
        """Reading raw bytes is on no record here."""

    unused: Any = None
    store = ControlStore(data / "control.db", data / "directory.json", sealing.clock)
    deps = Deps(
        store=store,
        index=index,
        log=unused,
        issuer=unused,
        record=record,
        iter_raw=lambda location, direction: iter_raw(data, Place.parse(location), direction),  # type: ignore[arg-type]
        clock=sealing.clock,
        verify_token=LocalOwner(TOKEN, Principal("alice")),
        gateway_url="http://127.0.0.1:1",
        ca_pem="",
        test_connection=unused,
        random=bytes,
        check_row=lambda row: [found.json() for found in check_row(data, row, describe)],
    )
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(deps), base_url="http://127.0.0.1:9000", headers=headers) as client:
        yield Why(data, index, client, sealing, names)
    store.close()
    index.close()
