"""What `narrows connect` does to a file's text, and how that is taken back. Pure: text in, text out.

An `Edit` says what must be there; `apply` makes it so and returns what it really did (`Done`), which `revert` undoes in
a text that its owner may have changed since: it takes out our entries where they still stand, puts back what they
replaced, and removes the lists and tables that we made once they are empty. What the owner changed of ours stays.

Forms: `json` (also with comments), `toml`, `ini` (AWS config), `whole` (a file that is ours altogether).
Every function raises ConfigError where a text is not of its form, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from narrows.cli import connect_ini, connect_json, connect_toml
from narrows.core.errors import ConfigError

Form = Literal["json", "toml", "ini", "whole"]


@dataclass(frozen=True, slots=True)
class Edit:
    """`member`: the value at a path of keys. `item`: an entry of the list at that path. `text`: a section or a file.

    `only` allows `member` to be added, or to be there already, and not to replace anything else.
    """

    op: Literal["member", "item", "text"]
    path: tuple[str, ...]
    value: Any
    only: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What an edit did. `there` keys of `path` existed before; `before` is the raw text that it replaced, if any."""

    op: str
    path: tuple[str, ...]
    value: Any
    there: int = 0
    before: str | None = None

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self) | {"path": list(self.path)}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Done:
        """The inverse of `to_json`."""
        return cls(str(raw["op"]), tuple(raw["path"]), raw["value"], int(raw["there"]), raw["before"])


def apply(form: Form, text: str | None, edits: Sequence[Edit]) -> tuple[str, list[Done]]:
    """The text with every edit in it, and what was done for that. An edit that is satisfied already does nothing.

    `text` None means that there is no file. Raises ConfigError.
    """
    done: list[Done] = []
    if form == "whole":
        (edit,) = edits
        return str(edit.value), [Done("text", (), edit.value)] if text != edit.value else []
    made = text is None or not text.strip()
    result = ("{}\n" if form == "json" else "") if made else str(text)
    for edit in edits:
        if form == "ini":
            longer = connect_ini.add(result, edit.path[0], edit.value)
            if longer != result:
                done.append(Done("text", edit.path, edit.value))
            result = longer
            continue
        there, before, result = _structured(form, result, edit)
        if there >= 0:
            done.append(Done(edit.op, edit.path, edit.value, there, before))
    return result, done


def _structured(form: Form, text: str, edit: Edit) -> tuple[int, str | None, str]:
    """How many keys were there, what was replaced, the new text; -1 if there was nothing to do."""
    editor: Any = connect_json if form == "json" else connect_toml
    node = editor.find(text, edit.path)
    there = editor.existing(text, edit.path)
    if edit.op == "item":
        items = editor.value(text, node) if node is not None else []
        if not isinstance(items, list):
            raise ConfigError("The file was not changed", f"`{'.'.join(edit.path)}` in it is not a list")
        if edit.value in items:
            return -1, None, text
        return there, None, editor.append(text, edit.path, edit.value)
    if node is None:
        return there, None, editor.put(text, edit.path, edit.value)
    found = editor.value(text, node)
    if found == edit.value and type(found) is type(edit.value):
        return -1, None, text
    if edit.only:
        raise ConfigError(
            "The file was not changed",
            f"`{'.'.join(edit.path)}` in it is {str(found)[:40]!r}, and only {edit.value!r} is understood",
            "see whether the agent's own version is newer than this one knows",
        )
    return there, editor.raw(text, node), editor.put(text, edit.path, edit.value)


def revert(form: Form, text: str, done: Sequence[Done]) -> tuple[str, list[str]]:
    """The text without what was done to it, and what of it was left because it was changed since."""
    left: list[str] = []
    if form == "whole":
        if text == done[0].value:
            return "", []
        return text, ["the whole file"]
    editor: Any = connect_json if form == "json" else connect_toml
    for one in reversed(done):
        name = ".".join(one.path)
        if form == "ini":
            shorter = connect_ini.remove(text, one.path[0], one.value)
            if shorter is None:
                left.append(f"[{one.path[0]}]")
            text = text if shorter is None else shorter
            continue
        node, was = editor.find(text, one.path), text
        found = editor.value(text, node) if node is not None else None
        if one.op == "item":
            if not isinstance(found, list) or one.value not in found:
                if node is not None and found != []:
                    left.append(name)
            else:
                text = editor.drop(text, one.path, len(found) - 1 - found[::-1].index(one.value))
        elif node is not None and found == one.value:
            text = editor.drop(text, one.path) if one.before is None else editor.restore(text, one.path, one.before)
        elif node is not None:
            left.append(name)
        text = _emptied(editor, text, one) if text != was else text
    return text, left


def _emptied(editor: Any, text: str, one: Done) -> str:
    """Without the lists and tables on the way to an edit that were made for it and hold nothing any more."""
    for length in range(len(one.path), one.there, -1):
        path = one.path[:length]
        node = editor.find(text, path)
        if node is not None:
            if editor.value(text, node) not in ({}, []):
                break
            if length == len(one.path) and one.op == "member":
                break
            text = editor.drop(text, path)
    return text


def is_empty(form: Form, text: str) -> bool:
    """Whether a text says nothing: what is left of a file that we made. A comment says something."""
    if form == "json":
        return "".join(text.split()) in ("", "{}")
    return not text.strip()
