"""Tokens of the API: what a sign-in is exchanged for, and keys of services. Opaque, stored as hashes, expiring.

    nra_...   access token: short-lived, of a sign-in or a workload
    nrr_...   refresh token: used once; using one again ends its whole sign-in (RFC 9700 section 4.14)
    nrk_...   key of a service: shown once, when it is made

A token is 32 bytes from the operating system's generator. It is stored as its SHA-256: 256 random bits cannot be
guessed or tried one after another, so the slow hashes that passwords need would add nothing but time to every request.
A look-up by hash gives nothing away by the time it takes, as whoever asks cannot choose the hash that is compared.

What is in the file `tokens.db` lets nobody in. Its times are Unix seconds. Methods may be called from any thread.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from narrows.core import ids
from narrows.core.errors import ConfigError, NotFound, Refusal
from narrows.core.issuers import ROLES, Role, RoleMap, role_names
from narrows.core.ports import Clock
from narrows.core.values import Principal
from narrows.manage.errors import ConflictError
from narrows.manage.roles import Grant

KEY_ISSUER = "narrows"
"""The issuer of a service that came with a key of ours: no URL, so no other's."""

PREFIXES: dict[str, str] = {"access": "nra_", "refresh": "nrr_", "key": "nrk_"}
MAX_TOKEN = 128
KEPT_S = 30 * 86_400
"""How long a token's row is kept after its end: a refresh token that is used again must still be known."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE tokens (
    id BLOB PRIMARY KEY, kind TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, family BLOB NOT NULL,
    principal TEXT NOT NULL, roles TEXT, connections TEXT, created_s INTEGER NOT NULL, expires_s INTEGER NOT NULL,
    ended_s INTEGER, used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tokens_by_family ON tokens (family);
CREATE INDEX tokens_by_end ON tokens (expires_s);
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """Tokens as their holder gets them, once. The repr hides them."""

    access: str
    expires: int
    refresh: str
    principal: Principal
    id: str

    def __repr__(self) -> str:
        return f"Issued(id={self.id!r}, expires={self.expires})"


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()


def _bad(why: str) -> Refusal:
    hint = "sign in again: narrows login"
    return Refusal("The token was refused", why, hint, code="token_revoked", status=401)


class TokenStore:
    """Issues, finds, renews and ends tokens. `random` gives that many unpredictable bytes."""

    def __init__(self, path: Path, clock: Clock, roles: RoleMap, random: Callable[[int], bytes] = os.urandom) -> None:
        """Open or make the file (mode 0600). Raises ConfigError for one of a newer program."""
        self._clock = clock
        self.roles = roles
        self._random = random
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # a revocation that was answered survives a power cut
            self._db.execute("PRAGMA busy_timeout=5000")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise ConfigError("The store of tokens could not be opened", "a newer program wrote it")
            if version < 1:
                self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; the store cannot be used after."""
        with self._lock:
            self._db.close()

    @property
    def now_s(self) -> int:
        """The clock's time."""
        return self._clock.wall_ns() // 1_000_000_000

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- who comes with a token -----------------------------------------------------------------------------------

    def find(self, token: str) -> Grant | None:
        """What a token of ours proves, or None if it is not one, or its time is over. A refresh token is no such."""
        kind = next((kind for kind, prefix in PREFIXES.items() if token.startswith(prefix)), "")
        if kind not in ("access", "key") or len(token) > MAX_TOKEN:
            return None
        with self._lock:
            row = self._db.execute(
                "SELECT id, principal, roles, connections, expires_s FROM tokens "
                "WHERE digest = ? AND kind = ? AND ended_s IS NULL AND expires_s > ?",
                (_digest(token), kind, self.now_s),
            ).fetchone()
        if row is None:
            return None
        key, about, roles, connections, expires_s = row
        principal = _principal(about)
        held = _roles(roles) if roles is not None else self.roles.of(principal)
        bounds = tuple(json.loads(connections)) if connections is not None else None
        return Grant(principal, held, expires_s, bounds, ids.text(key))

    # -- sign-ins -------------------------------------------------------------------------------------------------

    def sign_in(self, principal: Principal, access_s: int, login_s: int | None) -> Issued:
        """Tokens for a verified identity: access to `access_s`, renewable until `login_s` unless that is None."""
        with self._change() as db:
            self._forget(db)
            return self._issue(db, principal, self._id(), access_s, login_s)

    def refresh(self, token: str, ttl_s: int) -> Issued:
        """New tokens for a refresh token, which is used up. The end of the sign-in does not move.

        Raises Refusal `token_revoked`. A token that was used before ends its sign-in: one of the two who had it
        stole it.
        """
        with self._change() as db:
            row = db.execute(
                "SELECT id, family, principal, expires_s, ended_s, used FROM tokens "
                "WHERE digest = ? AND kind = 'refresh'",
                (_digest(token),),
            ).fetchone()
            now = self.now_s
            if row is not None and not row[5] and row[4] is None and row[3] > now:
                db.execute("UPDATE tokens SET used = 1, ended_s = ? WHERE id = ?", (now, row[0]))
                end_s = row[3]
                return self._issue(db, _principal(row[2]), row[1], min(now + ttl_s, end_s), end_s)
            if row is not None and row[5]:
                self._end_family(db, row[1])
        if row is None:
            raise _bad("it is not a refresh token of this gateway")
        raise _bad("it was used before: the whole sign-in has ended" if row[5] else "the sign-in has ended")

    def revoke(self, token: str) -> Principal | None:
        """End the sign-in that a token belongs to, or the key that it is. Returns whose it was; None: not ours."""
        with self._change() as db:
            row = db.execute("SELECT family, principal FROM tokens WHERE digest = ?", (_digest(token),)).fetchone()
            if row is None:
                return None
            self._end_family(db, row[0])
        return _principal(row[1])

    # -- keys -----------------------------------------------------------------------------------------------------

    def create_key(
        self,
        name: str,
        roles: frozenset[Role],
        groups: tuple[str, ...],
        connections: tuple[str, ...] | None,
        expires_s: int,
    ) -> Issued:
        """A key for the service `name`. Raises ConflictError if a key of that name is in use."""
        principal = Principal(name, "service", KEY_ISSUER, groups)
        with self._change() as db:
            self._forget(db)
            if any(found["name"] == name for found in self.keys()):
                raise ConflictError(
                    f"The key {name!r} was not made",
                    "a key of that name is in use",
                    "revoke it first, or take another name",
                )
            key, token = self._id(), self._token("key")
            bounds = json.dumps(connections) if connections is not None else None
            self._insert(db, key, "key", token, key, principal, expires_s, json.dumps(role_names(roles)), bounds)
        return Issued(token, expires_s, "", principal, ids.text(key))

    def keys(self) -> list[dict[str, Any]]:
        """The keys that work, without what they are."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, principal, roles, connections, created_s, expires_s FROM tokens "
                "WHERE kind = 'key' AND ended_s IS NULL AND expires_s > ? ORDER BY created_s, id",
                (self.now_s,),
            ).fetchall()
        found = []
        for key, about, roles, connections, created, expires in rows:
            principal = _principal(about)
            found.append(
                {
                    "id": ids.text(key),
                    "name": principal.name,
                    "roles": json.loads(roles),
                    "groups": list(principal.groups),
                    "connections": json.loads(connections) if connections is not None else None,
                    "created": created,
                    "expires": expires,
                }
            )
        return found

    def key(self, id_or_name: str) -> dict[str, Any]:
        """A key by its id or name. Raises NotFound."""
        for found in self.keys():
            if id_or_name in (found["id"], found["name"]):
                return found
        raise NotFound(f"There is no key {id_or_name[:64]!r}", "none in use has that id or name", "narrows key list")

    def end_key(self, key: str) -> None:
        """End a key by its id."""
        with self._change() as db:
            db.execute("UPDATE tokens SET ended_s = ? WHERE id = ? AND kind = 'key'", (self.now_s, ids.parse(key)))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _issue(
        self, db: sqlite3.Connection, principal: Principal, family: bytes, access_s: int, login_s: int | None
    ) -> Issued:
        key, access, refresh = self._id(), self._token("access"), ""
        self._insert(db, key, "access", access, family, principal, access_s)
        if login_s is not None:
            refresh = self._token("refresh")
            self._insert(db, self._id(), "refresh", refresh, family, principal, login_s)
        return Issued(access, access_s, refresh, principal, ids.text(key))

    def _insert(
        self,
        db: sqlite3.Connection,
        key: bytes,
        kind: Literal["access", "refresh", "key"],
        token: str,
        family: bytes,
        principal: Principal,
        expires_s: int,
        roles: str | None = None,
        connections: str | None = None,
    ) -> None:
        about = json.dumps(asdict(principal))
        values = (key, kind, _digest(token), family, about, roles, connections, self.now_s, expires_s)
        db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0)", values)

    def _end_family(self, db: sqlite3.Connection, family: bytes) -> None:
        db.execute("UPDATE tokens SET ended_s = ? WHERE family = ? AND ended_s IS NULL", (self.now_s, family))

    def _forget(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM tokens WHERE expires_s < ?", (self.now_s - KEPT_S,))

    def _id(self) -> bytes:
        return ids.uuid7(self._clock.wall_ns(), self._random(10))

    def _token(self, kind: str) -> str:
        return PREFIXES[kind] + base64.urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()


def _principal(text: str) -> Principal:
    who = json.loads(text)
    return Principal(who["name"], who["kind"], who["issuer"], tuple(who["groups"]))


def _roles(text: str) -> frozenset[Role]:
    return frozenset(role for role in ROLES if role in json.loads(text))
