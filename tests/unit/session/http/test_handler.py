"""Hosts of `http` connections: reached through the proxy by a session, passed on as they are, and on record."""

from __future__ import annotations

from tests.kit import World, scenario

from narrows.core.values import Connection, Durability

HOST = "api.example.com"


def register(w: World, **options: object) -> None:
    values = {
        "endpoint": f"http://127.0.0.1:{w.origin.port}",
        "hosts": (HOST, "*.example.net"),
        "allow_private": True,
        "durability": Durability.STRICT,
    }
    w.publish(w.connection(), None, Connection("web", kind="http", **(values | options)))  # type: ignore[arg-type]
    w.directory.refresh()


@scenario()
async def test_a_request_passes_as_it_is_and_its_secret_is_not_recorded(w: World) -> None:
    register(w)
    client = await w.tunnel(HOST)
    head = f"POST /v1/things?x=1 HTTP/1.1\r\nHost: {HOST}\r\nX-Api-Key: my-own-key-0123456789\r\n".encode()
    answer = await client.ask(head + b"Content-Length: 5\r\n\r\nhello", b"POST")
    assert answer.status == 200
    seen = w.origin.ledger[0]
    assert b"my-own-key-0123456789" in bytes(seen.raw)
    assert bytes(seen.body) == b"hello"
    assert f"Host: {HOST}".encode() in bytes(seen.raw)
    found = await w.only()
    assert found.facts["kind"] == "http.request"
    assert found.facts["connection"] == "web"
    assert found.facts["principal"] == "alice"
    assert found.facts["policies"] == ["builtin/named-host"]
    assert not w.leaks(b"my-own-key-0123456789")


@scenario()
async def test_a_host_that_no_connection_names_is_refused_and_the_refusal_is_on_record(w: World) -> None:
    register(w)
    client = await w.client()
    answer = await client.ask(w.connect_request(b"elsewhere.example.org:443"), b"CONNECT")
    assert answer.status == 403
    assert b"narrows connection add http NAME --host elsewhere.example.org" in answer.body
    found = await w.only()
    assert found.outcome["outcome"] == "refused"
    assert found.facts["principal"] == "alice"


@scenario()
async def test_another_groups_connection_is_denied(w: World) -> None:
    register(w, groups=("finance",))
    client = await w.tunnel(HOST)
    answer = await client.ask(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), b"GET")
    assert answer.status == 403
    assert b"other groups" in answer.body
    assert not w.origin.ledger
    assert (await w.only()).facts["decision"] == "deny"


@scenario()
async def test_another_host_inside_the_tunnel_is_refused(w: World) -> None:
    register(w)
    client = await w.tunnel(HOST)
    answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a.example.net\r\n\r\n", b"GET")
    assert answer.status == 421
    assert not w.origin.ledger


@scenario()
async def test_fields_of_this_hop_stay_here(w: World) -> None:
    register(w)
    client = await w.tunnel(HOST)
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-Keep: 1\r\n\r\n"
    assert (await client.ask(request.encode(), b"GET")).status == 200
    raw = bytes(w.origin.ledger[0].raw)
    assert b"X-Keep: 1" in raw
    assert b"X-Hop" not in raw
    assert b"TE:" not in raw
