"""The commands, put together. Each group is a file of its own; heavy imports are inside the commands."""

from __future__ import annotations

from typing import Any

import typer
import typer.main

from narrows import __version__
from narrows.cli import connection, doctor, identity, sessions, show, up, verify, why
from narrows.cli.api_key import api_key
from narrows.cli.connect import connect
from narrows.cli.hook_command import hook
from narrows.cli.run import run as run_command

app = typer.Typer(
    name="narrows",
    help="The one channel through which every action of an AI coding agent passes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
session = typer.Typer(help="Act on a session.", no_args_is_help=True)


def _version(asked: bool) -> None:
    if asked:
        print(f"narrows {__version__}")
        raise typer.Exit(0)


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """The one channel through which every action of an AI coding agent passes."""


app.command("up")(up.up)
app.command("down")(up.down)
app.command("run", context_settings={"allow_interspersed_args": False})(run_command)
app.command("connect")(connect)
app.add_typer(connection.app, name="connection")
app.command("sessions")(sessions.sessions)
app.command("show")(show.show)
app.command("tail")(sessions.tail)
app.command("search")(sessions.search)
app.command("verify")(verify.verify)
app.command("why")(why.why)
session.command("kill")(identity.kill)
app.add_typer(session, name="session")
app.command("whoami")(identity.whoami)
app.command("lease")(identity.lease)
app.command("aws-credentials")(identity.credentials)
app.command("hook")(hook)
app.command("api-key")(api_key)
app.command("doctor")(doctor.doctor)


def command() -> Any:
    """The command-line library's root command."""
    return typer.main.get_command(app)
