"""The recorder: order, group commit, limits, rotation, closing."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from tests.recording import CLOCK, EXCHANGE, SESSION, put, read_all, recording, run

from narrows.core.errors import RecorderFailed
from narrows.record.log.frame import Kind
from narrows.record.recorder import MAX_PAYLOAD, Recorder
from narrows.record.segment import numbers, try_lock


class Gate:
    """An fdatasync that waits until it is let through, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real: Callable[[int], None] = os.fdatasync
        self.open = threading.Event()
        self.entered = threading.Event()
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, fd: int) -> None:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        assert self.open.wait(10)
        self._real(fd)
        self.at_once -= 1


def test_frames_come_back_in_order_with_their_facts(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            seqs = [put(recorder, f"{n}".encode(), meta=b"{}", flags=n) for n in range(5)]
            assert seqs == [1, 2, 3, 4, 5]
            await recorder.durable(seqs[-1])

    run(body)
    first, *middle, last = read_all(tmp_path / "w")
    assert first.kind == Kind.SEGMENT
    meta = json.loads(first.meta)
    assert (meta["writer"], meta["segment"], meta["previous_running"]) == ("w", 0, "00" * 32)
    assert [(f.data, f.flags, f.meta, f.session, f.exchange) for f in middle] == [
        (f"{n}".encode(), n, b"{}", SESSION, EXCHANGE) for n in range(5)
    ]
    assert last.kind == Kind.WRITER_CLOSE


def test_what_is_durable_is_in_the_file(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            for n in range(20):
                await recorder.durable(put(recorder, bytes([n]) * (1 if n % 2 else 50_000)))
                assert read_all(tmp_path / "w")[-1].data[:1] == bytes([n])

    run(body)


def test_small_and_large_frames_of_many_tasks_keep_the_order_of_append(tmp_path: Path) -> None:
    appended: list[tuple[int, bytes]] = []

    async def body() -> None:
        async with recording(tmp_path, segment_bytes=3_000_000) as recorder:

            async def client(number: int) -> None:
                for n in range(30):
                    data = bytes([number, n]) * (40_000 if (n + number) % 7 == 0 else 20)
                    seq = put(recorder, data)
                    appended.append((seq, data))
                    if n % 3 == 0:
                        await recorder.durable(seq)
                    await recorder.room()

            await asyncio.gather(*(client(number) for number in range(16)))

    run(body)
    found = [(f.seq, f.data) for f in read_all(tmp_path / "w") if f.kind == Kind.REQUEST]
    assert found == appended
    assert len(numbers(tmp_path / "w")) > 1


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path / "wal"):
            pass

    run(body)
    modes = {str(p.relative_to(tmp_path)): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes == {"wal": 0o700, "wal/w": 0o700, "wal/w/lock": 0o600, "wal/w/00000000.seg": 0o600}


def test_everyone_who_asks_in_one_iteration_shares_one_commit(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            await asyncio.gather(*(recorder.durable(put(recorder)) for _ in range(64)))
            assert recorder.stats.commits == 1

    run(body)


def test_one_commit_at_a_time_and_waiters_meanwhile_share_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with recording(tmp_path) as recorder:
            first = asyncio.gather(recorder.durable(put(recorder)))
            await loop.run_in_executor(None, gate.entered.wait, 10)
            later = asyncio.gather(*(recorder.durable(put(recorder)) for _ in range(20)))
            await asyncio.sleep(0)
            assert not first.done() and not later.done()
            gate.open.set()
            await first
            await later
            assert recorder.stats.commits == 2

    run(body)
    assert gate.most_at_once == 1


def test_without_durable_frames_are_written_and_synced_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    real = os.fdatasync
    seen: list[int] = []

    def watch(fd: int) -> None:
        real(fd)
        seen.append(len(read_all(tmp_path / "w")))
        synced.set()

    monkeypatch.setattr(os, "fdatasync", watch)

    async def body() -> None:
        async with recording(tmp_path) as recorder:
            loop = asyncio.get_running_loop()
            started = loop.time()
            put(recorder)
            assert await loop.run_in_executor(None, synced.wait, 10)
            assert loop.time() - started >= 0.03
            assert seen == [2]
            for _ in range(3):  # nothing new: no further sync
                await asyncio.sleep(0.02)
            assert seen == [2]

    run(body)


def test_256_kib_are_written_without_waiting_for_the_timer(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path, flush_interval_s=3600) as recorder:
            for _ in range(40):
                put(recorder, bytes(8000))
            while recorder.stats.queued > 100_000:
                await asyncio.sleep(0)
            assert len(read_all(tmp_path / "w")) > 30

    run(body)


def test_segments_rotate_and_the_chain_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path, segment_bytes=100_000) as recorder:
            for n in range(100):
                put(recorder, bytes([n]) * 5_000)
                if n % 10 == 0:
                    put(recorder, bytes([n]) * 40_000)
            await recorder.durable(put(recorder))

    run(body)
    found = read_all(tmp_path / "w")
    assert [f.seq for f in found] == list(range(len(found)))
    firsts = [f for f in found if f.kind == Kind.SEGMENT]
    assert [json.loads(f.meta)["segment"] for f in firsts] == numbers(tmp_path / "w")
    assert len(firsts) > 5
    for first in firsts[1:]:
        assert json.loads(first.meta)["previous_running"] == found[first.seq - 1].running.hex()
    assert all(p.stat().st_size <= 100_000 for p in (tmp_path / "w").glob("*.seg"))


def test_a_buffer_that_changes_after_append_does_not_change_the_record(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            for size in (100, 100_000):
                buffer = bytearray(b"a" * size)
                put(recorder, memoryview(buffer))
                buffer[:] = b"b" * size

    run(body)
    assert [set(f.data) for f in read_all(tmp_path / "w") if f.kind == Kind.REQUEST] == [{ord("a")}, {ord("a")}]


def test_room_waits_while_too_much_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def body() -> None:
        async with recording(tmp_path, queue_bytes=1_000_000) as recorder:
            stalled = asyncio.gather(recorder.durable(put(recorder)))
            await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait, 10)
            while recorder.stats.queued <= 1_000_000:
                await recorder.room()
                put(recorder, bytes(300_000))
            waiting = asyncio.gather(recorder.room())
            await asyncio.sleep(0)
            assert not waiting.done()
            gate.open.set()
            await waiting
            assert recorder.stats.queued <= 1_000_000
            assert recorder.stats.queue_peak < 1_400_000
            await stalled

    run(body)


def test_a_caller_that_never_asks_for_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def body() -> None:
        async with recording(tmp_path, queue_bytes=1_000_000) as recorder:
            stalled = asyncio.gather(recorder.durable(put(recorder)))
            await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait, 10)
            with pytest.raises(RecorderFailed, match="queue is full"):
                for _ in range(100):
                    put(recorder, bytes(300_000))
            assert recorder.failed is None
            gate.open.set()
            await stalled
            await recorder.durable(put(recorder))

    run(body)
    seqs = [f.seq for f in read_all(tmp_path / "w")]
    assert seqs == list(range(len(seqs)))


def test_a_frame_that_is_too_large_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            with pytest.raises(ValueError, match="split"):
                put(recorder, bytes(MAX_PAYLOAD + 1))
            await recorder.durable(put(recorder, bytes(MAX_PAYLOAD)))
            with pytest.raises(ValueError, match="not appended"):
                await recorder.durable(10_000)

    run(body)
    assert [len(f.data) for f in read_all(tmp_path / "w")] == [0, MAX_PAYLOAD, 0]


def test_after_close_nothing_is_taken_and_the_lock_is_free(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            assert try_lock(tmp_path / "w") is None
            seq = put(recorder)
        await recorder.close()
        await recorder.durable(seq)
        with pytest.raises(RecorderFailed, match="closed"):
            put(recorder)

    run(body)
    lock = try_lock(tmp_path / "w")
    assert lock is not None
    os.close(lock)


def test_a_writer_name_cannot_be_used_twice(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path):
            pass
        second = Recorder(tmp_path, "w", CLOCK)
        with pytest.raises(RecorderFailed, match="not started"):
            put(second)
        with pytest.raises(RecorderFailed, match="cannot be started"):
            second.start(asyncio.get_running_loop())

    run(body)


def test_a_cancelled_waiter_does_not_disturb_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def body() -> None:
        async with recording(tmp_path) as recorder:
            seq = put(recorder)
            one, other = asyncio.gather(recorder.durable(seq)), asyncio.gather(recorder.durable(seq))
            await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait, 10)
            one.cancel()
            gate.open.set()
            await other
            with pytest.raises(asyncio.CancelledError):
                await one

    run(body)


def _append_in_child(recorder: Recorder, answer: Connection) -> None:
    try:
        put(recorder)
    except RecorderFailed as error:
        answer.send(str(error))
    else:
        answer.send("appended")


def test_a_forked_child_cannot_append_to_its_parents_chain(tmp_path: Path) -> None:
    async def body() -> None:
        async with recording(tmp_path) as recorder:
            fork = multiprocessing.get_context("fork")
            ours, theirs = fork.Pipe()
            child = fork.Process(target=_append_in_child, args=(recorder, theirs))
            child.start()
            assert "forked" in ours.recv()
            child.join()
            await recorder.durable(put(recorder))

    run(body)
