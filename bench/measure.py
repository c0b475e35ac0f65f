"""Rounds: every target of a cell in turn, again and again, so that all of them see the same machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import load
from bench.figures import Sample
from bench.gateway import Gateway
from bench.load import ANYONE, Call, Way
from bench.processes import BenchError, cpu_seconds, resident_mb, tree
from bench.servers import Origin
from botocore.credentials import Credentials

SETTLE_S = 0.1
"""Buffered frames are on disk 50 ms after their answer: their writing is part of the round."""


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing under test, as clients see it. `pid` is the root of its processes, unless it is a gateway."""

    name: str
    port: int
    pid: int = 0
    gateway: Gateway | None = None
    credentials: Credentials = ANYONE
    around: Callable[[], contextlib.AbstractContextManager[None]] = field(default=contextlib.nullcontext)
    prefix: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def way(self) -> Way:
        """How it is asked."""
        return Way(self.port, self.credentials, self.prefix, self.headers)

    def working(self) -> list[int]:
        """The processes that carry the load."""
        return self.gateway.workers if self.gateway else tree(self.pid)

    def everything(self) -> list[int]:
        """All of its processes."""
        return self.gateway.everything if self.gateway else tree(self.pid)


@dataclass(frozen=True, slots=True)
class Cell:
    """One call at one number of connections, on several targets, in rounds of so many seconds."""

    name: str
    call: Call
    connections: int
    seconds: int
    targets: Sequence[Target]


@dataclass(frozen=True, slots=True)
class Bench:
    """How cells are measured: how many rounds, the load's core, and a directory for the load."""

    rounds: int
    core: int
    here: Path
    origin: Origin

    def cell(self, cell: Cell) -> Iterator[Sample]:
        """Check that every target does the work, warm it up, then measure it in every round. Raises BenchError."""
        for target in cell.targets:
            self._check(cell.call, target)
        for number in range(-1, self.rounds):
            # The order turns, so that none always runs behind the same other.
            turn = number % len(cell.targets)
            for target in [*cell.targets[turn:], *cell.targets[:turn]]:
                with target.around():
                    sample = self._round(cell, target, number)
                if number >= 0:
                    say(_line(sample))
                    yield sample

    def _round(self, cell: Cell, target: Target, number: int) -> Sample:
        working, everything = target.working(), target.everything()
        gateway = target.gateway
        leaves = gateway.leaves() if gateway else 0
        before, all_before = cpu_seconds(working), cpu_seconds(everything)
        peak, all_peak = [0.0], [0.0]

        def watch() -> None:
            peak.append(resident_mb(working))
            all_peak.append(resident_mb(everything))

        loaded = load.run(
            cell.call,
            target.way,
            connections=cell.connections,
            seconds=cell.seconds if number >= 0 else 1,
            core=self.core,
            here=self.here,
            watch=watch,
        )
        time.sleep(SETTLE_S)
        cpu = cpu_seconds(working) - before
        began = time.monotonic()
        if gateway:
            gateway.drained(leaves + loaded.requests)
        return Sample(
            cell.name, target.name, number, cell.connections, loaded.requests, loaded.seconds,
            round(cpu, 3), round(cpu_seconds(everything) - all_before, 3), round(time.monotonic() - began, 2),
            loaded.p50_us, loaded.p99_us, round(max(peak), 1), round(max(all_peak), 1),
        )  # fmt: skip

    def _check(self, call: Call, target: Target) -> None:
        """Send the call once and look at what came of it. Raises BenchError if it was not done."""
        self.origin.uploaded.unlink(missing_ok=True)
        status, body = load.once(call, target.way)
        if call.method == "PUT":
            stored = self.origin.uploaded
            done = status in (201, 204) and stored.exists() and _sha256(stored.read_bytes()) == _sha256(call.body)
        else:
            _, direct = load.once(call, Way(self.origin.port, ANYONE))
            # Peers write a model's answer anew; ours must be the origin's byte for byte.
            same = _said(body) == _said(direct) if call.name == "chat" and target.gateway is None else body == direct
            done = status == 200 and same
        if not done:
            raise BenchError(f"{target.name} did not do {call.name}: status {status}, {body[:300]!r}")


def _said(body: bytes) -> str:
    """What a chat completion says."""
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError):
        return repr(body)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _line(sample: Sample) -> str:
    return (
        f"  {sample.cell:12} round {sample.round + 1} {sample.target:28} {sample.requests / sample.seconds:8.0f} req/s "
        f"{sample.rate if sample.cpu_s else 0:8.0f} per CPU-s  p50 {sample.p50_us:7.0f} us  p99 {sample.p99_us:7.0f} us"
        + (f"  caught up in {sample.drain_s:.1f} s" if sample.drain_s >= 0.5 else "")
    )
