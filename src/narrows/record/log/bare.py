"""Frames without what can be computed from the rest of them. Pure.

A frame's CRC, digest and running hash are 68 of its 140 header bytes, and nothing compresses them: of an answer that
came as two hundred events they are nine tenths of what it would cost at rest. `bare` leaves them out, `whole` computes
them again; a block's SHA-256 is that of the whole frames, so that a wrong result cannot pass.

    frame := bytes 0..7 and 12..75 of the header, then its running hash where the frame does not follow the one before
             it in the block (same run, next sequence number), then meta and data
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256

from crc32c import crc32c

from narrows.core.errors import ProofError
from narrows.record.log.frame import HEADER_SIZE, MAGIC, MAX_FRAME

_FIXED = 72
_PREFIX = struct.Struct(">4sI")
_SEQ = struct.Struct(">Q")


def _bad() -> ProofError:
    return ProofError("A part is damaged", "a block's frames are not the ones that its head names")


def bounds(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where each frame begins and ends. Raises ProofError where there is no frame."""
    at = 0
    while at < len(raw):
        if len(raw) - at < HEADER_SIZE:
            raise _bad()
        magic, length = _PREFIX.unpack_from(raw, at)
        if magic != MAGIC or not HEADER_SIZE <= length <= len(raw) - at:
            raise _bad()
        yield at, at + length
        at += length


def bare(raw: bytes, counts: Iterable[int]) -> tuple[bytes, list[int]]:
    """The bare form of a block's frames, whose runs have `counts` frames; and where each frame's payload begins in it.

    Raises ProofError where there is no frame.
    """
    pieces: list[bytes] = []
    payloads: list[int] = []
    size = 0
    places = bounds(raw)
    for count in counts:
        follows = -1
        for _ in range(count):
            start, end = next(places, (0, 0))
            if not end:
                raise _bad()
            (seq,) = _SEQ.unpack_from(raw, start + 20)
            pieces.append(raw[start : start + 8])
            pieces.append(raw[start + 12 : start + 76])
            size += _FIXED
            if seq != follows:
                pieces.append(raw[start + 108 : start + 140])
                size += 32
            follows = seq + 1
            payloads.append(size)
            pieces.append(raw[start + HEADER_SIZE : end])
            size += end - start - HEADER_SIZE
    if next(places, None) is not None:
        raise _bad()
    return b"".join(pieces), payloads


def whole(packed: bytes, counts: Iterable[int], length: int) -> bytes:
    """The frames of a bare form: exactly `length` bytes. Raises ProofError; makes no more memory than that."""
    pieces: list[bytes] = []
    at = made = 0
    running = b""
    for count in counts:
        follows = -1
        for _ in range(count):
            if len(packed) - at < _FIXED:
                raise _bad()
            magic, size = _PREFIX.unpack_from(packed, at)
            (seq,) = _SEQ.unpack_from(packed, at + 16)
            made += size
            if magic != MAGIC or not HEADER_SIZE <= size <= MAX_FRAME or made > length:
                raise _bad()
            fixed = packed[at + 8 : at + _FIXED]
            head = packed[at : at + 8]
            at += _FIXED
            given = seq != follows
            if given:
                following = packed[at : at + 32]
                at += 32
            end = at + size - HEADER_SIZE
            if end > len(packed):
                raise _bad()
            payload = packed[at:end]
            covered = fixed + sha256(payload).digest()
            running = following if given else sha256(running + covered).digest()
            covered += running
            pieces.append(head + crc32c(payload, crc32c(covered)).to_bytes(4, "big") + covered)
            pieces.append(payload)
            at = end
            follows = seq + 1
    if at != len(packed) or made != length:
        raise _bad()
    return b"".join(pieces)
