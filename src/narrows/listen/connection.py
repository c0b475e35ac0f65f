"""One client's connection: socket bytes in, HTTP events out, with flow control both ways.

The path pulls: it asks for a head or for body events and gets what is there, or waits. What arrives before it is
asked for stays in the parser, and past `READ_AHEAD` bytes (64 KiB where all connections together hold much) the
socket is no longer read, so that neither a fast sender nor a pipelining one can fill memory (P8).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from narrows.core.errors import ProtocolError
from narrows.core.values import Lease
from narrows.wire import ahead
from narrows.wire.http1 import Data, End, RequestHead, RequestParser

READ_AHEAD = ahead.MANY
"""Bytes held for a reader that is busy; above it the socket is paused."""

WRITE_AHEAD = 1024 * 1024
"""Bytes held for a slow client; above it `drain` waits."""


_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing discards what is queued and sends RST (socket(7))."""


class ClientGone(Exception):
    """The connection ended while something was still expected of it; the text says why, where the gateway knows."""


class ClientConnection(asyncio.Protocol):
    """The listening side's protocol object; one for the life of the socket, also across CONNECT and TLS.

    `deadline` (loop time, seconds; 0 is none) is enforced by the listener's sweep: when it passes, the connection
    is closed. `peer` is `address:port`, or `pid:PID:START` for a process of this machine that the kernel named, which
    who accepts sets before (`local` where it did not). `tunnel` is the host of an accepted CONNECT, else empty;
    `tunnel_lease` the session token that opened it. `ended_because` says why the gateway itself ended the connection,
    if it did. `last` is set when the gateway stops: the request under way is the last one that this connection carries.

    A client that closes its sending side while its request runs counts as gone: a half-close cannot be told from a
    client that died, and going on would let the target work for nobody (nginx and Go's proxy read it the same way).
    """

    __slots__ = (
        "_ahead", "_body_waiter", "_drain_waiter", "_eof", "_loop", "_on_close", "_on_open", "_parser", "_paused",
        "_reading_paused", "_to_discard", "closed", "deadline", "detached", "ended_because", "idle", "last", "peer",
        "scheme", "server_task", "transport", "tunnel", "tunnel_lease", "tunnel_port",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_head: int,
        on_open: Callable[[ClientConnection], asyncio.Task[Any]],
        on_close: Callable[[ClientConnection], None],
        scheme: str,
    ) -> None:
        self._loop = loop
        self._parser = RequestParser(max_head)
        self._on_open = on_open
        self._on_close = on_close
        self._body_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._reading_paused = False
        self._ahead = False
        self._eof = False
        self._to_discard = 0
        self.closed = False
        self.detached = False
        self.ended_because = ""
        self.idle = True
        self.last = False
        self.deadline = 0.0
        self.peer = ""
        self.scheme = scheme
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.server_task: asyncio.Task[Any] | None = None
        self.tunnel = ""
        self.tunnel_port = 0
        self.tunnel_lease: Lease | None = None

    # -- asyncio.Protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport and start the path's task for this connection (once)."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_AHEAD)
        if self.server_task is None:
            name = transport.get_extra_info("peername")
            self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else self.peer or "local"
            self.server_task = self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, wake the reader, and stop reading when far enough ahead."""
        if self._to_discard:
            self._discard(len(data))
            return
        self._parser.feed(data)
        waiter = self._body_waiter
        if waiter is not None:
            self._body_waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._parser.buffered > ahead.FEW and not self._reading_paused:
            self._read_less()

    def _read_less(self) -> None:
        """Stop reading, unless what is held is still within a place of the common budget."""
        if not self._ahead:
            self._ahead = ahead.shared.take()
        if not self._ahead or self._parser.buffered > READ_AHEAD:
            self._reading_paused = True
            self.transport.pause_reading()

    def _caught_up(self) -> None:
        """Nothing is held any more."""
        if self._ahead:
            self._ahead = False
            ahead.shared.give_back()
        if self._reading_paused and not self.closed:
            self._reading_paused = False
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The client will send nothing more: what is queued for it is sent, and the connection closes."""
        self._eof = True
        if self._body_waiter is not None and not self._body_waiter.done():
            self._body_waiter.set_result(None)
        self._body_waiter = None
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: cancel what the path still does for it (it records why)."""
        self.closed = True
        self._eof = True
        for waiter in (self._body_waiter, self._drain_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(ClientGone(self.ended_because))
        self._body_waiter = self._drain_waiter = None
        self._caught_up()
        self._on_close(self)
        if self.server_task is not None and not self.server_task.done() and not self.detached:
            self.server_task.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client caught up."""
        self._paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)
        self._drain_waiter = None

    # -- reading ----------------------------------------------------------------------------------------------

    def poll(self) -> RequestHead | Data | End | None:
        """The next event if it is already here. Raises ProtocolError."""
        event = self._parser.next()
        if event is None and (self._ahead or self._reading_paused):
            self._caught_up()
        return event

    async def next(self) -> RequestHead | Data | End | None:
        """Wait for the next event. None: the client closed between messages. Raises ProtocolError, ClientGone."""
        while True:
            event = self.poll()
            if event is not None:
                return event
            if self._eof:
                if self._parser.mid_message or self._parser.buffered:
                    raise ClientGone(self.ended_because)
                return None
            waiter = self._loop.create_future()
            self._body_waiter = waiter
            await waiter

    async def next_head(self) -> RequestHead | None:
        """Wait for the head of the next request; None when the client is done."""
        event = self.poll()
        while event is None:  # as `next` does, which would be one more thing that can wait
            if self._eof:
                if self._parser.mid_message or self._parser.buffered:
                    raise ClientGone(self.ended_because)
                return None
            waiter = self._loop.create_future()
            self._body_waiter = waiter
            await waiter
            event = self.poll()
        if isinstance(event, RequestHead):
            return event
        raise ProtocolError("A body arrived where a request should begin")

    async def discard(self, limit: int, seconds: float) -> None:
        """Read and drop up to `limit` bytes for at most `seconds`, until the client closes: the answer was the last.

        Closing with bytes unread would reset the connection, and the client would report that in place of the
        answer it was sent (RFC 9112 section 9.6). Nothing is parsed any more: what comes is part of no request.
        """
        left = limit - len(self._parser.take())
        if self.closed or self._eof or left <= 0:
            return
        self._to_discard = left
        self.deadline = self._loop.time() + seconds
        self._caught_up()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        waiter = self._loop.create_future()
        self._body_waiter = waiter
        await waiter

    def _discard(self, size: int) -> None:
        self._to_discard = max(1, self._to_discard - size)
        if self._to_discard == 1 and self._body_waiter is not None:
            if not self._body_waiter.done():
                self._body_waiter.set_result(None)
            self._body_waiter = None

    @property
    def buffered(self) -> int:
        """Bytes received and not yet asked for."""
        return self._parser.buffered

    @property
    def ended(self) -> bool:
        """True when the client has said that it sends nothing more."""
        return self._eof

    # -- writing ----------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes to the client."""
        self.transport.write(data)

    @property
    def write_paused(self) -> bool:
        """True while the client is slow: the path then awaits `drain` before it reads more from upstream."""
        return self._paused

    async def drain(self) -> None:
        """Wait until the client has taken enough. Raises ClientGone."""
        while self._paused:
            if self.closed:
                raise ClientGone(self.ended_because)
            waiter = self._loop.create_future()
            self._drain_waiter = waiter
            await waiter

    def detach(self) -> bytes:
        """Give the transport over to another protocol object: returns what came and was not asked for.

        The path's task then learns from that object, not by being cancelled, that the socket is gone.
        """
        self.detached = True
        self._caught_up()
        return self._parser.take()

    def upgraded(self, transport: asyncio.Transport) -> None:
        """The same client, now through TLS."""
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self.scheme = "https"

    def end(self, why: str) -> None:
        """Abort because of a rule of ours; `why` goes on record should a request be under way."""
        self.ended_because = why
        self.deadline = 0.0
        self.abort()

    def close(self) -> None:
        """Close after what is queued has been sent."""
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        """Close at once, dropping what is queued: the client must not take a cut answer for a whole one.

        Inside a request the connection is reset: an answer without a length would otherwise end like a whole one.
        """
        if self.closed:
            return
        sock = None if self.idle else self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
