"""Connections to targets: dialled through the guard, verified, pooled, read with back-pressure.

A connection carries one exchange at a time. It goes back to the pool only after a whole answer with keep-alive;
anything else closes it. Nothing is ever sent twice by this module: whether a request may be repeated is for the
path to know.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from narrows.core.errors import ProtocolError, UpstreamError
from narrows.core.values import Connection
from narrows.upstream import guard
from narrows.wire import ahead
from narrows.wire.http1 import Data, End, ResponseHead, ResponseParser

READ_AHEAD = ahead.MANY
WRITE_AHEAD = 1024 * 1024


class Origin(NamedTuple):
    """Where a connection leads: `scheme` is `http` or `https`; `connection` is the registered target's name."""

    scheme: str
    host: str
    port: int
    connection: str


class UpstreamConnection(asyncio.Protocol):
    """One socket to a target."""

    __slots__ = (
        "_ahead", "_drain_waiter", "_error", "_loop", "_parser", "_paused", "_reader_paused", "_waiter",
        "address", "answered", "closed", "deadline", "idle_since", "on_idle_lost", "origin", "transport", "used",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> None:
        self._loop = loop
        self.origin = origin
        self._parser = ResponseParser()
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._reader_paused = False
        self._ahead = False
        self._error: Exception | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.address = ""
        self.closed = False
        self.answered = False
        self.deadline = 0.0
        self.idle_since = 0.0
        self.used = False
        self.on_idle_lost: Callable[[UpstreamConnection], None] | None = None

    # -- asyncio.Protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport and turn Nagle's delay off."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_AHEAD)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = transport.get_extra_info("peername")
        self.address = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def data_received(self, data: bytes) -> None:
        """Feed the parser and wake the reader; bytes that nobody asked for end the connection."""
        self.answered = True
        if self.on_idle_lost is not None:
            self.abort()  # an answer without a request: never hand this connection to anyone
            return
        self._parser.feed(data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._parser.buffered > ahead.FEW and not self._reader_paused:
            self._read_less()

    def _read_less(self) -> None:
        """Stop reading, unless what is held is still within a place of the common budget."""
        if not self._ahead:
            self._ahead = ahead.shared.take()
        if not self._ahead or self._parser.buffered > READ_AHEAD:
            self._reader_paused = True
            self.transport.pause_reading()

    def _caught_up(self) -> None:
        """Nothing is held any more."""
        if self._ahead:
            self._ahead = False
            ahead.shared.give_back()
        if self._reader_paused and not self.closed:
            self._reader_paused = False
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The target will send nothing more: that ends an answer without a length, and cuts any other."""
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.closed = True
        self._caught_up()
        self._end(exc)
        if self.on_idle_lost is not None:
            self.on_idle_lost(self)

    def _end(self, exc: Exception | None) -> None:
        """Note how the stream ended. Only a proper end may stand for the end of an answer without a length."""
        if self._error is None:
            begun = self._parser.mid_message
            why = str(exc or "")
            if exc is None:
                try:
                    self._parser.eof()
                except ProtocolError as error:
                    why = error.why or error.what
            what = "broke off in the middle of its answer" if begun else "closed the connection without an answer"
            self._error = UpstreamError(f"The target {what}", why, phase="response")
        for waiter in (self._waiter, self._drain_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._waiter = self._drain_waiter = None

    def pause_writing(self) -> None:
        """The target reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The target caught up."""
        self._paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)
        self._drain_waiter = None

    # -- one exchange -----------------------------------------------------------------------------------------

    def begin(self, method: bytes) -> None:
        """Say which request the next answer belongs to (an answer to HEAD has no body)."""
        self.answered = False
        self._parser.expect(method)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes to the target. Raises UpstreamError when it is gone."""
        if self._error is not None:
            raise self._error
        self.transport.write(data)

    @property
    def write_paused(self) -> bool:
        """True while the target is slow: the path awaits `drain` before it reads more from the client."""
        return self._paused

    async def drain(self) -> None:
        """Wait until the target has taken enough. Raises UpstreamError when it is gone."""
        while self._paused:
            if self._error is not None:
                raise self._error
            waiter = self._loop.create_future()
            self._drain_waiter = waiter
            await waiter

    def poll(self) -> ResponseHead | Data | End | None:
        """The next event of the answer if it is already here. Raises UpstreamError."""
        try:
            event = self._parser.next()
        except ProtocolError as error:
            if self._error is not None:
                raise self._error from error
            raise UpstreamError(
                "The target's answer is not valid HTTP", f"{error.what}: {error.why}", phase="response"
            ) from error
        if event is None and (self._ahead or self._reader_paused):
            self._caught_up()
        return event

    async def next(self) -> ResponseHead | Data | End:
        """Wait for the next event of the answer. Raises UpstreamError."""
        while True:
            event = self.poll()
            if event is not None:
                return event
            if self._error is not None:
                raise self._error
            waiter = self._loop.create_future()
            self._waiter = waiter
            await waiter

    def detach(self) -> bytes:
        """Give the transport over to another protocol object: returns what came and was not asked for."""
        self._caught_up()
        return self._parser.take()

    @property
    def clean(self) -> bool:
        """True when nothing is left over from the last answer."""
        return not self.closed and self._error is None and self._parser.buffered == 0

    def abort(self) -> None:
        """Close at once: a request that was cut must not look whole to the target.

        What has come of an answer is not whole either, though it may be of the kind that ends with the connection.
        """
        if self._error is None:
            self._error = UpstreamError("The connection to the target was given up", phase="response")
        if self.transport is not None and not self.closed:
            self.transport.abort()

    def expire(self) -> None:
        """Abort because the target let its time pass."""
        self.deadline = 0.0
        if self._error is None:
            self._error = UpstreamError(
                "The target was too slow", "it let its time limit pass", phase="response", status=504
            )
        self.abort()


class Pool:
    """Idle connections by origin, newest first, and the making of new ones.

    `per_origin` bounds the connections to one origin; at the bound `acquire` waits its turn, in order, and no
    longer than `connect_timeout_s`.
    """

    def __init__(self, *, per_origin: int, idle_s: float, connect_timeout_s: float, own_ports: frozenset[int]) -> None:
        self._per_origin = per_origin
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._own_ports = own_ports
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._open: dict[Origin, set[UpstreamConnection]] = {}
        self._dialling: dict[Origin, int] = {}
        self._waiting: dict[Origin, deque[asyncio.Future[None]]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._sweep = self._loop.call_later(1.0, self._enforce)

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """An idle connection to `origin`, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            conn = idle.pop()
            conn.on_idle_lost = None
            if conn.clean:
                return conn
            conn.abort()
            self._forget(conn)
        return None

    async def acquire(self, origin: Origin, connection: Connection, *, fresh: bool = False) -> UpstreamConnection:
        """An idle connection (not if `fresh`), or a new one. Raises UpstreamError or Refusal (the guard's)."""
        deadline = self._loop.time() + self._connect_timeout_s
        while True:
            conn = None if fresh else self.take(origin)
            if conn is not None:
                return conn
            if len(self._open.get(origin, ())) + self._dialling.get(origin, 0) < self._per_origin:
                return await self._dial(origin, connection)
            await self._turn(origin, deadline)

    async def _turn(self, origin: Origin, deadline: float) -> None:
        """Wait, in order, until a connection to `origin` is free or may be made. Raises UpstreamError at `deadline`."""
        turn = self._loop.create_future()
        waiting = self._waiting.setdefault(origin, deque())
        waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            raise UpstreamError(
                f"No connection to {origin.host} was free",
                f"all {self._per_origin} were in use for {self._connect_timeout_s:g} s",
                "raise max_connections_per_upstream",
                phase="dial",
                status=503,
            ) from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake(origin)  # the turn had been given to one who is gone: hand it on
            raise
        finally:
            if turn in waiting:
                waiting.remove(turn)
            if not waiting and self._waiting.get(origin) is waiting:
                del self._waiting[origin]

    async def _dial(self, origin: Origin, connection: Connection) -> UpstreamConnection:
        self._dialling[origin] = self._dialling.get(origin, 0) + 1
        conn = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                addresses = await guard.resolve(
                    self._loop, origin.host, origin.port, connection, own_ports=self._own_ports
                )
                conn = await self._connect(origin, connection, addresses)
        except TimeoutError:
            raise UpstreamError(
                f"{origin.host}:{origin.port} did not answer",
                f"no connection after {self._connect_timeout_s:g} s",
                phase="dial",
                status=504,
            ) from None
        finally:
            self._dialling[origin] -= 1
            if not self._dialling[origin]:
                del self._dialling[origin]
            if conn is None:
                self._wake(origin)  # the place is free again
        return conn

    async def _connect(self, origin: Origin, connection: Connection, addresses: list[str]) -> UpstreamConnection:
        tls = self._context(connection.ca_file) if origin.scheme == "https" else None
        kwargs: dict[str, Any] = {"ssl": tls, "server_hostname": origin.host} if tls else {}
        last: Exception | None = None
        for address in addresses:
            try:
                _transport, conn = await self._loop.create_connection(
                    lambda: UpstreamConnection(self._loop, origin), address, origin.port, **kwargs
                )
            except ssl.SSLError as error:
                raise UpstreamError(
                    f"{origin.host} could not prove who it is",
                    error.reason or str(error),
                    "a private CA is set with the connection's ca_file",
                    phase="tls",
                ) from error
            except OSError as error:
                last = error
                continue
            self._open.setdefault(origin, set()).add(conn)
            return conn
        raise UpstreamError(
            f"{origin.host}:{origin.port} could not be reached", str(last or "no address"), phase="dial"
        ) from last

    def _context(self, ca_file: str) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[ca_file] = context
        return context

    def release(self, conn: UpstreamConnection, *, reusable: bool) -> None:
        """Give a connection back after its answer is whole; anything not `reusable` and clean is closed."""
        if reusable and conn.clean:
            conn.idle_since = self._loop.time()
            conn.deadline = 0.0
            conn.on_idle_lost = self._forget
            self._idle.setdefault(conn.origin, []).append(conn)
        else:
            conn.abort()
            self._forget(conn)
        self._wake(conn.origin)

    def _forget(self, conn: UpstreamConnection) -> None:
        conn.on_idle_lost = None
        idle = self._idle.get(conn.origin)
        if idle is not None:
            if conn in idle:
                idle.remove(conn)
            if not idle:
                del self._idle[conn.origin]
        live = self._open.get(conn.origin)
        if live is not None:
            live.discard(conn)
            if not live:
                del self._open[conn.origin]
        self._wake(conn.origin)

    def _wake(self, origin: Origin) -> None:
        waiting = self._waiting.get(origin)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _enforce(self) -> None:
        """Close connections that were idle too long, or whose exchange passed its deadline."""
        now = self._loop.time()
        for idle in list(self._idle.values()):
            for conn in list(idle):
                if now - conn.idle_since > self._idle_s:
                    conn.abort()
                    self._forget(conn)
        for live in list(self._open.values()):
            for conn in list(live):
                if conn.deadline and now > conn.deadline:
                    conn.expire()
        self._sweep = self._loop.call_later(1.0, self._enforce)

    def close(self) -> None:
        """Abort everything."""
        self._sweep.cancel()
        for live in list(self._open.values()):
            for conn in list(live):
                conn.abort()
