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
from narrows.record.index.schema import FACETS, SCHEMA

MAX_FACTS = 16 * 1024
MAX_EVENTS = 64 * 1024
MAX_NAME = 4096
"""Characters of any one text column: what comes from a client must not grow the index at will."""
MAX_TARGET = 16 * 1024
MAX_RESOURCES = 200
MAX_VALUES = 64
"""Distinct values of a field that are counted per session; the rest is not shown in its summary."""
LISTED_PARAMETERS = 4096

_COLUMNS = (
    "id", "session", "leaf_index", "kind", "connection", "principal", "agent", "service", "operation", "action",
    "access_level", "protocol", "region", "account", "status", "error_code", "request_id", "invocation_id", "attempt",
    "outcome", "decision", "durability", "started_ns", "ended_ns", "first_byte_ns", "last_byte_ns", "gateway_ns",
    "bytes_in", "bytes_out", "host", "method", "target",
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
)
_INSERT = f"INSERT INTO exchanges (n, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)}) ON CONFLICT DO NOTHING"  # noqa: S608
_INSERT_DETAILS = f"INSERT INTO details VALUES (?{', ?' * len(_DETAILS)})"  # noqa: S608
_INSERT_WORDS = "INSERT INTO words (rowid, text, parameters, target, resources, names) VALUES (?, ?, ?, ?, ?, ?)"
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
    return max(-_MAX_INT, min(value, _MAX_INT))


def _size(value: int) -> int:
    """A size that may be added up: a sum over 63 bits would turn into a floating-point number."""
    return max(0, min(value, 2**50))


def insert_exchanges(db: sqlite3.Connection, rows: Sequence[ExchangeRow]) -> int:
    """Insert the rows that are not there yet, with their words, resources, totals and facets; returns how many."""
    facets: Counter[tuple[str, str]] = Counter()
    details: list[list[Any]] = []
    words: list[list[Any]] = []
    touched: list[tuple[int, int]] = []
    totals = _Totals()
    arns: dict[str, int] = {}
    # In the order of time, because the full text writes a segment of its own for each step back.
    for row in sorted(rows, key=lambda row: row.started_ns):
        n = _insert(db, row)
        if n is None:
            continue
        searched, parameters, cut = _parameters(row)
        resources = row.resources[:MAX_RESOURCES]
        named = [clean(str(resource.get("arn", "")))[:MAX_NAME] for resource in resources]
        details.append([n, *_details(row, resources, parameters, cut)])
        words.append([n, *_words(row, searched, named)])
        touched += [(_arn(db, arns, arn), n) for arn in dict.fromkeys(filter(None, named))]
        totals.add(row)
        facets[("", "")] += 1
        for column in FACETS:
            facets[(column, clean(str(getattr(row, column)))[:MAX_NAME])] += 1
    db.executemany(_INSERT_DETAILS, details)
    db.executemany(_INSERT_WORDS, words)
    db.executemany("INSERT OR IGNORE INTO touched VALUES (?, ?)", touched)
    totals.write(db)
    db.executemany(
        "INSERT INTO facets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [(column, value, count) for (column, value), count in facets.items()],
    )
    return len(details)


def _insert(db: sqlite3.Connection, row: ExchangeRow) -> int | None:
    """Insert an exchange at its time or the next free nanosecond; its `n`, None where it was there already."""
    values: list[Any] = [max(_whole(row.started_ns), 0)]
    for name in _COLUMNS:
        value = getattr(row, name)
        if isinstance(value, str):
            value = clean(value)[: MAX_TARGET if name == "target" else MAX_NAME]
        elif isinstance(value, int):
            value = _whole(value)
        values.append(value)
    while not db.execute(_INSERT, values).rowcount:
        # Only now is it asked why: nearly all are new, and alone in their nanosecond.
        if db.execute("SELECT 1 FROM exchanges WHERE id = ?", (row.id,)).fetchone():
            return None
        values[0] += 1
    return int(values[0])


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
    events, facts = pack(row.events), pack(row.facts)
    if len(events) > MAX_EVENTS:
        events = "[]"
        problems.append(f"{len(row.events)} events are too large for the index: see the recording")
    if len(facts) > MAX_FACTS:
        facts = "{}"
        problems.append("the facts are too large for the index: see the recording")
    return [
        clean(row.reason)[:MAX_NAME],
        clean(row.error_message)[:MAX_NAME],
        pack(resources),
        parameters,
        int(cut),
        events,
        facts,
        pack([clean(str(problem))[:MAX_NAME] for problem in problems[:50]]),
        pack(row.location),
    ]


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
        for name in ("service", "access_level"):
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


def clear(db: sqlite3.Connection) -> None:
    """Drop all tables and make them anew."""
    names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    # The full text's own tables go with it.
    for (name,) in sorted(names, key=lambda row: row[0] != "words"):
        if name == "words" or not name.startswith("words_"):
            db.execute(f"DROP TABLE {name}")
    for statement in filter(str.strip, SCHEMA.split(";\n")):
        db.execute(statement)


def load(db: sqlite3.Connection, keys: Sequence[int], *, full: bool = False) -> list[ExchangeRow]:
    """The rows of these `n`, in this order. Unless `full`, without events, and large parameters left out."""
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
        for name in ("resources", "facts", "problems", "location"):
            setattr(row, name, orjson.loads(getattr(row, name)))
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
    row.services = sorted(value for name, value, _ in counted if name == "service")
    row.levels = {value: count for name, value, count in counted if name == "access_level"}
    return row


def estimate(db: sqlite3.Connection, part: q.Match | q.Between | q.InSession, total: int) -> int:
    """How many exchanges a condition matches: exactly for facets and sessions, linearly for times."""
    values: list[Any]
    if isinstance(part, q.InSession):
        sql = "SELECT sum(exchanges) FROM sessions WHERE id BETWEEN ? AND ?"
        values = [part.low, part.high]
    elif isinstance(part, q.Match):
        found = match("value", part.pattern)
        sql = f"SELECT sum(count) FROM facets WHERE field = ? AND {found.text}"  # noqa: S608
        values = [part.column, *found.values]
    elif part.column == "n":
        first, last = db.execute("SELECT (SELECT min(n) FROM exchanges), (SELECT max(n) FROM exchanges)").fetchone()
        span = (last or 0) - (first or 0) + 1
        inside = min(part.high, last or 0) - max(part.low, first or 0) + 1
        return max(0, total * inside // span)
    else:
        sql = "SELECT sum(count) FROM facets WHERE field = ? AND CAST(value AS INTEGER) BETWEEN ? AND ?"
        values = [part.column, part.low, part.high]
    return int(db.execute(sql, values).fetchone()[0] or 0)
