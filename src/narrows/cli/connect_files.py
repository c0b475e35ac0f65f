"""The files that `narrows connect` changes: read, written whole, and given back.

Guarantees: a reader of a file sees its old or its new content, never half of one, and the new one is on stable storage
before its name is; the mode (and, for root, the owner) stays; a symbolic link is followed and stays a link; what the
file held before is kept in DATA/connect, owner-only, before the file is changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narrows import ownerfile
from narrows.cli.connect_edits import Done, Form
from narrows.core.errors import ConfigError

MAX_FILE = 4 << 20
"""Settings are a few kilobytes; what is larger is something else."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it is: where its name leads, and its text. `text` None means that there is none."""

    path: Path
    target: Path
    text: str | None
    mode: int = 0o644
    owner: tuple[int, int] = (-1, -1)


def look(path: Path, *, inside: Path | None = None) -> Found:
    """Read a file through whatever links lead to it. Raises ConfigError if it is not a text file that we may change.

    With `inside`, the target must lie in that directory: a repository must not lead us out of itself.
    """
    try:
        target = path.resolve()
        if inside is not None and not target.is_relative_to(inside.resolve()):
            raise _refused(path, f"it leads out of the project, to {target}", "remove the link")
        if path.is_symlink() and not target.exists():
            raise _refused(path, f"it is a link to {target}, which is not there", "remove the link")
        # O_NONBLOCK: opening a FIFO must not hang.
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Found(path, target, None)
    except (OSError, RuntimeError) as error:
        raise _refused(path, getattr(error, "strerror", "") or str(error), "check its owner and mode") from error
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise _refused(path, "it is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            raw = file.read(MAX_FILE + 1)
    finally:
        os.close(fd)
    if len(raw) > MAX_FILE:
        raise _refused(path, f"it is longer than {MAX_FILE} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(path, f"it is not UTF-8 at byte {error.start}") from error
    return Found(path, target, text, stat.S_IMODE(state.st_mode), (state.st_uid, state.st_gid))


def writable(found: Found) -> None:
    """Raise ConfigError if the file was made read-only: by intent, though its directory would let us replace it."""
    if found.text is not None and not found.mode & 0o200:
        raise _refused(found.path, f"it is read-only (mode {found.mode:04o})", f"chmod u+w {found.path}")


def write(found: Found, text: str) -> list[Path]:
    """Put `text` where `found` is, in one step; returns the directories that were made for it, outermost first.

    Raises ConfigError if the file is not any more as it was found, or cannot be written.
    """
    writable(found)
    unchanged(found)
    target = found.target
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        made = _directories(target.parent)
        try:
            _write_synced(temporary, text.encode(), found)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        raise _refused(found.path, error.strerror or "", "check its directory's owner, mode and free space") from error
    return made


def remove(found: Found) -> None:
    """Delete the file; nothing if it is not there. Raises ConfigError."""
    unchanged(found)
    try:
        found.target.unlink(missing_ok=True)
        _sync(found.target.parent)
    except FileNotFoundError:
        return  # its directory is gone too
    except OSError as error:
        raise _refused(found.path, error.strerror or "", "check its directory's owner and mode") from error


def unchanged(found: Found) -> None:
    """Raise ConfigError if the file is not any more as it was found: what was agreed to was shown for that."""
    if look(found.path).text != found.text:
        raise _refused(found.path, "it was changed in the meantime", "run the command again")


def _refused(path: Path, why: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{path} was not changed", why, hint)


def _directories(path: Path) -> list[Path]:
    made: list[Path] = []
    for directory in [*reversed(path.parents), path]:
        if not directory.exists():
            directory.mkdir()
            made.append(directory)
    return made


def _write_synced(path: Path, data: bytes, found: Found) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        if found.text is not None and found.owner != (os.geteuid(), os.getegid()):
            state = os.fstat(fd)
            if (state.st_uid, state.st_gid) != found.owner:
                os.fchown(fd, *found.owner)
        if found.text is not None:
            os.fchmod(fd, found.mode)
        else:
            os.fchmod(fd, 0o666 & ~_umask())
        file.write(data)
        file.flush()
        os.fsync(fd)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- what was there before --------------------------------------------------------------------------------------------


def digest(text: str) -> str:
    """How a written text is known again."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Kept:
    """One file as it was before it was connected, and what was done to it.

    `original` None: there was no file. `written` are digests of what we wrote: more than one if a later run was cut
    off between its note and its file.
    """

    path: Path
    form: Form
    original: str | None
    written: list[str]
    done: list[Done]
    made: list[Path] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "path": str(self.path),
            "form": self.form,
            "original": None if self.original is None else base64.b64encode(self.original.encode()).decode(),
            "written": self.written,
            "done": [one.to_json() for one in self.done],
            "made": [str(one) for one in self.made],
        }

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Kept:
        """The inverse of `to_json`."""
        original = raw["original"]
        return cls(
            Path(raw["path"]),
            raw["form"],
            None if original is None else base64.b64decode(original).decode(),
            [str(one) for one in raw["written"]],
            [Done.of(one) for one in raw["done"]],
            [Path(one) for one in raw["made"]],
        )


class Keeper:
    """The notes of one agent at one place, in DATA/connect: a file that only its owner may read."""

    def __init__(self, data: Path, agent: str, scope: str, root: Path | None) -> None:
        mark = "-" + hashlib.sha256(str(root).encode()).hexdigest()[:16] if root else ""
        self._data = data
        self.path = data / "connect" / f"{agent}-{scope}{mark}.json"

    def read(self) -> dict[Path, Kept]:
        """What is kept, by path; empty if nothing is. Raises ConfigError if the file is damaged or not ours alone."""
        try:
            raw = json.loads(ownerfile.read(self.path, limit=16 * MAX_FILE))
            return {one.path: one for one in map(Kept.of, raw["files"])}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.path} could not be read", f"it is damaged ({type(error).__name__})", "move it away"
            ) from error

    def write(self, kept: dict[Path, Kept]) -> None:
        """Keep these, or nothing. Raises ConfigError."""
        if not kept:
            self.path.unlink(missing_ok=True)
            return
        try:
            self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"could not make {self._data}", error.strerror or "", "check its owner") from error
        files = [one.to_json() for one in kept.values()]
        ownerfile.replace(self.path, json.dumps({"files": files}, indent=1).encode() + b"\n", mode=0o600)
