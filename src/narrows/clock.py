"""The real clock: `core.ports.Clock` for everything that runs; tests bring their own."""

from __future__ import annotations

import time


class SystemClock:
    """The system's wall clock and its monotonic clock."""

    __slots__ = ()

    wall_ns = staticmethod(time.time_ns)
    mono_ns = staticmethod(time.monotonic_ns)
