"""Reading a writer's segments back, also while they grow: for the sealer, for recovery, for whoever verifies."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Self, TypedDict

from narrows.core.errors import ProofError
from narrows.record.log.frame import (
    GENESIS,
    HEADER_SIZE,
    MAGIC,
    MAX_FRAME,
    Frame,
    Kind,
    TornFrame,
    check_link,
    decode,
)
from narrows.record.segment import file_name, numbers

_READ = 1024 * 1024
_LENGTH = struct.Struct(">I")


class Position(TypedDict):
    """Where a reader stands in a writer's chain; JSON-able. `running` is hexadecimal."""

    segment: int
    offset: int
    seq: int
    running: str


class SegmentReader:
    """Reads a writer's frames in order, also while they are being written, and checks every link on the way.

    A frame is given out once, whole, linked to the one before and with the payload that it names; anything else
    raises ProofError naming file and offset, and raises it again on the next call: nothing is skipped. A frame
    may be given out a moment before it is synced, so after a crash of the machine a position can lie behind the
    end of the segment; that reads as the end. Raises OSError where files cannot be read.
    """

    def __init__(self, writer: Path, position: Position | None = None) -> None:
        """Start at `position`, or at the first segment there is (which says where the chain was before)."""
        self._writer = writer
        self._fd = -1
        self._open_number = -1
        self.closed = False
        """True once the writer's WRITER_CLOSE frame was read."""
        first = position is None
        self._adopt = first
        self._segment = position["segment"] if position else 0
        self._offset = position["offset"] if position else 0
        self._seq = position["seq"] if position else 0
        self._running = bytes.fromhex(position["running"]) if position else GENESIS

    def position(self) -> Position:
        """Where the next frame is expected; give it to a new reader to go on from here."""
        return Position(segment=self._segment, offset=self._offset, seq=self._seq, running=self._running.hex())

    @property
    def path(self) -> Path:
        """The segment that is being read."""
        return self._writer / file_name(self._segment)

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._open_number = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, max_bytes: int = 8 * _READ) -> list[Frame]:
        """The next frames, about `max_bytes` of them but at least one if there is one; [] at the end."""
        found: list[Frame] = []
        try:
            if self._start():
                self._collect(found, max_bytes)
        except ProofError:
            # What was read before the damage is whole and linked: it is given out, and the next call raises.
            if not found:
                raise
        return found

    def _collect(self, found: list[Frame], max_bytes: int) -> None:
        if self._open_number != self._segment and not self.path.exists():
            # Sealed and removed meanwhile. Nothing is missed by going on: the next frame must link to the last.
            later = [number for number in numbers(self._writer) if number > self._segment]
            if not later:
                return
            self._segment = later[0]
            self._offset = 0
        budget = max_bytes
        while budget > 0:
            # Looked up before reading: what this segment holds is final only if the next one existed before.
            settled = self._next_exists()
            taken = self._read_some(found, budget, settled)
            budget -= taken
            if taken:
                continue
            if not settled:
                return
            self._segment += 1
            self._offset = 0

    def _start(self) -> bool:
        """Find the first segment when nothing is known yet. False if there is none."""
        if not self._adopt:
            return True
        present = numbers(self._writer)
        if not present:
            return False
        self._segment = present[0]
        if self._segment > 0:
            # Earlier segments were sealed and removed: the chain is taken up where this one says it was.
            frame = whole_frame_at(self._handle(), 0)
            if frame is None:
                return self._next_exists()
            self._seq = frame.seq
            try:
                self._running = bytes.fromhex(json.loads(frame.meta)["previous_running"])
            except (ValueError, KeyError, TypeError) as error:
                raise ProofError("A segment does not say where its chain was", str(self.path)) from error
        self._adopt = False
        return True

    def _next_exists(self) -> bool:
        if (self._writer / file_name(self._segment + 1)).exists():
            return True
        # The look above and this listing are two moments: a segment that appeared between them is the next one.
        later = [number for number in numbers(self._writer) if number > self._segment]
        if later and later[0] == self._segment + 1:
            return True
        if later:
            missing = self._writer / file_name(self._segment + 1)
            raise ProofError("A segment is missing", f"there is {file_name(later[0])} but no {missing}")
        return False

    def _read_some(self, found: list[Frame], budget: int, settled: bool) -> int:
        """Add frames of this segment to `found`; returns their bytes, 0 at its end."""
        buffer = self._bytes(self._offset, min(max(budget, 2 * HEADER_SIZE), _READ))
        at = 0
        while at < len(buffer) and at < budget:
            if at + 8 <= len(buffer) and buffer[at : at + 4] == MAGIC:
                length = _LENGTH.unpack_from(buffer, at + 4)[0]
                if at + length > len(buffer) and length <= MAX_FRAME:
                    if at:
                        break
                    buffer = self._bytes(self._offset, length)
            elif at and len(buffer) - at < HEADER_SIZE:
                break
            frame = self._decode(buffer, at, settled)
            if frame is None:
                break
            self._check(frame)
            at += frame.size
            self._offset += frame.size
            self._seq += 1
            self._running = frame.running
            self.closed = frame.kind == Kind.WRITER_CLOSE
            found.append(frame)
        return at

    def _check(self, frame: Frame) -> None:
        try:
            check_link(frame, self._seq, self._running)
        except ProofError as error:
            raise ProofError(error.what, f"{error.why}, in {self.path} at offset {self._offset}") from error
        if (self._offset == 0) != (frame.kind == Kind.SEGMENT):
            raise ProofError(
                "A segment does not begin with its own frame",
                f"kind {frame.kind} at offset {self._offset} of {self.path}",
            )

    def _decode(self, buffer: bytes, at: int, settled: bool) -> Frame | None:
        """The frame at `at`; None where the segment ends for now."""
        try:
            return decode(buffer, at)
        except TornFrame as error:
            if settled:
                if find_bytes(self._handle(), self._offset) < 0:
                    return None
            elif not self._followed(buffer, at):
                # Reserved space, or the last frame of a growing file seen half-written.
                return None
            raise ProofError(
                error.what,
                f"in {self.path} at offset {self._offset}, where sequence number {self._seq} should be",
            ) from error

    def _followed(self, buffer: bytes, at: int) -> bool:
        """Whether a whole frame lies where the one at `at` says it ends: then it is not merely unfinished."""
        if at + 8 > len(buffer):
            return False
        length = _LENGTH.unpack_from(buffer, at + 4)[0]
        return length >= HEADER_SIZE and whole_frame_at(self._handle(), self._offset + length) is not None

    def _handle(self) -> int:
        if self._open_number != self._segment:
            self.close()
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._open_number = self._segment
        return self._fd

    def _bytes(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle(), length, offset)


def find_bytes(fd: int, offset: int) -> int:
    """The offset just after the last byte, from `offset` on, that is not zero; -1 if there is none."""
    end = -1
    while block := os.pread(fd, _READ, offset):
        if stripped := block.rstrip(b"\0"):
            end = offset + len(stripped)
        offset += len(block)
    return end


def whole_frame_at(fd: int, offset: int) -> Frame | None:
    """The frame at `offset` of a file, if a whole one lies there."""
    head = os.pread(fd, HEADER_SIZE, offset)
    if len(head) < HEADER_SIZE:
        return None
    length = _LENGTH.unpack_from(head, 4)[0]
    if not HEADER_SIZE <= length <= MAX_FRAME:
        return None
    try:
        return decode(os.pread(fd, length, offset))
    except TornFrame:
        return None
