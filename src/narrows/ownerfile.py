"""Files that only their owner may read: how Narrows keeps a key on disk, and how it reads a secret from one.

Guarantees: a file made here was never visible half-written or with wider permissions, is on stable storage
before its content is used, and is never overwritten (two processes that start together agree on one content).
A file read here is a regular file of this process' user without any permission for group or others; anything
else is refused, for a key that others can read has already leaked. Linux and macOS.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from narrows.core.errors import ConfigError


def read(path: Path, *, limit: int = 1 << 20) -> bytes:
    """The content of an owner-only file of at most `limit` bytes.

    Raises FileNotFoundError if there is none, ConfigError if the file is not owner-only, not regular, longer
    than `limit`, or cannot be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO that someone put there must not hang the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"could not open {path}", error.strerror or "", "check its owner and mode") from error
    # Look at the open file, not at the path: what is checked is what is read.
    try:
        _check(path, os.fstat(fd))
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise ConfigError(f"refused {path}", f"it is longer than {limit} bytes")
    return data


def _check(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise ConfigError(f"refused {path}", "it is not a regular file")
    if state.st_uid != os.geteuid():
        raise ConfigError(
            f"refused {path}",
            f"it belongs to user id {state.st_uid}, this process runs as {os.geteuid()}",
            "give it to the user that runs the gateway",
        )
    if state.st_mode & 0o077:
        raise ConfigError(
            f"refused {path}",
            f"its mode is {stat.S_IMODE(state.st_mode):04o}: others than its owner may use it",
            f"chmod 600 {path}; if others could read it, replace the secret in it",
        )


def create(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Put `data` at `path` unless something is there already; return whether this call made it.

    The directory is made (mode 0700) if it is missing. Raises ConfigError if the file cannot be made.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write_synced(temporary, data, mode)
            # link, not rename: it fails where a file exists, so the first of two processes wins for both.
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"could not make {path}", error.strerror or "", "check the directory's owner, mode and free space"
        ) from error
    return True


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` in one step: a reader sees the old or the new content whole. Raises ConfigError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write_synced(temporary, data, mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"could not write {path}",
            error.strerror or "",
            "check the directory's owner, mode and free space",
        ) from error


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask
        file.write(data)
        file.flush()
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
