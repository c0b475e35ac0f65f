"""The file form of connections: read with the place of every value, checked by the schema, and written.

    connections:
      - name: prod
        kind: aws
        credential: {kind: assume_role, role_arn: arn:aws:iam::123456789012:role/agents}

Guarantees: an unknown field, a field or a name that stands twice, and a value that is not valid are each refused with
file, line and column. Values are taken as they are written (YAML 1.2's plain texts): an account `012345678901` stays
what it is, `no` is no boolean. References to anchors, and tags, are refused: a file of a few lines could otherwise
stand for gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from narrows.core.errors import ConfigError
from narrows.core.values import Connection, CredentialSource
from narrows.directory import connection_to_json
from narrows.manage.schema import ConnectionModel, explain

MAX_FILE = 4 * 1024 * 1024
_DEPTH = 12
_Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Value:
    """What a node says, and where in the file each part of it stands."""

    value: Any
    marks: dict[_Path, yaml.Mark]


def read(path: Path, raw: bytes) -> list[dict[str, Any]]:
    """The connections of a file, as the API takes and gives them, every field present. Raises ConfigError."""
    if len(raw) > MAX_FILE:
        raise ConfigError(_what(path), f"it is longer than {MAX_FILE} bytes")
    root = _compose(path, raw)
    if not isinstance(root, MappingNode):
        raise _at(path, root, "a file is `connections:` and a list of them")
    top = dict(_pairs(path, root))
    for key, (key_node, _) in top.items():
        if key != "connections":
            raise _at(path, key_node, f"unknown field {key[:64]!r}: a file is `connections:` and a list of them")
    if "connections" not in top:
        raise _at(path, root, "it has no `connections:`")
    items = top["connections"][1]
    if isinstance(items, ScalarNode) and _scalar(path, items) is None:
        return []
    if not isinstance(items, SequenceNode):
        raise _at(path, items, "`connections:` is a list")
    found: list[dict[str, Any]] = []
    names: dict[str, yaml.Mark] = {}
    for node in items.value:
        one = _connection(path, node)
        name = str(one["name"])
        if name in names:
            mark = names[name]
            raise _at(path, node, f"the connection {name!r} stands in line {mark.line + 1} already")
        names[name] = node.start_mark
        found.append(one)
    return found


def _connection(path: Path, node: Node) -> dict[str, Any]:
    if not isinstance(node, MappingNode):
        raise _at(path, node, "a connection is a mapping with a name")
    read_value = _Value(None, {})
    read_value.value = _plain(path, node, read_value.marks, ())
    try:
        return connection_to_json(ConnectionModel.model_validate(read_value.value).value())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place: _Path = tuple(first["loc"])
        while place and place not in read_value.marks:
            place = place[:-1]
        mark = read_value.marks.get(place, node.start_mark)
        raise _error(path, mark, _unknown(place) if first["type"] == "extra_forbidden" else explain([first])) from None


def _unknown(place: _Path) -> str:
    known = (f.name for f in fields(CredentialSource if place[0] == "credential" and len(place) > 1 else Connection))
    close = get_close_matches(str(place[-1]), list(known), n=1)
    return f"unknown field {str(place[-1])[:64]!r}" + (f": did you mean {close[0]}?" if close else "")


class _Loader(yaml.SafeLoader):
    """YAML without anchors' references and without tags."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Refuse both where they stand."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="a reference to an anchor", problem_mark=event.start_mark)  # type: ignore[arg-type]
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="a tag", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _compose(path: Path, raw: bytes) -> Node:
    try:
        loader = _Loader(raw.decode("utf-8"))
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except UnicodeDecodeError:
        raise ConfigError(_what(path), "it is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise ConfigError(_what(path), "it is not YAML") from None
        raise _error(path, mark, f"not YAML as it is read here: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(_what(path), "it is not YAML: it has characters or a depth that none has") from None
    if node is None:
        raise ConfigError(_what(path), "it is empty", "an empty list is `connections: []`")
    return node


def _pairs(path: Path, node: MappingNode) -> Iterable[tuple[str, tuple[Node, Node]]]:
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or key.tag.endswith(":merge"):
            raise _at(path, key, "a field's name is a plain text")
        if key.value in seen:
            raise _at(path, key, f"the field {key.value[:64]!r} stands twice")
        seen.add(key.value)
        yield key.value, (key, value)


def _plain(path: Path, node: Node, marks: dict[_Path, yaml.Mark], at: _Path) -> Any:
    if len(at) > _DEPTH or at in marks:
        raise _at(path, node, "it is nested too deep")
    marks[at] = node.start_mark
    if isinstance(node, MappingNode):
        found = {}
        for key, (key_node, value) in _pairs(path, node):
            plain = _plain(path, value, marks, (*at, key))
            marks[(*at, key)] = key_node.start_mark
            if plain is not None:  # a field without a value is a field that is not there
                found[key] = plain
        return found
    if isinstance(node, SequenceNode):
        return [_plain(path, item, marks, (*at, i)) for i, item in enumerate(node.value)]
    return _scalar(path, node)


def _scalar(path: Path, node: Node) -> Any:
    assert isinstance(node, ScalarNode)
    if node.style is None:
        if node.value in ("", "~", "null", "Null", "NULL"):
            return None
        if node.value in ("true", "True", "TRUE"):
            return True
        if node.value in ("false", "False", "FALSE"):
            return False
    return str(node.value)


def _what(path: Path) -> str:
    return f"{path} was refused"


def _at(path: Path, node: Node, why: str) -> ConfigError:
    return _error(path, node.start_mark, why)


def _error(path: Path, mark: yaml.Mark, why: str) -> ConfigError:
    return ConfigError(f"{path}:{mark.line + 1}:{mark.column + 1} was refused", why, "nothing was changed")


# Writing

_BLANK: dict[str, Any] = {
    n: list(v) if isinstance(v, tuple) else v for n, v in connection_to_json(Connection("")).items()
}
_FIRST = ("name", "kind")


def short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A connection as the file form has it: without the fields that say what would be so anyway."""
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}
    found = {name: value for name, value in row.items() if name in _FIRST or value != _BLANK.get(name)}
    if "credential" in found:
        blank = _BLANK["credential"]
        found["credential"] = {n: v for n, v in found["credential"].items() if n == "kind" or v != blank.get(n)}
    try:
        same = connection_to_json(
            ConnectionModel.model_validate({k: v for k, v in found.items() if k != "hosts"}).value()
        )
    except ValidationError:
        same = {}
    if "hosts" in found and list(same.get("hosts", ())) == list(found["hosts"]):
        del found["hosts"]
    return found


def dump(rows: Iterable[Mapping[str, Any]]) -> str:
    """Connections as a file that `read` takes."""
    body = {"connections": [short(row) for row in rows]}
    return str(yaml.safe_dump(body, sort_keys=False, allow_unicode=False, default_flow_style=False, width=110))
