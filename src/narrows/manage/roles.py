"""Who may do what: one table of role and endpoint, which the guard holds every request against.

A route without a row here is answered to nobody. What `PUBLIC` rows give away is what anybody may know.

Roles add up. `owner` and `admin` may do everything, but keys with the role `owner` are made by nobody. An `auditor`
reads all recordings and changes nothing. An `approver` decides what waits for approval. A `user` opens sessions, and
sees and ends those of its own; other people's ids are answered as ids that are not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from starlette.routing import compile_path

from narrows.core.issuers import Role, role_names
from narrows.core.values import Principal

EVERYBODY: frozenset[Role] = frozenset({"owner", "admin", "auditor", "approver", "user"})
ADMINS: frozenset[Role] = frozenset({"owner", "admin"})
WORKERS: frozenset[Role] = frozenset({"owner", "admin", "user"})
PUBLIC: frozenset[Role] = frozenset()
"""No token is asked for."""

SEES_ALL: frozenset[Role] = frozenset({"owner", "admin", "auditor"})
"""Roles that see the sessions of all; the others see their own."""

API = "/api/v1"

TABLE: dict[tuple[str, str], frozenset[Role]] = {
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", f"{API}/signin"): PUBLIC,
    ("POST", f"{API}/token"): PUBLIC,
    ("POST", f"{API}/token/revoke"): PUBLIC,
    ("GET", f"{API}/openapi.json"): EVERYBODY,
    ("GET", f"{API}/identity"): EVERYBODY,
    ("GET", f"{API}/sessions"): EVERYBODY,
    ("POST", f"{API}/sessions"): WORKERS,
    ("GET", f"{API}/sessions/{{session}}"): EVERYBODY,
    ("GET", f"{API}/sessions/{{session}}/timeline"): EVERYBODY,
    ("POST", f"{API}/sessions/{{session}}/close"): WORKERS,
    ("POST", f"{API}/sessions/{{session}}/kill"): WORKERS,
    ("POST", f"{API}/leases"): WORKERS,
    ("GET", f"{API}/exchanges"): EVERYBODY,
    ("GET", f"{API}/exchanges/{{exchange}}"): EVERYBODY,
    ("GET", f"{API}/exchanges/{{exchange}}/check"): EVERYBODY,
    ("GET", f"{API}/exchanges/{{exchange}}/raw"): EVERYBODY,
    ("GET", f"{API}/exchanges/{{exchange}}/why"): EVERYBODY,
    ("GET", f"{API}/connections"): EVERYBODY,
    ("POST", f"{API}/connections"): ADMINS,
    ("GET", f"{API}/connections/{{name}}"): EVERYBODY,
    ("PUT", f"{API}/connections/{{name}}"): ADMINS,
    ("DELETE", f"{API}/connections/{{name}}"): ADMINS,
    ("POST", f"{API}/connections/{{name}}/test"): ADMINS,
    ("GET", f"{API}/keys"): ADMINS,
    ("POST", f"{API}/keys"): ADMINS,
    ("DELETE", f"{API}/keys/{{key}}"): ADMINS,
    ("GET", f"{API}/log/checkpoint"): EVERYBODY,
    ("GET", f"{API}/log/status"): EVERYBODY,
}
"""(method, path) -> who may."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller proved: who it is, its roles, and the bounds of the token it came with.

    `connections` None: any that its groups allow. `expires` is in Unix seconds, None for the local owner, whose token
    ends with the gateway. `token` is the id of the token or key, for the record; never the token.
    """

    principal: Principal
    roles: frozenset[Role]
    expires: int | None = None
    connections: tuple[str, ...] | None = None
    token: str = ""

    @property
    def scope(self) -> Principal | None:
        """Whose sessions it may see: its own, or None for everybody's."""
        return None if self.roles & SEES_ALL else self.principal

    @property
    def manages(self) -> bool:
        """Whether it may end the sessions of others."""
        return bool(self.roles & ADMINS)

    def described(self) -> str:
        """Its roles, for a text."""
        return ", ".join(role_names(self.roles)) or "no role"


class Verdict(Enum):
    """What the table says of a request."""

    PUBLIC = "public"
    ALLOWED = "allowed"
    DENIED = "denied"
    NO_ROUTE = "no route"
    NO_METHOD = "no method"


_ROWS: list[tuple[str, str, re.Pattern[str], frozenset[Role]]] = [
    (method, path, compile_path(path)[0], roles) for (method, path), roles in TABLE.items()
]


def public(method: str, path: str) -> bool:
    """Whether a request needs no token."""
    return any(m == method and pattern.match(path) for m, _, pattern, roles in _ROWS if not roles)


def judge(method: str, path: str, roles: frozenset[Role]) -> Verdict:
    """What the table says of a request by someone with these roles."""
    matching = [(m, allowed) for m, _, pattern, allowed in _ROWS if pattern.match(path)]
    for row_method, allowed in matching:
        if row_method == method:
            if not allowed:
                return Verdict.PUBLIC
            return Verdict.ALLOWED if allowed & roles else Verdict.DENIED
    return Verdict.NO_METHOD if matching else Verdict.NO_ROUTE
