"""A session's part as a file: where its blocks are, and their bytes, each checked against what its head names.

What neighbouring reads would do again is held for all of them (`CACHE`), within bounds.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import zstandard

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import text
from narrows.record.log.leaf import Span
from narrows.record.log.part import (
    TABLE_TAIL,
    Block,
    decode_body,
    decode_head,
    decode_literal_table,
    decode_literals,
    decode_table,
    head_size,
    literals_size,
    table_size,
)

SESSIONS = "objects/sessions"
_MAX_TABLE = 256 << 20
_CACHED_PARTS = 64
_CACHED_RAW = 8 << 20
LITERALS = 16 << 20
"""Bytes of earlier blocks' literals that are held for the blocks that name them."""


def part_name(session: bytes, part: int, *, final: bool) -> str:
    """A part's file name below the data directory."""
    return f"{SESSIONS}/{text(session)}/{part:05d}.{'part' if final else 'open'}"


def part_path(data: Path, session: bytes, part: int) -> Path:
    """The file of a part: final if there is a final one, else the growing one. Raises NotFound."""
    for final in (True, False, True):  # again: it may have become final between the two looks
        path = data / part_name(session, part, final=final)
        if path.is_file():
            return path
    raise NotFound("The recording's bytes are not there", f"session {text(session)}, part {part}")


@dataclass(slots=True)
class PartFile:
    """An open part. Use as a context manager; not thread-safe."""

    path: Path
    _file: BinaryIO
    _zstd: zstandard.ZstdDecompressor
    _by_heads: bool = False
    _heads: _Heads | None = None
    _known: dict[int, Block] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, *, by_heads: bool = False) -> PartFile:
        """Open a part. `by_heads`: believe no table, find earlier blocks by their heads alone. Raises NotFound."""
        try:
            return cls(path, path.open("rb"), zstandard.ZstdDecompressor(), by_heads)
        except FileNotFoundError as missing:
            raise NotFound("The recording's bytes are not there", str(path)) from missing

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def block_at(self, offset: int) -> Block | None:
        """The block whose head is at file `offset`; None at the table or the file's end. Raises ProofError."""
        self._file.seek(offset)
        prefix = self._file.read(8)
        if not prefix:
            return None
        size = head_size(prefix, offset)
        if not size:
            return None
        head = prefix + self._file.read(size - 8)
        if len(head) < size:
            raise ProofError("A part is damaged", f"it ends inside a block at offset {offset}")
        return decode_head(head, offset)

    def read(self, block: Block) -> bytes:
        """The raw bytes of a block. Raises ProofError."""
        self._file.seek(block.body)
        body = self._file.read(block.zstd)
        return decode_body(body, block, self._zstd, lambda wanted: self._earlier(block, wanted))

    def literals(self, block: Block) -> bytes:
        """The literals of a block, not proved by themselves. Raises ProofError."""
        self._file.seek(block.body)
        return decode_literals(self._file.read(literals_size(block)), block, self._zstd)

    def _earlier(self, block: Block, wanted: list[tuple[int, int]]) -> list[bytes]:
        """Stretches (offset, length) of the literals of blocks before this one. Raises ProofError."""
        heads = self._heads_before(block)
        found = [b""] * len(wanted)
        row, literals = -1, b""
        # In the order of the part, so that each block is unpacked once, whatever is cached.
        for number in sorted(range(len(wanted)), key=wanted.__getitem__):
            offset, length = wanted[number]
            holder = bisect_right(heads.literals, offset) - 1
            if holder < 0 or heads.offsets[holder] >= block.offset:
                raise ProofError("A part is damaged", "a block has a copy of bytes that are not before it")
            if holder != row:
                row, literals = holder, CACHE.literals(self, self._known_at(heads.offsets[holder]))
            start = offset - heads.literals[holder]
            found[number] = literals[start : start + length]
        return found

    def _known_at(self, offset: int) -> Block:
        """The block at file `offset`, whose head is read once. Raises ProofError."""
        block = self._known.get(offset)
        if block is None:
            block = self.block_at(offset)
            if block is None:
                raise ProofError("A part is damaged", f"no block begins at offset {offset}")
            self._known[offset] = block
        return block

    def _heads_before(self, block: Block) -> _Heads:
        """Where the literals of all blocks before this one are. Raises ProofError."""
        if self._heads is None and not self._by_heads:
            table = self.table()
            if table is None:
                return CACHE.heads(self, block.at)
            rows = [row for row in decode_literal_table(table[1]) if row[1]]
            self._heads = _Heads([], [row[2] for row in rows], [row[0] for row in rows])
        elif self._by_heads:
            self._heads = (self._heads or _Heads()).walked(self, block.at)
        assert self._heads is not None
        return self._heads

    def blocks(self) -> Iterator[Block]:
        """All blocks from the beginning, heads only."""
        offset = 0
        while (block := self.block_at(offset)) is not None:
            yield block
            offset = block.end

    def table(self) -> tuple[int, bytes] | None:
        """Where the table is and its bytes; None for a part without one (it still grows). Raises ProofError."""
        end = self._file.seek(0, 2)
        self._file.seek(max(0, end - TABLE_TAIL))
        size = table_size(self._file.read(TABLE_TAIL))
        if not size:
            return None
        if size > min(end, _MAX_TABLE):
            raise ProofError("A part is damaged", "its table of blocks is cut")
        self._file.seek(end - size)
        return end - size, self._file.read(size)

    def cut_in_head(self, offset: int) -> bool:
        """Whether the file ends inside the head that begins at `offset`."""
        self._file.seek(offset)
        prefix = self._file.read(8)
        return len(prefix) < 8 or offset + head_size(prefix, offset) > self.length

    @property
    def identity(self) -> tuple[str, int]:
        """The file, also when another takes its name."""
        return str(self.path), os.fstat(self._file.fileno()).st_ino

    @property
    def length(self) -> int:
        """The file's length in bytes."""
        return self._file.seek(0, 2)

    def blocks_of(self, span: Span) -> Iterator[Block]:
        """The blocks that hold a stretch of raw bytes, found through the table where there is one."""
        found = self.table()
        at = span.offset
        offset = CACHE.start(self, at) if found is None else table_start(decode_table(found[1]), at)
        end = span.offset + span.length
        while (block := self.block_at(offset)) is not None and block.at < end:
            if block.at + block.raw > span.offset:
                yield block
            offset = block.end


def table_start(rows: list[tuple[int, int, int, int]], at: int) -> int:
    """File offset of the block that holds raw offset `at`, by a table's rows; 0 where none does."""
    first = bisect_right([row[2] for row in rows], at) - 1
    return rows[first][0] if first >= 0 else 0


def growing_start(part: PartFile, at: int) -> int:
    """The same for a part without a table; its heads are read once for all who ask. Raises ProofError."""
    return CACHE.start(part, at)


@dataclass(frozen=True, slots=True)
class _Heads:
    """Where blocks are, from a part's beginning on: raw offset, file offset, offset of their literals. Not changed."""

    ats: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    literals: list[int] = field(default_factory=list)

    def walked(self, part: PartFile, at: int) -> _Heads:
        """With all blocks up to the one that holds raw offset `at`, or to the last. Raises ProofError."""
        if self.ats and self.ats[-1] >= at:
            return self
        ats, offsets, literals = self.ats[:-1], self.offsets[:-1], self.literals[:-1]
        offset = self.offsets[-1] if self.offsets else 0
        literal = self.literals[-1] if self.literals else 0
        while (block := part.block_at(offset)) is not None:
            ats.append(block.at)
            offsets.append(offset)
            literals.append(literal)
            if block.at + block.raw > at:
                break
            offset = block.end
            literal += block.new
        return _Heads(ats, offsets, literals)

    def hold(self, part: PartFile) -> bool:
        """Whether the part still has the last of these blocks where it was."""
        try:
            block = part.block_at(self.offsets[-1])
        except ProofError:
            return False
        return block is not None and block.at == self.ats[-1]


class _Cache:
    """What neighbouring reads would do again: where a growing part's blocks are, the last block's bytes, and the
    literals of blocks that others name.

    A cache of contents that were checked when they were read; shared by all threads of the process, bounded.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._heads: OrderedDict[tuple[str, int], _Heads] = OrderedDict()
        self._raw: tuple[object, bytes] = (None, b"")
        self._literals: OrderedDict[object, bytes] = OrderedDict()
        self._held = 0

    def clear(self) -> None:
        """Hold nothing."""
        with self._lock:
            self._heads.clear()
            self._literals.clear()
            self._raw, self._held = (None, b""), 0

    def start(self, part: PartFile, at: int) -> int:
        """File offset of the block that holds raw offset `at` of a part without a table, or of one before it."""
        heads = self.heads(part, at)
        first = bisect_right(heads.ats, at) - 1
        return heads.offsets[first] if first >= 0 else 0

    def heads(self, part: PartFile, at: int) -> _Heads:
        """The blocks of a part without a table, at least up to the one that holds raw offset `at`."""
        key = part.identity
        with self._lock:
            heads = self._heads.pop(key, _Heads())
        if heads.ats and not heads.hold(part):
            heads = _Heads()  # cut back since: a sealer was killed
        heads = heads.walked(part, at)
        with self._lock:
            self._heads[key] = heads
            while len(self._heads) > _CACHED_PARTS:
                self._heads.popitem(last=False)
        return heads

    def literals(self, part: PartFile, block: Block) -> bytes:
        """The literals of a block. Raises ProofError."""
        key = (part.identity, block.offset, block.crc, block.at)
        with self._lock:
            held = self._literals.get(key)
            if held is not None:
                self._literals.move_to_end(key)
                return held
        found = part.literals(block)
        if len(found) > LITERALS // 2:
            return found
        with self._lock:
            if key not in self._literals:
                self._literals[key] = found
                self._held += len(found)
            while self._held > LITERALS:
                self._held -= len(self._literals.popitem(last=False)[1])
        return found

    def read(self, part: PartFile, block: Block) -> bytes:
        """The raw bytes of a block. Raises ProofError."""
        key = (part.identity, block)
        with self._lock:
            held, raw = self._raw
        if held == key:
            return raw
        raw = part.read(block)
        if block.raw <= _CACHED_RAW:
            with self._lock:
                self._raw = (key, raw)
        return raw


CACHE = _Cache()


def forget() -> None:
    """Drop all that this process has cached of parts."""
    CACHE.clear()
