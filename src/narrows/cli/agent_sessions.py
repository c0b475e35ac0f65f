"""The sessions that agents' hooks opened: `DATA/run/agents/<agent>/<the agent's session id>.json`, owner-only.

A hook finds its session by the agent's own session id; a command that the agent started (`narrows aws-credentials
--agent`) finds it by the process tree that it shares with the hook. A record names the processes from the hook up to
the agent, never those above it: a login shell's other children are not the agent's. Each process is its id and its
start (ticks since boot), so that an id that is used again matches nothing.

Guarantees: a file was never visible half-written or with wider permissions than its owner's, and one that others could
have written is not believed; several hooks that start at once open one session (`Lock`). Light: hooks start through
here, hence strings for paths.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time

from narrows.core.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Processes = Iterable[tuple[int, int] | Mapping[str, Any]]

MAX_FILE = 65536
MAX_PROCESSES = 64
"""Processes that a record keeps: a conversation that is resumed by another process adds its own."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Record:
    """One session. `session` is its id, `process` the pairs (pid, start), nearest first. The repr hides the token."""

    __slots__ = ("agent", "agent_session", "expires", "gateway", "opened", "process", "session", "token")

    def __init__(
        self,
        agent: str,
        session: str,
        token: str,
        gateway: str,
        agent_session: str,
        process: list[tuple[int, int]],
        opened: float,
        expires: int,
    ) -> None:
        self.agent = agent
        self.session = session
        self.token = token
        self.gateway = gateway
        self.agent_session = agent_session
        self.process = process
        self.opened = opened
        self.expires = expires

    def __repr__(self) -> str:
        return f"Record(agent={self.agent!r}, session={self.session!r}, gateway={self.gateway!r})"


def folder(data: str | os.PathLike[str], agent: str) -> str:
    """Where an agent's sessions are. Raises ConfigError for a name that is no agent's."""
    if not agent or not _PLAIN.issuperset(agent):
        raise ConfigError("The agent's session was not found", f"{agent!r} is not the name of an agent")
    return os.path.join(os.fspath(data), "run", "agents", agent)  # noqa: PTH118 - pathlib costs the hook 8 ms


def safe_id(agent_session: str) -> str:
    """The id as a file's name: different ids stay different, whatever an agent puts into them."""
    raw = agent_session.encode("utf-8", "surrogatepass")
    plain = "".join(chr(b) if chr(b) in _PLAIN else f"={b:02X}" for b in raw)
    if len(plain) <= 120:
        return plain or "="
    from hashlib import sha256

    return f"=={sha256(raw).hexdigest()}"


def load(agent: str, agent_session: str, data: str | os.PathLike[str]) -> Record | None:
    """The record of an agent's session, or None if there is none or its time is up. Raises ConfigError."""
    found = _read(f"{folder(data, agent)}/{safe_id(agent_session)}.json", agent)
    return found if found is not None and found.expires > time.time() else None


def store(record: Record, data: str | os.PathLike[str]) -> None:
    """Write a record, whole by rename. Raises ConfigError."""
    where = folder(data, record.agent)
    path = f"{where}/{safe_id(record.agent_session)}.json"
    temporary = f"{where}/.{os.getpid()}.tmp"
    body = {name: getattr(record, name) for name in Record.__slots__ if name != "agent"}
    body["process"] = [list(pair) for pair in record.process[:MAX_PROCESSES]]
    try:
        _make(where)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, json.dumps(body).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)  # noqa: PTH104
    except OSError as error:
        raise ConfigError(
            "The agent's session was not kept", f"{path}: {error.strerror}", "check the directory's owner and mode"
        ) from error


def forget(record: Record, data: str | os.PathLike[str]) -> None:
    """Remove a record, unless another session took its place meanwhile. Raises ConfigError."""
    path = f"{folder(data, record.agent)}/{safe_id(record.agent_session)}.json"
    found = _read(path, record.agent)
    if found is not None and found.session == record.session:
        _remove(path)


def records(agent: str, data: str | os.PathLike[str]) -> list[Record]:
    """The sessions of an agent that are kept, also those whose time is up. Raises ConfigError."""
    found = [_read(path, name) for path, name in _files(data, agent)]
    return [record for record in found if record is not None]


def find(agent: str, ancestors: Processes, data: str | os.PathLike[str]) -> Record | None:
    """The session of the agent that the caller runs under, or None. `agent` may be empty: any agent's.

    `ancestors` are the caller's processes, nearest first, as pairs or as mappings with `pid` and `start`. Of several
    sessions the one wins that shares the caller's nearest process, then the newest. Process 1 is everybody's ancestor
    and matches nothing. Records whose time is up are removed. Raises ConfigError.
    """
    depth: dict[tuple[int, int], int] = {}
    for number, one in enumerate(ancestors):
        pair = (int(one[0]), int(one[1])) if isinstance(one, tuple) else (int(one["pid"]), int(one["start"]))
        if pair[0] > 1:
            depth.setdefault(pair, number)
    best: Record | None = None
    order = (0, 0.0)
    now = time.time()
    for path, name in _files(data, agent):
        record = _read(path, name)
        if record is None:
            continue
        if record.expires <= now:
            _remove(path)
            continue
        shared = [depth[pair] for pair in record.process if pair in depth]
        if shared and (best is None or (-min(shared), record.opened) > order):
            best, order = record, (-min(shared), record.opened)
    return best


class Lock:
    """Held while one hook opens a session, so that the others wait and use it. The kernel lets go of a dead one's."""

    def __init__(self, agent: str, agent_session: str, data: str | os.PathLike[str]) -> None:
        self._folder = folder(data, agent)
        self._path = f"{self._folder}/.{safe_id(agent_session)}.lock"
        self._fd = -1

    def __enter__(self) -> None:
        """Wait for the lock: the caller's alarm bounds the wait. Raises ConfigError."""
        try:
            _make(self._folder)
            while True:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                # The one before may have removed the file: then this lock keeps nobody out.
                if os.fstat(self._fd).st_nlink:
                    return
                os.close(self._fd)
                self._fd = -1
        except OSError as error:
            self.__exit__()
            raise ConfigError("The agent's session was not opened", f"{self._path}: {error.strerror}") from error
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *args: object) -> None:
        """Let go. The file goes away while it is still locked, so that none is left behind."""
        if self._fd >= 0:
            _remove(self._path)
            os.close(self._fd)
            self._fd = -1


def _files(data: str | os.PathLike[str], agent: str) -> Iterator[tuple[str, str]]:
    agents = [agent] if agent else _names(f"{os.fspath(data)}/run/agents")
    for name in agents:
        if _PLAIN.issuperset(name):
            where = folder(data, name)
            for file in _names(where):
                if file.endswith(".json") and not file.startswith("."):
                    yield f"{where}/{file}", name


def _names(where: str) -> list[str]:
    try:
        return os.listdir(where)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError("The agent's session was not found", f"{where}: {error.strerror}") from error


def _make(where: str) -> None:
    """The folder and the two above it, each its owner's alone."""
    if not os.path.isdir(where):  # noqa: PTH112
        parent = where.rpartition("/")[0]
        os.makedirs(parent, 0o700, exist_ok=True)  # noqa: PTH103
        try:
            os.mkdir(where, 0o700)  # noqa: PTH102
        except FileExistsError:
            return


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return  # another hook removed it first: the same end
    except OSError as error:
        raise ConfigError("The agent's session was not removed", f"{path}: {error.strerror}") from error


def owner_only(path: str) -> bytes | None:
    """The content of a small file of ours; None if there is none, or anybody else may have written or read it.

    Raises ConfigError if it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError("A file of the gateway was not read", f"{path}: {error.strerror}") from error
    try:
        state = os.fstat(fd)
        if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077 or not stat.S_ISREG(state.st_mode):
            return None
        return os.read(fd, MAX_FILE)
    finally:
        os.close(fd)


def _read(path: str, agent: str) -> Record | None:
    """A record; None if there is none, or it is damaged, or it is not ours alone."""
    raw = owner_only(path)
    if raw is None:
        return None
    try:
        value = json.loads(raw)
        return Record(
            agent,
            str(value["session"]),
            str(value["token"]),
            str(value["gateway"]),
            str(value["agent_session"]),
            [(int(pid), int(start)) for pid, start in value["process"][:MAX_PROCESSES]],
            float(value["opened"]),
            int(value["expires"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # damaged: as good as none, the next hook writes it anew
