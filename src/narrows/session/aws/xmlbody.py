"""Decodes XML bodies of the REST XML protocol along a shape. DTDs are refused, so no entity can expand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import DEPTH, SENSITIVE, Shape, Shower


def check(body: bytes) -> None:
    """Raise DecodeProblem if an XML body declares a document type or is not in an ASCII-based encoding."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body or b"\x00" in body[:64]:
        raise DecodeProblem("the XML body has a document type", "entities could expand without bound")


def parse(body: bytes) -> ET.Element:
    """The root element. Raises DecodeProblem."""
    check(body)
    try:
        # The encoding is given, so that a UTF-16 document cannot hide what `check` looks for.
        return ET.fromstring(body, ET.XMLParser(encoding="utf-8"))  # noqa: S314 - see `check`
    except ET.ParseError as error:
        raise DecodeProblem("the XML body is not well-formed", str(error)) from error


def tag(node: ET.Element) -> str:
    """An element's name without its namespace."""
    return node.tag.rpartition("}")[2]


class XmlDecoder:
    """Walks elements along a shape."""

    def __init__(self, shower: Shower) -> None:
        self._show = shower

    def value(self, shape: Shape, node: ET.Element, depth: int = 0) -> Any:
        """An element's value. Raises DecodeProblem."""
        if depth > DEPTH:
            raise DecodeProblem("the XML body is nested too deep", f"more than {DEPTH} levels")
        if self._show.hide and shape.metadata.get("sensitive"):
            return SENSITIVE
        kind = shape.type_name
        if kind == "structure":
            return self.structure(shape, node, depth)
        if kind == "list":
            return [self.value(shape.member, child, depth + 1) for child in node]
        if kind == "map":
            return self._entries(shape, list(node), depth)
        return self._show.scalar(shape, node.text or "")

    def structure(self, shape: Shape, node: ET.Element, depth: int = 0) -> dict[str, Any]:
        """A structure's members; elements that none takes stay under their own name."""
        children: dict[str, list[ET.Element]] = {}
        for child in node:
            children.setdefault(tag(child), []).append(child)
        out: dict[str, Any] = {}
        for name, member in shape.members.items():
            serialization = member.serialization
            if serialization.get("xmlAttribute"):
                wanted = str(serialization.get("name", name)).rpartition(":")[2]
                for key, text in node.attrib.items():
                    if key.rpartition("}")[2] == wanted:
                        out[name] = self._show.scalar(member, text)
                continue
            found = children.pop(str(serialization.get("name", name)), None)
            if not found:
                continue
            if serialization.get("flattened") and member.type_name == "list":
                hidden = self._show.hide and member.metadata.get("sensitive")
                out[name] = SENSITIVE if hidden else [self.value(member.member, e, depth + 1) for e in found]
            elif serialization.get("flattened") and member.type_name == "map":
                out[name] = self._entries(member, found, depth)
            else:
                out[name] = self.value(member, found[0], depth + 1)
        for wire, unknown in children.items():
            if wire not in out:
                out[wire] = _untyped(unknown[0], depth + 1)
        return out

    def _entries(self, shape: Shape, entries: list[ET.Element], depth: int) -> dict[str, Any]:
        key_name = str(shape.key.serialization.get("name", "key"))
        value_name = str(shape.value.serialization.get("name", "value"))
        out: dict[str, Any] = {}
        for entry in entries:
            key, value = "", None
            for child in entry:
                if tag(child) == key_name:
                    key = child.text or ""
                elif tag(child) == value_name:
                    value = self.value(shape.value, child, depth + 1)
            out[key] = value
        return out


def _untyped(node: ET.Element, depth: int) -> Any:
    if depth > DEPTH:
        raise DecodeProblem("the XML body is nested too deep", f"more than {DEPTH} levels")
    if len(node) == 0:
        return node.text or ""
    out: dict[str, Any] = {}
    for child in node:
        out.setdefault(tag(child), _untyped(child, depth + 1))
    return out
