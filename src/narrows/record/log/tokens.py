"""The body of a block of version 2: text that the part already holds is named, not stored again. Pure.

A part's *literals* are what a copy can name: of a block of version 1 all its raw bytes, of one of version 2 its text;
counted through the part, in the order of its blocks. A body of version 2 is two zstd frames, so that who needs a
block's text only unpacks no more than that:

    body     := zstd(text), zstd(other, sequence*)
    sequence := other, text, copy (lengths), and where copy is not 0: jump

A sequence is LEB128 numbers. It puts `other` of the other bytes, `text` of the text, then `copy` bytes of the part's
literals, from where the copy before it ended (at first: where the block's literals begin) plus `jump` (zigzag). A copy
lies in the literals of one earlier block, or in the text of its own block that was put before it; it never names bytes
that are a copy themselves. So whatever a block needs is one step away, and the history that an agent resends is read
from where it was new.

What comes out are the block's frames, as they are or bare (`narrows.record.log.bare`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from narrows.core.errors import ProofError

MIN_COPY = 32
"""No copy is shorter: naming it would cost what it saves."""
WINDOW = 64 << 20
"""A copy begins at most this far before its block's literals: it bounds what a reader unpacks for one block."""
MAX_STEPS = 1 << 20
"""The sequences of a block are at most so many bytes long."""
_MAX_NUMBER = 1 << 40

Fetch = Callable[[list[tuple[int, int]]], list[bytes]]
"""Gives the bytes of stretches (offset, length) of the part's literals, each within one earlier block."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the head of a block of version 2 says of its body."""

    literal: int
    """Where its text begins in the part's literals."""
    new: int
    """Length of its text."""
    other: int
    """Length of its other bytes."""
    packed: int
    """Length of what it stands for: its frames as they are where that is its raw length, else their bare form."""
    text: int = 0
    """Compressed length of its text: 0 where it has none."""

    def told(self) -> dict[str, object]:
        """As the head says it."""
        return {"literal": self.literal, "new": self.new, "other": self.other, "packed": self.packed, "text": self.text}

    @property
    def possible(self) -> bool:
        """Whether these numbers can be those of a block."""
        return self.new + self.other <= self.packed and bool(self.new) == bool(self.text)


@dataclass(frozen=True, slots=True)
class Sequence:
    """`other` and `text` literal bytes, then `copy` bytes from literal offset `source`."""

    other: int
    text: int
    copy: int
    source: int


def _number(value: int, out: bytearray) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def encode(sequences: list[Sequence], start: int) -> bytes:
    """The sequences of a block whose literals begin at `start`."""
    out = bytearray()
    for sequence in sequences:
        _number(sequence.other, out)
        _number(sequence.text, out)
        _number(sequence.copy, out)
        if sequence.copy:
            jump = sequence.source - start
            _number(jump << 1 if jump >= 0 else (-jump << 1) - 1, out)
            start = sequence.source + sequence.copy
    return bytes(out)


def _bad(why: str) -> NoReturn:
    raise ProofError("A part is damaged", why)


def _numbers(body: bytes, at: int) -> list[int]:
    """All numbers from `at` to the end."""
    found: list[int] = []
    value = shift = 0
    for byte in memoryview(body)[at:]:
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= _MAX_NUMBER:
                _bad("a block names a length that cannot be")
            found.append(value)
            value = shift = 0
        else:
            shift += 7
            if shift > 42:
                _bad("a block names a length that cannot be")
    if shift:
        _bad("a block ends inside a number")
    return found


def sequences_of(shape: Shape, rest: bytes) -> list[Sequence]:
    """The sequences of a block; `rest` is what its second frame holds. Raises ProofError.

    Every copy is checked: long enough, not too far back, of earlier blocks or of text put before.
    """
    numbers = iter(_numbers(rest, shape.other))
    found: list[Sequence] = []
    others = texts = put = 0
    start = last = shape.literal
    for other in numbers:
        text, copy = next(numbers, -1), next(numbers, -1)
        if text < 0 or copy < 0 or 0 < copy < MIN_COPY or not other + text + copy:
            _bad("a block has a step that cannot be")
        others += other
        texts += text
        put += other + text + copy
        source = 0
        if copy:
            jump = next(numbers, -1)
            if jump < 0:
                _bad("a block ends inside a copy")
            source = last + (-((jump + 1) >> 1) if jump & 1 else jump >> 1)
            last = source + copy
            if source < max(0, start - WINDOW) or last > start + texts or source < start < last:
                _bad("a block has a copy of bytes that are not before it")
        if put > shape.packed:
            _bad("a block's steps make more than its head says")
        found.append(Sequence(other, text, copy, source))
    if (others, texts, put) != (shape.other, shape.new, shape.packed):
        _bad("a block's steps make something else than its head says")
    return found


def expand(shape: Shape, text: bytes, rest: bytes, fetch: Fetch) -> bytes:
    """What a block stands for, `shape.packed` bytes, from its text and what its second frame holds. Raises ProofError.

    Makes no more memory than twice that (what `fetch` gives, and all of it), and that of at most MAX_STEPS numbers.
    """
    sequences = sequences_of(shape, rest)
    start, text_at, other_at = shape.literal, 0, 0
    far = [(s.source, s.copy) for s in sequences if s.copy and s.source < start]
    fetched = iter(fetch(far) if far else ())
    pieces: list[bytes] = []
    for s in sequences:
        if s.other:
            pieces.append(rest[other_at : other_at + s.other])
            other_at += s.other
        if s.text:
            pieces.append(text[text_at : text_at + s.text])
            text_at += s.text
        if s.copy and s.source < start:
            piece = next(fetched)
            if len(piece) != s.copy:
                _bad("a block has a copy of bytes that are not there")
            pieces.append(piece)
        elif s.copy:
            pieces.append(text[s.source - start : s.source - start + s.copy])
    return b"".join(pieces)
