"""The recorder of one process: frames in, durable frames out (P1, P2).

What it guarantees:

- Frames lie in the file in the order of `append`, in one chain over all segments of this writer.
- When `durable(seq)` returns, frame `seq` and every frame before it are on stable storage (fdatasync). One commit
  runs at a time; it covers everything appended when it starts, and whoever asks meanwhile shares the next (group
  commit). It starts when the loop has run what was ready: everyone who asks in one iteration shares one commit,
  which measured half the commits and a sixth less latency at 16 connections, and nothing lost at one.
- Without `durable`, frames are written within a tenth of `flush_interval_s` (or as soon as 256 KiB are waiting)
  and their sync starts within 0.8 of it: at most `flush_interval_s` is lost with the machine, a tenth with the
  process.
- Memory: `room()` holds callers back while more than `queue_bytes` wait for the disk. A caller that does not ask is
  refused at four times that.
- Any error of a write or a sync fails the recorder for good: every waiter and every later `append` raises
  RecorderFailed, `on_failure` is called once in the loop. A full disk is noticed while a GAP frame still fits.

Frames under 16 KiB are encoded here, in the loop, into one buffer: a hand-over to a thread costs more than the
encoding. Larger ones are encoded by the writer's thread. The chain has one owner at a time: from the moment a frame
is handed over unencoded until the thread has encoded all it was handed, later frames queue behind it as they are.
No file is touched in the loop.

On a core shared with the loop, the default switch interval of 5 ms is right: lower values measured no better, as
uvloop gives up the GIL between callbacks.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from narrows import __version__
from narrows.core import ids
from narrows.core.errors import RecorderFailed
from narrows.core.ports import Clock
from narrows.record.log.frame import HEADER_SIZE, Chain, Kind
from narrows.record.recorder_thread import Writer, job
from narrows.record.segment import segment_meta, sync_directory, try_lock

MAX_PAYLOAD = 16 * 1024 * 1024
"""Most bytes of meta and data in one frame; callers split bodies, at best into pieces of 256 KiB to 1 MiB."""
_INLINE = 16 * 1024
_FLUSH = 256 * 1024
_HARD = 4


@dataclass(frozen=True, slots=True)
class Stats:
    """What the recorder has done: `bytes` written to segments, `queue_peak` most bytes that ever waited."""

    frames: int
    commits: int
    bytes: int
    queued: int
    queue_peak: int


_live: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Recorder:
    """Records into `<directory>/<writer>/`. Implements `core.ports.Recorder`; all methods belong to one loop."""

    def __init__(
        self,
        directory: Path,
        writer: str,
        clock: Clock,
        *,
        segment_bytes: int = 128 * 1024 * 1024,
        queue_bytes: int = 32 * 1024 * 1024,
        flush_interval_s: float = 0.05,
        on_failure: Callable[[RecorderFailed], None] | None = None,
    ) -> None:
        """Nothing is touched before `start`. `writer` must be new: see `segment.writer_name`."""
        self.directory = directory / writer
        self._name = writer
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._queue_bytes = queue_bytes
        self._tick_s = flush_interval_s / 10
        self._sync_after_s = flush_interval_s * 0.8
        self._on_failure = on_failure
        self._chain = Chain()
        self._buffer = bytearray()
        self._next = 0
        self._number = 0
        self._fill = 0
        self._appended = 0
        self._handed = 0
        self._peak = 0
        self._committed = -1
        self._target = -1  # what the running commit covers; all there is while it has not started
        self._committing = False
        self._covered: list[asyncio.Future[None]] = []
        self._following: list[asyncio.Future[None]] = []
        self._wanting_room: list[asyncio.Future[None]] = []
        self._ended: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sync_due = 0.0
        self._refusal: RecorderFailed | None = RecorderFailed("The recorder was not started")
        self._failed: RecorderFailed | None = None
        self._lock = -1

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Create the writer's directory, lock and first segment, and start the thread.

        Raises RecorderFailed. Blocks for the few milliseconds of a first fsync.
        """
        self._loop = loop
        # Made under a hidden name, so that recovery never sees a writer's directory that is not locked yet.
        hidden = self.directory.with_name(f".{self._name}")
        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            hidden.mkdir(mode=0o700)
            lock = try_lock(hidden)
            assert lock is not None
            self._lock = lock
            hidden.rename(self.directory)
            sync_directory(self.directory.parent)
            self._writer = Writer(self.directory, self._name, self._clock, self._chain)
        except OSError as error:
            self._release_lock()
            raise RecorderFailed(
                "The recording cannot be started",
                f"{error.filename or self.directory}: {error.strerror}",
                "the data directory must be writable and must have space",
            ) from error
        self._next = self._chain.seq
        self._committed = self._writer.committed
        self._fill = self._segment_head(0)
        self._refusal = None
        loop.add_reader(self._writer.fileno(), self._on_signal)
        self._runner = threading.Thread(target=self._writer.run, name=f"recorder {self._name}", daemon=True)
        self._runner.start()
        _live.add(self)

    @property
    def failed(self) -> RecorderFailed | None:
        """Why nothing can be recorded any more, or None."""
        if self._failed is None and self._refusal is None:
            return self._writer.error
        return self._failed

    @property
    def stats(self) -> Stats:
        """Figures for metrics."""
        written = self._writer.written
        return Stats(self._next, self._writer.commits, written, self._appended - written, self._peak)

    def append(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes | memoryview
    ) -> int:
        """Queue one frame; returns its sequence number. Never blocks.

        A memoryview that can be written through is copied, another is kept until it is written: what lies under
        it must not change. Raises RecorderFailed once the recorder failed or was closed, or when four times
        `queue_bytes` wait (this frame alone is then refused); ValueError above MAX_PAYLOAD.
        """
        if self._refusal is not None or self._writer.error is not None:
            raise self._refused()
        payload = len(meta) + len(data)
        size = HEADER_SIZE + payload
        if payload > MAX_PAYLOAD:
            raise ValueError(f"a frame of {payload} bytes: split it, the most is {MAX_PAYLOAD}")
        self._appended += size
        queued = self._appended - self._writer.written
        if queued > self._peak:
            if queued > self._queue_bytes * _HARD:
                self._appended -= size
                raise RecorderFailed("The recorder's queue is full", f"{queued} bytes wait for the disk")
            self._peak = queued
        if self._fill + size > self._segment_bytes:
            self._rotate()
        self._fill += size
        seq = self._next
        self._next = seq + 1
        wall, mono = self._clock.wall_ns(), self._clock.mono_ns()
        if payload < _INLINE and self._handed == self._writer.encoded:
            if type(data) is not bytes:
                data = bytes(data)
            self._buffer += self._chain.encode_whole(kind, flags, session, exchange, wall, mono, meta, data)
            if len(self._buffer) >= _FLUSH:
                self._flush()
        else:
            if type(data) is not bytes and not (isinstance(data, memoryview) and data.readonly):
                data = bytes(data)
            self._flush()
            self._handed += 1
            self._writer.jobs.put(job(self._writer.encode, (kind, flags, session, exchange, wall, mono, meta, data)))
        if self._timer is None:
            self._sync_due = self._loop.time() + self._sync_after_s
            self._timer = self._loop.call_later(self._tick_s, self._tick)
        return seq

    async def durable(self, seq: int) -> None:
        """Return when frame `seq` is on stable storage. Raises RecorderFailed."""
        if seq <= self._committed:
            return
        if self._failed is not None:
            raise self._refused()
        if seq >= self._next:
            raise ValueError(f"frame {seq} was not appended yet")
        done = self._loop.create_future()
        if self._committing and seq > self._target:
            self._following.append(done)
        else:
            self._covered.append(done)
            if not self._committing:
                self._commit()
        await done

    async def room(self) -> None:
        """Return when at most `queue_bytes` wait for the disk. Raises RecorderFailed."""
        while self._appended - self._writer.written > self._queue_bytes:
            if self._refusal is not None:
                raise self._refused()
            freed = self._loop.create_future()
            self._wanting_room.append(freed)
            self._ask_for_room()
            await freed

    async def close(self) -> None:
        """Append WRITER_CLOSE, make everything durable, close the segment and give up the lock.

        A recorder that failed before only frees what it holds. Raises RecorderFailed if the closing fails.
        May be called twice.
        """
        if self._refusal is not None and self._failed is None:
            return
        failed_before = self.failed is not None
        try:
            if not failed_before:
                await self._end()
        except RecorderFailed:
            self._free()
            raise
        self._free()
        if self._failed is not None and not failed_before:
            raise self._refused()

    async def _end(self) -> None:
        await self.room()
        seq = self.append(Kind.WRITER_CLOSE, 0, ids.NIL, ids.NIL, b"{}", b"")
        self._refusal = RecorderFailed("The recorder is closed")
        try:
            await self.durable(seq)
            self._ended = self._loop.create_future()
            self._writer.jobs.put(self._writer.finish)
            await self._ended
        finally:
            self._writer.jobs.put(self._writer.stop)

    def _free(self) -> None:
        if self._lock < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._runner.join()
        self._loop.remove_reader(self._writer.fileno())
        if self._failed is None and self._writer.error is not None:
            self._fail(self._writer.error)
        self._writer.release()
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _refused(self) -> RecorderFailed:
        # A new one for each caller: an exception that is raised twice collects tracebacks.
        first = self._failed or self._refusal or self._writer.error
        assert first is not None
        return RecorderFailed(first.what, first.why, first.hint)

    # In the loop: handing over, committing, being woken.

    def _segment_head(self, number: int) -> int:
        meta = segment_meta(self._name, number, __version__, self._clock.wall_ns(), self._chain.running)
        return HEADER_SIZE + len(meta)

    def _flush(self) -> None:
        """Hand the buffer to the thread. It holds something only while the chain is the loop's."""
        if self._buffer:
            self._writer.jobs.put(job(self._writer.write, self._buffer, self._chain.seq, self._chain.running))
            self._buffer = bytearray()

    def _rotate(self) -> None:
        self._flush()
        self._number += 1
        self._fill = self._segment_head(self._number)
        self._appended += self._fill
        self._next += 1
        if self._handed == self._writer.encoded:
            first = self._writer.segment_frame(self._number)
            now = (self._chain.seq, self._chain.running)
            self._writer.jobs.put(job(self._writer.rotate, self._number, first, *now))
        else:
            self._handed += 1
            self._writer.jobs.put(job(self._writer.rotate, self._number, None, 0, b""))

    def _commit(self) -> None:
        """Start a commit at the end of this iteration of the loop; until then everyone joins it."""
        self._committing = True
        self._target = sys.maxsize
        self._loop.call_soon(self._start_commit)

    def _start_commit(self) -> None:
        if self._failed is not None:
            return
        self._flush()
        self._target = self._next - 1
        self._sync_due = self._loop.time() + self._sync_after_s
        self._writer.jobs.put(job(self._writer.commit, self._target))

    def _tick(self) -> None:
        """While anything is unwritten or unsynced: write it, and sync it in time."""
        self._timer = None
        if self._failed is not None or self._committed == self._next - 1:
            return
        self._flush()
        if not self._committing and self._loop.time() >= self._sync_due:
            self._commit()
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _on_signal(self) -> None:
        self._writer.acknowledge()
        # Before the error: what was committed before it is durable.
        if self._committing and self._writer.committed >= self._target:
            self._committed = self._target
            self._committing = False
            done, self._covered, self._following = self._covered, self._following, []
            if self._covered and self._writer.error is None:
                self._commit()
            _release(done)
        if self._writer.error is not None and self._failed is None:
            self._fail(self._writer.error)
        if self._wanting_room:
            self._ask_for_room()
        if self._writer.finished and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _ask_for_room(self) -> None:
        # The wish is noted first and looked at second, the thread counts first and looks second: none is missed.
        enough = self._appended - self._queue_bytes
        self._writer.room_at = enough
        if self._writer.written >= enough:
            waiting, self._wanting_room = self._wanting_room, []
            _release(waiting)

    def _fail(self, error: RecorderFailed) -> None:
        self._failed = self._refusal = error
        self._buffer = bytearray()
        waiting = [*self._covered, *self._following, *self._wanting_room]
        self._covered, self._following, self._wanting_room = [], [], []
        for one in waiting:
            if not one.done():
                one.set_exception(self._refused())
        if self._on_failure is not None:
            self._on_failure(error)


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(None)


def _after_fork() -> None:
    # The thread is not in the child: what it appended would be queued for ever, in the parent's chain.
    for recorder in list(_live):
        recorder._refusal = RecorderFailed("This process has no recorder", "it was forked from one that has")


os.register_at_fork(after_in_child=_after_fork)
