"""The target's answer on its way to the client."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import zstandard

from narrows.core.errors import UpstreamError
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.transfer.body import Bytes
from narrows.upstream.http import UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import CHUNKED, LENGTH, NO_BODY, UNTIL_CLOSE, Data, End, RequestHead, ResponseHead

if TYPE_CHECKING:
    from narrows.path import Gateway

FLUSH = 64 * 1024
"""Answer bytes that are put together before they are recorded and sent."""

MAX_MASKED = 4 * 1024 * 1024
"""Longest error or redirect that is read whole to mask upstream secrets in it; a longer one is refused."""

_RESPONSE_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"upgrade", b"proxy-authentication-info"}
)


class Answer:
    """The target's answer on its way to the client.

    `started` is True once bytes of it have gone to the client; `delimited` when its end does not depend on the
    target closing; `keep` when the client's connection can carry another request afterwards.

    `secrets` are masked in heads and trailers. Of an error or a redirect the body is held whole to be masked too: it
    must not be cut where a secret lies (P3).
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
        self._mask = head.framing != NO_BODY and bool(secrets) and head.status >= 300
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

    def at_hand(self) -> bool:
        """Take what is here of the answer, up to FLUSH bytes; True when that is all of it."""
        while self._size < FLUSH:
            event = self._conn.poll()
            if event is None:
                return False
            if isinstance(event, End):
                self._take_end(event)
                return True
            assert isinstance(event, Data)
            self._take(event)
        return False

    def _take(self, event: Data) -> None:
        self._raw.append(event.raw)
        self._out.append(event.payload if self._dechunk else event.raw)
        self._size += len(event.raw)

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
            self._take(event)
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
            raw = self._clean(end.raw)
            self._raw.append(raw)
            if not self._dechunk:
                self._out.append(raw)

    async def _flush(self) -> None:
        """Record what has come, then pass it on; wait for a slow client and for the recorder."""
        if not self._raw:
            return
        self._record.response(self.unrecorded())
        if self.started:  # a short answer, which says how a call that was made went, still passes
            self._gateway.check_live(self._record.session)
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
        if not found and self._coding and scrub.secrets(body, self._secrets) is not body:
            raise UpstreamError("The target's error answer carries a secret where none belongs", phase="response")
        if not found:
            clean = body
        framed = self._head.framing == LENGTH and not found
        sent = self._clean(self._client_head(-1 if framed else len(clean), decoded=found and bool(self._coding)))
        raw, self._raw, self._out = self._raw, [], []
        self.started = True
        whole = b"".join(raw)
        if found or scrub.secrets(whole, self._secrets) is not whole:  # also beside the body: in what chunks carry
            whole = b"".join(raw[:1]) + clean
        return whole, sent + clean


def _decoded(body: bytes, coding: bytes) -> bytes:
    """A body without its content coding. Raises UpstreamError where that cannot be told: a secret could be in it."""
    if not coding or coding == b"identity":
        return body
    unpack = _CODINGS.get(coding)
    plain = unpack(body) if unpack is not None else None
    if plain is None or len(plain) > MAX_MASKED:
        raise UpstreamError(
            "The target's error answer cannot be checked for secrets",
            "its content coding was not understood, or unpacks to too much",
            phase="response",
        )
    return plain


def _inflate(body: bytes, bits: int) -> bytes | None:
    """What one whole stream holds, with nothing behind it; None for anything else."""
    reader = zlib.decompressobj(wbits=bits)
    try:
        plain = reader.decompress(body, MAX_MASKED)
    except zlib.error:
        return None
    return plain if reader.eof and not reader.unused_data else None


def _zstd(body: bytes) -> bytes | None:
    machine = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with machine.stream_reader(body) as reader:  # bounded, and says nothing of the frame's end
            if len(reader.read(MAX_MASKED + 1)) > MAX_MASKED:
                return None
        whole = machine.decompressobj()
        plain = whole.decompress(body)
    except zstandard.ZstdError:
        return None
    return plain if whole.eof and not whole.unused_data else None


def _brotli(body: bytes) -> bytes | None:
    brotli = import_module("brotli")  # asked for by few clients, and it has no types
    machine = brotli.Decompressor()
    out = b""
    given = body
    try:
        while len(out) <= MAX_MASKED and not machine.is_finished():
            piece = machine.process(given, output_buffer_limit=FLUSH)
            if not piece and not machine.is_finished():
                return None
            given = b""
            out += piece
    except brotli.error:
        return None
    return out if machine.is_finished() else None


_WINDOW = 8 << 20
"""Largest window that a zstd body may ask for (RFC 8878 section 3.1.1.1.2)."""
_CODINGS: dict[bytes, Callable[[bytes], bytes | None]] = {
    b"gzip": lambda body: _inflate(body, zlib.MAX_WBITS | 32),
    b"x-gzip": lambda body: _inflate(body, zlib.MAX_WBITS | 32),
    b"deflate": lambda body: _inflate(body, zlib.MAX_WBITS),
    b"zstd": _zstd,
    b"br": _brotli,
}
