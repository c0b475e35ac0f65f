"""Edits of a user's TOML text that keep its comments, order and spacing. Pure.

The same functions as `connect_json`, over `tomlkit`. A text that tomlkit would not give back byte for byte is refused:
then its edit could change more than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable, Table

from narrows.core.errors import ConfigError

Path = Sequence[str]


def _parse(text: str) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(text)
        same = tomlkit.dumps(document) == text
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise ConfigError("The file is not TOML", str(error)[:200], "correct it, then try again") from error
    if not same:
        raise ConfigError("The file was not changed", "it has a form of TOML that cannot be edited and kept as it is")
    return document


def _dump(document: tomlkit.TOMLDocument) -> str:
    text = tomlkit.dumps(document)
    _parse(text)  # what is written is read again first: a wrong edit must not reach the file
    return text


def find(text: str, path: Path) -> Any:
    """The item at a path of keys; None where there is none. Raises ConfigError."""
    return _find(_parse(text), path)


def _find(document: Any, path: Path) -> Any:
    node = document
    for depth, key in enumerate(path):
        if not isinstance(node, dict):
            raise ConfigError("The file was not changed", f"`{'.'.join(path[:depth])}` in it is not a table")
        if key not in node:
            return None
        node = node[key]
    return node


def value(text: str, node: Any) -> Any:
    """The value of an item in Python's types."""
    return node.unwrap() if hasattr(node, "unwrap") else node


def raw(text: str, node: Any) -> str:
    """An item as TOML, for `restore`."""
    return tomlkit.dumps({"x": node})


def existing(text: str, path: Path) -> int:
    """How many keys of a path are there already, from its beginning."""
    document = _parse(text)
    for depth in range(1, len(path) + 1):
        if _find(document, path[:depth]) is None:
            return depth - 1
    return len(path)


def put(text: str, path: Path, new: Any) -> str:
    """The text with a value set, with the tables on the way to it."""
    document = _parse(text)
    node: Any = document
    for depth, key in enumerate(path[:-1]):
        if key not in node:
            node[key] = tomlkit.table(is_super_table=depth < len(path) - 2 or isinstance(new, dict))
        node = node[key]
        if not isinstance(node, dict):
            raise ConfigError("The file was not changed", f"`{'.'.join(path[: depth + 1])}` in it is not a table")
    node[path[-1]] = _item(new, inline=isinstance(node, InlineTable))
    return _dump(document)


def _item(new: Any, *, inline: bool) -> Any:
    if not isinstance(new, dict):
        return new
    table: InlineTable | Table = tomlkit.inline_table() if inline else tomlkit.table()
    for key, inner in new.items():
        table[key] = _item(inner, inline=inline)
    return table


def append(text: str, path: Path, new: Any) -> str:
    """Not needed for any agent's TOML: hooks are kept in JSON."""
    raise ConfigError("The file was not changed", "lists in TOML are not edited")


def restore(text: str, path: Path, raw: str) -> str:
    """The text with the value at a path replaced by one that stood there once."""
    document = _parse(text)
    _find(document, path[:-1])[path[-1]] = tomlkit.parse(raw)["x"]
    return _dump(document)


def drop(text: str, path: Path, index: int | None = None) -> str:
    """The text without the value at a path."""
    document = _parse(text)
    parent = _find(document, path[:-1])
    assert index is None
    del parent[path[-1]]
    return _dump(document)
