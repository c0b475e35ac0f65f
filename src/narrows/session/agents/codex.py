"""Codex's hook events: Claude Code's form, with `turn_id`; `tool_use_id` is the model's own `call_id`.

Its patches (`apply_patch`) come as the tool's command. The legacy `notify` program's report is understood too.
"""

from __future__ import annotations

from narrows.session.agents import claude_code
from narrows.session.agents.told import Told, shown

_EVENTS = frozenset(
    {
        "SessionStart", "UserPromptSubmit", "PreToolUse", "PermissionRequest", "PostToolUse", "PreCompact",
        "PostCompact", "SubagentStart", "SubagentStop", "Stop", "StopFailure",
    }
)  # fmt: skip


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    if told.event == "agent-turn-complete":
        _notified(told)
        return True
    if told.event not in _EVENTS:
        claude_code.common(told)
        return False
    return claude_code.describe(told)


def _notified(told: Told) -> None:
    told.ref("agent_session", told.text("thread-id"))
    told.ref("turn", told.text("turn-id"))
    asked = told.value("input-messages")
    if asked:
        told.add("prompt", shown(asked))
    told.add("answer", told.text("last-assistant-message"))
