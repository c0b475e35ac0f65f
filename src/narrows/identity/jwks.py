"""An issuer's public keys: read from its JWK Set (RFC 7517), cached, refreshed when a token names one that is new.

Guarantees:

- Only public keys for asymmetric signatures are kept. Symmetric keys, keys for encryption, RSA keys under 2048 bits,
  and keys published with their private half are left out; what is not understood is passed over (RFC 7517, section 5).
- The set is where the issuer's own discovery document says (OpenID Connect Discovery 1.0, section 4), which must name
  exactly the issuer that was asked.
- However many tokens with unknown key ids arrive, an issuer is asked at most once in `RETRY_S` seconds.
- Keys that could not be refreshed for `USABLE_S` seconds are no longer believed: a key taken back stays back.

Times are seconds of a clock that never goes back.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from narrows.core.errors import NarrowsError, UpstreamError
from narrows.core.issuers import check_url, is_loopback

FRESH_S = 600.0
USABLE_S = 3600.0
RETRY_S = 30.0
MAX_KEYS = 100
_RSA_BITS = range(2048, 8193)
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_KINDS: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

Fetch = Callable[[str], bytes]
"""GETs a URL; returns the body, bounded in size and time. Raises UpstreamError."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key. `algorithms` are the signatures that it may be used for."""

    kid: str
    algorithms: frozenset[str]
    key: Key


class Keys:
    """The keys of one issuer at one time."""

    def __init__(self, keys: tuple[PublicKey, ...]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key for a token's header, or None. A token without a key id is for the only key that fits."""
        fitting = [key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None


def parse(raw: bytes) -> Keys:
    """The keys of a JWK Set. Raises UpstreamError if it is none, or none of its keys can be used."""
    listed = _object(raw, "key set").get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _bad("key set", f"it has no `keys`, or more than {MAX_KEYS}")
    found = tuple(key for one in listed if isinstance(one, dict) for key in _usable(one))
    if not found:
        raise _bad("key set", "none of its keys is a public key for signatures that are believed")
    return Keys(found)


def _usable(jwk: dict[str, Any]) -> Iterator[PublicKey]:
    """The key, if it is one that may sign tokens."""
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return
    if _PRIVATE & jwk.keys():
        return
    algorithms = _algorithms(jwk)
    named = jwk.get("alg")
    if named is not None:
        algorithms &= {named} if isinstance(named, str) else set()
    kind = _KINDS.get(str(jwk.get("kty")))
    if not algorithms or kind is None:
        return
    plain = {name: value for name, value in jwk.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    try:
        key: Key = kind.import_key(plain)
    except (JoseError, ValueError, TypeError, KeyError):
        return  # passed over, as an unknown kind is: a token that it signed is of an unknown key
    kid = jwk.get("kid")
    yield PublicKey(kid if isinstance(kid, str) else "", frozenset(algorithms), key)


def _algorithms(jwk: dict[str, Any]) -> set[str]:
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        modulus = jwk.get("n")
        try:
            raw = base64.urlsafe_b64decode(modulus + "==") if isinstance(modulus, str) else b""
        except (ValueError, binascii.Error):
            return set()
        bits = int.from_bytes(raw[:2048], "big").bit_length() if len(raw) <= 2048 else 0
        return {f"{pad}{size}" for pad in ("RS", "PS") for size in (256, 384, 512)} if bits in _RSA_BITS else set()
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        return {_CURVES[curve]}
    return {"Ed25519"} if kind == "OKP" and curve == "Ed25519" else set()


def discovery_url(issuer: str) -> str:
    """Where an issuer describes itself (OpenID Connect Discovery 1.0, section 4)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def discover(issuer: str, fetch: Fetch) -> dict[str, Any]:
    """What an issuer says of itself. Raises UpstreamError if it cannot be had, or speaks for another issuer."""
    found = _object(fetch(discovery_url(issuer)), "discovery document")
    if found.get("issuer") != issuer:
        raise _bad("discovery document", "it is of another issuer than the one that was asked")
    return found


def endpoint(document: dict[str, Any], name: str, issuer: str) -> str:
    """A URL of a discovery document. Raises UpstreamError if it is missing, or leads where secrets must not go."""
    url = document.get(name)
    try:
        checked = check_url(url if isinstance(url, str) else "", name)
    except NarrowsError as error:
        raise _bad("discovery document", f"its {name}: {error.why}") from error
    if is_loopback(checked) and not is_loopback(issuer):
        raise _bad("discovery document", f"its {name} leads to this machine")
    return checked


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(what, "it is not JSON") from error
    if not isinstance(found, dict):
        raise _bad(what, "it is not a JSON object")
    return found


def _bad(what: str, why: str) -> UpstreamError:
    return UpstreamError(f"The issuer's {what} was refused", why, "ask who runs the issuer", phase="response")


class KeySource:
    """The keys of one issuer, as fresh as the module says. May be used by several threads."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Keys | None = None
        self._fetched = 0.0
        self._tried: float | None = None
        self._problem: NarrowsError | None = None

    def keys(self, kid: str | None, algorithm: str) -> Keys:
        """The keys, asked for anew if they are old or have none for the token. Raises UpstreamError."""
        with self._lock:
            now = self._clock()
            if self._keys is None or now - self._fetched > FRESH_S or self._keys.find(kid, algorithm) is None:
                self._refresh(now)
            if self._keys is None or now - self._fetched > USABLE_S:
                raise UpstreamError(
                    "The issuer's keys could not be had",
                    str(self._problem) if self._problem else "",
                    "see whether the gateway reaches the issuer: narrows doctor",
                    phase="request",
                )
            return self._keys

    def _refresh(self, now: float) -> None:
        if self._tried is not None and now - self._tried < RETRY_S:
            return
        self._tried = now
        try:
            document = discover(self.issuer, self._fetch)
            self._keys = parse(self._fetch(endpoint(document, "jwks_uri", self.issuer)))
        except UpstreamError as error:
            self._problem = error
        else:
            self._fetched, self._problem = now, None
