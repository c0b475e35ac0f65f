"""Verifying writers' chains: every frame found anywhere is linked again to the one before it, whatever session it
lies in. Links are kept in temporary files, 144 bytes a frame, so that memory does not grow with the recording."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from narrows.record.log.frame import GENESIS, Frame
from narrows.record.verify_ends import End, Ends
from narrows.record.verify_log import Leaves
from narrows.record.verify_report import Report

_LINK = struct.Struct(">96s32sIIQ")
_CHUNK = 8192
_PENDING = 1 << 20
WAL = 0xFFFFFFFF
"""In place of a session's number: the frame was found in an unsealed segment."""

Link = tuple[bytes, bytes, int, int, int]


@dataclass(slots=True)
class _Pending:
    start: int
    data: bytearray


class Chains:
    """Links of all writers. `directory` is a private temporary one that the caller removes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers: dict[str, int] = {}
        self._pending: dict[str, _Pending] = {}
        self._sessions: list[str] = []
        self.writers: set[str] = set()
        self.live = False
        """A sealer is at work: frames that were written after the segments were read are passed over."""
        self.segment_ends: dict[str, int] = {}
        """Per writer: the last sequence number that its segments held when they were read."""
        self.ends = Ends()
        self.passed: dict[str, int] = {}
        """Per writer: the highest frame that was passed over because it came after the segments were read."""

    def session(self, name: str) -> int:
        """A number for a session's name."""
        self._sessions.append(name)
        return len(self._sessions) - 1

    def name(self, number: int) -> str:
        """The session of that number."""
        return "" if number == WAL else self._sessions[number]

    def add(self, writer: str, frame: Frame, session: int, part: int, offset: int) -> None:
        """Keep a frame's link. The caller has checked that its number is below MAX_SEQ."""
        data = _LINK.pack(frame.chained, frame.running, session, part, offset)
        pending = self._pending.get(writer)
        full = pending is not None and len(pending.data) >= _PENDING
        if pending is not None and not full and frame.seq == pending.start + len(pending.data) // _LINK.size:
            pending.data += data
        else:
            if pending is not None:
                self._write(writer, pending)
            self._pending[writer] = _Pending(frame.seq, bytearray(data))
        self.writers.add(writer)
        self.ends.take(writer, frame)

    def newer(self, writer: str, seq: int, head: int) -> bool:
        """Whether a frame in a part came after the segments were read, while its neighbours may not be seen."""
        if not self.live or seq <= max(head, self.segment_ends.get(writer, -1)):
            return False
        self.passed[writer] = max(seq, self.passed.get(writer, -1))
        return True

    def flush(self) -> None:
        """Write what is pending."""
        for writer, pending in self._pending.items():
            self._write(writer, pending)
        self._pending.clear()

    def _path(self, writer: str) -> Path:
        return self._directory / str(self._numbers.setdefault(writer, len(self._numbers)))

    def _write(self, writer: str, pending: _Pending) -> None:
        fd = os.open(self._path(writer), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(fd, pending.data, pending.start * _LINK.size)
        finally:
            os.close(fd)

    def links(self, writer: str) -> Iterator[tuple[int, Link]]:
        """(sequence number, link) of every frame found, in order; numbers that were not found are passed over."""
        path = self._path(writer)
        if not path.exists():
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            at, end = 0, os.fstat(fd).st_size
            while at < end:
                # A forged number makes a huge hole: it must not take long to pass.
                at = os.lseek(fd, at, os.SEEK_DATA) // _LINK.size * _LINK.size
                chunk = os.pread(fd, _CHUNK * _LINK.size, at)
                for row, fields in enumerate(_LINK.iter_unpack(chunk)):
                    if fields[0][0]:
                        yield at // _LINK.size + row, fields
                at += len(chunk)
        finally:
            os.close(fd)


def check_chains(chains: Chains, leaves: Leaves, lawful: dict[str, list[tuple[int, int]]], report: Report) -> None:
    """Link every chain, compare it with the heads leaves and with what is said of its end; counts the frames that no
    heads leaf covers yet.

    `lawful` are stretches of numbers whose frames were erased with an erasure leaf that says so.
    """
    chains.flush()
    for writer, (seq, index) in leaves.ended_writers.items():
        chains.ends.close_leaf(writer, seq, index)
    for writer in sorted(chains.writers | set(leaves.heads) | set(chains.ends.named)):
        _check_chain(chains, writer, leaves, lawful.get(writer, []), report)
        _check_ended(chains, writer, leaves, report)


def _check_chain(chains: Chains, writer: str, leaves: Leaves, lawful: list[tuple[int, int]], report: Report) -> None:
    heads = {seq: (running, leaf) for seq, running, leaf in leaves.heads.get(writer, [])}
    ends = _ends(chains, writer, leaves)
    sealed = leaves.head(writer)
    running: bytes | None = GENESIS
    last = -1
    for seq, link in chains.links(writer):
        if seq != last + 1:
            _hole(writer, last + 1, seq - 1, lawful, report)
            running = None
        last = seq
        chained, stated, session, part, offset = link
        where = f"wal/{writer}" if session == WAL else f"part {part:05d}"
        if running is not None and sha256(running + chained).digest() != stated:
            what = f"The running hash of writer {writer} breaks at frame {seq}"
            report.found("chain", what, session=chains.name(session), file=where, offset=offset)
        running = stated
        report.unsealed_frames += seq > sealed
        head = heads.pop(seq, None)
        if head is not None and head[0] != stated:
            what = f"Writer {writer} had another running hash at frame {seq} when the log committed to it"
            report.found("head", what, session=chains.name(session), file=where, leaf=head[1])
        end = ends.get(seq)
        if end is not None and end.running not in (b"", stated):
            what = f"Writer {writer} had another running hash at frame {seq}, after {end.by}"
            report.found("other_end", what, session=chains.name(session), file=where)
    committed = max(heads, default=-1)
    if committed > last:
        _hole(writer, last + 1, committed, lawful, report)
    _check_tail(chains, writer, max(last, committed), ends, lawful, report)


def _ends(chains: Chains, writer: str, leaves: Leaves) -> dict[int, End]:
    """What is said of a writer's end, as far as it can be judged.

    While a sealer runs, an end that was told after the checkpoint may be of frames that were written after their
    place was read: like those, it is for the next verification.
    """
    named = chains.ends.named.get(writer, {})
    if not chains.live:
        return named
    return {seq: end for seq, end in named.items() if end.told_seq <= leaves.head(end.teller)}


def _check_tail(
    chains: Chains,
    writer: str,
    last: int,
    ends: dict[int, End],
    lawful: list[tuple[int, int]],
    report: Report,
) -> None:
    """The chain must reach what is said of its end; what the log commits to was looked at before."""
    named = max(ends, default=-1)
    first = _first_missing(max(last, chains.passed.get(writer, -1)) + 1, named, lawful)
    if first is not None:
        what = f"{_numbers(first, named)} of writer {writer} are nowhere: it had reached frame {named}, after "
        report.found("lost_tail", what + ends[named].by)


def _check_ended(chains: Chains, writer: str, leaves: Leaves, report: Report) -> None:
    """A chain that nobody says anything of, and that cannot go on, is noted.

    Not a finding: a copy of the record without `wal/` has just that of every writer that still ran, and so has a
    recording of a version that made no GAP of a process killed with nothing under way. But if frames were lost at its
    end, nothing names them.
    """
    told = writer in chains.ends.named or writer in leaves.broken_writers
    if not told and writer not in chains.segment_ends and writer not in chains.passed:
        what = f"The chain of writer {writer} ends with neither WRITER_CLOSE nor GAP, and has no segment"
        report.note("no_end", what)


def _first_missing(first: int, last: int, lawful: list[tuple[int, int]]) -> int | None:
    """The first number from `first` to `last` that no erased record covers."""
    at = first
    for low, high in sorted(lawful):
        if low > at:
            break
        at = max(at, high + 1)
    return at if at <= last else None


def _numbers(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _hole(writer: str, first: int, last: int, lawful: list[tuple[int, int]], report: Report) -> None:
    """Frames that are nowhere: lawful where erased records cover every one of them."""
    at = _first_missing(first, last, lawful)
    if at is not None:
        report.found("missing_frames", f"{_numbers(at, last)} of writer {writer} cannot be found or read")
