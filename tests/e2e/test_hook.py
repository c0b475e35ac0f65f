"""Every event of the six agents through the real `narrows hook` process and the real gateway, onto the record."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import BIN, Gateway, all_frames, gateway, payload, until

from narrows.cli import agent_sessions
from narrows.session.agents import answers

HOOKS = Path(__file__).parents[1] / "fixtures" / "hooks"
AGENTS = sorted(path.name for path in HOOKS.iterdir())


@pytest.fixture(scope="module")
def narrows_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that no AWS stands behind: hooks need none."""
    with gateway(tmp_path_factory.mktemp("hooks")) as found:
        found.connect("demo", "http://127.0.0.1:9")
        yield found


def hook(gate: Gateway, agent: str, body: bytes, *options: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [BIN / "narrows", "hook", agent, *options],
        input=body, capture_output=True, env=gate.environ(env), timeout=60, check=False,
    )  # fmt: skip


def events(gate: Gateway, agent: str, least: int) -> list[dict[str, Any]]:
    """The agent's exchanges on record, oldest first."""
    with closing(gate.client()) as api:

        def look() -> list[dict[str, Any]] | None:
            found = [one for one in api.pages("/exchanges", order="asc") if one["agent"] == agent]
            return found if len(found) >= least else None

        return until(f"{least} events of {agent}", look)


def ends_last(path: Path) -> tuple[bool, str]:
    """Order: the event that closes a session comes at the end."""
    return path.stem.lower() in ("sessionend", "session.deleted"), path.stem


@pytest.mark.parametrize("agent", AGENTS)
def test_every_event_is_on_record_as_it_came(narrows_alone: Gateway, agent: str) -> None:
    sent: list[tuple[str, bytes]] = []
    for path in sorted((HOOKS / agent).glob("*.json"), key=ends_last):
        if agent == "copilot" and path.stem == "sessionEnd":
            continue  # SessionEnd comes for the same session
        event = "tool.execute.after" if path.stem == "tool.execute.after.edit" else path.stem
        event = event if agent == "opencode" else event.partition(".")[0]
        body = path.read_bytes()
        done = hook(narrows_alone, agent, body, *(("--event", event) if agent == "copilot" else ()))
        event = "Notification" if (agent, event) == ("copilot", "notification") else event
        expected = answers.answer(agent, event, "allow")
        assert (done.returncode, done.stdout) == (0, expected.stdout + b"\n"), (event, done.stderr)
        assert done.stderr == b"", (event, done.stderr)
        sent.append((event, body))

    rows = events(narrows_alone, agent, len(sent))
    assert [row["operation"] for row in rows] == [event for event, _ in sent]
    assert {(row["kind"], row["service"], row["status"]) for row in rows} == {("agent.event", agent, 200)}
    with closing(narrows_alone.client()) as api:
        for row, (_, body) in zip(rows, sent, strict=True):
            raw = b"".join(api.raw(f"/exchanges/{row['id']}/raw", direction="request"))
            assert payload(raw) == body
            assert b"nrw1." not in raw
    sessions = {row["session"] for row in rows}
    assert len(sessions) == 1
    if agent != "codex":  # Codex has no event for its end
        state = narrows_alone.get(f"/sessions/{sessions.pop()}")["state"]
        assert state == "closed" and agent_sessions.records(agent, narrows_alone.data) == []


def test_the_kernel_says_which_process_it_was(narrows_alone: Gateway) -> None:
    """The agent here is the shell's parent: this test's own process."""
    body = b'{"hook_event_name":"beforeSubmitPrompt","conversation_id":"kernel","prompt":"x"}'
    assert hook(narrows_alone, "cursor", body).returncode == 0
    record = agent_sessions.load("cursor", "kernel", narrows_alone.data)
    assert record is not None and agent_sessions.find("cursor", record.process, narrows_alone.data) is not None
    (row,) = narrows_alone.calls(record.session, 1)
    facts = narrows_alone.get(f"/exchanges/{row['id']}")
    assert facts["operation"] == "beforeSubmitPrompt"
    frames = [json.loads(one.meta) for one in all_frames(narrows_alone.data) if b'"process_from"' in one.meta]
    told = [one for one in frames if one.get("process_from") == "kernel"]
    assert told and all(one["process"][0]["pid"] > 1 for one in told)


def test_in_a_session_of_narrows_run(narrows_alone: Gateway) -> None:
    script = 'printf \'%s\' \'{"hook_event_name":"PreToolUse","session_id":"c","tool_use_id":"t1"}\' | narrows hook '
    ran = narrows_alone.run(["sh", "-c", script + "claude-code"], "--connection", "demo")
    assert ran.code == 0 and ran.out.strip().endswith("{}")
    (row,) = narrows_alone.calls(ran.session, 1, "kind:agent.event")
    assert (row["service"], row["operation"]) == ("claude-code", "PreToolUse")
    assert agent_sessions.load("claude-code", "c", narrows_alone.data) is None, "the session is that of the command"


def test_a_killed_session_stays_dead(narrows_alone: Gateway) -> None:
    body = b'{"hook_event_name":"BeforeTool","session_id":"killed","tool_name":"x"}'
    assert json.loads(hook(narrows_alone, "gemini", body).stdout) == {"decision": "allow"}
    record = agent_sessions.load("gemini", "killed", narrows_alone.data)
    assert record is not None
    narrows_alone.narrows("session", "kill", record.session)
    denied = until(
        "a deny", lambda: (one := json.loads(hook(narrows_alone, "gemini", body).stdout))["decision"] == "deny" and one
    )
    assert "killed" in denied["reason"]
    after = agent_sessions.load("gemini", "killed", narrows_alone.data)
    assert after is not None and after.session == record.session


def test_garbage_is_recorded_and_answered(narrows_alone: Gateway) -> None:
    done = hook(narrows_alone, "cursor", b'\xff\x00 no json \x1b[2J "nrw1.abc.def"')
    assert (done.returncode, done.stdout) == (0, b'{"permission":"allow"}\n')
    closed = hook(narrows_alone, "cursor", b"\xff garbage", "--fail-closed")
    assert closed.returncode == 2 and closed.stdout == b"" and re.fullmatch(rb"narrows: [^\x1b]*\n", closed.stderr)
