"""What every command shares: the settings of this invocation, and the client of the gateway they name."""

from __future__ import annotations

import os
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


_named: list[str] = []


def use_gateway(url: str) -> None:
    """Let this invocation's commands talk to the gateway at `url`."""
    _named[:] = [url]


def remote() -> str:
    """The API of the gateway that was named: by --gateway, else by NARROWS_API. Empty for the local one."""
    return _named[0] if _named and _named[0] else os.environ.get("NARROWS_API", "")


def client(data: Path | None = None, config: Path | None = None) -> Client:
    """The client of the gateway that was named, else of the local one; closed at the command's end.

    Raises UnreachableError, ConfigError; ApiError if the sign-in at the one that was named has ended.
    """
    if url := remote():
        return remote_client(url)
    return client_of(settings(data, config).data)


def remote_client(url: str) -> Client:
    """The client of a gateway with what `narrows login` stored for it. Raises as `client`."""
    from narrows.cli import logins

    api = Client(logins.current(logins.normal(url)))
    at_end.callback(api.close)
    return api


def client_of(data: Path, *, timeout_s: float = TIMEOUT_S) -> Client:
    """The client of the gateway that runs on `data`, closed at the command's end. Raises as `client`."""
    api = Client.of(data, timeout_s=timeout_s)
    at_end.callback(api.close)
    return api
