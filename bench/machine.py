"""Where the figures come from: the machine, the versions, the code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any


def describe(data: Path, mitmdump: Path) -> dict[str, Any]:
    """Facts of this machine as JSON values; `data` is the directory whose disk holds the recordings."""
    return {
        "cpu": _match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(_match("/proc/meminfo", r"^MemTotal:\s*(\d+)")) / 2**20, 1),
        "kernel": platform.release(),
        "system": _match("/etc/os-release", r'^PRETTY_NAME="?([^"\n]+)'),
        "python": platform.python_version(),
        "nginx": _first(["nginx", "-v"], r"nginx/(\S+)"),
        "wrk": _first(["wrk", "-v"], r"wrk\s+(\S+)"),
        "mitmproxy": _first([str(mitmdump), "--version"], r"Mitmproxy: (\S+)"),
        "aiohttp": importlib.metadata.version("aiohttp"),
        "uvloop": importlib.metadata.version("uvloop"),
        "filesystem": _first(["stat", "-f", "-c", "%T", str(data)], r"(\S+)"),
        "fsync_ms": fsync_ms(data),
        "load_before": round(os.getloadavg()[0], 2),
        "narrows": importlib.metadata.version("narrows"),
        "commit": commit(),
    }


def line(found: dict[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}, Linux {found['kernel']}, "
        f"Python {found['python']}, nginx {found['nginx']}"
    )


def compiled() -> bool:
    """Whether the hot modules of the data path are compiled ones."""
    spec = importlib.util.find_spec("narrows.wire.http1")
    return spec is not None and str(spec.origin).endswith(".so")


def fsync_ms(directory: Path, times: int = 100) -> float:
    """Median milliseconds of writing 4 KiB to the end of a file and fsyncing it: what `strict` waits for."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(times):
            file.write(os.urandom(4096))
            began = time.perf_counter()
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(statistics.median(took) * 1000, 3)


def commit() -> str:
    """The commit that was measured, marked where the working tree differs from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
        if head.returncode:
            return ""
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "src"],
            cwd=root.parent, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        return ""
    return head.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def cores() -> list[int]:
    """The cores to use: load first, then the measured one, which shares no physical core with it if possible."""
    allowed = sorted(os.sched_getaffinity(0))
    siblings = _siblings(allowed[0])
    return [allowed[0], *sorted(allowed[1:], key=lambda core: (core in siblings, core))]


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found: set[int] = set()
    if path.exists():
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def _match(path: str, pattern: str) -> str:
    try:
        text = Path(path).read_text("utf-8", "replace")
    except FileNotFoundError:
        return "unknown"
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def _first(command: list[str], pattern: str) -> str:
    """The first match in what a command says; `wrk -v` and the like exit with 1."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "not installed"
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"
