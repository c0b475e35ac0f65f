"""Connections to targets and their pool: what is reused, what is bounded, how an answer may end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from narrows.core.errors import Refusal, UpstreamError
from narrows.core.values import Connection
from narrows.listen.ca import CertificateAuthority
from narrows.tasks import spawn
from narrows.upstream.http import READ_AHEAD, Origin, Pool, UpstreamConnection
from narrows.wire.http1 import Data, End, ResponseHead

CONNECTION = Connection("demo", allow_private=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Target:
    """A port that hands out its connections."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.all: list[Peer] = []
        self.port = 0

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.all.append((reader, writer))
        self.peers.put_nowait((reader, writer))


@asynccontextmanager
async def target(
    *, per_origin: int = 4, timeout_s: float = 2.0, idle_s: float = 60.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Target, Pool, Origin]]:
    there = Target()
    server = await asyncio.start_server(there._accepted, "127.0.0.1", 0, ssl=tls)
    there.port = server.sockets[0].getsockname()[1]
    pool = Pool(per_origin=per_origin, idle_s=idle_s, connect_timeout_s=timeout_s, own_ports=frozenset({1}))
    try:
        yield there, pool, Origin("https" if tls else "http", "127.0.0.1", there.port, "demo")
    finally:
        pool.close()
        server.close()
        for _reader, writer in there.all:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await body()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def exchange(conn: UpstreamConnection, there: Target, peer: Peer | None = None) -> Peer:
    """One request and its answer."""
    conn.begin(b"GET")
    conn.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    reader, writer = peer or await there.peers.get()
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    while not isinstance(await conn.next(), End):
        pass
    return reader, writer


def test_a_clean_connection_is_used_again() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            peer = await exchange(conn, there)
            assert conn.address == f"127.0.0.1:{there.port}"
            pool.release(conn, reusable=True)
            assert await pool.acquire(origin, CONNECTION) is conn
            await exchange(conn, there, peer)
            pool.release(conn, reusable=True)
            assert await pool.acquire(origin, CONNECTION, fresh=True) is not conn

    run(body)


def test_one_that_was_not_whole_is_not() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            await exchange(conn, there)
            pool.release(conn, reusable=False)
            assert pool.take(origin) is None
            assert not pool._open

    run(body)


@pytest.mark.parametrize("how", ["close", "bytes"])
def test_an_idle_connection_on_which_something_happens_is_dropped(how: str) -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            _reader, writer = await exchange(conn, there)
            pool.release(conn, reusable=True)
            if how == "close":
                writer.close()
            else:
                writer.write(OK)  # an answer that nobody asked for must not become the next one's
            while pool._open:
                await asyncio.sleep(0.01)
            assert pool.take(origin) is None
            assert not pool._idle

    run(body)


def test_one_that_dies_in_the_moment_it_is_taken_gives_its_place_back() -> None:
    async def body() -> None:
        async with target(per_origin=1) as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            await exchange(conn, there)
            pool.release(conn, reusable=True)
            conn.eof_received()  # the loop has seen the end, and not yet called connection_lost
            other = await pool.acquire(origin, CONNECTION)
            assert other is not conn

    run(body)


def test_the_bound_is_kept_and_turns_are_in_order() -> None:
    async def body() -> None:
        async with target(per_origin=2) as (there, pool, origin):
            held = [await pool.acquire(origin, CONNECTION) for _ in range(2)]
            for conn in held:
                await exchange(conn, there)
            order: list[int] = []

            async def wait(number: int) -> None:
                conn = await pool.acquire(origin, CONNECTION)
                order.append(number)
                pool.release(conn, reusable=True)

            tasks = [spawn(wait(number), name="wait") for number in range(5)]
            await asyncio.sleep(0.05)
            assert not order
            pool.release(held[0], reusable=True)
            await asyncio.wait(tasks)
            assert order == list(range(5))
            assert len(there.all) == 2
            assert not pool._waiting

    run(body)


def test_a_turn_of_one_who_left_is_handed_on() -> None:
    async def body() -> None:
        async with target(per_origin=1, timeout_s=5) as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            await exchange(conn, there)
            first = spawn(pool.acquire(origin, CONNECTION), name="first")
            second = spawn(pool.acquire(origin, CONNECTION), name="second")
            await asyncio.sleep(0.02)
            pool.release(conn, reusable=True)  # wakes the first, which is cancelled before it runs
            first.cancel()
            assert await asyncio.wait_for(second, 1) is conn

    run(body)


def test_a_failed_dial_lets_the_next_one_try() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        async with target(per_origin=1) as (_there, pool, _origin):
            origin = Origin("http", "127.0.0.1", port, "demo")
            tasks = [spawn(pool.acquire(origin, CONNECTION), name="dial", on_error=lambda e: None) for _ in range(5)]
            done, waiting = await asyncio.wait(tasks, timeout=1)
            assert not waiting, "each was told at once, none waited for its time to pass"
            for task in done:
                error = task.exception()
                assert isinstance(error, UpstreamError)
                assert error.phase == "dial"
            assert not pool._dialling
            assert not pool._waiting

    run(body)


def test_a_turn_that_does_not_come_is_an_error() -> None:
    async def body() -> None:
        async with target(per_origin=1, timeout_s=0.1) as (_there, pool, origin):
            await pool.acquire(origin, CONNECTION)
            with pytest.raises(UpstreamError) as caught:
                await pool.acquire(origin, CONNECTION)
            assert caught.value.status == 503
            assert not pool._waiting

    run(body)


def test_a_cancelled_dial_gives_its_place_back() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with target(per_origin=1) as (_there, pool, _origin):
                origin = Origin("https", "127.0.0.1", silent.getsockname()[1], "demo")
                dial = spawn(pool.acquire(origin, CONNECTION), name="dial")
                while not pool._dialling:
                    await asyncio.sleep(0)
                await asyncio.sleep(0.02)
                dial.cancel()
                await asyncio.wait({dial})
                assert not pool._dialling
                assert not pool._open

    run(body)


def test_a_dial_has_its_time() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with target(timeout_s=0.2) as (_there, pool, _origin):
                with pytest.raises(UpstreamError) as caught:
                    await pool.acquire(Origin("https", "127.0.0.1", silent.getsockname()[1], "demo"), CONNECTION)
                assert caught.value.status == 504

    run(body)


def test_many_origins_leave_nothing_behind() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            for number in range(50):
                named = origin._replace(connection=f"c{number}")
                conn = await pool.acquire(named, CONNECTION)
                await exchange(conn, there)
                pool.release(conn, reusable=True)
                pool.take(named)
                pool.release(conn, reusable=False)
            assert not any((pool._idle, pool._open, pool._dialling, pool._waiting))

    run(body)


def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with target(idle_s=0.1) as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            reader, _writer = await exchange(conn, there)
            pool.release(conn, reusable=True)
            await asyncio.sleep(0.15)
            pool._sweep.cancel()
            pool._enforce()
            assert await reader.read() == b""
            assert not pool._open

    run(body)


def test_private_addresses_need_the_connections_word() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            with pytest.raises(Refusal) as caught:
                await pool.acquire(origin, Connection("demo"))
            assert caught.value.code == "dial_forbidden"
            assert not there.all
            assert not pool._dialling

    run(body)


def test_an_unproven_name_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        (tmp_path / "keys").mkdir(mode=0o700)
        authority = CertificateAuthority.load_or_create(tmp_path / "keys", tmp_path / "ca.pem")
        async with target(tls=authority.context_for("127.0.0.1")) as (there, pool, origin):
            with pytest.raises(UpstreamError) as caught:
                await pool.acquire(origin, CONNECTION)
            assert caught.value.phase == "tls"
            trusting = Connection("demo", allow_private=True, ca_file=str(tmp_path / "ca.pem"))
            conn = await pool.acquire(origin, trusting)
            await exchange(conn, there)
        async with target(tls=authority.context_for("other.example")) as (there, pool, origin):
            with pytest.raises(UpstreamError) as caught:
                await pool.acquire(origin, trusting)
            assert caught.value.phase == "tls"

    run(body)


# -- how an answer ends --------------------------------------------------------------------------------------------


async def all_events(conn: UpstreamConnection) -> list[ResponseHead | Data | End]:
    events: list[ResponseHead | Data | End] = []
    while not events or not isinstance(events[-1], End):
        events.append(await conn.next())
    return events


@pytest.mark.parametrize("ending", ["fin", "reset", "abort", "expire"])
def test_an_answer_without_a_length_is_whole_only_after_an_orderly_end(ending: str) -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            conn.begin(b"GET")
            conn.write(b"GET / HTTP/1.1\r\n\r\n")
            reader, writer = await there.peers.get()
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
            await writer.drain()
            assert isinstance(await conn.next(), ResponseHead)
            assert isinstance(await conn.next(), Data)
            if ending == "fin":
                writer.close()
                assert isinstance(await conn.next(), End)
                return
            if ending == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                getattr(conn, ending)()
            with pytest.raises(UpstreamError) as caught:
                await all_events(conn)
            assert caught.value.status == (504 if ending == "expire" else 502)
            with pytest.raises(UpstreamError):
                conn.write(b"more")

    run(body)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 O", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf", "in the middle"),
        (b"nonsense\r\n\r\n", "not valid HTTP"),
    ],
)
def test_the_error_says_what_happened(sent: bytes, words: str) -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            conn.begin(b"GET")
            _reader, writer = await there.peers.get()
            writer.write(sent)
            writer.close()
            with pytest.raises(UpstreamError, match=words):
                await all_events(conn)

    run(body)


def test_reading_stops_far_ahead_and_goes_on() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            conn.begin(b"GET")
            _reader, writer = await there.peers.get()
            size = 20 * READ_AHEAD
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            before = -1
            while conn._parser.buffered != before:
                before = conn._parser.buffered
                await asyncio.sleep(0.05)
            assert READ_AHEAD <= before < 4 * READ_AHEAD
            events = await all_events(conn)
            assert sum(len(event.payload) for event in events if isinstance(event, Data)) == size
            assert conn.clean

    run(body)


def test_draining_a_target_that_goes_away_is_an_error() -> None:
    async def body() -> None:
        async with target() as (there, pool, origin):
            conn = await pool.acquire(origin, CONNECTION)
            conn.begin(b"PUT")
            _reader, writer = await there.peers.get()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            while not conn.write_paused:
                conn.write(bytes(1 << 18))
            drained = spawn(conn.drain(), name="drain", on_error=lambda error: None)
            await asyncio.sleep(0.02)
            writer.transport.abort()
            await asyncio.wait({drained})
            assert isinstance(drained.exception(), UpstreamError)

    run(body)
