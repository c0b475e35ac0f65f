"""A session as one timeline: prompts, answers, tool calls, commands, edits, processes and calls, as they came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from narrows.cli.client import Client
from narrows.cli.columns import level_style, result_of, result_style
from narrows.cli.render import Column, clocks, duration, short_ids
from narrows.cli.why import text_of, what_of

Entry = Mapping[str, Any]

_HIDDEN = frozenset({"system", "context", "thinking", "notice", "code", "file_read", "tool_result"})
"""Types that are shown only where they report an error: the exchange has them all."""
_STYLES = {"prompt": "bold", "answer": "", "tool_call": "green", "file_edit": "yellow"}


def read(api: Client, session: str, most: int) -> list[dict[str, Any]]:
    """The entries of a session's first `most` exchanges, in the order of time."""
    entries: list[dict[str, Any]] = []
    cursor: object = None
    while most > 0:
        asked = min(most, 200)
        page = api.get(f"/sessions/{session}/timeline", limit=asked, cursor=cursor)
        entries += page["items"]
        cursor = page.get("next")
        most -= asked
        if not cursor:
            break
    return sorted(entries, key=lambda entry: int(entry["time_ns"]))


def shown(entries: Sequence[Entry]) -> Iterator[Entry]:
    """What a reader needs: each thing once, without what agents and models say to themselves."""
    for entry in entries:
        error = bool(entry["item"] and entry["item"].get("error"))
        if not entry["same_as"] and (entry["type"] not in _HIDDEN or error) and _says(entry):
            yield entry


def _says(entry: Entry) -> bool:
    """A report of an agent that says nothing is not a line; a call always is."""
    return entry["item"] is not None or entry["kind"] != "agent.event" or entry["type"] == "process"


def columns(entries: Sequence[Entry]) -> list[Column]:
    """Columns of a timeline."""
    short = short_ids([str(entry["exchange"]) for entry in entries])
    clock = clocks(int(entry["time_ns"]) for entry in entries)
    return [
        Column("TIME", lambda e: clock(e["time_ns"]), 2, 8),
        Column("NODE", lambda e: short[str(e["exchange"])] + _number(e), 3, 13),
        Column("WHAT", what_of),
        Column("", lambda e: text_of(e, result=False), 1, 24, style=_style),
        Column("BY", _by, 5, 10),
        Column("RESULT", _result, 2, 8, style=_result_style),
        Column("TOOK", lambda e: duration(e.get("last_byte_ns") or None), 6, 7, right=True),
    ]


def _number(entry: Entry) -> str:
    _, mark, number = str(entry["node"]).partition("#")
    return mark + number


def _by(entry: Entry) -> str:
    """The model that said it, or the program that did."""
    return str(entry.get("model") or entry.get("agent") or "")


def _result(entry: Entry) -> str:
    if entry["item"] is None:
        return result_of(entry) if entry.get("outcome") and entry["type"] != "process" else ""
    return "error" if entry["item"].get("error") else str(entry["result"])


def _result_style(entry: Entry) -> str:
    if entry["item"] is None:
        return result_style(entry) if entry["type"] != "process" else ""
    return "red" if _result(entry) == "error" else ""


def _style(entry: Entry) -> str:
    return _STYLES.get(str(entry["type"]), "") or level_style(entry)
