"""The one way to start a background task: its exception is never lost, and it is held until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_running: set[asyncio.Task[Any]] = set()


def spawn(
    coroutine: Coroutine[Any, Any, Any], *, name: str, on_error: Callable[[BaseException], None] | None = None
) -> asyncio.Task[Any]:
    """Start `coroutine` as a task. Its exception goes to `on_error`, or else to the loop's exception handler."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(coroutine, name=name)
    _running.add(task)

    def done(finished: asyncio.Task[Any]) -> None:
        _running.discard(finished)
        if finished.cancelled():
            return
        error = finished.exception()
        if error is None:
            return
        if on_error is not None:
            on_error(error)
        else:
            loop.call_exception_handler(
                {"message": f"background task {name} failed", "exception": error, "task": finished}
            )

    task.add_done_callback(done)
    return task
