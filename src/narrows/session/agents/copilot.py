"""Copilot CLI's hook events, in its own camelCase form and in the PascalCase one, which is Claude Code's.

The own form does not name its event: the hook command does, or the fields tell it (`names`). Calls have no ids.
"""

from __future__ import annotations

from collections.abc import Callable

from narrows.session.agents import claude_code, tools
from narrows.session.agents.names import parse
from narrows.session.agents.told import Told, shown


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    told.ref("agent_session", told.text("sessionId", "session_id"))
    told.out.model = told.text("model")[:128]
    handle = _EVENTS.get(told.event)
    if handle is None:
        return claude_code.describe(told) if told.event[:1].isupper() else False
    handle(told)
    return True


def _given(told: Told) -> object:
    """A call's arguments, which older versions give as a text of JSON."""
    given = told.value("toolArgs", "tool_input")
    if isinstance(given, str):
        value = parse(given)
        return value if isinstance(value, dict) else given
    return given


def _name(told: Told) -> str:
    return told.text("toolName", "tool_name")


def _id(told: Told) -> str:
    return told.text("toolCallId", "toolUseId", "tool_use_id")


def _pre_tool(told: Told) -> None:
    tools.call(told, _name(told), _given(told), _id(told), cwd=told.text("cwd"))


def _post_tool(told: Told) -> None:
    tools.result(told, _name(told), _given(told), told.value("toolResult", "tool_result"), _id(told))


def _tool_failed(told: Told) -> None:
    why = shown(told.value("error")) or "failed"
    tools.result(told, _name(told), _given(told), None, _id(told), error=why)


def _permission(told: Told) -> None:
    told.notice(f"{_name(told)}: {shown(_given(told), most=4096)}")


def _start(told: Told) -> None:
    claude_code.session_start(told)
    first = told.text("initialPrompt", "initial_prompt")
    if first:
        told.add("prompt", first)


def _stop(told: Told) -> None:
    told.notice(f"stopped: {told.text('stopReason', 'stop_reason')}")


def _subagent_start(told: Told) -> None:
    text, name = told.text("agentDescription"), told.text("agentName", "agent_name")
    told.add("subagent", text, name=name, data={"status": "started"})


def _subagent_stop(told: Told) -> None:
    name = told.text("agentName", "agent_name")
    told.add("subagent", told.text("stopReason", "stop_reason"), name=name, data={"status": "stopped"})


def _error(told: Told) -> None:
    error = told.value("error")
    text = error.get("message") if isinstance(error, dict) else error
    told.notice(shown(text), error=True)


_EVENTS: dict[str, Callable[[Told], None]] = {
    "sessionStart": _start,
    "SessionStart": _start,
    "sessionEnd": claude_code.session_end,
    "userPromptSubmitted": claude_code.prompt,
    "preToolUse": _pre_tool,
    "PreToolUse": _pre_tool,
    "preMcpToolCall": _pre_tool,
    "permissionRequest": _permission,
    "PermissionRequest": _permission,
    "postToolUse": _post_tool,
    "PostToolUse": _post_tool,
    "postToolUseFailure": _tool_failed,
    "agentStop": _stop,
    "Stop": _stop,
    "subagentStart": _subagent_start,
    "SubagentStart": _subagent_start,
    "subagentStop": _subagent_stop,
    "SubagentStop": _subagent_stop,
    "errorOccurred": _error,
    "ErrorOccurred": _error,
    "preCompact": claude_code.summary,
    "notification": claude_code.notification,
}
