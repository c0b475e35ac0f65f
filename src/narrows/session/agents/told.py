"""One report of an agent on its way to meaning: its payload's fields, read without trust, and what is made of them.

Nothing here raises on a field of another type than it should have: such a field counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from narrows.core.values import Described, Item

TEXT = 256 << 10
"""Characters of one item's text. What is longer is in the recorded bytes; the item says so."""
ITEMS = 1000
"""Items of one report."""
REFS = 4000
SCALARS = 48
"""Fields of a payload that are kept as parameters."""


class Told:
    """A payload and the description that is built from it."""

    def __init__(self, event: str, fields: dict[str, Any], out: Described) -> None:
        self.event = event
        self.fields = fields
        self.out = out

    # -- reading ---------------------------------------------------------------------------------------------------

    def text(self, *names: str) -> str:
        """The first of the fields that is a text with something in it."""
        return first_text(self.fields, *names)

    def value(self, *names: str) -> Any:
        """The first of the fields that is there at all."""
        return next((self.fields[name] for name in names if self.fields.get(name) is not None), None)

    # -- telling ---------------------------------------------------------------------------------------------------

    def add(
        self, kind: str, text: str = "", *, id: str = "", name: str = "", data: Any = None, error: bool = False  # noqa: A002
    ) -> None:  # fmt: skip
        """Add an item, its text within bounds."""
        if len(self.out.items) >= ITEMS:
            self.problem(f"more than {ITEMS} items: the others are in the recorded bytes only")
            return
        if len(text) > TEXT:
            self.problem(f"{kind}: a text of {len(text)} characters, shown up to {TEXT}")
            text = text[:TEXT]
        self.out.items.append(Item(kind, clean(text), clean(id[:256]), clean(name[:4096]), storable(data), error))

    def ref(self, kind: str, value: object) -> None:
        """Add an identifier that joins this exchange to others."""
        if isinstance(value, str) and 0 < len(value) <= 512 and len(self.out.refs) < REFS:
            pair = (kind, clean(value))
            if pair not in self.out.refs[-64:]:
                self.out.refs.append(pair)

    def file(self, content: object) -> None:
        """Name a text by its SHA-256: whole new files, and the new texts of edits."""
        if isinstance(content, str) and content:
            self.ref("file", sha256(content))

    def notice(self, text: str = "", *, error: bool = False, data: Any = None) -> None:
        """Add a notice with the event's name."""
        self.add("notice", text, name=self.event, error=error, data=data)

    def problem(self, text: str) -> None:
        """Say what is not shown or could not be read."""
        if text not in self.out.problems and len(self.out.problems) < 20:
            self.out.problems.append(text)


def sha256(content: str) -> str:
    """The SHA-256 in hex of a text as the file that holds it has it (UTF-8)."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def first_text(fields: Any, *names: str) -> str:
    """The first of an object's fields that is a text with something in it."""
    if isinstance(fields, dict):
        for name in names:
            found = fields.get(name)
            if isinstance(found, str) and found:
                return found
    return ""


def clean(text: str) -> str:
    """A text that can be stored: lone surrogates, which JSON can hold and UTF-8 cannot, are replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def storable(value: Any, depth: int = 24) -> Any:
    """A value of JSON's types that any store can hold: strings within bounds, integers of 64 bits, limited depth."""
    if isinstance(value, str):
        return clean(value[:TEXT])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return _number(value)
    if depth == 0:
        return "..."
    if isinstance(value, dict):
        return {clean(str(key)[:1024]): storable(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list):
        return [storable(one, depth - 1) for one in value]
    return str(type(value).__name__)


def shown(value: Any, *, most: int = TEXT + 1) -> str:
    """Any value as text: texts as they are, lists of content blocks joined, other things as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "text" in one for one in value):
        return "\n".join(shown(one["text"]) for one in value)[:most]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return "\n".join(value)[:most]
    try:
        return json.dumps(value, ensure_ascii=False, indent=None)[:most]
    except (ValueError, TypeError, RecursionError):
        return ""


def scalars(fields: dict[str, Any]) -> dict[str, object]:
    """The payload's short fields, as they are shown beside its items."""
    out: dict[str, object] = {}
    for name, value in fields.items():
        if len(out) >= SCALARS:
            break
        if (isinstance(value, str) and len(value) <= 1024) or isinstance(value, (bool, int, float)):
            out[clean(str(name)[:128])] = clean(value) if isinstance(value, str) else _number(value)
    return out


def _number(value: float) -> object:
    """A number as the index can hold it (64 bits); others as text."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)[:64]
    return value if value == value and abs(value) != float("inf") else str(value)
