"""Leases: credentials that work only at this gateway, checked without a database (P3).

A lease is an AWS key pair with a session token. The token carries who it was issued to, sealed with a MAC, so
that any node which has the root key can check it and derive the secret; nothing about a lease is stored.

    token          nrw1.<payload>.<mac>      payload: base64url of compact JSON, mac: base64url of 32 bytes
    mac            HMAC-SHA256(key "narrows lease token v1", "nrw1." + payload), both as they stand there
    access key id  "NRWL" + 16 base32 characters of HMAC-SHA256(key "narrows lease access key id v1", payload)
    secret         base64url of HMAC-SHA256(key "narrows lease secret v1", payload), 43 characters

Each purpose has its own key, derived from the root key by HKDF-SHA256 (RFC 5869), so that nothing shown to a
client (the access key id, the MAC) says anything about what must stay hidden from everyone else (the secret).

The lease of an `llm` connection is one string, the API key that the client sends: a token of the same form, sealed
with a key of its own ("narrows api key v1"). It has an access key id too, as its public name, and no other secret.

The session's own token is of the same form for the connection "*", sealed with a key of its own ("narrows proxy token
v1"); it lists the connections that the session was opened for. It opens the forward proxy (as its password) and what
the gateway answers itself, and no connection; and a connection's lease does not stand in for it.

Guarantees of a check: the token was issued with this root key for this use and not changed in any byte, the access
key id belongs to it, it has not expired. Whether its session was ended since is the directory's to say. All times
are Unix seconds.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from narrows import ownerfile
from narrows.core.errors import ConfigError, Refusal
from narrows.core.values import Agent, Lease, Principal

KEY_SIZE = 32
"""Length of the root key in bytes."""

TOKEN_PREFIX = b"nrw1."
ACCESS_KEY_PREFIX = "NRWL"

PROXY_USER = "narrows"
"""User name that goes with a proxy token in `Proxy-Authorization: Basic`."""

ANY_CONNECTION = "*"
"""The connection of a proxy token; never the name of a registered connection."""

MAX_TOKEN = 8192
"""Longest token issued or looked at, in bytes: many HTTP programs stop at 16 KiB for all header fields."""

CACHE_SIZE = 4096
"""Checked tokens kept in memory, at most."""

_HINT_NEW = "get a new one with `narrows run` or `narrows lease`"


def load_or_create(path: Path) -> bytes:
    """The root key in the file `path`, made from the system's randomness if there is none.

    Raises ConfigError if the file is not owner-only or does not hold exactly 32 bytes.
    """
    try:
        key = ownerfile.read(path, limit=KEY_SIZE)
    except FileNotFoundError:
        ownerfile.create(path, secrets.token_bytes(KEY_SIZE))
        # Read back: another process may have made it first, and then its key is the one.
        key = ownerfile.read(path, limit=KEY_SIZE)
    if len(key) != KEY_SIZE:
        raise ConfigError(
            f"refused {path}",
            f"a lease key is {KEY_SIZE} bytes, it holds {len(key)}",
            "restore it from a backup, or remove it: a new one is made at the next start and all leases end",
        )
    return key


class LeaseIssuer:
    """Issues and checks leases with one root key. No state but a cache; may be used from several threads."""

    def __init__(self, root_key: bytes, *, cache_size: int = CACHE_SIZE) -> None:
        """`root_key` is the 32 bytes of `load_or_create`; raises ConfigError for another length."""
        if len(root_key) != KEY_SIZE:
            raise ConfigError("refused the lease key", f"it must be {KEY_SIZE} bytes, not {len(root_key)}")
        self._token_key = _derive(root_key, b"narrows lease token v1")
        self._proxy_key = _derive(root_key, b"narrows proxy token v1")
        self._api_key = _derive(root_key, b"narrows api key v1")
        self._id_key = _derive(root_key, b"narrows lease access key id v1")
        self._secret_key = _derive(root_key, b"narrows lease secret v1")
        # Two generations instead of a linked list: a hit in the young one is a single dict look-up, and what
        # was used since the last turn survives the next.
        self._generation = max(1, cache_size // 2)
        self._young: dict[bytes, Lease] = {}
        self._old: dict[bytes, Lease] = {}
        # API keys by their SHA-256: unlike a lease's token the key is all that proves the caller, so that no
        # comparison of the look-up may depend on how much of it was guessed right.
        self._young_keys: dict[bytes, Lease] = {}
        self._old_keys: dict[bytes, Lease] = {}

    def __repr__(self) -> str:
        return "<LeaseIssuer>"

    def issue(
        self,
        *,
        session: bytes,
        connection: str,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
    ) -> Lease:
        """A new lease of `session` (16 bytes) for one connection, valid until `expires`.

        Raises Refusal `lease_too_large` if the principal has so many groups that the token would not fit in a
        header, ValueError for a session that is not 16 bytes or a connection that cannot be one.
        """
        payload = _payload(session, _named(connection), principal, agent, expires, now_s)
        return self._lease(payload, _sealed(self._token_key, payload))

    def api_key(
        self,
        *,
        session: bytes,
        connection: str,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
    ) -> Lease:
        """A new lease of `session` for one `llm` connection; the API key is its `session_token`. Raises as `issue`."""
        payload = _payload(session, _named(connection), principal, agent, expires, now_s)
        return self._lease(payload, _sealed(self._api_key, payload), secret=False)

    def proxy_token(
        self,
        *,
        session: bytes,
        principal: Principal,
        agent: Agent,
        expires: int,
        now_s: int | None = None,
        connections: tuple[str, ...] = (),
    ) -> str:
        """The session's own token: the password, for the user `narrows`, with which it may use the forward proxy.

        `connections` are those that the session was opened for. Raises Refusal `lease_too_large`.
        """
        payload = _payload(session, ANY_CONNECTION, principal, agent, expires, now_s, connections)
        return _sealed(self._proxy_key, payload).decode()

    def check(self, access_key_id: str, session_token: bytes, now_s: int, *, connection: str = "") -> Lease:
        """The lease that a request presents; the caller has yet to verify the signature with its secret.

        With `connection`, the lease must be for that one. Raises Refusal: `lease_foreign` (not ours at all,
        such as a real AWS key), `lease_invalid` (changed, mixed up, or of another gateway), `lease_expired`,
        `lease_other_connection`.
        """
        # The hit path finds a token by dict look-up, which does not compare in constant time. That gives
        # nothing away: only tokens whose MAC was verified are in the dict; the dict compares bytes only after
        # two keyed (SipHash, random per process) 64-bit hashes agree, so a guesser cannot walk up to a valid
        # token byte by byte; and the token itself proves nothing without a signature made with the secret.
        lease = self._young.get(session_token)
        if lease is None:
            lease = self._check_slowly(access_key_id, session_token)
        if lease.access_key_id != access_key_id:  # the access key id is public: it stands in every request
            raise _invalid("the access key id and the session token belong to two different leases")
        return _usable(lease, now_s, connection)

    def check_api_key(self, key: bytes, now_s: int, *, connection: str = "") -> Lease:
        """The lease that an API key is. It proves its holder by itself: nothing is left for the caller to verify.

        With `connection`, the key must be for that one. Raises Refusal with status 401: `lease_foreign` (a real key
        of some provider, or anything else that is not ours), `lease_invalid`, `lease_expired`; with status 403:
        `lease_other_connection`.
        """
        digest = sha256(key).digest()
        lease = self._young_keys.get(digest)
        if lease is not None:
            return _usable(lease, now_s, connection, status=401)
        lease = self._old_keys.get(digest)
        if lease is None:
            try:
                if not key.startswith(TOKEN_PREFIX):
                    raise _foreign("real API keys do not work here")
                lease = self._lease(_opened(self._api_key, key), key, secret=False)
            except Refusal as refusal:
                refusal.status = 401
                raise
        if len(self._young_keys) >= self._generation:
            self._old_keys, self._young_keys = self._young_keys, {}
        self._young_keys[digest] = lease
        return _usable(lease, now_s, connection, status=401)

    def check_proxy_token(self, token: bytes, now_s: int) -> Lease:
        """Who a session's own token was issued to: a Lease for the connection `*` without key or secret.

        Its `connections` are those of the session. Raises Refusal with status 407 (it is the password of the forward
        proxy): `lease_foreign`, `lease_invalid`, `lease_expired`.
        """
        try:
            lease = _fields(_opened(self._proxy_key, token))
            if lease is None or lease.connection != ANY_CONNECTION:
                raise _invalid("it is not a session's token")
            if now_s >= lease.expires:
                raise _expired(now_s - lease.expires)
        except Refusal as refusal:
            refusal.status = 407
            raise
        return replace(lease, session_token=token.decode("ascii"))

    def _check_slowly(self, access_key_id: str, token: bytes) -> Lease:
        lease = self._old.get(token)
        if lease is None:
            if not token.startswith(TOKEN_PREFIX) and not access_key_id.startswith(ACCESS_KEY_PREFIX):
                raise _foreign()
            lease = self._lease(_opened(self._token_key, token), token)
            if lease.access_key_id != access_key_id:
                raise _invalid("the access key id and the session token belong to two different leases")
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[token] = lease
        return lease

    def _lease(self, payload: bytes, token: bytes, *, secret: bool = True) -> Lease:
        """The lease of one connection whose token was sealed over `payload`. Raises Refusal `lease_invalid`."""
        lease = _fields(payload)
        if lease is None or lease.connection == ANY_CONNECTION:
            raise _invalid("its content is not that of a lease")
        name = base64.b32encode(hmac.digest(self._id_key, payload, "sha256")[:10]).decode()
        return replace(
            lease,
            access_key_id=ACCESS_KEY_PREFIX + name,
            secret_access_key=_encode(hmac.digest(self._secret_key, payload, "sha256")).decode() if secret else "",
            session_token=token.decode("ascii"),
        )


def _named(connection: str) -> str:
    if not connection or connection == ANY_CONNECTION:
        raise ValueError("a lease is for one named connection")
    return connection


def _usable(lease: Lease, now_s: int, connection: str, *, status: int = 403) -> Lease:
    """`lease` if it has not expired and is for `connection`, if that is given. Raises Refusal."""
    if now_s >= lease.expires:
        expired = _expired(now_s - lease.expires)
        expired.status = status
        raise expired
    if connection and lease.connection != connection:
        raise Refusal(
            "the lease was refused",
            f"it is for connection {lease.connection!r}, the request goes to {connection!r}",
            f"use a lease for it: `narrows run --connection {connection}` or `narrows lease`",
            code="lease_other_connection",
        )
    return lease


def _derive(root_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(root_key)


def _encode(raw: bytes) -> bytes:
    """base64url without padding: safe in headers, environment variables and ini files."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _payload(
    session: bytes,
    connection: str,
    principal: Principal,
    agent: Agent,
    expires: int,
    now_s: int | None,
    connections: tuple[str, ...] = (),
) -> bytes:
    if len(session) != 16:
        raise ValueError("a session id is 16 bytes")
    issued = int(time.time()) if now_s is None else now_s
    fields: dict[str, Any] = {
        "s": session.hex(),
        "c": connection,
        "p": [principal.name, principal.kind, principal.issuer, principal.groups],
        "a": [agent.name, agent.version],
        "e": expires,
        "t": issued,
        # Two leases of a session for the same connection and second are still two leases.
        "n": secrets.token_hex(8),
    }
    if connections:
        fields["x"] = connections
    return _encode(orjson.dumps(fields))


def _fields(payload: bytes) -> Lease | None:
    """Read back what `_payload` wrote, as a Lease without key, secret and token; None for anything else.

    Only called with a payload whose MAC is good, so None means a token of another version with the same key.
    """
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        name, kind, issuer, groups = fields["p"]
        return Lease(
            bytes.fromhex(fields["s"]),
            str(fields["c"]),
            Principal(name, kind, issuer, tuple(groups)),
            Agent(*fields["a"]),
            int(fields["e"]),
            "",
            "",
            "",
            tuple(str(item) for item in fields.get("x", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _mac(key: bytes, payload: bytes) -> bytes:
    return _encode(hmac.digest(key, TOKEN_PREFIX + payload, "sha256"))


def _sealed(key: bytes, payload: bytes) -> bytes:
    token = TOKEN_PREFIX + payload + b"." + _mac(key, payload)
    if len(token) > MAX_TOKEN:
        raise Refusal(
            "the lease was not issued",
            f"its token would be {len(token)} bytes long, the limit is {MAX_TOKEN}",
            "the principal has too many groups: let the identity provider send only those that matter here",
            code="lease_too_large",
        )
    return token


def _opened(key: bytes, token: bytes) -> bytes:
    """The payload of a token whose MAC is good. Raises Refusal `lease_foreign` or `lease_invalid`.

    The MAC is compared as text, and covers the payload as text: base64 has several spellings of the same
    bytes, and only the one that was issued is good.
    """
    if not token:
        raise _invalid("the session token is missing", "set AWS_SESSION_TOKEN along with the key pair")
    if not token.startswith(TOKEN_PREFIX):
        raise _foreign()
    if len(token) > MAX_TOKEN:
        raise _invalid(f"its token is longer than {MAX_TOKEN} bytes")
    payload, _, mac = token[len(TOKEN_PREFIX) :].rpartition(b".")
    if not hmac.compare_digest(mac, _mac(key, payload)):
        raise _invalid("its token was not issued by this gateway for this use, or was changed")
    return payload


def _invalid(why: str, hint: str = _HINT_NEW) -> Refusal:
    return Refusal("the lease was refused", why, hint, code="lease_invalid", aws_code="InvalidClientTokenId")


def _expired(seconds: int) -> Refusal:
    return Refusal(
        "the lease was refused",
        f"it expired {seconds} s ago",
        _HINT_NEW,
        code="lease_expired",
        aws_code="ExpiredToken",
    )


def _foreign(real: str = "real AWS credentials do not work here") -> Refusal:
    return Refusal(
        "the credential was refused",
        f"it is not a lease of this gateway: {real}",
        "`narrows run -- COMMAND` gives the command a lease, `narrows lease` prints one",
        code="lease_foreign",
        aws_code="InvalidClientTokenId",
    )
