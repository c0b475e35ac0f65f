"""How long an agent waits for its hook: `narrows hook` as the agent starts it, with a gateway that answers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from bench.gateway import NARROWS, Gateway
from bench.processes import BenchError

EVENT = {
    "conversation_id": "5b6f1c1e-0000-4000-8000-0000000000b0",
    "generation_id": "7d1f0b7a-0000-4000-8000-0000000000b1",
    "model": "bench-model",
    "hook_event_name": "preToolUse",
    "cursor_version": "3.21.16",
    "workspace_roots": ["/work"],
    "user_email": None,
    "transcript_path": None,
    "tool_name": "Shell",
    "tool_input": {"command": "aws s3 ls"},
    "tool_use_id": "7d1f0b7a-0000-4000-8000-0000000000b2",
    "cwd": "/work",
}
EACH = 8


def measure(gateway: Gateway, core: int, rounds: int) -> dict[str, float]:
    """Milliseconds from start to end of the process: of the hook, and of a Python that does nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NARROWS_", "AWS_"))}
    env["NARROWS_DATA"] = str(gateway.data)
    hook = [str(NARROWS), "hook", "cursor", "--connection", "strict"]
    _once(hook, env, core)  # opens the session
    took: list[float] = []
    bare: list[float] = []
    for _ in range(rounds * EACH):
        took.append(_once(hook, env, core))
        bare.append(_once([sys.executable, "-c", "pass"], env, core))
    return {"median_ms": _figure(took), "python_ms": _figure(bare)}


def _figure(values: list[float]) -> float:
    return float(f"{statistics.median(values):.4g}")


def _once(command: list[str], env: dict[str, str], core: int) -> float:
    began = time.perf_counter()
    done: Any = subprocess.run(
        ["taskset", "-c", str(core), *command], input=json.dumps(EVENT).encode(), env=env, capture_output=True
    )
    took = (time.perf_counter() - began) * 1000
    if done.returncode or (command[0] == str(NARROWS) and b"allow" not in done.stdout):
        raise BenchError(f"{command[:3]} failed: {done.stdout[-200:]!r} {done.stderr[-500:]!r}")
    return took
