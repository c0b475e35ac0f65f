"""What the management API needs from the rest of the program: ports, bound together when it is wired.

Every callable that may block (index, log, raw bytes, lease issue) is called in FastAPI's thread pool;
`record` and `test_connection` are awaited on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from narrows.core.issuers import Issuer
from narrows.core.ports import Clock
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.manage.control import ControlStore
from narrows.manage.tokens import TokenStore
from narrows.record.index.rows import ExchangeRow, Page, SessionRow


class Verified(Protocol):
    """What a verified token says; see `narrows.identity.oidc.Verified`."""

    @property
    def principal(self) -> Principal:
        """Who it is about."""
        ...

    @property
    def subject(self) -> str:
        """The issuer's own name for it."""
        ...

    @property
    def token_id(self) -> str:
        """The token's id, if it has one."""
        ...


class IdentityVerifier(Protocol):
    """Verifies a token of a configured issuer; blocking. Raises Refusal, UpstreamError."""

    def __call__(self, token: str, nonce: str | None = None) -> tuple[Verified, Issuer]:
        """Who the token is about, and the issuer's table."""
        ...


class Index(Protocol):
    """What can be asked of the index; see `narrows.record.index.sqlite.SqliteIndex`.

    With `owner`, only what belongs to that principal's sessions is there.
    """

    def sessions(
        self, query: str = "", limit: int = 50, cursor: str = "", *, now_ns: int, owner: Principal | None = None
    ) -> Page[SessionRow]:
        """Sessions that match, the newest first."""
        ...

    def exchanges(
        self,
        query: str = "",
        session: str = "",
        limit: int = 50,
        cursor: str = "",
        order: str = "desc",
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        """Exchanges that match, by the time they started."""
        ...

    def exchanges_after(
        self,
        leaf_index: int,
        query: str = "",
        session: str = "",
        limit: int = 50,
        *,
        now_ns: int,
        owner: Principal | None = None,
    ) -> Page[ExchangeRow]:
        """Exchanges sealed after a leaf, in the order of the log: what a follower asks for."""
        ...

    def exchange(self, id_or_prefix: str, *, owner: Principal | None = None) -> ExchangeRow:
        """One exchange."""
        ...

    def stories(
        self, session: str, cursor: str = "", limit: int = 500, *, owner: Principal | None = None
    ) -> Page[ExchangeRow]:
        """A session's exchanges with their items, in the order in which they started."""
        ...

    def session(self, id_or_prefix: str, *, owner: Principal | None = None) -> SessionRow:
        """One session."""
        ...

    def cursor(self) -> int:
        """The last leaf that is indexed, -1 before any."""
        ...


class LeaseIssuer(Protocol):
    """Makes what a session shows at the gateway; see `narrows.identity.lease`. Raises NarrowsError."""

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
        """A lease for one connection, valid to `expires` (Unix seconds)."""
        ...

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
        """A lease for one `llm` connection: its `session_token` is the API key."""
        ...

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
        """The session's own token: the password of its proxy URL; `connections` are those of the session."""
        ...


class LogReader(Protocol):
    """The published log."""

    def checkpoint(self) -> str:
        """The newest signed checkpoint, as published. Raises NotFound before the first."""
        ...

    def status(self) -> dict[str, Any]:
        """`size` (leaves), `time` (ns since the epoch of the last checkpoint), `lag` (frames not yet
        sealed)."""
        ...


class Record(Protocol):
    """Appends one control frame and returns when it is on stable storage. Raises RecorderFailed."""

    def __call__(self, kind: int, session: bytes, meta: dict[str, Any]) -> Awaitable[None]:
        """Record `meta` in a frame of `kind` (`record.log.frame.Kind`)."""
        ...


RawReader = Callable[[Any, str], Iterator[bytes]]
"""(location, `request`|`response`|`sent`) -> the exact recorded bytes, piece by piece. Raises
NarrowsError."""

RowChecker = Callable[[ExchangeRow], "list[dict[str, str]]"]
"""Compares a row of the index with the recording: a list of what differs, each `field`, `index`, `recording`."""


def _unchecked(row: ExchangeRow) -> list[dict[str, str]]:
    return []


ConnectionTester = Callable[[Connection], Awaitable[dict[str, Any]]]
"""Tries a connection with its own credential; returns what it found. Raises CredentialError or
UpstreamError."""


@dataclass(slots=True)
class Deps:
    """Everything that `create_app` needs.

    `verify_token` answers the local owner's token with its principal, or None; it must compare in constant time. All
    other bearer tokens are those of `tokens`, which `verify_identity` lets in; without them, only the owner comes in.
    `gateway_url` is `http://HOST:PORT` of the gateway port. `hosts` and `origins` are further names by which
    this API may be reached (`console.example.net`, `https://console.example.net`). `ready` gives a reason
    why the gateway is not ready, or an empty string. `random` gives that many unpredictable bytes.
    """

    store: ControlStore
    index: Index
    log: LogReader
    issuer: LeaseIssuer
    record: Record
    iter_raw: RawReader
    clock: Clock
    verify_token: Callable[[str], Principal | None]
    gateway_url: str
    ca_pem: str
    test_connection: ConnectionTester
    random: Callable[[int], bytes]
    ready: Callable[[], str] = lambda: ""
    check_row: RowChecker = _unchecked
    hosts: frozenset[str] = field(default_factory=frozenset)
    origins: frozenset[str] = field(default_factory=frozenset)
    session_ttl_s: int = 12 * 3600
    tokens: TokenStore | None = None
    verify_identity: IdentityVerifier | None = None
    issuers: tuple[Issuer, ...] = ()
    token_ttl_s: int = 900
    login_ttl_s: int = 12 * 3600
