"""One AWS stand-in and one gateway for all end-to-end tests, started as a user starts them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import BIN, REGION, UPSTREAM_KEY, UPSTREAM_SECRET, Gateway, Ran, gateway, until
from tests.kit.stories import PROVIDERS, Stage, stage

CLIENTS = Path(__file__).parent / "clients"
FORMS = {"endpoint": (), "proxy": ("--no-endpoint",)}
"""The two ways through the gateway, as options of `narrows run`."""

_tags = itertools.count()


def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the AWS stand-in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("moto")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (home / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log, cwd=home, env=env
        )
        try:
            until("moto's first answer", lambda: answers(port) or process.poll() is not None)
            assert process.poll() is None, (home / "moto.log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def narrows(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway, with one connection: `demo`."""
    with gateway(tmp_path_factory.mktemp("gateway")) as found:
        found.connect("demo", moto)
        yield found


@pytest.fixture(scope="session")
def on(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway with AWS and a scripted model of each provider behind it."""
    with stage(tmp_path_factory.mktemp("stage"), moto, *PROVIDERS) as found:
        yield found


@dataclass(slots=True)
class Clients:
    """Runs the same program without and with the gateway."""

    moto: str
    narrows: Gateway
    home: Path
    _direct: dict[tuple[str, ...], str] = field(default_factory=dict)

    def direct(self, command: tuple[str, ...], env: Mapping[str, str]) -> str:
        """What the program prints when it talks to the stand-in itself; run once."""
        key = (*command, *sorted(env.values()))
        if key not in self._direct:
            tag = f"d{next(_tags)}xdirect"
            own = {
                "AWS_ENDPOINT_URL": self.moto, "AWS_ACCESS_KEY_ID": UPSTREAM_KEY, "AWS_REGION": REGION,
                "AWS_SECRET_ACCESS_KEY": UPSTREAM_SECRET, "AWS_DEFAULT_REGION": REGION, "TAG": tag,
                "INSIDE": "1", "SQS_URL": self.moto,
            }  # fmt: skip
            environ = self.narrows.environ({**env, **own})
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stderr
            self._direct[key] = done.stdout.replace(tag, "TAG")
        return self._direct[key]

    def through(self, command: tuple[str, ...], form: str, env: Mapping[str, str] | None = None) -> tuple[Ran, str]:
        """The same through the gateway: what ran, and the tag under which it ran."""
        tag = f"t{next(_tags)}x{form}"
        ran = self.narrows.run(command, "--connection", "demo", *FORMS[form], env={**(env or {}), "TAG": tag})
        assert ran.code == 0, ran.err
        ran.out = ran.out.replace(tag, "TAG")
        return ran, tag


@pytest.fixture(scope="session")
def clients(moto: str, narrows: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The programs of `clients/`, both ways."""
    return Clients(moto, narrows, tmp_path_factory.mktemp("clients"))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Each way through the gateway."""
    return str(request.param)


def python(name: str) -> tuple[str, ...]:
    """The command that runs one of `clients/`."""
    return (sys.executable, str(CLIENTS / name))


def by_operation(rows: list[dict[str, Any]]) -> Callable[[str], list[dict[str, Any]]]:
    """Rows by their operation."""
    return lambda operation: [row for row in rows if row["operation"] == operation]
