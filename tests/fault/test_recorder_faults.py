"""Faults of the recording: kill -9, broken and full disks, a stalled disk. Each acknowledged frame survives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.recording import CLOCK, put, read_all, run

from narrows.core.errors import RecorderFailed
from narrows.record.log.frame import Frame, Kind
from narrows.record.recorder import Recorder
from narrows.record.recovery import recover
from narrows.record.segment import try_lock

CHILD = """
import asyncio, os, sys
from pathlib import Path
import uvloop
from tests.recording import put, CLOCK
from narrows.record.recorder import Recorder

async def main():
    recorder = Recorder(Path(sys.argv[1]), sys.argv[2], CLOCK, segment_bytes=200_000)
    recorder.start(asyncio.get_running_loop())
    async def client(number):
        n = 0
        while True:
            n += 1
            data = b"%d.%d" % (number, n)
            seq = put(recorder, data if n % 5 else data.ljust(20_000, b"."))
            put(recorder, b"unacknowledged")
            await recorder.durable(seq)
            os.write(1, b"%d %s\\n" % (seq, data))
    await asyncio.gather(*(client(number) for number in range(8)))

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""


def kill_at_random(wal: Path, name: str, delay_lines: int) -> list[tuple[int, bytes]]:
    """Run a recording child, kill it after so many acknowledgements; all it acknowledged."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(wal), name],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(delay_lines)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return [(int(line.split()[0]), line.split()[1]) for line in lines if line.endswith(b"\n")]


def test_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    moments = random.Random(7)
    for kill in range(30):
        acknowledged = kill_at_random(tmp_path, f"w{kill}", moments.randrange(1, 120))
        assert acknowledged
        report = recover(tmp_path, CLOCK, lambda *_: 1)
        report.mark()
        (found,) = report.writers
        assert (found.damage, found.closed) == ("", False)
        by_seq = {frame.seq: frame for frame in read_all(tmp_path / f"w{kill}")}
        for seq, data in acknowledged:
            assert by_seq[seq].data.rstrip(b".") == data


async def failing(recorder: Recorder) -> RecorderFailed:
    """Use the recorder until it fails; then it stays failed, for waiters and for new frames."""
    with pytest.raises(RecorderFailed) as failure:
        for _ in range(100_000):
            await recorder.durable(put(recorder, b"x" * 3000))
    with pytest.raises(RecorderFailed):
        put(recorder)
    with pytest.raises(RecorderFailed):
        await recorder.durable(10**6)
    assert recorder.failed is not None
    return failure.value


def started(directory: Path, **options: int) -> tuple[Recorder, list[RecorderFailed]]:
    told: list[RecorderFailed] = []
    recorder = Recorder(directory, "w", CLOCK, on_failure=told.append, **options)
    recorder.start(asyncio.get_running_loop())
    return recorder, told


def test_an_error_of_fsync_is_final_and_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def broken(fd: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.EIO, "Input/output error")

    async def body() -> None:
        recorder, told = started(tmp_path)
        monkeypatch.setattr(os, "fdatasync", broken)
        monkeypatch.setattr(os, "fsync", broken)
        waiters = [asyncio.ensure_future(recorder.durable(put(recorder))) for _ in range(10)]  # noqa: TID251
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(result, RecorderFailed) for result in results)
        assert len({id(result) for result in results}) == 10
        error = await failing(recorder)
        assert "00000000.seg: Input/output error" in error.why
        assert "restart" in error.hint
        assert len(told) == 1
        await recorder.close()
        assert calls == 1
        assert len(told) == 1

    run(body)


@pytest.mark.parametrize("size", [10, 100_000])
def test_an_error_of_write_fails_the_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    def broken(fd: int, pieces: list[bytes], offset: int) -> int:
        if offset == os.fstat(fd).st_size:
            raise AssertionError("unreserved")
        os.pwrite(fd, b"".join(pieces)[:5], offset)
        raise OSError(errno.EIO, "Input/output error")

    async def body() -> None:
        recorder, told = started(tmp_path)
        await recorder.durable(put(recorder, b"before"))
        monkeypatch.setattr(os, "pwritev", broken)
        with pytest.raises(RecorderFailed, match="Input/output error"):
            await recorder.durable(put(recorder, bytes(size)))
        assert len(told) == 1
        monkeypatch.undo()
        await failing(recorder)
        await recorder.close()

    run(body)
    report = recover(tmp_path, CLOCK, lambda *_: 1)
    assert report.writers[0].torn_bytes > 0
    assert [f.data for f in read_all(tmp_path / "w")] == [b"", b"before"]


def test_an_error_while_closing_is_raised_and_the_lock_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def body(function: str) -> None:
        recorder, told = started(tmp_path / function)
        await recorder.durable(put(recorder))
        with monkeypatch.context() as patch:
            patch.setattr(os, function, broken)
            with pytest.raises(RecorderFailed, match="Input/output error"):
                await recorder.close()
        assert len(told) == 1
        await recorder.close()
        lock = try_lock(recorder.directory)
        assert lock is not None
        os.close(lock)

    run(lambda: body("fdatasync"))
    run(lambda: body("fsync"))


def test_a_failure_without_waiters_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def body() -> None:
        told = asyncio.get_running_loop().create_future()
        recorder = Recorder(tmp_path, "w", CLOCK, on_failure=told.set_result)
        recorder.start(asyncio.get_running_loop())
        monkeypatch.setattr(os, "fdatasync", broken)
        put(recorder)
        assert isinstance(await told, RecorderFailed)
        with pytest.raises(RecorderFailed):
            put(recorder)
        await recorder.close()

    run(body)


def test_a_bug_in_the_thread_fails_the_recorder(tmp_path: Path) -> None:
    async def body() -> None:
        recorder, told = started(tmp_path)

        def bug() -> None:
            raise ZeroDivisionError

        recorder._writer.jobs.put(bug)
        with pytest.raises(RecorderFailed, match="ZeroDivisionError"):
            await recorder.durable(put(recorder))
        assert len(told) == 1
        await recorder.close()

    run(body)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def last_words(frames: list[Frame]) -> dict[str, object]:
    gap = frames[-1]
    assert gap.kind == Kind.GAP
    facts: dict[str, object] = json.loads(gap.meta)
    assert facts["after_seq"] == gap.seq - 1 == frames[-2].seq
    assert facts["running"] == frames[-2].running.hex()
    return facts


@pytest.mark.parametrize("segment_bytes", [128 * 1024 * 1024, 500_000])
@pytest.mark.parametrize("size", [3000, 60_000])
def test_a_full_disk_stops_everything_and_says_so_on_the_record(
    small_disk: Path, segment_bytes: int, size: int
) -> None:
    acknowledged: list[int] = []

    async def body() -> None:
        recorder, told = started(small_disk / "wal", segment_bytes=segment_bytes)
        with pytest.raises(RecorderFailed, match="No space left"):
            while True:
                seq = put(recorder, bytes(size))
                await recorder.durable(seq)
                acknowledged.append(seq)
        error = await failing(recorder)
        assert "free space" in error.hint
        assert len(told) == 1
        await recorder.close()

    run(body)
    frames = read_all(small_disk / "wal" / "w")
    assert last_words(frames)["why"] == "disk full, nothing passes from here"
    assert set(acknowledged) <= {frame.seq for frame in frames}
    assert sum(frame.size for frame in frames) > 1_400_000
    report = recover(small_disk / "wal", CLOCK, lambda *_: 1)
    assert (report.writers[0].damage, report.writers[0].torn_bytes) == ("", 0)


def test_a_disk_that_is_full_at_the_start_is_said_at_the_start(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "fill").open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()

    async def body() -> None:
        recorder = Recorder(small_disk, "w", CLOCK)
        with pytest.raises(RecorderFailed, match="No space left"):
            recorder.start(asyncio.get_running_loop())
        with pytest.raises(RecorderFailed):
            put(recorder)

    run(body)


def test_memory_stays_bounded_while_the_disk_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, piece = 4 * 1024 * 1024, 256 * 1024
    let_go, entered = threading.Event(), threading.Event()
    real = os.fdatasync

    def stalled(fd: int) -> None:
        entered.set()
        assert let_go.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", stalled)

    async def body() -> None:
        recorder, _ = started(tmp_path, queue_bytes=limit)
        first = asyncio.gather(recorder.durable(put(recorder)))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 10)

        async def stream() -> None:
            for _ in range(40):
                await recorder.room()
                put(recorder, os.urandom(piece))

        tracemalloc.start()
        try:
            streams = asyncio.gather(*(stream() for _ in range(4)))
            for _ in range(500):
                await asyncio.sleep(0)
            assert not streams.done()
            assert tracemalloc.get_traced_memory()[1] < limit + 5 * piece
            assert recorder.stats.queue_peak < limit + 5 * piece
            let_go.set()
            await streams
            await first
            assert tracemalloc.get_traced_memory()[1] < limit + 8 * piece
        finally:
            tracemalloc.stop()
        await recorder.close()

    run(body)
    assert sum(len(f.data) for f in read_all(tmp_path / "w")) == 160 * piece + 4
