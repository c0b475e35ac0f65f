"""Segment files and their incremental reader."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from tests.recording import CLOCK, EXCHANGE, SESSION

from narrows.core import ids
from narrows.core.errors import ProofError
from narrows.record.log.frame import Chain, Kind
from narrows.record.segment import (
    RESERVE,
    STEP,
    SegmentFile,
    file_name,
    numbers,
    segment_meta,
    try_lock,
    write_file,
    writer_name,
)
from narrows.record.tail import SegmentReader


def first_frame(chain: Chain, number: int) -> bytes:
    meta = segment_meta("w", number, "0", 1, chain.running)
    return chain.encode_whole(Kind.SEGMENT, 0, ids.NIL, ids.NIL, 1, 1, meta, b"")


def frame(chain: Chain, data: bytes, kind: int = Kind.REQUEST) -> bytes:
    return chain.encode_whole(kind, 0, SESSION, EXCHANGE, 1, 1, b"", data)


def open_segment(writer: Path, chain: Chain, number: int = 0) -> SegmentFile:
    return SegmentFile(writer / file_name(number), first_frame(chain, number))


def test_a_segment_is_private_reserved_ahead_and_cut_to_its_frames_at_the_end(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    path = tmp_path / "00000000.seg"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size > segment.size
    segment.write([frame(chain, b"x")])
    segment.finish()
    assert path.stat().st_size == segment.size
    assert not path.read_bytes().endswith(b"\0")


def test_an_existing_segment_is_never_opened_for_writing(tmp_path: Path) -> None:
    open_segment(tmp_path, Chain()).finish()
    before = (tmp_path / file_name(0)).read_bytes()
    with pytest.raises(FileExistsError):
        open_segment(tmp_path, Chain())
    assert (tmp_path / file_name(0)).read_bytes() == before


def test_a_short_write_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    whole = os.pwritev
    calls: list[int] = []

    def short(fd: int, pieces: list[bytes], offset: int) -> int:
        calls.append(offset)
        return whole(fd, [b"".join(pieces)[:7]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    header, meta = chain.encode(Kind.REQUEST, 0, SESSION, EXCHANGE, 1, 1, b"{}", b"y" * 5000)
    segment.write([header, meta, b"y" * 5000])
    segment.finish()
    assert calls
    with SegmentReader(tmp_path) as reader:
        assert [f.data for f in reader.read()] == [b"", b"y" * 5000]


def test_space_that_cannot_be_reserved_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    segment.write([frame(chain, b"x")])
    assert (tmp_path / file_name(0)).stat().st_size == segment.size
    segment.finish()


def test_numbers_lists_segments_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("00000010.seg", "00000009.seg", "lock", "torn-3.bin", "x.seg"):
        (tmp_path / name).touch()
    assert numbers(tmp_path) == [9, 10]


def test_writer_names_differ_from_start_to_start() -> None:
    names = {writer_name("worker-0", CLOCK) for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("worker-0-") for name in names)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    held = try_lock(tmp_path)
    assert held is not None
    assert try_lock(tmp_path) is None
    os.close(held)
    again = try_lock(tmp_path)
    assert again is not None
    os.close(again)


def test_write_file_replaces_whole_and_privately(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"one")
    write_file(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"two"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_reader_follows_a_growing_segment_and_rotation(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    with SegmentReader(tmp_path) as reader:
        assert [f.kind for f in reader.read()] == [Kind.SEGMENT]
        assert reader.read() == []
        segment.write([frame(chain, b"1")])
        assert [f.data for f in reader.read()] == [b"1"]
        segment.write([frame(chain, b"2")])
        following = open_segment(tmp_path, chain, 1)
        segment.finish()
        following.write([frame(chain, b"3")])
        assert [f.data for f in reader.read()] == [b"2", b"", b"3"]
        following.write([frame(chain, b"", Kind.WRITER_CLOSE)])
        following.finish()
        closed = [reader.closed]
        assert [f.kind for f in reader.read()] == [Kind.WRITER_CLOSE]
        closed.append(reader.closed)
        assert closed == [False, True]
        assert reader.read() == []


def test_a_half_written_last_frame_is_waited_for(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    raw = frame(chain, b"x" * 500)
    with SegmentReader(tmp_path) as reader:
        reader.read()
        for cut in (3, 100, 139, 141, 500):
            os.pwrite(segment._fd, raw[:cut], segment.size)
            assert reader.read() == []
        segment.write([raw])
        assert [f.data for f in reader.read()] == [b"x" * 500]
    segment.abandon()


def test_a_new_reader_goes_on_at_a_saved_position(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    segment.write([frame(chain, bytes([n]) * 300) for n in range(50)])
    following = open_segment(tmp_path, chain, 1)
    segment.finish()
    following.write([frame(chain, b"end")])
    seqs: list[int] = []
    position = None
    while True:
        with SegmentReader(tmp_path, position) as reader:
            batch = reader.read(1000)
            position = json.loads(json.dumps(reader.position()))
        if not batch:
            break
        assert sum(f.size for f in batch) < 2000
        seqs += [f.seq for f in batch]
    assert seqs == list(range(53))
    following.abandon()


def test_a_frame_larger_than_what_is_asked_for_is_given_whole(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    segment.write([frame(chain, b"z" * 3_000_000)])
    segment.write([frame(chain, b"after")])
    with SegmentReader(tmp_path) as reader:
        sizes = []
        while batch := reader.read(10):
            sizes += [len(f.data) for f in batch]
    assert sizes == [0, 3_000_000, 5]
    segment.abandon()


def test_reading_starts_at_the_first_segment_that_is_still_there(tmp_path: Path) -> None:
    chain = Chain()
    open_segment(tmp_path, chain).finish()
    following = open_segment(tmp_path, chain, 1)
    following.write([frame(chain, b"kept")])
    following.finish()
    (tmp_path / file_name(0)).unlink()
    with SegmentReader(tmp_path) as reader:
        assert [(f.seq, f.data) for f in reader.read()] == [(1, b""), (2, b"kept")]


def test_a_missing_segment_in_the_middle_is_named(tmp_path: Path) -> None:
    chain = Chain()
    for number in range(3):
        open_segment(tmp_path, chain, number).finish()
    (tmp_path / file_name(1)).unlink()
    with (
        SegmentReader(tmp_path) as reader,
        pytest.raises(ProofError, match=r"00000002\.seg but no .*00000001\.seg"),
    ):
        while reader.read():
            pass


def test_damage_in_the_middle_of_a_live_segment_is_raised_after_what_precedes_it(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    offsets = []
    for n in range(4):
        offsets.append(segment.size)
        segment.write([frame(chain, bytes([n]) * 100)])
    os.pwrite(segment._fd, b"!", offsets[2] + 150)
    with SegmentReader(tmp_path) as reader:
        assert [f.seq for f in reader.read()] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(ProofError, match=rf"00000000\.seg at offset {offsets[2]}.*number 3"):
                reader.read()
    segment.abandon()


def test_an_empty_directory_reads_as_nothing(tmp_path: Path) -> None:
    with SegmentReader(tmp_path) as reader:
        assert reader.read() == []


def test_a_segment_removed_at_a_saved_position_is_passed_over_if_nothing_is_missing(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    with SegmentReader(tmp_path) as reader:
        reader.read()
        read_whole = reader.position()
    segment.finish()
    open_segment(tmp_path, chain, 1).finish()
    (tmp_path / file_name(0)).unlink()
    with SegmentReader(tmp_path, read_whole) as reader:
        assert [f.seq for f in reader.read()] == [1]
    (tmp_path / file_name(1)).unlink()
    with SegmentReader(tmp_path, read_whole) as reader:
        assert reader.read() == []


def test_a_segment_removed_before_it_was_read_is_missed(tmp_path: Path) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    with SegmentReader(tmp_path) as reader:
        reader.read()
        position = reader.position()
    segment.write([frame(chain, b"never read")])
    segment.finish()
    open_segment(tmp_path, chain, 1).finish()
    (tmp_path / file_name(0)).unlink()
    with SegmentReader(tmp_path, position) as reader, pytest.raises(ProofError, match="missing"):
        reader.read()


@pytest.mark.parametrize("size", [1, 200, 7000, 100_000])
def test_the_reserve_is_still_there_when_no_more_space_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    chain = Chain()
    segment = open_segment(tmp_path, chain)
    segment.write([bytes(STEP - 300_000)])

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        while True:
            segment.write([bytes(size)])
    assert (tmp_path / file_name(0)).stat().st_size - segment.size >= RESERVE
    segment.write_last(b"last words")
    assert (tmp_path / file_name(0)).read_bytes().endswith(b"last words")
