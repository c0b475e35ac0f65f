"""What must not rest in clear of what an agent reports: masked with `*`, length for length (P3, P6).

Nothing is parsed: bytes in, as many bytes out, so that what is recorded keeps the shape of what came. Found are the
gateway's own credentials, in every form in which clients write them down, and AWS secret keys by the names beside
them. What a redaction rule finds beyond these is the redactor's.
"""

from __future__ import annotations

import re
import struct
import zlib

_SECRETS = re.compile(
    # tokens, leases and API keys of a gateway, also where they are cut short
    rb"(?:nrw1\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?)"
    # `narrows:nrw1...` as Basic authentication has it
    rb"|(?:bmFycm93czpucncx[A-Za-z0-9+/_=-]*)"
    # a secret access key by its name, in JSON (also JSON inside a JSON text), an ini file or a shell's environment
    rb"""|(?i:(secret_?access_?key(?:\\*["'])?\s*[:=]\s*(?:\\*["'])?)([A-Za-z0-9/+=_-]{16,128}))"""
)


def mask(data: bytes) -> bytes:
    """`data` with secrets masked; the same object where there is none."""
    if b"nrw1" not in data and b"bmFycm93czpu" not in data and b"ccess" not in data.lower():
        return data
    return _SECRETS.sub(_stars, data)


def _stars(match: re.Match[bytes]) -> bytes:
    kept = match[1] or b""
    return kept + b"*" * (len(match[0]) - len(kept))


def mask_gzip(packed: bytes, plain: bytes, masked: bytes) -> bytes:
    """`packed`, a gzip (RFC 1952) of `plain`, as a gzip of `masked` with as many bytes: the difference is filled.

    Where nothing was masked, `packed` itself. Where the new gzip would be longer, which a sender of better packed
    data can bring about, everything is masked.
    """
    if masked is plain or masked == plain:
        return packed
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(masked) + deflate.flush()
    tail = struct.pack("<II", zlib.crc32(masked), len(masked) & 0xFFFFFFFF)
    bare = 10 + len(body) + len(tail)
    spare = len(packed) - bare
    if spare == 0:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + tail
    if spare < 1:
        return b"*" * len(packed)
    # A file's name of any length, ended by a zero, is what gzip's head has room for.
    return b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"-" * (spare - 1) + b"\0" + body + tail
