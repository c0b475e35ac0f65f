"""Code in answers: fenced blocks, and the commands, file edits and reads that tool calls ask for.

`derive` works on the items of any API: what it finds goes right behind the item that it was found in, and that one
stays. Contents that are whole files become refs of kind `file`, so that an upload of the same text finds them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from narrows.core.values import Described, Item
from narrows.session.digests import digests, with_line_end
from narrows.session.llm import patches
from narrows.session.llm.loose import arr, first, obj, txt

BLOCKS = 1000
"""Code blocks that are taken out of one answer."""

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)")
_SHELLS = frozenset(
    (
        "bash",
        "shell",
        "exec_command",
        "run_shell_command",
        "local_shell",
        "local_shell_call",
        "shell_call",
        "shell_command",
        "container.exec",
        "run_terminal_cmd",
        "run_in_terminal",
        "run_command",
        "execute_command",
        "execute_bash",
        "terminal",
    )
)
"""Tools that run a command, names in lower case: Claude Code and opencode, Codex, Gemini CLI, and what others use."""
_EXECUTED = frozenset(("mswea_bash_command",))
"""Languages of a block that its agent runs (mini-swe-agent without tool calls)."""
_INTERPRETERS = frozenset(("sh", "bash", "zsh", "dash", "/bin/sh", "/bin/bash", "/bin/zsh", "/usr/bin/bash"))


def derive(out: Described) -> None:
    """Put code, commands, edits, reads and subagents behind the answers and tool calls of the response."""
    told = {(item.type, item.id) for item in out.items if item.id and item.type in ("command", "file_edit")}
    items: list[Item] = []
    for item in out.items:
        items.append(item)
        if item.said_by != "response":
            continue
        if item.type == "answer":
            items += _code_items(item.text, out)
        elif item.type == "code":
            out.refs += [("file", digest) for digest in with_line_end(item.text)]
        elif item.type == "tool_call":
            items += [made for made in _tool_items(item, out) if (made.type, made.id) not in told]
    out.items = items


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, code) of each fenced block, by CommonMark's rules; the last one may lack its closing fence."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at].rstrip("\r"))
        at += 1
        if opening is None or (opening["fence"][0] == "`" and "`" in opening["info"]):
            continue
        mark, least = opening["fence"][0], len(opening["fence"])
        code: list[str] = []
        while at < len(lines):
            line = lines[at].rstrip("\r")
            bare = line.strip()
            at += 1
            if len(bare) >= least and not bare.strip(mark):
                break
            code.append(_dedent(line, len(opening["indent"])))
        yield _language(opening["info"]), "\n".join(code)


def _dedent(line: str, width: int) -> str:
    space = len(line) - len(line.lstrip(" \t"))
    return line[min(space, width) :]


def _language(info: str) -> str:
    word = info.strip().split(" ", 1)[0].strip("{}").removeprefix(".").removeprefix("language-")
    return word.split(":", 1)[0].split(",", 1)[0].lower()[:40]


def _code_items(text: str, out: Described) -> list[Item]:
    items: list[Item] = []
    for language, code in blocks(text):
        if len(items) >= BLOCKS:
            out.problems.append(f"only the first {BLOCKS} code blocks of an answer were taken out")
            break
        out.refs += [("file", digest) for digest in with_line_end(code)]
        items.append(Item("code", code, name=language, said_by="response"))
        if language in _EXECUTED:
            items.append(Item("command", code, said_by="response"))
    return items


def _tool_items(call: Item, out: Described) -> list[Item]:
    name = call.name.rsplit("__", 1)[-1].lower()
    data = obj(call.data)
    call.text = call.text or _summary(data)
    if name in _SHELLS:
        command = _command(data)
        patched = patches.in_command(command)
        items = [Item("command", command, call.id, call.name, said_by="response")] if command else []
        return items + (_patch(patched, call.id, out) if patched else [])
    if name == "apply_patch":
        return _patch(_patch_text(call), call.id, out) or _operation(data, call.id, out)
    return _TOOLS[name](data, call.id, out) if name in _TOOLS else []


def _command(data: dict[str, Any]) -> str:
    """The text of a shell tool's command: a string, a list of words, or several commands."""
    action = obj(data.get("action")) or data
    value = first(action, "command", "cmd", "commands", "script")
    if isinstance(value, str):
        return value
    words = [word for word in arr(value) if isinstance(word, str)]
    if "commands" in action and value is action.get("commands"):
        return "\n".join(words)
    if len(words) == 3 and words[0] in _INTERPRETERS and words[1] in ("-c", "-lc"):
        return words[2]
    return shlex.join(words)


def _summary(data: dict[str, Any]) -> str:
    """The one text that says most about a call."""
    path = _path(data)
    found = _command(data) if "command" in data or "cmd" in data or "action" in data or "commands" in data else path
    return txt(found) or txt(first(data, "pattern", "query", "url", "prompt", "description"))


def _edit(path: Any, old: Any, new: Any, identifier: str, out: Described, *, whole: bool = False) -> Item:
    if whole:
        out.refs += [("file", digest) for digest in digests(txt(new))]
    return Item(
        "file_edit",
        txt(new),
        identifier,
        txt(path),
        {"old": old if isinstance(old, str) else None, "new": txt(new), "whole": whole},
        said_by="response",
    )


def _path(data: dict[str, Any]) -> Any:
    return first(data, "file_path", "filePath", "path", "absolute_path", "notebook_path", "target_file", "filename")


def _write(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    content = first(data, "content", "contents", "file_text", "text")
    return [_edit(_path(data), None, content, identifier, out, whole=True)] if isinstance(content, str) else []


def _replace(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    edits = [obj(edit) for edit in arr(data.get("edits"))] or [data]
    items = []
    for edit in edits:
        old = first(edit, "old_string", "oldString", "old_str", "oldText")
        new = first(edit, "new_string", "newString", "new_str", "newText", "new_source")
        if isinstance(new, str):
            # An edit of nothing makes the file: Claude Code, opencode and Gemini CLI alike.
            items.append(_edit(_path(edit) or _path(data), old, new, identifier, out, whole=old == ""))
    return items


def _editor(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    """Anthropic's text editor tool: `create`, `str_replace`, `insert`, `view`."""
    command = data.get("command")
    if command == "create":
        return _write(data, identifier, out)
    if command == "insert":
        return [_edit(_path(data), None, first(data, "insert_text", "new_str"), identifier, out)]
    if command == "view":
        return _read(data, identifier, out)
    return _replace(data, identifier, out)


def _read(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    path = txt(_path(data))
    return [Item("file_read", "", identifier, path, said_by="response")] if path else []


def _subagent(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    prompt = txt(first(data, "prompt", "message", "description"))
    name = txt(first(data, "subagent_type", "agent_type", "agent"))
    return [Item("subagent", prompt, identifier, name, said_by="response")] if prompt else []


def _patch_text(call: Item) -> str:
    return txt(call.data) or txt(first(obj(call.data), "input", "patch", "patchText", "diff")) or call.text


def _patch(text: str, identifier: str, out: Described) -> list[Item]:
    return [
        _edit(change.path, change.old, change.new, identifier, out, whole=change.whole)
        for change in patches.parse(text)
    ]


def _operation(data: dict[str, Any], identifier: str, out: Described) -> list[Item]:
    """The `apply_patch` call of the Responses API: one operation with a diff without file headers."""
    operation = obj(data.get("operation")) or data
    path, diff, kind = _path(operation), txt(operation.get("diff")), operation.get("type")
    if not path:
        return []
    old, new = patches.sides(diff.split("\n"))
    if kind == "create_file":
        return [_edit(path, None, new, identifier, out, whole=True)]
    return [_edit(path, old, new, identifier, out)]


_TOOLS: dict[str, Callable[[dict[str, Any], str, Described], list[Item]]] = {
    "write": _write,
    "write_file": _write,
    "create_file": _write,
    "edit": _replace,
    "multiedit": _replace,
    "edit_file": _replace,
    "replace": _replace,
    "notebookedit": _replace,
    "str_replace": _replace,
    "str_replace_editor": _editor,
    "str_replace_based_edit_tool": _editor,
    "read": _read,
    "read_file": _read,
    "view": _read,
    "task": _subagent,
    "agent": _subagent,
    "spawn_agent": _subagent,
}
"""Tools by the last word of their names, in lower case."""
