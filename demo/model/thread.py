"""The server in a thread of its own, for clients that block and for agents that are processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from demo.model.script import Script
from demo.model.server import ModelServer


@contextmanager
def served(script: Script, *, key: str = "") -> Iterator[ModelServer]:
    """Serve until the block is left. What fails in the thread is raised here."""
    server = ModelServer(script, key=key)
    ready = threading.Event()
    failures: list[BaseException] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with server.run():
            stop.append((asyncio.get_running_loop(), end))
            ready.set()
            await end.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised in the other thread
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="model")
    thread.start()
    ready.wait()
    try:
        if not failures:
            yield server
    finally:
        for loop, end in stop:
            loop.call_soon_threadsafe(end.set)
        thread.join()
    if failures:
        raise failures[0]
