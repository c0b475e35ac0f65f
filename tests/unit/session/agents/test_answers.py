"""The exact answers, where a small difference makes an agent do the opposite."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.session.agents.test_describe import ALL, event_of

from narrows.session.agents.answers import ADVISORY, answer, can_block, patience
from narrows.session.agents.names import AGENTS

EVENTS = sorted({(agent, event_of(agent, name)) for agent, name in ALL})


def said(agent: str, event: str, decision: str, reason: str = "no") -> tuple[Any, int]:
    told = answer(agent, event, decision, reason)
    return (json.loads(told.stdout) if told.stdout else None), told.code


@pytest.mark.parametrize(("agent", "event"), EVENTS)
def test_an_allow_never_stands_in_for_the_users_own_permission(agent: str, event: str) -> None:
    """Claude Code, Codex and Copilot would skip their own prompt where a hook says `allow`."""
    value, code = said(agent, event, "allow")
    assert code == 0 and value is not None, "with Cursor's failClosed an empty output is a failure"
    if agent in ("claude-code", "codex", "copilot"):
        assert value == {}


@pytest.mark.parametrize(("agent", "event"), EVENTS)
def test_a_deny_stops_or_is_told(agent: str, event: str) -> None:
    told = answer(agent, event, "deny", "no")
    if can_block(agent, event):
        assert told.code == 2 or told.stdout != answer(agent, event, "allow").stdout
        assert b"no" in told.stdout or "no" in told.stderr
        if agent != "copilot":
            assert not (told.code == 2 and told.stdout), "agents show a body beside exit 2 as it is"
    else:
        assert told.code == 0 and told.stdout == answer(agent, event, "allow").stdout and told.stderr


@pytest.mark.parametrize("decision", ["ask", "hold", "", "ALLOW", "approve"])
@pytest.mark.parametrize("agent", AGENTS)
def test_whatever_is_not_allow_is_a_deny_and_never_ask(agent: str, decision: str) -> None:
    told = answer(agent, "preToolUse", decision, "x")
    assert told.stdout == answer(agent, "preToolUse", "deny", "x").stdout and b"ask" not in told.stdout


def test_a_block_never_keeps_an_agent_going() -> None:
    for agent, event in (
        ("claude-code", "Stop"), ("claude-code", "SubagentStop"), ("claude-code", "TeammateIdle"), ("codex", "Stop"),
        ("gemini", "AfterAgent"), ("copilot", "agentStop"), ("copilot", "Stop"), ("cursor", "stop"),
    ):  # fmt: skip
        assert said(agent, event, "deny") == ({}, 0)


ALLOWED_BY_CODEX: dict[str, dict[str, set[str]]] = {
    "PreToolUse": {"hookSpecificOutput": {"hookEventName", "permissionDecision", "permissionDecisionReason"}},
    "PermissionRequest": {"hookSpecificOutput": {"hookEventName", "decision"}},
    "UserPromptSubmit": {"decision": set(), "reason": set()},
}


@pytest.mark.parametrize("event", sorted(ALLOWED_BY_CODEX))
def test_codex_gets_no_field_that_its_schema_lacks(event: str) -> None:
    value, code = said("codex", event, "deny")
    assert code == 0 and set(value) <= set(ALLOWED_BY_CODEX[event])
    for key, inner in value.items():
        if isinstance(inner, dict):
            assert set(inner) <= set(ALLOWED_BY_CODEX[event][key])


def test_an_unknown_event_is_blocked_by_the_exit_code() -> None:
    for agent in ("cursor", "claude-code", "codex", "other"):
        told = answer(agent, "event", "deny", "why")
        assert (told.stdout, told.code, told.stderr) == (b"", 2, "why")
    assert said("cursor", "event", "allow") == ({"permission": "allow"}, 0)
    assert said("other", "event", "allow") == ({}, 0)


def test_a_reason_is_one_printable_line_within_bounds() -> None:
    told = answer("cursor", "preToolUse", "deny", "a\nb\x1b[31m\x00 \ud800" + "x" * 100_000)
    reason = json.loads(told.stdout)["user_message"]
    assert reason.isprintable() and reason.startswith("a b") and len(reason) == 2000
    assert json.loads(answer("cursor", "preToolUse", "deny").stdout)["reason"]


def test_every_advisory_event_has_a_patience_below_its_agents() -> None:
    assert patience("claude-code", "SessionEnd") < 1.5
    assert all(patience(agent, event) <= 2 for agent, events in ADVISORY.items() for event in events)
