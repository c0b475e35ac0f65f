"""The directory: connections and ended sessions, as the control process publishes them to the data plane.

One file, `run/directory.json`, replaced whole by rename, so that a reader sees the old state or the new,
never a mix:

    {"version": 7, "connections": [{...}], "ended": {"<session, 32 hex digits>": "killed"}}

The control process calls `write`; each worker holds a `FileDirectory` and calls `refresh` at least four
times a
second. Between two refreshes a worker answers from memory and touches no disk. No secret is in the file: a
connection's credential source holds names and paths only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson

from narrows.core.errors import ConfigError
from narrows.core.values import Connection, CredentialSource, Durability

log = logging.getLogger(__name__)

MAX_FILE = 64 * 1024 * 1024
"""A larger directory file is refused: nothing that the control process writes comes near it."""

_CACHED_HOSTS = 4096
_CONNECTION_FIELDS = frozenset(f.name for f in fields(Connection))
_CREDENTIAL_FIELDS = frozenset(f.name for f in fields(CredentialSource))


def connection_to_json(connection: Connection) -> dict[str, Any]:
    """A connection as JSON-able values, every field present. Holds no secret."""
    raw = asdict(connection)
    raw["durability"] = connection.durability.value
    return raw


def connection_from_json(raw: Mapping[str, Any]) -> Connection:
    """The connection that `connection_to_json` wrote. Raises ConfigError at an unknown field or a wrong
    type."""
    values = dict(raw)
    try:
        unknown = values.keys() - _CONNECTION_FIELDS
        credential = dict(values.pop("credential", {}))
        unknown |= credential.keys() - _CREDENTIAL_FIELDS
        if unknown:
            raise ConfigError("A connection could not be read", f"unknown field {sorted(unknown)[0]!r}")
        for name in ("hosts", "groups"):
            values[name] = tuple(str(item) for item in values.get(name, ()))
        values["durability"] = Durability(values.get("durability", Durability.STRICT))
        for name in ("allow_private", "allow_credential_issue", "fail_closed"):
            # A string here would read as true: what opens a door must say so exactly.
            if not isinstance(values.get(name, False), bool):
                raise ConfigError("A connection could not be read", f"{name} must be true or false")
        return Connection(credential=CredentialSource(**credential), **values)
    except (TypeError, ValueError) as error:
        raise ConfigError("A connection could not be read", type(error).__name__) from error


def write(path: Path, version: int, connections: Iterable[Connection], ended: Mapping[bytes, str]) -> None:
    """Replace the directory file: temporary file of mode 0600, fsync, rename, fsync of its directory.

    When this returns, a reader's next `refresh` sees the new state. Raises OSError; the old file is then
    intact.
    """
    body = orjson.dumps(
        {
            "version": version,
            "connections": [connection_to_json(c) for c in connections],
            "ended": {session.hex(): why for session, why in ended.items()},
        }
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


class _Snapshot:
    """One state of the directory. Never changed after it is made, save its cache of host look-ups."""

    __slots__ = ("cache", "connections", "ended", "exact", "suffixes", "version")

    def __init__(self, version: int, connections: Iterable[Connection], ended: dict[bytes, str]) -> None:
        self.version = version
        self.connections: dict[str, Connection] = {}
        self.ended = ended
        self.exact: dict[str, tuple[Connection, ...]] = {}
        self.suffixes: dict[str, tuple[Connection, ...]] = {}
        self.cache: dict[str, tuple[Connection, ...]] = {}
        for connection in connections:
            if connection.name in self.connections:
                raise ConfigError("The directory could not be read", f"two connections {connection.name!r}")
            self.connections[connection.name] = connection
            for host in connection.hosts:
                table, key = (self.suffixes, host[1:]) if host.startswith("*.") else (self.exact, host)
                table[key] = (*table.get(key, ()), connection)

    def claimants(self, host: str) -> tuple[Connection, ...]:
        found = self.exact.get(host, ())
        at = host.find(".")
        while not found and at >= 0:
            # From the left, hence the longest suffix first.
            found = self.suffixes.get(host[at:], ())
            at = host.find(".", at + 1)
        if len(self.cache) >= _CACHED_HOSTS:
            # Host names come from clients: forget all rather than grow.
            self.cache.clear()
        self.cache[host] = found
        return found


def _parse(body: bytes) -> _Snapshot:
    """Decode a directory file. Raises ConfigError."""
    try:
        raw = orjson.loads(body)
        version = raw["version"]
        if not isinstance(version, int):
            raise ConfigError("The directory could not be read", "its version is not a number")
        ended = {bytes.fromhex(session): str(why) for session, why in raw["ended"].items()}
        if any(len(session) != 16 or not why for session, why in ended.items()):
            raise ConfigError("The directory could not be read", "an ended session is not named by 32 hex digits")
        return _Snapshot(version, [connection_from_json(c) for c in raw["connections"]], ended)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("The directory could not be read", f"it is malformed ({type(error).__name__})") from error


_Signature = tuple[int, int, int]


class FileDirectory:
    """`core.ports.Directory` over the published file. Look-ups take well under a microsecond and do no I/O.

    One exception: a connection or host that is not known costs a look at the file (a few microseconds).

    Until a first good file was read, every look-up refuses: no connection, and every session `unavailable`. A
    file that is missing or malformed later keeps the last good state; `problem` then says what is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: _Snapshot | None = None
        self._signature: _Signature | None = None
        self.problem = ""
        """Why the file's newest content is not in force, or an empty string."""
        self.refresh()

    @property
    def version(self) -> int:
        """The version in force, -1 before any."""
        return self._state.version if self._state is not None else -1

    def refresh(self) -> bool:
        """Look at the file and load it if it changed; True if a new state is in force. Raises nothing."""
        try:
            stat = self._path.stat()
            signature = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if signature == self._signature:
                return False
            if stat.st_mode & 0o022:
                raise ConfigError("The directory was not read", "others than its owner may write to it")
            if stat.st_size > MAX_FILE:
                raise ConfigError("The directory was not read", f"it is larger than {MAX_FILE} bytes")
            state = _parse(self._path.read_bytes())
        except OSError as error:
            self._signature = None
            self._complain(f"The directory could not be read: {error.strerror}")
            return False
        except ConfigError as error:
            self._signature = signature
            self._complain(str(error))
            return False
        self._signature = signature
        self._state = state
        self.problem = ""
        return True

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            kept = f"version {self.version} stays in force" if self._state else "everything is refused"
            log.warning("%s; %s", problem, kept)
        self.problem = problem

    def connections(self) -> tuple[Connection, ...]:
        """All connections, in the order of registration."""
        return tuple(self._state.connections.values()) if self._state is not None else ()

    def connection(self, name: str) -> Connection | None:
        """The registered connection of that name.

        One that is not known is looked for in the file at once: a lease may be used the moment after its
        connection was registered, before the next regular look. Callers ask only for names that a lease holds.
        """
        state = self._state
        found = state.connections.get(name) if state is not None else None
        if found is None and self.refresh() and self._state is not None:
            found = self._state.connections.get(name)
        return found

    def claimants(self, host: str) -> tuple[Connection, ...]:
        """Every connection that claims `host` by its best match: the exact name, else the longest `*.suffix`.

        Several may: two AWS accounts are two connections with the same hosts, and the lease tells which is
        meant.
        In the order of registration.
        """
        state = self._state
        if state is None:
            return ()
        try:
            return state.cache[host]
        except KeyError:
            return state.claimants(host)

    def by_host(self, host: str) -> Connection | None:
        """The connection that claims a host name (lower case, no port); of several, the one registered
        first. A host that is not known is looked for in the file at once, as a connection is."""
        found = self.claimants(host)
        if not found and self.refresh():
            found = self.claimants(host)
        return found[0] if found else None

    def session_ended(self, session: bytes) -> str:
        """Why a session's leases no longer work, or an empty string. `unavailable` before a first good
        file."""
        state = self._state
        return state.ended.get(session, "") if state is not None else "unavailable"
