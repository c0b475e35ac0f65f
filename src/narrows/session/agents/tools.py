"""Tool calls and their results, whatever an agent calls its tools: commands, edits, reads, told by the input's fields.

A call is what the agent means to do: `tool_call`, and `command` with the exact text of a shell's. A result is what
came of it: `tool_result`, and `file_edit` or `file_read`, which a call that failed does not give. New contents are
named by their SHA-256 in both, so that a later upload of the same bytes is found.
"""

from __future__ import annotations

import shlex
from typing import Any

from narrows.session.agents.patch import Change, parse_patch
from narrows.session.agents.told import TEXT, Told, first_text, shown

PATHS = ("file_path", "filePath", "path", "absolute_path", "target_file", "notebook_path", "filename")
OLD = ("old_string", "oldString", "old_str", "old_text", "old_source")
NEW = ("new_string", "newString", "new_str", "new_text", "new_source")
WHOLE = ("content", "contents", "file_text", "fileContent")
READS = frozenset({"read", "read_file", "view", "readfile", "beforereadfile", "notebookread", "read_many_files"})
SHELLS = frozenset(
    {"shell", "bash", "powershell", "run_shell_command", "exec_command", "local_shell", "terminal", "execute", "sh"}
)
PATCHES = frozenset({"apply_patch", "applypatch", "patch"})
AGENTS = frozenset({"task", "agent", "subagent", "delegate_to_agent"})


def call(told: Told, name: str, given: Any, id: str, *, cwd: str = "") -> None:  # noqa: A002
    """A tool is about to be called."""
    told.ref("tool_call", id)
    told.add("tool_call", _summary(given), id=id, name=name, data=given)
    text = command(name, given)
    if text:
        told.add("command", text, id=id, name=name, data={"cwd": cwd} if cwd else None)
    for change in changes(name, given):
        told.file(change.new)
    if name.lower() in AGENTS:
        told.add("subagent", first_text(given, "prompt", "description"), id=id, name=_subagent(given))


def result(
    told: Told,
    name: str,
    given: Any,
    came: Any,
    id: str,  # noqa: A002
    *,
    error: str = "",
    took_ms: Any = None,
) -> None:
    """A tool was called; `error` says why it failed."""
    told.ref("tool_call", id)
    failed = bool(error) or _failed(came)
    text = error or output(came)
    data = {"duration_ms": took_ms} if isinstance(took_ms, (int, float)) else None
    told.add("tool_result", text, id=id, name=name, data=data, error=failed)
    if failed:
        return
    for change in changes(name, given):
        edit(told, change, id=id)
    if name.lower() in READS:
        told.add("file_read", id=id, name=first_text(given, *PATHS))


def edit(told: Told, change: Change, *, id: str = "") -> None:  # noqa: A002
    """A file was changed: the new text, and beside it what it replaced."""
    data = {"old": change.old[:TEXT], "new": change.new[:TEXT], "whole": change.whole}
    told.add("file_edit", change.new, id=id, name=change.path, data=data)
    told.file(change.new)


def command(name: str, given: Any) -> str:
    """The exact text of a shell's command, or an empty string for other tools."""
    if not isinstance(given, dict) or name.lower() in PATCHES:
        return ""
    found = given.get("command", given.get("cmd"))
    if isinstance(found, list) and found and all(isinstance(part, str) for part in found):
        return shlex.join(found)
    if isinstance(found, str) and (name.lower() in SHELLS or not set(given) - {"command", "cmd", "description"}):
        return "" if found.startswith("*** Begin Patch") else found
    return ""


def changes(name: str, given: Any) -> list[Change]:
    """What a tool's input changes in files."""
    if isinstance(given, str):
        return parse_patch(given) if name.lower() in PATCHES else []
    if not isinstance(given, dict):
        return []
    for key in ("command", "input", "patch", "patchText"):
        text = given.get(key)
        if isinstance(text, str) and (name.lower() in PATCHES or text.startswith("*** Begin Patch")):
            return parse_patch(text)
    path = first_text(given, *PATHS)
    if not path or name.lower() in READS:
        return []
    many = given.get("edits")
    if isinstance(many, list):
        return edits(path, many)
    new = _field(given, NEW)
    if new is not None:
        return [Change(path, _field(given, OLD) or "", new)]
    whole = _field(given, WHOLE)
    return [Change(path, "", whole, whole=True)] if whole is not None else []


def edits(path: str, many: list[Any]) -> list[Change]:
    """A list of edits of one file."""
    out = []
    for one in many:
        new = _field(one, NEW) if isinstance(one, dict) else None
        if new is not None:
            out.append(Change(path, _field(one, OLD) or "", new))
    return out


def output(came: Any) -> str:
    """The text of a tool's result, in the forms that agents give it."""
    if not isinstance(came, dict):
        return shown(came)
    if "stdout" in came or "stderr" in came:
        return "\n".join(part for part in (first_text(came, "stdout"), first_text(came, "stderr")) if part)
    error = came.get("error")
    if error:
        return shown(error.get("message", error) if isinstance(error, dict) else error)
    for key in ("textResultForLlm", "text_result_for_llm", "llmContent", "output", "content", "text", "result"):
        if came.get(key) is not None:
            return shown(came[key])
    return shown(came)


def _failed(came: Any) -> bool:
    if not isinstance(came, dict):
        return False
    kind = came.get("resultType", came.get("result_type"))
    return bool(came.get("error") or came.get("is_error") or came.get("isError")) or (
        isinstance(kind, str) and kind != "success"
    )


def _field(given: Any, names: tuple[str, ...]) -> str | None:
    return next((given[name] for name in names if isinstance(given.get(name), str)), None)


def _subagent(given: Any) -> str:
    return first_text(given, "subagent_type", "agent_type", "agentName", "agent_name", "name")


def _summary(given: Any) -> str:
    """The one text that says most about a call: the command, the file, the question."""
    found = first_text(given, "command", "cmd", *PATHS, "pattern", "query", "url", "prompt", "description")
    return found if found else shown(given, most=4096)
