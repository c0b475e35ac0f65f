"""`narrows key create | list | revoke`: keys with which services come to the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from narrows.cli.client import segment
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import emit_json, safe

app = typer.Typer(help="Keys of services.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service; or the key's id.")]


@app.command("create")
def create(
    name: NameArgument,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="admin, auditor, approver or user (default)."),
    ] = None,
    group: Annotated[list[str] | None, typer.Option("--group", metavar="GROUP", help="Group that it is in.")] = None,
    connection: Annotated[
        list[str] | None, typer.Option("--connection", metavar="NAME", help="The only connections that it may use.")
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, max=366, help="It works so long.")] = 90,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it: this once, as only its hash is kept."""
    body = {"name": name, "roles": role or ["user"], "groups": group or [], "connections": connection, "days": days}
    made = client(data, config).post("/keys", body)
    if json:
        emit_json(made)
    else:
        print(made["key"])


@app.command("list")
def list_keys(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List the keys that work."""
    for item in client(data, config).get("/keys")["items"]:
        if json:
            emit_json(item)
            continue
        until = datetime.fromtimestamp(item["expires"], UTC).strftime("%Y-%m-%d")
        bounds = "all connections" if item["connections"] is None else ", ".join(item["connections"])
        print(f"{safe(item['name']):24}{safe(', '.join(item['roles'])):20}until {until}  {safe(bounds)}")


@app.command("revoke")
def revoke(name: NameArgument, data: DataOption = None, config: ConfigOption = None) -> None:
    """Take a key back, and kill the sessions that were opened with it."""
    client(data, config).delete(f"/keys/{segment(name)}")
    print(f"revoked {safe(name)}")
