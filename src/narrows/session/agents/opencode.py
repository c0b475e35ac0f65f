"""opencode's events, in the form that our own plugin gives them (`cli/plugins/opencode.js`).

`tool_use_id` is opencode's `callID`, which is the id of the model's tool call; `session_id` the `x-session-id` header.
"""

from __future__ import annotations

from collections.abc import Callable

from narrows.session.agents import tools
from narrows.session.agents.told import Told, shown


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    told.ref("agent_session", told.text("session_id"))
    told.ref("turn", told.text("message_id"))
    told.out.model = told.text("model")[:128]
    told.out.agent_version = told.text("agent_version")[:64]
    handle = _EVENTS.get(told.event)
    if handle is None:
        return False
    handle(told)
    return True


def _prompt(told: Told) -> None:
    told.add("prompt", told.text("prompt"))


def _before(told: Told) -> None:
    tools.call(told, told.text("tool_name"), told.value("tool_input"), told.text("tool_use_id"), cwd=told.text("cwd"))


def _after(told: Told) -> None:
    tools.result(
        told, told.text("tool_name"), told.value("tool_input"), told.value("tool_output"), told.text("tool_use_id")
    )


def _session(told: Told) -> None:
    properties = told.value("properties")
    error = properties.get("error") if isinstance(properties, dict) else None
    told.notice(shown(error or properties, most=4096), error=error is not None)


def _edited(told: Told) -> None:
    told.notice(told.text("file"))


_EVENTS: dict[str, Callable[[Told], None]] = {
    "chat.message": _prompt,
    "tool.execute.before": _before,
    "tool.execute.after": _after,
    "session.created": _session,
    "session.updated": _session,
    "session.idle": _session,
    "session.error": _session,
    "session.deleted": _session,
    "session.compacted": _session,
    "file.edited": _edited,
}
