"""Which processes ask, as a caller says: the header `X-Narrows-Process`, base64url of a JSON list, nearest first.

What a caller says proves nothing; it is checked for its form only, so that what rests and is shown is what the
kernel's own list would look like.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from narrows.core.errors import Refusal

DEPTH = 32
"""Processes in a list, at most."""

_NUMBERS = ("pid", "start", "ppid")
_TEXTS = ("cwd", "exe")


def read_header(value: bytes | None) -> list[dict[str, Any]]:
    """The processes that a header's value lists; none without a header. Raises Refusal for another form."""
    if value is None:
        return []
    try:
        listed = orjson.loads(base64.b64decode(value + b"=" * (-len(value) % 4), altchars=b"-_", validate=True))
        if not isinstance(listed, list) or len(listed) > DEPTH:
            raise ValueError(f"not a list of at most {DEPTH} processes")
        return [_process(one) for one in listed]
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise Refusal(
            "The request was not understood",
            "its X-Narrows-Process header is not base64url of a JSON list of processes",
            code="process_malformed",
            status=400,
        ) from error


def _process(one: Any) -> dict[str, Any]:
    """One process, with the fields that one has. Raises ValueError, TypeError, KeyError."""
    found: dict[str, Any] = {}
    for name in _NUMBERS:
        number = int(one[name])  # a start may be a text: JavaScript's numbers are not exact up there
        if not 0 <= number < 1 << 63:
            raise ValueError(f"{name} is out of range")
        found[name] = number
    argv = one.get("argv", [])
    if not isinstance(argv, list) or not all(isinstance(part, str) for part in argv):
        raise ValueError("argv is not a list of texts")
    found["argv"] = argv
    for name in _TEXTS:
        text = one.get(name, "")
        if not isinstance(text, str):
            raise ValueError(f"{name} is not a text")
        found[name] = text
    return found
