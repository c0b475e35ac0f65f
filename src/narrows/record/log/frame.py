"""The frame codec: how one recorded piece of an exchange lies in a segment and in a sealed part.

Sans-I/O and pure, so that the recorder, recovery, the sealer and `narrows verify` read the same bytes the same way.

Layout, big endian, 140 bytes of header, then meta, then data:

    offset size field
    0      4    magic "NRF1"
    4      4    length of the whole frame, header included
    8      4    CRC32C (Castagnoli) of everything after this field: finds torn and rotten bytes
    12     1    kind (Kind)
    13     1    flags (Flag)
    14     2    reserved, zero
    16     4    length of meta
    20     8    sequence number in this writer's chain, from 0
    28     16   session (UUIDv7; 16 zero bytes: caller not identified)
    44     16   exchange (UUIDv7)
    60     8    wall clock, ns since the Unix epoch, signed
    68     8    monotonic clock, ns, signed
    76     32   digest: SHA-256 of meta followed by data
    108    32   running hash: SHA-256 of the previous frame's running hash followed by bytes 12..107 of this frame

The running hash makes a frame that was taken out, put in or changed visible before anything is sealed: it covers
the digest, hence the payload. A chain starts from 32 zero bytes; a writer's next segment goes on from the last.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import sha256

from crc32c import crc32c as _crc32c

from narrows.core.errors import ProofError

MAGIC = b"NRF1"
HEADER_SIZE = 140
MAX_FRAME = 32 * 1024 * 1024
"""No writer makes a longer frame; a reader that sees one knows that the length field is damaged."""

GENESIS = bytes(32)

_PREFIX = struct.Struct(">4sII")
_BODY = struct.Struct(">BBHIQ16s16sqq32s")
_HEADER = struct.Struct(">4sIIBBHIQ16s16sqq32s32s")
assert _HEADER.size == HEADER_SIZE and _BODY.size == 96


class Kind(IntEnum):
    """What a frame holds."""

    SEGMENT = 1
    """First frame of every segment: meta names the writer, the segment's number and the gateway's version."""
    SESSION_OPEN = 2
    SESSION_CLOSE = 3
    REQUEST = 4
    """Bytes from the client. The first frame of an exchange carries its facts and decision in meta."""
    SENT = 5
    """The head that went upstream in place of the client's (bodies are the client's unless meta says otherwise)."""
    RESPONSE = 6
    """Bytes to the client. The last frame of an exchange carries its outcome in meta."""
    EVENT = 7
    """One event without an answer: a hook, a prompt, a statement."""
    GAP = 8
    """Something is missing, and this says what: a torn tail, a crashed worker, a full disk."""
    ADMIN = 9
    """A change of configuration, a read of a recording, an erasure."""
    WRITER_CLOSE = 10
    """A writer stopped on purpose; a writer without this one crashed or still runs."""


class Flag(IntFlag):
    """Marks on a frame."""

    BEGIN = 1
    """First frame of its exchange."""
    END = 2
    """Last frame of its direction."""
    FINAL = 4
    """Last frame of its exchange: nothing of it follows."""
    BUFFERED = 8
    """Written with `buffered` durability: up to 50 ms of tail may be lost with the machine."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame. `offset` is its place in the buffer it was read from, `size` its whole length."""

    kind: int
    flags: int
    seq: int
    session: bytes
    exchange: bytes
    wall_ns: int
    mono_ns: int
    digest: bytes
    running: bytes
    meta: bytes
    data: bytes
    offset: int
    size: int
    raw: bytes

    @property
    def chained(self) -> bytes:
        """The bytes of this frame that the running hash covers."""
        return self.raw[12:108]


class Chain:
    """A writer's chain: encodes frames one after another. Not thread-safe: one owner at a time."""

    __slots__ = ("running", "seq")

    def __init__(self, seq: int = 0, running: bytes = GENESIS) -> None:
        self.seq = seq
        self.running = running

    def encode(
        self,
        kind: int,
        flags: int,
        session: bytes,
        exchange: bytes,
        wall_ns: int,
        mono_ns: int,
        meta: bytes,
        data: bytes | memoryview,
    ) -> tuple[bytes, bytes]:
        """Return the header and the meta of the next frame; the caller writes header, meta, then `data` itself.

        `data` is read once for its digest and once for its CRC and is not copied; the digest releases the GIL
        when it is large.
        """
        digest = sha256(meta)
        digest.update(data)
        body = _BODY.pack(kind, flags, 0, len(meta), self.seq, session, exchange, wall_ns, mono_ns, digest.digest())
        running = sha256(self.running + body).digest()
        self.running = running
        self.seq += 1
        crc = _crc32c(body + running + meta)
        if data:
            crc = _crc32c(data, crc)
        return _PREFIX.pack(MAGIC, HEADER_SIZE + len(meta) + len(data), crc) + body + running, meta

    def encode_whole(
        self,
        kind: int,
        flags: int,
        session: bytes,
        exchange: bytes,
        wall_ns: int,
        mono_ns: int,
        meta: bytes,
        data: bytes,
    ) -> bytes:
        """The next frame as one piece: the same bytes as `encode`, a tenth cheaper where `data` is small."""
        payload = meta + data if data else meta
        body = _BODY.pack(
            kind, flags, 0, len(meta), self.seq, session, exchange, wall_ns, mono_ns, sha256(payload).digest()
        )
        running = sha256(self.running + body).digest()
        self.running = running
        self.seq += 1
        covered = body + running + payload
        return _PREFIX.pack(MAGIC, 12 + len(covered), _crc32c(covered)) + covered


class TornFrame(ProofError):
    """The buffer ends inside a frame, or the bytes at `offset` are not a frame."""

    code = "torn_frame"

    def __init__(self, what: str, why: str = "", hint: str = "", *, offset: int, incomplete: bool) -> None:
        super().__init__(what, why, hint)
        self.offset = offset
        self.incomplete = incomplete


def decode(buffer: bytes | memoryview, offset: int = 0) -> Frame:
    """Decode the frame at `offset`. Checks magic, lengths and CRC; raises TornFrame.

    `incomplete` in the error is True when more bytes might make it whole (the tail of a growing segment).
    """
    available = len(buffer) - offset
    if available < HEADER_SIZE:
        raise TornFrame("A frame is cut short", f"{available} bytes at offset {offset}", offset=offset, incomplete=True)
    fields = _HEADER.unpack_from(buffer, offset)
    magic, length, crc, kind, flags, reserved, meta_len, seq, session, exchange, wall, mono, digest, running = fields
    if magic != MAGIC or reserved or not HEADER_SIZE + meta_len <= length <= MAX_FRAME:
        raise TornFrame("No frame here", f"bad header at offset {offset}", offset=offset, incomplete=False)
    if available < length:
        raise TornFrame(
            "A frame is cut short", f"{available} of {length} bytes at offset {offset}", offset=offset, incomplete=True
        )
    raw = bytes(buffer[offset : offset + length])
    if _crc32c(raw[12:]) != crc:
        raise TornFrame(
            "A frame is damaged", f"its CRC does not match at offset {offset}", offset=offset, incomplete=False
        )
    body_at = HEADER_SIZE + meta_len
    return Frame(
        kind, flags, seq, session, exchange, wall, mono, digest, running,
        raw[HEADER_SIZE:body_at], raw[body_at:], offset, length, raw,
    )  # fmt: skip


def frames(buffer: bytes | memoryview, offset: int = 0) -> Iterator[Frame]:
    """Decode frame after frame until the buffer ends; raises TornFrame at the first that is not whole."""
    while offset < len(buffer):
        frame = decode(buffer, offset)
        yield frame
        offset += frame.size


def check_link(frame: Frame, seq: int, running: bytes) -> None:
    """Check that `frame` follows the chain at (`seq`, `running`) and that its payload is the one it names.

    Raises ProofError that says which of the three is wrong.
    """
    if frame.seq != seq:
        raise ProofError("Frames are missing or out of order", f"sequence number {frame.seq} where {seq} should be")
    if sha256(running + frame.chained).digest() != frame.running:
        raise ProofError("The running hash is broken", f"at sequence number {seq}")
    check_payload(frame)


def check_payload(frame: Frame) -> None:
    """Check that meta and data are the bytes that the frame's digest names. Raises ProofError."""
    if sha256(frame.raw[HEADER_SIZE:]).digest() != frame.digest:
        raise ProofError("A payload was changed", f"its digest does not match at sequence number {frame.seq}")
