"""Claude Code's hook events, and those of the agents that took over its form (Codex, Copilot's PascalCase names).

`tool_use_id` is the model's own `tool_use.id`, `session_id` the `X-Claude-Code-Session-Id` header of its model calls,
`prompt_id` the `prompt.id` of its telemetry.
"""

from __future__ import annotations

from collections.abc import Callable

from narrows.session.agents import tools
from narrows.session.agents.told import Told, first_text, shown


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    common(told)
    handle = EVENTS.get(told.event)
    if handle is None:
        return False
    handle(told)
    return True


def common(told: Told) -> None:
    """The ids and the model that each event may carry."""
    told.ref("agent_session", told.text("session_id"))
    told.ref("turn", told.text("prompt_id", "turn_id"))
    told.out.model = told.text("model")[:128]
    told.out.agent_version = told.text("version", "agent_version")[:64]


def session_start(told: Told) -> None:
    """A session started, or went on."""
    told.notice(f"session started ({told.text('source') or 'startup'})")


def session_end(told: Told) -> None:
    """A session ended."""
    told.notice(f"session ended: {told.text('reason')}")


def prompt(told: Told) -> None:
    """What a person asked."""
    told.add("prompt", told.text("prompt"))


def pre_tool(told: Told) -> None:
    """A tool is about to be called."""
    tools.call(told, told.text("tool_name"), told.value("tool_input"), told.text("tool_use_id"), cwd=told.text("cwd"))


def permission(told: Told) -> None:
    """The agent asks whether it may: no call yet, and no id."""
    name = told.text("tool_name")
    text = tools.command(name, told.value("tool_input")) or shown(told.value("tool_input"), most=4096)
    told.notice(f"{name}: {text}" if name else text, data=told.value("tool_input"))


def post_tool(told: Told) -> None:
    """A tool was called."""
    tools.result(
        told, told.text("tool_name"), told.value("tool_input"),
        told.value("tool_response", "tool_result", "tool_output"), told.text("tool_use_id"),
        took_ms=told.value("duration_ms"),
    )  # fmt: skip


def tool_failed(told: Told) -> None:
    """A tool failed."""
    tools.result(
        told, told.text("tool_name"), told.value("tool_input"), None, told.text("tool_use_id"),
        error=shown(told.value("error")) or "failed", took_ms=told.value("duration_ms"),
    )  # fmt: skip


def _batch(told: Told) -> None:
    """Several calls, with what the model gets to see of each: told by their own events already."""
    calls = told.value("tool_calls")
    for one in calls if isinstance(calls, list) else ():
        if isinstance(one, dict):
            told.ref("tool_call", one.get("tool_use_id"))
            data = {"tool_use_id": one.get("tool_use_id")}
            told.add("notice", first_text(one, "tool_name"), name=told.event, data=data)


def stop(told: Told) -> None:
    """The agent's turn is over; its last answer, where the event holds it."""
    answer = told.text("last_assistant_message")
    if answer:
        told.add("answer", answer)
    else:
        told.notice("stopped")


def subagent_start(told: Told) -> None:
    """A subagent begins."""
    name = told.text("agent_type", "agent_name", "agent_id")
    told.add("subagent", told.text("prompt"), id=told.text("agent_id"), name=name, data={"status": "started"})


def subagent_stop(told: Told) -> None:
    """A subagent is done; its answer."""
    name = told.text("agent_type", "agent_name", "agent_id")
    text = told.text("last_assistant_message")
    told.add("subagent", text, id=told.text("agent_id"), name=name, data={"status": "stopped"})


def notification(told: Told) -> None:
    """Something that the agent tells its user."""
    told.notice(": ".join(part for part in (told.text("title"), told.text("message")) if part))


def failure(told: Told) -> None:
    """The agent's turn failed."""
    told.notice(shown(told.value("error", "error_details", "reason")) or "failed", error=True)


def summary(told: Told) -> None:
    """An event without content of its own: its short fields say what happened."""
    skipped = {"session_id", "prompt_id", "turn_id", "transcript_path", "hook_event_name", "cwd", "permission_mode",
               "timestamp", "model"}  # fmt: skip
    parts = [f"{key}: {shown(value, most=500)}" for key, value in list(told.fields.items())[:40] if key not in skipped]
    told.notice("\n".join(parts))


EVENTS: dict[str, Callable[[Told], None]] = {
    "SessionStart": session_start,
    "SessionEnd": session_end,
    "UserPromptSubmit": prompt,
    "PreToolUse": pre_tool,
    "PermissionRequest": permission,
    "PermissionDenied": permission,
    "PostToolUse": post_tool,
    "PostToolUseFailure": tool_failed,
    "PostToolBatch": _batch,
    "Stop": stop,
    "SubagentStart": subagent_start,
    "SubagentStop": subagent_stop,
    "StopFailure": failure,
    "Notification": notification,
}
EVENTS.update(
    dict.fromkeys(
        (
            "Setup", "InstructionsLoaded", "UserPromptExpansion", "MessageDisplay", "TaskCreated", "TaskCompleted",
            "TeammateIdle", "ConfigChange", "CwdChanged", "DirectoryAdded", "FileChanged", "WorktreeCreate",
            "WorktreeRemove", "PreCompact", "PostCompact", "Elicitation", "ElicitationResult",
        ),
        summary,
    )
)  # fmt: skip
