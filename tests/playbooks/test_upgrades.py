"""WebSocket connections through the path: bytes both ways, each on record first, and every way in which they end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest
from tests.kit import SESSION, Client, Conn, Received, World, scenario

from narrows.core.values import Connection, Durability
from narrows.path import Limits
from narrows.record.log.frame import Flag, Kind
from narrows.session.http.handler import HttpHandler

HOST = "ws.example.com"
ASK = (
    f"GET /v1/responses?a=1 HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer secret\r\n\r\n"
).encode()
AGREED = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"


class Upgrading(HttpHandler):
    """A handler that lets its requests become WebSockets."""

    upgrades = True


def more(w: World) -> list[Upgrading]:
    return [Upgrading(w.directory)]


def web(w: World, *, ended: dict[bytes, str] | None = None, durability: Durability = Durability.STRICT) -> None:
    """Name the origin as the WebSocket host of an `http` connection."""
    connection = Connection(
        "ws", kind="http", endpoint=f"http://127.0.0.1:{w.origin.port}", hosts=(HOST,), allow_private=True,
        durability=durability,
    )  # fmt: skip
    w.publish(w.connection(), ended, connection)
    w.directory.refresh()


async def echo(conn: Conn, received: Received) -> None:
    """Agree, then send everything back in capitals; `bye` ends it."""
    await conn.body(received)
    await conn.write(AGREED)
    while data := await conn.read():
        await conn.write(data.upper())
        if data.endswith(b"bye"):
            break
    conn.close()


async def opened(w: World, ahead: bytes = b"") -> Client:
    """A client whose request became a WebSocket."""
    client = await w.tunnel(HOST)
    client.received.clear()
    client.send(ASK + ahead)
    while b"\r\n\r\n" not in client.received:
        assert await client.read()
    assert bytes(client.received).startswith(AGREED)
    return client


async def until(client: Client, done: Callable[[bytearray], bool]) -> None:
    while not done(client.received):
        assert await client.read(), bytes(client.received[-200:])


@pytest.mark.parametrize("durability", list(Durability))
@scenario(script=echo, handlers=more)
async def test_bytes_go_both_ways_and_are_recorded(w: World, durability: Durability) -> None:
    web(w, durability=durability)
    client = await opened(w, ahead=b"first ")
    await until(client, lambda got: got.endswith(b"FIRST "))
    client.send(b"second ")
    await until(client, lambda got: got.endswith(b"SECOND "))
    client.send(b"bye")
    assert await client.rest() == b"BYE"
    found = (await w.ended())[-1]
    seen = w.origin.ledger[0].head
    assert (seen.get(b"upgrade"), seen.get(b"connection")) == (b"websocket", b"Upgrade")
    assert seen.get(b"sec-websocket-key") == b"dGhlIHNhbXBsZSBub25jZQ=="
    assert found.session == SESSION
    assert found.request == ASK.replace(b"Bearer secret", b"*" * 13) + b"first second bye"
    assert found.response == AGREED + b"FIRST SECOND BYE"
    outcome = found.outcome
    assert (outcome["outcome"], outcome["status"], outcome["closed_by"]) == ("complete", 101, "target")
    assert outcome["upstream_request_sent"] is True
    assert sum(bool(f.flags & Flag.END) for f in found.frames if f.kind == Kind.REQUEST) == 1


@scenario(script=echo, handlers=more)
async def test_nothing_goes_up_before_it_is_durable(w: World) -> None:
    web(w)
    client = await opened(w)
    w.recorder.gate.clear()
    client.send(b"act!")
    await w.recorder.asked()
    await asyncio.sleep(0.02)
    assert b"ACT!" not in client.received
    assert (await w.recorded())[-1].request.endswith(b"act!")
    w.recorder.gate.set()
    await until(client, lambda got: got.endswith(b"ACT!"))


@scenario(script=echo, handlers=more)
async def test_a_client_that_closes_ends_it(w: World) -> None:
    web(w)
    client = await opened(w)
    client.send(b"last words")
    client.close()
    found = (await w.ended())[-1]
    assert found.request.endswith(b"last words")
    assert found.outcome["outcome"] == "complete" and found.outcome["closed_by"] == "client"


@scenario(handlers=more)
async def test_a_target_that_breaks_off_cuts_it(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(AGREED + b"half a mess")
        assert await conn.read()
        conn.reset()

    w.origin.script = script
    web(w)
    client = await opened(w)
    await until(client, lambda got: got.endswith(b"half a mess"))
    client.send(b"x")
    assert await client.rest() == b""
    found = (await w.ended())[-1]
    assert found.outcome["outcome"] == "upstream_cut" and found.response.endswith(b"half a mess")


@scenario(script=echo, handlers=more)
async def test_a_client_that_resets_is_on_record(w: World) -> None:
    web(w)
    client = await opened(w)
    client.reset()
    assert (await w.ended())[-1].outcome["outcome"] in ("client_gone", "complete")


@scenario(script=echo, handlers=more)
async def test_a_killed_session_ends_it_within_a_second_though_nothing_moves(w: World) -> None:
    web(w)
    client = await opened(w)
    web(w, ended={SESSION: "killed"})
    async with asyncio.timeout(1.0):
        assert await client.rest() == b""
    outcome = (await w.ended())[-1].outcome
    assert (outcome["outcome"], outcome["code"]) == ("refused", "session_ended")


@scenario(script=echo, handlers=more, limits=Limits(answer_s=0.2))
async def test_one_on_which_nothing_moves_ends(w: World) -> None:
    web(w)
    client = await opened(w)
    assert await client.rest() == b""
    outcome = (await w.ended())[-1].outcome
    assert outcome["outcome"] == "client_gone" and "nothing moved" in outcome["error"]


@scenario(handlers=more)
async def test_another_answer_is_an_ordinary_one(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(404, b"no such socket")

    w.origin.script = script
    web(w)
    client = await w.tunnel(HOST)
    for _ in range(2):
        answer = await client.ask(ASK)
        assert (answer.status, answer.body) == (404, b"no such socket")
    for one in (await w.ended(2))[-2:]:
        assert one.outcome["outcome"] == "complete"
        assert sum(bool(f.flags & Flag.END) for f in one.frames if f.kind == Kind.REQUEST) == 1


@scenario(handlers=more)
async def test_a_switch_that_nobody_asked_for_is_refused(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(AGREED)

    w.origin.script = script
    web(w)
    client = await w.tunnel(HOST)
    answer = await client.ask(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert answer.status == 502 and b"upstream_response" in answer.body


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ASK.replace(b"websocket", b"tls/1.3"), b"upgrade_refused"),
        (ASK.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 0\r\nHost"), b"upgrade_malformed"),
        (ASK.replace(b"Connection: Upgrade\r\n", b""), b"upgrade_malformed"),
        (ASK.replace(b"Host", b"Content-Length: 1\r\nHost") + b"x", b"upgrade_malformed"),
    ],
)
@scenario(handlers=more)
async def test_other_upgrades_are_refused(w: World, request_: bytes, code: bytes) -> None:
    web(w)
    client = await w.tunnel(HOST)
    answer = await client.ask(request_)
    assert answer.status in (400, 501) and code in answer.body
    assert not w.origin.ledger


@scenario(handlers=more, timeout_s=30)
async def test_a_slow_side_holds_the_other_back_and_nothing_is_lost(w: World) -> None:
    size = 24 * 1024 * 1024
    go = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(AGREED)
        await go.wait()
        digest, got = hashlib.sha256(), 0
        while got < size:
            data = await conn.read()
            digest.update(data)
            got += len(data)
        await conn.write(digest.hexdigest().encode())

    w.origin.script = script
    web(w, durability=Durability.BUFFERED)
    client = await opened(w)
    block = bytes(range(256)) * 4096
    for _ in range(size // len(block)):
        client.send(block)
    await asyncio.sleep(0.3)
    recorded = sum(len(f.data) for f in (await w.recorded())[-1].frames if f.kind == Kind.REQUEST)
    assert recorded < size, "the client is held back while the target does not read"
    go.set()
    expected = hashlib.sha256(block * (size // len(block))).hexdigest().encode()
    await until(client, lambda got: got.endswith(expected))


@scenario(script=echo, handlers=more)
async def test_a_recorder_that_fails_ends_it(w: World) -> None:
    web(w)
    client = await opened(w)
    w.recorder.fail_at = w.recorder.appended
    client.send(b"x")
    assert await client.rest() == b""


@scenario(script=echo, handlers=more)
async def test_a_gateway_that_stops_says_so_on_record(w: World) -> None:
    web(w)
    client = await opened(w)
    await w.listener.drain(0.2)
    assert await client.rest() == b""
    outcome = (await w.ended())[-1].outcome
    assert outcome["error"] == "the gateway stopped"
