"""A request body on its way up while it still comes in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from narrows.core.errors import UpstreamError
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.session.call import Outbound
from narrows.tasks import spawn
from narrows.transfer.body import BATCH, INLINE, Body, Bytes, Spool, check_trailers, joined, last_chunk, of_body
from narrows.upstream.http import UpstreamConnection
from narrows.wire.http1 import Data, End

if TYPE_CHECKING:
    from narrows.path import Gateway


class Upload:
    """A request body on its way up while it still comes in; runs beside the wait for the answer.

    `done` is True once its last byte went up. What goes wrong on the client's side of it, or with the body itself,
    ends the connection to the target, whatever the target is answering: `failure` then says what it was.

    `source` is the client, or the spool that its body was gathered in.
    """

    __slots__ = (
        "_body", "_conn", "_gateway", "_out", "_record", "_source", "_strict", "_task", "done", "failure", "ready_ns",
        "sent_ns",
    )  # fmt: skip

    def __init__(
        self,
        source: ClientConnection | Spool,
        conn: UpstreamConnection,
        out: Outbound,
        body: Body,
        record: ExchangeRecord,
        gateway: Gateway,
        strict: bool,
    ) -> None:
        self._source = source
        self._conn = conn
        self._out = out
        self._body = body
        self._record = record
        self._gateway = gateway
        self._strict = strict
        self._task: asyncio.Task[None] | None = None
        self.done = False
        self.failure: BaseException | None = None
        self.ready_ns = 0
        self.sent_ns = 0

    def start(self) -> None:
        """Begin."""
        self._conn.deadline = 0.0  # until the body is up, only the sides' own progress is timed
        self._task = spawn(self._run(), name="upload", on_error=self._failed)

    def _failed(self, error: BaseException) -> None:
        """Called once, with what ended the upload: ends the wait for the answer too, so that the exchange sees it."""
        if isinstance(error, UpstreamError):
            return  # the target stopped reading: its answer, if it gave one, says why
        self.failure = error
        self._conn.abort()

    def stop(self) -> None:
        """End it; what was not sent is not sent."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def settle(self) -> None:
        """The answer is whole. An upload that still runs is of no more use to the target: stop it."""
        if self._task is not None and not self._task.done():
            self.stop()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        # A target may act on a head alone (a DELETE, say): it must not see one that is not durable.
        if self._strict:
            await self._gateway.recorder.durable(self._record.last)
            self._gateway.check_live(self._record.session)
        self._conn.write(self._out.head)
        ready = self._body.payload()
        if ready:
            await self._forward(ready)
        following: Data | None = None
        while True:
            raw, payload, end, following = await self._batch(following)
            self._record.request(joined(raw), end=end is not None)
            if end is None:
                await self._forward(joined(payload))
                continue
            data = await self._fed(joined(payload)) if payload else b""
            await self._complete(bytes(data), end)
            return

    async def _batch(self, event: Data | End | None) -> tuple[list[Bytes], list[Bytes], End | None, Data | None]:
        """What is here of the body, up to BATCH: (as on the wire, decoded, its end if that is here, what follows).

        The end is looked for before a batch goes on: the last bytes of a body must wait until they are durable.
        """
        if event is None:
            event = await self._next()
        raw: list[Bytes] = []
        payload: list[Bytes] = []
        size = 0
        while event is not None:
            if isinstance(event, End):
                check_trailers(event)
                if event.raw:
                    raw.append(event.raw)
                return raw, payload, event, None
            if size >= BATCH:
                return raw, payload, None, event
            raw.append(event.raw)
            payload.append(event.payload)
            size += len(event.raw)
            event = of_body(self._source.poll())
        return raw, payload, None, None

    async def _next(self) -> Data | End:
        self._source.deadline = self._gateway.loop.time() + self._gateway.limits.body_stall_s
        event = of_body(await self._source.next())
        self._source.deadline = 0.0
        if event is None:
            raise ClientGone()
        return event

    async def _fed(self, payload: Bytes) -> Bytes:
        if len(payload) > INLINE:
            return await self._gateway.loop.run_in_executor(self._gateway.executor, self._out.pipe.feed, payload)
        return self._out.pipe.feed(payload)

    async def _forward(self, payload: Bytes) -> None:
        self._gateway.check_live(self._record.session)
        data = await self._fed(payload)
        if data:
            self._write(data)
        if self._conn.write_paused:
            self._conn.deadline = self._gateway.loop.time() + self._gateway.limits.body_stall_s
            await self._conn.drain()
            self._conn.deadline = 0.0
        await self._gateway.recorder.room()

    def _write(self, data: Bytes) -> None:
        if self._out.chunked:
            self._conn.write(b"%x\r\n" % len(data))
            self._conn.write(data)
            self._conn.write(b"\r\n")
        else:
            self._conn.write(data)

    async def _complete(self, data: bytes, end: End) -> None:
        """The last bytes of the body: they go up only checked and durable."""
        gateway = self._gateway
        self.ready_ns = gateway.clock.mono_ns()
        last = data + self._out.pipe.finish(end.trailers)
        if self._strict:
            await gateway.recorder.durable(self._record.last)
        gateway.check_live(self._record.session)
        if last:
            self._write(last)
        if self._out.chunked:
            self._conn.write(last_chunk(end.trailers))
        self._conn.deadline = gateway.loop.time() + gateway.limits.answer_s
        self._body.done = True
        self.done = True
        self.sent_ns = gateway.clock.mono_ns()
