"""Processes under measurement: started on a core, counted from /proc, and always stopped.

CPU seconds are user and system time of whole processes, threads included, in units of the kernel's tick (10 ms).
Every process gets a session of its own, so that stopping it takes its children with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_S = 40.0
"""The gateway may drain its workers and then its control process, ten seconds each."""


class BenchError(Exception):
    """The run cannot give figures that mean anything. The text says why, and what to do."""


@contextlib.contextmanager
def started(
    command: Sequence[str | Path],
    *,
    core: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` on `core` in a session of its own, output to `log`; stop it and its children at the end."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family = tree(process.pid)
        if process.poll() is None:
            process.send_signal(stop)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in family[1:]:  # what a killed parent left behind
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == process.pid:
                    os.kill(pid, signal.SIGKILL)


def wait_until(
    ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path, within_s: float
) -> None:
    """Return when `ready` says so. Raises BenchError, with the end of the log, if the process dies or time is up."""
    deadline = time.monotonic() + within_s
    while not ready():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            why = f"ended with code {code}" if code is not None else f"was not ready within {within_s:g} s"
            raise BenchError(f"{what} {why}; the end of {log}:\n{log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether something accepts connections on a local port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tree(root: int) -> list[int]:
    """`root` and all that descend from it, in no order but `root` first; those that ended are not in it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def command_line(pid: int) -> list[str]:
    """The arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have used. Raises BenchError if one of them has ended."""
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        if not fields:
            raise BenchError(f"process {pid} ended while it was measured")
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory of the processes together, in MiB (shared pages count in each)."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * PAGE / 2**20


def be_nice(pid: int) -> None:
    """Give every thread of a process the lowest priority; threads that they start inherit it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), 19)


def pin(pid: int, core: int) -> None:
    """Move every thread of a process to a core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, parent, ...; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(")") + 2 :].split()
