"""`narrows hook` for the help and for whoever runs it by the command-line library: agents start `hook` directly."""

from __future__ import annotations

from typing import Annotated

import typer


def hook(
    agent: Annotated[
        str, typer.Argument(metavar="AGENT", help="cursor, claude-code, codex, gemini, copilot, opencode, or another.")
    ],
    connection: Annotated[
        list[str] | None,
        typer.Option(
            "--connection", metavar="NAME", help="Connections of a session that the hook opens; may be repeated."
        ),
    ] = None,
    event: Annotated[
        str, typer.Option("--event", metavar="NAME", help="Name of the event, where the payload does not have it.")
    ] = "",
    fail_closed: Annotated[
        bool,
        typer.Option("--fail-closed", help="Deny while the gateway cannot be reached; without it, allow and say so."),
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Time for the whole answer.")] = 5.0,
    data: Annotated[str, typer.Option("--data", metavar="DIR", help="Data directory of the gateway.")] = "",
) -> None:
    """Report an agent's event, read from standard input, and print the answer in the agent's own form."""
    from narrows.cli.hook import main

    words = [agent, *[f"--connection={name}" for name in connection or ()], f"--timeout={timeout}"]
    words += [f"--{name}={value}" for name, value in (("event", event), ("data", data)) if value]
    raise typer.Exit(main([*words, *(["--fail-closed"] if fail_closed else [])]))
