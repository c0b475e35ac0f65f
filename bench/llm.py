"""Model calls through the gateway and through its peers: the peers, the call, and what a stream loses on the way.

litellm runs in an environment of its own and Portkey's gateway as the npm package that it is, both as a person would
start them: one worker, local cost map, no database. All of them pass to the same origin, which gives one answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import ANYONE, Way
from bench.processes import free_port, listening, started, wait_until
from bench.servers import ROOT

LITELLM = ROOT / ".venv-peers-llm"
LITELLM_PIN = ROOT / "bench" / "peers-llm.txt"
PORTKEY = ROOT / "bench" / "portkey"
KEY = "sk-bench-0000000000000000"
"""What clients show the peers, and the peers the origin: nothing is behind it."""

@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer: how it is asked, and the process to count."""

    way: Way
    pid: int


def missing() -> str:
    """What the peers cannot do without, as a hint."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm not found, which Portkey's gateway needs; Debian and Ubuntu: apt install nodejs npm"
    return ""


def install() -> None:
    """Make the peers' environments, if they are not the ones that the pins name. Raises CalledProcessError."""
    stamp = LITELLM / "peers.txt"
    if not stamp.exists() or stamp.read_bytes() != LITELLM_PIN.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", LITELLM], check=True)
        (LITELLM / ".gitignore").write_text("*\n")
        pip = [str(LITELLM / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(LITELLM_PIN)], check=True)
        stamp.write_bytes(LITELLM_PIN.read_bytes())
    lock = PORTKEY / "package-lock.json"
    done = PORTKEY / "node_modules" / ".lock"
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        quietly = ["--ignore-scripts", "--silent", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "ci", *quietly], cwd=PORTKEY, check=True)
        done.write_bytes(lock.read_bytes())


@contextlib.contextmanager
def litellm(here: Path, to: int, core: int, log: Path) -> Iterator[Peer]:
    """litellm's proxy with one worker."""
    port = free_port()
    config = here / "litellm.json"
    config.write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": "bench-model",
                        "litellm_params": {
                            "model": "openai/bench-model",
                            "api_base": f"http://127.0.0.1:{to}/v1",
                            "api_key": KEY,
                        },
                    }
                ],
                "general_settings": {"master_key": KEY},
            }
        )
    )
    environ = _plain() | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    program = str(LITELLM / "bin" / "litellm")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with started(command, core=core, log=log, env=environ) as process:
        wait_until(lambda: listening(port), "litellm", process, log, 120)
        yield Peer(_way(port), process.pid)


@contextlib.contextmanager
def portkey(to: int, core: int, log: Path) -> Iterator[Peer]:
    """Portkey's gateway; where to is in each request's headers."""
    port = free_port()
    program = PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    environ = _plain() | {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
    with started(["node", program, f"--port={port}", "--headless"], core=core, log=log, env=environ) as process:
        wait_until(lambda: listening(port), "Portkey's gateway", process, log, 60)
        extra = (("x-portkey-provider", "openai"), ("x-portkey-custom-host", f"http://127.0.0.1:{to}/v1"))
        yield Peer(_way(port, extra), process.pid)


def direct(port: int) -> Way:
    """The origin itself."""
    return _way(port)


def _way(port: int, extra: tuple[tuple[str, str], ...] = ()) -> Way:
    return Way(port, ANYONE, "", (("Authorization", f"Bearer {KEY}"), *extra))


def _plain() -> dict[str, str]:
    """Our environment without what would send a peer elsewhere."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
