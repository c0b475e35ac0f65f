"""`narrows show ID`: a session as one timeline or a table of its calls, an exchange in full, or its exact bytes.

What is shown of an exchange comes from the index, which proves nothing: it is compared with the recording each time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from narrows.cli import timeline
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
from narrows.cli.why import text_of, what_of
from narrows.core.errors import ConfigError, NotFound

PREVIEW = 4096
"""Bytes of a body that are shown unless asked otherwise."""
ITEM_LINES = 20
"""Lines of one item that are shown."""
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
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Exchanges of a session to show.")] = 500,
    calls: Annotated[bool, typer.Option("--calls", help="Of a session, the table of its exchanges instead.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show a session as one timeline, or an exchange in full. An exchange is compared with its recording first."""
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
        _show_session(api, row, limit=limit, only_calls=calls, json=json)
    else:
        _show_exchange(api, row, preview, json=json)


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


def _show_session(api: Client, row: dict[str, Any], *, limit: int, only_calls: bool, json: bool) -> None:
    calls = list(api.pages("/exchanges", most=limit, session=row["id"], order="asc"))
    told = any(call["kind"] in ("llm.message", "agent.event") for call in calls)
    entries = timeline.read(api, str(row["id"]), limit) if told and not only_calls else []
    if json:
        emit_json({**row, "calls": calls, "timeline": entries})
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
    if entries:
        lines = list(timeline.shown(entries))
        print_table(timeline.columns(lines), lines)
    else:
        print_table(exchange_columns(calls, session=False), calls)
    total = int(row.get("exchanges") or 0)
    if total > len(calls):
        print(f"\nthe first {len(calls)} of {total} exchanges; more with --limit")


def _show_exchange(api: Client, row: dict[str, Any], preview: int, *, json: bool) -> None:
    check = api.get(f"/exchanges/{row['id']}/check")
    if json:
        emit_json({**row, "differences": check["differences"]})
    if not check["ok"]:
        _tell_differences(check["differences"])
    if not json:
        _print_exchange(api, row, preview)
    if not check["ok"]:
        raise typer.Exit(1)


def _tell_differences(found: list[dict[str, str]]) -> None:
    """Say loudly that what follows cannot be trusted. On standard error, so that no pipe loses it."""
    out = sys.stderr
    out.write(paint("THE INDEX DOES NOT SAY WHAT THE RECORDING SAYS", "red", out) + "\n")
    for one in found[:20]:
        out.write(f"  {safe(one['field'])}: the index says {safe(one['index'])!r}, ")
        out.write(f"the recording {safe(one['recording'])!r}\n")
    if len(found) > 20:
        out.write(f"  and {len(found) - 20} more\n")
    out.write("Someone changed the index, or an older program made it. Stop the gateway, remove index.db and start\n")
    out.write("it again: it is made anew from the recording. `narrows verify --index` compares all of it.\n\n")
    out.flush()


def _print_exchange(api: Client, row: dict[str, Any], preview: int) -> None:
    print(paint(safe(call_of(row)), "bold"))
    _field("exchange", row["id"])
    _field("session", row["session"])
    _field("leaf", row["leaf_index"])
    _field("who", row.get("principal"))
    _field("agent", f"{row.get('agent') or ''} {row.get('agent_version') or ''}".strip())
    _field("connection", row.get("connection"))
    _model(row)
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
    for finding in row.get("findings") or []:
        often = f", {finding['count']} times" if finding.get("count", 1) > 1 else ""
        _field("FINDING", f"{finding.get('kind', '')} in {finding.get('where', '')}{often}")
    _items(row)
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


def _model(row: dict[str, Any]) -> None:
    """What a model call says of itself."""
    _field("model", row.get("model"))
    llm = row.get("llm") or {}
    usage = llm.get("usage") or {}
    tokens = [f"{count} {name.replace('_', ' ')}" for name, count in usage.items() if isinstance(count, int)]
    _field("tokens", ", ".join(tokens))
    cost = row.get("cost_usd")
    if cost is not None:
        _field("cost", f"{cost:.6f} USD")
    elif _charged(row):
        _field("cost", "unknown")
    _field("stop reason", llm.get("stop_reason"))


def _charged(row: dict[str, Any]) -> bool:
    """Whether a model was asked here: an agent's report names a model, too, and costs nothing."""
    if row.get("kind") == "llm.message":
        return bool(row.get("model"))
    return row.get("kind") == "aws.call" and row.get("tokens_in") is not None


def _items(row: dict[str, Any]) -> None:
    """What the exchange says, each with the number by which `narrows why` takes it."""
    items = row.get("items") or []
    if not items:
        return
    _section("items")
    for number, item in enumerate(items):
        whole = {"text": "", "name": "", "data": None, **item}
        kind = what_of({"item": whole})
        lines = str(whole["text"]).strip().splitlines()[:ITEM_LINES] if item["type"] != "tool_call" else []
        cut = len(str(whole["text"]).strip().splitlines()) > ITEM_LINES or item.get("cut")
        label = paint(f"#{number:<3} {safe(kind):10} ", "dim")
        style = "red" if item.get("error") else "green" if item["type"] == "tool_call" else ""
        first = text_of({"item": whole}) if len(lines) < 2 else lines[0]
        print(label + (paint(safe(first), style) if style else safe(first)))
        for line in lines[1:]:
            print(" " * 16 + safe(line))
        if cut:
            print(" " * 16 + paint("... the whole is in the recorded bytes, and in --json", "dim"))


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
