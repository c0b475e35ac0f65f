"""The dial guard: a table of what may be dialled, and of every disguise in which the rest may come."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import Refusal, UpstreamError
from narrows.core.values import Connection
from narrows.upstream import guard

STRICT = Connection("prod")
PRIVATE = Connection("lab", allow_private=True)
NO_PORTS: frozenset[int] = frozenset()


class FakeDns(asyncio.SelectorEventLoop):
    """A loop whose resolver knows these answers; each look-up takes the next list."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        self.asked.append(host)
        found = self.answers.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found
        ]


def resolve(
    host: str,
    *answers: list[str],
    connection: Connection = STRICT,
    port: int = 443,
    own_ports: frozenset[int] = NO_PORTS,
) -> list[str]:
    loop = FakeDns(*answers)
    try:
        return loop.run_until_complete(guard.resolve(loop, host, port, connection, own_ports=own_ports))
    finally:
        loop.close()


def code(host: str, *answers: list[str], **kwargs: Any) -> str:
    """The refusal's code, or `ok`."""
    try:
        resolve(host, *answers, **kwargs)
    except Refusal as refusal:
        assert refusal.what and refusal.why and refusal.hint
        return refusal.code
    return "ok"


def same(found: list[str], ip: str) -> bool:
    """Whether exactly this address was found, in whatever spelling."""
    return list(map(ip_address, found)) == [ip_address(ip)]


PUBLIC = ["52.94.236.248", "1.1.1.1", "2600:1f18::1", "2001:4860:4860::8888", "172.32.0.1", "100.128.0.1"]
# A public IPv4 address carried in IPv6 is as good as the address itself (NAT64 networks have nothing else).
PUBLIC_CARRIED = ["::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]

PRIVATE_ADDRESSES = [
    "127.0.0.1", "127.255.255.254", "::1",
    "169.254.1.1", "fe80::1",
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd12:3456::1", "fc00::1", "fec0::1",
    "100.64.0.1", "100.127.255.255",
    "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.7", "240.0.0.1",
    "64:ff9b:1::1", "100::1", "2001:db8::1", "3fff::1",
]  # fmt: skip
DISGUISED = [
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:192.168.0.1",  # mapped
    "::127.0.0.1", "::10.0.0.1",  # compatible
    "::ffff:0:127.0.0.1",  # SIIT
    "64:ff9b::7f00:1", "64:ff9b::a00:1",  # NAT64
    "2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1",  # 6to4
    "2001:0:101:101::80ff:fffe",  # Teredo: client 127.0.0.1, its bits inverted
    "2001:0:a00:1::fefe:fefe",  # Teredo: server 10.0.0.1
    "2600:1f18::5efe:7f00:1", "2600:1f18::200:5efe:a00:1",  # ISATAP
]  # fmt: skip
METADATA = [
    "169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23",
    "168.63.129.16", "100.100.100.200",
]  # fmt: skip
METADATA_DISGUISED = ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::a9fe:a9fe"]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.255.255.255",
    "ff02::1",
    "255.255.255.255",
    "::ffff:0.0.0.0",
]


@pytest.mark.parametrize("ip", PUBLIC + PUBLIC_CARRIED)
def test_public_addresses_are_dialled(ip: str) -> None:
    assert same(resolve("service.example.com", [ip]), ip)
    assert code(ip) == "ok"


@pytest.mark.parametrize("ip", PRIVATE_ADDRESSES + DISGUISED)
def test_private_addresses_need_allow_private(ip: str) -> None:
    assert code("service.example.com", [ip]) == "dial_forbidden"
    assert code(ip) == "dial_forbidden"
    assert same(resolve("service.example.com", [ip], connection=PRIVATE), ip)


@pytest.mark.parametrize("ip", METADATA + METADATA_DISGUISED)
def test_metadata_is_refused_even_where_private_is_allowed(ip: str) -> None:
    for connection in (STRICT, PRIVATE):
        assert code("metadata.google.internal", [ip], connection=connection) == "dial_forbidden"
        assert code(ip, connection=connection) == "dial_forbidden"


def test_metadata_is_dialled_only_for_a_connection_that_is_about_that_very_address() -> None:
    exact = Connection("imds", endpoint="http://169.254.169.254", allow_private=True)
    assert resolve("169.254.169.254", connection=exact) == ["169.254.169.254"]
    assert code("169.254.170.2", connection=exact) == "dial_forbidden"
    assert code("169.254.169.254", connection=Connection("x", endpoint=exact.endpoint)) == "dial_forbidden"
    six = Connection("imds6", endpoint="http://[fd00:ec2::254]:80/latest", allow_private=True)
    assert resolve("[fd00:ec2::254]", connection=six) == ["fd00:ec2::254"]
    broken = Connection("broken", endpoint="http://[169.254.169.254", allow_private=True)
    assert code("169.254.169.254", connection=broken) == "dial_forbidden"


@pytest.mark.parametrize("ip", NEVER)
def test_some_addresses_are_never_dialled(ip: str) -> None:
    for connection in (STRICT, PRIVATE):
        assert code("service.example.com", [ip], connection=connection) == "dial_forbidden"
        assert code(ip, connection=connection) == "dial_forbidden"


def test_one_forbidden_answer_refuses_the_name() -> None:
    assert code("rebind.example.com", ["1.1.1.1", "127.0.0.1"]) == "dial_forbidden"
    assert code("rebind.example.com", ["127.0.0.1", "1.1.1.1"]) == "dial_forbidden"
    assert resolve("good.example.com", ["1.1.1.1", "2606:4700::1", "1.1.1.1"]) == ["1.1.1.1", "2606:4700::1"]


def test_a_name_is_looked_up_once_and_a_literal_not_at_all() -> None:
    """The second answer of a rebinding name is never asked for."""
    loop = FakeDns(["1.1.1.1"], ["127.0.0.1"])
    try:
        found = loop.run_until_complete(guard.resolve(loop, "rebind.example.com", 443, STRICT, own_ports=NO_PORTS))
        assert (found, loop.asked) == (["1.1.1.1"], ["rebind.example.com"])
        loop.run_until_complete(guard.resolve(loop, "1.1.1.1", 443, STRICT, own_ports=NO_PORTS))
        assert len(loop.asked) == 1
    finally:
        loop.close()


def own_addresses() -> list[str]:
    """Loopback, and the address that this machine would use towards the outside, if it has one."""
    found = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            found.append(probe.getsockname()[0])
        except OSError:
            pass
    return found


@pytest.mark.parametrize("ip", own_addresses())
def test_the_gateway_never_dials_itself(ip: str) -> None:
    own = frozenset({7070, 7071})
    assert code("loop.example.com", [ip], connection=PRIVATE, port=7070, own_ports=own) == "dial_forbidden"
    assert code("loop.example.com", [ip], connection=PRIVATE, port=7072, own_ports=own) == "ok"


def test_our_port_on_another_machine_is_no_loop() -> None:
    assert code("service.example.com", ["1.1.1.1"], port=7070, own_ports=frozenset({7070})) == "ok"


def test_a_public_address_of_our_own_is_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_is_own", lambda ip: str(ip) == "1.1.1.1")
    assert code("us.example.com", ["1.1.1.1"], port=7070, own_ports=frozenset({7070})) == "dial_forbidden"


def test_a_name_without_address_is_an_upstream_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        resolve("nowhere.example.com", [])
    assert caught.value.phase == "dial" and "nowhere.example.com" in str(caught.value)


def test_localhost_is_loopback() -> None:
    async def ask() -> None:
        await guard.resolve(asyncio.get_running_loop(), "localhost", 80, STRICT, own_ports=NO_PORTS)

    with pytest.raises(Refusal) as caught:
        asyncio.run(ask())
    assert caught.value.code == "dial_forbidden" and "allow_private" in caught.value.hint


GOOD_HOSTS = [
    "s3.amazonaws.com", "S3.EU-west-1.amazonaws.com", "example.com.", "localhost", "my_bucket.s3.amazonaws.com",
    "a" * 63 + ".example.com",
    "xn--bcher-kva.example", "1a.example", "123.example.com", "3com", "x.0xg",
    "1.2.3.4", "255.255.255.255", "::1", "[::1]", "2001:db8::1", "[::ffff:1.2.3.4]",
]  # fmt: skip
BAD_HOSTS = [
    "", ".", "..", "a..b", ".example.com", "example.com..", "-a.example.com", "a-.example.com",
    "a" * 64 + ".example.com", "a." * 126 + "toolong",
    "exa mple.com", "example.com\n", "exam\x00ple.com", "bücher.example",
    "example.com:443", "user@example.com", "example.com/x", "*.example.com", "%31%32%37.0.0.1",
    # Other spellings of 127.0.0.1 that C libraries take for an address:
    "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001", "2130706433", "017700000001",
    "127.1", "127.0.1",
    "127.0.0.1.",
    "127.0.0.01", "127.0.0.0x1", "0x", "foo.0x1", "foo.1", "1.2.3.4.5", "256.1.1.1", "1.2.3.4\n",
    "127\u30020\u30020\u30021", "１２７.0.0.1",
    "[1.2.3.4]", "[::1", "::1]", "fe80::1%eth0", "[fe80::1%25eth0]", "::1::", "12345::", "[example.com]",
]  # fmt: skip


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_hosts_in_their_plain_form_are_allowed(host: str) -> None:
    assert guard.host_allowed(host)


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_any_other_form_is_refused_before_the_resolver_sees_it(host: str) -> None:
    assert not guard.host_allowed(host)
    assert code(host, ["1.1.1.1"], connection=PRIVATE) == "host_invalid"


def test_the_refusal_of_a_hostile_name_is_harmless_to_print() -> None:
    with pytest.raises(Refusal) as caught:
        resolve("\x1b]0;owned\x07" + "a" * 5000)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_disguise_of_an_ipv4_address_is_judged_like_the_address(value: int) -> None:
    plain = socket.inet_ntoa(value.to_bytes(4, "big"))
    high, low = value >> 16, value & 0xFFFF
    verdict = code(plain)
    for disguise in (
        f"::ffff:{plain}",
        f"64:ff9b::{high:x}:{low:x}",
        f"2002:{high:x}:{low:x}::1",
        f"::ffff:0:{plain}",
    ):
        assert code(disguise) == verdict, disguise


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_what_is_allowed_means_one_thing_to_the_c_library_too(host: str) -> None:
    """An allowed host that inet_aton takes for an address is that address, not another."""
    if guard.host_allowed(host):
        try:
            read = socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return
        assert read == host
