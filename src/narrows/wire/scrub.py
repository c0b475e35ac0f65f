"""Scrubbing of recorded heads by rule: the header stays named, its value becomes `*` of the same length.

Applied to what is written down only; what is sent is never touched here. Lengths are kept so that a reader sees
that something was there, and so that offsets in a recorded message stay those of the wire.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from narrows.wire.shape import Shape

HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"x-amz-security-token",
        b"x-amz-s3session-token",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"cookie",
        b"set-cookie",
        b"x-narrows-process",
    }
)
"""Headers (lower case) whose values are, or may hold, a lease or an upstream secret. Command lines may (the facts of
an event have them, masked)."""

QUERY = (b"x-amz-signature", b"x-amz-security-token", b"x-amz-s3session-token", b"signature", b"key")
"""Query parameters (lower case) that carry a signature, a session token, or an API key (Google's `key`, which is one
of Amazon Location's services too; no other AWS operation has a parameter of that name)."""

_PARAMETER = re.compile(rb"(?i)([?&](?:" + b"|".join(re.escape(name) for name in QUERY) + rb")=)([^&\s#]*)")


_ANY_PARAMETER = re.compile(rb"([?&]([^=&#\s]*)=)([^&\s#]*)")
_NAMES = frozenset(QUERY)


def _mask_parameter(match: re.Match[bytes]) -> bytes:
    return match.group(1) + b"*" * len(match.group(2))


def _mask_escaped(match: re.Match[bytes]) -> bytes:
    hidden = unquote_to_bytes(match.group(2)).lower() in _NAMES
    return match.group(1) + (b"*" * len(match.group(3)) if hidden else match.group(3))


def target(value: bytes) -> bytes:
    """Return a request target, or a whole request line, with secret-bearing query parameters masked."""
    # Not `in`: that first tries the bytes as a number, and throws and catches an exception each time.
    if value.find(b"?") < 0 or value.find(b"=") < 0:
        return value
    if value.find(b"%") >= 0:  # a name may be spelt with escapes: X-Amz-Security-%54oken
        return _ANY_PARAMETER.sub(_mask_escaped, value)
    return _PARAMETER.sub(_mask_parameter, value)


def line(value: bytes) -> bytes:
    """Return a header line with all after `name: ` masked."""
    start = value.index(b":") + 1
    if value[start : start + 1] == b" ":
        start += 1
    return value[:start] + b"*" * (len(value) - start)


def head(raw: bytes, lines: list[bytes], shape: Shape) -> bytes:
    """Return a whole head with every secret-bearing value masked; same length as `raw`.

    `lines` are its header lines as received, `shape` that of its headers. A head that needs no masking is returned
    as it is.
    """
    places = shape.plans.get("scrub")
    if places is None:
        places = [at for at, name in enumerate(shape.names) if name in HEADERS]
        shape.remember("scrub", places)
    start_line = raw[: raw.index(b"\r\n", 2)]
    masked = target(start_line)
    if not places and masked is start_line:
        return raw
    out = list(lines)
    for at in places:
        out[at] = line(lines[at])
    return masked + b"\r\n" + b"\r\n".join([*out, b"", b""])


def secrets(data: bytes, values: tuple[bytes, ...], *, cut: bool = False) -> bytes:
    """Return `data` with every occurrence of each of `values` masked; used on what a target says in an error.

    `cut` says that `data` broke off: what it ends with is then masked too where one of `values` may have begun.
    """
    for value in values:
        if value and data.find(value) >= 0:
            data = data.replace(value, b"*" * len(value))
    if not cut:
        return data
    hidden = 0
    for value in values:
        for size in range(min(len(value) - 1, len(data)), hidden, -1):
            if data.endswith(value[:size]):
                hidden = size
                break
    return data[: len(data) - hidden] + b"*" * hidden
