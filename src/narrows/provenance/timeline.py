"""A session in the order of time: what was said, called and done, each once however many reports there are of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from narrows.core.values import Item
from narrows.provenance.model import Exchange, node_of

_AT_END = "response"


@dataclass(slots=True)
class Entry:
    """One line of a timeline. `type` is an item's, or `call` for an exchange as a whole.

    `same_as` names the entry that tells the same: an agent's report of a tool call that the model's answer has, a
    result that is told again, a command that is a part of a call. `result` is what a tool call came to where it is
    known: `ok`, `error`, or empty.
    """

    node: str
    exchange: Exchange
    type: str
    time_ns: int
    item: Item | None = None
    same_as: str = ""
    result: str = ""


def timeline(exchanges: Iterable[Exchange]) -> list[Entry]:
    """Entries in the order of time: items asked at an exchange's start, items answered at its end.

    A WebSocket carries many questions and answers in one exchange, and of those between no time is known: they stand
    at its start, in their order, and the last answer at its end.
    """
    entries: list[Entry] = []
    for x in exchanges:
        if not x.items or x.kind not in ("llm.message", "agent.event"):
            entries.append(Entry(x.id, x, "process" if x.minted else "call", x.started_ns))
        last = max((n for n, item in enumerate(x.items) if item.said_by != _AT_END), default=-1)
        for n, item in enumerate(x.items):
            at = x.ended_ns if n > last and x.ended_ns else x.started_ns
            entries.append(Entry(node_of(x.id, n), x, item.type, at, item))
    entries.sort(key=lambda entry: entry.time_ns)
    _merge(entries)
    return entries


def _merge(entries: list[Entry]) -> None:
    """Mark what is told again, and give calls their results."""
    first: dict[tuple[str, ...], Entry] = {}
    calls: dict[str, Entry] = {}
    waiting: dict[tuple[bool, str, str, str], list[Entry]] = {}
    for entry in entries:
        item = entry.item
        if item is None:
            continue
        for key in _keys(entry.exchange, item):
            held = first.setdefault(key, entry)
            if held is not entry:
                entry.same_as = entry.same_as or held.same_as or held.node
        if item.type == "tool_call" and item.id:
            calls.setdefault(item.id, entry)
        elif item.type == "tool_result" and item.id in calls:
            call = calls[item.id]
            call.result = "error" if item.error or call.result == "error" else "ok"
        elif item.type in ("prompt", "answer") and item.text.strip() and not entry.same_as:
            _pair(entry, item, waiting)


def _pair(entry: Entry, item: Item, waiting: dict[tuple[bool, str, str, str], list[Entry]]) -> None:
    """A prompt or answer that is on the wire and reported is one; two equal ones of one kind are two."""
    x, text = entry.exchange, item.text.strip()
    session = x.ref("agent_session")
    other = waiting.get((not x.is_model, item.type, session, text))
    if session and other:
        entry.same_as = other.pop(0).node
    elif session:
        waiting.setdefault((x.is_model, item.type, session, text), []).append(entry)


def _keys(x: Exchange, item: Item) -> list[tuple[str, ...]]:
    """What two reports of the same thing have in common."""
    if item.id:
        if item.type in ("tool_call", "command", "subagent"):  # the command of a call is a part of it
            keys: list[tuple[str, ...]] = [("call", item.id)]
            return [*keys, ("text", _turn(x), item.text.strip())] if item.type == "command" else keys
        if item.type in ("file_edit", "file_read"):
            return [(item.type, item.id, item.name)]
        return [(item.type, item.id)]
    turn = _turn(x)
    if item.type == "command" and turn:  # reported once with its call's id, and once without
        return [("text", turn, item.text.strip())]
    return []


def _turn(x: Exchange) -> str:
    return x.ref("turn") or x.ref("agent_session")
