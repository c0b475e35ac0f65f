"""One client's connection: events as they come, flow control both ways, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from narrows.listen.connection import READ_AHEAD, WRITE_AHEAD, ClientConnection, ClientGone
from narrows.tasks import spawn
from narrows.wire import ahead
from narrows.wire.http1 import Data, End, RequestHead

REQUEST = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


class Pair:
    """A connection over a socket pair; `other` is the client's end."""

    def __init__(self, serve: Callable[[ClientConnection], Awaitable[None]] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed: list[ClientConnection] = []
        self.task: asyncio.Task[None] | None = None
        self._serve = serve
        self.client = ClientConnection(self.loop, 65536, self._opened, self.closed.append, "http")
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def _opened(self, client: ClientConnection) -> asyncio.Task[None]:
        async def nothing() -> None:
            await asyncio.Event().wait()

        self.task = spawn(self._serve(client) if self._serve else nothing(), name="serve")  # type: ignore[arg-type]
        return self.task

    async def __aenter__(self) -> Pair:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.reader, self.writer = await asyncio.open_connection(*server.getsockname(), limit=1 << 24)
            accepted, _ = server.accept()
        accepted.setblocking(False)
        await self.loop.connect_accepted_socket(lambda: self.client, accepted)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.transport.abort()
        self.client.abort()
        while not self.closed:
            await asyncio.sleep(0)
        if self.task is not None:
            await asyncio.wait({self.task})


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await body()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_pipelined_requests_come_out_one_by_one() -> None:
    async def body() -> None:
        async with Pair() as pair:
            pair.writer.write(REQUEST % 1 + REQUEST % 2 + b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab")
            for target in (b"/1", b"/2"):
                head = await pair.client.next_head()
                assert head is not None
                assert head.target == target
                assert isinstance(await pair.client.next(), End)
            assert isinstance(await pair.client.next_head(), RequestHead)
            data = await pair.client.next()
            assert isinstance(data, Data)
            assert bytes(data.payload) == b"ab"
            assert pair.client.poll() is None

    run(body)


def test_reading_stops_far_ahead_and_goes_on() -> None:
    async def body() -> None:
        async with Pair() as pair:
            size = 20 * READ_AHEAD
            pair.writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            before = -1
            while pair.client.buffered != before:
                before = pair.client.buffered
                await asyncio.sleep(0.05)
            assert READ_AHEAD <= pair.client.buffered < 4 * READ_AHEAD
            await pair.client.next_head()
            got = 0
            while not isinstance(event := await pair.client.next(), End):
                assert isinstance(event, Data)
                got += len(event.payload)
            assert got == size

    run(body)


def test_where_all_hold_much_a_connection_holds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ahead.ReadAhead(ahead.MANY)
    monkeypatch.setattr(ahead, "shared", shared)
    assert shared.take(), "another connection has the only place"

    async def body() -> None:
        async with Pair() as pair:
            size = 20 * READ_AHEAD
            pair.writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            before = -1
            while pair.client.buffered != before:
                before = pair.client.buffered
                await asyncio.sleep(0.05)
            assert ahead.FEW <= before < READ_AHEAD
            await pair.client.next_head()
            got = 0
            while not isinstance(event := await pair.client.next(), End):
                assert isinstance(event, Data)
                got += len(event.payload)
            assert got == size and shared.taken == 1
            shared.give_back()
            pair.writer.write(bytes(READ_AHEAD // 2))
            while not pair.client.buffered:
                await asyncio.sleep(0.01)
        assert shared.taken == 0, "a connection that ends gives its place back"

    run(body)


def test_writing_pauses_for_a_slow_client() -> None:
    async def body() -> None:
        async with Pair() as pair:
            pair.writer.transport.pause_reading()  # type: ignore[attr-defined]
            sent = 0
            while not pair.client.write_paused:
                pair.client.write(bytes(1 << 18))
                sent += 1 << 18
            assert sent < 16 * WRITE_AHEAD
            drained = spawn(pair.client.drain(), name="drain")
            await asyncio.sleep(0.02)
            assert not drained.done()
            pair.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await pair.reader.readexactly(sent)
            await drained

    run(body)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_client_that_goes_ends_its_task(how: str) -> None:
    async def body() -> None:
        async with Pair() as pair:
            pair.client.idle = False
            getattr(pair.writer.transport, how)()
            assert pair.task is not None
            await asyncio.wait({pair.task})
            assert pair.task.cancelled()
            assert pair.closed == [pair.client]

    run(body)


def test_who_waits_is_told_that_the_client_went() -> None:
    async def body() -> None:
        async with Pair() as pair:
            pair.writer.write(b"GET / HT")
            waiting = spawn(pair.client.next(), name="next", on_error=lambda error: None)
            await asyncio.sleep(0.02)
            pair.client.end("it was late")
            await asyncio.wait({waiting})
            assert isinstance(waiting.exception(), ClientGone)
            assert str(waiting.exception()) == "it was late"
            with pytest.raises(ClientGone):
                await pair.client.next()

    run(body)


def test_the_end_between_requests_is_no_fault() -> None:
    seen: list[object] = []

    async def serve(client: ClientConnection) -> None:
        seen.append(await client.next_head())
        seen.append(await client.next())
        seen.append(await client.next_head())

    async def body() -> None:
        async with Pair(serve) as pair:
            pair.writer.write(REQUEST % 1)
            pair.writer.write_eof()
            assert pair.task is not None
            await asyncio.wait({pair.task})
        assert isinstance(seen[0], RequestHead)
        assert seen[2:] in ([None], [])

    run(body)


def test_an_abort_inside_a_request_is_a_reset() -> None:
    """An answer that ends with the connection would otherwise look whole."""

    async def body() -> None:
        async with Pair() as pair:
            pair.client.idle = False
            pair.client.write(b"half of it")
            await pair.reader.readexactly(10)
            pair.client.abort()
            with pytest.raises(ConnectionResetError):
                await pair.reader.read()

    run(body)


def test_discard_lets_the_client_read_the_last_answer() -> None:
    async def serve(client: ClientConnection) -> None:
        await client.next_head()
        client.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await client.discard(4 << 20, 5)
        client.close()

    async def body() -> None:
        async with Pair(serve) as pair:
            pair.writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n")
            for _ in range(20):
                pair.writer.write(b"zz\r\n" * 25_000)  # whatever it is: it is part of no request any more
                await pair.writer.drain()
            assert (await pair.reader.read()).startswith(b"HTTP/1.1 403")
            pair.writer.close()

    run(body)


def test_discard_ends_at_its_limit() -> None:
    async def serve(client: ClientConnection) -> None:
        await client.discard(1 << 20, 60)
        client.close()

    async def body() -> None:
        async with Pair(serve) as pair:
            assert pair.task is not None
            while not pair.task.done():
                pair.writer.write(bytes(1 << 16))
                await asyncio.sleep(0)

    run(body)


def test_discard_has_a_deadline_for_the_listener_to_keep() -> None:
    async def serve(client: ClientConnection) -> None:
        await client.discard(1 << 20, 7)

    async def body() -> None:
        async with Pair(serve) as pair:
            await asyncio.sleep(0.01)
            assert 6 < pair.client.deadline - pair.loop.time() <= 7

    run(body)
