"""WebSocket connections (RFC 6455) through the path: after the target's 101, bytes both ways, each on record first.

What is guaranteed:

- In `strict`, bytes towards the target are durable before they are sent; bytes towards the client are at least
  appended before they are sent. All who wait at the same time share one commit.
- A slow reader on either side holds the other side back: per direction at most `HELD` bytes and what one read of a
  socket gives are kept.
- A killed session ends the connection within a second, whether anything moves or not; so does a side that closes.

The bytes are not looked at here: what the messages are is read from the record.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from narrows.core.errors import UpstreamError
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.session.call import Outbound
from narrows.tasks import spawn
from narrows.upstream.http import UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import RequestHead, ResponseHead

if TYPE_CHECKING:
    from narrows.path import Gateway

HELD = 256 * 1024
"""Bytes of one side that wait to be passed on; above it that side is not read."""

LOOK_SECONDS = 0.4
"""How often a connection on which nothing moves is held against its session and its time limit."""

FLUSH_SECONDS = 5.0
"""How long the last bytes may take to the side that did not close."""


def asking(out: Outbound, request: RequestHead) -> Outbound:
    """`out` with the fields of this hop that ask to switch protocols, which a handler leaves out like any others."""
    lines = b"Connection: Upgrade\r\nUpgrade: " + request.upgrade + b"\r\n\r\n"
    return replace(out, head=out.head[:-2] + lines, recorded_head=out.recorded_head[:-2] + lines)


class Side(asyncio.Protocol):
    """One side's transport once it has left HTTP. `owner` goes on learning that its socket is gone."""

    def __init__(self, owner: ClientConnection | UpstreamConnection, held: bytes, *, paused: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._pieces = [held] if held else []
        self._size = len(held)
        self._reading_paused = False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.transport = owner.transport
        self.paused = paused
        self.ended = False
        self.lost = self._loop.create_future()
        self.error: Exception | None = None
        if owner.closed:
            self.ended = True
            self.lost.set_result(None)
        else:
            self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Keep it for `read`, and stop reading when far enough ahead."""
        self._pieces.append(data)
        self._size += len(data)
        self._wake()
        if self._size > HELD and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The side sends nothing more; as elsewhere in the path, a half-close counts as a close."""
        self.ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.ended = True
        self.error = exc
        self.paused = False
        self._wake()
        self.resume_writing()
        self._owner.connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """The side reads more slowly than the other one sends."""
        self.paused = True

    def resume_writing(self) -> None:
        """The side caught up."""
        self.paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        self._readable = None

    async def read(self) -> bytes:
        """All that has come and was not yet read; waits for something. Empty at the end."""
        while not self._pieces:
            if self.ended:
                return b""
            self._readable = self._loop.create_future()
            await self._readable
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        if self._reading_paused and not self.lost.done():
            self._reading_paused = False
            self.transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the side is slow. What is for a side that is gone is dropped: `ended` says so."""
        if self.lost.done():
            return
        self.transport.write(data)
        while self.paused:
            self._writable = self._loop.create_future()
            await self._writable

    async def finish(self) -> None:
        """Close after what is queued was sent, which may take FLUSH_SECONDS."""
        if not self.lost.done():
            self.transport.close()
            await asyncio.wait({self.lost}, timeout=FLUSH_SECONDS)


class Switched:
    """A connection that has left HTTP, from the target's 101 to its end."""

    def __init__(
        self,
        client: ClientConnection,
        conn: UpstreamConnection,
        record: ExchangeRecord,
        gateway: Gateway,
        strict: bool,
    ) -> None:
        self._record = record
        self._gateway = gateway
        self._strict = strict
        self._client_connection = client
        self._moved = gateway.loop.time()
        self._failure: BaseException | None = None
        self._client = Side(client, client.detach(), paused=client.write_paused)
        self._target = Side(conn, conn.detach(), paused=conn.write_paused)

    async def run(self, head: ResponseHead, secrets: tuple[bytes, ...]) -> dict[str, Any]:
        """Pass the 101 on, then all that follows, until a side closes in order: returns facts about that.

        Raises Refusal when the session was killed, UpstreamError or ClientGone when a side broke off or nothing
        moved for the path's longest wait, RecorderFailed.
        """
        raw = scrub.head(head.raw, head.lines, head.shape)
        self._record.response(scrub.secrets(raw, secrets))
        self._client.transport.write(scrub.secrets(head.raw, secrets))
        up = spawn(self._up(), name="switched: up", on_error=self._failed)
        down = spawn(self._down(), name="switched: down", on_error=self._failed)
        both: set[asyncio.Task[Any]] = {up, down}
        try:
            while not (up.done() or down.done()):
                await asyncio.wait(both, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._look()
            await asyncio.sleep(0)  # the failure of one that is done is told in the next round
            if self._failure is not None:
                raise self._failure
            by = "target" if down.done() else "client"
            await (self._client if down.done() else self._target).finish()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        self._check_ends()
        return {"closed_by": by}

    def _failed(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _look(self) -> None:
        self._gateway.check_live(self._record.session)
        if self._gateway.loop.time() - self._moved > self._gateway.limits.answer_s:
            self._client_connection.ended_because = "nothing moved on the connection for too long"
            raise ClientGone(self._client_connection.ended_because)

    def _check_ends(self) -> None:
        """Raise for a side that did not close in order."""
        if self._target.error is not None:
            raise UpstreamError("The target broke off", str(self._target.error), phase="response")
        why = self._client_connection.ended_because or str(self._client.error or "")
        if why:
            raise ClientGone(why)

    async def _up(self) -> None:
        recorder = self._gateway.recorder
        while data := await self._client.read():
            self._moved = self._gateway.loop.time()
            self._record.request(data, end=False)
            if self._strict:
                await recorder.durable(self._record.last)
            self._gateway.check_live(self._record.session)
            await self._target.write(data)
            await recorder.room()

    async def _down(self) -> None:
        recorder = self._gateway.recorder
        while data := await self._target.read():
            self._moved = self._gateway.loop.time()
            self._record.response(data)
            self._gateway.check_live(self._record.session)
            await self._client.write(data)
            await recorder.room()


