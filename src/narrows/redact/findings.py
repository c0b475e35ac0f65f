"""What the detector found in an exchange, as findings: kind and place, never a value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from narrows.core.values import Described, Finding
from narrows.redact.detect import Detector, Match

MAX_FINDINGS = 200
"""Findings of one exchange; equal ones are counted, so more than this is a list of keys, and says so by its length."""


def findings(described: Described, parts: Mapping[str, bytes], detector: Detector) -> list[Finding]:
    """Findings in the items of an exchange (`where` is the item's type), then in raw parts that say something else.

    `parts` are bytes by name, such as `payload`. A value that an item has already is not told again for a part; one
    that is met several times in the same `where` is one finding with a count, at its first place. Offsets and lengths
    are characters of the item's text (of its `name`, or of its data as JSON, where it is there), bytes of a part.
    """
    found: dict[tuple[str, str, bytes], Finding] = {}
    for item in described.items:
        for text in _texts(item.text, item.name, item.data):
            raw = text.encode("utf-8", "surrogatepass")
            for one in detector.scan(raw):
                _count(found, one, item.type, raw, chars=True)
    told = {value for _, _, value in found}
    for where, raw in parts.items():
        for one in detector.scan(raw):
            if raw[one.start : one.end] not in told:
                _count(found, one, where, raw, chars=False)
    return list(found.values())[:MAX_FINDINGS]


def in_body(raw: bytes, detector: Detector) -> list[Finding]:
    """The findings in one body; `where` is `payload`."""
    return findings(Described(), {"payload": raw}, detector)


def noted(facts: Mapping[str, Any]) -> list[Finding]:
    """What was found in the path, before it was masked: the opening frame's own word. Anything else is passed over."""
    told = facts.get("findings")
    found = []
    for one in told[:MAX_FINDINGS] if isinstance(told, list) else ():
        if isinstance(one, dict) and isinstance(one.get("kind"), str) and isinstance(one.get("where"), str):
            numbers = [number for name in ("offset", "length", "count") if type(number := one.get(name)) is int]
            if len(numbers) == 3:
                found.append(Finding(one["kind"][:64], one["where"][:64], *numbers))
    return found


def _texts(text: str, name: str, data: Any) -> Iterator[str]:
    if text:
        yield text
    if len(name) > 15:
        yield name
    if data is not None and data != {} and data != text:
        yield data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, default=str)


def _count(found: dict[tuple[str, str, bytes], Finding], one: Match, where: str, raw: bytes, *, chars: bool) -> None:
    value = raw[one.start : one.end]
    key = (one.kind, where, value)
    old = found.get(key)
    if old is not None:
        found[key] = Finding(old.kind, old.where, old.offset, old.length, old.count + 1)
        return
    offset, length = one.start, len(value)
    if len(found) >= MAX_FINDINGS:
        return  # nobody is told of it, and counting the characters before each takes ever longer
    if chars:
        offset = len(raw[: one.start].decode("utf-8", "surrogatepass"))
        length = len(value.decode("utf-8", "replace"))
    found[key] = Finding(one.kind, where, offset, length)
