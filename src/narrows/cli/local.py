"""The local gateway as the command line finds it: `run/local.json`, readable by its owner only.

Standard library only and light: `aws-credentials` starts through here.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from narrows.core.errors import ConfigError, NarrowsError

MAX_FILE = 65536


class UnreachableError(NarrowsError):
    """No gateway answers. The command exits with 3."""

    code = "unreachable"


class Local:
    """Where a gateway listens, and the token that proves us to it. The repr hides the token.

    `pid` is 0 for one that is not known by its local file but by `narrows login`; `data` then says nothing.
    """

    __slots__ = ("api", "data", "gateway", "pid", "token")

    def __init__(self, api: str, gateway: str, token: str, pid: int, data: Path) -> None:
        self.api = api
        self.gateway = gateway
        self.token = token
        self.pid = pid
        self.data = data

    def __repr__(self) -> str:
        return f"Local(api={self.api!r}, gateway={self.gateway!r}, pid={self.pid})"


def path_of(data: Path) -> Path:
    """Where the local file of a data directory is."""
    return data / "run" / "local.json"


def not_running(data: Path) -> UnreachableError:
    """The error for a data directory without a running gateway."""
    return UnreachableError(
        "The gateway could not be reached", f"none runs on {data}", "start one with `narrows up --detach`"
    )


def read(data: Path) -> Local:
    """Read the local file. Raises UnreachableError if there is none.

    Raises ConfigError if it belongs to someone else or others may read or write it: whoever can write it
    could send our requests, and so our leases, to a place of theirs.
    """
    path = path_of(data)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_running(data) from error
    except OSError as error:
        raise ConfigError("The local gateway's file was not read", f"{path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                "The local gateway's file was refused",
                f"{path} is not yours alone (mode {stat.S_IMODE(found.st_mode):o}, owner {found.st_uid})",
                "see who changed it; `narrows down` and `narrows up` make it anew with a new token",
            )
        raw = file.read(MAX_FILE)
    try:
        value = json.loads(raw)
        return Local(str(value["api"]), str(value["gateway"]), str(value["token"]), int(value["pid"]), data)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "The local gateway's file could not be read",
            f"{path} is damaged ({type(error).__name__})",
            "stop the gateway and start it again",
        ) from error


def write(data: Path, *, api: str, gateway: str, token: str, pid: int) -> None:
    """Write the local file, mode 0600 from its first byte, whole by rename. Raises OSError."""
    path = path_of(data)
    temporary = path.with_name(f".local.json.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps({"api": api, "gateway": gateway, "token": token, "pid": pid}).encode() + b"\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def url(host: str, port: int) -> str:
    """The URL by which this machine reaches a listening address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Lock:
    """One gateway per data directory: an exclusive `flock` on `run/lock`, held while the object lives."""

    def __init__(self, data: Path) -> None:
        self._path = data / "run" / "lock"
        self._fd = -1

    def take(self) -> bool:
        """Take the lock; False if another process holds it. Raises OSError."""
        import fcntl

        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return True

    def release(self) -> None:
        """Let it go; the kernel does so too when the process ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def holder(data: Path) -> int:
    """The process id of the supervisor that runs on `data`, or 0. Trusts the lock, not a file left behind."""
    import fcntl

    try:
        fd = os.open(data / "run" / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        # Shared: two who ask at the same time do not take each other for a gateway.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0
