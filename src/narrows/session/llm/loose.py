"""Reads JSON that may be anything: each function gives a value of its type, empty where there is none."""

from __future__ import annotations

import base64
import binascii
import json
from hashlib import sha256
from typing import Any

import orjson

DEPTH = 64
"""Nesting of structured data that is kept."""
STRING = 256 << 10
"""Characters of one text that are kept."""


def obj(value: Any) -> dict[str, Any]:
    """The value if it is an object."""
    return value if isinstance(value, dict) else {}


def arr(value: Any) -> list[Any]:
    """The value if it is an array."""
    return value if isinstance(value, list) else []


def txt(value: Any) -> str:
    """The value if it is a string."""
    return value if isinstance(value, str) else ""


def num(value: Any) -> int | None:
    """The value if it is a count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def first(value: dict[str, Any], *names: str) -> Any:
    """The first of these members that is there and not null."""
    return next((value[name] for name in names if value.get(name) is not None), None)


def parse(raw: bytes | str) -> Any:
    """JSON. Raises ValueError. Half a surrogate pair, which no UTF-8 can hold, becomes a question mark."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if "\\ud" not in (raw if isinstance(raw, str) else raw.decode("latin-1")).lower():
            raise
    try:
        return orjson.loads(json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def compact(value: Any) -> str:
    """A value as JSON text; an empty string if it cannot be."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RecursionError):
        return ""


def bounded(value: Any, depth: int = 0) -> tuple[Any, bool]:
    """(the value with long strings and deep nesting cut off, whether anything was cut)."""
    if isinstance(value, str):
        return (value, False) if len(value) <= STRING else (value[:STRING], True)
    if isinstance(value, dict | list) and depth >= DEPTH:
        return "(nested too deep)", True
    if isinstance(value, dict):
        pairs = {key: bounded(item, depth + 1) for key, item in value.items()}
        return {key: pair[0] for key, pair in pairs.items()}, any(pair[1] for pair in pairs.values())
    if isinstance(value, list):
        items = [bounded(item, depth + 1) for item in value]
        return [item[0] for item in items], any(item[1] for item in items)
    return value, False


def media(data: Any, kind: str) -> dict[str, Any]:
    """What is kept of an image or a document that came as base64: its type, length and SHA-256."""
    text = txt(data)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = text.encode("utf-8", "replace")
    return {"media_type": kind, "bytes": len(raw), "sha256": sha256(raw).hexdigest()}


def without_media(value: Any, depth: int = 0) -> Any:
    """A content block of any API, the base64 in it replaced by what `media` keeps of it."""
    if depth > 8:
        return value
    if isinstance(value, list):
        return [without_media(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, item in value.items():
        if key in ("data", "bytes") and isinstance(item, str) and len(item) > 256:
            kind = first(value, "media_type", "mimeType", "mime_type", "format")
            out[key] = media(item, txt(kind))
        else:
            out[key] = without_media(item, depth + 1)
    return out
