"""Why something happened, and a session in the order of time: provenance over what the index holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.values import Item
from narrows.manage.common import MAX_PAGE, Dependencies, Granted
from narrows.manage.deps import Index
from narrows.manage.responses import JsonResponse
from narrows.provenance.chain import Provenance
from narrows.provenance.model import MAX_EXCHANGES, Chain, Exchange, Link, Process, parts_of
from narrows.provenance.timeline import Entry, timeline
from narrows.record.index.rows import ExchangeRow

router = APIRouter(tags=["provenance"])

MAX_TEXT = 4096
"""Characters of an item's text in an answer; the whole is in the exchange."""
MAX_BYTES = 256 * 1024 * 1024
"""Of one session's items that are held at once; what is beyond them is looked at without its items."""
MAX_BELOW = 2000
_PAGE = 1000


@router.get("/exchanges/{exchange}/why")
def why(
    exchange: str,
    deps: Dependencies,
    granted: Granted,
    direction: Literal["up", "down"] = "up",
    item: Annotated[int | None, Query(ge=0, le=999_999)] = None,
) -> Response:
    """The chain from an exchange, or one item of it, up to the prompt; or everything that it caused.

    Each step names its node (`ID`, or `ID#n` for an item), and `link` says what it rests on: `evidence` is `proven`,
    `reported` or `inferred`. With `direction=down`, `nodes` are in the order of time below their causes.
    """
    row = deps.index.exchange(exchange, owner=granted.scope)
    exchanges, notes = _session(deps.index, row)
    known = Provenance(exchanges)
    node = ids.text(row.id) + (f"#{item}" if item is not None else "")
    try:
        answer = _up(known, node) if direction == "up" else _down(known, node)
    except KeyError as error:
        about = "it has no item of that number" if item is not None else "its session has more than are looked at"
        raise NotFound(f"There is nothing known of {node}", about) from error
    answer["notes"] = [*notes, *answer["notes"]]
    return JsonResponse({"exchange": ids.text(row.id), "session": ids.text(row.session), **answer})


@router.get("/sessions/{session}/timeline")
def show_timeline(
    session: str,
    deps: Dependencies,
    granted: Granted,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
    cursor: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """What was said, called and done in a session, in the order of time; `limit` counts exchanges.

    Pages follow each other by the start of the exchanges. `same_as` names the entry that tells the same thing.
    """
    page = deps.index.stories(session, cursor, limit, owner=granted.scope)
    rows = {ids.text(row.id): row for row in page.items}
    entries = timeline(exchange_of(row) for row in page.items)
    return JsonResponse({"items": [_entry(entry, rows[entry.exchange.id]) for entry in entries], "next": page.next})


def _session(index: Index, row: ExchangeRow) -> tuple[list[Exchange], list[str]]:
    """The exchanges of a row's session, and notes on what of them was left out."""
    if row.session == ids.NIL:
        return [exchange_of(row)], ["it belongs to no session"]
    found: list[Exchange] = []
    notes: list[str] = []
    cursor, size = "", 0
    while len(found) < MAX_EXCHANGES:
        page = index.stories(ids.text(row.session), cursor, _PAGE)
        for one in page.items:
            size += sum(_size(item) for item in one.items)
            if size > MAX_BYTES:
                one.items = []
            found.append(exchange_of(one))
        cursor = page.next
        if not cursor:
            break
    if size > MAX_BYTES:
        notes.append(f"items beyond {MAX_BYTES >> 20} MB of text were not looked at")
    if cursor:
        notes.append(f"the session has more than {MAX_EXCHANGES} exchanges; the first were looked at")
    if not any(one.id == ids.text(row.id) for one in found):
        found.append(exchange_of(row))
    return found, notes


def _size(item: dict[str, Any]) -> int:
    data = item.get("data")
    inner = sum(len(value) for value in data.values() if isinstance(value, str)) if isinstance(data, dict) else 0
    return 200 + len(item.get("text", "")) + inner


def exchange_of(row: ExchangeRow) -> Exchange:
    """A row as the rules see it."""
    facts = row.facts if isinstance(row.facts, dict) else {}
    refs = tuple((kind, value) for kind, value in row.refs)
    lease = facts.get("lease")
    messages = row.llm.get("messages") if row.llm else 0
    return Exchange(
        id=ids.text(row.id),
        kind=row.kind,
        service=row.service,
        operation=row.operation,
        started_ns=row.started_ns,
        ended_ns=row.ended_ns,
        answered_ns=row.started_ns + row.first_byte_ns,
        items=tuple(_item(item) for item in row.items),
        refs=refs,
        connection=row.connection,
        agent=row.agent,
        agent_version=row.agent_version,
        model=row.model,
        lease=lease if isinstance(lease, str) else "",
        processes=_processes(facts.get("process")),
        kernel=facts.get("process_from") == "kernel",
        names=_names(row),
        messages=messages if isinstance(messages, int) else 0,
        about=row,
    )


def _item(held: dict[str, Any]) -> Item:
    return Item(
        str(held.get("type", "")),
        str(held.get("text", "")),
        str(held.get("id", "")),
        str(held.get("name", "")),
        held.get("data"),
        held.get("error") is True,
        "response" if held.get("said_by") == "response" else "request",
    )


def _processes(listed: Any) -> tuple[Process, ...]:
    found = []
    for one in listed[:64] if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(one.get("pid"), int):
            argv = one.get("argv")
            words = tuple(str(word) for word in argv[:1024]) if isinstance(argv, list) else ()
            found.append(Process(one["pid"], words, str(one.get("cwd", "")), str(one.get("start", ""))))
    return tuple(found)


def _names(row: ExchangeRow) -> tuple[str, ...]:
    """What the call acts on, by the names that a command would use: the last parts of its ARNs, short parameters."""
    found = []
    for resource in row.resources[:8]:
        arn = str(resource.get("arn", "")).rsplit(":", 1)[-1]
        found += [arn, arn.partition("/")[2], arn.partition("/")[0]]
    if isinstance(row.parameters, dict):
        found += [value for value in row.parameters.values() if isinstance(value, str) and len(value) <= 256]
    return tuple(dict.fromkeys(name for name in found if name))[:24]


# -- answers ----------------------------------------------------------------------------------------------------------


def _up(known: Provenance, node: str) -> dict[str, Any]:
    chain: Chain = known.up(node)
    weakest = chain.weakest
    steps = []
    for step in chain.steps:
        told = _node(known, step.node)
        told["link"] = _link(step.link)
        told["alternatives"] = [_link(link) for link in step.alternatives]
        told["same_bytes"] = [_link(link) for link in step.same_bytes]
        steps.append(told)
    evidence = weakest.evidence.value if weakest is not None else ""
    return {"direction": "up", "steps": steps, "reached": chain.reached, "weakest": evidence, "notes": chain.notes}


def _down(known: Provenance, node: str) -> dict[str, Any]:
    tree = known.down(node, MAX_BELOW)
    nodes = [{**_node(known, below.node), "depth": below.depth, "link": _link(below.link)} for below in tree.nodes]
    roots = [_node(known, root) for root in tree.roots]
    return {"direction": "down", "roots": roots, "nodes": nodes, "cut": tree.cut, "notes": tree.notes}


def _link(link: Link | None) -> dict[str, Any] | None:
    if link is None:
        return None
    told = {"cause": link.cause, "rule": link.rule, "evidence": link.evidence.value}
    return {**told, "score": link.score, "why": link.why}


def _node(known: Provenance, node: str) -> dict[str, Any]:
    x = known.known.exchange(node)
    _, n = parts_of(node)
    return _told(node, x, x.items[n] if n is not None else None)


def _told(node: str, x: Exchange, item: Item | None) -> dict[str, Any]:
    """A node as it is shown."""
    row = x.about if isinstance(x.about, ExchangeRow) else None
    shown: dict[str, Any] = {
        "node": node,
        "exchange": x.id,
        "kind": x.kind,
        "service": x.service,
        "operation": x.operation,
        "started_ns": x.started_ns,
        "ended_ns": x.ended_ns,
        "agent": x.agent,
        "agent_version": x.agent_version,
        "model": x.model,
        "item": _shown(item) if item is not None else None,
    }
    if row is not None and item is None:
        shown["status"], shown["outcome"] = row.status, row.outcome
        shown["error_code"], shown["access_level"] = row.error_code, row.access_level
        shown["resources"] = row.resources[:4]
    if x.processes:
        shown["process"] = [{"pid": p.pid, "argv": _words(p.argv), "cwd": p.cwd} for p in x.processes[:16]]
        shown["process_from"] = "kernel" if x.kernel else "client"
    return shown


def _words(argv: Iterable[str]) -> list[str]:
    return [word[:MAX_TEXT] for word in argv][:64]


def _shown(item: Item) -> dict[str, Any]:
    data = item.data
    if isinstance(data, dict):
        data = {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in list(data.items())[:32]}
    return {
        "type": item.type, "text": item.text[:MAX_TEXT], "cut": len(item.text) > MAX_TEXT, "id": item.id,
        "name": item.name, "data": data, "error": item.error,
    }  # fmt: skip


def _entry(entry: Entry, row: ExchangeRow) -> dict[str, Any]:
    told = _told(entry.node, entry.exchange, entry.item)
    told |= {"type": entry.type, "time_ns": entry.time_ns, "same_as": entry.same_as, "result": entry.result}
    if entry.item is None:
        told |= {"method": row.method, "host": row.host, "target": row.target[:MAX_TEXT]}
        told |= {"last_byte_ns": row.last_byte_ns, "bytes_in": row.bytes_in, "bytes_out": row.bytes_out}
    return told
