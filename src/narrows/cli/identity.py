"""`narrows whoami | lease | aws-credentials`."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from narrows.cli import aws_credentials, modelenv
from narrows.cli.client import segment
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import emit_json, safe

SessionOption = Annotated[
    str, typer.Option("--session", metavar="ID", envvar="NARROWS_SESSION", help="Session to lease for.")
]


def whoami(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Show who you are to the gateway, and the session you are in."""
    api = client(data, config)
    told: dict[str, Any] = api.get("/identity")
    found: dict[str, Any] = {name: told[name] for name in ("principal", "kind", "issuer", "groups", "roles")} | {
        "connections": told["connections"],
        "expires": told["expires"],
        "api": api.local.api,
        "gateway": api.local.gateway,
        "data": str(api.local.data) if api.local.pid else "",
        "session": os.environ.get("NARROWS_SESSION", ""),
    }
    if json:
        emit_json(found)
        return
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if name == "expires" and value is not None:
            shown = datetime.fromtimestamp(value, UTC).isoformat()
        if shown:
            print(f"{name + ':':13}{safe(shown)}")


def lease(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="Connection to lease.")],
    session: SessionOption = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a lease as shell variables. Without a session, one is opened for it, and ends with its time."""
    api = client(data, config)
    if session:
        issued = api.post("/leases", {"session": session, "connection": connection})
    else:
        opened = api.post(
            "/sessions",
            {
                "agent": {"name": "shell", "version": ""},
                "command": ["narrows", "lease", connection],
                "host": socket.gethostname(),
                "pid": os.getppid(),
                "connections": [connection],
            },
        )
        session = str(opened["id"])
        issued = opened["leases"][0]
    if json:
        emit_json({**issued, "session": session, "gateway_url": api.local.gateway})
        return
    variables = {"NARROWS_SESSION": session} | (
        modelenv.shell_variables(issued) if issued["kind"] == "llm" else _aws_variables(issued, api.local.gateway)
    )
    for name, value in variables.items():
        if value:
            print(f"export {name}={shlex.quote(safe(value))}")


def _aws_variables(issued: Mapping[str, Any], gateway: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": issued["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": issued["secret_access_key"],
        "AWS_SESSION_TOKEN": issued["session_token"],
        "AWS_REGION": issued.get("region", ""),
        "AWS_DEFAULT_REGION": issued.get("region", ""),
        "AWS_ENDPOINT_URL": gateway,
    }


def credentials(
    connection: Annotated[str, typer.Option("--connection", metavar="NAME", help="Default: the session's first.")] = "",
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The session of this agent's hooks.")] = "",
    session: SessionOption = "",
    data: Annotated[str, typer.Option("--data", metavar="DIR", help="Data directory of the gateway.")] = "",
) -> None:
    """Print a lease for AWS's credential_process setting."""
    given = (("connection", connection), ("agent", agent), ("session", session), ("data", data))
    aws_credentials.main([f"--{name}={value}" for name, value in given if value])


def kill(
    session: Annotated[str, typer.Argument(metavar="ID", help="Session id or unique prefix.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Kill a session: within a second none of its leases works."""
    ended = client(data, config).post(f"/sessions/{segment(session)}/kill")
    if json:
        emit_json(ended)
    else:
        print(f"session {safe(ended['id'])} is {safe(ended['state'])}")
