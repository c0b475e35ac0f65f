"""What the supervisor hands to the processes it starts, and how they answer.

A child gets one line of JSON on its standard input: settings, its place, and the API token for the control
process. Nothing of it is in an argument or a variable, where other programs would find it. The pipe then
stays open and silent; its end means that the supervisor died, and a child without one must drain and stop.
A child that serves says so by one byte on `ready_fd`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from narrows.core.errors import ConfigError
from narrows.settings import Settings

LIFELINE = 0
"""The file descriptor that ends when the supervisor dies: standard input."""


class _Loop(Protocol):
    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...


@dataclass(slots=True)
class Child:
    """One started process, as seen from inside.

    `settings` has the ports that were really taken. `writer` names its write-ahead chain under `wal/`.
    `index` counts data-plane workers from 0; the control process has -1. `api_fd` is the control process's
    listening socket (-1 for workers); a worker binds the gateway port itself, with SO_REUSEPORT.
    """

    settings: Settings
    writer: str
    index: int = -1
    ready_fd: int = -1
    api_fd: int = -1
    token: str = field(default="", repr=False)

    def to_line(self) -> bytes:
        """The line that goes to the child's standard input."""
        return (
            json.dumps(
                {
                    "settings": json.loads(self.settings.to_json()),
                    "writer": self.writer,
                    "index": self.index,
                    "ready_fd": self.ready_fd,
                    "api_fd": self.api_fd,
                    "token": self.token,
                }
            ).encode()
            + b"\n"
        )

    @classmethod
    def from_line(cls, line: bytes) -> Child:
        """The inverse of `to_line`. Raises ConfigError."""
        try:
            raw = json.loads(line)
            settings = Settings.from_json(json.dumps(raw.pop("settings")))
            return cls(settings=settings, **raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                "This process is started by `narrows up` only",
                "its standard input did not hold what the supervisor passes",
                "run `narrows up`",
            ) from error

    def ready(self) -> None:
        """Tell the supervisor that this process serves. Only the first call has an effect."""
        if self.ready_fd >= 0:
            try:
                os.write(self.ready_fd, b"1")
            finally:
                os.close(self.ready_fd)
                self.ready_fd = -1

    def on_orphaned(self, loop: _Loop, stop: Callable[[], object]) -> None:
        """Call `stop` once when the supervisor is gone: a gateway without it would run unwatched."""

        def ended() -> None:
            if not os.read(LIFELINE, 4096):
                loop.remove_reader(LIFELINE)
                stop()

        os.set_blocking(LIFELINE, False)
        loop.add_reader(LIFELINE, ended)


def receive(fd: int = LIFELINE) -> Child:
    """Read what the supervisor passed. Called once, first thing in `main`. Raises ConfigError."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(fd, 1)  # byte by byte: what follows the line is the lifeline's
        if not chunk:
            break
        line += chunk
    return Child.from_line(bytes(line))
