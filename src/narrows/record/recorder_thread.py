"""The recorder's one thread: it owns the open segment, writes, rotates and syncs, and wakes the loop.

The loop and this thread speak through a queue of jobs in one direction and an eventfd in the other. The thread
does as little as it can between calls that release the GIL (pwritev, fdatasync, sha256): on a core that it shares
with the loop, each time it takes the GIL the loop waits.

All file I/O is here, so that a slow disk never stops the loop. Commits are asked for one at a time.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from narrows import __version__
from narrows.core import ids
from narrows.core.errors import RecorderFailed
from narrows.core.ports import Clock
from narrows.record.log.frame import Chain, Kind
from narrows.record.segment import NO_ROOM, SegmentFile, file_name, gap_meta, segment_meta

Arguments = tuple[int, int, bytes, bytes, int, int, bytes, bytes | memoryview]
"""What `Chain.encode` takes."""


class Writer:
    """The thread's side. Counters are written by the thread alone and read by the loop.

    `encoded` frames of those handed over unencoded are in the chain: when it equals the loop's own count the chain
    is the loop's again. `written` is bytes, `committed` the last sequence number that is on stable storage.
    `room_at` is the value of `written` at which the loop wants to be woken.
    """

    def __init__(self, directory: Path, name: str, clock: Clock, chain: Chain) -> None:
        """Create the first segment in `directory`. Raises OSError."""
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.encoded = 0
        self.written = 0
        self.committed = -1
        self.commits = 0
        self.room_at = sys.maxsize
        self.error: RecorderFailed | None = None
        self.finished = False
        self._directory = directory
        self._name = name
        self._clock = clock
        self._chain = chain
        self._number = 0
        self._stop = False
        self._syncing = False
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            first = self.segment_frame(0)
            self._file = SegmentFile(directory / file_name(0), first)
        except BaseException:
            os.close(self._signal)
            raise
        self.committed = 0
        self._tail = (chain.seq, chain.running)

    def segment_frame(self, number: int) -> bytes:
        """Encode the first frame of segment `number`. To be called by the owner of the chain."""
        now = self._clock.wall_ns()
        meta = segment_meta(self._name, number, __version__, now, self._chain.running)
        return self._chain.encode_whole(Kind.SEGMENT, 0, ids.NIL, ids.NIL, now, self._clock.mono_ns(), meta, b"")

    def fileno(self) -> int:
        """The descriptor that becomes readable when a commit, a failure or the end is to be noticed."""
        return self._signal

    def acknowledge(self) -> None:
        """Reset the descriptor."""
        try:
            os.eventfd_read(self._signal)
        except BlockingIOError:
            return

    def release(self) -> None:
        """Close the descriptors, once the thread has ended."""
        self._file.abandon()
        os.close(self._signal)

    def run(self) -> None:
        """The thread: do jobs until `finish`, `stop` or an error."""
        get = self.jobs.get
        try:
            while not self._stop:
                get()()
        except OSError as error:
            self.error = self._failure(error)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, the recorder has failed
            self.error = RecorderFailed(
                "The recording cannot be written",
                f"the writer of {self._file.path} ended with {type(error).__name__}",
                "restart Narrows; nothing passes until then",
            )
        self._drop_jobs()
        self.finished = True
        os.eventfd_write(self._signal, 1)

    def _drop_jobs(self) -> None:
        # Frees the frames that will never be written; their waiters get RecorderFailed.
        try:
            while True:
                self.jobs.get_nowait()
        except Empty:
            return

    # Jobs.

    def write(self, data: bytearray, seq: int, running: bytes) -> None:
        """Write frames that the loop encoded; the chain then stands at (`seq`, `running`)."""
        self._file.write([data])
        self._tail = (seq, running)
        self._wrote(len(data))

    def encode(self, arguments: Arguments) -> None:
        """Encode one frame and write it."""
        header, meta = self._chain.encode(*arguments)
        data = arguments[-1]
        self._file.write([header, meta, data])
        self._tail = (self._chain.seq, self._chain.running)
        self.encoded += 1
        self._wrote(len(header) + len(meta) + len(data))

    def rotate(self, number: int, first: bytes | None, seq: int, running: bytes) -> None:
        """Go on in segment `number`; `first` is its first frame, or None to encode it here."""
        # Synced before the next file exists: a reader takes what precedes an existing segment as final.
        self._sync()
        if first is None:
            first = self.segment_frame(number)
            seq, running = self._chain.seq, self._chain.running
            following = SegmentFile(self._directory / file_name(number), first)
            self.encoded += 1
        else:
            following = SegmentFile(self._directory / file_name(number), first)
        previous, self._file = self._file, following
        self._number = number
        self._tail = (seq, running)
        previous.finish()
        self._wrote(len(first))

    def commit(self, seq: int) -> None:
        """Make every frame up to `seq`, all of them written, durable; then wake the loop."""
        self._sync()
        self.committed = seq
        self.commits += 1
        os.eventfd_write(self._signal, 1)

    def finish(self) -> None:
        """Close the segment for good and end the thread."""
        self._file.finish()
        self._stop = True

    def stop(self) -> None:
        """End the thread and leave the segment as it is."""
        self._stop = True

    def _sync(self) -> None:
        # Never tried again after an error: the kernel may have marked the pages clean although they were not
        # written, and a second fsync would then succeed without them (PostgreSQL met this in 2018, "fsyncgate",
        # and has panicked since; see fsync(2) and LWN "PostgreSQL's fsync() surprise").
        self._syncing = True
        self._file.sync()
        self._syncing = False

    def _wrote(self, length: int) -> None:
        self.written += length
        if self.written >= self.room_at:
            self.room_at = sys.maxsize
            os.eventfd_write(self._signal, 1)

    # Failure.

    def _failure(self, error: OSError) -> RecorderFailed:
        full = error.errno in NO_ROOM
        why = f"{self._file.path}: {os.strerror(error.errno or errno.EIO)}"
        if full and not self._syncing:
            why += self._last_words()
        return RecorderFailed(
            "The recording cannot be written",
            why,
            f"free space under {self._directory.parent}, then restart Narrows; nothing passes until then"
            if full
            else "check the disk and the kernel's log, then restart Narrows; nothing passes until then",
        )

    def _last_words(self) -> str:
        """Say on the record, in the reserve, that it ends here. Returns what to add to the error's text."""
        seq, running = self._tail
        meta = gap_meta(self._name, self._number, seq - 1, running, 0, "disk full, nothing passes from here")
        frame = Chain(seq, running).encode_whole(
            Kind.GAP, 0, ids.NIL, ids.NIL, self._clock.wall_ns(), self._clock.mono_ns(), meta, b""
        )
        try:
            self._file.write_last(frame)
        except OSError as error:
            return f"; the gap could not be recorded either: {os.strerror(error.errno or errno.EIO)}"
        return ""


def job(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
    """A job for the thread."""
    return partial(function, *arguments)
