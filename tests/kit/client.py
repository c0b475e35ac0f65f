"""A raw client: signs, writes exact bytes, and keeps every byte that comes back."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass, field
from hashlib import sha256

from narrows.wire import canonical, sigv4
from narrows.wire.http1 import Data, End, ResponseHead, ResponseParser

Lines = list[tuple[bytes, bytes]]


@dataclass
class Response:
    """One answer. `informational` are the statuses of 1xx heads before it."""

    status: int
    head: ResponseHead
    body: bytes = b""
    raw: bytes = b""
    trailers: Lines = field(default_factory=list)
    informational: list[int] = field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """A header by its lower-cased name."""
        return self.head.get(name)


class Client:
    """One connection to the gateway. `received` is every byte that came from it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()
        self._parser = ResponseParser(1 << 20)

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None, host: str = "localhost") -> Client:
        """Connect to a port of this machine."""
        name = host if tls is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name, limit=1 << 20)
        return cls(reader, writer)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on in TLS, as after CONNECT."""
        await self.writer.start_tls(context, server_hostname=host)

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)

    async def read(self) -> bytes:
        """The next bytes; empty at the end, also at a reset."""
        try:
            data = await self.reader.read(1 << 18)
        except (ConnectionError, ssl.SSLError):
            data = b""
        self.received += data
        return data

    async def rest(self) -> bytes:
        """All until the gateway closes."""
        start = len(self.received)
        while await self.read():
            pass
        return bytes(self.received[start:])

    async def response(self, method: bytes = b"GET") -> Response:
        """The next final answer. Raises ConnectionError when there is none, or it is cut short."""
        self._parser.expect(method)
        found: Response | None = None
        informational: list[int] = []
        body = bytearray()
        raw = bytearray()
        ended = False
        while True:
            try:
                event = self._parser.next()
            except Exception as error:
                if ended:
                    raise ConnectionError("the answer was cut") from error
                raise
            if event is None:
                if ended:
                    raise ConnectionError("no answer, or half of one")
                data = await self.read()
                if data:
                    self._parser.feed(data)
                else:
                    ended = True
                    try:
                        self._parser.eof()
                    except Exception as error:
                        raise ConnectionError("the answer was cut") from error
                continue
            raw += event.raw
            if isinstance(event, ResponseHead):
                if event.status < 200:
                    informational.append(event.status)
                    continue
                found = Response(event.status, event, informational=informational)
            elif isinstance(event, Data):
                body += event.payload
            else:
                assert isinstance(event, End) and found is not None
                found.body, found.raw, found.trailers = bytes(body), bytes(raw), event.trailers
                return found

    async def ask(self, request: bytes, method: bytes = b"GET") -> Response:
        """Send one request and read its answer."""
        self.send(request)
        return await self.response(method)

    async def closed(self) -> bool:
        """True once the gateway closed without sending more; False if bytes came instead."""
        return not await self.read()

    def close(self) -> None:
        """Close in order."""
        self.writer.close()

    def reset(self) -> None:
        """Send RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(frozen=True)
class Signer:
    """Signs requests with a lease, as an SDK would. `date` is fixed for the tests that need it wrong."""

    credentials: sigv4.Credentials
    now_s: int
    region: str = "eu-west-1"

    def key(self, service: str) -> bytes:
        """The signing key of the day."""
        date = canonical.amz_date(self.now_s)[:8]
        return sigv4.signing_key(self.credentials.secret_access_key, date, self.region, service)

    def head(
        self,
        method: bytes = b"GET",
        target: bytes = b"/bucket/key",
        *,
        host: bytes = b"localhost",
        service: str = "s3",
        payload_hash: bytes = b"",
        declare: bool = True,
        body: bytes = b"",
        extra: Lines | None = None,
        unsigned: Lines | None = None,
        version: bytes = b"HTTP/1.1",
    ) -> tuple[bytes, str]:
        """A signed head, and its signature. `unsigned` headers are added after signing.

        The body's hash is declared in `x-amz-content-sha256` if `declare`.
        """
        amz = canonical.amz_date(self.now_s)
        digest = payload_hash or sha256(body).hexdigest().encode()
        token = (self.credentials.session_token or "").encode()
        headers: Lines = [(b"host", host), (b"x-amz-date", amz.encode()), (b"x-amz-security-token", token)]
        if declare:
            headers.append((b"x-amz-content-sha256", digest))
        headers += extra or []
        value, seed = sigv4.sign(
            method, target, headers, digest, self.credentials, self.key(service), amz, amz[:8], self.region, service
        )
        lines = [*headers, *(unsigned or []), (b"Authorization", value)]
        first = method + b" " + target + b" " + version
        return first + b"\r\n" + b"".join(n + b": " + v + b"\r\n" for n, v in lines) + b"\r\n", seed

    def request(
        self, method: bytes = b"GET", target: bytes = b"/bucket/key", body: bytes = b"", **more: object
    ) -> bytes:
        """A whole signed request with a Content-Length where it has a body."""
        unsigned: Lines = list(more.pop("unsigned", None) or [])  # type: ignore[call-overload]
        if body or method in (b"PUT", b"POST"):
            unsigned.append((b"Content-Length", b"%d" % len(body)))
        head, _seed = self.head(method, target, body=body, unsigned=unsigned, **more)  # type: ignore[arg-type]
        return head + body

    def dynamodb(self, operation: bytes = b"ListTables", body: bytes = b"{}", **more: object) -> bytes:
        """A call whose body takes part in the signature without being declared, as botocore makes them."""
        extra: Lines = [
            (b"x-amz-target", b"DynamoDB_20120810." + operation),
            (b"content-type", b"application/x-amz-json-1.0"),
        ]
        return self.request(b"POST", b"/", body, service="dynamodb", declare=False, extra=extra, **more)

    def presigned(self, method: bytes = b"GET", target: bytes = b"/bucket/key", *, expires: int = 300,
                  signed: Lines | None = None, host: bytes = b"localhost") -> bytes:  # fmt: skip
        """The target of a presigned S3 URL."""
        from urllib.parse import quote

        amz = canonical.amz_date(self.now_s)
        scope = f"{amz[:8]}/{self.region}/s3/aws4_request"
        headers: Lines = [(b"host", host), *(signed or [])]
        names = b";".join(sorted(name for name, _ in headers)).decode()
        query = "&".join(
            f"{name}={quote(value, safe='-_.~')}"
            for name, value in (
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                ("X-Amz-Credential", f"{self.credentials.access_key_id}/{scope}"),
                ("X-Amz-Date", amz),
                ("X-Amz-Expires", str(expires)),
                ("X-Amz-Security-Token", self.credentials.session_token or ""),
                ("X-Amz-SignedHeaders", names),
            )
        )
        full = target + (b"&" if b"?" in target else b"?") + query.encode()
        request = sigv4.canonical_request(
            method, full, headers, tuple(sorted(n for n, _ in headers)), b"UNSIGNED-PAYLOAD", "s3"
        )
        import hmac

        to_sign = f"AWS4-HMAC-SHA256\n{amz}\n{scope}\n{sha256(request).hexdigest()}"
        return full + b"&X-Amz-Signature=" + hmac.digest(self.key("s3"), to_sign.encode(), "sha256").hex().encode()
