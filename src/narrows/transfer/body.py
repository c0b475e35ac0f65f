"""Request bodies: what has come of them, and how one that must be whole before it may pass is kept until then."""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import Executor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from narrows.core.errors import ProtocolError, Refusal
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.session.call import Answering, Call, Handler, Outbound
from narrows.wire import scrub
from narrows.wire.http1 import CHUNKED, LENGTH, Data, End, RequestHead

if TYPE_CHECKING:
    from narrows.path import Gateway

Bytes = bytes | memoryview

INLINE = 64 * 1024
"""Bytes that are hashed or re-signed on the event loop; more go to the executor (hashing releases the GIL)."""

MAX_GATHERED = 4 * 1024 * 1024
"""Longest body that is held in memory because its signature covers it undeclared, bytes; a longer one is spooled."""

MAX_TOGETHER = 128 * 1024 * 1024
"""Bytes of all such bodies of a worker that are held in memory; past it, one of more than INLINE bytes is spooled."""

MAX_SPOOLED = 1024 * 1024 * 1024
"""Longest body that is spooled, bytes: far above what any service takes that does not declare hashes."""

BATCH = 256 * 1024
"""Body bytes that are recorded and sent on together, at most, where as many are here."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Together:
    """The bytes that a worker's bodies hold in memory until they are whole."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Body:
    """What has come of a request's body. `raw` is as on the wire; `continued` says that 100 was sent.

    `size` counts the decoded bytes, `held` those on the wire. `spool` has the bytes where there are too many to hold.
    """

    __slots__ = ("_pieces", "_together", "continued", "counted", "done", "held", "raw", "size", "spool", "trailers")

    def __init__(self, together: Together | None = None) -> None:
        self._together = together
        self.counted = 0
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
        self._uncount()
        raw, self.raw, self._pieces, self.held = self.raw, [], [], 0
        return raw

    def _uncount(self) -> None:
        if self._together is not None:
            self._together.held -= self.counted
            self.counted = 0

    def may_hold(self, limit: int = MAX_GATHERED) -> bool:
        """Whether what has come may stay in memory, `limit` bytes at most; counts it."""
        together = self._together
        if together is None:
            return self.held <= limit
        together.held += self.held - self.counted
        self.counted = self.held
        return self.held <= (limit if together.held <= MAX_TOGETHER else INLINE)

    def close(self) -> None:
        """Give back what the body holds, in memory and beside it."""
        self._uncount()
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

    def through_now(self, out: Outbound) -> bytes:
        """A whole body of at most INLINE bytes as it goes upstream: checked, re-signed, framed. Raises Refusal."""
        return self._through(out, self.payload())

    async def through(self, out: Outbound, loop: asyncio.AbstractEventLoop, executor: Executor) -> bytes:
        """The same for a longer one, beside the event loop. Raises Refusal."""
        return await loop.run_in_executor(executor, self._through, out, self.payload())

    def _through(self, out: Outbound, payload: bytes) -> bytes:
        body = out.pipe.feed(payload) if payload else b""
        last = out.pipe.finish(self.trailers)
        if not out.chunked:
            return bytes(body) + last if last else bytes(body)
        return _chunk(body) + _chunk(last) + last_chunk(self.trailers)


def _chunk(data: Bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n" if data else b""


def last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
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
    """Wait for the rest of a body that is needed whole: in memory up to MAX_GATHERED, and where all of them together
    are over MAX_TOGETHER up to INLINE; then in a file.

    Raises Refusal for one that is longer than MAX_SPOOLED, or too long for memory and of unknown length; ClientGone.
    """
    if head.length > MAX_SPOOLED:
        raise _too_long(MAX_SPOOLED)
    while not body.done:
        client.deadline = gateway.loop.time() + gateway.limits.body_stall_s
        event = of_body(await client.next())
        client.deadline = 0.0
        if event is None:
            raise ClientGone(client.ended_because)
        body.add(event)
        if body.may_hold():
            continue
        if head.framing != LENGTH:
            raise _too_long(MAX_GATHERED if body.held > MAX_GATHERED else INLINE)
        if body.spool is None:
            body.spool = Spool(gateway.spool, gateway.loop, gateway.executor)
        await body.spool.add(body.drain())
    if body.spool is not None:
        await body.spool.add(body.drain())


async def take_limited(client: ClientConnection, head: RequestHead, body: Body, gateway: Gateway, limit: int) -> None:
    """Wait for the rest of a body that is needed in memory, of at most `limit` bytes.

    Raises Refusal for a longer one, as soon as that is known, or where all bodies together take too much memory.
    """
    while not body.done:
        if max(head.length, body.size) > limit:
            raise too_long(limit)
        client.deadline = gateway.loop.time() + gateway.limits.body_stall_s
        event = of_body(await client.next())
        client.deadline = 0.0
        if event is None:
            raise ClientGone(client.ended_because)
        body.add(event)
        if not body.may_hold(2 * limit):  # with the framing of chunks
            raise Refusal(
                "The body was not taken", "the gateway holds too many at this moment", "send it again later",
                code="too_many_bodies", status=503, aws_code="ServiceUnavailable",
            )  # fmt: skip


def too_long(limit: int) -> Refusal:
    """The refusal of a body of more than `limit` bytes, decoded."""
    why, hint = f"the most is {limit} bytes here", "send less at a time"
    return Refusal("The body is too long", why, hint, code="body_too_long", status=413)


def _too_long(limit: int) -> Refusal:
    return Refusal(
        "The body is too long to be checked",
        f"its signature covers it without declaring its hash, and it is over {limit} bytes",
        "have the client send x-amz-content-sha256",
        code="body_too_long",
        status=413,
        aws_code="RequestEntityTooLarge",
    )


def recorded_body(body: Body, call: Call, handler: Handler | None) -> bytes:
    """What has come of a body as it goes on record: as on the wire, with what its handler masks masked."""
    raw = b"".join(body.raw)
    if call.recorded_body is not None and body.done:
        return _framed(raw, call.recorded_body) if call.head.framing == CHUNKED else call.recorded_body
    if handler is not None and handler.answers:
        return cast(Answering, handler).mask(raw)
    return raw


def _framed(raw: bytes, payload: bytes) -> bytes:
    """`raw`, a whole chunked body, with `payload`, which is as long, in place of what its chunks carry."""
    out: list[bytes] = []
    at = taken = 0
    while True:
        start = raw.index(b"\r\n", at) + 2
        size = int(raw[at : start - 2].partition(b";")[0], 16)
        if not size:
            out.append(raw[at:])
            return b"".join(out)
        out += (raw[at:start], payload[taken : taken + size], b"\r\n")
        taken += size
        at = start + size + 2


def ask_to_continue(client: ClientConnection) -> None:
    """Send 100 (RFC 9110 section 10.1.1)."""
    client.write(_CONTINUE)


def joined(pieces: list[Bytes]) -> Bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def of_body(event: RequestHead | Data | End | None) -> Data | End | None:
    assert not isinstance(event, RequestHead)
    return event
