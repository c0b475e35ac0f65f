"""The forward-proxy form: CONNECT is checked, then the client speaks TLS with us in the target's name.

Only hosts that a connection names can be entered. What is sent inside is verified again by its own lease; the
proxy token says whose session asks for the host, so that a refusal too has a name on the record.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import Protocol

from narrows.core.errors import ProtocolError, Refusal
from narrows.core.ports import Directory
from narrows.core.values import Lease
from narrows.listen.ca import CertificateAuthority
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.wire.http1 import RequestHead

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HTTPS_PORT = 443
HANDSHAKE_SECONDS = 15.0


class ProxyTokens(Protocol):
    """The part of identity that the proxy needs."""

    def check_proxy_token(self, token: bytes, now_s: int) -> Lease:
        """Whose token it is. Raises Refusal with status 407."""
        ...


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An accepted CONNECT."""

    host: str
    port: int
    lease: Lease


class Tunnels:
    """Decides CONNECT requests and turns a client's connection into TLS."""

    def __init__(self, authority: CertificateAuthority, directory: Directory, tokens: ProxyTokens) -> None:
        self._authority = authority
        self._directory = directory
        self._tokens = tokens

    def who(self, head: RequestHead, now_s: int) -> Lease:
        """The session behind a Proxy-Authorization header (Basic, RFC 7617). Raises Refusal 407."""
        value = head.get(b"proxy-authorization")
        if value is None:
            raise Refusal(
                "The proxy needs a token",
                "the request has no Proxy-Authorization header",
                "run the command through `narrows run`, or put the session's proxy URL into HTTPS_PROXY",
                code="proxy_token_missing",
                status=407,
            )
        scheme, _, encoded = value.partition(b" ")
        try:
            if scheme.lower() != b"basic":
                raise ValueError("not Basic")
            password = base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
        except (ValueError, binascii.Error) as error:
            raise Refusal(
                "The proxy token could not be read",
                "Proxy-Authorization is not Basic user:password",
                "put the session's proxy URL into HTTPS_PROXY as it is",
                code="proxy_token_malformed",
                status=407,
            ) from error
        return self._tokens.check_proxy_token(password, now_s)

    def check(self, head: RequestHead, lease: Lease) -> Tunnel:
        """May `lease`'s session enter the host that this CONNECT names? Raises Refusal, ProtocolError."""
        host, port = split_authority(head.target)
        ended = self._directory.session_ended(lease.session)
        if ended:
            raise Refusal(
                f"The session is {ended}", "its tokens stopped working with it", "start a new one with `narrows run`",
                code="session_ended", status=407,
            )  # fmt: skip
        connection = self._directory.by_host(host)
        if connection is None:
            raise Refusal(
                f"No connection names {host}",
                "the gateway passes only hosts that a connection names",
                f"add one: `narrows connection add http NAME --host {host}`, or give an AWS connection that host",
                code="host_unknown",
            )
        if port != HTTPS_PORT and not connection.endpoint:
            raise Refusal(
                f"Port {port} of {host} is not passed",
                "a connection without an endpoint of its own is reached at port 443",
                "register the connection with its endpoint and port",
                code="port_not_allowed",
            )
        return Tunnel(host, port, lease)

    async def enter(self, client: ClientConnection, tunnel: Tunnel, loop: asyncio.AbstractEventLoop) -> None:
        """Answer 200, then serve TLS as `tunnel.host`.

        Raises ClientGone when the handshake fails, ProtocolError for bytes sent ahead of the 200, and Refusal for a
        host that no certificate can name.
        """
        if client.buffered:
            raise ProtocolError("Bytes followed CONNECT before it was answered", "a TLS client waits for the 200")
        context = self._authority.context_for(tunnel.host)
        client.write(ESTABLISHED)
        try:
            transport = await loop.start_tls(
                client.transport, client, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise ClientGone() from error
        if transport is None:
            raise ClientGone()
        client.upgraded(transport)
        client.tunnel = tunnel.host
        client.tunnel_port = tunnel.port
        client.tunnel_lease = tunnel.lease


def split_authority(target: bytes) -> tuple[str, int]:
    """Host (lower case, no brackets) and port of a CONNECT target. Raises ProtocolError."""
    text = target.decode("ascii").lower()
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise ProtocolError("The CONNECT target is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)
