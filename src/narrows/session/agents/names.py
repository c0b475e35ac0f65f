"""What an event is called, and whose session it is of: read from a hook's payload, fast, and never raising.

Serves the path (one call per event) and the hook process itself, so it imports `json` and nothing else.
"""

from __future__ import annotations

import json
import re

AGENTS = ("cursor", "claude-code", "codex", "gemini", "copilot", "opencode")
"""The agents whose events are understood."""

UNKNOWN = "event"
"""The name of an event that does not tell its own."""

SESSION_KEYS = ("conversation_id", "session_id", "sessionId", "sessionID", "thread-id")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def parse(payload: bytes | str) -> object:
    """The payload's JSON, or None for what is none, is nested too deep, or holds numbers too long to be read."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def event_name(agent: str, payload: bytes, hint: str = "") -> str:
    """The event as the agent spells it; `hint` (a hook's --event) if the payload does not say; else `event`."""
    return name_of(agent, parse(payload), hint)


def name_of(agent: str, value: object, hint: str = "") -> str:
    """Like `event_name`, of a payload that is parsed."""
    if isinstance(value, dict):
        for key in ("hook_event_name", "hookEventName"):
            found = value.get(key)
            if isinstance(found, str) and _NAME.fullmatch(found):
                return found
        if not hint and agent == "copilot":
            return _copilot(value)
        if not hint and agent == "codex" and value.get("type") == "agent-turn-complete":
            return "agent-turn-complete"
    return hint if _NAME.fullmatch(hint) else UNKNOWN


def _copilot(value: dict[str, object]) -> str:
    """Copilot's own payloads do not name their event: told by the fields that only one of them has."""
    if "toolName" in value:
        if "toolResult" in value:
            return "postToolUse"
        return "postToolUseFailure" if "error" in value else "preToolUse"
    if "errorContext" in value or "error" in value:
        return "errorOccurred"
    if "agentName" in value:
        return "subagentStop" if "stopReason" in value else "subagentStart"
    for key, name in (
        ("prompt", "userPromptSubmitted"),
        ("source", "sessionStart"),
        ("stopReason", "agentStop"),
        ("reason", "sessionEnd"),
        ("trigger", "preCompact"),
    ):
        if key in value:
            return name
    return UNKNOWN


def session_of(value: object) -> str:
    """The agent's own id of its session, or an empty string."""
    if isinstance(value, dict):
        for key in SESSION_KEYS:
            found = value.get(key)
            if isinstance(found, str) and found:
                return found[:512]
    return ""
