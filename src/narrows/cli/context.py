"""What every command shares: the settings of this invocation, and the client of the gateway they name."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from narrows.cli.client import TIMEOUT_S, Client
from narrows.settings import Settings, load

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data directory of the gateway.", show_default=False),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: one object a line for lists.")]


def settings(data: Path | None = None, config: Path | None = None, **flags: Any) -> Settings:
    """The settings of this invocation. Raises ConfigError."""
    return load(config=config, overrides={"data": data, **flags})


at_end = ExitStack()
"""What is closed when the command ends, however it ends; `main` does it."""


def client(data: Path | None = None, config: Path | None = None) -> Client:
    """The client of the local gateway, closed at the command's end. Raises UnreachableError, ConfigError."""
    return client_of(settings(data, config).data)


def client_of(data: Path, *, timeout_s: float = TIMEOUT_S) -> Client:
    """The client of the gateway that runs on `data`, closed at the command's end. Raises as `client`."""
    api = Client.of(data, timeout_s=timeout_s)
    at_end.callback(api.close)
    return api
