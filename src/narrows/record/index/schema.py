"""The index's tables, and how its database is opened.

An exchange's row id `n` is the time it started, in ns since the Unix epoch (the next free one where two started in
the same nanosecond). So the table lies in the order in which it is read, every secondary index has the time behind
its value without spelling it out, and the full text gives its hits in the order of time: no sort on the way to the
newest fifty of a million.

`exchanges` holds what is filtered and listed; `details` what is only shown; `words` is the full text, contentless:
the text itself is in the recording. `refs` finds exchanges by what joins them, by model, by the tools that they call
and by what was detected in them; an exchange's own are in `details`. `facets` counts exchanges by value, from which a
query's plan is made.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from narrows.core.errors import ConfigError

log = logging.getLogger(__name__)

VERSION = 2
"""Of the tables. An index of an older one is emptied, and the indexer fills it again from the recording."""

FACETS = (
    "service",
    "operation",
    "action",
    "access_level",
    "principal",
    "agent",
    "connection",
    "region",
    "account",
    "error_code",
    "outcome",
    "decision",
    "method",
    "kind",
    "status",
)
"""Columns of few values: counted in `facets`."""

INDEXED = (*FACETS, "host", "request_id", "invocation_id")
"""Columns with an index of their own, besides `session`, `id` and `leaf_index`."""

_TABLES = """
CREATE TABLE exchanges (
    n INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    session BLOB NOT NULL,
    leaf_index INTEGER NOT NULL,
    kind TEXT NOT NULL COLLATE NOCASE,
    connection TEXT NOT NULL COLLATE NOCASE,
    principal TEXT NOT NULL COLLATE NOCASE,
    agent TEXT NOT NULL COLLATE NOCASE,
    agent_version TEXT NOT NULL,
    model TEXT NOT NULL,
    service TEXT NOT NULL COLLATE NOCASE,
    operation TEXT NOT NULL COLLATE NOCASE,
    action TEXT NOT NULL COLLATE NOCASE,
    access_level TEXT NOT NULL COLLATE NOCASE,
    protocol TEXT NOT NULL,
    region TEXT NOT NULL COLLATE NOCASE,
    account TEXT NOT NULL COLLATE NOCASE,
    status INTEGER NOT NULL,
    error_code TEXT NOT NULL COLLATE NOCASE,
    request_id TEXT NOT NULL COLLATE NOCASE,
    invocation_id TEXT NOT NULL COLLATE NOCASE,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL COLLATE NOCASE,
    decision TEXT NOT NULL COLLATE NOCASE,
    durability TEXT NOT NULL,
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL,
    first_byte_ns INTEGER NOT NULL,
    last_byte_ns INTEGER NOT NULL,
    gateway_ns INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    bytes INTEGER GENERATED ALWAYS AS (bytes_in + bytes_out) VIRTUAL,
    host TEXT NOT NULL COLLATE NOCASE,
    method TEXT NOT NULL COLLATE NOCASE,
    target TEXT NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    cost_usd REAL
);
CREATE INDEX exchanges_by_session ON exchanges (session);
CREATE INDEX exchanges_by_leaf ON exchanges (leaf_index);
CREATE TABLE details (
    n INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    error_message TEXT NOT NULL,
    resources TEXT NOT NULL,
    parameters TEXT NOT NULL,
    parameters_truncated INTEGER NOT NULL,
    events TEXT NOT NULL,
    facts TEXT NOT NULL,
    problems TEXT NOT NULL,
    location TEXT NOT NULL,
    items TEXT NOT NULL,
    refs TEXT NOT NULL,
    llm TEXT NOT NULL,
    findings TEXT NOT NULL
);
CREATE TABLE arns (a INTEGER PRIMARY KEY, arn TEXT NOT NULL UNIQUE COLLATE NOCASE);
CREATE TABLE touched (a INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (a, n)) WITHOUT ROWID;
CREATE TABLE refs (
    kind TEXT NOT NULL, value TEXT NOT NULL COLLATE NOCASE, n INTEGER NOT NULL, PRIMARY KEY (value, kind, n)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (
    text, parameters, target, resources, names, content = '', prefix = '3', tokenize = 'unicode61'
);
CREATE TABLE sessions (
    id BLOB PRIMARY KEY,
    body TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL DEFAULT 'unknown',
    exit_code INTEGER,
    opened_ns INTEGER NOT NULL,
    closed_ns INTEGER NOT NULL DEFAULT 0,
    leaf_index INTEGER NOT NULL DEFAULT -1,
    exchanges INTEGER NOT NULL DEFAULT 0,
    errors INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    bytes_in INTEGER NOT NULL DEFAULT 0,
    bytes_out INTEGER NOT NULL DEFAULT 0,
    first_ns INTEGER NOT NULL DEFAULT 0,
    last_ns INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sessions_by_time ON sessions (opened_ns, id);
CREATE TABLE session_counts (
    session BLOB NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (session, field, value)
) WITHOUT ROWID;
CREATE TABLE facets (
    field TEXT NOT NULL, value TEXT NOT NULL COLLATE NOCASE, count INTEGER NOT NULL,
    PRIMARY KEY (field, value)
) WITHOUT ROWID;
CREATE TABLE cursor (one INTEGER PRIMARY KEY CHECK (one = 1), leaf_index INTEGER NOT NULL);
INSERT INTO cursor VALUES (1, -1);
"""

SCHEMA = _TABLES + "".join(f"CREATE INDEX exchanges_by_{name} ON exchanges ({name});\n" for name in INDEXED)

_WAYS = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "cache_size=-16384", "temp_store=MEMORY")


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to the index at `path` (mode 0600). With `write`, tables are made where there are none.

    NORMAL: after a power cut the last transactions may be gone, whole; the cursor goes with them, so that they
    are indexed again. Raises ConfigError for an index that a newer program made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        for way in _WAYS:
            db.execute(f"PRAGMA {way}")
        if write:
            prepare(db, path)
        else:
            db.execute("PRAGMA query_only=ON")
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty database, and anew in one of an older version."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
    elif version < VERSION:
        log.warning("%s has schema %d, this program makes %d: it is made again from the recording",
                    path.name, version, VERSION)  # fmt: skip
        db.execute("BEGIN IMMEDIATE")
        make_anew(db)
        db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    elif version != VERSION:
        raise ConfigError(
            "The index could not be opened",
            f"{path.name} has schema {version}, this program makes {VERSION}",
            "remove it: it is made again from the recording",
        )


def make_anew(db: sqlite3.Connection) -> None:
    """Drop all tables and make them again, empty. Inside the caller's transaction."""
    names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    # The full text's own tables go with it.
    for (name,) in sorted(names, key=lambda row: row[0] != "words"):
        if name == "words" or not name.startswith("words_"):
            db.execute(f"DROP TABLE {name}")
    for statement in filter(str.strip, SCHEMA.split(";\n")):
        db.execute(statement)
