"""`narrows api-key`: prints the lease of a connection to a model API, and nothing else.

What agents run to get their key (Claude Code's `apiKeyHelper`, Codex's provider `auth`): so their settings hold a
command, never a key. Whose lease, in this order: the session in `--session` or `NARROWS_SESSION`; the session that the
agent's hooks opened, found by the processes above this one; one that is opened now for that agent and its processes.
An agent that asks for its key while its first hook still runs is waited for a moment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from narrows.cli.context import ConfigOption, DataOption, settings
from narrows.core.errors import ConfigError

PATIENCE_S = {"claude-code": 1.5}
"""How long an agent's own session is waited for. Claude Code runs its first hook beside the helper; Codex, for one, has
none before it has its key."""
PAUSE_S = 0.05


def api_key(
    connection: Annotated[
        list[str],
        typer.Option(
            "--connection",
            metavar="NAME",
            help="Connection to lease; further ones are for a session that is opened for it.",
        ),
    ],
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that asks.")] = "",
    session: Annotated[
        str, typer.Option("--session", metavar="ID", envvar="NARROWS_SESSION", help="Session to lease for.")
    ] = "",
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a lease of a model API, alone, as an agent's key command has to."""
    where = settings(data, config).data
    sys.stdout.write(key(connection, agent, session, where) + "\n")
    sys.stdout.flush()


def key(connections: list[str], agent: str, session: str, data: Path) -> str:
    """The lease. Raises NarrowsError."""
    from narrows.cli.client import Client

    api = Client.of(data, timeout_s=5)
    try:
        if not session:
            if not agent:
                raise ConfigError(
                    "No lease was issued",
                    "no session is named: neither --agent, --session nor NARROWS_SESSION",
                    "start the agent through `narrows run`, or name it: --agent",
                )
            session = _session_of(agent, connections, data)
        lease = api.post("/leases", {"session": session, "connection": connections[0]})
    finally:
        api.close()
    found = str(lease.get("api_key") or "")
    if not found:
        raise ConfigError(
            "No key was printed",
            f"the connection {connections[0]} is of kind {lease.get('kind')}",
            "name one of kind llm",
        )
    return found


def _session_of(agent: str, connections: list[str], data: Path) -> str:
    from narrows.cli import agent_sessions
    from narrows.cli.hook_process import up_to_agent
    from narrows.cli.process import ancestors

    tree = up_to_agent(agent, ancestors(os.getppid()))
    if not tree:
        raise ConfigError("No lease was issued", "the processes above this one are not known", "name it: --session")
    name = f"process {tree[-1]['pid']}:{tree[-1]['start']}"
    record = waited(lambda: agent_sessions.find(agent, tree, data), PATIENCE_S.get(agent, 0.0))
    if record is None:
        with agent_sessions.Lock(agent, name, data):
            record = agent_sessions.find(agent, tree, data) or _open(agent, name, connections, tree, data)
    return str(record.session)


def waited(look: Callable[[], Any], patience_s: float) -> Any:
    """What `look` finds within that time, or None."""
    until = time.monotonic() + patience_s
    found = look()
    while found is None and time.monotonic() < until:
        time.sleep(PAUSE_S)
        found = look()
    return found


def _open(agent: str, name: str, connections: list[str], tree: list[Mapping[str, Any]], data: Path) -> Any:
    from narrows.cli import local
    from narrows.cli.hook_open import open_session

    found = local.read(data)
    return open_session(
        {"api": found.api, "gateway": found.gateway, "token": found.token},
        agent=agent,
        version="",
        connections=connections,
        cwd=str(tree[-1].get("cwd") or ""),
        key=name,
        tree=tree,
        data=str(data),
    )
