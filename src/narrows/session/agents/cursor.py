"""Cursor's hook events: prompts, answers, thinking, tools, shell, MCP, files.

A shell call comes twice, as `preToolUse` with an id and as `beforeShellExecution` without: both are recorded as they
came. Prompts and answers come from here alone, since Cursor's model calls are made at its own servers.
"""

from __future__ import annotations

from collections.abc import Callable

from narrows.session.agents import tools
from narrows.session.agents.told import Told, first_text, shown


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    out = told.out
    told.ref("agent_session", told.text("conversation_id", "session_id"))
    told.ref("turn", told.text("generation_id"))
    out.agent_version = told.text("cursor_version")[:64]
    out.model = told.text("model")[:128]
    handle = _EVENTS.get(told.event)
    if handle is None:
        return False
    handle(told)
    return True


def _session_start(told: Told) -> None:
    told.notice(f"session started ({told.text('composer_mode') or 'agent'})")


def _session_end(told: Told) -> None:
    error = told.text("error_message")
    told.notice(error or f"session ended: {told.text('reason', 'final_status')}", error=bool(error))


def _prompt(told: Told) -> None:
    told.add("prompt", told.text("prompt"))
    for one in told.value("attachments") or ():
        if isinstance(one, dict):
            path = one.get("filePath", one.get("file_path"))
            if isinstance(path, str):
                told.add("context", name=path, data={"type": shown(one.get("type"))})


def _pre_tool(told: Told) -> None:
    name = told.text("tool_name")
    tools.call(told, name, told.value("tool_input"), told.text("tool_use_id"), cwd=told.text("cwd"))


def _post_tool(told: Told) -> None:
    """Edits are told by `afterFileEdit`, so that none is told twice; contents are named here too."""
    name, given, id_ = told.text("tool_name"), told.value("tool_input"), told.text("tool_use_id")
    told.ref("tool_call", id_)
    for change in tools.changes(name, given):
        told.file(change.new)
    tools.result(told, name, None, told.value("tool_output"), id_, took_ms=told.value("duration"))
    if name.lower() in tools.READS:
        told.add("file_read", id=id_, name=first_text(given, *tools.PATHS))


def _tool_failed(told: Told) -> None:
    why = told.text("error_message") or told.text("failure_type") or "failed"
    tools.result(told, told.text("tool_name"), None, None, told.text("tool_use_id"), error=why,
                 took_ms=told.value("duration"))  # fmt: skip


def _before_shell(told: Told) -> None:
    cwd = told.text("cwd")
    told.add("command", told.text("command"), name="Shell", data={"cwd": cwd} if cwd else None)


def _after_shell(told: Told) -> None:
    data = {"command": told.text("command"), "duration_ms": told.value("duration")}
    told.add("tool_result", told.text("output"), name="Shell", data=data)


def _before_mcp(told: Told) -> None:
    data = {"input": told.value("tool_input"), "server": told.text("url", "command")}
    told.add("tool_call", shown(told.value("tool_input")), name=f"MCP:{told.text('tool_name')}", data=data)


def _after_mcp(told: Told) -> None:
    text = shown(told.value("result_json"))
    told.add("tool_result", text, name=f"MCP:{told.text('tool_name')}", data={"duration_ms": told.value("duration")})


def _read_file(told: Told) -> None:
    told.add("file_read", told.text("content"), name=told.text("file_path"))
    told.file(told.value("content"))


def _file_edit(told: Told) -> None:
    many = told.value("edits")
    for change in tools.edits(told.text("file_path"), many if isinstance(many, list) else []):
        tools.edit(told, change)


def _subagent_start(told: Told) -> None:
    told.add("subagent", told.text("prompt"), name=told.text("subagent_type"), data={"status": "started"})


def _subagent_stop(told: Told) -> None:
    data = {"status": told.text("status"), "duration_ms": told.value("duration")}
    error = told.text("status") == "error"
    told.add("subagent", shown(told.value("result")), name=told.text("subagent_type"), data=data, error=error)


def _answer(told: Told) -> None:
    told.add("answer", told.text("text"))


def _thought(told: Told) -> None:
    told.add("thinking", told.text("text"))


def _compact(told: Told) -> None:
    told.notice(f"compacting {told.value('messages_to_compact')} of {told.value('message_count')} messages")


def _stop(told: Told) -> None:
    told.notice(f"stopped: {told.text('status')}", error=told.text("status") == "error")


def _workspace(told: Told) -> None:
    told.notice("workspace opened")


_EVENTS: dict[str, Callable[[Told], None]] = {
    "sessionStart": _session_start,
    "sessionEnd": _session_end,
    "beforeSubmitPrompt": _prompt,
    "preToolUse": _pre_tool,
    "postToolUse": _post_tool,
    "postToolUseFailure": _tool_failed,
    "beforeShellExecution": _before_shell,
    "afterShellExecution": _after_shell,
    "beforeMCPExecution": _before_mcp,
    "afterMCPExecution": _after_mcp,
    "beforeReadFile": _read_file,
    "beforeTabFileRead": _read_file,
    "afterFileEdit": _file_edit,
    "afterTabFileEdit": _file_edit,
    "subagentStart": _subagent_start,
    "subagentStop": _subagent_stop,
    "afterAgentResponse": _answer,
    "afterAgentThought": _thought,
    "preCompact": _compact,
    "stop": _stop,
    "workspaceOpen": _workspace,
}
