"""Reading many sealed records one after another, as the index does: each frame once, each block decompressed once.

Neighbours in the log lie close together in a few parts, in the order of the log. So the parts stay open, and the
blocks last read stay decompressed, for as long as one `BulkReader` lives: make one per batch. What it gives out has
passed the block's digest and the frame's, as with `narrows.record.reader`.
"""

from __future__ import annotations

import struct
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from narrows.core.errors import ProofError
from narrows.record.log.frame import HEADER_SIZE, MAGIC, Frame, check_payload, decode
from narrows.record.log.leaf import Place, Span
from narrows.record.log.part import Block, decode_table
from narrows.record.partfile import PartFile, growing_start, part_path, table_start
from narrows.record.reader import Assembly

OPEN_PARTS = 32
"""Parts that are open at once."""
HELD_RAW = 16 << 20
"""Decompressed bytes that are held, and the newest block whatever its size (at most 64 MiB)."""

_LENGTH = struct.Struct(">4sI")
_NOWHERE = 1 << 62


class _Part:
    """An open part and where its blocks are, as far as they were met."""

    __slots__ = ("_blocks", "_file", "_places", "_table", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = PartFile.open(path)
        self._blocks: dict[int, Block] = {}
        self._places: list[tuple[int, int]] = []
        self._table: list[tuple[int, int, int, int]] | None = None
        try:
            found = self._file.table()
            if found is not None:
                self._table = decode_table(found[1])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.__exit__()

    def read(self, block: Block) -> bytes:
        """The raw bytes of a block. Raises ProofError."""
        try:
            return self._file.read(block)
        except ProofError as bad:
            raise ProofError(bad.what, f"{self.path}: {bad.why}") from bad

    def blocks(self, span: Span) -> Iterator[Block]:
        """The blocks that hold a stretch of raw bytes. Raises ProofError."""
        offset = self._start(span.offset)
        end = span.offset + span.length
        while (block := self._block(offset)) is not None and block.at < end:
            if block.at + block.raw > span.offset:
                yield block
            offset = block.end

    def _start(self, at: int) -> int:
        first = bisect_right(self._places, (at, _NOWHERE)) - 1
        if first >= 0:
            offset = self._places[first][1]
            block = self._blocks[offset]
            if block.at + block.raw >= at:  # the one that holds it, or the one before that
                return offset
        if self._table is not None:
            return table_start(self._table, at)
        return growing_start(self._file, at)

    def _block(self, offset: int) -> Block | None:
        block = self._blocks.get(offset)
        if block is None:
            block = self._file.block_at(offset)
            if block is not None:
                self._blocks[offset] = block
                insort(self._places, (block.at, offset))
        return block


class BulkReader:
    """Reads records from a data directory. Use as a context manager; not thread-safe, and not for long.

    Raises ProofError for what is damaged, NotFound for what is gone.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._parts: OrderedDict[tuple[bytes, int], _Part] = OrderedDict()
        self._raw: OrderedDict[bytes, bytes] = OrderedDict()
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts.values():
            part.close()
        self._parts.clear()
        self._raw.clear()

    def read(self, place: Place, max_body: int | None = None) -> Assembly:
        """One record whole, keeping at most `max_body` bytes of each direction (None: all of them)."""
        assembly = Assembly(place, max_body)
        for span in place.spans:
            for frame in self._frames(place.session, span, place.exchange):
                check_payload(frame)
                assembly.add(frame)
        return assembly

    def _frames(self, session: bytes, span: Span, exchange: bytes) -> Iterator[Frame]:
        """The frames of one exchange in a span. Others' frames are stepped over by their lengths alone."""
        key = (session, span.part)
        part = self._part(key)
        at, end = span.offset, span.offset + span.length
        for block in part.blocks(span):
            raw = self._block(part, block)
            start, stop = max(span.offset - block.at, 0), min(end - block.at, block.raw)
            while start < stop:
                if raw[start + 44 : start + 60] == exchange:
                    frame = _decoded(raw, start, part.path, block.at)
                    yield frame
                    start += frame.size
                else:
                    start += _length(raw, start, part.path, block.at)
            at = block.at + start
        if at != end:
            raise ProofError("A part is shorter than the log says", f"{part.path}: {at} of {end} raw bytes")

    def _part(self, key: tuple[bytes, int]) -> _Part:
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part(part_path(self._data, *key))
            if len(self._parts) > OPEN_PARTS:
                self._parts.popitem(last=False)[1].close()
        else:
            self._parts.move_to_end(key)
        return part

    def _block(self, part: _Part, block: Block) -> bytes:
        # By what it holds, not by where it is: a part that becomes final meanwhile has other blocks in its file.
        raw = self._raw.get(block.sha256)
        if raw is not None:
            self._raw.move_to_end(block.sha256)
            return raw
        raw = self._raw[block.sha256] = part.read(block)
        self._held += len(raw)
        while self._held > HELD_RAW and len(self._raw) > 1:
            self._held -= len(self._raw.popitem(last=False)[1])
        return raw


def _decoded(raw: bytes, start: int, path: Path, at: int) -> Frame:
    try:
        return decode(raw, start)
    except ProofError as bad:
        raise _damaged(path, at + start) from bad


def _length(raw: bytes, start: int, path: Path, at: int) -> int:
    if len(raw) - start < HEADER_SIZE:
        raise _damaged(path, at + start)
    magic, length = _LENGTH.unpack_from(raw, start)
    if magic != MAGIC or not HEADER_SIZE <= length <= len(raw) - start:
        raise _damaged(path, at + start)
    return int(length)


def _damaged(path: Path, offset: int) -> ProofError:
    return ProofError("A frame in a part is damaged", f"{path}, raw offset {offset}")
