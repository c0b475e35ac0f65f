"""Puts the events of an OpenAI Responses stream together to the answer that they make up.

Items that are done, and the response at the stream's end, are believed as they are; the deltas count only for what a
cut stream left unfinished. Whatever comes is read without complaint; events that are not known are passed over, because
each item comes whole at its end.
"""

from __future__ import annotations

from typing import Any

from narrows.session.llm.loose import arr, num, obj, txt

TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_LONGEST = 100_000
"""Output items of one response; more than that is no answer."""

_PIECES = {
    "response.output_text.delta": ("text", "content_index"),
    "response.refusal.delta": ("refusal", "content_index"),
    "response.reasoning_text.delta": ("reasoning", "content_index"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index"),
    "response.function_call_arguments.delta": ("arguments", ""),
    "response.mcp_call_arguments.delta": ("arguments", ""),
    "response.custom_tool_call_input.delta": ("input", ""),
    "response.code_interpreter_call_code.delta": ("code", ""),
    "response.shell_call_command.delta": ("command", "command_index"),
}
"""What each kind of delta is a piece of, and which of its members counts the parts of that."""
_WHOLE = {
    "response.output_text.done": ("text", "content_index", "text"),
    "response.refusal.done": ("refusal", "content_index", "refusal"),
    "response.reasoning_text.done": ("reasoning", "content_index", "text"),
    "response.reasoning_summary_text.done": ("summary", "summary_index", "text"),
    "response.function_call_arguments.done": ("arguments", "", "arguments"),
    "response.mcp_call_arguments.done": ("arguments", "", "arguments"),
    "response.custom_tool_call_input.done": ("input", "", "input"),
    "response.code_interpreter_call_code.done": ("code", "", "code"),
    "response.shell_call_command.done": ("command", "command_index", "command"),
}


class _Item:
    """One output item, as it grows."""

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}
        self.done: dict[str, Any] = {}
        self._pieces: dict[tuple[str, int], list[str]] = {}

    def piece(self, kind: str, part: int, text: str) -> None:
        """Take a delta."""
        self._pieces.setdefault((kind, part), []).append(text)

    def text(self, kind: str, part: int, text: str) -> None:
        """Take a part that came whole."""
        self._pieces[kind, part] = [text]

    def whole(self) -> dict[str, Any]:
        """The item: as it was done, else as far as it came."""
        if self.done:
            return self.done
        item = dict(self.begun)
        parts = {kind: self._joined(kind) for kind in ("text", "refusal", "reasoning", "summary", "command")}
        content = [{"type": "output_text", "text": text} for text in parts["text"]]
        content += [{"type": "refusal", "refusal": text} for text in parts["refusal"]]
        content += [{"type": "reasoning_text", "text": text} for text in parts["reasoning"]]
        if content:
            item["content"] = content
        if parts["summary"]:
            item["summary"] = [{"type": "summary_text", "text": text} for text in parts["summary"]]
        if parts["command"]:
            item["action"] = obj(item.get("action")) | {"commands": parts["command"]}
        for name in ("arguments", "input", "code"):
            if texts := self._joined(name):
                item[name] = texts[0]
        item.setdefault("type", self._guess())
        return item

    def _joined(self, kind: str) -> list[str]:
        return ["".join(self._pieces[key]) for key in sorted(self._pieces) if key[0] == kind]

    def _guess(self) -> str:
        kinds = {kind for kind, _ in self._pieces}
        known = {
            "summary": "reasoning", "reasoning": "reasoning", "arguments": "function_call", "input": "custom_tool_call",
            "command": "shell_call", "code": "code_interpreter_call",
        }  # fmt: skip
        return next((known[kind] for kind in sorted(kinds) if kind in known), "message")


def gathered(events: list[Any]) -> tuple[dict[str, Any], bool]:
    """(the response that these events of one response make up, whether they came to its end)."""
    response: dict[str, Any] = {}
    items: dict[int, _Item] = {}
    ended = False
    for event in map(obj, events):
        kind = txt(event.get("type"))
        if isinstance(event.get("response"), dict):
            response = response | event["response"]
        if kind == "error":
            response["error"] = event.get("error") or {name: event.get(name) for name in ("code", "message", "param")}
        ended = ended or kind in TERMINAL or kind == "error"
        index = num(event.get("output_index"))
        if index is None or (index not in items and len(items) >= _LONGEST):
            continue
        _grow(items.setdefault(index, _Item()), kind, event)
    whole = [items[index].whole() for index in sorted(items)]
    if len(whole) > len(arr(response.get("output"))):
        response["output"] = whole
    return response, ended


def _grow(item: _Item, kind: str, event: dict[str, Any]) -> None:
    if kind == "response.output_item.added":
        item.begun = obj(event.get("item"))
    elif kind == "response.output_item.done":
        item.done = obj(event.get("item"))
    elif kind in _PIECES and isinstance(event.get("delta"), str):
        name, counter = _PIECES[kind]
        item.piece(name, num(event.get(counter)) or 0, event["delta"])
    elif kind in _WHOLE and isinstance(event.get(_WHOLE[kind][2]), str):
        name, counter, member = _WHOLE[kind]
        item.text(name, num(event.get(counter)) or 0, event[member])
