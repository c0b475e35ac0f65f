"""Values as they are shown and indexed: JSON-like trees walked along botocore's shapes.

Wire names become member names; unknown members stay under their wire name. A blob becomes base64 text, or over
BLOB_SHOWN bytes its length and SHA-256; a member marked sensitive becomes SENSITIVE; a time becomes ISO 8601 in UTC.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import email.utils
import math
from hashlib import sha256
from typing import Any

from narrows.session.aws.problem import DecodeProblem

Shape = Any
"""A `botocore.model.Shape`. Its subclasses are told apart by `type_name`, which no type checker follows."""

SENSITIVE = "(sensitive)"
BLOB_SHOWN = 256
"""Bytes of a blob that are shown as base64; a longer one is named by its hash."""
DEPTH = 100
"""Nesting that is followed."""
OPEN_SERVICES = frozenset(("bedrock-runtime", "bedrock-agent-runtime"))
"""Services whose models mark every prompt and answer as sensitive: those are what the record is for, and are shown."""


class Shower:
    """Walks values along shapes. `hide` says whether sensitive members are replaced."""

    def __init__(self, hide: bool = True) -> None:
        self.hide = hide

    def value(self, shape: Shape, value: Any, depth: int = 0) -> Any:
        """A parsed JSON or CBOR value (blobs as base64 text or bytes) as it is shown. Raises DecodeProblem."""
        if depth > DEPTH:
            raise DecodeProblem("the value is nested too deep", f"more than {DEPTH} levels")
        if value is None:
            return None
        if self.hide and shape.metadata.get("sensitive"):
            return SENSITIVE
        kind = shape.type_name
        if kind == "structure":
            if shape.is_document_type or not isinstance(value, dict):
                return plain(value, depth)
            return self.structure(shape, value, depth)
        if kind == "list" and isinstance(value, list):
            return [self.value(shape.member, item, depth + 1) for item in value]
        if kind == "map" and isinstance(value, dict):
            if self.hide and shape.key.metadata.get("sensitive"):
                return SENSITIVE
            return {str(key): self.value(shape.value, item, depth + 1) for key, item in value.items()}
        if kind == "blob":
            return blob(value)
        if kind == "timestamp":
            return timestamp(value)
        return plain(value, depth)

    def structure(self, shape: Shape, value: dict[str, Any], depth: int) -> dict[str, Any]:
        """A structure's members under their member names."""
        names = _wire_names(shape)
        out: dict[str, Any] = {}
        for wire, item in value.items():
            known = names.get(wire)
            if known is None and wire in shape.members:
                known = (wire, shape.members[wire])
            if known is None:
                out[str(wire)] = plain(item, depth + 1)
            else:
                out[known[0]] = self.value(known[1], item, depth + 1)
        return out

    def scalar(self, shape: Shape, text: str) -> Any:
        """A value that stood as text (in a form, XML, header, query or path) as its type."""
        if self.hide and shape.metadata.get("sensitive"):
            return SENSITIVE
        return scalar(shape.type_name, text)


def _wire_names(shape: Shape) -> dict[str, tuple[str, Shape]]:
    """Wire name -> member name and shape. Kept with the shape, which its model keeps: it is asked for each value."""
    names: dict[str, tuple[str, Shape]] | None = shape.__dict__.get("_narrows_wire_names")
    if names is None:
        names = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
        shape.__dict__["_narrows_wire_names"] = names
    return names


def scalar(kind: str, text: str) -> Any:
    """Text as a value of a shape's type; text that does not fit stays text."""
    if kind in ("integer", "long"):
        stripped = text.strip()
        return int(stripped) if len(stripped) < 20 and stripped.removeprefix("-").isdecimal() else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if kind in ("float", "double"):
        return _float(text)
    if kind == "timestamp":
        return timestamp(text)
    if kind == "blob":
        return blob(text)
    return text


def _float(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def plain(value: Any, depth: int = 0) -> Any:
    """A value without a shape, made safe for JSON. Raises DecodeProblem."""
    if depth > DEPTH:
        raise DecodeProblem("the value is nested too deep", f"more than {DEPTH} levels")
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray):
        return blob(bytes(value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime.datetime):
        return timestamp(value)
    return value


def blob(value: Any) -> Any:
    """A blob, given as bytes or as base64 text."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
        if len(raw) <= BLOB_SHOWN:
            return value
    elif isinstance(value, bytes | bytearray):
        raw = bytes(value)
        if len(raw) <= BLOB_SHOWN:
            return base64.b64encode(raw).decode("ascii")
    else:
        return plain(value)
    return {"bytes": len(raw), "sha256": sha256(raw).hexdigest()}


def timestamp(value: Any) -> Any:
    """A time as ISO 8601 in UTC; what is no time stays as it is."""
    if isinstance(value, bool):
        return value
    try:
        if isinstance(value, int | float):
            return _iso(datetime.datetime.fromtimestamp(value, datetime.UTC))
        if isinstance(value, datetime.datetime):
            return _iso(value)
        text = str(value).strip()
        if text.replace(".", "", 1).isdecimal() and len(text) < 20:
            return _iso(datetime.datetime.fromtimestamp(float(text), datetime.UTC))
        if text[:4].isdecimal():
            return _iso(datetime.datetime.fromisoformat(text))
        return _iso(email.utils.parsedate_to_datetime(text))
    except (ValueError, OverflowError, OSError, TypeError):
        return plain(value)


def _iso(when: datetime.datetime) -> str:
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    text = when.astimezone(datetime.UTC).isoformat(timespec="microseconds" if when.microsecond else "seconds")
    return text.replace("+00:00", "Z")
