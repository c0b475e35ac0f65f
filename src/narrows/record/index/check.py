"""Does the index say what the recording says? The index proves nothing, and what is shown comes from it.

The way of the check is the way of the indexer: the rows are made again from the sealed records, put into an index in
memory, read back, and compared field by field with what the real one holds. So every column and every detail counts,
also what was decoded. What is not compared is the full text, of which an index keeps only words.

An index that an older program made may differ in what that one decoded otherwise: then it is to be made again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from narrows.core import ids
from narrows.core.errors import NarrowsError, NotFound
from narrows.core.ports import Describe
from narrows.record.index import store
from narrows.record.index.rows import ExchangeRow, SessionRow
from narrows.record.index.schema import SCHEMA
from narrows.record.index.sqlite import BATCH, Batch, SqliteIndex
from narrows.record.indexer import MAX_BODY, add_record
from narrows.record.sealed import iter_stored

MAX_SHOWN = 200
"""Characters of a value in a difference."""
_NAMES = tuple(field.name for field in fields(ExchangeRow) if field.name != "text")
_LEFT = ("id", "session", "leaf_index", "outcome", "started_ns", "ended_ns")
"""What the log alone tells, of an exchange whose bytes are gone."""
_SESSION_NAMES = tuple(field.name for field in fields(SessionRow))


@dataclass(frozen=True, slots=True)
class Difference:
    """What the index and the recording say otherwise. `what` is an exchange's or a session's id."""

    what: str
    field: str
    index: str
    recording: str

    def json(self) -> dict[str, str]:
        """As the API shows it."""
        return {"field": self.field, "index": self.index, "recording": self.recording}


class _Scratch:
    """An index in memory: rows go through it so that they are cut and cleaned like the real ones."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(SCHEMA)

    def through(self, batch: Batch) -> list[ExchangeRow]:
        """The batch's rows as an index gives them; sessions add up."""
        db = self._db
        db.execute("BEGIN")
        store.insert_exchanges(db, batch.exchanges)
        for change in batch.sessions:
            store.change_session(db, change.session, change.opened, change.at_ns, change.leaf_index, change.meta)
        keys = [n for (n,) in db.execute("SELECT n FROM exchanges ORDER BY leaf_index")]
        rows = store.load(db, keys, full=True)
        for table in ("exchanges", "details", "touched", "refs"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
        db.execute("INSERT INTO words (words) VALUES ('delete-all')")
        db.execute("COMMIT")
        return rows

    def sessions(self) -> Iterator[SessionRow]:
        """Every session with its totals."""
        for (key,) in self._db.execute("SELECT id FROM sessions ORDER BY id").fetchall():
            yield store.load_session(self._db, key)

    def close(self) -> None:
        """Give the memory back."""
        self._db.close()


def check_row(data: Path, row: ExchangeRow, describe: Describe) -> list[Difference]:
    """What a row, read in full, says otherwise than the record at its place in the log.

    Raises ProofError for a damaged record. A row of a damaged record, which says only that, has nothing to compare.
    """
    if row.kind == "damaged":
        return []
    name = ids.text(row.id)
    batch = Batch(row.leaf_index)
    with closing(iter_stored(data, row.leaf_index - 1, MAX_BODY)) as records:
        record, stored = next(records, (None, None))
        if record is None or record.leaf_index != row.leaf_index:
            return [Difference(name, "leaf_index", str(row.leaf_index), "the log has no such record")]
        add_record(batch, record, stored, describe)
    with closing(_Scratch()) as scratch:
        told = scratch.through(batch)
    if not told:
        return [Difference(name, "kind", row.kind, f"the log has a {record.type} there")]
    return _compare(name, row, told[0], _LEFT if record.erased else _NAMES)


def check_index(
    data: Path, index: SqliteIndex, describe: Describe, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Difference]:
    """Compare all that is indexed with the recording: rows, rows that are missing or too many, sessions.

    Raises ProofError for a damaged record. Memory is bounded but for the sessions' totals.
    """
    last = index.cursor()
    with closing(_Scratch()) as scratch, closing(iter_stored(data, -1, MAX_BODY)) as records:
        batch, seen, erased = Batch(-1), 0, set[bytes]()
        for record, stored in records:
            if record.leaf_index > last:
                break
            add_record(batch, record, stored, describe)
            if record.erased:
                erased |= {record.exchange, record.session}
            batch.cursor = record.leaf_index
            if len(batch.exchanges) >= BATCH:
                seen += len(batch.exchanges)
                yield from _compare_batch(index, scratch, batch, erased)
                progress(batch.cursor, last)
                batch = Batch(batch.cursor)
        seen += len(batch.exchanges)
        yield from _compare_batch(index, scratch, batch, erased)
        count = index.count()
        if count != seen:
            yield Difference("index.db", "exchanges", str(count), str(seen))
        for told in scratch.sessions():
            if told.id not in erased:
                yield from _check_session(index, told)


def _compare_batch(index: SqliteIndex, scratch: _Scratch, batch: Batch, erased: set[bytes]) -> Iterator[Difference]:
    for told in scratch.through(batch):
        name = ids.text(told.id)
        try:
            held = index.exchange(name)
        except NotFound:
            yield Difference(name, "id", "it has no such exchange", f"leaf {told.leaf_index}")
            continue
        yield from _compare(name, held, told, _LEFT if told.id in erased else _NAMES)


def _check_session(index: SqliteIndex, told: SessionRow) -> Iterator[Difference]:
    name = ids.text(told.id)
    if told.id == ids.NIL:
        return
    try:
        held = index.session(name)
    except NarrowsError as error:
        yield Difference(name, "id", str(error), "a session")
        return
    yield from _compare(name, held, told, _SESSION_NAMES)


def _compare(name: str, held: Any, told: Any, names: tuple[str, ...]) -> list[Difference]:
    found = []
    for field in names:
        ours, theirs = getattr(held, field), getattr(told, field)
        if ours != theirs:
            found.append(Difference(name, field, _shown(ours), _shown(theirs)))
    return found


def _shown(value: Any) -> str:
    text = ids.text(value) if isinstance(value, bytes) and len(value) == 16 else str(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
