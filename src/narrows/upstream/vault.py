"""HashiCorp Vault (and OpenBao) as a source: signing in, reading KV secrets, and AWS credentials that are leases.

Guarantees: TLS is verified; nothing follows a redirect or a proxy of the environment; a token lives in memory only and
is asked for anew when Vault no longer takes it; of what Vault answers, only the status and its own list of
`errors` where they are known to name no secret are repeated.

Source of the API: Vault's HTTP API pages (auth/approle, auth/kubernetes, secret/kv, secret/aws, system/leases).
Everything here blocks: run it in a thread. May be used from many threads.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from narrows import ownerfile
from narrows.core.errors import ConfigError
from narrows.core.values import Connection, CredentialSource
from narrows.upstream.sources_shape import Loaded, SourceFailed, aws_of, key_of

TIMEOUT_S = 10
MAX_ANSWER = 1 << 20
"""Longest answer that is read, bytes."""
_TOKENS = 256
"""Tokens kept at most."""
_S = 1_000_000_000
MIN_RENEWED_S = 420
"""A lease renewed for less than this is near the longest that Vault grants: another is asked for instead."""


@dataclass(slots=True)
class _Token:
    value: str = field(repr=False)
    good_until_ns: int


@dataclass(slots=True)
class Answer:
    """What Vault said: the status, and the JSON object of the body (empty for none)."""

    status: int
    body: dict[str, Any] = field(repr=False)


class Vault:
    """Reads from Vaults. Keeps the tokens that it signed in for, and nothing else."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._tokens: OrderedDict[tuple[str, ...], _Token] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, source: CredentialSource, connection: Connection, before: Loaded | None = None) -> Loaded:
        """The credential that `source` names. Raises SourceFailed."""
        if source.engine == "aws":
            return self._lease(source, before)
        mount = source.mount or "secret"
        what = f"no credentials from Vault at {mount}/{source.secret_name}"
        middle = "data/" if source.engine == "kv2" else ""
        answer = self.call(source, "GET", f"{mount}/{middle}{source.secret_name}")
        data = _data(answer)
        if answer.status == 404:
            # A deleted version answers 404 too, with its metadata.
            gone = isinstance(data.get("metadata"), dict)
            raise SourceFailed(
                what,
                "its newest version was deleted" if gone else "Vault has nothing there",
                "put a new version" if gone else "check secret_name, mount and engine (kv2 or kv1), and the namespace",
                step="secret",
            )
        _expect(answer, what, "secret")
        if source.engine == "kv2":
            data = data["data"] if isinstance(data.get("data"), dict) else {}
        found = key_of(data, source.field, what, "there") if connection.kind == "llm" else aws_of(data, what, "there")
        return Loaded(found)

    def _lease(self, source: CredentialSource, before: Loaded | None) -> Loaded:
        """AWS credentials of the engine `aws`: those of before, renewed, or new ones."""
        mount = source.mount or "aws"
        what = f"no credentials from Vault at {mount}/creds/{source.secret_name}"
        if before is not None and before.lease:
            renewed = self._renewed(source, before)
            if renewed is not None:
                return renewed
        asked_ns = self._wall_ns()
        answer = self.call(source, "GET", f"{mount}/creds/{source.secret_name}")
        if answer.status in (400, 404):
            raise SourceFailed(
                what, "Vault knows no such role there", "check secret_name (the role) and mount", step="secret"
            )
        _expect(answer, what, "secret")
        lease_s = answer.body.get("lease_duration")
        # A static role's or a federation token's answer has no lease but says how long it lives.
        if not isinstance(lease_s, int) or lease_s <= 0:
            lease_s = _data(answer).get("ttl")
        expires_ns = asked_ns + lease_s * _S if isinstance(lease_s, int) and lease_s > 0 else None
        lease = str(answer.body.get("lease_id") or "") if answer.body.get("renewable") is True else ""
        return Loaded(aws_of(_data(answer), what, "there"), expires_ns, lease=lease)

    def _renewed(self, source: CredentialSource, before: Loaded) -> Loaded | None:
        """The same credentials for longer; None where the lease is not to be had for longer."""
        asked_ns = self._wall_ns()
        answer = self.call(source, "PUT", "sys/leases/renew", {"lease_id": before.lease})
        lease_s = answer.body.get("lease_duration")
        if answer.status != 200 or not isinstance(lease_s, int) or lease_s < MIN_RENEWED_S:
            return None
        return Loaded(before.credentials, asked_ns + lease_s * _S, lease=before.lease)

    def revoke(self, source: CredentialSource, loaded: Loaded) -> None:
        """Give back a lease that is no longer needed, such as a test's. Raises SourceFailed."""
        if loaded.lease:
            answer = self.call(source, "PUT", "sys/leases/revoke", {"lease_id": loaded.lease})
            _expect(answer, "a lease of Vault was not given back", "source")

    def call(self, source: CredentialSource, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """One call below `/v1/`, signed in. A token that Vault refuses is taken anew, once. Raises SourceFailed."""
        for fresh in (False, True):
            token = self._token(source, fresh=fresh)
            answer = request(source, method, path, body, token)
            if answer.status != 403:
                return answer
            if source.auth == "token" and not fresh:
                continue  # the file may have a new one
        return answer

    def _token(self, source: CredentialSource, *, fresh: bool) -> str:
        if source.auth == "token":
            return _file(source, "token")
        key = (
            source.address, source.namespace, source.auth, source.auth_mount, source.auth_file, source.role,
            source.source_ca_file,
        )  # fmt: skip
        with self._lock:
            kept = self._tokens.get(key)
            if kept is not None and not fresh and self._wall_ns() < kept.good_until_ns:
                self._tokens.move_to_end(key)
                return kept.value
        made = self._sign_in(source)
        with self._lock:
            self._tokens[key] = made
            self._tokens.move_to_end(key)
            if len(self._tokens) > _TOKENS:
                self._tokens.popitem(last=False)
        return made.value

    def _sign_in(self, source: CredentialSource) -> _Token:
        mount = source.auth_mount or source.auth
        what = f"could not sign in to Vault by {source.auth}"
        if source.auth == "approle":
            body = {"role_id": source.role, "secret_id": _file(source, "secret id")}
        else:
            body = {"role": source.role, "jwt": _file(source, "JWT")}
        asked_ns = self._wall_ns()
        answer = request(source, "POST", f"auth/{mount}/login", body, "")
        _expect(answer, what, "source")
        given = answer.body.get("auth")
        token = given.get("client_token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not token or not token.isprintable():
            raise SourceFailed(what, "its answer holds no token", "check that the address is a Vault's")
        lease_s = given.get("lease_duration") if isinstance(given, dict) else 0
        seconds = lease_s if isinstance(lease_s, int) and lease_s > 0 else 3600
        # Left alone a little before its end: a token must still be good when the call arrives.
        return _Token(token, asked_ns + max(seconds * 9 // 10, 1) * _S)


def _file(source: CredentialSource, name: str) -> str:
    """The text of `auth_file`. Kubernetes hands out its JWT in a file with modes of its own; others are owner-only."""
    what = f"no {name} for Vault from {source.auth_file}"
    path = Path(source.auth_file)
    try:
        if source.auth == "kubernetes":
            with path.open("rb") as file:
                raw = file.read(65537)
        else:
            raw = ownerfile.read(path, limit=65536)
    except OSError as error:
        raise SourceFailed(what, error.strerror or type(error).__name__, "check the connection's auth_file") from None
    except ConfigError as error:
        raise SourceFailed(what, f"{error.what}: {error.why}", error.hint) from None
    text = raw.decode("utf-8", "replace").strip()
    if not text or len(raw) > 65536 or not text.isascii() or not text.isprintable():
        raise SourceFailed(what, f"the file holds no {name}: one line of visible characters", "put it there, alone")
    return text


def request(source: CredentialSource, method: str, path: str, body: dict[str, Any] | None, token: str) -> Answer:
    """One request to Vault's API. Raises SourceFailed where there is no answer in Vault's form."""
    parts = urlsplit(source.address)
    host, what = parts.hostname or "", f"Vault at {source.address} could not be asked"
    headers = {"X-Vault-Request": "true", "Accept": "application/json", "User-Agent": "narrows"}
    if token:
        headers["X-Vault-Token"] = token
    if source.namespace:
        headers["X-Vault-Namespace"] = source.namespace.strip("/")
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=source.source_ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            conn: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port or 443, timeout=TIMEOUT_S, context=context
            )
        else:
            conn = http.client.HTTPConnection(host, parts.port or 80, timeout=TIMEOUT_S)
        try:
            conn.request(method, "/v1/" + quote(path, safe="/@:+=,.~-_"), payload, headers)
            with conn.getresponse() as answer:
                status, raw = answer.status, answer.read(MAX_ANSWER + 1)
        finally:
            conn.close()
    except ssl.SSLCertVerificationError as error:
        raise SourceFailed(
            what, f"its certificate was refused: {error.verify_message}", "source_ca_file names a private CA"
        ) from None
    except TimeoutError:
        raise SourceFailed(what, f"no answer within {TIMEOUT_S} s", "check the address and the network") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceFailed(what, str(reason), "check the address, the network and the CA file") from None
    return Answer(status, _object(raw, what))


def _object(raw: bytes, what: str) -> dict[str, Any]:
    if len(raw) > MAX_ANSWER:
        raise SourceFailed(what, f"its answer is longer than {MAX_ANSWER} bytes", "check the address")
    if not raw.strip():
        return {}
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SourceFailed(what, "what answers there is not a Vault: no JSON object", "check the address")
    return found


def _data(answer: Answer) -> dict[str, Any]:
    data = answer.body.get("data")
    return data if isinstance(data, dict) else {}


_STATUS = {
    400: ("Vault did not take the request", "check role, mount and namespace, and what auth_file holds"),
    403: ("Vault refused: permission denied", "the token's policy must allow reading it; the token may have expired"),
    404: ("Vault has nothing there", "check the mount and the namespace"),
    429: ("Vault asks for fewer requests", "raise its rate limit quota"),
    473: ("this node is a performance standby", "name the active node, or a load balancer that finds it"),
    501: ("Vault is not initialised", "initialise it"),
    503: ("Vault is sealed or in maintenance", "unseal it"),
}


def _expect(answer: Answer, what: str, step: Any) -> None:
    """Raise SourceFailed where the status says no. A refusal to read is of the secret, not of the source."""
    if 200 <= answer.status < 300:
        return
    if 300 <= answer.status < 400:
        raise SourceFailed(what, f"Vault sends elsewhere (status {answer.status})", "name the active node's address")
    why, hint = _STATUS.get(answer.status, ("Vault failed", "see Vault's own log"))
    raise SourceFailed(
        what,
        f"{why} (status {answer.status})",
        hint,
        step="source" if answer.status >= 429 or step == "source" else "secret",
    )
