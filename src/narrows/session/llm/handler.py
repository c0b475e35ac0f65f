"""Model APIs in the path: whose call it is, what it asks for, where it goes with which key, and how a refusal reads.

Two ways in: the endpoint form (`/llm/NAME/...` at the gateway's own address) and the proxy form (a tunnel to a host of
an `llm` connection). In both the client's key is a lease of the gateway. Bodies go on byte for byte, always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

from narrows.core.errors import Refusal
from narrows.core.providers import ENDPOINT_PREFIX, PROVIDERS, upstream_path
from narrows.core.values import ApiKey, Connection, Finding, Lease
from narrows.session.call import Call, Outbound, PassBody
from narrows.session.http import codings
from narrows.session.llm import outbound
from narrows.session.llm import refusal as refusals
from narrows.session.llm.route import RESPONSES, Route, route
from narrows.wire import sigv2, sigv4
from narrows.wire.http1 import NO_BODY

Scan = Callable[[bytes], list[Finding]]
"""Finds credentials in a body; what it finds never holds the value."""

MAX_SCANNED = 16 * 1024 * 1024
"""Longest body that is looked through for secrets once its content coding is undone, bytes."""

_PREFIX = ENDPOINT_PREFIX.encode("ascii")
_NAME = re.compile(rb"/llm/([a-z0-9][a-z0-9-]{0,62})(?=[/?]|$)")
_DOTS = re.compile(rb"(?i)(?:/|%(?:25)*(?:2f|5c))(?:\.|%(?:25)*2e){1,2}(?:/|%(?:25)*(?:2f|5c|3b)|;|$)")
"""Dot segments in every spelling that some server undoes: escaped, escaped again, behind an escaped slash, with `;`."""


_ESCAPE = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|([^u]))", re.DOTALL)
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
"""Escapes of JSON (RFC 8259 section 7); behind any other letter's backslash, the letter."""
_NESTED = 3
"""How deep a JSON text within a JSON text is looked into."""


class Keys(Protocol):
    """The part of identity that this handler needs."""

    def check_api_key(self, key: bytes, now_s: int) -> Lease:
        """The lease that an API key is. Raises Refusal."""
        ...


class Connections(Protocol):
    """The part of the directory that this handler needs."""

    def connection(self, name: str) -> Connection | None:
        """The registered connection."""
        ...

    def by_host(self, host: str) -> Connection | None:
        """The connection that claims a host name."""
        ...

    def session_ended(self, session: bytes) -> str:
        """Why a session's leases no longer work, or an empty string."""
        ...


class Asked:
    """What is known of a call before its caller is: `name` (endpoint form) and `path` (the provider's own, with query).

    `provider` is the connection's, as far as it is known, and decides the form of refusals.
    """

    __slots__ = ("name", "path", "provider", "route")

    def __init__(self, name: str, path: bytes, provider: str, found: Route) -> None:
        self.name = name
        self.path = path
        self.provider = provider
        self.route = found


class LlmHandler:
    """Implements `narrows.session.call.Handler` for connections of kind `llm`.

    `scan` looks through the bodies of connections that block secrets; without one, those connections refuse what has a
    body.
    """

    kind = "llm.message"
    needs_credentials = True
    answers = False
    upgrades = True

    def __init__(self, keys: Keys, connections: Connections, *, scan: Scan | None = None) -> None:
        self._keys = keys
        self._connections = connections
        self._scan = scan

    # -- who --------------------------------------------------------------------------------------------------

    def claims(self, call: Call) -> bool:
        """True for the endpoint form's paths, and inside a tunnel to a host of an `llm` connection; never for what is
        signed the AWS way: `llm` is a bucket's name too."""
        head = call.head
        name, path = "", head.target
        if call.form == "proxy":
            connection = self._connections.by_host(call.true_host)
            if connection is None or connection.kind != "llm":
                return False
        else:
            if head.target[: len(_PREFIX)] != _PREFIX:
                return False
            match = _NAME.match(head.target)
            name = match[1].decode("ascii") if match is not None else ""
            path = head.target[match.end() :] if match is not None else head.target
            path = path if path[:1] == b"/" else b"/" + path
            connection = self._connections.connection(name) if name else None
        if _signed(call):
            return False
        call.kind = self.kind
        provider = connection.provider if connection is not None and connection.kind == "llm" else ""
        call.auth = Asked(name, path, provider, route(head.method, path))
        return True

    def identify(self, call: Call) -> None:
        """Find the lease in any of its places, and check that it still works and may be used here. Raises Refusal."""
        asked: Asked = call.auth
        lease = call.lease = self._lease(call)
        call.session = lease.session
        ended = self._connections.session_ended(lease.session)
        if ended:
            raise Refusal(
                f"The session is {ended}", "its leases stopped working with it", "start a new one with `narrows run`",
                code="session_ended", status=401,
            )  # fmt: skip
        if call.form == "proxy":
            self._check_tunnel(call, lease)
        elif lease.connection != asked.name:
            raise Refusal(
                "The lease was refused",
                f"it is for connection {lease.connection}, the path names {asked.name or 'none'}",
                "use the base URL that came with the key, or a lease of that connection",
                code="lease_other_connection",
            )
        connection = self._connections.connection(lease.connection)
        if connection is None or connection.kind != "llm":
            raise Refusal(
                f"There is no llm connection named {lease.connection}",
                "it was removed, or its kind changed, after the lease was issued",
                "see `narrows connection list`",
                code="connection_gone",
            )
        call.connection = connection
        asked.provider = connection.provider
        if call.form == "proxy" and not _host_matches(call.true_host, connection.hosts):
            raise Refusal(
                f"The lease is not for {call.true_host}",
                f"connection {connection.name} does not name that host",
                "add it with `narrows connection add ... --host`, or use a lease of the connection that has it",
                code="host_not_in_connection",
            )
        if call.head.upgrade:
            _check_upgrade(call, connection)

    def _lease(self, call: Call) -> Lease:
        keys = outbound.keys(call.head)
        if not keys:
            why = "it has no x-api-key, no Authorization: Bearer, no x-goog-api-key and no key in its query"
            if call.proxy_lease is not None:
                why += "; the tunnel's password says whose session it is, and is no key"
            raise Refusal(
                "The request carries no API key",
                why,
                "run the command through `narrows run`, which gives it one, or `narrows lease`",
                code="no_credentials",
                status=401,
            )
        now_s = int(call.now_s)
        lease = self._keys.check_api_key(keys[0], now_s)
        for other in keys[1:]:
            if other != keys[0] and self._keys.check_api_key(other, now_s) != lease:
                raise Refusal(
                    "The lease was refused", "the request carries two different keys", "send one of them",
                    code="lease_invalid", status=401,
                )  # fmt: skip
        return lease

    def _check_tunnel(self, call: Call, lease: Lease) -> None:
        """Lease and tunnel are one session's, and Host is the tunnel's host. Raises Refusal."""
        if call.proxy_lease is not None and call.proxy_lease.session != lease.session:
            raise Refusal(
                "The lease was refused",
                "it belongs to another session than the tunnel that it came through",
                "use proxy and lease of one session: `narrows run` sets both",
                code="lease_other_session",
            )
        host = (call.head.get(b"host") or b"").decode("latin-1").lower()
        if host not in (call.true_host, f"{call.true_host}:{call.true_port}"):
            raise Refusal(
                "The Host header is not the host of the tunnel",
                f"CONNECT named {call.true_host}",
                code="misdirected",
                status=421,
            )

    # -- what -------------------------------------------------------------------------------------------------

    def needs_body(self, call: Call) -> bool:
        """True where the connection blocks secrets: nothing may pass before all of it was looked through."""
        return call.connection is not None and call.connection.on_secret == "block" and call.head.framing != NO_BODY  # noqa: S105

    def decode(self, call: Call) -> None:
        """Name what is asked for; refuse what holds a secret where the connection says so."""
        asked: Asked = call.auth
        if _DOTS.search(asked.path.partition(b"?")[0]) is not None:
            raise Refusal(
                "The path has dot segments", "they could lead out of the connection's own path",
                "send the path in its plain form", code="path_not_plain", status=400,
            )  # fmt: skip
        call.meaning = asked
        facts = call.facts
        facts["service"] = asked.provider
        facts["operation"] = asked.route.operation
        facts["protocol"] = asked.route.protocol
        if self.needs_body(call):
            self._look_for_secrets(call)

    def _look_for_secrets(self, call: Call) -> None:
        connection = call.connection
        assert connection is not None
        if call.body is None:
            raise Refusal(
                "The body is too long to be looked through",
                f"connection {connection.name} blocks secrets, and a body that cannot be held may hide one",
                "start a new conversation, or let the connection record secrets instead",
                code="body_too_long",
                status=413,
            )
        coding = (call.head.get(b"content-encoding") or b"").decode("latin-1")
        body, whole, problem = codings.decode(coding, call.body, MAX_SCANNED)
        if self._scan is None or problem or not whole:
            raise Refusal(
                "The body could not be looked through",
                f"connection {connection.name} blocks secrets; "
                + (problem or ("it unpacks to too much" if not whole else "this gateway has no detector")),
                "send it without Content-Encoding",
                code="secret_unchecked",
                status=400,
            )
        found = next((found for text in _readings(body) if (found := self._scan(text))), None)
        if found:
            kinds = ", ".join(dict.fromkeys(finding.kind for finding in found))
            raise Refusal(
                "The request holds a secret",
                f"found: {kinds}; connection {connection.name} does not let these pass",
                "take it out of the conversation: undo the last step, or start a new one",
                code="secret_found",
                status=400,
            )

    # -- where ------------------------------------------------------------------------------------------------

    def outbound(self, call: Call, credentials: ApiKey, amz_date: str) -> Outbound:
        """Where the call goes, and the head that goes there, with the real key in it."""
        asked: Asked = call.auth
        connection = call.connection
        assert connection is not None
        provider = PROVIDERS[connection.provider]
        scheme, host, port, prefix = _endpoint(connection.endpoint or f"https://{provider.host}")
        if call.form == "proxy":
            if not connection.endpoint:
                host, port = call.true_host, call.true_port or 443
            elif call.true_host == host:
                prefix = ""  # the client named the host itself, and its path is that host's
        target = outbound.without_key(asked.path)
        if prefix:
            target = upstream_path(prefix, provider, target)
        named = f"[{host}]" if ":" in host else host
        if port != (443 if scheme == "https" else 80):
            named += f":{port}"
        head, recorded = outbound.build(
            call.head, target, named.encode("ascii"), provider, credentials.key.encode("ascii")
        )
        chunked = call.head.framing != NO_BODY and call.head.length < 0
        return Outbound(scheme, host, port, head, recorded, chunked, PassBody(), credentials)

    def secrets(self, out: Outbound) -> tuple[bytes, ...]:
        """The key, in the spellings in which an answer could repeat it."""
        key: ApiKey = out.credentials
        spelt = _spelt.get(key)
        if spelt is None:
            spelt = _spelt[key] = _spellings(key.key)
        return spelt

    def elsewhere(self, call: Call, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Redirects are the client's to follow."""
        return False

    # -- no ---------------------------------------------------------------------------------------------------

    def refusal(self, call: Call, refusal: Refusal, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The refusal as the error that the caller's SDK turns into its own exception."""
        asked: Asked | None = call.auth
        form = refusals.form_of(asked.route.protocol, asked.provider) if asked is not None else "openai"
        return refusals.render(form, refusal, request_id, head=call.head.method == b"HEAD")


_spelt: WeakKeyDictionary[ApiKey, tuple[bytes, ...]] = WeakKeyDictionary()
"""Spellings by key, which stay the same from call to call; they go when the key goes."""


def _spellings(key: str) -> tuple[bytes, ...]:
    """A key as it is, as in a URL and as JSON escapes it, longest first."""
    spellings = {key, quote(key, safe=""), key.replace("/", "\\/"), key.replace("\\", "\\\\").replace('"', '\\"')}
    return tuple(sorted((one.encode("ascii") for one in spellings), key=len, reverse=True))


def _check_upgrade(call: Call, connection: Connection) -> None:
    """Only the Responses API has a WebSocket form, and none passes where each body must be read before it may."""
    blocks = connection.on_secret != "record"  # noqa: S105 - not a secret
    if call.head.upgrade.lower() == b"websocket" and (blocks or call.auth.route.protocol != RESPONSES):
        raise Refusal(
            "A WebSocket is not passed here",
            f"connection {connection.name} blocks secrets, and what follows could not be looked through in time"
            if blocks
            else "only the Responses API is known to have one",
            "use the API's HTTP form",
            code="upgrade_refused",
            status=501,
        )


def _signed(call: Call) -> bool:
    head = call.head
    try:
        if sigv4.parse(head.method, head.target, head.headers, head.shape) is not None:
            return True
        return sigv2.parse(head.method, head.target, head.headers) is not None
    except sigv4.AuthError:
        return True  # signed badly: for the handler of AWS to refuse


def _readings(body: bytes) -> Iterator[bytes]:
    """The body as it stands, and as readers of it come to read it: without the zeros of UTF-16 and UTF-32, and with the
    escapes of JSON undone, also of JSON within JSON within JSON.

    Escapes are undone wherever they stand: a body need not be JSON to the letter for its reader to understand it, and a
    file that is sent along has lines of JSON, or parts.
    """
    yield body
    if b"\0" in body:
        body = body.replace(b"\0", b"")
        yield body
    for _ in range(_NESTED):
        if b"\\" not in body:
            return
        body = _ESCAPE.sub(_unescaped, body)
        yield body


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code is None:
        return _SHORT.get(match[2], match[2])
    return chr(int(code, 16)).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1024)
def _endpoint(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and base path of a connection's endpoint."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def _host_matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(host == p or (p.startswith("*.") and host.endswith(p[1:])) for p in patterns)
