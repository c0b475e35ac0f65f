"""Edits of a user's JSON text that leave everything else in it as it was.

Comments, order, spacing, number forms and line ends stay: an edit inserts or cuts text at a place that a scanner found,
and never writes the rest anew. `//` and `/* */` comments and trailing commas (JSONC, which several agents read) are
accepted where the user has them; none is ever added. Whatever is not such a text is refused with its line.

Pure: text in, text out. Every function raises ConfigError and changes nothing when it cannot do exactly what it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from narrows.core.errors import ConfigError

MAX_DEPTH = 64
"""Nesting that is accepted; agents' settings have less than ten."""

_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.])|(?:true|false|null)(?!\w)")
_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_INDENT = re.compile(r"\n([ \t]+)\S")

Path = Sequence[str]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: `text[start:end]`. `members` of an object are (key, key's start, value)."""

    kind: Literal["object", "array", "scalar"]
    start: int
    end: int
    members: tuple[tuple[str, int, Node], ...] = ()
    items: tuple[Node, ...] = ()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str) -> ConfigError:
        line = self.text.count("\n", 0, self.at) + 1
        return ConfigError("The file is not JSON", f"line {line}: {what}", "correct it, then try again")

    def space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def take(self, char: str) -> bool:
        self.space()
        if self.text.startswith(char, self.at):
            self.at += 1
            return True
        return False

    def value(self, depth: int) -> Node:
        self.space()
        if depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH}")
        start = self.at
        if self.take("{"):
            return self._object(start, depth)
        if self.take("["):
            return self._array(start, depth)
        found = _STRING.match(self.text, start) or _SCALAR.match(self.text, start)
        if found is None:
            raise self.fail("a value is expected")
        self.at = found.end()
        return Node("scalar", start, self.at)

    def _object(self, start: int, depth: int) -> Node:
        members: list[tuple[str, int, Node]] = []
        while not self.take("}"):
            self.space()
            found = _STRING.match(self.text, self.at)
            if found is None:
                raise self.fail("a key or `}` is expected")
            key, key_start = self._string(found), self.at
            self.at = found.end()
            if not self.take(":"):
                raise self.fail("`:` is expected")
            members.append((key, key_start, self.value(depth + 1)))
            if not self.take(","):
                if not self.take("}"):
                    raise self.fail("`,` or `}` is expected")
                break
        return Node("object", start, self.at, members=tuple(members))

    def _array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        while not self.take("]"):
            items.append(self.value(depth + 1))
            if not self.take(","):
                if not self.take("]"):
                    raise self.fail("`,` or `]` is expected")
                break
        return Node("array", start, self.at, items=tuple(items))

    def _string(self, found: re.Match[str]) -> str:
        try:
            return str(json.loads(found.group()))
        except ValueError as error:
            raise self.fail("a string has a wrong escape") from error


def scan(text: str) -> Node:
    """The root of a JSON text, which must be an object. Raises ConfigError."""
    scanner = _Scanner(text)
    root = scanner.value(0)
    scanner.space()
    if scanner.at != len(text):
        raise scanner.fail("something follows the end")
    if root.kind != "object":
        raise ConfigError("The file was not changed", "its JSON is not an object", "see what belongs in it")
    return root


def value(text: str, node: Node) -> Any:
    """The value of a node in Python's types."""
    if node.kind == "object":
        return {key: value(text, inner) for key, _, inner in node.members}
    if node.kind == "array":
        return [value(text, inner) for inner in node.items]
    try:
        return json.loads(text[node.start : node.end])
    except ValueError as error:
        raise ConfigError(
            "The file is not JSON", "a string has a wrong escape", "correct it, then try again"
        ) from error


def raw(text: str, node: Node) -> str:
    """The text of a node, for `restore`."""
    return text[node.start : node.end]


def find(text: str, path: Path) -> Node | None:
    """The node at a path of keys; None where there is none.

    Raises ConfigError where something on the way is no object, or has the key twice: it would be a guess which counts.
    """
    node = scan(text)
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise ConfigError("The file was not changed", f"`{'.'.join(path[:depth])}` in it is not an object")
        found = [inner for name, _, inner in node.members if name == key]
        if len(found) > 1:
            raise ConfigError("The file was not changed", f"`{'.'.join(path[: depth + 1])}` is in it twice")
        if not found:
            return None
        node = found[0]
    return node


def existing(text: str, path: Path) -> int:
    """How many keys of a path are there already, from its beginning."""
    for depth in range(1, len(path) + 1):
        if find(text, path[:depth]) is None:
            return depth - 1
    return len(path)


def put(text: str, path: Path, new: Any) -> str:
    """The text with a member set: replaced in its place, or added at the end, with the objects on the way to it."""
    node = find(text, path)
    if node is not None:
        return text[: node.start] + _rendered(text, new, _line_indent(text, node.start)) + text[node.end :]
    depth = existing(text, path)
    for key in reversed(path[depth + 1 :]):
        new = {key: new}
    parent = find(text, path[:depth])
    assert parent is not None
    if parent.kind != "object":
        raise ConfigError("The file was not changed", f"`{'.'.join(path[:depth])}` in it is not an object")
    return _insert(text, parent, new, key=path[depth])


def append(text: str, path: Path, new: Any) -> str:
    """The text with an item added at the end of an array, which is made if there is none."""
    node = find(text, path)
    if node is None:
        return put(text, path, [new])
    if node.kind != "array":
        raise ConfigError("The file was not changed", f"`{'.'.join(path)}` in it is not a list")
    return _insert(text, node, new)


def restore(text: str, path: Path, old: str) -> str:
    """The text with the value at a path replaced by a raw text that stood there once."""
    node = find(text, path)
    assert node is not None
    return text[: node.start] + old + text[node.end :]


def drop(text: str, path: Path, index: int | None = None) -> str:
    """The text without the member at a path, or without one item of the array there."""
    if index is None:
        parent = find(text, path[:-1])
        assert parent is not None
        spans = [(key_start, inner.end) for _, key_start, inner in parent.members]
        index = [key for key, _, _ in parent.members].index(path[-1])
    else:
        parent = find(text, path)
        assert parent is not None
        spans = [(inner.start, inner.end) for inner in parent.items]
    return _cut(text, parent, spans, index)


# -- text -------------------------------------------------------------------------------------------------------------


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _unit(text: str) -> str:
    """One step of the text's own indentation; two spaces where it shows none."""
    found = _INDENT.search(text)
    return found.group(1) if found else "  "


def _line_indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _rendered(text: str, new: Any, indent: str) -> str:
    lines = json.dumps(new, indent=_unit(text), ensure_ascii=False).split("\n")
    return (_newline(text) + indent).join(lines)


def _after(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _insert(text: str, parent: Node, new: Any, *, key: str | None = None) -> str:
    """Add a member or an item at the end, on a line of its own, after whatever comment stands there."""
    ends = [inner.end for _, _, inner in parent.members] + [inner.end for inner in parent.items]
    last = max(ends, default=None)
    closing = parent.end - 1
    inside = text[parent.start + 1 : closing]
    at = parent.start + 1 + len(inside.rstrip(" \t\r\n"))
    outer = _line_indent(text, parent.start)
    indent = outer + _unit(text)
    if parent.members and "\n" in text[parent.start : parent.members[0][1]]:
        indent = _line_indent(text, parent.members[0][1])
    elif parent.items and "\n" in text[parent.start : parent.items[0].start]:
        indent = _line_indent(text, parent.items[0].start)
    name = "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
    piece = _newline(text) + indent + name + _rendered(text, new, indent)
    comma_at = _after(text, last) if last is not None else None
    if comma_at is not None and text[comma_at] == ",":
        piece += ","  # the list ends with a comma, as its owner likes it
        comma_at = None
    tail = text[at:closing] if "\n" in text[at:closing] else _newline(text) + outer
    head = text[:at]
    if last is not None and comma_at is not None:
        head = text[:last] + "," + text[last:at]
    return head + piece + tail + text[closing:]


def _cut(text: str, parent: Node, spans: list[tuple[int, int]], index: int) -> str:
    start, end = spans[index]
    comma = _after(text, end)
    line = start - len(text[:start]) + len(text[:start].rstrip(" \t"))
    if text[:line].endswith("\n"):  # it begins its line: the line goes with it
        line -= 2 if text[:line].endswith("\r\n") else 1
    if text[comma] == ",":
        return text[:line] + text[comma + 1 :]
    before = text[:line]
    if index > 0:  # it was the last: the comma before it goes too
        previous = spans[index - 1][1]
        at = _after(text, previous)
        before = text[:at] + text[at + 1 : max(line, at + 1)]
    rest = text[end:]
    if index == 0 and not text[line:start].strip() and not before[parent.start + 1 :].strip():
        inside = rest[: parent.end - 1 - end]
        if not inside.strip():
            return text[: parent.start + 1] + text[parent.end - 1 :]  # nothing is left inside
    return before + rest
