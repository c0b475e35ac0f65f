"""The sealer killed at every single change that it makes on disk, then started again.

Whatever the moment: no leaf twice, none lost, no checkpoint that was published is ever contradicted, everything
verifies, and the leaves are those of a run that was never disturbed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.sealed_world import KEY, NIL, World, Writer, ident

from narrows.core.errors import RecorderFailed
from narrows.record.log.merkle import CompactRange, leaf_hash
from narrows.record.log.note import open_checkpoint
from narrows.record.log.tiles import WIDTH
from narrows.record.reader import read_exchange
from narrows.record.sealed import iter_sealed
from narrows.record.sealer import Sealer
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import read_entries


class Crash(Exception):
    """The process dies here."""


class CrashingStore(FileStore):
    """Dies at its n-th change; `torn` does half of it first."""

    def __init__(self, root: Path, at: int, *, torn: bool) -> None:
        super().__init__(root)
        self.left = at
        self.torn = torn

    def _count(self) -> bool:
        self.left -= 1
        if self.left == 0 and not self.torn:
            raise Crash
        return self.left == 0

    def _replace(self, name: str, pieces: Iterable[bytes]) -> None:
        if self._count():
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = b"".join(pieces)
            path.with_name(path.name + ".tmp").write_bytes(whole[: len(whole) // 2])
            raise Crash
        super()._replace(name, pieces)

    def append(self, name: str, at: int, data: bytes) -> None:
        if self._count():
            super().append(name, at, data[: len(data) // 2])
            raise Crash
        super().append(name, at, data)

    def rename(self, name: str, to: str) -> None:
        if self._count():
            super().rename(name, to)
            raise Crash
        super().rename(name, to)

    def truncate(self, name: str, size: int) -> None:
        if self._count():
            raise Crash
        super().truncate(name, size)

    def remove(self, name: str) -> None:
        if self._count():
            super().remove(name)
            raise Crash
        super().remove(name)


def phases(world: World) -> Iterator[None]:
    """A recording's life in pieces; the sealer steps after each."""
    one, two = ident(1), ident(2)
    first = world.writer("w1")
    first.open(one)
    long = ident(50)
    first.begin(one, long)
    for number in range(130):
        first.call(one, number)
    yield
    second: Writer = world.writer("w2")
    second.open(two)
    for number in range(140):
        second.call(two, 1000 + number)
    first.roll()
    first.more(one, long, b"x" * 5000)
    yield
    first.finish(one, long)
    first.close_session(one)
    first.frame(9, 0, NIL, NIL, b'{"action":"connection.add"}')
    world.clock.pass_(1)
    yield
    second.call(two, 5000)
    first.stop()
    world.clock.pass_(1200)
    yield
    second.begin(two, ident(60))
    second.stop()
    yield


def entries(world: World) -> list[bytes]:
    """Every leaf that the checkpoint covers, in order."""
    size = int(world.checkpoint().split("\n")[1])
    store = FileStore(world.data)
    found: list[bytes] = []
    for bundle in range((size + WIDTH - 1) // WIDTH):
        found += read_entries(store, bundle, min(WIDTH, size - bundle * WIDTH))
    return found


def leaves(world: World) -> list[bytes]:
    """Every leaf, heads left out, sorted."""
    return sorted(entry for entry in entries(world) if b'"type":"heads"' not in entry)


def assert_all_lead_here(world: World, seen: list[str]) -> None:
    """Every checkpoint that was ever published is a beginning of the log as it is now."""
    published = {point.size: point.root for point in (open_checkpoint(note, [KEY.verifier]) for note in seen)}
    tree = CompactRange()
    for entry in entries(world):
        tree.append(leaf_hash(entry))
        assert published.pop(tree.size, tree.root()) == tree.root()
    assert not published


def run(data: Path, at: int = 0, *, torn: bool = False) -> tuple[World, bool, list[str]]:
    """Run all phases; die at change `at` and go on with a new sealer. Says whether it died, and all checkpoints."""
    world = World(data)
    store: FileStore = CrashingStore(data, at, torn=torn)
    died = False
    seen: list[str] = []
    sealer: Sealer | None = None

    def attempt(what: str) -> None:
        nonlocal sealer, store, died
        while True:
            try:
                if sealer is None:
                    sealer = world.sealer(store)
                if what == "drain":
                    sealer.drain()
                else:
                    sealer.step()
            except Crash:
                died = True
                if sealer is not None:
                    sealer.close()
                sealer, store = None, FileStore(data)
                continue
            finally:
                if (data / "log/checkpoint").exists() and (not seen or seen[-1] != world.checkpoint()):
                    seen.append(world.checkpoint())
            return

    for _ in phases(world):
        attempt("step")
    attempt("drain")
    attempt("drain")
    assert sealer is not None
    sealer.close()
    return world, died, seen


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    world, died, _ = run(tmp_path_factory.mktemp("undisturbed"))
    assert not died
    assert world.verify().ok
    return leaves(world)


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["before", "torn"])
def test_killed_at_every_change(
    tmp_path: Path, undisturbed: list[bytes], torn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # a process dies here, not the machine
    assert len(undisturbed) > WIDTH
    at, died = 0, True
    while died:
        at += 1
        world, died, seen = run(tmp_path / str(at), at, torn=torn)
        assert leaves(world) == undisturbed, f"change {at}"
        assert_all_lead_here(world, seen)
        report = world.verify(since=seen[0])
        assert report.ok, (at, [str(finding) for finding in report.findings])
        assert (report.open_exchanges, report.unsealed_frames) == (0, 0)
        assert not list((world.data / "wal").glob("*/*.seg")), f"change {at}"
        # An index that took what it was given and catches up from its own cursor has every record once.
        taken = {sealed.leaf_index: sealed for sealed in world.sealed}
        assert len(taken) == len(world.sealed)
        assert all(taken.get(sealed.leaf_index, sealed) == sealed for sealed in iter_sealed(world.data))
        last = max(taken, default=-1)
        assert read_exchange(world.data, taken[last].place) is not None
    assert at > 40


def test_a_failing_disk_stops_sealing_until_it_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.call(ident(1), 1)
    with world.sealer() as sealer:

        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(RecorderFailed, match="No space left"):
                sealer.step()
        with pytest.raises(RecorderFailed, match="Sealing has stopped"):
            sealer.step()
    assert not world.sealed
    world.seal()
    assert [sealed.type for sealed in world.sealed] == ["writer_open", "exchange"]
    assert world.verify().ok
