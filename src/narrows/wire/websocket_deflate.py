"""Permessage-deflate (RFC 7692): what a handshake agreed on, and messages expanded up to a limit."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from narrows.core.errors import ProtocolError

NAME: Final = "permessage-deflate"
_TAIL: Final = b"\x00\x00\xff\xff"
_WINDOW: Final = 1 << 15
_FINAL_BLOCKS: Final = 64
"""DEFLATE streams that one message may consist of. One is usual, two are what 7.2.3.4 describes."""


@dataclass(frozen=True, slots=True)
class Deflate:
    """The extension's parameters as agreed (7.1). Window bits are 8 to 15."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

    def takeover(self, *, from_client: bool) -> bool:
        """Whether one side's messages go on with the window of the one before."""
        return not (self.client_no_context_takeover if from_client else self.server_no_context_takeover)


class Inflater:
    """Expands the messages of one direction.

    The window is always the largest: it reads whatever a smaller one wrote.
    """

    __slots__ = ("_stream", "_takeover", "_window")

    def __init__(self, takeover: bool) -> None:
        self._takeover = takeover
        self._stream = zlib.decompressobj(-15)
        self._window = b""

    def message(self, data: bytes, limit: int) -> bytes:
        """One message, expanded. Raises ProtocolError where it is not DEFLATE, or longer than `limit` bytes."""
        if not self._takeover:
            self._stream = zlib.decompressobj(-15)
            self._window = b""
        out = bytearray()
        rest = data + _TAIL
        for _ in range(_FINAL_BLOCKS):
            out += self._some(rest, limit + 1 - len(out))
            if len(out) > limit:
                raise _bad(f"a message expands to more than {limit} bytes")
            if not self._stream.eof:
                break
            # A block that says it is the last ends zlib's stream, but not the connection's window (7.2.3.4).
            rest = self._stream.unused_data
            self._stream = zlib.decompressobj(-15, zdict=(self._window + out)[-_WINDOW:])
        else:
            raise _bad(f"a message consists of more than {_FINAL_BLOCKS} streams")
        if self._takeover:
            self._window = bytes((self._window + out)[-_WINDOW:]) if len(out) < _WINDOW else bytes(out[-_WINDOW:])
        return bytes(out)

    def _some(self, data: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(data, most)
        except zlib.error as error:
            raise _bad("a message is not DEFLATE") from error


def agreed(offered: str, accepted: str) -> Deflate | None:
    """What the values of Sec-WebSocket-Extensions (request's, response's) agree on; None for no extension.

    Raises ProtocolError for an extension that was not offered or that nobody here can read (RFC 6455, 9.1), and for
    parameters that RFC 7692 does not allow in an answer.
    """
    answers = _parse(accepted)
    if not answers:
        return None
    offers = [parameters for name, parameters in _parse(offered) if name == NAME]
    if len(answers) > 1 or answers[0][0] != NAME:
        raise _bad("the server chose an extension that is not permessage-deflate alone")
    if not offers:
        raise _bad("the server chose permessage-deflate, which the client did not offer")
    parameters = answers[0][1]
    unknown = set(parameters) - set(Deflate.__dataclass_fields__)
    if unknown:
        raise _bad("the server chose a parameter of permessage-deflate that does not exist")
    if parameters.get("server_no_context_takeover") or parameters.get("client_no_context_takeover"):
        raise _bad("a parameter of permessage-deflate has a value that takes none")
    if "client_max_window_bits" in parameters and not any("client_max_window_bits" in offer for offer in offers):
        raise _bad("the server limits the client's window, which the client did not offer")
    return Deflate(
        "server_no_context_takeover" in parameters,
        "client_no_context_takeover" in parameters,
        _bits("server_max_window_bits", parameters),
        _bits("client_max_window_bits", parameters),
    )


def _bits(name: str, parameters: dict[str, str]) -> int:
    if name not in parameters:
        return 15
    text = parameters[name]
    if text not in ("8", "9", "10", "11", "12", "13", "14", "15"):
        raise _bad("the server chose a window of permessage-deflate that does not exist")
    return int(text)


def _parse(value: str) -> list[tuple[str, dict[str, str]]]:
    """The extensions of a header, with their parameters. Raises ProtocolError where one comes twice in one of them."""
    found: list[tuple[str, dict[str, str]]] = []
    for extension in filter(None, (part.strip() for part in value.split(","))):
        name, *rest = (part.strip() for part in extension.split(";"))
        parameters: dict[str, str] = {}
        for parameter in filter(None, rest):
            key, _, given = parameter.partition("=")
            if key.strip().lower() in parameters:
                raise _bad("a parameter of an extension comes twice")
            parameters[key.strip().lower()] = given.strip().strip('"')
        found.append((name.lower(), parameters))
    return found


def _bad(why: str) -> ProtocolError:
    return ProtocolError("the WebSocket was not understood", why)
