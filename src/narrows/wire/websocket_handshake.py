"""The handshake that makes a WebSocket of an HTTP connection (RFC 6455, section 4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha1
from hmac import compare_digest
from typing import Final

from narrows.core.errors import ProtocolError
from narrows.wire.websocket_deflate import Deflate, agreed

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's opening: its key, and what it offers as the headers say it."""

    key: bytes
    extensions: str = ""
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides speak from here on."""

    deflate: Deflate | None = None
    protocol: str = ""


def asks(method: bytes, headers: Headers) -> bool:
    """Whether a request wants a WebSocket at all."""
    return method == b"GET" and "websocket" in _tokens(headers, b"upgrade")


def opening(method: bytes, headers: Headers) -> Asked:
    """Check a client's opening (4.2.1). Raises ProtocolError (426 where only the version is another)."""
    if not asks(method, headers) or "upgrade" not in _tokens(headers, b"connection"):
        raise _bad("it is not a GET with `Upgrade: websocket` and `Connection: Upgrade`")
    if _values(headers, b"sec-websocket-version") != ["13"]:
        raise ProtocolError("the WebSocket was not opened", "its version is not 13", status=426)
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _bad("its Sec-WebSocket-Key is not one value of 16 bytes in base64")
    protocols = tuple(part.strip() for part in _joined(headers, b"sec-websocket-protocol").split(",") if part.strip())
    return Asked(keys[0].encode("latin-1"), _joined(headers, b"sec-websocket-extensions"), protocols)


def answered(asked: Asked, status: int, headers: Headers) -> Agreed:
    """Check the server's answer (4.1). Raises ProtocolError: the connection must not be believed to be a WebSocket."""
    if status != 101:
        raise _bad("the server did not switch protocols")
    if _tokens(headers, b"upgrade") != ["websocket"] or "upgrade" not in _tokens(headers, b"connection"):
        raise _bad("the answer lacks `Upgrade: websocket` or `Connection: Upgrade`")
    accepts = _values(headers, b"sec-websocket-accept")
    if len(accepts) != 1 or not compare_digest(accepts[0].encode("latin-1"), accept(asked.key)):
        raise _bad("the answer's Sec-WebSocket-Accept does not belong to the request's key")
    protocols = _values(headers, b"sec-websocket-protocol")
    if len(protocols) > 1 or (protocols and protocols[0] not in asked.protocols):
        raise _bad("the server chose a subprotocol that the client did not offer")
    return Agreed(
        agreed(asked.extensions, _joined(headers, b"sec-websocket-extensions")), protocols[0] if protocols else ""
    )


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that belongs to a key. SHA-1 proves here that the server read the request, no more."""
    return base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def _is_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for given, value in headers if given.lower() == name]


def _joined(headers: Headers, name: bytes) -> str:
    return ", ".join(_values(headers, name))


def _tokens(headers: Headers, name: bytes) -> list[str]:
    return [part.strip().lower() for part in _joined(headers, name).split(",") if part.strip()]


def _bad(why: str) -> ProtocolError:
    return ProtocolError("the WebSocket was not opened", why)
