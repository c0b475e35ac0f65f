"""Test equipment for the write-ahead side of the recording: a clock, a recorder in a loop, frames read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from narrows.record.log.frame import Frame, Kind
from narrows.record.recorder import Recorder
from narrows.record.tail import SegmentReader

SESSION = bytes(range(16))
EXCHANGE = bytes(range(16, 32))


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Unix nanoseconds."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()


CLOCK = SystemClock()


@asynccontextmanager
async def recording(directory: Path, name: str = "w", **options: Any) -> AsyncIterator[Recorder]:
    """A started recorder, closed at the end."""
    recorder = Recorder(directory, name, CLOCK, **options)
    recorder.start(asyncio.get_running_loop())
    try:
        yield recorder
    finally:
        await recorder.close()


def put(
    recorder: Recorder,
    data: bytes | memoryview = b"data",
    *,
    meta: bytes = b"",
    flags: int = 0,
    exchange: bytes = EXCHANGE,
) -> int:
    """Append one REQUEST frame."""
    return recorder.append(Kind.REQUEST, flags, SESSION, exchange, meta, data)


def read_all(writer: Path) -> list[Frame]:
    """Every frame of a writer, every link checked."""
    found: list[Frame] = []
    with SegmentReader(writer) as reader:
        while batch := reader.read():
            found += batch
    return found


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function under uvloop, as the workers do."""

    async def main() -> None:
        await asyncio.wait_for(body(), 60)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
