"""Narrows under measurement: started as a user starts it, its workers told apart from the rest of it.

All of it runs on the measured core. The control process, which seals and indexes what workers recorded, gets the
lowest priority: while load runs it takes what workers leave, afterwards it catches up, and that CPU is counted too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.load import ANYONE, Way
from bench.processes import BenchError, be_nice, command_line, cpu_seconds, pin, started, tree, wait_until
from botocore.credentials import Credentials

from narrows.cli.client import Client

NARROWS = Path(sys.executable).parent / "narrows"
MODEL_KEY = "BENCH_MODEL_KEY"
"""The variable of the gateway's environment that holds the key of the model API."""
UPSTREAM_KEYS = "[default]\naws_access_key_id = AKIAUPSTREAMBENCH000\naws_secret_access_key = upstream-bench-secret\n"
DRAIN_S = 900.0
POLL_S = 0.25


class Gateway:
    """A running gateway with one connection per durability, each with a lease."""

    def __init__(self, data: Path, log: Path, supervisor: int, env: dict[str, str]) -> None:
        self.data = data
        self.log = log
        self.leases: dict[str, Credentials] = {}
        self.ways: dict[str, Way] = {}
        self._env = env
        family = tree(supervisor)
        modules = {pid: command_line(pid) for pid in family}
        self.everything = [pid for pid in family if "narrows" in " ".join(modules[pid])]
        self.workers = [pid for pid in family if "narrows.cli.worker" in modules[pid]]
        self.control = [pid for pid in family if "narrows.cli.control" in modules[pid]]
        if not self.workers or len(self.control) != 1:
            raise BenchError(f"the gateway's processes were not recognised among {sorted(modules.values())}")
        be_nice(self.control[0])
        self._api = Client.of(data)
        self.port = int(self._api.local.gateway.rsplit(":", 1)[1])

    def connect(self, origin: int, keys: Path, models: Mapping[str, int]) -> None:
        """Register the origin once per durability, and the ports of model APIs by name; take a lease for each."""
        for durability in ("buffered", "strict"):
            self._narrows(
                "connection", "add", "aws", durability, "--endpoint", f"http://127.0.0.1:{origin}", "--allow-private",
                "--credentials-file", str(keys), "--durability", durability, "--region", "us-east-1",
            )  # fmt: skip
            lease = json.loads(self._narrows("lease", durability, "--json"))
            self.leases[durability] = Credentials(
                lease["access_key_id"], lease["secret_access_key"], lease["session_token"]
            )
            for name, port in models.items():
                self.ways[f"{name} {durability}"] = self._model(f"{name}-{durability}", port, durability)
        time.sleep(1.0)  # workers look at their directory five times a second

    def _model(self, name: str, port: int, durability: str) -> Way:
        """Register a model API; how it is asked through us."""
        self._narrows(
            "connection", "add", "llm", name, "--provider", "openai-compatible", "--endpoint",
            f"http://127.0.0.1:{port}", "--allow-private", "--api-key-env", MODEL_KEY, "--durability", durability,
        )  # fmt: skip
        key = json.loads(self._narrows("lease", name, "--json"))["api_key"]
        return Way(self.port, ANYONE, f"/llm/{name}", (("Authorization", f"Bearer {key}"),))

    def _narrows(self, *arguments: str) -> str:
        done = subprocess.run([NARROWS, *arguments], env=self._env, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"narrows {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
        return done.stdout

    def leaves(self) -> int:
        """Committed leaves of the log."""
        return int(self._status()["size"])

    def drained(self, leaves: int) -> None:
        """Return when at least `leaves` leaves are committed, nothing waits to be sealed, and all is indexed.

        Two looks in a row must agree, so that what is under way is not taken for the end.
        """
        deadline = time.monotonic() + DRAIN_S
        before: tuple[int, int] | None = None
        while True:
            status = self._status()
            now = (int(status["size"]), int(status["indexed"]))
            if now == before and now[0] >= leaves and now[1] + 1 >= now[0] and not status["lag"]:
                return
            before = now
            if time.monotonic() > deadline:
                raise BenchError(
                    f"sealing and indexing did not catch up within {DRAIN_S:g} s: {leaves} leaves expected, "
                    f"{now[0]} sealed, {now[1] + 1} indexed; {status.get('problem', '')} see {self.log}"
                )
            cpu_seconds(self.everything)  # raises if one of them is gone
            time.sleep(POLL_S)

    def spread(self, cores: list[int]) -> None:
        """Put the workers on these cores, one each, round robin."""
        for place, pid in enumerate(self.workers):
            pin(pid, cores[place % len(cores)])

    def verify(self) -> bool:
        """Whether `narrows verify --all` finds that everything proves."""
        command = [str(NARROWS), "verify", "--all"]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=DRAIN_S)
        if done.returncode not in (0, 1):
            raise BenchError(f"narrows verify failed: {done.stderr.strip()}")
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        return done.returncode == 0

    def _status(self) -> dict[str, Any]:
        found = self._api.get("/log/status")
        assert isinstance(found, dict)
        if found.get("problem"):
            raise BenchError(f"the gateway does not seal: {found['problem']} (see {self.log})")
        return found


@contextlib.contextmanager
def gateway(
    here: Path, origin: int, core: int, log: Path, *, workers: int, models: Mapping[str, int] | None = None
) -> Iterator[Gateway]:
    """`narrows up` on a fresh data directory under `here`, which should be on a disk.

    `models` are ports of model APIs, each registered once per durability: `Gateway.ways["NAME strict"]`.
    """
    data = here / "data"
    keys = here / "upstream-keys"
    keys.touch(mode=0o600)
    keys.write_text(UPSTREAM_KEYS)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NARROWS_", "AWS_"))}
    env |= {
        "NARROWS_DATA": str(data),
        "NARROWS_GATEWAY_PORT": "0",
        "NARROWS_API_PORT": "0",
        "NARROWS_WORKERS": str(workers),
        MODEL_KEY: "sk-bench-upstream-000000000000",
    }
    with started([NARROWS, "up"], core=core, log=log, env=env) as process:
        wait_until((data / "run" / "local.json").exists, "narrows up", process, log, 60)
        found = Gateway(data, log, process.pid, env)
        found.connect(origin, keys, models or {})
        yield found
