"""Verification of ID and access tokens (OpenID Connect Core 1.0 section 3.1.3.7, RFC 7519, RFC 8725, RFC 9068). Pure.

`verify(token, keys, issuer, now)` decides with what it is given: no socket, no clock. Three answers, which are not the
same: verified, refused (with a stable code), and not mine (of another issuer; nothing is said about it).

The signature is checked by `joserfc`, with a key chosen here and the algorithms that the issuer's table allows. A token
is decoded strictly: three parts of base64url, JSON objects without a name twice, since two readers of one would see two
tokens. No text of a token is in an error.

Times are Unix seconds.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from narrows.core.errors import Refusal
from narrows.core.issuers import Issuer
from narrows.core.values import Principal
from narrows.identity.jwks import Keys

MAX_TOKEN = 32 * 1024
"""Longest token looked at, in bytes: many groups make long ones."""
MAX_GROUPS = 200
MAX_NAME = 256
MAX_AGE_S = 86_400
"""A token issued longer ago is refused however late it expires: a sign-in is a recent one."""

_PART = re.compile(rb"[A-Za-z0-9_-]+")
_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
"""What `typ` may say; a logout token or a proof of possession is not an identity (RFC 8725 section 3.11)."""
_TEXT = re.compile(r"[^\x00-\x1f\x7f\u0080-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


class _Registry(jws.JWSRegistry):
    max_header_length = 8192
    max_payload_length = MAX_TOKEN


@dataclass(frozen=True, slots=True)
class NotMine:
    """A token of another issuer."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Who a token is about. `subject` is the issuer's own name for it, `expires` the token's end."""

    principal: Principal
    subject: str
    expires: int
    token_id: str


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token that was decoded and not checked: good for choosing who checks it, for nothing else."""

    raw: bytes
    header: dict[str, Any]
    claims: dict[str, Any]

    @property
    def issuer(self) -> str:
        """Whose it says it is."""
        found = self.claims.get("iss")
        return found if isinstance(found, str) else ""

    @property
    def kid(self) -> str | None:
        """The key that it says it was signed with."""
        found = self.header.get("kid")
        return found if isinstance(found, str) else None

    @property
    def algorithm(self) -> str:
        """The algorithm that it says it was signed by."""
        found = self.header.get("alg")
        return found if isinstance(found, str) else ""


def refused(why: str, *, code: str, hint: str = "sign in again: narrows login") -> Refusal:
    """A token's refusal."""
    return Refusal("The token was refused", why, hint, code=code, status=401)


def decode(token: str | bytes) -> Unverified:
    """A token's parts, unchecked. Raises Refusal `token_malformed`."""
    raw = token.encode("ascii", "replace") if isinstance(token, str) else token
    if len(raw) > MAX_TOKEN:
        raise refused(f"it is longer than {MAX_TOKEN} bytes", code="token_malformed")
    parts = raw.split(b".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts[:2]):
        raise refused("it is not a signed JWT of three parts", code="token_malformed")
    # An empty signature is left to the check of the algorithm, which says more.
    return Unverified(raw, _json(parts[0], "header"), _json(parts[1], "payload"))


def _json(part: bytes, what: str) -> dict[str, Any]:
    try:
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refused(f"its {what} is not JSON, or names something twice", code="token_malformed") from error
    if not isinstance(found, dict):
        raise refused(f"its {what} is not a JSON object", code="token_malformed")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def verify(
    token: str | bytes | Unverified, keys: Keys, issuer: Issuer, now_s: float, *, nonce: str | None = None
) -> Verified | NotMine | Refusal:
    """Whether the token is the issuer's and means this gateway, and who it is about.

    `nonce` is what the sign-in was begun with: the token must carry it. None where there was no such beginning.
    """
    try:
        read = token if isinstance(token, Unverified) else decode(token)
        if read.issuer != issuer.issuer:
            return NotMine()
        _signature(read, keys, issuer)
        claims = read.claims
        expires = _times(claims, issuer, now_s)
        _meant_for_us(claims, issuer)
        _nonce(claims, nonce)
        _conditions(claims, issuer)
        subject = _subject(claims)
        principal = Principal(
            name=_name(claims, issuer, subject),
            kind="service" if issuer.kind == "workload" else "user",
            issuer=issuer.issuer,
            groups=_groups(claims, issuer),
        )
    except Refusal as refusal:
        return refusal
    jti = claims.get("jti")
    return Verified(principal, subject, expires, jti[:MAX_NAME] if isinstance(jti, str) else "")


def _signature(read: Unverified, keys: Keys, issuer: Issuer) -> None:
    kind = read.header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in _TYPES or "crit" in read.header:
        raise refused("it is a token for another purpose", code="token_malformed")
    if read.algorithm not in issuer.algorithms:
        raise refused("it is not signed by an algorithm that is believed", code="token_algorithm")
    key = keys.find(read.kid, read.algorithm)
    if key is None:
        raise refused("it is signed with a key that the issuer does not publish", code="token_key_unknown")
    registry = _Registry(algorithms=[read.algorithm], strict_check_header=False)
    try:
        jws.deserialize_compact(read.raw, key.key, registry=registry)
    except (JoseError, ValueError) as error:
        raise refused("its signature is not the issuer's", code="token_signature") from error


def _times(claims: dict[str, Any], issuer: Issuer, now_s: float) -> int:
    """When it expires. The clocks may differ by the issuer's `skew_s`, no more."""
    expires, begins, issued = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise refused("it never expires", code="token_malformed")
    if now_s >= expires + issuer.skew_s:
        raise refused("it has expired", code="token_expired")
    if begins is not None and now_s < begins - issuer.skew_s:
        raise refused("it is not valid yet", code="token_not_yet_valid", hint="compare the clocks of the two machines")
    if issued is not None and now_s < issued - issuer.skew_s:
        raise refused(
            "it was issued in the future", code="token_not_yet_valid", hint="compare the clocks of the two machines"
        )
    if issued is not None and now_s > issued + MAX_AGE_S:
        raise refused(f"it was issued more than {MAX_AGE_S} s ago", code="token_expired")
    return int(expires)


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e12:
        raise refused(f"its `{name}` is not a time", code="token_malformed")
    return float(value)


def _meant_for_us(claims: dict[str, Any], issuer: Issuer) -> None:
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise refused("its audience is missing", code="token_audience")
    ours = {one for one in (issuer.audience, issuer.client_id) if one}
    party = claims.get("azp")
    if not ours & set(listed):
        raise refused(
            "it is meant for another audience", code="token_audience", hint="ask the issuer for one for this gateway"
        )
    # A token that others may use too is good only where it says that it was issued to our client.
    if party is not None and issuer.client_id and party != issuer.client_id:
        raise refused("it was issued to another client", code="token_azp")
    if set(listed) - ours and not (issuer.client_id and party == issuer.client_id):
        raise refused(
            "it is meant for others too", code="token_azp", hint="ask the issuer for one for this gateway alone"
        )


def _nonce(claims: dict[str, Any], nonce: str | None) -> None:
    if nonce is None:
        return
    found = claims.get("nonce")
    if not isinstance(found, str) or not hmac.compare_digest(found.encode("utf-8", "replace"), nonce.encode()):
        raise refused("it is not the answer to this sign-in: its nonce differs", code="token_nonce")


def _subject(claims: dict[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _named(subject):
        raise refused("its subject is missing", code="token_malformed")
    return subject


def _conditions(claims: dict[str, Any], issuer: Issuer) -> None:
    subject = claims.get("sub")
    if issuer.subjects and not (isinstance(subject, str) and any(_like(p, subject) for p in issuer.subjects)):
        raise refused(
            "its subject is none that may come in", code="token_conditions", hint="see `subjects` in the settings"
        )
    for name, wanted in issuer.claims:
        if not _met(claims.get(name), wanted):
            raise refused(
                f"its claim `{name}` is not one that may come in", code="token_conditions", hint="see the settings"
            )


def _like(pattern: str, text: str) -> bool:
    """Whether the text is the pattern, `*` standing for any text. In one pass over the pieces: no backtracking."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first) or not text[len(first) :].endswith(rest[-1]):
        return False
    at, end = len(first), len(text) - len(rest[-1])
    for piece in rest[:-1]:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


def _met(value: object, wanted: object) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(value, dict) and all(_met(value.get(name), inner) for name, inner in wanted)
    if isinstance(wanted, frozenset):
        return isinstance(value, str) and value in wanted
    return type(value) is type(wanted) and value == wanted


def _name(claims: dict[str, Any], issuer: Issuer, subject: str) -> str:
    """What the principal is called: the claim that the settings name; else an e-mail address that the issuer has
    verified, else its subject. An address that anybody may give himself is nobody's name."""
    claim = issuer.name_claim or ("email" if issuer.kind == "user" else "sub")
    value = claims.get(claim)
    verified = claims.get("email_verified")
    if claim == "email" and (verified is False or verified == "false" or not (issuer.name_claim or verified is True)):
        value = None
    if not isinstance(value, str) or not _named(value):
        if issuer.name_claim and issuer.name_claim != "email":
            raise refused(
                "the claim that names its principal is missing", code="token_malformed", hint="see `name_claim`"
            )
        return subject
    return value


def _named(text: str) -> bool:
    return len(text) <= MAX_NAME and _TEXT.fullmatch(text) is not None


def _groups(claims: dict[str, Any], issuer: Issuer) -> tuple[str, ...]:
    found = _claimed(claims, issuer.groups_claim or (("groups",) if issuer.kind == "user" else ()))
    if not all(isinstance(one, str) and _named(one) for one in found) or len(found) > MAX_GROUPS:
        raise refused(
            f"its groups are not at most {MAX_GROUPS} names",
            code="token_groups",
            hint="let the issuer send only the groups that matter here",
        )
    return tuple(dict.fromkeys([*(issuer.groups_prefix + one for one in found), *issuer.groups]))


def _claimed(claims: dict[str, Any], path: tuple[str, ...]) -> list[Any]:
    """What stands at a path: one name is a claim's whole name first, and else a path with dots."""
    if not path:
        return []
    if len(path) == 1 and path[0] not in claims:
        path = tuple(path[0].split("."))
    at: Any = claims
    for name in path:
        at = at.get(name) if isinstance(at, dict) else None
    if at is None:
        return []
    return at if isinstance(at, list) else [at]
