"""The gateway's own encrypted store of credentials: envelope encryption, one file per credential.

`DATA/credentials/NAME.json` (0600, in a directory of 0700) is two lines: a JSON object and its check.

    {"created_ns":..,"format":1,"master":{..},"name":"..","nonce":"..","sealed":"..","version":3,"wrapped":".."}
    <HMAC-SHA256 of the line before, 64 hex digits>

The secret is sealed by AES-256-GCM with a data key of its own, whose associated data is the name and the version. The
data key is wrapped by a master key (`sealed_keys`), bound to the same. The check's key is derived from the data key, so
that nothing in the file, the description of the master and the times included, can be changed or moved to another
name. `master.json` names the master that new credentials are wrapped with; each file names its own, so a rotation
that is cut off anywhere leaves all of them readable.

What this does not find: a whole older file put back in place of a newer one by someone who may write the data
directory. Secrets and data keys are never on disk in clear.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hmac
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from narrows import ownerfile
from narrows.core.errors import ConfigError, NotFound
from narrows.core.values import Connection, CredentialSource
from narrows.upstream.sealed_keys import (
    KEY_BYTES,
    NONCE_BYTES,
    Masters,
    binding,
    changed,
    checked_master,
    make_file_master,
)
from narrows.upstream.sources_shape import Loaded, SourceFailed, parse
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

MAX_SECRET = 64 * 1024
"""Bytes of one secret, at most."""
MAX_FILE = 256 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FIELDS = {"created_ns", "format", "master", "name", "nonce", "sealed", "version", "wrapped"}
_MASTER_FILE = "master.json"
_RESERVED = "master"


@dataclass(frozen=True, slots=True)
class Entry:
    """A sealed credential as it may be shown."""

    name: str
    version: int
    created_ns: int
    master: str
    """The master's kind, and what tells it from others."""


@dataclass(slots=True)
class _Opened:
    body: dict[str, Any]
    key: bytes = field(repr=False)


class SealedStore:
    """The store in one directory. Changes hold a lock, so that two of them do not mix; readers need none."""

    def __init__(self, folder: Path, vault: Vault, chain: Callable[[str], Credentials]) -> None:
        self._folder = folder
        self._masters = Masters(folder.parent, vault, chain)

    # Reading

    def load(self, source: CredentialSource, connection: Connection, before: Loaded | None = None) -> Loaded:
        """The credential as the connection's kind needs it. A file that is as `before` is not opened again.

        Raises SourceFailed.
        """
        name = source.secret_name
        path = self._path(name)
        what = f"no credentials from the sealed credential {name}"
        try:
            state = path.stat()
        except FileNotFoundError:
            raise SourceFailed(
                what, "there is none of that name", f"narrows credential set {name}", step="secret"
            ) from None
        except OSError as error:
            raise SourceFailed(what, error.strerror or type(error).__name__, f"check {path}") from None
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode, state.st_uid)
        if before is not None and before.stamp == stamp:
            return before
        raw = self.secret(name).decode("utf-8", "replace")
        return Loaded(parse(raw, connection, source.field, what, "in it"), None, stamp)

    def secret(self, name: str) -> bytes:
        """The secret itself, for the gateway's own use. Raises SourceFailed."""
        opened = self._open(name)
        body = opened.body
        nonce, sealed = _bytes(body["nonce"]), _bytes(body["sealed"])
        try:
            return AESGCM(opened.key).decrypt(nonce, sealed, binding(name, body["version"]))
        except (InvalidTag, ValueError):
            raise changed(name) from None

    def entries(self) -> list[Entry]:
        """What is there, by name; shows no secret, and asks no master key. Raises SourceFailed."""
        entries = []
        for name in self._names():
            body = self._body(name)[0]
            master = body["master"]
            shown = f"{master['kind']} {master.get('id') or master.get('key')}"
            entries.append(Entry(name, body["version"], body["created_ns"], shown))
        return entries

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        found = (path.stem for path in self._folder.glob("*.json"))
        return sorted(name for name in found if name != _RESERVED and _NAME.fullmatch(name))

    def _open(self, name: str) -> _Opened:
        """The file with its data key, checked whole. Raises SourceFailed."""
        # A rotation may replace the file, and then take the old key away, between two of our steps: look again.
        for attempt in (1, 2, 3):
            body, line, check = self._body(name)
            try:
                key = self._masters.unwrap(body["master"], name, body["version"], body["wrapped"])
            except SourceFailed:
                if attempt < 3 and self._body(name)[1] != line:
                    continue
                raise
            if not hmac.compare_digest(_check(key, line), check):
                raise changed(name)
            return _Opened(body, key)
        raise changed(name)

    def _body(self, name: str) -> tuple[dict[str, Any], bytes, bytes]:
        """What the file says, not yet checked: the object, its line, and the check's line."""
        path = self._path(name)
        what = f"the sealed credential {name} could not be read"
        try:
            raw = ownerfile.read(path, limit=MAX_FILE)
        except FileNotFoundError:
            hint = "narrows credential list shows those there are"
            raise SourceFailed(what, "there is none of that name", hint, step="secret") from None
        except ConfigError as error:
            raise SourceFailed(what, f"{error.what}: {error.why}", error.hint) from None
        line, _, check = raw.partition(b"\n")
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict) or set(body) != _FIELDS or body["format"] != 1 or body["name"] != name:
            raise changed(name)
        texts = ("nonce", "sealed", "wrapped")
        numbers = ("version", "created_ns")
        if not all(isinstance(body[n], str) for n in texts) or not all(type(body[n]) is int for n in numbers):
            raise changed(name)
        if not 0 < body["version"] < 1 << 63:
            raise changed(name)
        body["master"] = checked_master(body["master"], str(path))
        return body, line, check

    # Changing

    def put(self, name: str, secret: bytes, now_ns: int, keys: Path) -> Entry:
        """Seal `secret` under `name`, as the next version where there is one. A first master key is made in `keys`.

        Raises ConfigError, SourceFailed.
        """
        path = self._path(name)
        if not secret or len(secret) > MAX_SECRET:
            raise ConfigError("the credential was not set", f"a secret has 1 to {MAX_SECRET} bytes")
        with self._changing():
            version = self._body(name)[0]["version"] + 1 if path.exists() else 1
            master = self._current() or self._use(make_file_master(keys))
            key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
            body = {
                "format": 1,
                "name": name,
                "version": version,
                "created_ns": now_ns,
                "master": master,
                "wrapped": self._masters.wrap(master, name, version, key),
                "nonce": base64.b64encode(nonce).decode(),
                "sealed": base64.b64encode(AESGCM(key).encrypt(nonce, secret, binding(name, version))).decode(),
            }
            self._write(name, body, key)
        return next(entry for entry in self.entries() if entry.name == name)

    def remove(self, name: str) -> None:
        """Take a credential out. Raises NotFound, ConfigError."""
        with self._changing():
            path = self._path(name)
            if not path.exists():
                raise NotFound(
                    f"There is no sealed credential {name}", "", "narrows credential list shows those there are"
                )
            path.unlink()
            _sync(self._folder)

    def rotate(self, master: dict[str, str]) -> int:
        """Wrap every data key with `master`, and new ones from now on; returns how many were wrapped anew.

        Readers are never without: each file is replaced whole, and names the master that it needs. Called again after
        it was cut off, it goes on where it stopped. Raises SourceFailed; what was done until then stays good.
        """
        with self._changing():
            # Tried before anything depends on it: a key that cannot unwrap would lose every credential.
            probe = os.urandom(KEY_BYTES)
            if self._masters.unwrap(master, _RESERVED, 1, self._masters.wrap(master, _RESERVED, 1, probe)) != probe:
                raise SourceFailed("the master key was not rotated", "the new one does not give back what it wrapped")
            self._use(master)
            count = 0
            for name in self._names():
                opened = self._open(name)
                if opened.body["master"] == master:
                    continue
                wrapped = self._masters.wrap(master, name, opened.body["version"], opened.key)
                self._write(name, opened.body | {"master": master, "wrapped": wrapped}, opened.key)
                count += 1
        return count

    def current(self) -> dict[str, str] | None:
        """The master that new credentials are wrapped with; None before the first. Raises SourceFailed."""
        return self._current()

    def used_files(self) -> set[Path]:
        """The files of master keys that are still needed. Raises SourceFailed."""
        masters = [self._body(name)[0]["master"] for name in self._names()]
        if (current := self._current()) is not None:
            masters.append(current)
        return {self._folder.parent / master["path"] for master in masters if master["kind"] == "file"}

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name == _RESERVED:
            raise SourceFailed(
                "no such sealed credential",
                "a name has lower-case letters, digits and hyphens, at most 63, and is not `master`",
                step="secret",
            )
        return self._folder / f"{name}.json"

    def _current(self) -> dict[str, str] | None:
        path = self._folder / _MASTER_FILE
        try:
            return checked_master(json.loads(ownerfile.read(path)), str(path))
        except FileNotFoundError:
            return None
        except ValueError:
            raise SourceFailed("the store's master key is not known", f"{path} is not JSON", "restore it") from None

    def _use(self, master: dict[str, str]) -> dict[str, str]:
        ownerfile.replace(self._folder / _MASTER_FILE, json.dumps(master).encode() + b"\n", mode=0o600)
        return master

    def _write(self, name: str, body: dict[str, Any], key: bytes) -> None:
        line = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        ownerfile.replace(self._path(name), line + b"\n" + _check(key, line), mode=0o600)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _check(key: bytes, line: bytes) -> bytes:
    """The last line of a file: it covers every byte of the line before, compared as bytes."""
    derived = HKDF(hashes.SHA256(), KEY_BYTES, None, b"narrows credential check").derive(key)
    return hmac.new(derived, line, "sha256").hexdigest().encode() + b"\n"


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
