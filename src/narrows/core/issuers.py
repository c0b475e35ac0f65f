"""Whose word about identities is taken, and what the groups in it allow: issuers of OpenID Connect tokens, and roles.

These are the tables `[[oidc]]` and `[roles]` of the settings, checked. Nothing here is a secret: clients are public
ones (RFC 8252), which prove themselves with PKCE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

from narrows.core.errors import ConfigError
from narrows.core.values import Principal

Role = Literal["owner", "admin", "auditor", "approver", "user"]
ROLES: tuple[Role, ...] = ("owner", "admin", "auditor", "approver", "user")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Signatures that are believed (RFC 7518, RFC 9864): asymmetric ones. Never `none`, never a MAC."""

MAX_ISSUERS = 64
MAX_SKEW_S = 300
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def check_url(url: str, what: str) -> str:
    """`url` if secrets may go there: https, or http to this machine itself. Raises ConfigError."""
    wrong = ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host, wrong = urlsplit(""), None, "it is not a URL"
    if not wrong:
        if not host or parts.username or parts.password or parts.fragment or not url.isprintable() or " " in url:
            wrong = "it needs a scheme and a host, and neither a user nor a fragment"
        elif parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
            wrong = "it must begin with https://, or with http:// and be on this machine itself"
    if wrong:
        raise ConfigError(f"The {what} was refused", wrong, f"give {what} as https://HOST")
    return url


@dataclass(frozen=True, slots=True)
class Issuer:
    """One `[[oidc]]` table. Several may name the same issuer: the first whose conditions a token meets counts.

    `groups_claim` is a claim's name or the path to it. `groups` are given to whoever is verified, beside those of the
    claim; the claim of a `workload` is not read unless it is named. `claims` must be met as they stand: a text is equal
    or, in a list, one of several; a table is met inside. `subjects` are patterns for `sub`, in which `*` stands for
    any text.
    """

    issuer: str
    client_id: str = ""
    audience: str = ""
    kind: Literal["user", "workload"] = "user"
    name_claim: str = ""
    groups_claim: tuple[str, ...] = ()
    groups_prefix: str = ""
    groups: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    claims: tuple[tuple[str, Any], ...] = ()
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    algorithms: tuple[str, ...] = ALGORITHMS
    skew_s: int = 30
    ca_file: str = ""

    def json(self) -> dict[str, Any]:
        """As the settings write it, without what is left at its default."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v not in ("", ())}
        if self.claims:
            shown["claims"] = {name: _thawed(value) for name, value in self.claims}
        return shown


_NAMES = {f.name for f in fields(Issuer)}
_LISTS = ("groups", "subjects", "scopes", "algorithms")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{1,512}")


def issuers_from(raw: object) -> tuple[Issuer, ...]:
    """The tables `[[oidc]]`. Raises ConfigError that names table and key."""
    if not isinstance(raw, (list, tuple)) or len(raw) > MAX_ISSUERS:
        raise ConfigError("The setting `oidc` is wrong", f"it takes tables [[oidc]], at most {MAX_ISSUERS}")
    return tuple(one if isinstance(one, Issuer) else _issuer(one, number) for number, one in enumerate(raw, 1))


def _issuer(raw: object, number: int) -> Issuer:
    where = f"The settings table [[oidc]] number {number} is wrong"

    def wrong(why: str, hint: str = "docs/identity.md has examples") -> ConfigError:
        return ConfigError(where, why, hint)

    if not isinstance(raw, Mapping):
        raise wrong("it is not a table")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in _NAMES:
            raise wrong(f"`{key}` is not one of its keys", f"it has {', '.join(sorted(_NAMES))}")
        values[key] = _value(key, value, wrong)
    check_url(values.get("issuer") or "", "issuer of an [[oidc]] table")
    if urlsplit(values["issuer"]).query:
        raise wrong("an issuer has no query")
    made = Issuer(**values)
    if made.kind == "user" and not made.client_id:
        raise wrong("`client_id` is missing: the client that people sign in through")
    if made.kind == "workload" and not made.audience:
        raise wrong("`audience` is missing: workloads ask their issuer for a token that is meant for this gateway")
    if made.kind == "workload" and not (made.claims or any(p.strip("*") for p in made.subjects)):
        raise wrong("`subjects` or `claims` must say which workloads: the issuer speaks for everybody's")
    if any(not pattern.strip("*") for pattern in made.subjects):
        raise wrong("`subjects` has a pattern that matches everybody")
    return made


def _value(key: str, value: object, wrong: Any) -> Any:
    if key == "kind":
        if value not in ("user", "workload"):
            raise wrong("`kind` is user or workload")
        return value
    if key == "skew_s":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SKEW_S:
            raise wrong(f"`skew_s` is a whole number from 0 to {MAX_SKEW_S}")
        return value
    if key == "claims":
        if not isinstance(value, Mapping):
            raise wrong("`claims` is a table")
        return tuple((str(name), _frozen(inner, wrong)) for name, inner in value.items())
    if key == "groups_claim":
        return (_line(value, key, wrong),) if isinstance(value, str) and value else _lines(value or (), key, wrong)
    if key in _LISTS:
        found = _lines(value, key, wrong)
        if key == "algorithms" and (not found or set(found) - set(ALGORITHMS)):
            raise wrong(f"`algorithms` is a choice of {', '.join(ALGORITHMS)}")
        return found
    return _line(value, key, wrong) if value != "" else ""


def _line(value: object, key: str, wrong: Any) -> str:
    if not isinstance(value, str) or not _LINE.fullmatch(value):
        raise wrong(f"`{key}` takes a text of one line")
    return value


def _lines(value: object, key: str, wrong: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > 256:
        raise wrong(f"`{key}` takes a list of texts")
    return tuple(_line(item, key, wrong) for item in value)


def _frozen(value: object, wrong: Any, depth: int = 0) -> Any:
    if isinstance(value, Mapping) and value and depth < 8:
        return tuple((str(name), _frozen(inner, wrong, depth + 1)) for name, inner in value.items())
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return frozenset(str(item) for item in value)
    if isinstance(value, (bool, int)) or (isinstance(value, str) and value):
        return value
    raise wrong("a value of `claims` is a text, a number, true or false, a list of texts, or a table of such")


def _thawed(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    return {name: _thawed(inner) for name, inner in value} if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class RoleMap:
    """The table `[roles]`: which groups have which role.

    Without an entry for `user`, everybody who is verified is one; with it, only its groups are.
    """

    groups: tuple[tuple[Role, tuple[str, ...]], ...] = field(default=())

    def of(self, principal: Principal) -> frozenset[Role]:
        """The roles of a principal by its groups; may be empty."""
        held = set(principal.groups)
        found: set[Role] = {role for role, groups in self.groups if held & set(groups)}
        if not any(role == "user" for role, _ in self.groups):
            found.add("user")
        return frozenset(found)

    def json(self) -> dict[str, list[str]]:
        """As the settings write it."""
        return {role: list(groups) for role, groups in self.groups}


def roles_from(raw: object) -> RoleMap:
    """The table `[roles]`. Raises ConfigError."""
    if isinstance(raw, RoleMap):
        return raw

    def wrong(why: str) -> ConfigError:
        return ConfigError("The settings table [roles] is wrong", why, f"it has the keys {', '.join(ROLES)}")

    if not isinstance(raw, Mapping):
        raise wrong("it is not a table")
    found: list[tuple[Role, tuple[str, ...]]] = []
    for role, groups in raw.items():
        if role not in ROLES:
            raise wrong(f"`{role}` is not a role")
        found.append((role, _lines(groups, str(role), wrong)))
    return RoleMap(tuple(found))


def same_principal(one: Principal, other: Principal) -> bool:
    """Whether two are the same identity: groups may have changed meanwhile."""
    return (one.name, one.kind, one.issuer) == (other.name, other.kind, other.issuer)


def role_names(roles: Sequence[Role] | frozenset[Role]) -> list[str]:
    """Roles in the order of their rank."""
    return [role for role in ROLES if role in roles]
