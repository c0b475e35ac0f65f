"""The commands, put together. Each group is a file of its own; heavy imports are inside the commands."""

from __future__ import annotations

from typing import Any

import typer
import typer.main

from narrows import __version__
from narrows.cli import connection, credential, doctor, identity, key, login, sessions, show, up, verify, why
from narrows.cli.api_key import api_key
from narrows.cli.apply import apply
from narrows.cli.connect import connect
from narrows.cli.context import use_gateway
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
session = typer.Typer(help="End a session.", no_args_is_help=True)


def _version(asked: bool) -> None:
    if asked:
        print(f"narrows {__version__}")
        raise typer.Exit(0)


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
    gateway: str = typer.Option("", "--gateway", metavar="URL", help="API of another gateway, after narrows login."),
) -> None:
    """The one channel through which every action of an AI coding agent passes."""
    use_gateway(gateway)


_GATEWAY, _WORK, _RECORD = "The gateway", "Agents and what they may reach", "What happened"
_PROGRAMS = "What agents and AWS clients run by themselves"

app.command("up", rich_help_panel=_GATEWAY)(up.up)
app.command("down", rich_help_panel=_GATEWAY)(up.down)
app.command("apply", rich_help_panel=_WORK)(apply)
app.command("doctor", rich_help_panel=_GATEWAY)(doctor.doctor)
app.command("run", context_settings={"allow_interspersed_args": False}, rich_help_panel=_WORK)(run_command)
app.command("connect", rich_help_panel=_WORK)(connect)
app.add_typer(connection.app, name="connection", rich_help_panel=_WORK)
app.add_typer(credential.app, name="credential", rich_help_panel=_WORK)
app.command("lease", rich_help_panel=_WORK)(identity.lease)
session.command("kill")(identity.kill)
app.add_typer(session, name="session", rich_help_panel=_WORK)
app.command("login", rich_help_panel=_WORK)(login.login)
app.command("logout", rich_help_panel=_WORK)(login.logout)
app.command("whoami", rich_help_panel=_WORK)(identity.whoami)
app.add_typer(key.app, name="key", rich_help_panel=_WORK)
app.command("sessions", rich_help_panel=_RECORD)(sessions.sessions)
app.command("show", rich_help_panel=_RECORD)(show.show)
app.command("why", rich_help_panel=_RECORD)(why.why)
app.command("search", rich_help_panel=_RECORD)(sessions.search)
app.command("tail", rich_help_panel=_RECORD)(sessions.tail)
app.command("verify", rich_help_panel=_RECORD)(verify.verify)
app.command("hook", rich_help_panel=_PROGRAMS)(hook)
app.command("aws-credentials", rich_help_panel=_PROGRAMS)(identity.credentials)
app.command("api-key", rich_help_panel=_PROGRAMS)(api_key)


def command() -> Any:
    """The command-line library's root command."""
    return typer.main.get_command(app)
