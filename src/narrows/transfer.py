"""Moving bodies: from the client up, from the target down, each byte recorded before it goes on.

Part of the path (`path.py` says when, this module how). Nothing here decides.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from narrows.core.errors import Refusal, UpstreamError
from narrows.core.ports import Recorder
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.session.call import Outbound
from narrows.tasks import spawn
from narrows.upstream.http import UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, Data, End, RequestHead, ResponseHead

if TYPE_CHECKING:
    from narrows.path import Gateway

Bytes = bytes | memoryview

INLINE = 64 * 1024
"""Bytes that are hashed or re-signed on the event loop; more go to the executor (hashing releases the GIL)."""

MAX_GATHERED = 16 * 1024 * 1024
"""Longest body that is held whole because its signature covers it undeclared, bytes."""

FLUSH = 64 * 1024
"""Answer bytes that are put together before they are recorded and sent."""

MAX_MASKED = 1024 * 1024
"""Longest error answer that is read whole to mask upstream secrets in it; a longer one is cut off."""

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 10.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESPONSE_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"upgrade", b"proxy-authentication-info"}
)


class Body:
    """What has come of a request's body. `raw` is as on the wire; `continued` says that 100 was sent."""

    __slots__ = ("_pieces", "continued", "done", "raw", "size", "trailers")

    def __init__(self) -> None:
        self.raw: list[Bytes] = []
        self._pieces: list[Bytes] = []
        self.done = False
        self.continued = False
        self.size = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    def add(self, event: Data | End) -> None:
        """Take one event."""
        if isinstance(event, Data):
            self.raw.append(event.raw)
            self._pieces.append(event.payload)
            self.size += len(event.payload)
        else:
            if event.raw:
                self.raw.append(event.raw)
            self.trailers = event.trailers
            self.done = True

    def payload(self) -> bytes:
        """The decoded body so far."""
        if not self._pieces:
            return b""
        if len(self._pieces) == 1:
            return bytes(self._pieces[0])
        self._pieces = [b"".join(self._pieces)]
        return bytes(self._pieces[0])

    async def through(self, out: Outbound, loop: asyncio.AbstractEventLoop, executor: Executor) -> bytes:
        """The whole body as it goes upstream: checked, re-signed, framed. Raises Refusal."""
        payload = self.payload()
        if self.size > INLINE:
            return await loop.run_in_executor(executor, self._through, out, payload)
        return self._through(out, payload)

    def _through(self, out: Outbound, payload: bytes) -> bytes:
        body = out.pipe.feed(payload) if payload else b""
        last = out.pipe.finish(self.trailers)
        if not out.chunked:
            return bytes(body) + last if last else bytes(body)
        return _chunk(body) + _chunk(last) + _last_chunk(self.trailers)


def _chunk(data: Bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n" if data else b""


def _last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    return b"0\r\n" + b"".join([name + b": " + value + b"\r\n" for name, value in trailers]) + b"\r\n"


def take_ready(client: ClientConnection) -> Body:
    """Take what is already here of the request's body, without waiting. Raises ProtocolError."""
    body = Body()
    while not body.done:
        event = client.poll()
        if event is None:
            break
        assert not isinstance(event, RequestHead)
        body.add(event)
    return body


async def take_body(client: ClientConnection, body: Body, loop: asyncio.AbstractEventLoop, stall_s: float) -> None:
    """Wait for the rest of a body that is needed whole. Raises Refusal above MAX_GATHERED, ClientGone."""
    while not body.done:
        client.deadline = loop.time() + stall_s
        event = await client.next()
        if event is None:
            raise ClientGone()
        assert not isinstance(event, RequestHead)
        body.add(event)
        if body.size > MAX_GATHERED:
            raise Refusal(
                "The body is too long to be checked",
                f"its signature covers it without declaring its hash, and it is over {MAX_GATHERED} bytes",
                "have the client send x-amz-content-sha256",
                code="body_too_long",
                status=413,
                aws_code="RequestEntityTooLarge",
            )
    client.deadline = 0.0


def ask_to_continue(client: ClientConnection) -> None:
    """Send 100 (RFC 9110 section 10.1.1)."""
    client.write(_CONTINUE)


async def linger(client: ClientConnection, loop: asyncio.AbstractEventLoop) -> None:
    """Read and drop the rest of a refused body for a while, so that the client gets to read why.

    Closing at once would reset the connection under the client's writes, and its SDK would report that instead.
    """
    client.deadline = loop.time() + LINGER_SECONDS
    left = LINGER_BYTES
    while left > 0:
        event = await client.next()
        if event is None or isinstance(event, (End, RequestHead)):
            return
        left -= len(event.raw)


class Upload:
    """A request body on its way up while it still comes in; runs beside the wait for the answer."""

    __slots__ = (
        "_body", "_client", "_conn", "_gateway", "_out", "_record", "_strict", "_task", "done", "ready_ns", "sent_ns",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        conn: UpstreamConnection,
        out: Outbound,
        body: Body,
        record: ExchangeRecord,
        gateway: Gateway,
        strict: bool,
    ) -> None:
        self._client = client
        self._conn = conn
        self._out = out
        self._body = body
        self._record = record
        self._gateway = gateway
        self._strict = strict
        self._task: asyncio.Task[None] | None = None
        self.done = False
        self.ready_ns = 0
        self.sent_ns = 0

    def start(self) -> None:
        """Send the head and begin."""
        self._conn.write(self._out.head)
        self._task = spawn(self._run(), name="upload", on_error=_seen_by_first_answer)

    def stop(self) -> None:
        """End it; what was not sent is not sent."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def first_answer(self) -> Any:
        """The next event of the answer, or what went wrong with the upload, whichever comes first."""
        task = self._task
        assert task is not None
        answer = spawn(self._conn.next(), name="answer", on_error=_seen_by_first_answer)
        try:
            await asyncio.wait({answer, task}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and task.done():
                task.result()  # raises what the upload raised
                await asyncio.wait({answer})
            if answer.done() and task.done() and not task.cancelled() and isinstance(task.exception(), Refusal):
                task.result()
            return answer.result()
        finally:
            if not answer.done():
                answer.cancel()

    async def settle(self) -> None:
        """The answer is whole. An upload that still runs is of no more use to the target: stop it."""
        if self._task is not None and not self._task.done():
            self.stop()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        for piece in (self._body.payload(),):
            if piece:
                await self._forward(piece)
        loop = self._gateway.loop
        stall = self._gateway.limits.body_stall_s
        while True:
            self._client.deadline = loop.time() + stall
            event = await self._client.next()
            if event is None:
                raise ClientGone()
            if isinstance(event, End):
                await self._end(event)
                return
            assert isinstance(event, Data)
            following = self._client.poll()
            if isinstance(following, End):
                await self._last(event, following)
                return
            self._record.request(event.raw, end=False)
            await self._forward(event.payload)
            if isinstance(following, Data):
                self._record.request(following.raw, end=False)
                await self._forward(following.payload)

    async def _fed(self, payload: Bytes) -> Bytes:
        if len(payload) > INLINE:
            return await self._gateway.loop.run_in_executor(self._gateway.executor, self._out.pipe.feed, payload)
        return self._out.pipe.feed(payload)

    async def _forward(self, payload: Bytes) -> None:
        data = await self._fed(payload)
        if data:
            self._write(data)
        await self._room()

    def _write(self, data: Bytes) -> None:
        if self._out.chunked:
            self._conn.write(b"%x\r\n" % len(data))
            self._conn.write(data)
            self._conn.write(b"\r\n")
        else:
            self._conn.write(data)

    async def _room(self) -> None:
        if self._conn.write_paused:
            await self._conn.drain()
        await self._gateway.recorder.room()

    async def _last(self, event: Data, end: End) -> None:
        """The last bytes of the body are here: they go up only checked and durable."""
        self._record.request(event.raw, end=not end.raw)
        if end.raw:
            self._record.request(end.raw, end=True)
        data = await self._fed(event.payload)
        await self._complete(bytes(data), end)

    async def _end(self, end: End) -> None:
        self._record.request(end.raw, end=True)
        await self._complete(b"", end)

    async def _complete(self, data: bytes, end: End) -> None:
        self.ready_ns = self._gateway.clock.mono_ns()
        self._client.deadline = 0.0
        last = data + self._out.pipe.finish(end.trailers)
        if self._strict:
            await self._gateway.recorder.durable(self._record.last)
        if last:
            self._write(last)
        if self._out.chunked:
            self._conn.write(_last_chunk(end.trailers))
        self._body.done = True
        self.done = True
        self.sent_ns = self._gateway.clock.mono_ns()


def _seen_by_first_answer(error: BaseException) -> None:
    """`first_answer` raises it into the exchange; nothing is lost by not reporting it twice."""


class Answer:
    """The target's answer on its way to the client.

    `started` is True once bytes of it have gone to the client; `delimited` when its end does not depend on the
    target closing; `keep` when the client's connection can carry another request afterwards.
    """

    __slots__ = (
        "_client", "_conn", "_dechunk", "_head", "_mask", "_out", "_raw", "_record", "_recorder", "_request",
        "_secrets", "_size", "delimited", "keep", "started",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        conn: UpstreamConnection,
        request: RequestHead,
        head: ResponseHead,
        record: ExchangeRecord,
        recorder: Recorder,
        secrets: tuple[bytes, ...],
        keep: bool,
    ) -> None:
        self._client = client
        self._conn = conn
        self._head = head
        self._record = record
        self._recorder = recorder
        self._secrets = secrets
        self._mask = head.status >= 400 and head.framing != NO_BODY and bool(secrets)
        # Without chunks for a client of HTTP/1.0, and for an error that is looked through for secrets: a chunk
        # boundary must not hide one.
        self._dechunk = head.framing == CHUNKED and (request.minor == 0 or self._mask)
        self.delimited = head.framing != UNTIL_CLOSE
        self.keep = keep and self.delimited and not (self._dechunk and not self._mask)
        self.started = False
        self._raw: list[Bytes] = [scrub.head(head.raw, head.headers, head.lines)]
        self._request = request
        self._out: list[Bytes] = [] if self._mask else [self._client_head(head.headers, head.lines)]
        self._size = 0

    def _client_head(self, headers: list[tuple[bytes, bytes]], lines: list[bytes], extra: bytes = b"") -> bytes:
        """The head as the client sees it: the target's own bytes but for headers of this hop."""
        head, request = self._head, self._request
        hop = any(name in _RESPONSE_HOP for name, _value in headers)
        if not hop and not extra and head.minor == 1 and self.keep and request.minor == 1:
            return head.raw
        skip = _RESPONSE_HOP | {b"transfer-encoding"} if self._dechunk else _RESPONSE_HOP
        kept = [line for (name, _value), line in zip(headers, lines, strict=True) if name not in skip]
        if extra:
            kept.append(extra)
        if not self.keep:
            kept.append(b"Connection: close")
        elif request.minor == 0:
            kept.append(b"Connection: keep-alive")
        first = b"HTTP/1.1 %d %s" % (head.status, head.reason)
        return first + b"\r\n" + b"".join([line + b"\r\n" for line in kept]) + b"\r\n"

    async def until_end(self) -> None:
        """Relay everything but the last bytes; returns when the answer is whole. Raises UpstreamError, ClientGone."""
        conn = self._conn
        while True:
            event = conn.poll()
            if event is None:
                if not self._mask:
                    await self._flush()
                event = await conn.next()
            if isinstance(event, End):
                if event.raw:
                    self._raw.append(event.raw)
                    if not self._dechunk:
                        self._out.append(event.raw)
                return
            if not isinstance(event, Data):
                raise UpstreamError("The target sent a second head inside its answer", phase="response")
            self._raw.append(event.raw)
            self._out.append(event.payload if self._dechunk else event.raw)
            self._size += len(event.raw)
            if self._size >= FLUSH:
                if self._mask and self._size > MAX_MASKED:
                    raise UpstreamError("The target's error answer is too long to be checked", phase="response")
                if not self._mask:
                    # The end may already be here: then these bytes are the last ones, and must wait.
                    following = conn.poll()
                    if isinstance(following, End):
                        if following.raw:
                            self._raw.append(following.raw)
                            if not self._dechunk:
                                self._out.append(following.raw)
                        return
                    await self._flush()
                    if following is not None:
                        assert isinstance(following, Data)
                        self._raw.append(following.raw)
                        self._out.append(following.payload if self._dechunk else following.raw)
                        self._size = len(following.raw)

    async def _flush(self) -> None:
        """Record what has come, then pass it on; wait for a slow client and for the recorder."""
        if not self._raw:
            return
        self._record.response(self.unrecorded())
        self.started = True
        client = self._client
        if client.closed:
            raise ClientGone()
        for piece in self._out:
            client.write(piece)
        self._out = []
        if client.write_paused:
            await client.drain()
        await self._recorder.room()

    def unrecorded(self) -> Bytes:
        """Take what has come of the answer and is not yet on record."""
        raw, self._raw, self._size = self._raw, [], 0
        return raw[0] if len(raw) == 1 else b"".join(raw)

    def ending(self) -> tuple[Bytes, bytes]:
        """The last bytes: (to record, to send)."""
        self.started = True
        if self._mask:
            return self._masked()
        raw = self.unrecorded()
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out = []
        return raw, bytes(out)

    def _masked(self) -> tuple[bytes, bytes]:
        """A whole error answer, with upstream secrets masked for the client and for the record (P3).

        S3's SignatureDoesNotMatch repeats the canonical request, and with it the session token.
        """
        body = b"".join(self._out)
        clean = scrub.secrets(body, self._secrets)
        head, raw = self._head, b"".join(self._raw)
        self._raw, self._out = [], []
        extra = b"Content-Length: %d" % len(clean) if self._dechunk else b""
        sent = self._client_head(head.headers, head.lines, extra) + clean
        return (raw if clean == body else sent), sent
