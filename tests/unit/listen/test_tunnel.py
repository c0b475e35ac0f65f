"""CONNECT: who asks, for what, and what is refused."""

from __future__ import annotations

import base64

import pytest

from narrows.core.errors import ProtocolError, Refusal
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.listen.tunnel import Tunnels, split_authority
from narrows.wire.http1 import RequestHead, RequestParser

LEASE = Lease(bytes(16), "*", Principal("alice"), Agent("a"), 2_000_000_000, "", "", "token")


class Directory:
    def __init__(self, connection: Connection | None = None, ended: str = "") -> None:
        self._connection = connection
        self._ended = ended

    def connection(self, name: str) -> Connection | None:
        return self._connection

    def by_host(self, host: str) -> Connection | None:
        return self._connection if host == "s3.amazonaws.com" else None

    def session_ended(self, session: bytes) -> str:
        return self._ended


class Tokens:
    def check_proxy_token(self, token: bytes, now_s: int) -> Lease:
        if token != b"token":
            raise Refusal("no", code="lease_invalid", status=407)
        return LEASE


def connect(authority: bytes = b"s3.amazonaws.com:443", *lines: bytes) -> RequestHead:
    parser = RequestParser()
    parser.feed(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority) + b"".join(lines) + b"\r\n")
    head = parser.next()
    assert isinstance(head, RequestHead)
    return head


def basic(value: bytes) -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(value) + b"\r\n"


def tunnels(connection: Connection | None = None, ended: str = "") -> Tunnels:
    known = connection or Connection("aws", hosts=("s3.amazonaws.com",))
    return Tunnels(None, Directory(known, ended), Tokens())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [basic(b"narrows:token"), basic(b":token"), basic(b"x:token").replace(b"Basic", b"bAsIc")],
)
def test_the_token_is_the_password(line: bytes) -> None:
    assert tunnels().who(connect(b"s3.amazonaws.com:443", line), 0) is LEASE


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "proxy_token_missing"),
        (b"Proxy-Authorization: Bearer token\r\n", "proxy_token_malformed"),
        (b"Proxy-Authorization: Basic !!!\r\n", "proxy_token_malformed"),
        (b"Proxy-Authorization: Basic\r\n", "lease_invalid"),
        (basic(b"token"), "lease_invalid"),
        (basic(b"narrows:token:more"), "lease_invalid"),
        (basic(b"narrows:token") * 2, "proxy_token_malformed"),
    ],
)
def test_other_credentials_are_asked_for_again(line: bytes, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        tunnels().who(connect(b"s3.amazonaws.com:443", line), 0)
    assert (caught.value.code, caught.value.status) == (code, 407)
    assert "token:more" not in str(caught.value)


def test_a_named_host_is_entered() -> None:
    tunnel = tunnels().check(connect(b"S3.amazonaws.com:443"), LEASE)
    assert (tunnel.host, tunnel.port, tunnel.lease) == ("s3.amazonaws.com", 443, LEASE)


def test_an_unknown_host_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refusal, match="narrows connection add http NAME --host evil") as caught:
        tunnels().check(connect(b"evil.example:443"), LEASE)
    assert caught.value.code == "host_unknown"


def test_an_ended_session_is_refused() -> None:
    with pytest.raises(Refusal, match="killed") as caught:
        tunnels(ended="killed").check(connect(), LEASE)
    assert caught.value.status == 407


def test_other_ports_need_an_endpoint() -> None:
    with pytest.raises(Refusal) as caught:
        tunnels().check(connect(b"s3.amazonaws.com:8443"), LEASE)
    assert caught.value.code == "port_not_allowed"
    own = Connection("aws", endpoint="http://10.0.0.1:9000", hosts=("s3.amazonaws.com",))
    assert tunnels(own).check(connect(b"s3.amazonaws.com:8443"), LEASE).port == 8443


@pytest.mark.parametrize(
    ("target", "found"),
    [(b"Host.Example:443", ("host.example", 443)), (b"[::1]:8", ("::1", 8)), (b"1.2.3.4:65535", ("1.2.3.4", 65535))],
)
def test_authorities(target: bytes, found: tuple[str, int]) -> None:
    assert split_authority(target) == found


@pytest.mark.parametrize("target", [b"host", b"host:", b":443", b"host:0", b"host:65536", b"host:4x3", b"host:000443"])
def test_what_is_no_authority(target: bytes) -> None:
    with pytest.raises(ProtocolError):
        split_authority(target)
