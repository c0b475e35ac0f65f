"""Writing the log: leaves into entry bundles and tiles, in batches, one write a file however many leaves."""

from __future__ import annotations

from narrows.core.errors import ProofError
from narrows.record.log.merkle import leaf_hash
from narrows.record.log.tiles import (
    HEIGHT,
    MAX_ENTRY,
    WIDTH,
    TileTree,
    entries_path,
    pack_entries,
    tile_hashes,
    tile_path,
    tile_width,
)
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import LOG, places_name, read_entries, read_places, read_tile


class LogWriter:
    """The log's right edge in memory. Continues the log of `size` leaves that lies in the store."""

    def __init__(self, store: FileStore, size: int) -> None:
        """Raises NotFound or ProofError when the files of that size are not there."""
        self._store = store
        levels = []
        level = 0
        while size >> (HEIGHT * level):
            count = size >> (HEIGHT * level)
            width = count % WIDTH
            data = read_tile(store, level, count // WIDTH, width) if width else b""
            levels.append(tile_hashes(data, width))
            level += 1
        self._tree = TileTree(size, levels)
        bundle, width = divmod(size, WIDTH)
        self._entries = read_entries(store, bundle, width) if width else []
        self._places = read_places(store, bundle, width) if width else []
        self._bundles: dict[str, bytes] = {}
        self._pruned: dict[int, int] = {}

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._tree.size

    def root(self) -> bytes:
        """The root so far."""
        return self._tree.root()

    def add(self, entry: bytes, place: bytes) -> int:
        """Add a leaf and the line that says where its frames are; returns its index. Nothing is written yet."""
        if len(entry) > MAX_ENTRY:
            raise ProofError("A leaf is too long for the log", f"{len(entry)} bytes")
        index = self._tree.size
        self._tree.append(leaf_hash(entry))
        self._entries.append(entry)
        self._places.append(place)
        if len(self._entries) == WIDTH:
            self._close_bundle(index // WIDTH, WIDTH)
            self._entries, self._places = [], []
        return index

    def _close_bundle(self, bundle: int, width: int) -> None:
        self._bundles[f"{LOG}/{entries_path(bundle, width)}"] = pack_entries(self._entries)
        self._bundles[places_name(bundle)] = b"".join(line + b"\n" for line in self._places)

    def flush(self) -> None:
        """Write bundles and tiles that changed; durable on return."""
        if self._entries:
            self._close_bundle(self.size // WIDTH, len(self._entries))
        files, self._bundles = self._bundles, {}
        for (level, index, width), data in self._tree.changed().items():
            files[f"{LOG}/{tile_path(level, index, width)}"] = data
        if files:
            self._store.write_many(files)

    def prune(self, keep: set[int]) -> None:
        """Remove partial tiles and bundles at the right edge that no tree of the sizes in `keep` needs."""
        for level, count in self._edges():
            index = count // WIDTH
            self._prune_partials(level, index, {tile_width(max(level, 0), index, size) for size in keep})
            if index > self._pruned.get(level, -1):
                for full in range(max(self._pruned.get(level, 0), index - 256, 0), index):
                    self._prune_partials(level, full, set())
                self._pruned[level] = index

    def discard(self, keep: set[int]) -> None:
        """Remove what a crash left beyond the committed size: it was never part of a published tree."""
        for level, count in self._edges():
            index = count // WIDTH
            self._prune_partials(level, index, {tile_width(max(level, 0), index, size) for size in keep})
            number = index
            while self._store.exists(full := self._full(level, number)):
                self._store.remove(full)
                number += 1
            for beyond in range(index + 1, number + 1):
                self._prune_partials(level, beyond, set())

    def _edges(self) -> list[tuple[int, int]]:
        """(level, hashes at that level) with -1 for the entry bundles."""
        levels = range(len(self._tree.levels) + 2)
        return [(-1, self.size)] + [(level, self.size >> (HEIGHT * level)) for level in levels]

    def _full(self, level: int, index: int) -> str:
        return f"{LOG}/{entries_path(index) if level < 0 else tile_path(level, index)}"

    def _prune_partials(self, level: int, index: int, needed: set[int]) -> None:
        directory = f"{self._full(level, index)}.p"
        for name in self._store.list(directory):
            if not name.isdigit() or int(name) not in needed:
                self._store.remove(f"{directory}/{name}")
