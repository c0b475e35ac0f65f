"""Decodes the form bodies of the query and EC2 protocols: `Filter.1.Value.2=x` back to lists, maps and structures."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import SENSITIVE, Shape, Shower

FIELDS = 50_000
"""Fields that are read from one form."""
PARTS = 40
"""Parts of one dotted name."""

_NOT_PARAMETERS = frozenset(("Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion"))


class Node:
    """One part of the dotted names: its own text, if a field ends here, and what comes below."""

    __slots__ = ("below", "text", "used")

    def __init__(self) -> None:
        self.text: str | None = None
        self.used = False
        self.below: dict[str, Node] = {}


def parse(body: bytes, query: str = "") -> Node:
    """The fields of a form body and of a query string as a tree. Raises DecodeProblem."""
    root = Node()
    parts = [*query.split("&"), *body.decode("latin-1").split("&")]
    if len(parts) > FIELDS:
        raise DecodeProblem("the form has too many fields", f"more than {FIELDS}")
    for part in parts:
        if not part:
            continue
        name, _, value = part.partition("=")
        name = unquote_plus(name)
        if name in _NOT_PARAMETERS or name.lower().startswith("x-amz-"):
            continue
        steps = name.split(".")
        if len(steps) > PARTS:
            raise DecodeProblem("the form has a name of too many parts", f"more than {PARTS}")
        node = root
        for step in steps:
            node = node.below.setdefault(step, Node())
        node.text = unquote_plus(value)
    return root


class FormDecoder:
    """Walks a form's tree along a shape. `ec2` switches to the EC2 protocol's names and lists."""

    def __init__(self, shower: Shower, ec2: bool) -> None:
        self._show = shower
        self._ec2 = ec2

    def parameters(self, shape: Shape | None, root: Node) -> dict[str, Any]:
        """All parameters; fields that no member takes stay under their dotted name."""
        out = self._structure(shape, root) if shape is not None else {}
        self._rest(root, "", out)
        return out

    def _value(self, shape: Shape, node: Node, depth: int) -> Any:
        if depth > PARTS:
            raise DecodeProblem("the form is nested too deep", f"more than {PARTS} levels")
        if self._show.hide and shape.metadata.get("sensitive"):
            _use(node)
            return SENSITIVE
        kind = shape.type_name
        if kind == "structure":
            return self._structure(shape, node, depth)
        if kind == "list":
            return self._list(shape, node, depth)
        if kind == "map":
            return self._map(shape, node, depth)
        node.used = True
        return self._show.scalar(shape, node.text or "")

    def _structure(self, shape: Shape, node: Node, depth: int = 0) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, member in shape.members.items():
            child = self._member(name, member, node)
            if child is not None:
                out[name] = self._value(member, child, depth + 1)
        return out

    def _member(self, name: str, member: Shape, node: Node) -> Node | None:
        wire = self._name(member, name)
        flat = not self._ec2 and member.type_name == "list" and member.serialization.get("flattened")
        if flat and member.member.serialization.get("name"):
            child = node.below.get(member.member.serialization["name"])
            if child is not None:
                return child
        child = node.below.get(wire)
        return child if child is not None else node.below.get(name)

    def _name(self, member: Shape, name: str) -> str:
        serialization = member.serialization
        if self._ec2:
            if "queryName" in serialization:
                return str(serialization["queryName"])
            wire = str(serialization.get("name", ""))
            return wire[:1].upper() + wire[1:] if wire else name
        return str(serialization.get("name", name))

    def _list(self, shape: Shape, node: Node, depth: int) -> list[Any]:
        node.used = True
        if not self._ec2 and not shape.serialization.get("flattened"):
            node = node.below.get(str(shape.member.serialization.get("name", "member"))) or node
        return [self._value(shape.member, node.below[key], depth + 1) for key in _numbers(node)]

    def _map(self, shape: Shape, node: Node, depth: int) -> dict[str, Any]:
        node.used = True
        if not shape.serialization.get("flattened"):
            node = node.below.get("entry") or node
        out: dict[str, Any] = {}
        for key in _numbers(node):
            entry = node.below[key]
            name = entry.below.get(self._name(shape.key, "key"))
            value = entry.below.get(self._name(shape.value, "value"))
            if name is not None:
                name.used = True
                out[name.text or ""] = self._value(shape.value, value, depth + 1) if value is not None else None
        return out

    def _rest(self, node: Node, name: str, out: dict[str, Any]) -> None:
        if node.text is not None and not node.used and name not in out:
            out[name] = node.text
        for step, child in node.below.items():
            self._rest(child, f"{name}.{step}" if name else step, out)


def _use(node: Node) -> None:
    node.used = True
    for child in node.below.values():
        _use(child)


def _numbers(node: Node) -> list[str]:
    return sorted((key for key in node.below if key.isdecimal() and len(key) < 9), key=int)
