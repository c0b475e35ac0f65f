"""What must be so before a gateway's processes start: directories, keys, and a record without open ends.

Heavy imports happen only where there is work: on a warm start after a clean stop there is none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.core.errors import ConfigError, NarrowsError
from narrows.settings import Settings

if TYPE_CHECKING:
    from narrows.record.log.note import SigningKey

_EMPTIED = frozenset({"lock", "recovered.json"})
FOLDERS = ("keys", "run", "wal", "objects", "log", "cache")


def directories(data: Path) -> None:
    """Make the data directory and its folders, owner-only. Raises ConfigError if they are not ours alone."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (data, *(data / name for name in FOLDERS)):
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.stat()
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise ConfigError(
                    "The data directory was refused",
                    f"{path} is not yours alone (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid})",
                    f"chmod 700 {path}, if it is yours: keys and recordings lie there",
                )
    except OSError as error:
        raise ConfigError(
            "The data directory could not be made", f"{error.filename or data}: {error.strerror}"
        ) from error


def keys(settings: Settings) -> None:
    """Make what is missing of: the lease key, the log's key pair, the certificate authority, an empty directory.

    Raises ConfigError where a part of it is gone that must not be made anew.
    """
    data = settings.data
    folder = data / "keys"
    if not (folder / "lease.key").exists():
        from narrows.identity.lease import load_or_create

        load_or_create(folder / "lease.key")
    if not (folder / "log.key").exists() or not (folder / "log.pub").exists():
        signing_key(settings)
    if not (folder / "ca.key").exists() or not (data / "ca.pem").exists():
        from narrows.listen.ca import CertificateAuthority

        CertificateAuthority.load_or_create(folder, data / "ca.pem")
    if not (data / "run" / "directory.json").exists():
        from narrows import directory

        directory.write(data / "run" / "directory.json", 0, [], {})


def signing_key(settings: Settings) -> SigningKey:
    """The log's signing key, made at the first start. Its name is the log's origin, which never changes.

    Raises ConfigError if it is missing while there is a log, or if `log_origin` names another.
    """
    from narrows import ownerfile
    from narrows.record.log.note import SigningKey

    path = settings.data / "keys" / "log.key"
    if not path.exists():
        if (settings.data / "log" / "checkpoint").exists():
            raise ConfigError(
                "The log's signing key is gone",
                f"{path} is missing, but there is a log that it signed",
                "restore it from a backup: a new key cannot go on with an old log",
            )
        origin = settings.log_origin or default_origin(socket.gethostname())
        ownerfile.create(path, SigningKey(origin, secrets.token_bytes(32)).skey.encode())
    try:
        key = SigningKey.parse(ownerfile.read(path).decode("ascii"))
    except (NarrowsError, UnicodeDecodeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("The log's signing key could not be read", f"{path}: {error}", "restore it") from error
    if settings.log_origin and settings.log_origin != key.name:
        raise ConfigError(
            "The log's origin cannot change",
            f"the log is {key.name}, the setting log_origin says {settings.log_origin}",
            "take the setting out, or start a new log in another data directory",
        )
    public = settings.data / "keys" / "log.pub"
    if not public.exists():
        ownerfile.replace(public, key.verifier.vkey.encode() + b"\n")
    return key


def default_origin(host: str) -> str:
    """An origin that no other log has: `<host>/narrows-<random>`."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", host)[:200].strip(".-") or "localhost"
    return f"{name.lower()}/narrows-{secrets.token_hex(4)}"


def recover(data: Path) -> int:
    """Recover every chain that a dead process left, and put its gaps on the record; returns how many chains.

    Raises NarrowsError if what was found cannot be recorded: then nothing may be started.
    """
    wal = data / "wal"
    _drop_emptied(data)
    left = [path for path in wal.iterdir() if path.is_dir() and path.name[0] != "." and not _recovered(path)]
    if not left:
        return 0
    import asyncio

    from narrows.clock import SystemClock
    from narrows.record import recovery

    clock = SystemClock()
    gaps: list[tuple[int, int, bytes, bytes, bytes, bytes]] = []

    def collect(*frame: int | bytes) -> int:
        gaps.append(frame)  # type: ignore[arg-type]
        return -1

    try:
        report = recovery.recover(wal, clock, collect)
        if gaps:
            asyncio.run(_record(wal, gaps))
        report.mark()
    except OSError as error:
        raise NarrowsError(
            "The record could not be recovered",
            f"{error.filename or wal}: {error.strerror}",
            "free the disk or restore its permissions; nothing is started until then",
        ) from error
    return len(report.writers)


def _drop_emptied(data: Path) -> None:
    """Remove the directories of chains of which only the lock and the mark of recovery are left.

    Not while the sealer still counts them: it looks for that mark when it finds a chain's segments gone, and would
    take one without it for a chain that somebody removed. What cannot be read now is left for the next time.
    """
    try:
        counted = json.loads((data / "log" / "sealer.json").read_bytes())["writers"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path in list((data / "wal").iterdir()):
        if path.name in counted or not path.is_dir() or not _recovered(path):
            continue
        if {one.name for one in path.iterdir()} <= _EMPTIED:
            shutil.rmtree(path)


def _recovered(writer: Path) -> bool:
    return (writer / "recovered.json").exists()


async def _record(wal: Path, gaps: list[tuple[int, int, bytes, bytes, bytes, bytes]]) -> None:
    import asyncio

    from narrows.clock import SystemClock
    from narrows.record.recorder import Recorder

    recorder = Recorder(wal, fresh_writer("recovery"), SystemClock())
    recorder.start(asyncio.get_running_loop())
    try:
        seq = -1
        for gap in gaps:
            seq = recorder.append(*gap)
        await recorder.durable(seq)
    finally:
        await recorder.close()


def fresh_writer(base: str) -> str:
    """The name of a new write-ahead chain."""
    from narrows.clock import SystemClock
    from narrows.record.segment import writer_name

    return writer_name(base, SystemClock())
