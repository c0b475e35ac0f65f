"""The sealer's side of the write-ahead segments: which writers there are, reading them on, removing what is sealed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from narrows.core.errors import ProofError
from narrows.record.log.frame import Frame
from narrows.record.sealing_state import WriterState
from narrows.record.segment import file_name, numbers
from narrows.record.store.files import FileStore
from narrows.record.tail import Position, SegmentReader

WAL = "wal"
RECOVERED = "recovered.json"
CHUNK = 1 << 20


class WalSource:
    """Readers of all writers' segments, one each, at the committed positions."""

    def __init__(self, store: FileStore, writers: dict[str, WriterState]) -> None:
        self._store = store
        self._readers: dict[str, SegmentReader] = {}
        self.writers = writers
        self.ended: set[str] = set()
        """Writers whose last read met the end of what is written."""
        self._dead_before: set[str] = set()
        """Writers that were known dead before their last read began: what it did not find does not exist."""

    def present(self) -> list[str]:
        """Writers that have segments, in the order of their names."""
        names = [name for name in self._store.list(WAL) if not name.startswith(".")]
        return [name for name in names if numbers(self._directory(name))]

    def _directory(self, name: str) -> Path:
        return self._store.path(f"{WAL}/{name}")

    def read(self, name: str, state: WriterState, budget: int) -> Iterator[list[Frame]]:
        """Frames of one writer, piece by piece, up to about `budget` bytes; `state` moves along with each piece.

        Raises ProofError where the chain cannot be followed.
        """
        self.ended.discard(name)
        # Asked before reading: one that dies and is recovered after this read met the end may have written on.
        if self.recovered(name):
            self._dead_before.add(name)
        while budget > 0:
            frames = self._piece(name, state, min(budget, CHUNK))
            if not frames:
                self.ended.add(name)
                return
            if frames[0].seq != state.seq + 1:
                raise ProofError(
                    "Frames are missing", f"writer {name} goes on at {frames[0].seq}, not at {state.seq + 1}"
                )
            state.seq, state.running = frames[-1].seq, frames[-1].running.hex()
            state.position = dict(self._readers[name].position())
            yield frames
            budget -= sum(frame.size for frame in frames)

    def _piece(self, name: str, state: WriterState, size: int) -> list[Frame]:
        """Read once, and once more from the same place where that fails: the verdict on a chain is for good, and
        a writer may just have been going on to its next segment."""
        for last in (False, True):
            reader = self._readers.get(name)
            if reader is None:
                reader = SegmentReader(self._directory(name), cast(Position | None, state.position))
                self._readers[name] = reader
            try:
                return reader.read(size)
            except ProofError:
                self.forget(name)
                if last:
                    raise
        raise AssertionError("not reached")

    def forget(self, name: str) -> None:
        """Close a writer's reader."""
        reader = self._readers.pop(name, None)
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Close all readers."""
        for name in list(self._readers):
            self.forget(name)

    def recovered(self, name: str) -> bool:
        """Whether recovery has said all there is to say of this dead writer."""
        return self._store.exists(f"{WAL}/{name}/{RECOVERED}")

    def remove_sealed(self) -> None:
        """Remove segments of which every frame is committed, oldest first.

        The last segment goes only when its writer said that it stopped, or recovery had said that it is dead
        before the read that met its end began. Segments of a broken chain stay: they are evidence.
        """
        for name, state in self.writers.items():
            if state.broken or state.position is None:
                continue
            current = int(state.position["segment"])
            last = name in self.ended and (state.closed or name in self._dead_before)
            for number in numbers(self._directory(name)):
                if number < current or (number == current and last):
                    self._store.remove(f"{WAL}/{name}/{file_name(number)}")
            if last:
                self.forget(name)
                self._dead_before.discard(name)
