"""Finding what a part already holds: the histories that agents resend with every call. Pure.

One `Dedupe` belongs to one part and keeps, bounded, the text that the part stores and where it lies. A search looks up
what follows a quotation mark, a backslash or a line's end, and compares what it finds byte by byte in both directions:
no hash decides anything, and a match begins and ends anywhere, also where a body was cut into frames. Only payloads of
long, text-like frames are looked at; the others cost a look at their header.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from narrows.record.log.frame import HEADER_SIZE, Kind
from narrows.record.log.tokens import MIN_COPY, WINDOW, Sequence, Shape

LOOKED_AT = 2048
"""A frame with a payload shorter than this is not looked at, unless it goes on with a request that was."""
HELD = 32 << 20
"""Bytes of text that are kept. Above it the oldest goes, down to half of it; what it held is stored again when it comes
again."""
MIN_MATCH = 256
"""A shorter match is not taken. What lies between new texts is stored with them, so that the next history, which has
all of it in one piece, is one match; were each name of a field a copy, every later request would pay for each."""
_OVERLAP = 16
"""A copy after new text begins so many bytes late: what follows the text next time may share its first bytes only (the
quotation mark before a mark that moves on), and the text is then kept with them."""
_SAMPLE = 4096
_KEY = 24
_SPACING = 96
_SPARSER = 5
"""The longer a new text is already, the fewer places of it are looked up and remembered: what comes again of it comes
in one piece, and one place finds all of it. So text that never comes again costs little."""
_DENSE = 1 << 16
_MAX_SKIP = 4096
_STEP = 64
_MAX_STEP = 1 << 18
_LOOKED = frozenset((Kind.REQUEST, Kind.RESPONSE, Kind.EVENT))
_ANCHOR = re.compile(rb'["\\\n]')


@dataclass(frozen=True, slots=True)
class Region:
    """A payload that is looked at: bytes [start, end) of a block's stream, which are raw bytes from `raw` on."""

    start: int
    end: int
    raw: int


@dataclass(frozen=True, slots=True)
class Found:
    """A block in which something was found again. `shape.text` is not known yet."""

    shape: Shape
    text: bytes
    other: bytes
    sequences: list[Sequence]


class Chooser:
    """Says frame by frame, in the order of the part, whose payload is looked at."""

    __slots__ = ("_exchange",)

    def __init__(self) -> None:
        self._exchange = b""

    def looks(self, raw: bytes, start: int = 0, end: int = -1) -> bool:
        """Whether the payload of the frame raw[start:end] is long text, or more of a request that was."""
        end = len(raw) if end < 0 else end
        kind = raw[start + 12]
        if end - start < LOOKED_AT + HEADER_SIZE:
            return kind == Kind.REQUEST and raw[start + 44 : start + 60] == self._exchange
        payload = start + HEADER_SIZE
        # Text has no zero byte; compressed and binary data hardly lack one.
        if kind not in _LOOKED or raw.find(0, payload, min(end, payload + _SAMPLE)) >= 0:
            return False
        if kind == Kind.REQUEST:
            self._exchange = raw[start + 44 : start + 60]
        return True


class Dedupe:
    """The text of one part, and the search in it. Not thread-safe."""

    def __init__(self, literal: int = 0) -> None:
        """`literal`: how many bytes of literals the part has so far."""
        self.literal = literal
        self._before = literal
        self._text = bytearray()
        self._base = 0  # offsets into the text count from the first byte that was ever kept
        self._index: dict[bytes, int] = {}
        self._follows: dict[int, tuple[int, int]] = {}
        self._ats: list[int] = []  # stretches of the text, ascending, and where they lie in the part's literals
        self._literals: list[int] = []
        self._end = 0

    @property
    def held(self) -> int:
        """Bytes of text that are kept; what they are found by costs about as much again."""
        return len(self._text)

    def plain(self, length: int) -> None:
        """The next block is stored with all its `length` bytes, and none of it is looked at."""
        self.literal += length

    def retract(self, length: int) -> None:
        """The last block was stored otherwise: with all its `length` bytes. Nothing is kept."""
        self.literal = self._before + length
        self.forget()

    def forget(self) -> None:
        """Keep nothing: what comes again is stored again."""
        self._trim(self._end)

    def block(self, stream: bytes, regions: list[Region], length: int) -> Found | None:
        """The next block, whose bytes are `stream`, as text and copies; None where nothing is found again.

        It must then be stored as it is, with all its `length` raw bytes (`stream` may be another form of them).
        """
        if len(self._text) > HELD:
            self._trim(self._end - HELD // 2)
        self._before = self.literal
        search = _Search(self, stream)
        for region in regions:
            search.region(region)
        found = search.finish()
        self.literal += length if found is None else found.shape.new
        return found

    def fetch(self, wanted: list[tuple[int, int]]) -> list[bytes]:
        """Stretches (offset, length) of the part's literals, out of what is kept; empty where it is not."""
        found: list[bytes] = []
        for literal, length in wanted:
            row = bisect_right(self._literals, literal) - 1
            at = self._ats[row] + literal - self._literals[row] - self._base if row >= 0 else 0
            found.append(bytes(self._text[at : at + length]) if row >= 0 else b"")
        return found

    # Called by the search --------------------------------------------------------------------------------------

    def keep(self, stream: bytes, start: int, end: int, literal: int) -> None:
        """Keep the text stream[start:end], which lies at `literal` in the part's literals."""
        if not self._ats or self._literals[-1] + self._end - self._ats[-1] != literal or literal == self._before:
            self._ats.append(self._end)
            self._literals.append(literal)
        index, shift = self._index, self._end - start
        spacing = _SPACING + len(self._text) // _DENSE
        at, last = start, end - _KEY
        while (found := _ANCHOR.search(stream, at, last)) is not None:
            at = found.start()
            index[stream[at : at + _KEY]] = at + shift
            at += spacing + min((at - start) >> _SPARSER, _MAX_SKIP)
        self._text += stream[start:end]
        self._end += end - start

    def relocate(self, texts: list[tuple[int, int]]) -> None:
        """The last texts that were kept, (literal, length), lie elsewhere than was said when they were."""
        at = self._end - sum(length for _, length in texts)
        while self._ats and self._ats[-1] >= at:
            self._ats.pop()
            self._literals.pop()
        for literal, length in texts:
            self._ats.append(at)
            self._literals.append(literal)
            at += length

    def match(self, stream: bytes, at: int, first: int, last: int) -> tuple[int, int, int] | None:
        """The longest match around stream[at], found by what stands there: (start, end, where in the text).

        Within stream[first:last]; None where it is shorter than MIN_MATCH.
        """
        found = self._index.get(stream[at : at + _KEY])
        if found is None:
            return None
        found -= self._base
        forward = _forward(stream, at, last, self._text, found)
        if not forward:
            return None
        back = _back(stream, at, first, self._text, found)
        if forward + back < MIN_MATCH:
            return None
        return at - back, at + forward, found - back + self._base

    def after(self, source: int, stream: bytes, at: int, last: int) -> tuple[int, int, int] | None:
        """The match at stream[at] that followed a copy up to `source` the last time, if it is one again."""
        follows = self._follows.get(source)
        if follows is None:
            return None
        place, guess = follows
        length = _forward(stream, at, last, self._text, place - self._base, guess)
        return (at, at + length, place) if length >= MIN_MATCH else None

    def follow(self, source: int, place: int, length: int) -> None:
        """Remember what followed a copy up to `source`."""
        self._follows[source] = place, length

    def stretches(self, source: int, length: int) -> list[tuple[int, int]]:
        """Where text[source:source + length] lies in the part's literals: (offset, length) of each stretch."""
        found: list[tuple[int, int]] = []
        row = bisect_right(self._ats, source) - 1
        while length:
            end = self._ats[row + 1] if row + 1 < len(self._ats) else self._end
            size = min(length, end - source)
            found.append((self._literals[row] + source - self._ats[row], size))
            source += size
            length -= size
            row += 1
        return found

    def _trim(self, base: int) -> None:
        """Forget all text before `base`."""
        del self._text[: base - self._base]
        self._base = base
        self._index = {key: at for key, at in self._index.items() if at >= base}
        self._follows = {end: to for end, to in self._follows.items() if end >= base and to[0] >= base}
        row = bisect_right(self._ats, base) - 1
        if row >= 0:
            if base < self._end:
                self._literals[row] += base - self._ats[row]
                self._ats[row] = base
                del self._ats[:row], self._literals[:row]
            else:
                self._ats, self._literals = [], []


class _Search:
    """One block's search: copies where the text is known, text where it is new, other bytes between the regions."""

    def __init__(self, dedupe: Dedupe, stream: bytes) -> None:
        self._dedupe = dedupe
        self._stream = stream
        self._start = dedupe.literal
        self._texts: list[bytes] = []
        self._others: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        self._sequences: list[Sequence] = []
        self._copies = False
        self._put = 0
        self._other = self._text = self._size = 0

    def region(self, region: Region) -> None:
        """Look at one payload."""
        dedupe, stream, last = self._dedupe, self._stream, region.end
        self._skip(region.start)
        shift = region.raw - region.start
        at = new = region.start
        source = -1
        while True:
            match = dedupe.after(source, stream, at, last) if source >= 0 and at == new else None
            if match is None:
                found = _ANCHOR.search(stream, at, last - _KEY)
                if found is None:
                    break
                at = found.start()
                match = dedupe.match(stream, at, new, last)
            if match is None:
                at += 1 + min((at - new) >> _SPARSER, _MAX_SKIP)
                continue
            start, end, place = match
            if source >= 0 and start == new:
                dedupe.follow(source, place, end - start)
            elif start > new:
                start += _OVERLAP
                place += _OVERLAP
            self._keep(new, start, shift)
            self._copy(place, start, end, shift)
            at = new = end
            source = place + end - start
        self._keep(new, last, shift)

    def finish(self) -> Found | None:
        """The block; None without a copy."""
        if not self._copies:
            self._dedupe.relocate(self._places)
            return None
        self._skip(len(self._stream))
        if self._other or self._text:
            self._sequences.append(Sequence(self._other, self._text, 0, 0))
        text, other = b"".join(self._texts), b"".join(self._others)
        return Found(Shape(self._start, len(text), len(other), len(self._stream)), text, other, self._sequences)

    def _skip(self, end: int) -> None:
        """Bytes up to `end` that are not looked at."""
        if end > self._put:
            if self._text:
                self._sequences.append(Sequence(self._other, self._text, 0, 0))
                self._other = self._text = 0
            self._others.append(self._stream[self._put : end])
            self._other += end - self._put
            self._put = end

    def _keep(self, start: int, end: int, shift: int) -> None:
        """New text."""
        if end > start:
            self._dedupe.keep(self._stream, start, end, self._start + self._size)
            self._texts.append(self._stream[start:end])
            self._places.append((self._start + start + shift, end - start))
            self._text += end - start
            self._size += end - start
            self._put = end

    def _copy(self, place: int, start: int, end: int, shift: int) -> None:
        """Known text."""
        for literal, length in self._dedupe.stretches(place, end - start):
            if length < MIN_COPY or literal < self._start - WINDOW:
                self._keep(start, start + length, shift)
            else:
                self._sequences.append(Sequence(self._other, self._text, length, literal))
                self._other = self._text = 0
                self._copies = True
                self._put = start + length
            start += length


def _forward(stream: bytes, at: int, last: int, text: bytearray, found: int, guess: int = _STEP) -> int:
    """How many bytes from stream[at] and text[found] on are the same, before `last`. `guess` is tried first."""
    room = min(last - at, len(text) - found)
    length, step = 0, min(guess, room)
    while step > _STEP or length + step < room:
        if text.startswith(stream[at + length : at + length + step], found + length):
            length += step
            step = min(step * 2, _MAX_STEP, room - length) if step != guess else min(_STEP, room - length)
        elif step > _STEP:
            room = length + step
            step >>= 2
        else:
            break
    mine = stream[at + length : at + length + step]
    return length + _same(mine, text[found + length : found + length + step], "little")


def _back(stream: bytes, at: int, first: int, text: bytearray, found: int) -> int:
    """How many bytes before stream[at] and text[found] are the same, not before `first`."""
    room = min(at - first, found)
    length, step = 0, min(_STEP, room)
    while step > _STEP or length + step < room:
        if text.startswith(stream[at - length - step : at - length], found - length - step):
            length += step
            step = min(step * 2, _MAX_STEP, room - length)
        elif step > _STEP:
            room = length + step
            step >>= 2
        else:
            break
    mine = stream[at - length - step : at - length]
    return length + _same(mine, text[found - length - step : found - length], "big")


def _same(one: bytes, other: bytearray, order: Literal["little", "big"]) -> int:
    """How many bytes two equally long stretches share at their beginning (little) or their end (big)."""
    differing = int.from_bytes(one, order) ^ int.from_bytes(other, order)
    return ((differing & -differing).bit_length() - 1) >> 3 if differing else len(one)
