"""A small CBOR decoder (RFC 8949) for RPC v2 bodies: bounded, and raising DecodeProblem whatever it is fed."""

from __future__ import annotations

import struct

from narrows.session.aws.problem import DecodeProblem

DEPTH = 100
"""Nesting that is followed."""
ITEMS = 500_000
"""Data items that are read from one body."""

_FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
_SIMPLE: dict[int, bool | None] = {20: False, 21: True, 22: None, 23: None}


def decode(data: bytes) -> object:
    """The value of one CBOR item. Tags are dropped (tag 1, a time, leaves its number). Raises DecodeProblem."""
    reader = _Reader(data)
    value = reader.item(0)
    if reader.at != len(data):
        raise DecodeProblem("the CBOR body has bytes after its end", f"{len(data) - reader.at} of them")
    return value


class _Break:
    pass


_BREAK = _Break()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise DecodeProblem("the CBOR body ends in the middle of an item", f"at byte {self.at}")
        out = self.data[self.at : end]
        self.at = end
        return out

    def item(self, depth: int) -> object:
        value = self.any(depth)
        if value is _BREAK:
            raise DecodeProblem("the CBOR body has a break out of place", f"at byte {self.at}")
        return value

    def any(self, depth: int) -> object:
        if depth > DEPTH:
            raise DecodeProblem("the CBOR body is nested too deep", f"more than {DEPTH} levels")
        self.items += 1
        if self.items > ITEMS:
            raise DecodeProblem("the CBOR body has too many items", f"more than {ITEMS}")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            return self.simple(info)
        if info == 31:
            return self.indefinite(major, depth)
        count = self.count(info)
        if major == 0:
            return count
        if major == 1:
            return -1 - count
        if major == 2:
            return self.take(count)
        if major == 3:
            return self.text(self.take(count))
        if major == 4:
            return [self.item(depth + 1) for _ in range(self.bounded(count))]
        if major == 5:
            return dict(self.pair(depth) for _ in range(self.bounded(count)))
        return self.item(depth + 1)

    def bounded(self, count: int) -> int:
        if count > len(self.data) - self.at:
            raise DecodeProblem("the CBOR body is shorter than it says", f"{count} items at byte {self.at}")
        return count

    def count(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise DecodeProblem("the CBOR body has a reserved length", f"at byte {self.at}")
        return int.from_bytes(self.take(1 << (info - 24)), "big")

    def simple(self, info: int) -> object:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info in _FLOATS:
            form, size = _FLOATS[info]
            return struct.unpack(form, self.take(size))[0]
        if info == 31:
            return _BREAK
        raise DecodeProblem("the CBOR body has an unknown simple value", f"at byte {self.at}")

    def indefinite(self, major: int, depth: int) -> object:
        if major in (2, 3):
            parts = []
            while (part := self.any(depth + 1)) is not _BREAK:
                parts.append(part.encode() if isinstance(part, str) else part)
            if not all(isinstance(part, bytes) for part in parts):
                raise DecodeProblem("the CBOR body has a string of mixed parts", f"at byte {self.at}")
            joined = b"".join(part for part in parts if isinstance(part, bytes))
            return joined if major == 2 else self.text(joined)
        if major == 4:
            items = []
            while (value := self.any(depth + 1)) is not _BREAK:
                items.append(value)
            return items
        if major == 5:
            out: dict[str, object] = {}
            while (key := self.any(depth + 1)) is not _BREAK:
                out[self.key(key)] = self.item(depth + 1)
            return out
        raise DecodeProblem("the CBOR body has an indefinite length where none may be", f"at byte {self.at}")

    def pair(self, depth: int) -> tuple[str, object]:
        return self.key(self.item(depth + 1)), self.item(depth + 1)

    def key(self, value: object) -> str:
        if not isinstance(value, str):
            raise DecodeProblem("the CBOR body has a key that is no text", f"at byte {self.at}")
        return value

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeProblem("the CBOR body has text that is not UTF-8", f"before byte {self.at}") from error
