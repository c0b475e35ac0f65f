"""How rows go into the index's tables and come out again. SQL only; no decisions."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from narrows.record.index import query as q
from narrows.record.index.plan import match
from narrows.record.index.rows import MAX_PARAMETERS, MAX_TEXT, ExchangeRow, SessionRow
from narrows.record.index.schema import FACETS

MAX_FACTS = 64 * 1024
MAX_EVENTS = 64 * 1024
MAX_ITEMS = 64 * 1024
"""Characters of an exchange's items as JSON; beyond it they are cut, the longest texts first."""
MAX_ITEM = 16 * 1024
MAX_COUNT = 500
"""Items, identifiers, and findings of one exchange."""
MAX_REF = 512
MAX_NAME = 4096
"""Characters of any one text column: what comes from a client must not grow the index at will."""
MAX_TARGET = 16 * 1024
MAX_RESOURCES = 200
MAX_VALUES = 64
"""Distinct values of a field that are counted per session; the rest is not shown in its summary."""
LISTED_PARAMETERS = 4096
COUNTED = ("model", "tool", "finding")
"""Kinds of `refs` that are counted in `facets`."""

_COLUMNS = (
    "id", "session", "leaf_index", "kind", "connection", "principal", "agent", "agent_version", "model",
    "service", "operation", "action",
    "access_level", "protocol", "region", "account", "status", "error_code", "request_id", "invocation_id", "attempt",
    "outcome", "decision", "durability", "started_ns", "ended_ns", "first_byte_ns", "last_byte_ns", "gateway_ns",
    "bytes_in", "bytes_out", "host", "method", "target", "tokens_in", "tokens_out", "cost_usd",
)  # fmt: skip
_DETAILS = (
    "reason",
    "error_message",
    "resources",
    "parameters",
    "parameters_truncated",
    "events",
    "facts",
    "problems",
    "location",
    "items",
    "refs",
    "llm",
    "findings",
)
_INSERT = f"INSERT INTO exchanges (n, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)}) ON CONFLICT DO NOTHING"  # noqa: S608
_INSERT_DETAILS = f"INSERT INTO details VALUES (?{', ?' * len(_DETAILS)})"  # noqa: S608
_INSERT_WORDS = "INSERT INTO words (rowid, text, parameters, target, resources, names) VALUES (?, ?, ?, ?, ?, ?)"
_FACETS_AT = [(name, _COLUMNS.index(name) + 1) for name in FACETS]
_MAX_INT = 2**63 - 1


def clean(text: str) -> str:
    """Text that SQLite and JSON can hold: no NUL, no lone surrogates."""
    if text.isascii():
        return text.replace("\0", " ") if "\0" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", " ") if "\0" in text else text


def pack(value: Any) -> str:
    """JSON, whatever the value holds: what JSON has no form for becomes its text."""
    try:
        return orjson.dumps(value, default=_other, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):
        return orjson.dumps(_plain(value, 0)).decode()


def _other(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, (bytes, bytearray)) else str(value)


def _plain(value: Any, depth: int) -> Any:
    if depth > 40:
        return "..."
    if isinstance(value, dict):
        return {clean(str(k)): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    return clean(_other(value))


def _whole(value: int) -> int:
    return value if -_MAX_INT <= value <= _MAX_INT else max(-_MAX_INT, min(value, _MAX_INT))


def _size(value: int) -> int:
    """A size that may be added up: a sum over 63 bits would turn into a floating-point number."""
    return max(0, min(value, 2**50))


def insert_exchanges(db: sqlite3.Connection, rows: Sequence[ExchangeRow]) -> int:
    """Insert the rows that are not there yet, with their words, resources, totals and facets; returns how many."""
    facets: Counter[tuple[str, str]] = Counter()
    details: list[list[Any]] = []
    words: list[list[Any]] = []
    touched: list[tuple[int, int]] = []
    refs: list[tuple[str, str, int]] = []
    totals = _Totals()
    arns: dict[str, int] = {}
    # In the order of time, because the full text writes a segment of its own for each step back.
    for row in sorted(rows, key=lambda row: row.started_ns):
        values = _insert(db, row)
        if not values:
            continue
        n = values[0]
        searched, parameters, cut = _parameters(row)
        resources = row.resources[:MAX_RESOURCES]
        named = [clean(str(resource.get("arn", "")))[:MAX_NAME] for resource in resources]
        details.append([n, *_details(row, resources, parameters, cut)])
        words.append([n, *_words(row, searched, named)])
        touched += [(_arn(db, arns, arn), n) for arn in dict.fromkeys(filter(None, named))]
        joined = found_by(row)
        refs += [(kind, value, n) for kind, value in joined]
        totals.add(row)
        facets[("", "")] += 1
        for column, at in _FACETS_AT:
            facets[(column, values[at] if column != "status" else str(values[at]))] += 1
        for kind, value in joined:
            if kind in COUNTED:
                facets[(kind, value)] += 1
    db.executemany(_INSERT_DETAILS, details)
    db.executemany(_INSERT_WORDS, words)
    db.executemany("INSERT OR IGNORE INTO touched VALUES (?, ?)", touched)
    db.executemany("INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", refs)
    totals.write(db)
    db.executemany(
        "INSERT INTO facets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [(column, value, count) for (column, value), count in facets.items()],
    )
    return len(details)


def _insert(db: sqlite3.Connection, row: ExchangeRow) -> list[Any]:
    """Insert an exchange at its time or the next free nanosecond; its `n` and columns, none if it was there already."""
    values: list[Any] = [max(_whole(row.started_ns), 0)]
    for name in _COLUMNS:
        value = getattr(row, name)
        if isinstance(value, str):
            if value:
                value = clean(value)[: MAX_TARGET if name == "target" else MAX_NAME]
        elif isinstance(value, int):
            value = _whole(value)
        values.append(value)
    while not db.execute(_INSERT, values).rowcount:
        # Only now is it asked why: nearly all are new, and alone in their nanosecond.
        if db.execute("SELECT 1 FROM exchanges WHERE id = ?", (row.id,)).fetchone():
            return []
        values[0] += 1
    return values


def _parameters(row: ExchangeRow) -> tuple[str, str, bool]:
    """The parameters as they are searched and as they are kept, and whether they were cut."""
    parameters = pack(row.parameters)
    if len(parameters) <= MAX_PARAMETERS // 4 or len(parameters.encode()) <= MAX_PARAMETERS:
        return parameters, parameters, row.parameters_truncated
    # Cut JSON is no JSON: the row keeps its beginning as text, and says so.
    searched = parameters.encode()[:MAX_PARAMETERS].decode("utf-8", "ignore")
    return searched, pack({"beginning": searched[: MAX_PARAMETERS // 2]}), True


def _details(row: ExchangeRow, resources: list[dict[str, Any]], parameters: str, cut: bool) -> list[Any]:
    problems = list(row.problems)
    events, facts = pack(row.events), pack(row.facts) if row.facts else "{}"
    if len(events) > MAX_EVENTS:
        events = "[]"
        problems.append(f"{len(row.events)} events are too large for the index: see the recording")
    items = _items(row, problems)
    llm = pack(row.llm) if row.llm else "{}"
    if len(llm) > MAX_FACTS:
        llm = "{}"
        problems.append("what the model call says of itself is too large for the index: see the recording")
    for name in ("refs", "findings"):
        if len(getattr(row, name)) > MAX_COUNT:
            problems.append(f"of {len(getattr(row, name))} {name}, {MAX_COUNT} are in the index: see the recording")
    if len(facts) > MAX_FACTS:
        facts = _smaller(row.facts, problems)
    return [
        clean(row.reason)[:MAX_NAME],
        clean(row.error_message)[:MAX_NAME],
        pack(resources),
        parameters,
        int(cut),
        events,
        facts,
        pack([clean(str(problem))[:MAX_NAME] for problem in problems[:50]]) if problems else "[]",
        pack(row.location),
        items,
        pack(row.refs[:MAX_COUNT]) if row.refs else "[]",
        llm,
        pack(row.findings[:MAX_COUNT]) if row.findings else "[]",
    ]


def _smaller(facts: dict[str, Any], problems: list[str]) -> str:
    """The facts without their largest, until the rest fits."""
    sizes = sorted((len(pack(value)), name) for name, value in facts.items())
    kept: dict[str, Any] = {}
    room = MAX_FACTS
    for size, name in sizes:
        room -= size + len(name) + 8
        if room < 0:
            problems.append(f"the fact {name} is too large for the index: see the recording")
        else:
            kept[name] = facts[name]
    return pack(kept)


def _items(row: ExchangeRow, problems: list[str]) -> str:
    """The items as JSON, within the limits; `cut` marks one whose text or data is not whole."""
    if not row.items:
        return "[]"
    packed = pack(row.items)
    if len(row.items) <= MAX_COUNT and len(packed) <= MAX_ITEM:
        return packed
    # What is answered comes last, and matters more than the middle of what was asked.
    some = row.items if len(row.items) <= MAX_COUNT else [*row.items[:100], *row.items[100 - MAX_COUNT :]]
    kept = [_cut(item, MAX_ITEM) for item in some]
    limit = MAX_ITEM
    while len(packed := pack(kept)) > MAX_ITEMS:
        limit //= 4
        kept = [_cut(item, limit) for item in kept] if limit else []
    if any("cut" in item for item in kept) or len(kept) < len(row.items):
        problems.append(f"the {len(row.items)} items are too large for the index: see the recording")
    return packed


def _cut(item: dict[str, Any], limit: int) -> dict[str, Any]:
    text, data = str(item.get("text", "")), item.get("data")
    long_data = data is not None and len(pack(data)) > limit
    if len(text) <= limit and not long_data:
        return item
    small = {**item, "text": text[:limit], "cut": True}
    if long_data:
        small["data"] = None
    return small


def found_by(row: ExchangeRow) -> list[tuple[str, str]]:
    """By what an exchange is found in `refs`: its identifiers, its model and tools, what was detected in it.

    Kinds that the index itself makes (`COUNTED`) are never an identifier's.
    """
    found: dict[tuple[str, str], None] = {}
    if row.model:
        found["model", clean(row.model)[:MAX_REF]] = None
    for kind, value in row.refs[:MAX_COUNT]:
        # What has a column of its own is found there: small calls are many.
        if value and kind not in COUNTED and not (kind == "request" and value == row.request_id):
            found[clean(str(kind))[:64], clean(str(value))[:MAX_REF]] = None
    if row.items:
        for item in row.items[:MAX_COUNT]:
            if item.get("type") == "tool_call" and item.get("name"):
                found["tool", clean(str(item["name"]))[:MAX_REF]] = None
    for finding in row.findings[:MAX_COUNT]:
        found["finding", clean(str(finding.get("kind", "")))[:MAX_REF]] = None
    return list(found)


def _words(row: ExchangeRow, searched: str, arns: list[str]) -> list[str]:
    names = " ".join(filter(None, (row.service, row.operation, row.action, row.error_code, row.error_message)))
    where = f"{row.method} {row.host} {row.target}"
    return [clean(row.text[:MAX_TEXT]), searched, clean(where)[:MAX_TARGET], " ".join(arns), clean(names)]


def _arn(db: sqlite3.Connection, known: dict[str, int], arn: str) -> int:
    """The number of an ARN; `known` has those of this batch."""
    a = known.get(arn)
    if a is None:
        db.execute("INSERT INTO arns (arn) VALUES (?) ON CONFLICT DO NOTHING", (arn,))
        (a,) = db.execute("SELECT a FROM arns WHERE arn = ?", (arn,)).fetchone()
        known[arn] = a
    return int(a)


class _Totals:
    """What a batch's exchanges add to their sessions' totals: one statement a session, not one an exchange."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, list[int]] = {}
        self._counts: Counter[tuple[bytes, str, str]] = Counter()

    def add(self, row: ExchangeRow) -> None:
        """Add an exchange. They come in the order of time."""
        refused = row.outcome == "refused"
        failed = not refused and (row.status >= 400 or row.outcome not in ("", "complete"))
        started, ended = _whole(row.started_ns), _whole(max(row.ended_ns, row.started_ns))
        sizes = _size(row.bytes_in), _size(row.bytes_out)
        sums = self._sessions.get(row.session)
        if sums is None:
            self._sessions[row.session] = [started, 1, int(failed), int(refused), *sizes, started, ended]
        else:
            for at, value in enumerate((1, int(failed), int(refused), *sizes), 1):
                sums[at] += value
            sums[6] = started if sums[6] == 0 else min(sums[6], started)
            sums[7] = max(sums[7], ended)
        for name in ("service", "access_level", "agent"):
            value = getattr(row, name)
            if value:
                self._counts[(row.session, name, clean(value)[:MAX_NAME])] += 1

    def write(self, db: sqlite3.Connection) -> None:
        """Add them to what is there."""
        db.executemany(
            "INSERT INTO sessions (id, opened_ns, exchanges, errors, refused, bytes_in, bytes_out, first_ns, last_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET exchanges = exchanges + excluded.exchanges, "
            "errors = errors + excluded.errors, refused = refused + excluded.refused, "
            "bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out, "
            "first_ns = CASE WHEN first_ns = 0 THEN excluded.first_ns ELSE min(first_ns, excluded.first_ns) END, "
            "last_ns = max(last_ns, excluded.last_ns)",
            [(session, *sums) for session, sums in self._sessions.items()],
        )
        db.executemany(
            "INSERT INTO session_counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(*key, count) for key, count in self._counts.items()],
        )


def change_session(
    db: sqlite3.Connection, session: bytes, opened: bool, at_ns: int, leaf_index: int, meta: dict[str, Any]
) -> None:
    """Note that a session was opened or closed. In any order, and any number of times."""
    db.execute("INSERT OR IGNORE INTO sessions (id, opened_ns) VALUES (?, ?)", (session, _whole(at_ns)))
    if opened:
        db.execute(
            "UPDATE sessions SET body = ?, opened_ns = ?, leaf_index = ?, "
            "state = CASE state WHEN 'unknown' THEN 'open' ELSE state END WHERE id = ?",
            (pack(meta), _whole(at_ns), leaf_index, session),
        )
        return
    code = meta.get("exit_code")
    db.execute(
        "UPDATE sessions SET state = ?, exit_code = coalesce(?, exit_code), "
        "closed_ns = CASE closed_ns WHEN 0 THEN ? ELSE closed_ns END WHERE id = ?",
        (clean(str(meta.get("why") or "closed"))[:64], code if isinstance(code, int) else None, _whole(at_ns), session),
    )


def load(
    db: sqlite3.Connection, keys: Sequence[int], *, full: bool = False, items: bool = False
) -> list[ExchangeRow]:
    """The rows of these `n`, in this order. Unless `full`, without events, items (but with `items`), and large
    parameters."""
    names = ", ".join([*(f"x.{name}" for name in _COLUMNS), *(f"d.{name}" for name in _DETAILS)])
    statement = f"SELECT {names} FROM exchanges x JOIN details d USING (n) WHERE x.n = ?"  # noqa: S608
    rows = []
    for key in keys:
        values = db.execute(statement, (key,)).fetchone()
        row = ExchangeRow(**dict(zip((*_COLUMNS, *_DETAILS), values, strict=True)))
        raw = str(row.parameters)
        row.parameters_truncated = bool(row.parameters_truncated)
        if full or len(raw) <= LISTED_PARAMETERS:
            row.parameters = orjson.loads(raw)
        else:
            row.parameters, row.parameters_truncated = None, True
        row.events = orjson.loads(str(row.events)) if full else []
        for name in ("resources", "facts", "problems", "location", "refs", "llm", "findings"):
            setattr(row, name, orjson.loads(getattr(row, name)))
        row.refs = [(kind, value) for kind, value in row.refs]
        row.items = orjson.loads(str(row.items)) if full or items else []
        rows.append(row)
    return rows


def load_session(db: sqlite3.Connection, key: bytes) -> SessionRow:
    """One session with its totals. The id must be there."""
    names = (
        "body", "state", "exit_code", "opened_ns", "closed_ns", "leaf_index", "exchanges", "errors", "refused",
        "bytes_in", "bytes_out", "first_ns", "last_ns",
    )  # fmt: skip
    values = db.execute(f"SELECT {', '.join(names)} FROM sessions WHERE id = ?", (key,)).fetchone()  # noqa: S608
    known = dict(zip(names, values, strict=True))
    body = orjson.loads(known.pop("body"))
    row = SessionRow(key, **known)
    for name in ("principal", "principal_kind", "issuer", "agent", "agent_version", "cwd", "host"):
        setattr(row, name, str(body.get(name) or ""))
    for name in ("groups", "command", "connections"):
        value = body.get(name)
        setattr(row, name, [str(item) for item in value] if isinstance(value, list) else [])
    for name in ("pid", "expires"):
        value = body.get(name)
        setattr(row, name, value if isinstance(value, int) else 0)
    counted = db.execute(
        "SELECT field, value, count FROM session_counts WHERE session = ? ORDER BY count DESC LIMIT ?",
        (key, MAX_VALUES),
    ).fetchall()
    if not row.agent:  # the launcher did not know: what the agent called itself on the wire
        row.agent = next((value for name, value, _ in counted if name == "agent"), "")
    row.services = sorted(value for name, value, _ in counted if name == "service")
    row.levels = {value: count for name, value, count in counted if name == "access_level"}
    return row


def estimate(db: sqlite3.Connection, part: q.Match | q.Between | q.InSession | q.Ref, total: int) -> int:
    """How many exchanges a condition matches: exactly for facets and sessions, linearly for times."""
    values: list[Any]
    if isinstance(part, q.InSession):
        sql = "SELECT sum(exchanges) FROM sessions WHERE id BETWEEN ? AND ?"
        values = [part.low, part.high]
    elif isinstance(part, q.Match):
        found = match("value", part.pattern)
        sql = f"SELECT sum(count) FROM facets WHERE field = ? AND {found.text}"  # noqa: S608
        values = [part.column, *found.values]
    elif isinstance(part, q.Ref):
        found = match("value", part.pattern)
        sql = f"SELECT sum(count) FROM facets WHERE field = ? AND {found.text}"  # noqa: S608
        values = [part.kind, *found.values]
    elif part.column == "n":
        first, last = db.execute("SELECT (SELECT min(n) FROM exchanges), (SELECT max(n) FROM exchanges)").fetchone()
        span = (last or 0) - (first or 0) + 1
        inside = min(part.high, last or 0) - max(part.low, first or 0) + 1
        return max(0, total * inside // span)
    else:
        sql = "SELECT sum(count) FROM facets WHERE field = ? AND CAST(value AS INTEGER) BETWEEN ? AND ?"
        values = [part.column, part.low, part.high]
    return int(db.execute(sql, values).fetchone()[0] or 0)
