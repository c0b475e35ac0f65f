"""The dial guard: which addresses the gateway may connect to, decided on the very address that is dialled.

An agent can make the gateway connect somewhere (it names hosts, and hostile text can steer it), so this is
where server-side request forgery ends. Guarantees:

- A name is resolved once. The addresses returned are checked and are what the caller dials: no second
  look-up, so an answer that changes between check and use (DNS rebinding) changes nothing.
- Loopback, link-local, private, shared (CGNAT) and other special-purpose addresses are refused unless the
  connection has `allow_private`; so are their forms inside IPv6 (mapped, compatible, 6to4, NAT64, Teredo,
  ISATAP).
- Metadata addresses of clouds are refused unless the connection has `allow_private` and its endpoint names
  that very address.
- The unspecified address, multicast and broadcast are never dialled, nor are our own ports on any address of
  this machine: a request must not come back to the gateway.

Not found here: a way back to the gateway through someone else's address (a load balancer, NAT).

Ranges: the IANA IPv4 and IPv6 special-purpose address registries (RFC 6890 and later additions).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple
from urllib.parse import urlsplit

from narrows.core.errors import Refusal, UpstreamError
from narrows.core.values import Connection

_IP = IPv4Address | IPv6Address
_Net = IPv4Network | IPv6Network

METADATA: frozenset[_IP] = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google, OpenStack, others
            "fd00:ec2::254",  # AWS over IPv6
            "169.254.170.2",  # Amazon ECS task credentials
            "169.254.170.23",  # Amazon EKS pod identity
            "fd00:ec2::23",
            "fd20:ce::254",  # Google over IPv6
            "168.63.129.16",  # Azure wire server: a public address
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "169.254.42.42",  # Scaleway
            "fd00:42::42",
        ),
    )
)

_NEVER: tuple[tuple[_Net, str], ...] = tuple(
    (ipaddress.ip_network(net), why)
    for net, why in (
        ("0.0.0.0/8", "unspecified"),  # RFC 1122: "this network"; Linux connects 0.0.0.0 to loopback
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("::/128", "unspecified"),
        ("ff00::/8", "multicast"),
    )
)

_PRIVATE: tuple[tuple[_Net, str], ...] = tuple(
    (ipaddress.ip_network(net), why)
    for net, why in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("fc00::/7", "private (unique local)"),
        ("fec0::/10", "private (site-local)"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.88.99.0/24", "reserved"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("240.0.0.0/4", "reserved"),
        ("64:ff9b:1::/48", "private (local NAT64)"),
        ("100::/64", "discarded"),
        ("2001:2::/48", "reserved for benchmarks"),
        ("2001:10::/28", "reserved"),
        ("2001:20::/28", "reserved"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved"),
    )
)

_LOW_32 = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""Ranges that end in an IPv4 address: compatible and mapped (RFC 4291), SIIT (2765), NAT64 (6052)."""
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")


def host_allowed(host: str) -> bool:
    """Whether `host` is a well-formed DNS name or IP literal in the one form that nobody reads differently.

    Names: ASCII, at most 253 characters, labels of letters, digits, hyphen and underscore (old S3 buckets),
    with at most one trailing dot (RFC 1123 section 2.1). IPv4: four decimal parts without leading zeros;
    whatever ends in a number otherwise (octal, hexadecimal, short forms, a trailing dot) is refused, because
    resolvers take it for an address. IPv6: RFC 4291 text, with or without brackets, without a zone.
    """
    if _literal(host) is not None:
        return True
    name = host.removesuffix(".")
    if not 1 <= len(name) <= 253:
        return False
    labels = name.split(".")
    return all(map(_LABEL.fullmatch, labels)) and _NUMBER.fullmatch(labels[-1]) is None


async def resolve(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    connection: Connection,
    *,
    own_ports: frozenset[int],
) -> list[str]:
    """Resolve `host` to IP literals, all checked, in the resolver's order, without repeats: dial these.

    `own_ports` are the TCP ports on which this gateway listens. The caller bounds the time. Raises Refusal
    `host_invalid` or `dial_forbidden`, and UpstreamError (phase `dial`) if the name has no address.
    """
    if not host_allowed(host):
        raise Refusal(
            "the request was refused",
            f"{_shown(host)} is not a host name or address in its plain form",
            "use a DNS name, four decimal numbers, or an IPv6 address",
            code="host_invalid",
            status=400,
        )
    literal = _literal(host)
    found: list[_IP]
    if literal is not None:
        found = [literal]
    else:
        found = await _look_up(loop, host, port)
    # One forbidden answer refuses them all. A public name with a private address among its answers has no
    # honest use here, and dialling only the good ones would leave the choice to whoever can make the good
    # ones fail.
    named = _literal(_endpoint_host(connection))
    for ip in found:
        verdict = _forbidden(ip, port, connection.allow_private, named, own_ports)
        if verdict is not None:
            raise _refusal(host, ip, verdict)
    return [str(ip) for ip in found]


def _literal(host: str) -> _IP | None:
    """The address that a canonical literal names, or None."""
    if _IPV4.fullmatch(host):
        return IPv4Address(host)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" not in bare or "%" in bare:
        return None
    try:
        return IPv6Address(bare)
    except ValueError:
        return None


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_IP]:
    try:
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        raise UpstreamError(
            f"could not resolve {host}",
            error.strerror or "the resolver gave no address",
            "check the name, and the DNS of the gateway's machine",
            phase="dial",
        ) from error
    # A zone (fe80::1%eth0) only goes with link-local addresses; it stays part of the address that is dialled.
    found = dict.fromkeys(ipaddress.ip_address(str(answer[4][0])) for answer in answers)
    if not found:
        raise UpstreamError(f"could not resolve {host}", "the resolver gave no address", phase="dial")
    return list(found)


def _endpoint_host(connection: Connection) -> str:
    if "//" not in connection.endpoint:
        return connection.endpoint
    try:
        return urlsplit(connection.endpoint).hostname or ""
    except ValueError:
        return ""  # a malformed endpoint names no address, hence opens none


class _Verdict(NamedTuple):
    why: str
    hint: str


_FINAL = "no connection may reach it"


def _forbidden(
    ip: _IP, port: int, allow_private: bool, named: _IP | None, own_ports: frozenset[int]
) -> _Verdict | None:
    """Why `ip` may not be dialled, or None. Judges the address and every IPv4 address inside it."""
    whole = ip if isinstance(ip, IPv4Address) else IPv6Address(int(ip))  # without a zone
    for one in (whole, *_embedded(whole)):
        if why := _range(one, _NEVER):
            return _Verdict(why, _FINAL)
        if one in METADATA:
            if not (allow_private and named is not None and one in (named, *_embedded(named))):
                return _Verdict(
                    "a metadata address",
                    "only a connection with allow_private whose endpoint is that very address may reach it",
                )
        elif not allow_private and (why := _range(one, _PRIVATE)):
            return _Verdict(why, "if the connection is meant to reach it, set allow_private on the connection")
        if port in own_ports and _is_own(ip if one is whole else one):
            return _Verdict("this gateway itself", _FINAL)
    return None


def _range(ip: _IP, ranges: tuple[tuple[_Net, str], ...]) -> str:
    return next((why for net, why in ranges if ip in net), "")


def _embedded(ip: _IP) -> tuple[_IP, ...]:
    """IPv4 addresses that an IPv6 address stands for or is routed to."""
    if isinstance(ip, IPv4Address):
        return ()
    value = int(ip)
    found: list[_IP] = []
    if value > 1 and any(ip in net for net in _LOW_32):  # :: and ::1 are addresses of their own
        found.append(IPv4Address(value & 0xFFFFFFFF))
    elif ip in _6TO4:
        found.append(IPv4Address((value >> 80) & 0xFFFFFFFF))
    elif ip in _TEREDO:  # RFC 4380 section 4: server, and client with its bits inverted
        found += [IPv4Address((value >> 64) & 0xFFFFFFFF), IPv4Address(~value & 0xFFFFFFFF)]
    if (value >> 32) & 0xFDFFFFFF == 0x5EFE:  # ISATAP, RFC 5214 section 6.1
        found.append(IPv4Address(value & 0xFFFFFFFF))
    return tuple(found)


def _is_own(ip: _IP) -> bool:
    """Whether packets to `ip` stay on this machine: it is loopback, or the kernel lets us bind to it.

    Binding asks the kernel itself, so addresses added after the start count. A machine that allows binding to
    foreign addresses (net.ipv4.ip_nonlocal_bind) refuses too much, never too little.
    """
    if ip.is_loopback:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError:
        return False
    return True


def _refusal(host: str, ip: _IP, verdict: _Verdict) -> Refusal:
    at = "" if _literal(host) is not None else f" at {ip}"
    return Refusal(
        f"the gateway does not connect to {host}{at}",
        f"the address is {verdict.why}",
        verdict.hint,
        code="dial_forbidden",
    )


def _shown(host: str) -> str:
    """A host for an error text: cut, and with nothing in it that a terminal would obey."""
    return ascii(host if len(host) <= 80 else host[:80] + "...")
