"""Whose command this is: the process and those above it, for the gateway (`X-Narrows-Process`).

Linux by /proc (`narrows.processes`), macOS by one `ps`, elsewhere nothing. Imports almost nothing on Linux.
"""

from __future__ import annotations

import os
import sys
from binascii import b2a_base64

from narrows import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = "X-Narrows-Process"

MAX_HEADER = 40 * 1024
"""Longest value of the header, characters: a gateway takes heads of 64 KiB."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def ancestors(pid: int = 0) -> list[dict[str, Any]]:
    """The process (this one for 0) and those above it, nearest first; see `narrows.processes`."""
    pid = pid or os.getpid()
    if sys.platform == "darwin":
        return _listed(pid)
    return processes.tree(pid)


def header(tree: list[dict[str, Any]]) -> str:
    """`tree` as the header's value: base64url of JSON. Arguments are cut where it would be too long."""
    import json

    for most in (0, 1024, 256, 64):
        shown = [{**one, "argv": _cut(one["argv"], most)} for one in tree] if most else tree
        value = b2a_base64(json.dumps(shown, separators=(",", ":")).encode(), newline=False)
        if len(value) <= MAX_HEADER:
            break
    else:
        return header(tree[: len(tree) // 2])
    return value.rstrip(b"=").translate(bytes.maketrans(b"+/", b"-_")).decode()


def _cut(argv: list[str], most: int) -> list[str]:
    kept: list[str] = []
    left = most
    for part in argv:
        if len(part) > left:
            return [*kept, part[:left], processes.CUT]
        kept.append(part)
        left -= len(part)
    return kept


def _listed(pid: int) -> list[dict[str, Any]]:
    """As `processes.tree`, from `ps` (macOS): command lines come as one text, starts in seconds since the epoch."""
    import subprocess

    done = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,lstart=,command="], capture_output=True, env={"LC_ALL": "C"}, check=False,
        timeout=5,
    )  # fmt: skip
    return from_ps(done.stdout.decode("utf-8", "backslashreplace"), pid)


def from_ps(text: str, pid: int) -> list[dict[str, Any]]:
    """The list for `pid` out of what `ps -axo pid=,ppid=,lstart=,command=` printed."""
    table: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        words = line.split(None, 7)
        if len(words) < 8 or not words[0].isdecimal() or not words[1].isdecimal():
            continue
        argv = [words[7][: processes.ARGV // processes.DEPTH]]
        table[int(words[0])] = {"pid": int(words[0]), "start": _started(words[3:7]), "ppid": int(words[1]),
                                "argv": argv, "cwd": "", "exe": ""}  # fmt: skip
    found: list[dict[str, Any]] = []
    while (one := table.pop(pid, None)) is not None and len(found) < processes.DEPTH:
        found.append(one)
        if processes.runs_session(one["argv"][0].split()):
            break
        pid = one["ppid"]
    return found


def _started(words: list[str]) -> int:
    """`Nov 24 20:33:25 2026`, in this machine's time, as seconds since the epoch; 0 if it is something else."""
    import time

    month, day, clock, year = words
    hour, _, rest = clock.partition(":")
    minute, _, second = rest.partition(":")
    numbers = (year, day, hour, minute, second)
    if month not in _MONTHS or not all(number.isdecimal() for number in numbers):
        return 0
    y, d, h, m, s = map(int, numbers)
    return int(time.mktime((y, _MONTHS.index(month) + 1, d, h, m, s, 0, 0, -1)))
