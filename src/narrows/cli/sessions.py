"""`narrows sessions | search | tail`: finding sessions and exchanges, and following them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from narrows.cli.client import Client, segment
from narrows.cli.columns import call_of, exchange_columns, resource_of, result_of, session_columns
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import emit_json, paint, print_table, safe, when

Query = Annotated[
    list[str] | None, typer.Argument(metavar="[QUERY]", help="Query, as in docs/cli.md.", show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Rows at most, the newest.")]

POLL_S = 0.5
"""Pause between two looks of `tail`."""
ENDED_POLLS = 6
"""Looks without news after a session's end before `tail` ends too: sealing may be a second behind."""


def sessions(
    query: Query = None,
    limit: Limit = 50,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """List sessions, the newest first; with a query, those with an exchange that matches."""
    api = client(data, config)
    rows = api.pages("/sessions", most=limit, q=" ".join(query or []) or None)
    if json:
        for row in rows:
            emit_json(row)
        return
    found = list(rows)
    if found:
        print_table(session_columns(found), found)
    else:
        print("no session matches" if query else "no session is recorded yet; make one: narrows run -- COMMAND")


def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="Query, as in docs/cli.md.")],
    limit: Limit = 50,
    session: Annotated[str, typer.Option("--session", metavar="ID", help="Only this session.")] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Search the exchanges of all sessions, the newest first."""
    api = client(data, config)
    whose = str(api.get(f"/sessions/{segment(session)}")["id"]) if session else None
    rows = api.pages("/exchanges", most=limit, q=" ".join(query), session=whose)
    if json:
        for row in rows:
            emit_json(row)
        return
    found = list(rows)
    if found:
        print_table(exchange_columns(found, session=not session), found)
    else:
        print("no exchange matches")


def tail(
    session: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Session id or unique prefix; default: all sessions.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", metavar="N", min=0, help="Exchanges to show first.")] = 10,
    query: Annotated[str, typer.Option("--query", metavar="QUERY", help="Only exchanges that match.")] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Follow exchanges as they are recorded. Ends with its session, or by Ctrl-C."""
    api = client(data, config)
    whose = str(api.get(f"/sessions/{segment(session)}")["id"]) if session else ""
    try:
        for row in follow(api, whose, query, lines):
            if json:
                emit_json(row)
            else:
                print(line_of(row, with_session=not whose), flush=True)
    except KeyboardInterrupt:
        return  # how one stops following: nothing went wrong


def follow(api: Client, session: str, query: str, lines: int) -> Iterator[dict[str, Any]]:
    """The last `lines` exchanges, then each new one in the order of the log; none is missed or told twice."""
    asked: dict[str, Any] = {"session": session or None, "q": query or None}
    last = int(api.get("/log/status").get("indexed", -1))
    earlier: deque[dict[str, Any]] = deque()
    if lines:
        earlier.extendleft(api.pages("/exchanges", most=lines, order="desc", **asked))
    for row in earlier:
        if row["leaf_index"] <= last:
            yield row
    quiet = 0
    while True:
        page = api.get("/exchanges", after=last, limit=500, **asked)["items"]
        for row in page:
            yield row
            last = max(last, int(row["leaf_index"]))
        if page:
            quiet = 0
            continue
        if session and api.get(f"/sessions/{session}")["state"] != "open":
            quiet += 1
            if quiet >= ENDED_POLLS:
                return
        time.sleep(POLL_S)


def line_of(row: dict[str, Any], *, with_session: bool) -> str:
    """One exchange on one line."""
    parts = [when(row["started_ns"]), str(row["id"])[:23]]
    if with_session:
        parts.append(str(row.get("agent") or row.get("principal") or "?"))
    parts += [call_of(row), resource_of(row)]
    line = "  ".join(safe(part) for part in parts if part)
    bad = row.get("outcome") != "complete" or int(row.get("status") or 0) >= 400
    result = safe(result_of(row))
    return f"{line}  {paint(result, 'red') if bad else result}"
