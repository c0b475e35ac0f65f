"""Scrubbing of recorded heads by rule: the header stays named, its value becomes `*` of the same length.

Applied to what is written down only; what is sent is never touched here. Lengths are kept so that a reader sees
that something was there, and so that offsets in a recorded message stay those of the wire.
"""

from __future__ import annotations

import re

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
    }
)
"""Headers (lower case) whose values are, or may hold, a lease or an upstream secret."""

QUERY = (b"x-amz-signature", b"x-amz-security-token", b"x-amz-s3session-token", b"signature", b"key")
"""Query parameters (lower case) that carry a signature, a session token or an API key."""

_PARAMETER = re.compile(rb"(?i)([?&](?:" + b"|".join(re.escape(name) for name in QUERY) + rb")=)([^&\s#]*)")


def _mask_parameter(match: re.Match[bytes]) -> bytes:
    return match.group(1) + b"*" * len(match.group(2))


def target(value: bytes) -> bytes:
    """Return a request target, or a whole request line, with secret-bearing query parameters masked."""
    if b"?" not in value or b"=" not in value:
        return value
    return _PARAMETER.sub(_mask_parameter, value)


def line(value: bytes) -> bytes:
    """Return a header line with all after `name: ` masked."""
    start = value.index(b":") + 1
    if value[start : start + 1] == b" ":
        start += 1
    return value[:start] + b"*" * (len(value) - start)


def head(raw: bytes, headers: list[tuple[bytes, bytes]], lines: list[bytes]) -> bytes:
    """Return a whole head with every secret-bearing value masked; same length as `raw`.

    `headers` are its parsed headers (names lower case) and `lines` its raw header lines, in the same order. A head
    that needs no masking is returned as it is.
    """
    start_line = raw[: raw.index(b"\r\n", 2)]
    masked = target(start_line)
    dirty = masked is not start_line
    out = lines
    for i, (name, _value) in enumerate(headers):
        if name in HEADERS:
            if out is lines:
                out = list(lines)
            out[i] = line(lines[i])
            dirty = True
    if not dirty:
        return raw
    return masked + b"\r\n" + b"".join([one + b"\r\n" for one in out]) + b"\r\n"


def secrets(data: bytes, values: tuple[bytes, ...]) -> bytes:
    """Return `data` with every occurrence of each of `values` masked; used on what a target says in an error."""
    for value in values:
        if value and value in data:
            data = data.replace(value, b"*" * len(value))
    return data
