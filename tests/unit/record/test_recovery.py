"""Recovery: torn tails, unfinished exchanges, damage, and that it happens once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.recording import CLOCK, EXCHANGE, SESSION, put, read_all, recording, run

from narrows.core import ids
from narrows.record.log.frame import Chain, Flag, Frame, Kind
from narrows.record.recovery import Report, SegmentReader, recover, recover_into
from narrows.record.segment import SegmentFile, file_name, segment_meta, try_lock


class Dead:
    """A writer that died: its directory, and the frames it wrote."""

    def __init__(self, wal: Path, name: str = "dead") -> None:
        self.directory = wal / name
        self.directory.mkdir(parents=True)
        self.chain = Chain()
        self.file: SegmentFile
        self._number = -1
        self.next_segment()

    def next_segment(self) -> None:
        if self._number >= 0:
            self.file.finish()
        self._number += 1
        meta = segment_meta(self.directory.name, self._number, "0", 1, self.chain.running)
        first = self.chain.encode_whole(Kind.SEGMENT, 0, ids.NIL, ids.NIL, 1, 1, meta, b"")
        self.file = SegmentFile(self.directory / file_name(self._number), first)
        self.path = self.directory / file_name(self._number)

    def add(self, data: bytes, flags: int = Flag.FINAL, kind: int = Kind.RESPONSE, exchange: bytes = EXCHANGE) -> bytes:
        raw = self.chain.encode_whole(kind, flags, SESSION, exchange, 1, 1, b"", data)
        self.file.write([raw])
        return raw

    def cut(self, size: int) -> None:
        """End the file at `size`, with reserved zeros behind, as a crash leaves it."""
        os.truncate(self.path, size)
        os.truncate(self.path, size + 4096)


def recovered(wal: Path) -> tuple[Report, list[dict[str, object]]]:
    """Recover and mark; the report and the meta of the GAP frames."""
    metas: list[dict[str, object]] = []

    def append(kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes) -> int:
        assert (kind, session, exchange, data) == (Kind.GAP, ids.NIL, ids.NIL, b"")
        metas.append(json.loads(meta))
        return len(metas)

    report = recover(wal, CLOCK, append)
    report.mark()
    return report, metas


def frames_of(writer: Path) -> list[Frame]:
    return read_all(writer)


def test_a_writer_that_closed_leaves_nothing_to_say(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"x")
    dead.add(b"", 0, Kind.WRITER_CLOSE)
    dead.file.finish()
    report, gaps = recovered(tmp_path)
    assert gaps == []
    assert report.writers[0].closed
    assert report.last_seq == -1


def test_a_writer_that_was_killed_between_frames_lost_nothing_and_that_is_a_record(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"x")
    size = dead.file.size
    report, gaps = recovered(tmp_path)
    (gap,) = gaps
    assert (gap["why"], gap["bytes"], gap["after_seq"]) == ("stopped without closing its chain", 0, 1)
    assert (report.writers[0].closed, report.writers[0].after_seq) == (False, 1)
    assert dead.path.stat().st_size == size


def test_a_tail_torn_at_any_byte_gives_exactly_the_earlier_frames(tmp_path: Path) -> None:
    for cut in range(1, 140 + 20):
        dead = Dead(tmp_path / str(cut))
        dead.add(b"kept")
        start = dead.file.size
        whole = dead.add(b"t" * 20)
        assert len(whole) == 160
        dead.cut(start + cut)
        report, gaps = recovered(tmp_path / str(cut))
        assert [f.data for f in frames_of(dead.directory)] == [b"", b"kept"]
        assert dead.path.stat().st_size == start
        # The zeros a frame may end in cannot be told from reserved space.
        torn = (dead.directory / "torn-2.bin").read_bytes()
        assert torn == whole[:cut].rstrip(b"\0")
        (gap,) = gaps
        assert (gap["writer"], gap["segment"], gap["after_seq"], gap["why"]) == ("dead", 0, 1, "torn tail")
        assert gap["bytes"] == len(torn)
        assert gap["running"] == report.writers[0].running == frames_of(dead.directory)[-1].running.hex()


def test_recovering_twice_adds_nothing(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"open", Flag.BEGIN, Kind.REQUEST)
    dead.cut(dead.file.size - 3)
    assert recovered(tmp_path)[1]
    before = {p.name: p.read_bytes() for p in dead.directory.iterdir()}
    report, gaps = recovered(tmp_path)
    assert (report.writers, gaps) == ([], [])
    assert {p.name: p.read_bytes() for p in dead.directory.iterdir()} == before


def test_a_recovery_that_dies_before_its_mark_says_the_same_again(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"x")
    dead.cut(dead.file.size - 3)
    first: list[bytes] = []
    second: list[bytes] = []
    recover(tmp_path, CLOCK, lambda *frame: first.append(frame[4]) or 1)  # type: ignore[func-returns-value]
    recover(tmp_path, CLOCK, lambda *frame: second.append(frame[4]) or 1)  # type: ignore[func-returns-value]
    assert first
    assert first == second


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    lock = try_lock(dead.directory)
    assert lock is not None
    assert recovered(tmp_path)[0].writers == []
    os.close(lock)
    assert len(recovered(tmp_path)[0].writers) == 1


def test_exchanges_without_a_last_frame_are_named_in_batches(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    open_ones = []
    for n in range(1203):
        exchange = n.to_bytes(16, "big")
        dead.add(b"q", Flag.BEGIN | Flag.END, Kind.REQUEST, exchange)
        if n % 2:
            dead.add(b"a", Flag.END | Flag.FINAL, Kind.RESPONSE, exchange)
        else:
            open_ones.append(ids.text(exchange))
    _, gaps = recovered(tmp_path)
    assert all(gap["why"] == "unfinished" for gap in gaps)
    named = [one for gap in gaps for one in gap["unfinished"]]  # type: ignore[attr-defined]
    assert [one["exchange"] for one in named] == open_ones
    assert {one["session"] for one in named} == {ids.text(SESSION)}
    assert len(gaps) == 2


@pytest.mark.parametrize("change", ["edited", "removed", "swapped", "zeroed", "stretched"])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_wrong_frame_in_the_middle_is_damage_and_is_named(tmp_path: Path, change: str, rotated: bool) -> None:
    dead = Dead(tmp_path)
    place = dead.file.size
    raws = [dead.add(bytes([n]) * 30) for n in range(1, 5)]
    path, end = dead.path, dead.file.size
    if rotated:
        dead.next_segment()
        dead.add(b"later")
    dead.file.abandon()
    first, second, third, fourth = raws
    broken = {
        "edited": [first, second[:-1] + b"!", third, fourth],
        "removed": [first, third, fourth],
        "swapped": [first, third, second, fourth],
        "zeroed": [first, bytes(len(second)), third, fourth],
        "stretched": [first, second[:4] + b"\x01\0\0\0" + second[8:], third, fourth],
    }[change]
    content = path.read_bytes()
    path.write_bytes(content[:place] + b"".join(broken) + content[end:])
    before = path.read_bytes()
    report, (gap,) = recovered(tmp_path)
    assert path.read_bytes() == before
    assert not list(dead.directory.glob("torn-*"))
    assert str(gap["why"]).startswith("damaged or changed")
    assert gap["after_seq"] == 1
    assert f"offset {place + len(first)}" in report.writers[0].damage
    assert str(path) in report.writers[0].damage
    assert json.loads((dead.directory / "recovered.json").read_text())["damage"] == report.writers[0].damage


def test_a_frame_forged_with_a_right_checksum_breaks_the_chain(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"one")
    place, before = dead.file.size, dead.chain.running
    dead.add(b"two")
    dead.add(b"three")
    forged = Chain(2, before).encode_whole(Kind.RESPONSE, Flag.FINAL, SESSION, EXCHANGE, 1, 1, b"", b"TWO")
    with dead.path.open("r+b") as file:
        file.seek(place)
        file.write(forged)
    report, (gap,) = recovered(tmp_path)
    assert "running hash is broken" in report.writers[0].damage
    assert gap["after_seq"] == 2


def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.next_segment()
    dead.next_segment()
    (dead.directory / file_name(1)).unlink()
    report, gaps = recovered(tmp_path)
    assert "00000001.seg" in report.writers[0].damage
    assert len(gaps) == 1


def test_a_segment_that_was_created_and_never_written_is_an_end(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"x")
    dead.file.finish()
    (dead.directory / file_name(1)).write_bytes(bytes(4096))
    report, gaps = recovered(tmp_path)
    assert [gap["why"] for gap in gaps] == ["stopped without closing its chain"]
    assert (report.writers[0].damage, report.writers[0].after_seq) == ("", 1)


def test_a_directory_without_segments_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / ".half-made").mkdir()
    report, gaps = recovered(tmp_path)
    assert gaps == []
    assert [found.writer for found in report.writers] == ["dead"]
    assert recovered(tmp_path / "absent")[0].writers == []


def test_the_gaps_are_durable_before_a_writer_is_marked(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"q", Flag.BEGIN, Kind.REQUEST)
    dead.cut(dead.file.size)

    async def body() -> None:
        async with recording(tmp_path, "live") as recorder:
            put(recorder)
            report = await recover_into(tmp_path, CLOCK, recorder)
            assert [found.writer for found in report.writers] == ["dead"]
            (gap,) = [f for f in read_all(tmp_path / "live") if f.kind == Kind.GAP]
            assert gap.seq == report.last_seq
            assert json.loads(gap.meta)["unfinished"][0]["exchange"] == ids.text(EXCHANGE)
            assert (dead.directory / "recovered.json").exists()
            assert (await recover_into(tmp_path, CLOCK, recorder)).writers == []

    run(body)


def test_a_readers_position_outlives_recovery(tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    dead.add(b"x")
    with SegmentReader(dead.directory) as reader:
        assert len(reader.read()) == 2
        position = reader.position()
        dead.add(b"torn")
        dead.cut(dead.file.size - 1)
        recovered(tmp_path)
        assert reader.read() == []
    with SegmentReader(dead.directory, position) as reader:
        assert reader.read() == []
