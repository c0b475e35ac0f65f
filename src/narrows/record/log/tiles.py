"""Tile arithmetic and layout of C2SP tlog-tiles (https://c2sp.org/tlog-tiles). Pure.

Tiles are 256 hashes wide (height 8). A tree's rightmost tiles are partial: `.p/<W>`. Entry bundles hold up to 256
entries, each after its length as a big-endian uint16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from narrows.core.errors import ProofError
from narrows.record.log.merkle import EMPTY_ROOT, HASH_SIZE, fold_peaks, perfect_root

WIDTH = 256
HEIGHT = 8
MAX_ENTRY = 0xFFFF
MAX_LEVEL = 63


def index_path(index: int) -> str:
    """A tile's number in path elements of three digits, all but the last after an x: 1234067 is x001/x234/067."""
    path = f"{index % 1000:03d}"
    while index >= 1000:
        index //= 1000
        path = f"x{index % 1000:03d}/{path}"
    return path


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Path of a hash tile below the log's prefix; `width` under 256 names the partial one."""
    return f"tile/{level}/{index_path(index)}" + (f".p/{width}" if width != WIDTH else "")


def entries_path(index: int, width: int = WIDTH) -> str:
    """Path of an entry bundle below the log's prefix."""
    return f"tile/entries/{index_path(index)}" + (f".p/{width}" if width != WIDTH else "")


def tile_width(level: int, index: int, size: int) -> int:
    """How many hashes tile (`level`, `index`) has in a tree of `size` leaves: 0 to 256."""
    return max(0, min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH))


def tiles_of(size: int) -> Iterator[tuple[int, int, int]]:
    """All hash tiles (level, index, width) of a tree of `size` leaves, level by level."""
    level = 0
    while size >> (HEIGHT * level):
        count = size >> (HEIGHT * level)
        for index in range((count + WIDTH - 1) // WIDTH):
            yield level, index, tile_width(level, index, size)
        level += 1


def pack_entries(entries: list[bytes]) -> bytes:
    """An entry bundle. Raises ProofError for an entry over 65,535 bytes."""
    out = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise ProofError("A leaf is too long for the log", f"{len(entry)} bytes")
        out.append(struct.pack(">H", len(entry)))
        out.append(entry)
    return b"".join(out)


def unpack_entries(bundle: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ProofError when lengths and bytes do not fit."""
    entries: list[bytes] = []
    offset, end = 0, len(bundle)
    while offset < end:
        if offset + 2 > end:
            raise ProofError("An entry bundle is damaged", f"it ends inside a length at offset {offset}")
        length = bundle[offset] << 8 | bundle[offset + 1]
        offset += 2
        if offset + length > end:
            raise ProofError("An entry bundle is damaged", f"it ends inside the entry at offset {offset}")
        entries.append(bundle[offset : offset + length])
        offset += length
    if len(entries) > WIDTH:
        raise ProofError("An entry bundle is damaged", f"it holds {len(entries)} entries")
    return entries


class TileTree:
    """A growing tree that knows its rightmost tiles, and which tiles a batch of appends made or changed."""

    __slots__ = ("_full", "_touched", "levels", "size")

    def __init__(self, size: int = 0, levels: list[list[bytes]] | None = None) -> None:
        """Continue a tree of `size` leaves whose rightmost partial tiles hold `levels` (lowest first)."""
        self.size = size
        self.levels: list[list[bytes]] = levels if levels is not None else []
        self._full: dict[tuple[int, int], bytes] = {}
        self._touched: set[int] = set()

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self.size += 1
        level = 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
            row = self.levels[level]
            row.append(leaf)
            self._touched.add(level)
            if len(row) < WIDTH:
                return
            self._full[level, (self.size >> (HEIGHT * (level + 1))) - 1] = b"".join(row)
            leaf = perfect_root(row)
            row.clear()
            level += 1

    def changed(self) -> dict[tuple[int, int, int], bytes]:
        """Tiles (level, index, width) to write since the last call: one entry a tile, however many appends."""
        tiles = {(level, index, WIDTH): data for (level, index), data in self._full.items()}
        for level in self._touched:
            row = self.levels[level]
            if row:
                tiles[level, self.size >> (HEIGHT * (level + 1)), len(row)] = b"".join(row)
        self._full = {}
        self._touched = set()
        return tiles

    def root(self) -> bytes:
        """The root of the tree now."""
        peaks: list[bytes] = []
        for row in reversed(self.levels):
            start = 0
            for bit in range(HEIGHT - 1, -1, -1):
                if len(row) & 1 << bit:
                    peaks.append(perfect_root(row[start : start + (1 << bit)]))
                    start += 1 << bit
        return fold_peaks(peaks) if peaks else EMPTY_ROOT


def tile_hashes(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile of that width. Raises ProofError when its length is another."""
    if len(data) != width * HASH_SIZE:
        raise ProofError("A tile has the wrong length", f"{len(data)} bytes for {width} hashes")
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def subtree_reader(size: int, read_tile: Callable[[int, int, int], bytes]) -> Callable[[int, int], bytes]:
    """A `get(level, index)` for the proofs of `merkle`, over `read_tile(level, index, width)` of a tree of `size`."""

    def get(level: int, index: int) -> bytes:
        tile_level, rows_up = divmod(level, HEIGHT)
        first = index << rows_up
        tile_index, column = divmod(first, WIDTH)
        width = tile_width(tile_level, tile_index, size)
        if column + (1 << rows_up) > width:
            raise ProofError("A hash is not in the tiles", f"subtree {index} of height {level}, size {size}")
        hashes = tile_hashes(read_tile(tile_level, tile_index, width), width)
        return perfect_root(hashes[column : column + (1 << rows_up)])

    return get
