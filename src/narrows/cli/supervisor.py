"""The supervisor: starts the gateway's processes, restarts those that die, and stops them in order.

One process without threads, event loop or traffic, so that it has little to die of. Guarantees:

- one gateway per data directory (a lock that the kernel gives back whatever happens);
- a dead worker's write-ahead chain is recovered, and its gap recorded, before its replacement starts;
- children end when the supervisor does, killed or not (`child.LIFELINE`);
- a stop is a drain: workers get SIGTERM and `DRAIN_S` seconds, then the control process, which seals what they
  left; only then SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from narrows.cli.child import Child
from narrows.core.errors import NarrowsError
from narrows.settings import Settings

DRAIN_S = 12.0
"""A worker drains for ten seconds and then closes its record; the control process seals and indexes for seven."""
READY_S = 30.0
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
STEADY_S = 10.0
"""A child that lived this long did not fail at its start: the next restart is quick again."""


class StartError(NarrowsError):
    """The gateway did not start; everything that had been started is stopped."""

    code = "start_failed"


@dataclass(slots=True, eq=False)
class Process:
    """One child and what is known of it.

    Each start gets a write-ahead chain of its own, named after `writer`. `delay` is the pause before the next
    start, in seconds.
    """

    name: str
    writer: str
    command: Sequence[str]
    child: Child
    pass_fds: tuple[int, ...] = ()
    popen: subprocess.Popen[bytes] | None = None
    ready_read: int = -1
    ready: bool = False
    started: float = 0.0
    delay: float = FIRST_DELAY_S
    due: float | None = None
    """When to start it again; None while it runs."""

    @property
    def running(self) -> bool:
        """Started and not known to have ended."""
        return self.popen is not None


@dataclass(slots=True)
class Supervisor:
    """Runs `processes`; `recover` is called before a dead one is started again.

    `fresh` makes the name of a new chain from a process's `writer`. `say` takes one line for the operator. The
    control process is the one whose child has index -1.
    """

    processes: list[Process]
    recover: Callable[[], object]
    fresh: Callable[[str], str]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _stopping: int = 0
    _served: bool = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start all, call `on_ready` once when all serve, watch until a signal says stop, then stop all.

        Returns 0 after a clean stop, 1 if a child had to be killed. Raises StartError.
        """
        with self._signals():
            try:
                for process in self.processes:
                    self._start(process)
                self._until_ready()
                if not self._stopping:
                    self._served = True
                    on_ready()
                while not self._stopping:
                    self._turn()
            except BaseException:
                self._stop_all()
                raise
            return 0 if self._stop_all() else 1

    def _until_ready(self) -> None:
        deadline = self.clock() + READY_S
        while not self._stopping and not all(process.ready for process in self.processes):
            self._turn(deadline)
            for process in self.processes:
                if process.due is not None:
                    raise StartError(
                        "The gateway did not start",
                        f"its {process.name} process ended before it served",
                        "the message above or DATA/run/narrows.log says why",
                    )
            if self.clock() >= deadline:
                late = ", ".join(process.name for process in self.processes if not process.ready)
                raise StartError("The gateway did not start", f"not ready within {READY_S:g} s: {late}")

    def _turn(self, deadline: float | None = None) -> None:
        """Wait for a signal, a child's word or a due restart, and deal with all that came."""
        times = [process.due for process in self.processes if process.due is not None]
        if deadline is not None:
            times.append(deadline)
        timeout = max(0.0, min(times) - self.clock()) if times else None
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Process):
                self._heard(key.data)
            else:
                self._drain_wakeups(key.fd)
        self._reap()
        if self._served and not self._stopping:
            for process in self.processes:
                if process.due is not None and self.clock() >= process.due:
                    self._restart(process)

    def _start(self, process: Process) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process.child.ready_fd = write
        process.child.writer = self.fresh(process.writer)
        try:
            # A group of its own: a key of the terminal is for the supervisor, which stops children in order.
            process.popen = subprocess.Popen(
                process.command, stdin=subprocess.PIPE, pass_fds=(write, *process.pass_fds), process_group=0
            )
        except OSError as error:
            os.close(read)
            raise StartError("The gateway did not start", f"its {process.name} process: {error.strerror}") from error
        finally:
            os.close(write)
        process.ready_read = read
        process.ready = False
        process.due = None
        process.started = self.clock()
        self._selector.register(read, selectors.EVENT_READ, process)
        assert process.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: reaping tells
            process.popen.stdin.write(process.child.to_line())
            process.popen.stdin.flush()

    def _restart(self, process: Process) -> None:
        try:
            self.recover()
            self._start(process)
        except NarrowsError as error:
            # Not recovered means not started: a chain must not go on after a gap that is not on record.
            self.say(f"{process.name} was not restarted: {error}")
            self._put_off(process)
        else:
            self.say(f"{process.name} restarted as process {process.popen.pid if process.popen else '?'}")

    def _put_off(self, process: Process) -> None:
        process.due = self.clock() + process.delay
        process.delay = min(LAST_DELAY_S, process.delay * 2)

    def _heard(self, process: Process) -> None:
        said = os.read(process.ready_read, 16)
        self._forget_ready(process)
        if said:
            process.ready = True

    def _forget_ready(self, process: Process) -> None:
        if process.ready_read >= 0:
            self._selector.unregister(process.ready_read)
            os.close(process.ready_read)
            process.ready_read = -1

    def _reap(self) -> None:
        for process in self.processes:
            if process.popen is None or (code := process.popen.poll()) is None:
                continue
            self._forget_ready(process)
            if process.popen.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.popen.stdin.close()
            process.popen = None
            process.ready = False
            if self._stopping:
                continue
            if self.clock() - process.started >= STEADY_S:
                process.delay = FIRST_DELAY_S
            self._put_off(process)
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self.say(f"{process.name} {how}")

    def _stop_all(self) -> bool:
        """Stop workers, then the control process; True if none had to be killed."""
        self._stopping = max(self._stopping, 1)
        workers = [process for process in self.processes if process.child.index >= 0]
        control = [process for process in self.processes if process.child.index < 0]
        clean = self._stop(workers)
        return self._stop(control) and clean

    def _stop(self, group: list[Process]) -> bool:
        for process in group:
            if process.popen is not None:
                process.popen.terminate()
        deadline = self.clock() + DRAIN_S
        while any(process.running for process in group):
            # A second signal from the operator means: now.
            if self.clock() >= deadline or self._stopping > 1:
                break
            self._turn(deadline)
        left = [process for process in group if process.running]
        for process in left:
            assert process.popen is not None
            self.say(f"{process.name} did not stop in time and is killed; what it held is recovered at the next start")
            process.popen.kill()
            process.popen.wait()
        self._reap()
        return not left

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGHUP ask to stop, SIGCHLD wakes; all arrive through a pipe in the selector."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def stop(number: int, frame: object) -> None:
            self._stopping += 1

        before_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGTERM, stop),
                (signal.SIGINT, stop),
                (signal.SIGHUP, stop),
                (signal.SIGCHLD, lambda number, frame: None),
            )
        }
        self._selector.register(read, selectors.EVENT_READ, None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            self._selector.unregister(read)
            os.close(read)
            os.close(write)

    @staticmethod
    def _drain_wakeups(fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 4096):
                pass


def gateway_processes(settings: Settings, *, api_fd: int, token: str) -> list[Process]:
    """The processes of a gateway: one control process, `settings.workers` workers."""
    control = Process(
        "control",
        "control",
        [sys.executable, "-m", "narrows.cli.control"],
        Child(settings, writer="", index=-1, api_fd=api_fd, token=token),
        (api_fd,),
    )
    workers = [
        Process(
            f"worker {index}",
            f"worker-{index}",
            [sys.executable, "-m", "narrows.cli.worker", "--index", str(index)],
            Child(settings, writer="", index=index),
        )
        for index in range(settings.workers)
    ]
    return [control, *workers]
