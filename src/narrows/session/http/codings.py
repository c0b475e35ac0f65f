"""Undoes content codings (RFC 9110 section 8.4.1) within a bound, as far as the bytes go.

A body that ends early gives what it holds. What cannot be decoded is told, never raised.
"""

from __future__ import annotations

import io
import zlib
from importlib import import_module

import zstandard

_WINDOW = 64 << 20
"""Largest window that a zstd body may ask for (RFC 8878 names 8 MB as what a decoder should support)."""
_PIECE = 1 << 16
_CODINGS = 4


def decode(codings: str, body: bytes, limit: int) -> tuple[bytes, bool, str]:
    """(body without its codings, whether it ended within `limit`, what was wrong).

    `codings` is the value of Content-Encoding, the coding applied first standing first. On an error the body is as far
    decoded as it came; under a coding that is not known it stays as it is.
    """
    names = [name for part in codings.lower().split(",") if (name := part.strip()) and name != "identity"]
    if len(names) > _CODINGS:
        return body, False, f"{len(names)} content codings, more than {_CODINGS}"
    whole = True
    for name in reversed(names):
        if not body:
            break
        body, ended, wrong = _undo(name, body, limit)
        if wrong:
            return body, False, f"{name}: {wrong}"
        whole = whole and ended
    return body, whole, ""


def _undo(name: str, body: bytes, limit: int) -> tuple[bytes, bool, str]:
    if name in ("gzip", "x-gzip"):
        return _zlib(body, zlib.MAX_WBITS | 16, limit)
    if name == "deflate":
        # zlib by the standard, raw deflate by some servers.
        zlibbed = len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _zlib(body, zlib.MAX_WBITS if zlibbed else -zlib.MAX_WBITS, limit)
    if name == "zstd":
        return _zstd(body, limit)
    if name == "br":
        return _brotli(body, limit)
    return body, False, "the coding is not known"


def _zlib(body: bytes, bits: int, limit: int) -> tuple[bytes, bool, str]:
    out: list[bytes] = []
    room = limit
    while body:
        if room <= 0:
            return b"".join(out), False, ""
        machine = zlib.decompressobj(bits)
        try:
            out.append(machine.decompress(body, room))
        except zlib.error as error:
            return (b"".join(out), True, "") if out else (body, False, str(error))
        room -= len(out[-1])
        if machine.unconsumed_tail:
            return b"".join(out), False, ""
        body = machine.unused_data if bits > zlib.MAX_WBITS else b""
    return b"".join(out), True, ""


def _zstd(body: bytes, limit: int) -> tuple[bytes, bool, str]:
    out: list[bytes] = []
    room = limit
    machine = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with machine.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            while room > 0 and (piece := reader.read(min(_PIECE, room))):
                out.append(piece)
                room -= len(piece)
            more = room <= 0 and bool(reader.read(1))
    except zstandard.ZstdError as error:
        return b"".join(out) if out else body, False, str(error)
    return b"".join(out), not more, ""


def _brotli(body: bytes, limit: int) -> tuple[bytes, bool, str]:
    brotli = import_module("brotli")  # asked for by few clients, and it has no types
    machine = brotli.Decompressor()
    out: list[bytes] = []
    size = 0
    given = body
    try:
        while size <= limit:
            piece = machine.process(given, output_buffer_limit=_PIECE)
            given = b""
            out.append(piece)
            size += len(piece)
            if machine.is_finished() or (not piece and machine.can_accept_more_data()):
                break
    except brotli.error as error:
        return b"".join(out)[:limit] if out else body, False, str(error)
    return b"".join(out)[:limit], size <= limit, ""
