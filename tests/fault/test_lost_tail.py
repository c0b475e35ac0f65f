"""Frames that vanish between the end of a crashed writer's chain and what was sealed: `verify` must miss them.

Everything else fits: the log is signed over what was left, and every leaf proves.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.sealed_world import NIL, StillClock, World, Writer, codes, ident

from narrows.core.ids import text
from narrows.record.log.frame import GENESIS, Kind
from narrows.record.recovery import recover
from narrows.record.segment import gap_meta

ONE = ident(1)


def crash(world: World, *, open_: bool = True) -> tuple[Writer, Writer]:
    """Two writers; the first has three frames that are sealed and more that are not, and dies; the second names it."""
    dead, live = world.writer("dead"), world.writer("live")
    dead.open(ONE)
    dead.call(ONE, 1)
    world.seal()
    dead.call(ONE, 2)
    if open_:
        dead.begin(ONE, ident(7))
    recovered(world, live)
    return dead, live


def recovered(world: World, into: Writer) -> None:
    """As the supervisor does it; the living writer's lock is not there to be seen, so its directory is put aside."""
    aside = into.directory.with_name(f".{into.name}")
    into.directory.rename(aside)

    def append(kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes) -> int:
        into.directory = aside
        into.frame(kind, flags, session, exchange, meta, data)
        return into.chain.seq - 1

    recover(world.data / "wal", StillClock(), append).mark()
    into.directory = aside.rename(world.data / "wal" / into.name)


def lose(writer: Writer, *, mark: bool = False) -> None:
    """Take a writer's segments away, as if all had been sealed; the mark stays unless `mark`."""
    for path in writer.directory.glob("*.seg"):
        path.unlink()
    if mark:
        shutil.rmtree(writer.directory)


def test_a_crash_without_loss_proves(tmp_path: Path) -> None:
    world = World(tmp_path)
    crash(world)
    assert world.verify().ok, "still in the segments"
    world.seal()
    world.finalise()
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]
    assert "no_end" not in {note.code for note in report.notes}


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_frames_between_the_seal_and_the_crash_are_missed(tmp_path: Path, sealed: bool, mark: bool) -> None:
    world = World(tmp_path)
    dead, _ = crash(world)
    lose(dead)
    if sealed:
        world.seal()
    if mark:
        shutil.rmtree(dead.directory)
    report = world.verify()
    (found,) = [f for f in report.findings if f.code == "lost_tail"]
    assert codes(report) == {"lost_tail"}, "the log is consistent: nothing else can find it"
    assert "writer dead" in found.what and "frames 5 to 8 " in found.what


def test_a_crash_with_nothing_under_way_is_told_by_its_gap(tmp_path: Path) -> None:
    """A crash is itself a record: without recovery's mark the GAP still names what was reached."""
    world = World(tmp_path)
    dead, _ = crash(world, open_=False)
    lose(dead)
    world.seal()
    report = world.verify()
    assert codes(report) == {"lost_tail"} and "frames 5 to 7 of writer dead" in report.findings[0].what
    shutil.rmtree(dead.directory)
    report = world.verify()
    assert codes(report) == {"lost_tail"}
    assert "no_end" not in {note.code for note in report.notes}


def test_the_mark_of_recovery_tells_where_no_gap_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.call(ONE, 1)
    world.seal()
    mark = {"writer": "w1", "after_seq": 3, "running": writer.chain.running.hex(), "closed": False}
    (writer.directory / "recovered.json").write_text(json.dumps(mark))
    world.seal()
    assert not list(writer.directory.glob("*.seg"))
    assert world.verify().ok and "no_end" not in {note.code for note in world.verify().notes}
    (writer.directory / "recovered.json").write_text(json.dumps(mark | {"after_seq": 5}))
    report = world.verify()
    assert codes(report) == {"lost_tail"} and "frames 4 to 5 of writer w1" in report.findings[0].what


def test_a_copy_without_segments_proves_with_a_note(tmp_path: Path) -> None:
    world = World(tmp_path)
    writer = world.writer()
    writer.call(ONE, 1)
    world.seal()
    assert "no_end" not in {note.code for note in world.verify().notes}
    shutil.rmtree(tmp_path / "wal")
    report = world.verify()
    assert report.ok and "no_end" in {note.code for note in report.notes}


def test_a_writer_of_which_nothing_is_left_is_missed(tmp_path: Path) -> None:
    world = World(tmp_path)
    live = world.writer("live")
    live.frame(Kind.GAP, 0, NIL, NIL, gap_meta("gone", 0, 4, bytes(32), 0, "unfinished"))
    report = world.verify()
    assert codes(report) == {"lost_tail"} and "frames 0 to 4 of writer gone" in report.findings[0].what


def test_a_chain_that_is_another_at_its_end_is_found(tmp_path: Path) -> None:
    world = World(tmp_path)
    dead, live = world.writer("dead"), world.writer("live")
    dead.call(ONE, 1)
    live.frame(Kind.GAP, 0, NIL, NIL, gap_meta("dead", 0, 3, GENESIS, 0, "unfinished"))
    world.seal()
    report = world.verify()
    assert codes(report) == {"other_end"} and "frame 3" in report.findings[0].what


@pytest.mark.parametrize(
    "meta",
    [b"", b"[]", b"{", b'{"writer":7}', b'{"writer":"w","after_seq":true}', b'{"writer":"w","after_seq":9e9}',
     b'{"writer":"w","after_seq":99999999999}', b'{"writer":"w","after_seq":5,"running":"xy"}', b"[" * 9999],
)  # fmt: skip
def test_a_gap_that_says_nothing_of_an_end_is_no_finding(tmp_path: Path, meta: bytes) -> None:
    world = World(tmp_path)
    world.writer("live").frame(Kind.GAP, 0, NIL, NIL, meta)
    world.seal()
    assert world.verify().ok


def test_what_was_erased_at_the_end_of_a_chain_is_explained(tmp_path: Path) -> None:
    world = World(tmp_path)
    _, live = crash(world)
    world.seal()
    world.finalise()
    shutil.rmtree(tmp_path / "objects/sessions" / text(ONE))
    assert {"session_deleted", "missing_frames"} <= codes(world.verify())
    live.frame(Kind.ADMIN, 0, ONE, NIL, b'{"action":"erasure"}')
    world.seal()
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]


def test_a_writer_close_that_the_log_has_counts_as_an_end(tmp_path: Path) -> None:
    """A sealer that committed to the WRITER_CLOSE and not to the chain before it."""
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.call(ONE, 1)
    world.seal()
    writer.call(ONE, 2)
    writer.stop()
    state = json.loads((tmp_path / "log/sealer.json").read_bytes())
    assert state["writers"]["w1"]["heads_seq"] == 3
    sealer = world.sealer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sealer), "_add_heads", lambda _: None)
        sealer.step(publish=True)
    sealer.close()
    assert world.verify().ok
    for name in (tmp_path / "objects/sessions").iterdir():
        if name.name == text(NIL):
            shutil.rmtree(name)
    report = world.verify()
    assert "lost_tail" in codes(report), [str(f) for f in report.findings]
    assert any("WRITER_CLOSE" in f.what for f in report.findings if f.code == "lost_tail")
