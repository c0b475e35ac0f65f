"""UUIDv7 identifiers (RFC 9562 section 5.7): sortable by time, made from a given clock and given randomness."""

from __future__ import annotations

from uuid import UUID

NIL = bytes(16)
"""The session of exchanges whose caller could not be identified."""


def uuid7(wall_ns: int, random: bytes) -> bytes:
    """Return 16 bytes: 48 bits of Unix milliseconds, version 7, and 74 bits taken from `random`.

    `wall_ns` is nanoseconds since the Unix epoch; `random` must hold at least 10 unpredictable bytes.
    """
    millis = wall_ns // 1_000_000
    return (
        millis.to_bytes(6, "big")
        + bytes((0x70 | (random[0] & 0x0F), random[1], 0x80 | (random[2] & 0x3F)))
        + random[3:10]
    )


def text(raw: bytes) -> str:
    """The usual hyphenated form of 16 bytes."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def parse(value: str) -> bytes:
    """The 16 bytes of a hyphenated or plain hexadecimal id. Raises ValueError."""
    return UUID(value).bytes


def millis(raw: bytes) -> int:
    """Unix milliseconds at which a UUIDv7 was made."""
    return int.from_bytes(raw[:6], "big")
