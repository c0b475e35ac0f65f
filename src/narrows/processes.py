"""Who asks: a process and those above it, as the kernel tells of them in /proc (proc(5)). Linux only.

A process is `{"pid", "start", "ppid", "argv", "cwd", "exe"}`: `start` is in clock ticks since boot and makes the pid
unique, since pids are used again. What cannot be read (another user's `cwd` and `exe`) is empty. The command lines
and names are what the processes say of themselves; pids, starts and parents are the kernel's word.

Guarantees: bounded (`DEPTH` processes, `ARGV` bytes of arguments together), never raises for what happens to the
processes meanwhile: one that ends, or whose pid is used again, ends the list. A few hundred microseconds for a usual
tree. Imports almost nothing: commands that agents start often start through here.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH = 32
"""Processes in a list, at most."""

ARGV = 32 * 1024
"""Bytes of all arguments in a list, at most."""

CUT = "[cut]"
"""Stands as the last argument where the others did not fit."""

_PATH = 4096


def tree(pid: int, start: int = 0) -> list[dict[str, Any]]:
    """The process and those above it, nearest first, up to the session's `narrows run` or process 1.

    With `start`, empty unless that is when the process began: the pid was used again.
    """
    found: list[dict[str, Any]] = []
    left = ARGV
    while pid > 0 and len(found) < DEPTH:
        began, parent = stat(pid)
        # A parent began before its child: otherwise its pid was used again since the child named it.
        if not began or (start and began != start) or (found and began > found[-1]["start"]):
            break
        start = 0
        argv, left = _argv(pid, left)
        one = {"pid": pid, "start": began, "ppid": parent, "argv": argv, "cwd": _link(pid, "cwd"),
               "exe": _link(pid, "exe")}  # fmt: skip
        if stat(pid)[0] != began:
            break
        found.append(one)
        if runs_session(argv):
            break
        pid = parent
    return found


def stat(pid: int) -> tuple[int, int]:
    """Start and parent of a process; zeros for one that is gone or has ended."""
    # The name, in parentheses, may hold anything: the fields are counted from the last one.
    fields = _read(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return 0, 0
    return int(fields[19]), int(fields[1])


def runs_session(argv: list[str]) -> bool:
    """Whether this is a `narrows run`: what is above it did not start within the session."""
    for at, word in enumerate(argv[:4]):
        if word.rpartition("/")[2] in ("narrows", "narrows.cli.main"):
            return argv[at + 1 : at + 2] == ["run"]
    return False


def peer(text: str) -> list[dict[str, Any]]:
    """The list for a client that the kernel named (`pid:PID:START`); empty for any other, and once it has ended."""
    kind, _, rest = text.partition(":")
    pid, _, start = rest.partition(":")
    if kind != "pid" or not pid.isdecimal() or not start.isdecimal() or int(start) == 0:
        return []
    return tree(int(pid), int(start))


def _argv(pid: int, left: int) -> tuple[list[str], int]:
    """The arguments, as far as `left` bytes go, and what is left then."""
    raw = _read(f"/proc/{pid}/cmdline", left + 1)
    whole = len(raw) <= left
    if not raw:
        return [], left
    raw = raw[:left].removesuffix(b"\0")
    argv = [part.decode("utf-8", "backslashreplace") for part in raw.split(b"\0")] if raw or whole else []
    if not whole:
        argv.append(CUT)
    return argv, max(0, left - len(raw) - 1)


def _link(pid: int, name: str) -> str:
    try:
        where = os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - pathlib costs a quick command 8 ms
    except OSError:
        return ""  # another user's, or gone
    return os.fsencode(where)[:_PATH].decode("utf-8", "backslashreplace")


def _read(path: str, most: int) -> bytes:
    """At most `most` bytes of a file; empty where there is none any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        raw = b""
        while len(raw) < most and (more := os.read(fd, most - len(raw))):
            raw += more
        return raw
    except OSError:
        return b""  # it ended while it was read
    finally:
        os.close(fd)
