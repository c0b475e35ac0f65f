"""The directory store: named files under one root, with one fsync discipline for all of them.

What a method has done when it returns is on stable storage: contents, and the directory entry that names them. Files
are made 0600, directories 0700. `write` replaces a file whole or not at all; `append` states where its bytes begin, so
that what an interrupted append left behind is overwritten, never joined. Names are relative, with `/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from narrows.core.errors import NotFound, RecorderFailed

_NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|\Z))[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*\Z")


class FileStore:
    """Files under `root`. Errors of the file system are raised as RecorderFailed, absence as NotFound."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[Path] = set()

    def path(self, name: str) -> Path:
        """The file's path. Raises NotFound for a name that leaves the root."""
        if not _NAME.match(name):
            raise NotFound("No such object", f"the name {name!r} cannot be one")
        return self.root / name

    # Reading ---------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """The whole file. Raises NotFound."""
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as missing:
            raise NotFound("No such object", name) from missing

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Its length in bytes. Raises NotFound."""
        try:
            return self.path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError) as missing:
            raise NotFound("No such object", name) from missing

    def list(self, name: str) -> list[str]:
        """Sorted names in a directory; empty when there is none. Unfinished replacements are left out."""
        try:
            return sorted(e.name for e in self.path(name).iterdir() if not e.name.endswith(".tmp"))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # Writing ---------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Replace the file's content atomically."""
        self.write_pieces(name, (data,))

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Replace the file's content atomically by the pieces, one after another; memory holds one of them."""
        self._replace(name, pieces)
        self._sync([name])

    def write_many(self, files: Mapping[str, bytes]) -> None:
        """Replace several files, each atomically; directories are synced once."""
        for name, data in files.items():
            self._replace(name, (data,))
        self._sync(files)

    def _replace(self, name: str, pieces: Iterable[bytes]) -> None:
        path = self.path(name)
        temporary = path.with_name(path.name + ".tmp")
        try:
            self._make(path.parent)
            with _Opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                for piece in pieces:
                    _write_all(fd, piece)
                os.fsync(fd)
            temporary.replace(path)
        except OSError as error:
            raise _failed("write", name, error) from error

    def _sync(self, names: Iterable[str]) -> None:
        for directory in dict.fromkeys(self.path(name).parent for name in names):
            try:
                _sync_directory(directory)
            except OSError as error:
                raise _failed("sync", str(directory), error) from error

    def append(self, name: str, at: int, data: bytes) -> None:
        """Put bytes at offset `at`, which must not be after the file's end; whatever lay there or after is gone."""
        path = self.path(name)
        try:
            self._make(path.parent)
            fresh = not path.exists()
            with _Opened(path, os.O_RDWR | os.O_CREAT) as fd:
                length = os.fstat(fd).st_size
                if length < at:
                    raise RecorderFailed(
                        "An object is shorter than the log says", f"{name}: {length} of {at} bytes"
                    )
                if length > at:
                    os.ftruncate(fd, at)
                os.lseek(fd, at, os.SEEK_SET)
                _write_all(fd, data)
                os.fsync(fd)
            if fresh:
                _sync_directory(path.parent)
        except OSError as error:
            raise _failed("append to", name, error) from error

    def rename(self, name: str, to: str) -> None:
        """Give a file another name in its directory, replacing what has it. Its contents must be durable already."""
        try:
            self.path(name).replace(self.path(to))
        except OSError as error:
            raise _failed("rename", name, error) from error
        self._sync([to])

    def truncate(self, name: str, size: int) -> None:
        """Cut a file back to `size` bytes. Raises RecorderFailed when it is shorter already."""
        path = self.path(name)
        try:
            with _Opened(path, os.O_RDWR) as fd:
                length = os.fstat(fd).st_size
                if length < size:
                    raise RecorderFailed(
                        "An object is shorter than the log says", f"{name}: {length} of {size} bytes"
                    )
                if length > size:
                    os.ftruncate(fd, size)
                    os.fsync(fd)
        except OSError as error:
            raise _failed("truncate", name, error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Its return on a power cut harms nobody: removal is not synced."""
        try:
            self.path(name).unlink(missing_ok=True)
        except OSError as error:
            raise _failed("remove", name, error) from error

    def _make(self, directory: Path) -> None:
        """Make a directory and its parents, with their entries synced; remembers which are there."""
        if directory in self._made:
            return
        missing = []
        current = directory
        while not current.is_dir():
            missing.append(current)
            current = current.parent
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(path.parent)
        if len(self._made) > 4096:
            self._made.clear()
        self._made.add(directory)


class _Opened:
    """A file descriptor that closes itself."""

    __slots__ = ("_fd", "_flags", "_path")

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._flags = flags

    def __enter__(self) -> int:
        self._fd = os.open(self._path, self._flags | os.O_CLOEXEC, 0o600)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: Path) -> None:
    with _Opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def _failed(verb: str, name: str, error: OSError) -> RecorderFailed:
    return RecorderFailed(f"Could not {verb} an object", f"{name}: {error.strerror}", "Check the disk.")
