"""Connections of kind `http` in the path: no credential is injected and nothing is decoded; all is on record.

The caller is whoever opened the tunnel with a session's proxy token. Only the forward-proxy form exists, since the
host is what chooses the connection.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import urlsplit

from narrows.core.errors import Refusal
from narrows.core.values import Connection
from narrows.session.call import Call, Outbound, PassBody
from narrows.wire import scrub
from narrows.wire.http1 import LENGTH, NO_BODY

_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
        b"http2-settings",
        b"transfer-encoding",
        b"content-length",
        b"expect",
    }
)
"""Fields of one hop (RFC 9110 section 7.6.1), and those that are written anew."""


class Connections(Protocol):
    """The part of the directory that this handler needs."""

    def by_host(self, host: str) -> Connection | None:
        """The connection that claims a host name."""
        ...

    def session_ended(self, session: bytes) -> str:
        """Why a session's tokens no longer work, or an empty string."""
        ...


class HttpHandler:
    """Implements `narrows.session.call.Handler` for connections of kind `http`."""

    kind = "http.request"
    needs_credentials = False
    answers = False
    upgrades = False

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def claims(self, call: Call) -> bool:
        """True for what is asked inside a tunnel to a host of an `http` connection."""
        if call.form != "proxy" or call.proxy_lease is None:
            return False
        connection = self._connections.by_host(call.true_host)
        if connection is None or connection.kind != "http":
            return False
        call.kind = self.kind
        call.connection = connection
        return True

    def identify(self, call: Call) -> None:
        """The session is the tunnel's. Raises Refusal when it has ended, or names another host inside."""
        lease, head = call.proxy_lease, call.head
        assert lease is not None
        call.lease = lease
        call.session = lease.session
        ended = self._connections.session_ended(lease.session)
        if ended:
            raise Refusal(
                f"The session is {ended}", "its tokens stopped working with it", "start a new one with `narrows run`",
                code="session_ended",
            )  # fmt: skip
        if call.now_s >= lease.expires:
            raise Refusal(
                "The session's proxy token was refused",
                f"it expired {call.now_s - lease.expires:.0f} s ago",
                "start a new session with `narrows run`",
                code="lease_expired",
            )
        host = (head.get(b"host") or b"").decode("latin-1").lower()
        if host not in (call.true_host, f"{call.true_host}:{call.true_port}"):
            raise Refusal(
                "The Host header is not the host of the tunnel",
                f"CONNECT named {call.true_host}",
                code="misdirected",
                status=421,
            )

    def needs_body(self, call: Call) -> bool:
        """Never: nothing is verified over the body."""
        return False

    def decode(self, call: Call) -> None:
        """Nothing is known of what such a call means; the record has its bytes."""

    def outbound(self, call: Call, credentials: Any, amz_date: str) -> Outbound:
        """The client's own head, less the fields of this hop."""
        head, connection = call.head, call.connection
        assert connection is not None
        named = {part.strip().lower() for part in (head.get(b"connection") or b"").split(b",")}
        lines, shown = [], []
        for (name, _value), line in zip(head.headers, head.lines, strict=True):
            if name in _HOP or name in named:
                continue
            lines.append(line)
            shown.append(scrub.line(line) if name in scrub.HEADERS else line)
        chunked = head.framing not in (NO_BODY, LENGTH)
        if head.framing == LENGTH:
            framing = b"Content-Length: %d" % head.length
        else:
            framing = b"Transfer-Encoding: chunked" if chunked else b""
        if framing:
            lines.append(framing)
            shown.append(framing)
        start = head.method + b" " + head.target + b" HTTP/1.1"
        scheme, host, port = "https", call.true_host, call.true_port or 443
        if connection.endpoint:
            parts = urlsplit(connection.endpoint)
            scheme, host = parts.scheme, parts.hostname or ""
            port = parts.port or (443 if scheme == "https" else 80)
        return Outbound(
            scheme,
            host,
            port,
            b"\r\n".join([start, *lines, b"", b""]),
            b"\r\n".join([scrub.target(start), *shown, b"", b""]),
            chunked,
            PassBody(),
        )

    def secrets(self, out: Outbound) -> tuple[bytes, ...]:
        """None of ours went up."""
        return ()

    def elsewhere(self, call: Call, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Redirects are the client's to follow."""
        return False

    def refusal(self, call: Call, refusal: Refusal, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """A line of text."""
        body = f"Narrows: {refusal} [{refusal.code}]\n".encode()
        headers = [
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"X-Narrows-Exchange", request_id.encode("ascii")),
            (b"Content-Length", b"%d" % len(body)),
        ]
        return refusal.status, headers, b"" if call.head.method == b"HEAD" else body
