"""`narrows show ID`: a session as a table of its calls, an exchange in full, or its exact recorded bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from narrows.cli.client import ApiError, Client, segment
from narrows.cli.columns import call_of, exchange_columns
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import (
    duration,
    emit_json,
    instant,
    paint,
    print_table,
    printable_json,
    safe,
    safe_bytes,
    size,
)
from narrows.core.errors import ConfigError, NotFound

PREVIEW = 4096
"""Bytes of a body that are shown unless asked otherwise."""
MAX_HEAD = 1024 * 1024


class Direction(StrEnum):
    """Which bytes of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"
    SENT = "sent"


def show(
    item: Annotated[str, typer.Argument(metavar="ID", help="Session or exchange id, or a unique prefix.")],
    raw: Annotated[
        Direction | None,
        typer.Option("--raw", help="The exact recorded bytes: request, response or sent.", show_default=False),
    ] = None,
    preview: Annotated[
        int, typer.Option("--preview", metavar="BYTES", min=0, help="Bytes of each body to show.")
    ] = PREVIEW,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Calls of a session to show.")] = 500,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a session or an exchange."""
    api = client(data, config)
    kind, row = find(api, item)
    if raw is not None:
        if kind == "session":
            raise ConfigError(
                "Nothing was shown",
                "--raw is for an exchange, and this id names a session",
                f"narrows show {row['id']}",
            )
        _copy(api, row, raw)
    elif kind == "session":
        _show_session(api, row, limit=limit, json=json)
    elif json:
        emit_json(row)
    else:
        _show_exchange(api, row, preview)


def find(api: Client, item: str) -> tuple[str, dict[str, Any]]:
    """(`session`|`exchange`, row) that an id or unique prefix names.

    Raises NotFound, ConfigError when it names both, ApiError when it names several of one.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    ambiguous: ApiError | None = None
    for kind in ("session", "exchange"):
        try:
            row = api.get(f"/{kind}s/{segment(item)}")
        except ApiError as error:
            if error.status == 409:
                ambiguous = error
            elif error.status not in (404, 422):
                raise
        else:
            if row["id"] == item:
                return kind, row
            found.append((kind, row))
    if ambiguous is not None:
        raise ambiguous
    if not found:
        raise NotFound(
            f"There is no session or exchange {item[:64]!r}",
            "no recorded id begins so; what happened a moment ago may not be sealed yet",
            "`narrows sessions` and `narrows search` list what there is",
        )
    if len(found) > 1:
        raise ConfigError(
            f"{item[:64]!r} names more than one thing",
            f"the session {found[0][1]['id']} and the exchange {found[1][1]['id']}",
            "give more of the id",
        )
    return found[0]


def _copy(api: Client, row: dict[str, Any], direction: Direction) -> None:
    """Exact bytes to a file or pipe. On a terminal they are escaped: they may hold what steers it."""
    pieces = api.raw(f"/exchanges/{row['id']}/raw", direction=direction.value)
    if sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.write(safe_bytes(piece))
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _show_session(api: Client, row: dict[str, Any], *, limit: int, json: bool) -> None:
    calls = list(api.pages("/exchanges", most=limit, session=row["id"], order="asc"))
    if json:
        emit_json({**row, "calls": calls})
        return
    _field("session", row["id"])
    _field("who", f"{row.get('principal', '')} ({row.get('principal_kind', '')})")
    _field("agent", f"{row.get('agent', '')} {row.get('agent_version', '')}".strip())
    _field("command", " ".join(row.get("command") or []))
    _field("where", f"{row.get('host', '')}:{row.get('cwd', '')} (pid {row.get('pid', '')})")
    _field("connections", ", ".join(row.get("connections") or []))
    code = row.get("exit_code")
    _field("state", str(row.get("state", "")) + (f", exit code {code}" if code is not None else ""))
    _field("opened", instant(row.get("opened_ns")))
    _field("ended", instant(row.get("closed_ns")))
    if int(row.get("leaf_index", -1)) >= 0:
        _field("leaf", row["leaf_index"])
    print()
    if not calls:
        print("no call is recorded")
        return
    print_table(exchange_columns(calls, session=False), calls)
    total = int(row.get("exchanges") or 0)
    if total > len(calls):
        print(f"\nthe first {len(calls)} of {total} calls; more with --limit")


def _show_exchange(api: Client, row: dict[str, Any], preview: int) -> None:
    print(paint(safe(call_of(row)), "bold"))
    _field("exchange", row["id"])
    _field("session", row["session"])
    _field("leaf", row["leaf_index"])
    _field("who", row.get("principal"))
    _field("agent", row.get("agent"))
    _field("connection", row.get("connection"))
    _field(
        "action",
        f"{row.get('action', '')} ({row.get('access_level') or 'level unknown'})" if row.get("action") else "",
    )
    for resource in row.get("resources") or []:
        _field("resource", f"{resource.get('arn', '')}{'' if resource.get('exact') else ' (best effort)'}")
    _field("region", row.get("region"))
    _field("account", row.get("account"))
    _field("decision", f"{row.get('decision', '')}: {row.get('reason', '')}" if row.get("decision") else "")
    _field("outcome", row.get("outcome"))
    _field("status", row.get("status"))
    _field("error", " ".join(filter(None, (row.get("error_code"), row.get("error_message")))))
    _field("request id", row.get("request_id"))
    if row.get("invocation_id"):
        _field("invocation", f"{row['invocation_id']}, attempt {row.get('attempt') or 1}")
    _field("started", instant(row.get("started_ns")))
    _field("ended", instant(row.get("ended_ns")))
    times = [("first byte", "first_byte_ns"), ("last byte", "last_byte_ns"), ("in the gateway", "gateway_ns")]
    _field("times", ", ".join(f"{name} {duration(row[key])}" for name, key in times if row.get(key)))
    _field("sizes", f"{size(row.get('bytes_in'))} in, {size(row.get('bytes_out'))} out")
    _field("durability", row.get("durability"))
    for problem in row.get("problems") or []:
        _field("not decoded", problem)
    if row.get("parameters"):
        cut = " (cut; the whole is in the request)" if row.get("parameters_truncated") else ""
        _section(f"parameters{cut}")
        print(printable_json(row["parameters"], indent=2))
    if row.get("events"):
        _section("events")
        for event in row["events"]:
            print(printable_json(event))
    for direction in Direction:
        _preview(api, str(row["id"]), direction, preview)


def _field(name: str, value: object) -> None:
    if value not in (None, "", 0) or name == "leaf":
        label = paint(f"{name + ':':14}", "dim")
        print(f"{label}{safe(value)}")


def _section(title: str) -> None:
    print(f"\n{paint(safe(title), 'bold')}")


def _preview(api: Client, exchange: str, direction: Direction, most: int) -> None:
    """The head, and the body's first `most` bytes."""
    pieces = api.raw(f"/exchanges/{exchange}/raw", direction=direction.value)
    held = b""
    whole = True
    try:
        for piece in pieces:
            held += piece
            end = held.find(b"\r\n\r\n")
            if (end >= 0 and len(held) - end - 4 > most) or (end < 0 and len(held) > MAX_HEAD):
                whole = False
                break
    finally:
        if not whole:
            api.close()  # the rest may be gigabytes: it is not read
    if not held:
        return
    _section(direction.value)
    head, separator, body = held.partition(b"\r\n\r\n")
    print(safe_bytes(head))
    if separator and body:
        print()
        sys.stdout.writelines(_body(body[:most]))
        if len(body) > most or not whole:
            print(
                paint(
                    f"... cut after {most} bytes; all of it: narrows show {exchange} --raw {direction.value}",
                    "dim",
                )
            )


def _body(body: bytes) -> Iterator[str]:
    """The body as text; binary bodies, which would be a page of escapes, as a note of their length."""
    text = body.decode("utf-8", "replace")
    unreadable = sum(1 for c in text if c == "\ufffd" or (ord(c) < 32 and c not in "\r\n\t"))
    if unreadable * 10 > len(text):
        yield f"({len(body)} bytes of binary)\n"
    elif body:
        yield safe_bytes(body).rstrip("\n") + "\n"
