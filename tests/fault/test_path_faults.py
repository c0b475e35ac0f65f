"""The path when either side breaks off at the worst moment, or never moves, or moves too fast for the other."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
from tests.kit import REAL, Client, Conn, Received, World, plain, resident_bytes, scenario

from narrows.path import Limits

DEEP = bool(os.environ.get("NARROWS_TEST_DEEP"))
MIB = 1024 * 1024


def upload(w: World, size: int) -> bytes:
    """The head of a PUT whose body is not covered by its signature."""
    return w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Content-Length", b"%d" % size)])[0]


async def ended_with(w: World, outcome: str, code: str = "") -> dict[str, object]:
    """The outcome of the one exchange, once it is closed."""
    (found,) = await w.ended()
    assert found.outcome["outcome"] == outcome, found.outcome
    assert not code or found.outcome["code"] == code, found.outcome
    return found.outcome


# -- the target breaks off -----------------------------------------------------------------------------------------

HEADS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n",
    "close": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", HEADS["length"][:-2]])
@scenario()
async def test_a_target_that_breaks_off_before_its_answer(w: World, how: str, sent: bytes) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        if sent:
            await conn.write(sent)
        getattr(conn, how)()

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.status == 502
    assert b"ServiceUnavailable" in answer.body
    await ended_with(w, "upstream_failed", "upstream_response")
    w.origin.script = plain
    assert (await client.ask(w.signer.request())).status == 200, "the client's connection goes on"


@pytest.mark.parametrize(
    ("framing", "how"),
    [("length", "reset"), ("length", "close"), ("chunks", "reset"), ("chunks", "close"), ("close", "reset")],
)
@scenario()
async def test_a_cut_answer_does_not_look_whole(w: World, framing: str, how: str) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(HEADS[framing] + b"half")
        await go.wait()
        getattr(conn, how)()

    go = asyncio.Event()
    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    while not client.received.endswith(b"half"):
        assert await client.read()
    go.set()
    with pytest.raises(ConnectionResetError):
        while True:
            if not await client.reader.read(100):
                return
    await ended_with(w, "upstream_cut", "upstream_response")


@pytest.mark.parametrize(
    "sent", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", b"\x16\x03\x01"]
)
@scenario()
async def test_an_answer_that_is_not_http(w: World, sent: bytes) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(sent)
        conn.close()

    w.origin.script = script
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 502
    await ended_with(w, "upstream_failed", "upstream_response")


@scenario()
async def test_an_answer_with_more_bytes_than_it_said_spoils_its_connection_only(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(
            200, b"okHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", (b"Content-Length: 2",), length=False
        )

    w.origin.script = script
    client = await w.client()
    for _ in range(3):
        answer = await client.ask(w.signer.request())
        assert answer.body == b"ok"
    assert w.origin.connections == 3


@scenario(max_head=8192)
async def test_a_huge_head_of_the_target_is_refused(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(200, b"", (b"X: " + b"y" * 300_000,))

    w.origin.script = script
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 502


@pytest.mark.parametrize("started", [False, True])
@scenario(limits=Limits(answer_s=0.3, body_stall_s=0.3))
async def test_a_target_that_stalls_is_given_up(w: World, started: bool) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        if started:
            await conn.write(HEADS["close"] + b"half")
        await conn.gone()

    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    if started:
        assert (await client.rest()).endswith(b"half")
        await ended_with(w, "upstream_cut")
    else:
        answer = await client.response()
        assert answer.status == 504
        await ended_with(w, "upstream_failed", "upstream_response")
    assert len(w.origin.ledger) == 1


@scenario(limits=Limits(answer_s=0.5, body_stall_s=1.0))
async def test_a_slow_but_moving_answer_has_all_the_time_it_needs(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        for _ in range(7):
            await asyncio.sleep(0.25)
            await conn.write(b"x")

    w.origin.script = script
    client = await w.client()
    assert (await client.ask(w.signer.request())).body == b"x" * 7


@scenario(limits=Limits(answer_s=0.5, body_stall_s=1.0))
async def test_a_slow_but_moving_upload_has_all_the_time_it_needs(w: World) -> None:
    client = await w.client()
    client.send(upload(w, 7))
    for _ in range(7):
        await asyncio.sleep(0.25)
        client.send(b"x")
    assert (await client.response(b"PUT")).status == 200
    assert bytes(w.origin.ledger[0].body) == b"x" * 7


@scenario(limits=Limits(body_stall_s=0.5))
async def test_a_target_that_stops_reading_an_upload(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await asyncio.sleep(30)

    w.origin.script = script
    client = await w.client()
    client.send(upload(w, 64 * MIB))

    async def feed() -> None:
        for _ in range(64):
            client.send(bytes(MIB))
            await client.writer.drain()

    feeding = asyncio.get_running_loop().create_task(feed())
    answer = await client.response(b"PUT")
    assert answer.status == 504
    feeding.cancel()
    await ended_with(w, "upstream_failed")


@scenario()
async def test_a_target_that_resets_an_upload_is_reported(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        conn.reset()

    w.origin.script = script
    client = await w.client()
    client.send(upload(w, 8 * MIB))
    for _ in range(8):
        client.send(bytes(MIB))
    answer = await client.response(b"PUT")
    assert answer.status == 502
    client.close()
    await ended_with(w, "upstream_failed")


@scenario()
async def test_a_target_that_answers_and_closes_under_an_upload_is_heard(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.answer(400, b"<EntityTooLarge/>", (b"Connection: close",))
        conn.half_close()
        await conn.gone()

    w.origin.script = script
    client = await w.client()
    client.send(upload(w, 8 * MIB) + bytes(1000))
    answer = await client.response(b"PUT")
    assert answer.body == b"<EntityTooLarge/>"
    client.close()
    await ended_with(w, "complete")


# -- the pool ------------------------------------------------------------------------------------------------------


async def leave_dead(w: World, client: Client, request: bytes = b"") -> None:
    """Make the pool hold a connection that the target is about to close on the next request."""

    async def answer_then_die(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(200, b"ok")
        second = await conn.head()
        if second is not None:
            await conn.body(second)
            conn.reset()

    w.origin.script = answer_then_die
    assert (await client.ask(request or w.signer.request())).status == 200
    w.origin.script = plain


@scenario()
async def test_a_dead_pooled_connection_costs_a_get_nothing(w: World) -> None:
    client = await w.client()
    await leave_dead(w, client)
    answer = await client.ask(w.signer.request(target=b"/bucket/again"))
    assert (answer.status, answer.body) == (200, b"ok")
    assert w.origin.ledger[-1].head.target == b"/bucket/again"
    w.origin.ledger[-1].verify(REAL, w.now_s)
    found = (await w.recorded())[1]
    found.check()
    assert len(found.sent) == 2
    assert found.outcome["retries"] == 1


@scenario(connection={"kind": "http", "hosts": ("example.com",)})
async def test_a_dead_pooled_connection_costs_a_get_without_credentials_nothing(w: World) -> None:
    client = await w.tunnel("example.com")
    request = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    await leave_dead(w, client, request)
    assert (await client.ask(request)).status == 200
    assert (await w.recorded())[1].outcome["retries"] == 1


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
@scenario()
async def test_a_dead_pooled_connection_fails_what_may_not_be_sent_twice(w: World, method: bytes) -> None:
    client = await w.client()
    await leave_dead(w, client)
    request = w.signer.dynamodb() if method == b"POST" else w.signer.request(method)
    answer = await client.ask(request, method)
    assert answer.status == 502 if method != b"POST" else answer.status >= 500
    assert len(w.origin.ledger) == 1, "it went out once, to a connection that read it and reset"
    assert len((await w.recorded())[1].sent) == 1


@scenario()
async def test_a_connection_closed_while_idle_is_not_used(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await plain(conn, received)
        conn.close()

    w.origin.script = script
    client = await w.client()
    for _ in range(5):
        assert (await client.ask(w.signer.request(b"PUT"), b"PUT")).status == 200
        await asyncio.sleep(0.01)
    assert all(not one.outcome.get("retries") for one in await w.recorded())


@scenario(per_origin=2)
async def test_the_bound_of_the_pool_survives_clients_that_leave(w: World) -> None:
    hold = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await hold.wait()
        await plain(conn, received)

    w.origin.script = script
    leaving = [await w.client() for _ in range(10)]
    for client in leaving:
        client.send(w.signer.request())
    await w.origin.arrived(2)
    await asyncio.sleep(0.05)
    assert w.origin.connections == 2
    for client in leaving:
        client.reset()
    hold.set()
    await w.ended(10)
    for _ in range(6):
        client = await w.client()
        assert (await client.ask(w.signer.request())).status == 200


@scenario(per_origin=1, connect_timeout_s=0.3)
async def test_a_request_that_finds_no_free_connection_is_told(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.gone()

    w.origin.script = script
    first, second = await w.client(), await w.client()
    first.send(w.signer.request())
    await w.origin.arrived(1)
    answer = await second.ask(w.signer.request())
    assert answer.status == 503
    assert b"raise max_connections_per_upstream" in answer.body


@scenario()
async def test_a_target_that_cannot_be_reached(w: World) -> None:
    await w.origin.stop()
    client = await w.client()
    for _ in range(3):
        answer = await client.ask(w.signer.request())
        assert answer.status == 502
    outcomes = [one.outcome for one in await w.recorded()]
    assert {outcome["code"] for outcome in outcomes} == {"upstream_dial"}
    assert not any(outcome["upstream_request_sent"] for outcome in outcomes)


# -- the client vanishes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("tunnel", [False, True])
@scenario()
async def test_a_client_that_leaves_while_the_target_works(w: World, how: str, tunnel: bool) -> None:
    gone = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.gone()
        gone.set()

    w.origin.script = script
    client = await (w.tunnel() if tunnel else w.client())
    client.send(w.signer.request(host=b"s3.eu-west-1.amazonaws.com" if tunnel else b"localhost"))
    await w.origin.arrived(1)
    getattr(client, how)()
    await asyncio.wait_for(gone.wait(), 2)
    outcome = await ended_with(w, "client_gone")
    assert outcome["upstream_request_sent"] is True


@pytest.mark.parametrize("how", ["reset", "close"])
@scenario()
async def test_a_client_that_leaves_in_its_upload(w: World, how: str) -> None:
    gone = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        try:
            await conn.body(received)
        finally:
            gone.set()

    w.origin.script = script
    client = await w.client()
    client.send(upload(w, 1000) + b"half")
    await w.origin.arrived(1)
    getattr(client, how)()
    await asyncio.wait_for(gone.wait(), 2)
    assert not w.origin.ledger[0].whole
    outcome = await ended_with(w, "client_gone")
    assert outcome["upstream_request_sent"] is False


@pytest.mark.parametrize("how", ["reset", "close"])
@scenario()
async def test_a_client_that_leaves_before_its_body_is_gathered(w: World, how: str) -> None:
    client = await w.client()
    client.send(w.signer.dynamodb()[:-1])
    await asyncio.sleep(0.05)
    getattr(client, how)()
    outcome = await ended_with(w, "client_gone")
    assert outcome["upstream_request_sent"] is False
    assert not w.origin.ledger
    assert "decision" not in (await w.only()).facts


@scenario()
async def test_a_client_that_leaves_in_its_answer(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            await conn.write(bytes(65536))

    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    await client.read()
    client.reset()
    outcome = await ended_with(w, "client_gone")
    assert outcome["bytes_out"]


@scenario()
async def test_a_client_that_leaves_while_we_dial(w: World) -> None:
    """The dial is cancelled with the request, and its place is free again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, and never shakes hands
        w.publish(w.connection(endpoint=f"https://127.0.0.1:{silent.getsockname()[1]}"))
        w.directory.refresh()
        client = await w.client()
        client.send(w.signer.request())
        while not w.pool._dialling:
            await asyncio.sleep(0.01)
        client.reset()
        await ended_with(w, "client_gone")
        assert not w.pool._dialling


# -- many clients --------------------------------------------------------------------------------------------------


@scenario(limits=Limits(head_s=1.0, idle_s=1.0), first_byte_timeout_s=1.0)
async def test_a_thousand_idle_and_dripping_clients(w: World) -> None:
    async def drip(client: Client) -> None:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for n in range(100):
            if client.writer.is_closing():
                return
            client.send(b"X-%d: y\r\n" % n)
            await asyncio.sleep(0.2)

    before = resident_bytes()
    started = time.monotonic()
    idle = [await w.client() for _ in range(600)]
    slow = [await w.client() for _ in range(400)]
    loop = asyncio.get_running_loop()
    drips = [loop.create_task(drip(client)) for client in slow]
    good = await w.client()
    for _ in range(20):
        assert (await good.ask(w.signer.request())).status == 200
    grown = resident_bytes() - before
    closed = [await client.closed() for client in idle + slow]
    assert all(closed), "each was closed, and none was answered"
    assert time.monotonic() - started < 8
    for task in drips:
        task.cancel()
    assert grown < 100 * MIB, grown
    other = await w.client()
    assert (await other.ask(w.signer.request())).status == 200


@scenario(limits=Limits(head_s=1.0), first_byte_timeout_s=1.0)
async def test_clients_that_stall_in_the_handshake_count_and_end(w: World) -> None:
    w.listener._handshake_timeout_s = 1.0
    w.listener._max_connections = 50
    stalled = [await w.client() for _ in range(50)]
    for client in stalled:
        client.send(b"\x16\x03\x01\x02\x00")
    while w.listener._adopting < 50:
        await asyncio.sleep(0.01)
    extra = await w.client()
    assert b"503" in (await extra.rest())[:20]
    for client in stalled:
        await client.rest()
    assert w.listener._adopting == 0
    good = await w.client()
    assert (await good.ask(w.signer.request())).status == 200


@scenario(max_connections=5)
async def test_a_connection_over_the_limit_is_answered(w: World) -> None:
    clients = [await w.client() for _ in range(5)]
    for client in clients:
        assert (await client.ask(w.signer.request())).status == 200
    extra = await w.client()
    assert (await extra.response()).status == 503
    assert w.listener.refused == 1
    clients[0].close()
    while len(w.listener.connections) > 4:
        await asyncio.sleep(0.01)
    again = await w.client()
    assert (await again.ask(w.signer.request())).status == 200


@scenario(limits=Limits(head_s=1.0))
async def test_a_failed_handshake_in_a_tunnel_leaves_nothing_behind(w: World) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
        client = await w.client()
        await client.ask(w.connect_request(b"s3.amazonaws.com:443"), b"CONNECT")
        if garbage:
            client.send(garbage)
            await client.rest()
        else:
            client.close()
    while w.listener.connections:
        await asyncio.sleep(0.01)


@scenario(limits=Limits(body_stall_s=0.5))
async def test_a_client_that_stalls_in_its_body_is_cut(w: World) -> None:
    client = await w.client()
    client.send(upload(w, 1000) + b"half")
    assert await client.closed()
    outcome = await ended_with(w, "client_gone")
    assert "time limit" in str(outcome["error"])


@scenario(limits=Limits(body_stall_s=0.5))
async def test_a_client_that_stops_reading_is_cut(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            await conn.write(bytes(65536))

    w.origin.script = script
    client = await w.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(w.signer.request())
    outcome = await ended_with(w, "client_gone")
    assert "time limit" in str(outcome["error"])


@scenario()
async def test_a_pipelining_client_cannot_fill_memory(w: World) -> None:
    hold = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await hold.wait()
        await plain(conn, received)

    w.origin.script = script
    client = await w.client()
    request = w.signer.request(unsigned=[(b"X-Pad", b"p" * 30_000)])
    client.send(request * 1000)
    await w.origin.arrived(1)
    await asyncio.sleep(0.3)
    (one,) = w.listener.connections
    assert one.buffered < 2 * MIB
    client.reset()
    hold.set()


# -- large bodies --------------------------------------------------------------------------------------------------


class Peak:
    """The most memory that this process held, above what it held before; looked at as bytes pass."""

    def __init__(self) -> None:
        self.before = resident_bytes()
        self.grown = 0

    def look(self) -> None:
        """Look now."""
        self.grown = max(self.grown, resident_bytes() - self.before)


ZEROS = bytes(256 * 1024)


async def up(w: World, size: int, peak: Peak) -> None:
    """Send `size` zeros up."""
    client = await w.client()
    client.send(upload(w, size))
    for number in range(size // len(ZEROS)):
        client.send(ZEROS)
        await client.writer.drain()
        if number % 64 == 0:
            peak.look()
    answer = await client.response(b"PUT")
    assert answer.status == 200
    assert w.origin.ledger[-1].size == size


async def down(w: World, size: int, peak: Peak) -> None:
    """Fetch `size` zeros."""
    client = await w.client()
    client.send(w.signer.request())
    got = 0
    number = 0
    while got < size:
        data = await client.reader.read(1 << 18)
        assert data
        got += len(data)
        number += 1
        if number % 64 == 0:
            peak.look()
    assert got >= size


def zeros(size: int, framing: str) -> object:
    """A script that reads everything and answers a GET with zeros."""

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        if received.head.method != b"GET":
            await conn.answer(200, b"")
            return
        if framing == "length":
            await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(ZEROS)):
                await conn.write(ZEROS)
        else:
            await conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(size // len(ZEROS)):
                await conn.write(b"%x\r\n" % len(ZEROS) + ZEROS + b"\r\n")
            await conn.write(b"0\r\n\r\n")

    return script


SIZES = [
    pytest.param(1024 * MIB, id="1G"),
    pytest.param(5 * 1024 * MIB, id="5G", marks=[pytest.mark.deep, pytest.mark.skipif(not DEEP, reason="deep")]),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", ["up", "down", "down chunked"])
@scenario(keep=False, timeout_s=900)
async def test_memory_stays_flat_whatever_the_size(w: World, direction: str, size: int) -> None:
    if "chunked" in direction:
        size //= 4  # the framing differs, not the way of the bytes
    w.origin.script = zeros(size, "chunked" if "chunked" in direction else "length")  # type: ignore[assignment]
    peak = Peak()
    # What is recorded is removed as it comes: the disk is not what is tested here.
    prune = asyncio.get_running_loop().create_task(_prune(w))
    await (up if direction == "up" else down)(w, size, peak)
    prune.cancel()
    assert peak.grown < 96 * MIB, peak.grown / MIB


async def _prune(w: World) -> None:
    while True:
        await asyncio.sleep(0.2)
        segments = sorted((w.path / "wal" / "w").glob("*.seg"))
        for path in segments[:-2]:
            path.unlink()


@scenario(keep=False)
async def test_a_slow_client_holds_the_target_back(w: World) -> None:
    sent = 0

    async def script(conn: Conn, received: Received) -> None:
        nonlocal sent
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        while sent < 200 * MIB:
            await conn.write(ZEROS)
            sent += len(ZEROS)

    w.origin.script = script
    client = await w.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(w.signer.request())
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 32 * MIB, "what fits into sockets and buffers, not more"


@scenario(keep=False)
async def test_a_slow_target_holds_the_client_back(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await asyncio.sleep(30)

    w.origin.script = script
    client = await w.client()
    client.send(upload(w, 200 * MIB))
    sent = 0

    async def feed() -> None:
        nonlocal sent
        while sent < 200 * MIB:
            client.send(ZEROS)
            await client.writer.drain()
            sent += len(ZEROS)

    feeding = asyncio.get_running_loop().create_task(feed())
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 32 * MIB
    feeding.cancel()


@scenario()
async def test_tiny_chunks_weigh_what_their_bytes_weigh(w: World) -> None:
    """A body of one-byte chunks that must be gathered is held to a limit of its bytes on the wire."""
    before = resident_bytes()
    head, _ = w.signer.head(
        b"POST", b"/", service="dynamodb", declare=False, body=b"x",
        extra=[(b"x-amz-target", b"DynamoDB_20120810.PutItem")], unsigned=[(b"Transfer-Encoding", b"chunked")],
    )  # fmt: skip
    client = await w.client()
    client.send(head)
    for _ in range(40):
        client.send(b"1\r\na\r\n" * 20_000)
        await client.writer.drain()
        assert resident_bytes() - before < 150 * MIB
    client.send(b"0\r\n\r\n")
    assert (await client.response(b"POST")).status == 413


def put_item(size: int) -> bytes:
    """A DynamoDB body of `size` bytes."""
    return b'{"Pad":"' + b"p" * (size - 10) + b'"}'


@scenario()
async def test_a_long_body_that_is_covered_undeclared_is_spooled(w: World) -> None:
    body = put_item(40 * MIB)
    request = w.signer.dynamodb(b"PutItem", body)
    client = await w.client()
    client.send(request[: 20 * MIB])
    await client.writer.drain()
    assert not w.origin.ledger, "nothing passes before it is verified whole"
    client.send(request[20 * MIB :])
    answer = await client.response(b"POST")
    assert answer.status == 200, answer.body
    assert w.origin.ledger[0].verify(REAL, w.now_s) == body
    found = await w.only()
    assert found.request.endswith(body)
    assert found.facts["operation"] == "PutItem"
    assert (await client.ask(w.signer.request())).status == 200, "the client's connection goes on"


@scenario()
async def test_a_long_body_with_a_wrong_signature_goes_nowhere(w: World) -> None:
    client = await w.client()
    client.send(w.signer.dynamodb(b"PutItem", put_item(10 * MIB))[:-1] + b"!")
    answer = await client.response(b"POST")
    assert answer.status in (400, 403)
    assert not w.origin.ledger
    assert not w.origin.connections
    found = await w.only()
    assert "signature" in str(found.outcome["error"])


@scenario()
async def test_a_spool_without_space_refuses(w: World) -> None:
    w.gateway.spool = w.path / "missing"
    client = await w.client()
    client.send(w.signer.dynamodb(b"PutItem", put_item(10 * MIB)))
    answer = await client.response(b"POST")
    assert answer.status == 503
    client.close()
    await ended_with(w, "refused", "spool_failed")


@scenario()
async def test_a_form_too_long_to_be_understood_is_refused(w: World) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15&Pad=" + b"x" * (5 * MIB)
    client = await w.client()
    client.send(
        w.signer.request(
            b"POST", b"/", body, service="sts", declare=False,
            extra=[(b"content-type", b"application/x-www-form-urlencoded")],
        )
    )  # fmt: skip
    assert (await client.response(b"POST")).status == 413
    await ended_with(w, "refused", "body_too_long")
