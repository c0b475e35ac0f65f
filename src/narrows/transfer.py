"""Moving bodies: from the client up, from the target down, each byte recorded before it goes on.

Part of the path (`path.py` says when, this module how). Nothing here decides.
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from concurrent.futures import Executor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.core.errors import ProtocolError, Refusal, UpstreamError
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.session.call import Outbound
from narrows.tasks import spawn
from narrows.upstream.http import UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import CHUNKED, LENGTH, NO_BODY, UNTIL_CLOSE, Data, End, RequestHead, ResponseHead

if TYPE_CHECKING:
    from narrows.path import Gateway

Bytes = bytes | memoryview

INLINE = 64 * 1024
"""Bytes that are hashed or re-signed on the event loop; more go to the executor (hashing releases the GIL)."""

MAX_GATHERED = 4 * 1024 * 1024
"""Longest body that is held in memory because its signature covers it undeclared, bytes; a longer one is spooled."""

MAX_SPOOLED = 1024 * 1024 * 1024
"""Longest body that is spooled, bytes: far above what any service takes that does not declare hashes."""

FLUSH = 64 * 1024
"""Answer bytes that are put together before they are recorded and sent."""

BATCH = 256 * 1024
"""Body bytes that are recorded and sent on together, at most, where as many are here."""

MAX_MASKED = 4 * 1024 * 1024
"""Longest error or redirect that is read whole to mask upstream secrets in it; a longer one is refused."""

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 10.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESPONSE_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"upgrade", b"proxy-authentication-info"}
)


class Body:
    """What has come of a request's body. `raw` is as on the wire; `continued` says that 100 was sent.

    `size` counts the decoded bytes, `held` those on the wire. `spool` has the bytes where there are too many to hold.
    """

    __slots__ = ("_pieces", "continued", "done", "held", "raw", "size", "spool", "trailers")

    def __init__(self) -> None:
        self.raw: list[Bytes] = []
        self._pieces: list[Bytes] = []
        self.done = False
        self.continued = False
        self.size = 0
        self.held = 0
        self.spool: Spool | None = None
        self.trailers: list[tuple[bytes, bytes]] = []

    def add(self, event: Data | End) -> None:
        """Take one event. Raises ProtocolError for a trailer that carries a credential."""
        if isinstance(event, Data):
            self.raw.append(event.raw)
            self._pieces.append(event.payload)
            self.size += len(event.payload)
            self.held += len(event.raw)
            if len(self.raw) > 1024:  # many small chunks: their objects would weigh more than their bytes
                self.raw = [b"".join(self.raw)]
                self._pieces = [b"".join(self._pieces)]
            return
        check_trailers(event)
        if event.raw:
            self.raw.append(event.raw)
        self.trailers = event.trailers
        self.done = True

    def drain(self) -> list[Bytes]:
        """Give up the pieces on the wire that are held."""
        raw, self.raw, self._pieces, self.held = self.raw, [], [], 0
        return raw

    def close(self) -> None:
        """Give back what the body holds beside memory."""
        if self.spool is not None:
            self.spool.close()

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


def check_trailers(end: End) -> None:
    """Raise ProtocolError for a trailer that carries a credential: it would go on, and on record, as it is."""
    for name, _value in end.trailers:
        if name in scrub.HEADERS:
            raise ProtocolError("The request was refused", "a trailer carries a credential")


def take_ready(client: ClientConnection, body: Body) -> None:
    """Take what is already here of the request's body, without waiting. Raises ProtocolError."""
    while not body.done:
        event = client.poll()
        if event is None:
            break
        assert not isinstance(event, RequestHead)
        body.add(event)


class Spool:
    """A body that is needed whole before anything may pass, and is too long to be held: kept in a file without a name.

    To `Upload` it is a client that sends the body again. `digest` is its SHA-256 once it is whole.
    """

    __slots__ = ("_at", "_executor", "_file", "_hash", "_loop", "_size", "deadline")

    def __init__(self, directory: Path | None, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        """Raises Refusal when no file can be made in `directory` (None: the system's for temporary files)."""
        try:
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as its exchange
        except OSError as error:
            raise _no_spool(error) from error
        self._loop = loop
        self._executor = executor
        self._hash = sha256()
        self._size = 0
        self._at = 0
        self.deadline = 0.0

    async def add(self, pieces: list[Bytes]) -> None:
        """Write further bytes. Raises Refusal when the disk takes no more."""
        try:
            await self._loop.run_in_executor(self._executor, self._write, pieces)
        except OSError as error:
            raise _no_spool(error) from error

    def _write(self, pieces: list[Bytes]) -> None:
        for piece in pieces:
            self._file.write(piece)
            self._hash.update(piece)
            self._size += len(piece)

    @property
    def digest(self) -> str:
        """SHA-256 of all that was added, in hexadecimal."""
        return self._hash.hexdigest()

    def poll(self) -> Data | End | None:
        """The end, once all was read back."""
        return End(b"", []) if self._at == self._size else None

    async def next(self) -> Data | End:
        """The next bytes, from the first on; then the end."""
        event = self.poll()
        if event is not None:
            return event
        data = await self._loop.run_in_executor(self._executor, self._read, self._at)
        if not data:
            raise OSError("the spooled body is shorter than what was written")
        self._at += len(data)
        return Data(data, data)

    def _read(self, at: int) -> bytes:
        self._file.seek(at)
        return self._file.read(BATCH)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def _no_spool(error: OSError) -> Refusal:
    return Refusal(
        "The body could not be kept while its signature is checked",
        error.strerror or type(error).__name__,
        "the gateway's data directory needs space for bodies under way",
        code="spool_failed",
        status=503,
        aws_code="ServiceUnavailable",
    )


async def take_body(client: ClientConnection, head: RequestHead, body: Body, gateway: Gateway) -> None:
    """Wait for the rest of a body that is needed whole: in memory up to MAX_GATHERED, then in a file.

    Raises Refusal for one that is longer than MAX_SPOOLED, or too long for memory and of unknown length; ClientGone.
    """
    if head.length > MAX_SPOOLED:
        raise _too_long(MAX_SPOOLED)
    while not body.done:
        client.deadline = gateway.loop.time() + gateway.limits.body_stall_s
        event = _of_body(await client.next())
        client.deadline = 0.0
        if event is None:
            raise ClientGone(client.ended_because)
        body.add(event)
        if body.held <= MAX_GATHERED:
            continue
        if head.framing != LENGTH:
            raise _too_long(MAX_GATHERED)
        if body.spool is None:
            body.spool = Spool(gateway.spool, gateway.loop, gateway.executor)
        await body.spool.add(body.drain())
    if body.spool is not None:
        await body.spool.add(body.drain())


def _too_long(limit: int) -> Refusal:
    return Refusal(
        "The body is too long to be checked",
        f"its signature covers it without declaring its hash, and it is over {limit} bytes",
        "have the client send x-amz-content-sha256",
        code="body_too_long",
        status=413,
        aws_code="RequestEntityTooLarge",
    )


def ask_to_continue(client: ClientConnection) -> None:
    """Send 100 (RFC 9110 section 10.1.1)."""
    client.write(_CONTINUE)


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
        """Send the head and begin."""
        self._conn.deadline = 0.0  # until the body is up, only the sides' own progress is timed
        self._conn.write(self._out.head)
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
        ready = self._body.payload()
        if ready:
            await self._forward(ready)
        following: Data | None = None
        while True:
            raw, payload, end, following = await self._batch(following)
            self._record.request(_joined(raw), end=end is not None)
            if end is None:
                await self._forward(_joined(payload))
                continue
            data = await self._fed(_joined(payload)) if payload else b""
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
            event = _of_body(self._source.poll())
        return raw, payload, None, None

    async def _next(self) -> Data | End:
        self._source.deadline = self._gateway.loop.time() + self._gateway.limits.body_stall_s
        event = _of_body(await self._source.next())
        self._source.deadline = 0.0
        if event is None:
            raise ClientGone()
        return event

    async def _fed(self, payload: Bytes) -> Bytes:
        if len(payload) > INLINE:
            return await self._gateway.loop.run_in_executor(self._gateway.executor, self._out.pipe.feed, payload)
        return self._out.pipe.feed(payload)

    async def _forward(self, payload: Bytes) -> None:
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
        if last:
            self._write(last)
        if self._out.chunked:
            self._conn.write(_last_chunk(end.trailers))
        self._conn.deadline = gateway.loop.time() + gateway.limits.answer_s
        self._body.done = True
        self.done = True
        self.sent_ns = gateway.clock.mono_ns()


def _joined(pieces: list[Bytes]) -> Bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _of_body(event: RequestHead | Data | End | None) -> Data | End | None:
    assert not isinstance(event, RequestHead)
    return event


class Answer:
    """The target's answer on its way to the client.

    `started` is True once bytes of it have gone to the client; `delimited` when its end does not depend on the
    target closing; `keep` when the client's connection can carry another request afterwards.

    Where `secrets` are given (an error, a redirect), they are masked in the head, and the body is held whole to be
    masked too: it must not be cut where a secret lies (P3).
    """

    __slots__ = (
        "_client", "_coding", "_conn", "_dechunk", "_gateway", "_head", "_mask", "_out", "_raw", "_record", "_request",
        "_secrets", "_size", "delimited", "keep", "started",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        conn: UpstreamConnection,
        request: RequestHead,
        head: ResponseHead,
        record: ExchangeRecord,
        gateway: Gateway,
        secrets: tuple[bytes, ...],
        keep: bool,
    ) -> None:
        self._client = client
        self._conn = conn
        self._head = head
        self._record = record
        self._gateway = gateway
        self._secrets = secrets
        self._mask = head.framing != NO_BODY and bool(secrets)
        self._coding = (head.get(b"content-encoding") or b"").strip().lower() if self._mask else b""
        # Without chunks for a client of HTTP/1.0, and for an answer that is looked through for secrets: a chunk
        # boundary must not hide one.
        self._dechunk = head.framing == CHUNKED and (request.minor == 0 or self._mask)
        self.delimited = head.framing != UNTIL_CLOSE
        self.keep = keep and (self.delimited or self._mask) and not (self._dechunk and not self._mask)
        self.started = False
        self._raw: list[Bytes] = [self._clean(scrub.head(head.raw, head.lines, head.shape))]
        self._request = request
        self._out: list[Bytes] = [] if self._mask else [self._clean(self._client_head())]
        self._size = 0

    def _clean(self, head: bytes) -> bytes:
        return scrub.secrets(head, self._secrets) if self._secrets else head

    def _client_head(self, length: int = -1, *, decoded: bool = False) -> bytes:
        """The head as the client sees it: the target's own bytes but for headers of this hop.

        `length` replaces what the target said of the body's; `decoded` says that the body has no coding any more.
        """
        head, request = self._head, self._request
        key = ("client", self._dechunk, length >= 0, decoded)
        places = head.shape.plans.get(key)
        if places is None:
            skip = set(_RESPONSE_HOP)
            if self._dechunk or length >= 0:
                skip |= {b"transfer-encoding", b"trailer"}
            if length >= 0:
                skip.add(b"content-length")
            if decoded:
                skip.add(b"content-encoding")
            places = [at for at, name in enumerate(head.shape.names) if name not in skip]
            head.shape.remember(key, places)
        lines = head.lines
        if length < 0 and len(places) == len(lines) and head.minor == 1 and self.keep and request.minor == 1:
            return head.raw
        kept = [lines[at] for at in places]
        if length >= 0:
            kept.append(b"Content-Length: %d" % length)
        if not self.keep:
            kept.append(b"Connection: close")
        elif request.minor == 0:
            kept.append(b"Connection: keep-alive")
        first = b"HTTP/1.1 %d %s" % (head.status, head.reason)
        return b"\r\n".join([first, *kept, b"", b""])

    async def until_end(self) -> None:
        """Relay everything but the last bytes; returns when the answer is whole. Raises UpstreamError, ClientGone."""
        conn = self._conn
        following: ResponseHead | Data | End | None = None
        while True:
            event = following or conn.poll()
            following = None
            if event is None:
                if not self._mask:
                    await self._flush()
                event = await self._next()
            if isinstance(event, End):
                self._take_end(event)
                return
            assert isinstance(event, Data)  # a parser gives a head only after an End
            self._raw.append(event.raw)
            self._out.append(event.payload if self._dechunk else event.raw)
            self._size += len(event.raw)
            if self._size < FLUSH:
                continue
            if self._mask:
                if self._size > MAX_MASKED:
                    raise UpstreamError("The target's error answer is too long to be checked", phase="response")
                continue
            # The end may already be here: then these bytes are the last ones, and must wait.
            following = conn.poll()
            if not isinstance(following, End):
                await self._flush()

    async def _next(self) -> ResponseHead | Data | End:
        self._conn.deadline = self._gateway.loop.time() + self._gateway.limits.body_stall_s
        event = await self._conn.next()
        self._conn.deadline = 0.0
        return event

    def _take_end(self, end: End) -> None:
        if end.raw:
            self._raw.append(end.raw)
            if not self._dechunk:
                self._out.append(end.raw)

    async def _flush(self) -> None:
        """Record what has come, then pass it on; wait for a slow client and for the recorder."""
        if not self._raw:
            return
        self._record.response(self.unrecorded())
        self.started = True
        client = self._client
        if client.closed:
            raise ClientGone(client.ended_because)
        for piece in self._out:
            client.write(piece)
        self._out = []
        if client.write_paused:
            client.deadline = self._gateway.loop.time() + self._gateway.limits.body_stall_s
            await client.drain()
            client.deadline = 0.0
        await self._gateway.recorder.room()

    def unrecorded(self) -> Bytes:
        """Take what has come of the answer and is not yet on record, masked where it must be."""
        raw, self._raw, self._size = self._raw, [], 0
        if not self._mask:
            return raw[0] if len(raw) == 1 else b"".join(raw)
        # Cut short: nothing can be said of a coded body, and of another what it ends with may begin a secret.
        body, self._out = b"" if self._coding else b"".join(self._out), []
        return b"".join(raw[:1]) + scrub.secrets(body, self._secrets, cut=True)

    def ending(self) -> tuple[Bytes, bytes]:
        """The last bytes: (to record, to send). Raises UpstreamError for an error answer that cannot be checked."""
        if self._mask:
            return self._masked()
        self.started = True
        raw = self.unrecorded()
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out = []
        return raw, bytes(out)

    def _masked(self) -> tuple[bytes, bytes]:
        """A whole error or redirect, with upstream secrets masked for the client and for the record (P3).

        S3's SignatureDoesNotMatch repeats the canonical request, and with it the session token; its redirects
        repeat the query.
        """
        body = b"".join(self._out)
        plain = _decoded(body, self._coding)
        clean = scrub.secrets(plain, self._secrets)
        found = clean is not plain
        if not found:
            clean = body
        framed = self._head.framing == LENGTH and not found
        sent = self._clean(self._client_head(-1 if framed else len(clean), decoded=found and bool(self._coding)))
        raw, self._raw, self._out = self._raw, [], []
        self.started = True
        return (b"".join(raw[:1]) + clean if found else b"".join(raw)), sent + clean


def _decoded(body: bytes, coding: bytes) -> bytes:
    """A body without its content coding. Raises UpstreamError where that cannot be told: a secret could be in it."""
    if not coding or coding == b"identity":
        return body
    if coding in (b"gzip", b"x-gzip", b"deflate"):
        reader = zlib.decompressobj(wbits=47 if coding != b"deflate" else 15)
        try:
            plain = reader.decompress(body, MAX_MASKED)
        except zlib.error:
            plain = None
        if plain is not None and reader.eof and not reader.unused_data:
            return plain
    raise UpstreamError(
        "The target's error answer cannot be checked for secrets",
        "its content coding was not understood, or unpacks to too much",
        phase="response",
    )
