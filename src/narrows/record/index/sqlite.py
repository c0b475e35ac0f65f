"""The index in SQLite: what was recorded, found again by field, by time and by the words in it.

It is made from the sealed records alone and may be thrown away: `rebuild` empties it, and the indexer fills it
again from the first leaf. Nothing is authoritative here; what proves is the log.

One writer (the indexer), any number of reading threads. A batch and the cursor behind it are one transaction: after
a crash the indexer goes on from the cursor, and rows that were there already are left as they are.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narrows.core import ids
from narrows.core.errors import NarrowsError, NotFound
from narrows.core.values import Principal
from narrows.record.index import query as q
from narrows.record.index import store
from narrows.record.index.plan import Plan, Sql, condition, owned_by, plan
from narrows.record.index.rows import ExchangeRow, Page, SessionRow
from narrows.record.index.schema import connect, make_anew

BATCH = 1000
"""Rows of one transaction at most."""
MAX_LIMIT = 1000
_READERS = 8
"""Reading connections kept open."""
_BUDGET_S = 5.0
"""A query that takes longer is stopped: the index serves people who wait."""
_CANDIDATES = 6


class AmbiguousIdError(NarrowsError):
    """Several ids begin with what was given; the text names some."""

    code = "ambiguous_id"


@dataclass(slots=True)
class SessionChange:
    """What a SESSION_OPEN or SESSION_CLOSE record says. `meta` is the frame's; `at_ns` when it was written."""

    session: bytes
    opened: bool
    at_ns: int
    leaf_index: int
    meta: dict[str, Any]


@dataclass(slots=True)
class Batch:
    """Rows to insert, and the last leaf that they cover."""

    cursor: int
    exchanges: list[ExchangeRow] = field(default_factory=list)
    sessions: list[SessionChange] = field(default_factory=list)


class SqliteIndex:
    """See the module. Methods raise QueryError, NotFound, AmbiguousIdError, and sqlite3.Error for a broken file.

    Without `write`, nothing of the file is changed, not even one of an older version.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self._path = path
        self._writer = connect(path, write=write)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close all connections that are not in use; the others when their query ends."""
        with self._lock, self._idle_lock:
            self._closed = True
            for db in [self._writer, *self._idle]:
                db.close()
            self._idle.clear()

    # Writing

    def insert(self, batch: Batch) -> int:
        """Write a batch and its cursor in one transaction; returns how many exchanges were new."""
        with self._write() as db:
            new = store.insert_exchanges(db, batch.exchanges)
            for change in batch.sessions:
                store.change_session(db, change.session, change.opened, change.at_ns, change.leaf_index, change.meta)
            db.execute("UPDATE cursor SET leaf_index = max(leaf_index, ?)", (batch.cursor,))
        return new

    def cursor(self) -> int:
        """The last leaf that is indexed, -1 before any."""
        with self._read() as db:
            return int(db.execute("SELECT leaf_index FROM cursor").fetchone()[0])

    def count(self) -> int:
        """How many rows there are."""
        with self._read() as db:
            return int(db.execute("SELECT count(*) FROM exchanges").fetchone()[0])

    def rebuild(self) -> None:
        """Empty the index and set the cursor before the first leaf: the indexer then fills it again."""
        with self._write() as db:
            make_anew(db)

    # Reading

    def exchanges(
        self,
        query: str = "",
        session: str = "",
        limit: int = 50,
        cursor: str = "",
        order: str = "desc",
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        """Exchanges that match, in the order in which they started; `desc` is the newest first.

        `session` is a session's id or a unique prefix (NotFound, AmbiguousIdError if it is not one). Pages
        do not shift when exchanges are added. With `owner`, here and below, only what is of that principal's
        sessions is there. Events, items, and parameters over 4 KiB, are left out of listings.
        """
        node = self._node(query, session, now_ns, owner)
        after = _position(cursor)
        if after is not None:
            bound = q.Between("n", high=after - 1) if order == "desc" else q.Between("n", low=after + 1)
            node = q.And((*_parts(node), bound))
        way = "DESC" if order == "desc" else "ASC"
        limit = _limit(limit)
        with self._read() as db:
            chosen = self._plan(db, node, limit)
            keys = [n for (n,) in _run(db, _find(chosen, f"{{n}} {way}"), limit + 1)]
            rows = store.load(db, keys[:limit])
        return Page(rows, str(keys[limit - 1]) if len(keys) > limit else "")

    def exchanges_after(
        self,
        leaf_index: int,
        query: str = "",
        session: str = "",
        limit: int = 50,
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        """Exchanges sealed after a leaf, in the order of the log: a follower that asks on misses none."""
        node = self._node(query, session, now_ns, owner)
        limit = _limit(limit)
        with self._read() as db:
            # The leaf leads: a follower asks about the few newest.
            rest = condition(node)
            where = Sql(f"x.leaf_index > ? AND {rest.text}", [leaf_index, *rest.values])
            found = Sql(f"SELECT x.n FROM exchanges x WHERE {where.text} ORDER BY x.leaf_index", where.values)  # noqa: S608
            keys = [n for (n,) in _run(db, found, limit + 1)]
            rows = store.load(db, keys[:limit])
        return Page(rows, str(rows[-1].leaf_index) if len(keys) > limit else "")

    def sessions(
        self, query: str = "", limit: int = 50, cursor: str = "", *, now_ns: int, owner: Principal | None = None
    ) -> Page[SessionRow]:
        """Sessions with at least one exchange that matches, or all for an empty query; the newest first."""
        node = q.parse(query, now_ns)
        limit = _limit(limit)
        where, values = "s.id <> zeroblob(16)", []
        if owner is not None:
            owned = owned_by("s", _owned(owner))
            where += f" AND {owned.text}"
            values += owned.values
        if cursor:
            opened, _, last = cursor.partition(".")
            where += " AND (s.opened_ns, s.id) < (?, ?)"
            values += [_position(opened), q.id_range(last)[0]]
        with self._read() as db:
            if not isinstance(node, q.Everything):
                some = self._some(db, node)
                where += f" AND {some.text}"
                values += some.values
            found = f"SELECT s.id FROM sessions s WHERE {where} ORDER BY s.opened_ns DESC, s.id DESC"  # noqa: S608
            keys = [key for (key,) in _run(db, Sql(found, values), limit + 1)]
            rows = [store.load_session(db, key) for key in keys[:limit]]
        more = len(keys) > limit
        return Page(rows, f"{rows[-1].opened_ns}.{rows[-1].id.hex()}" if more else "")

    def _some(self, db: sqlite3.Connection, node: q.Node) -> Sql:
        """A condition on `s`: it has an exchange that matches. From the matches if few, else session by session."""
        chosen = self._plan(db, node, 50)
        if chosen.words or chosen.rare:
            matches = _find(chosen, "", "x.session")
            return Sql(f"s.id IN ({matches.text})", matches.values)
        where = chosen.where
        return Sql(f"EXISTS (SELECT 1 FROM exchanges x WHERE x.session = s.id AND {where.text})", where.values)  # noqa: S608

    def by_ref(self, kind: str, value: str, limit: int = 50) -> list[ExchangeRow]:
        """Exchanges that bear an identifier (`tool_call`, `agent_session`, ...), in the order in which they started.

        For `request`, also those whose own request id it is. What an exchange bears is in its row's `refs`.
        """
        with self._read() as db:
            where = "value = ? AND kind = ? AND value = ? COLLATE BINARY"
            sql, values = f"SELECT n FROM refs WHERE {where}", [value, kind, value]  # noqa: S608
            if kind == "request":
                sql += " UNION SELECT n FROM exchanges WHERE request_id = ?"
                values.append(value)
            found = Sql(sql + " ORDER BY n", values)
            return store.load(db, [n for (n,) in _run(db, found, _limit(limit))], items=True)

    def stories(
        self, session: str, cursor: str = "", limit: int = 500, *, owner: Principal | None = None
    ) -> Page[ExchangeRow]:
        """A session's exchanges with their items, in the order in which they started: what provenance reads.

        Raises NotFound, AmbiguousIdError.
        """
        node = self._node("", session, 0, owner)
        after = _position(cursor)
        if after is not None:
            node = q.And((*_parts(node), q.Between("n", low=after + 1)))
        limit = _limit(limit)
        with self._read() as db:
            keys = [n for (n,) in _run(db, _find(self._plan(db, node, limit), "{n} ASC"), limit + 1)]
            rows = store.load(db, keys[:limit], items=True)
        return Page(rows, str(keys[limit - 1]) if len(keys) > limit else "")

    def exchange(self, id_or_prefix: str, *, owner: Principal | None = None) -> ExchangeRow:
        """One exchange in full, by its id or a prefix that no other has. Raises NotFound, AmbiguousIdError."""
        with self._read() as db:
            key = _one(db, "exchanges", "exchange", id_or_prefix, owner)
            (n,) = db.execute("SELECT n FROM exchanges WHERE id = ?", (key,)).fetchone()
            return store.load(db, [n], full=True)[0]

    def session(self, id_or_prefix: str, *, owner: Principal | None = None) -> SessionRow:
        """One session, by its id or a prefix that no other has. Raises NotFound, AmbiguousIdError."""
        with self._read() as db:
            return store.load_session(db, _one(db, "sessions", "session", id_or_prefix, owner))

    def _node(self, query: str, session: str, now_ns: int, owner: Principal | None = None) -> q.Node:
        node = q.parse(query, now_ns)
        if owner is not None:
            node = q.And((_owned(owner), *_parts(node)))
        if not session:
            return node
        # A whole id needs no look-up: a session opened a moment ago is not in the index, and has no exchanges.
        whole = len(session.replace("-", "")) == 32
        key = q.id_range(session)[0] if whole else self.session(session, owner=owner).id
        return q.And((q.InSession(key, key), *_parts(node)))

    def _plan(self, db: sqlite3.Connection, node: q.Node, limit: int) -> Plan:
        (total,) = db.execute("SELECT count FROM facets WHERE field = '' AND value = ''").fetchone() or (0,)
        return plan(node, total, limit, lambda part: store.estimate(db, part, total))

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """A reading connection of this thread's own for a while, with a limit on the time that its query takes."""
        with self._idle_lock:
            db = self._idle.pop() if self._idle else None
        if db is None:
            db = connect(self._path, write=False)
        deadline = time.monotonic() + _BUDGET_S
        db.set_progress_handler(lambda: time.monotonic() > deadline, 20_000)
        try:
            yield db
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise q.QueryError(
                f"it took longer than {_BUDGET_S:g} s", "narrow it: by time, by session, by service"
            ) from error
        finally:
            with self._idle_lock:
                keep = not self._closed and len(self._idle) < _READERS
                if keep:
                    self._idle.append(db)
            if not keep:
                db.close()


def _parts(node: q.Node) -> Iterable[q.Node]:
    return node.nodes if isinstance(node, q.And) else (node,)


def _find(chosen: Plan, order: str, what: str = "x.n") -> Sql:
    """The statement that gives `what` of the matches."""
    if chosen.words:
        # CROSS JOIN: SQLite keeps the order written, and the full text gives its hits in the order of time.
        text = f"SELECT {what} FROM words CROSS JOIN exchanges x ON x.n = words.rowid WHERE words MATCH ? AND "  # noqa: S608
        by = order.format(n="words.rowid")
        values = [chosen.words, *chosen.where.values]
    else:
        text = f"SELECT {what} FROM exchanges x WHERE "  # noqa: S608
        by, values = order.format(n="x.n"), chosen.where.values
    return Sql(text + chosen.where.text + (f" ORDER BY {by}" if by else ""), values)


def _run(db: sqlite3.Connection, sql: Sql, limit: int) -> list[tuple[Any, ...]]:
    return db.execute(sql.text + " LIMIT ?", [*sql.values, limit]).fetchall()


def _limit(limit: int) -> int:
    return max(1, min(limit, MAX_LIMIT))


def _position(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 19):
        raise q.QueryError("the cursor is not one that this index gave", "begin again without it")
    return min(int(cursor), 2**63 - 2)


def _owned(owner: Principal) -> q.OwnedBy:
    return q.OwnedBy(owner.name, owner.kind, owner.issuer)


def _one(db: sqlite3.Connection, table: str, noun: str, prefix: str, owner: Principal | None = None) -> bytes:
    """The one id in `table` that begins so, of those of `owner` if given. Raises NotFound, AmbiguousIdError."""
    try:
        low, high = q.id_range(prefix)
    except q.QueryError as error:
        raise NotFound(f"There is no {noun} {prefix[:64]!r}", "ids are hexadecimal") from error
    mine = Sql("1")
    if owner is not None:
        mine = owned_by("sessions", _owned(owner))
        if table != "sessions":
            mine.text = f"session IN (SELECT sessions.id FROM sessions WHERE {mine.text})"  # noqa: S608
    found = db.execute(
        f"SELECT id FROM {table} WHERE id BETWEEN ? AND ? AND {mine.text} ORDER BY id LIMIT ?",  # noqa: S608
        (low, high, *mine.values, _CANDIDATES + 1),
    ).fetchall()
    if not found:
        raise NotFound(
            f"There is no {noun} {prefix[:64]!r}", "no id in the index begins so", "it may not be sealed yet"
        )
    if len(found) > 1:
        names = [ids.text(key) for (key,) in found[:_CANDIDATES]]
        more = ", ..." if len(found) > _CANDIDATES else ""
        raise AmbiguousIdError(f"{prefix[:64]!r} names several {noun}s", ", ".join(names) + more, "give more of it")
    return bytes(found[0][0])
