"""A target that does what its script says, and keeps its own ledger of what reached it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from narrows.core.errors import NarrowsError
from narrows.wire import aws_chunked, sigv4
from narrows.wire.http1 import Data, End, RequestHead, RequestParser

Script = Callable[["Conn", "Received"], Awaitable[None]]


@dataclass
class Received:
    """One request as the origin saw it. `raw` is every byte of it; `body` the bytes inside HTTP's own framing."""

    head: RequestHead
    raw: bytearray = field(default_factory=bytearray)
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    whole: bool = False
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    digest: str = ""

    def verify(self, credentials: sigv4.Credentials, now_s: float) -> bytes:
        """Check the signature as AWS does, body included; returns the payload. Raises AuthError, AssertionError."""
        head = self.head
        claim = sigv4.parse(head.method, head.target, head.headers)
        assert claim is not None, "the request is not signed"
        assert claim.access_key_id == credentials.access_key_id
        assert (claim.token or b"").decode() == (credentials.session_token or "")
        key = sigv4.signing_key(credentials.secret_access_key, claim.date, claim.region, claim.service)
        found = sigv4.verify(claim, head.method, head.target, head.headers, key, now_s, sha256(self.body).hexdigest())
        if found.body_sha256:
            assert sha256(self.body).hexdigest() == found.body_sha256
        if not found.payload.chunked:
            return bytes(self.body)
        decoded = head.get(b"x-amz-decoded-content-length")
        signer = None
        if found.payload is not sigv4.PayloadKind.STREAMING_UNSIGNED_TRAILER:
            signer = sigv4.ChunkSigner(key, found.scope, found.amz_date, found.signature)
        declared = frozenset(name.strip() for name in (head.get(b"x-amz-trailer") or b"").split(b",") if name)
        reader = aws_chunked.Decoder(found.payload, signer, int(decoded) if decoded else None, declared)
        events = reader.feed(bytes(self.body))
        reader.finish()
        return b"".join(bytes(event.data) for event in events if isinstance(event, aws_chunked.Chunk))


class Conn:
    """The origin's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = RequestParser(1 << 20)
        self._keep = keep
        self.ended = asyncio.Event()

    async def head(self) -> Received | None:
        """The next request's head; None when the other side closed."""
        event = await self._event()
        if event is None:
            return None
        assert isinstance(event, RequestHead)
        return Received(event, bytearray(event.raw))

    async def body(self, received: Received) -> bytes:
        """Read the whole body. Raises ConnectionResetError when it never becomes whole."""
        digest = sha256()
        while not received.whole:
            event = await self._event()
            if event is None:
                raise ConnectionResetError("the request was cut")
            assert not isinstance(event, RequestHead)
            if isinstance(event, Data):
                received.size += len(event.payload)
                if self._keep:
                    received.raw += event.raw
                    received.body += event.payload
                else:
                    digest.update(event.payload)
                continue
            received.raw += event.raw
            received.trailers = event.trailers
            received.whole = True
        received.digest = digest.hexdigest()
        return bytes(received.body)

    async def _event(self) -> RequestHead | Data | End | None:
        while True:
            event = self._parser.next()
            if event is not None:
                return event
            try:
                data = await self._reader.read(1 << 18)
            except (ConnectionError, ssl.SSLError):
                data = b""
            if not data:
                self.ended.set()
                return None
            self._parser.feed(data)

    async def read(self) -> bytes:
        """Bytes as they come, once the connection has left HTTP; empty at the end."""
        held = self._parser.take()
        if held:
            return held
        try:
            return await self._reader.read(1 << 18)
        except (ConnectionError, ssl.SSLError):
            return b""

    async def gone(self) -> None:
        """Return when the other side closed or reset."""
        while not self.ended.is_set():
            if await self._event() is None:
                return

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting for a slow reader."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(
        self, status: int = 200, body: bytes = b"", headers: tuple[bytes, ...] = (), *, length: bool = True
    ) -> None:
        """A whole answer in one piece."""
        lines = [*headers, *([b"Content-Length: %d" % len(body)] if length else [])]
        await self.write(b"HTTP/1.1 %d Scripted\r\n" % status + b"".join(x + b"\r\n" for x in lines) + b"\r\n" + body)

    def half_close(self) -> None:
        """Send FIN, go on reading."""
        self._writer.write_eof()

    def close(self) -> None:
        """Close in order."""
        self._writer.close()

    def reset(self) -> None:
        """Send RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def plain(conn: Conn, received: Received) -> None:
    """The default script: read the body, answer 200."""
    await conn.body(received)
    await conn.answer(200, b"ok")


class Origin:
    """Serves on a loopback port; `ledger` holds every request whose head arrived, in order."""

    def __init__(self, script: Script = plain, *, keep: bool = True) -> None:
        self.script = script
        self.keep = keep
        self.ledger: list[Received] = []
        self.connections = 0
        self.port = 0
        self.faults: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._arrived = asyncio.Condition()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop, and drop every connection."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def arrived(self, count: int) -> Received:
        """Wait until `count` heads came; the last of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.ledger) >= count)
        return self.ledger[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        conn = Conn(reader, writer, self.keep)
        try:
            while (received := await conn.head()) is not None:
                async with self._arrived:
                    self.ledger.append(received)
                    self._arrived.notify_all()
                await self.script(conn, received)
                if writer.is_closing():
                    break
        except (ConnectionError, ssl.SSLError):
            conn.ended.set()
        except RuntimeError as error:  # uvloop's stream resumes a transport that was reset meanwhile
            if "closed" not in str(error):
                raise
            conn.ended.set()
        except NarrowsError as error:
            self.faults.append(error)
        except asyncio.CancelledError:
            pass  # the loop ends
        finally:
            self._writers.discard(writer)
            writer.close()
