"""The head of a model API's call as it goes upstream: the client's own lines, with the real key in the lease's place.

The order of the lines stays, and every line but those of the key, of this hop and Host is the client's own, byte for
byte. What follows from the names of the fields alone is worked out once per shape of a head.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from narrows.core.providers import Provider
from narrows.wire import scrub
from narrows.wire.http1 import RequestHead

CREDENTIALS = (b"x-api-key", b"authorization", b"x-goog-api-key", b"api-key")
"""Header fields (lower case) in which clients of model APIs send their key; the last is Azure's."""

_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"upgrade", b"http2-settings", b"expect",
    }
)  # fmt: skip
"""Fields of one hop (RFC 9110 section 7.6.1), and what was answered already."""

_BEARER = re.compile(rb"(?i)bearer +([!-~]+)")


class _Plan(NamedTuple):
    kept: list[int]
    """Places of the client's lines in the order in which they go on."""
    masked: list[int]
    """Which of the kept (places in `kept`) are masked in the record."""
    key_at: int
    """Where in `kept` the key goes, -1 for the end."""
    host_at: int
    """Where in `kept` Host stands, -1 where the client sent none."""
    replaced: int
    """The place of the client's line whose name the key takes over, -1 for none."""


def keys(head: RequestHead) -> list[bytes]:
    """Every key that the request presents, in whichever of the four places; what is no bearer token stands whole."""
    places = head.shape.plans.get("llm keys")
    if places is None:
        places = [at for at, name in enumerate(head.shape.names) if name in CREDENTIALS]
        head.shape.remember("llm keys", places)
    found = []
    for at in places:
        name, value = head.headers[at]
        if name == b"authorization":
            bearer = _BEARER.fullmatch(value)
            value = bearer[1] if bearer is not None else value
        found.append(value)
    if b"?" in head.target:
        query = head.target.partition(b"?")[2].split(b"&")
        found += [unquote_to_bytes(part.partition(b"=")[2]) for part in query if _is_key(part)]
    return found


def _is_key(part: bytes) -> bool:
    name = part.partition(b"=")[0]
    return name == b"key" or (b"%" in name and unquote_to_bytes(name) == b"key")


def without_key(target: bytes) -> bytes:
    """A target without the query parameter that held the lease, otherwise as it was."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    parts = query.split(b"&")
    kept = [part for part in parts if not _is_key(part)]
    if len(kept) == len(parts):
        return target
    return path + b"?" + b"&".join(kept) if kept else path


def build(head: RequestHead, target: bytes, host: bytes, provider: Provider, key: bytes) -> tuple[bytes, bytes]:
    """(head to send, head to record)."""
    lines = head.lines
    plan = _plan_of(head, provider)
    out = [lines[at] for at in plan.kept]
    if plan.host_at >= 0:
        out[plan.host_at] = b"Host: " + host
    shown = list(out)
    for at in plan.masked:
        shown[at] = scrub.line(shown[at])
    named = provider.line
    if plan.replaced >= 0:
        named = lines[plan.replaced][: len(provider.header)] + named[len(provider.header) :]
    if plan.key_at >= 0:
        out[plan.key_at] = named + key
        shown[plan.key_at] = named + b"*" * len(key)
    else:
        out.append(named + key)
        shown.append(named + b"*" * len(key))
    if plan.host_at < 0:  # a client of HTTP/1.0
        out.insert(0, b"Host: " + host)
        shown.insert(0, b"Host: " + host)
    start = head.method + b" " + target + b" HTTP/1.1"
    return b"\r\n".join([start, *out, b"", b""]), b"\r\n".join([scrub.target(start), *shown, b"", b""])


def _plan_of(head: RequestHead, provider: Provider) -> _Plan:
    shape = head.shape
    named = _named_by_connection(head)
    if named:
        return _plan(shape.names, provider.header, named)
    key = ("llm", provider.header)
    plan: _Plan | None = shape.plans.get(key)
    if plan is None:
        plan = _plan(shape.names, provider.header, frozenset())
        shape.remember(key, plan)
    return plan


def _named_by_connection(head: RequestHead) -> frozenset[bytes]:
    """Fields that the client's Connection header takes off at this hop, beside those that always end here."""
    value = head.get(b"connection")
    if value is None or value in (b"keep-alive", b"close", b"Keep-Alive"):
        return frozenset()
    named = {part.strip().lower() for part in value.split(b",")} - _HOP - {b"close"}
    return frozenset(name for name in named if name in head.shape.index)


def _plan(names: tuple[bytes, ...], header: bytes, named: frozenset[bytes]) -> _Plan:
    kept: list[int] = []
    masked: list[int] = []
    key_at = host_at = replaced = -1
    for at, name in enumerate(names):
        if name in CREDENTIALS:
            if key_at < 0:
                key_at = len(kept)
                kept.append(at)
            if name == header and replaced < 0:
                replaced = at
            continue
        if name in named or name in _HOP:
            continue
        if name == b"host":
            host_at = len(kept)
        elif name in scrub.HEADERS:
            masked.append(len(kept))
        kept.append(at)
    return _Plan(kept, masked, key_at, host_at, replaced)
