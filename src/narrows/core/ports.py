"""Ports: what the path needs from the outside world, as Protocols. Implementations live in their own layers."""

from __future__ import annotations

from typing import Protocol

from narrows.core.values import Connection, Described, StoredExchange


class Clock(Protocol):
    """The only source of time for code that is not pure."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds of a clock that never goes back."""
        ...


class Directory(Protocol):
    """Connections and revocations as the data plane sees them, at most a second old. Reads never block."""

    def connection(self, name: str) -> Connection | None:
        """The registered connection of that name."""
        ...

    def by_host(self, host: str) -> Connection | None:
        """The connection that claims a host name (lower case, no port), exact names before suffixes."""
        ...

    def session_ended(self, session: bytes) -> str:
        """Why a session's leases no longer work (`killed`, `closed`, `expired`), or an empty string."""
        ...


class Recorder(Protocol):
    """Where frames go. See `narrows.record.recorder` for the guarantees."""

    def append(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes | memoryview
    ) -> int:
        """Queue one frame; returns its sequence number. Raises RecorderFailed. Never blocks."""
        ...

    async def durable(self, seq: int) -> None:
        """Return when frame `seq` is on stable storage (strict), or raise RecorderFailed."""
        ...

    async def room(self) -> None:
        """Return when the queue is below its limit: bulk writers wait here before reading more."""
        ...


class Describe(Protocol):
    """Turns a stored exchange into its meaning; never raises on hostile bytes (says so in `problems`)."""

    def __call__(self, exchange: StoredExchange) -> Described:
        """Describe one exchange."""
        ...
