"""Recovery: what a writer that died left behind is read to its last whole frame, and what is missing is recorded.

Run by the supervisor before it starts workers, over every writer's directory that no living process has locked and
that does not say yet that it was recovered. Per writer:

- Bytes after the last whole frame are a torn tail: moved to `torn-<seq>.bin`, never deleted.
- A frame that is wrong although whole frames or segments follow it was changed, taken out or lost in the middle.
  That is damage, not a torn tail: nothing is moved, the place is named. (Only a crash of the whole machine can do
  the same by itself, within the last 50 ms that were not synced.)
- Exchanges without their last frame are named as unfinished.

Each of these becomes a GAP frame through the caller's recorder. A writer is marked with `recovered.json` only when
those frames are durable: a crash in between makes recovery say it again, never lose it. After that it adds nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from narrows.core import ids
from narrows.core.errors import ProofError
from narrows.core.ports import Clock, Recorder
from narrows.record.log.frame import HEADER_SIZE, MAGIC, Flag, Frame, Kind
from narrows.record.segment import file_name, gap_meta, numbers, sync_directory, try_lock, write_file
from narrows.record.tail import Position, SegmentReader, find_bytes, whole_frame_at

__all__ = ["Append", "Position", "Report", "SegmentReader", "WriterReport", "recover", "recover_into"]

Append = Callable[[int, int, bytes, bytes, bytes, bytes], int]
"""`Recorder.append`: kind, flags, session, exchange, meta, data."""

MARK = "recovered.json"
BATCH = 500
"""Most unfinished exchanges named in one GAP frame."""
_BLOCK = 1024 * 1024
_EXCHANGE_KINDS = frozenset({Kind.REQUEST, Kind.SENT, Kind.RESPONSE})


@dataclass(slots=True)
class WriterReport:
    """What recovery found in one dead writer. `after_seq` is its last whole frame (-1: none) in `segment`."""

    writer: str
    segment: int = 0
    after_seq: int = -1
    running: str = ""
    closed: bool = False
    """It ended on purpose: WRITER_CLOSE was read."""
    crashed: bool = False
    """It ended without closing its chain; that is a record, also where nothing was lost."""
    torn_bytes: int = 0
    torn_file: str = ""
    damage: str = ""
    """Empty, or which frame in the middle is wrong and where."""
    unfinished: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(exchange, session) of exchanges without a last frame."""


@dataclass(slots=True)
class Report:
    """What `recover` did. Call `mark` once frame `last_seq` (-1: none was appended) is durable."""

    directory: Path
    writers: list[WriterReport] = field(default_factory=list)
    last_seq: int = -1
    recovered_ns: int = 0

    def mark(self) -> None:
        """Say in each writer's directory that it was recovered. Raises OSError."""
        for found in self.writers:
            facts = {
                "writer": found.writer,
                "segment": found.segment,
                "after_seq": found.after_seq,
                "running": found.running,
                "closed": found.closed,
                "torn_bytes": found.torn_bytes,
                "torn_file": found.torn_file,
                "damage": found.damage,
                "unfinished": len(found.unfinished),
                "recovered_ns": self.recovered_ns,
            }
            write_file(self.directory / found.writer / MARK, json.dumps(facts, indent=1).encode())


async def recover_into(directory: Path, clock: Clock, recorder: Recorder) -> Report:
    """Recover every dead writer under `directory` (`wal/`), record the gaps durably, mark the writers.

    Reads in a thread, appends in the loop. Raises OSError where the disk fails, RecorderFailed where the gaps
    cannot be recorded: then nothing is marked, and nothing should be started.
    """
    gaps: list[tuple[int, int, bytes, bytes, bytes, bytes]] = []

    def collect(*frame: int | bytes) -> int:
        gaps.append(frame)  # type: ignore[arg-type]
        return -1

    report = await asyncio.to_thread(recover, directory, clock, collect)
    for gap in gaps:
        report.last_seq = recorder.append(*gap)
    if gaps:
        await recorder.durable(report.last_seq)
    await asyncio.to_thread(report.mark)
    return report


def recover(directory: Path, clock: Clock, append: Append) -> Report:
    """Recover every dead writer under `directory` and append GAP frames. The caller awaits durability, then marks.

    Raises OSError where files cannot be read or moved.
    """
    report = Report(directory, recovered_ns=clock.wall_ns())
    if not directory.is_dir():
        return report
    for writer in sorted(directory.iterdir()):
        # A hidden one was never locked and renamed: its process died before it recorded anything.
        if writer.name.startswith(".") or not writer.is_dir() or (writer / MARK).exists():
            continue
        lock = try_lock(writer)
        if lock is None:
            continue
        try:
            found = _recover_writer(writer)
        finally:
            os.close(lock)
        report.writers.append(found)
        for meta in _gaps(found):
            report.last_seq = append(Kind.GAP, 0, ids.NIL, ids.NIL, meta, b"")
    return report


def _gaps(found: WriterReport) -> Iterator[bytes]:
    place = (found.writer, found.segment, found.after_seq, bytes.fromhex(found.running))
    if found.torn_bytes:
        yield gap_meta(*place, found.torn_bytes, "torn tail", file=found.torn_file)
    if found.damage:
        yield gap_meta(*place, 0, f"damaged or changed: {found.damage}")
    for start in range(0, len(found.unfinished), BATCH):
        batch = [
            {"exchange": ids.text(exchange), "session": ids.text(session)}
            for exchange, session in found.unfinished[start : start + BATCH]
        ]
        yield gap_meta(*place, 0, "unfinished", unfinished=batch)
    if found.crashed and not (found.torn_bytes or found.damage or found.unfinished):
        yield gap_meta(*place, 0, "stopped without closing its chain")


def _recover_writer(writer: Path) -> WriterReport:
    found = WriterReport(writer.name)
    running: dict[bytes, bytes] = {}
    with SegmentReader(writer) as reader:
        try:
            while batch := reader.read():
                for frame in batch:
                    _follow(running, frame)
        except ProofError as error:
            found.damage = str(error)
        position = reader.position()
        found.closed = reader.closed
    found.segment = position["segment"]
    found.after_seq = position["seq"] - 1
    found.running = position["running"]
    found.unfinished = list(running.items())
    # One that was closed and sealed whole has no segment any more; the sealer keeps the last of a chain that ends open.
    found.crashed = not found.closed and bool(numbers(writer))
    if not found.damage:
        _end(writer, position, found)
    return found


def _follow(running: dict[bytes, bytes], frame: Frame) -> None:
    """Keep the exchanges that have begun and not ended: bounded by how many ran at once."""
    if frame.kind in _EXCHANGE_KINDS:
        if frame.flags & Flag.FINAL:
            running.pop(frame.exchange, None)
        else:
            running[frame.exchange] = frame.session


def _end(writer: Path, position: Position, found: WriterReport) -> None:
    """Look at what follows the last whole frame of the last segment: nothing, zeros, a torn tail, or damage."""
    present = numbers(writer)
    if not present:
        return
    path = writer / file_name(present[-1])
    offset = position["offset"] if position["segment"] == present[-1] else 0
    torn = writer / f"torn-{position['seq']}.bin"
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        end = find_bytes(fd, offset)
        if end >= 0:
            later = _later_frame(fd, offset, end, position["seq"])
            if later is not None:
                found.damage = (
                    f"no frame at offset {offset} of {path}, where sequence number {position['seq']} should be, "
                    f"but number {later[0].seq} follows at offset {later[1]}"
                )
                return
            _quarantine(fd, offset, end, torn)
        if os.fstat(fd).st_size > offset:
            os.ftruncate(fd, offset)
            os.fsync(fd)
    finally:
        os.close(fd)
    if torn.exists():
        # Also when an earlier recovery moved it and died before it could say so.
        found.torn_bytes = torn.stat().st_size
        found.torn_file = torn.name


def _later_frame(fd: int, offset: int, end: int, seq: int) -> tuple[Frame, int] | None:
    """The first whole frame with a sequence number of at least `seq` that begins after `offset`, and where."""
    at = offset + 1
    while at < end:
        block = os.pread(fd, _BLOCK, at)
        index = block.find(MAGIC)
        while index >= 0:
            frame = whole_frame_at(fd, at + index)
            if frame is not None and frame.seq >= seq:
                return frame, at + index
            index = block.find(MAGIC, index + 1)
        if len(block) < HEADER_SIZE:
            return None
        at += len(block) - len(MAGIC) + 1
    return None


def _quarantine(fd: int, offset: int, end: int, torn: Path) -> None:
    """Copy the bytes from `offset` to `end` to `torn`, durably, in bounded memory."""
    temporary = torn.with_name(f".{torn.name}.new")
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while offset < end:
            offset += os.write(out, os.pread(fd, min(_BLOCK, end - offset), offset))
        os.fsync(out)
    finally:
        os.close(out)
    temporary.replace(torn)
    sync_directory(torn.parent)
