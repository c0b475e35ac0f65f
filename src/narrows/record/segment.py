"""Segment files: where one writer's frames lie, how a file is made and grown, and how it is read as it grows.

    wal/<writer>/            0700, one directory per start of a process; `<writer>` is `<name>-<uuid7>`
        lock                 held with flock(2) for as long as the writer lives
        00000000.seg         0600, frames of `narrows.record.log.frame`, one after another
        00000001.seg         the chain goes on from the segment before
        recovered.json       written by recovery once everything about a dead writer is on the record
        torn-<seq>.bin       bytes after the last whole frame, moved here by recovery, never deleted

Space is reserved ahead of the frames with posix_fallocate(3): an fdatasync that need not record a new file
length is a quarter to a third cheaper, and a full disk shows while there is still room for a GAP frame that says
so. So a segment that was not closed ends in zeros. Zeros are the end of the segment, not damage: no frame begins
with one. `narrows.record.tail` reads the files.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

from narrows.core import ids
from narrows.core.ports import Clock

SUFFIX = ".seg"
LOCK = "lock"
STEP = 8 * 1024 * 1024
"""How much space is reserved at a time, in bytes."""
RESERVE = 16 * 1024
"""Reserved space that frames never use: room for the GAP frame of a full disk, in bytes."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a write that mean: no room, as opposed to: a broken disk."""


def file_name(number: int) -> str:
    """The name of a writer's segment, eight digits: they sort as they were written."""
    return f"{number:08d}{SUFFIX}"


def numbers(writer: Path) -> list[int]:
    """The numbers of the segments in a writer's directory, in order."""
    return sorted(int(path.stem) for path in writer.glob(f"*{SUFFIX}") if path.stem.isdigit())


def writer_name(name: str, clock: Clock) -> str:
    """A name that no other process start has: `<name>-<uuid7>`."""
    return f"{name}-{ids.text(ids.uuid7(clock.wall_ns(), os.urandom(10)))}"


def sync_directory(directory: Path) -> None:
    """fsync a directory: a new, moved or removed name is durable only after this (fsync(2), NOTES)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """Put a small file in place whole and durable (0600), or leave what was there. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    sync_directory(path.parent)


def try_lock(writer: Path) -> int | None:
    """Take a writer's lock: its file descriptor, or None where a living process holds it."""
    fd = os.open(writer / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def segment_meta(writer: str, number: int, version: str, created_ns: int, previous_running: bytes) -> bytes:
    """The meta of a segment's first frame. Its length does not depend on `previous_running`."""
    meta = {
        "writer": writer,
        "segment": number,
        "version": version,
        "created_ns": created_ns,
        "previous_running": previous_running.hex(),
    }
    return json.dumps(meta, separators=(",", ":")).encode()


def gap_meta(writer: str, segment: int, after_seq: int, running: bytes, lost: int, why: str, **more: object) -> bytes:
    """The meta of a GAP frame: what is missing after frame `after_seq` (-1: from the start) of a writer.

    `running` is the chain's hash at that frame, `lost` the bytes that are missing as far as known.
    """
    meta = {
        "writer": writer,
        "segment": segment,
        "after_seq": after_seq,
        "running": running.hex(),
        "bytes": lost,
        "why": why,
        **more,
    }
    return json.dumps(meta, separators=(",", ":")).encode()


class SegmentFile:
    """One open segment of a writer. Not thread-safe: one owner. Every method may raise OSError.

    `size` is where the next frame goes. After any OSError the file must not be written to again, except by
    `write_last` after an error of NO_ROOM.
    """

    def __init__(self, path: Path, first_frame: bytes) -> None:
        """Create the file, reserve its first space, write and sync the first frame and the file's name."""
        self.path = path
        self.size = 0
        self._reserved = 0
        self._can_reserve = True
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.write([first_frame])
            os.fsync(self._fd)
            sync_directory(path.parent)
        except OSError:
            # Nothing of it counts yet: without its first frame the file is no segment.
            os.close(self._fd)
            path.unlink()
            raise

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write the pieces one after another, all of them or an OSError; at most 1,024 pieces (IOV_MAX)."""
        length = sum(map(len, pieces))
        if self.size + length + RESERVE > self._reserved:
            self._reserve(length)
        written = os.pwritev(self._fd, pieces, self.size)
        if written != length:
            self._write_rest(pieces, written)
        self.size += length

    def _write_rest(self, pieces: Sequence[bytes | bytearray | memoryview], written: int) -> None:
        # A short write is legal (a signal, a quota met midway); the next call tells what is really wrong.
        rest = memoryview(b"".join(pieces))
        while written < len(rest):
            count = os.pwrite(self._fd, rest[written:], self.size + written)
            if not count:
                raise OSError(errno.EIO, "the file takes no more bytes")
            written += count

    def _reserve(self, length: int) -> None:
        if not self._can_reserve:
            return
        need = -(-(self.size + length + RESERVE) // 4096) * 4096
        try:
            self._grow(max(need, self._reserved + STEP))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                self._can_reserve = False
                return
            if error.errno not in NO_ROOM:
                raise
            self._grow(need)

    def _grow(self, end: int) -> None:
        os.posix_fallocate(self._fd, self._reserved, end - self._reserved)
        self._reserved = end

    def write_last(self, frame: bytes) -> None:
        """Write `frame` into the reserve and cut the file after it: the last words on a full disk."""
        if os.pwrite(self._fd, frame, self.size) != len(frame):
            raise OSError(errno.ENOSPC, "the reserve is gone")
        self.size += len(frame)
        os.ftruncate(self._fd, self.size)
        os.fsync(self._fd)

    def sync(self) -> None:
        """Return when everything written is on stable storage."""
        os.fdatasync(self._fd)

    def finish(self) -> None:
        """Give back unused space, sync and close: the segment is whole and final."""
        os.ftruncate(self._fd, self.size)
        os.fsync(self._fd)
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptor, nothing else. May be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
