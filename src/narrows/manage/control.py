"""The control store: connections, sessions and the leases issued, in one SQLite file; and the directory's
publisher.

Every change that the data plane must know is in the database (committed, fsynced) and in `run/directory.json`
before the call returns. Leases are noted by access key id and expiry; no secret is in the database.

All methods are synchronous and may be called from any thread: one connection, one lock. Times are nanoseconds
since the Unix epoch unless the name ends in `_s`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from narrows import directory
from narrows.core import ids
from narrows.core.errors import ConfigError, NotFound
from narrows.core.ports import Clock
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.manage.errors import ConflictError, PreconditionError
from narrows.manage.schema import validated

_VERSION = 1

_SCHEMA = """
CREATE TABLE connections (
    name TEXT PRIMARY KEY, body TEXT NOT NULL, created_ns INTEGER NOT NULL, position INTEGER NOT NULL UNIQUE
) STRICT;
CREATE TABLE sessions (
    id BLOB PRIMARY KEY, principal TEXT NOT NULL, agent TEXT NOT NULL, command TEXT NOT NULL,
    cwd TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, connections TEXT NOT NULL,
    opened_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL, state TEXT NOT NULL, closed_ns INTEGER,
    why TEXT NOT NULL, exit_code INTEGER
) STRICT;
CREATE INDEX sessions_by_state ON sessions (state, expires_s);
CREATE TABLE leases (
    access_key_id TEXT PRIMARY KEY, session BLOB NOT NULL REFERENCES sessions (id), connection TEXT NOT NULL,
    issued_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_by_session ON leases (session);
CREATE TABLE directory (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL) STRICT;
INSERT INTO directory VALUES (1, 0);
"""

_CREATIONS = (
    "CREATE TABLE IF NOT EXISTS creations (caller TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, "
    "name TEXT NOT NULL, answer TEXT NOT NULL, at_ns INTEGER NOT NULL, PRIMARY KEY (caller, key)) STRICT"
)
"""What was made under an Idempotency-Key, with the SHA-256 of what was asked."""

CREATIONS_KEPT_S = 24 * 3600
"""How long a creation that is asked for again gets the answer of the first."""

ENDED_KEPT_S = 3600
"""How long after a session's expiry its end stays in the directory: covers the clock skew that a lease is
allowed."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the control process knows it. `state`: `open`, `closed`, `killed` or `expired`."""

    id: bytes
    principal: Principal
    agent: Agent
    command: tuple[str, ...]
    cwd: str
    host: str
    pid: int
    connections: tuple[str, ...]
    opened_ns: int
    expires_s: int
    state: str = "open"
    closed_ns: int | None = None
    why: str = ""
    exit_code: int | None = None

    def json(self) -> dict[str, Any]:
        """What the API shows of it."""
        return {
            "id": ids.text(self.id),
            "principal": self.principal.name,
            "principal_kind": self.principal.kind,
            "agent": self.agent.name,
            "agent_version": self.agent.version,
            "command": list(self.command),
            "cwd": self.cwd,
            "host": self.host,
            "pid": self.pid,
            "connections": list(self.connections),
            "state": self.state,
            "opened_ns": self.opened_ns,
            "expires": self.expires_s,
            "closed_ns": self.closed_ns,
            "why": self.why,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True, slots=True)
class Creation:
    """A creation under an Idempotency-Key: who asked, the SHA-256 of what was asked, what was made and answered."""

    caller: str
    key: str
    request: bytes
    name: str = ""
    answer: str = ""


class ControlStore:
    """Connections, sessions, leases issued. Publishes the directory when it is made and at every change."""

    def __init__(self, path: Path, directory_path: Path, clock: Clock) -> None:
        """Open or create the store at `path` (mode 0600). Raises ConfigError for a store of a newer
        program."""
        self._directory = directory_path
        self._clock = clock
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL: a revocation that was answered must survive a power cut.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("PRAGMA busy_timeout=5000")
            self._migrate()
            self._db.execute(_CREATIONS)
            self.publish()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; the store cannot be used after."""
        with self._lock:
            self._db.close()

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise ConfigError(
                "The control store could not be opened",
                f"it was written by a newer version (schema {version}, this program knows {_VERSION})",
                "start the newer program",
            )
        if version < 1:
            self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One change: in the database and in the directory, or in neither.

        The directory is published inside the transaction: if it cannot be written, the change is rolled
        back and the caller told. If then the commit fails, the state before is published again.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._write_directory()
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                    self.publish()
                raise

    def publish(self) -> int:
        """Write the directory from the database as it is; returns its version. Raises OSError."""
        with self._lock:
            return self._write_directory()

    def _write_directory(self) -> int:
        (version,) = self._db.execute("UPDATE directory SET version = version + 1 RETURNING version").fetchone()
        now_s = self._clock.wall_ns() // 1_000_000_000
        ended = self._db.execute(
            "SELECT id, state FROM sessions WHERE state IN ('closed', 'killed', 'expired') AND expires_s > ?",
            (now_s - ENDED_KEPT_S,),
        ).fetchall()
        directory.write(self._directory, version, self.connections(), dict(ended))
        return int(version)

    # Connections

    def connections(self) -> list[Connection]:
        """All connections, in the order of registration."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM connections ORDER BY position").fetchall()
        return [directory.connection_from_json(json.loads(body)) for (body,) in rows]

    def connection(self, name: str) -> Connection:
        """The connection of that name. Raises NotFound."""
        with self._lock:
            row = self._db.execute("SELECT body FROM connections WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(
                f"There is no connection {name[:64]!r}",
                "no such name is registered",
                "narrows connection list shows those there are",
            )
        return directory.connection_from_json(json.loads(row[0]))

    def creation(self, caller: str, key: str) -> Creation | None:
        """What `caller` made under an Idempotency-Key in the last day."""
        since = self._clock.wall_ns() - CREATIONS_KEPT_S * 1_000_000_000
        with self._lock:
            row = self._db.execute(
                "SELECT request, name, answer FROM creations WHERE caller = ? AND key = ? AND at_ns > ?",
                (caller, key, since),
            ).fetchone()
        return None if row is None else Creation(caller, key, row[0], row[1], row[2])

    def add_connection(self, connection: Connection, creation: Creation | None = None) -> Connection:
        """Register a connection; returns it with defaults filled in. Raises ConfigError, ConflictError if
        it is there. `creation` is noted with it, in the same transaction; its name and answer are filled in here."""
        valid = validated(connection)
        body = json.dumps(directory.connection_to_json(valid))
        with self._change() as db:
            if db.execute("SELECT 1 FROM connections WHERE name = ?", (valid.name,)).fetchone():
                raise ConflictError(
                    f"The connection {valid.name!r} was not added",
                    "a connection of that name is registered",
                    "change it, or remove it first",
                )
            db.execute(
                "INSERT INTO connections VALUES (?, ?, ?, (SELECT coalesce(max(position), 0) + 1 FROM connections))",
                (valid.name, body, self._clock.wall_ns()),
            )
            if creation is not None:
                now = self._clock.wall_ns()
                db.execute("DELETE FROM creations WHERE at_ns <= ?", (now - CREATIONS_KEPT_S * 1_000_000_000,))
                db.execute(
                    "INSERT INTO creations VALUES (?, ?, ?, ?, ?, ?)",
                    (creation.caller, creation.key, creation.request, valid.name, body, now),
                )
        return valid

    def _unchanged(self, name: str, expected: Connection | None) -> None:
        """Raise NotFound, or PreconditionError where the connection is no longer `expected` (None: whatever it is)."""
        if self.connection(name) != expected and expected is not None:
            raise PreconditionError(
                f"The connection {name!r} was not changed",
                "someone else changed it since you looked",
                "look at it again, and decide again",
            )

    def replace_connection(self, connection: Connection, expected: Connection | None = None) -> Connection:
        """Change a registered connection; it keeps its place in the order. Raises ConfigError, NotFound, and
        PreconditionError where it is not as `expected`."""
        valid = validated(connection)
        body = json.dumps(directory.connection_to_json(valid))
        with self._change() as db:
            self._unchanged(valid.name, expected)
            db.execute("UPDATE connections SET body = ? WHERE name = ?", (body, valid.name))
        return valid

    def remove_connection(self, name: str, expected: Connection | None = None) -> None:
        """Take a connection out: its leases stop working at once. Raises NotFound, PreconditionError as
        `replace_connection`."""
        with self._change() as db:
            self._unchanged(name, expected)
            db.execute("DELETE FROM connections WHERE name = ?", (name,))

    # Sessions

    def open_session(self, session: Session) -> None:
        """Note a session whose opening is on the record."""
        with self._lock:
            self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', NULL, '', NULL)",
                (
                    session.id,
                    json.dumps(asdict(session.principal)),
                    json.dumps(asdict(session.agent)),
                    json.dumps(session.command),
                    session.cwd,
                    session.host,
                    session.pid,
                    json.dumps(session.connections),
                    session.opened_ns,
                    session.expires_s,
                ),
            )

    def end_session(self, session: bytes, state: str, why: str, exit_code: int | None = None) -> Session:
        """End an open session (`closed`, `killed`, `expired`) and publish that. Idempotent: the first end
        stays, save that a kill overrides a close. Raises NotFound."""
        if state not in ("closed", "killed", "expired"):
            raise ValueError(state)
        replaced = ("open", "closed", "expired") if state == "killed" else ("open", "open", "open")
        with self._change() as db:
            self.session(session)
            db.execute(
                "UPDATE sessions SET state = ?, why = ?, exit_code = coalesce(?, exit_code), "
                "closed_ns = coalesce(closed_ns, ?) WHERE id = ? AND state IN (?, ?, ?)",
                (state, why, exit_code, self._clock.wall_ns(), session, *replaced),
            )
        return self.session(session)

    def session(self, session: bytes) -> Session:
        """The session of that id. Raises NotFound."""
        with self._lock:
            row = self._db.execute(f"SELECT {_SESSION} FROM sessions WHERE id = ?", (session,)).fetchone()  # noqa: S608
        if row is None:
            raise NotFound(f"There is no session {ids.text(session)}", "this gateway did not open it")
        return _session(row)

    def sessions(self, state: str = "open", limit: int = 1000) -> list[Session]:
        """Sessions in a state, the newest first."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_SESSION} FROM sessions WHERE state = ? ORDER BY opened_ns DESC LIMIT ?",  # noqa: S608
                (state, limit),
            ).fetchall()
        return [_session(row) for row in rows]

    def expired(self, limit: int = 1000) -> list[Session]:
        """Open sessions whose time has run out: the caller records and ends them."""
        now_s = self._clock.wall_ns() // 1_000_000_000
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_SESSION} FROM sessions WHERE state = 'open' AND expires_s <= ? "  # noqa: S608
                "ORDER BY expires_s LIMIT ?",
                (now_s, limit),
            ).fetchall()
        return [_session(row) for row in rows]

    def note_leases(self, leases: Iterable[Lease]) -> None:
        """Note which leases were issued: access key id, session, connection and expiry, never the secrets."""
        now = self._clock.wall_ns()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?, ?)",
                    [(x.access_key_id, x.session, x.connection, now, x.expires) for x in leases],
                )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def leases(self, session: bytes) -> list[dict[str, Any]]:
        """The leases issued to a session, without secrets."""
        with self._lock:
            rows = self._db.execute(
                "SELECT access_key_id, connection, issued_ns, expires_s FROM leases WHERE session = ? "
                "ORDER BY issued_ns, access_key_id",
                (session,),
            ).fetchall()
        names = ("access_key_id", "connection", "issued_ns", "expires")
        return [dict(zip(names, row, strict=True)) for row in rows]


_SESSION = (
    "id, principal, agent, command, cwd, host, pid, connections, opened_ns, expires_s, state, closed_ns, why, exit_code"
)


def _session(row: tuple[Any, ...]) -> Session:
    key, principal, agent, command, cwd, host, pid, connections, *rest = row
    who = json.loads(principal)
    return Session(
        key,
        Principal(who["name"], who["kind"], who["issuer"], tuple(who["groups"])),
        Agent(**json.loads(agent)),
        tuple(json.loads(command)),
        cwd,
        host,
        pid,
        tuple(json.loads(connections)),
        *rest,
    )
