"""An origin with a ledger of its own, and clients that keep calling it through the gateway.

What the origin has in its ledger has happened; what a client was answered, it was told. Both are compared with the
record afterwards. The signature is made here, from the text of the specification and not by the code under test.
"""

from __future__ import annotations

import asyncio
import hmac
import http.client
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tests.gateway import REGION

_ID = re.compile(rb'"id": \{"S": "([0-9a-f-]{36})"')
ANSWER_TIMEOUT_S = 20


def id_of(raw: bytes) -> str:
    """The unique id in a request's bytes, or an empty string."""
    found = _ID.search(raw)
    return found[1].decode() if found else ""


class Origin:
    """An HTTP server in a thread. `ledger` has the id of every request that came whole, in order."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.ledger: list[str] = []
        self.delay_s = delay_s
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="origin", daemon=True)

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        """End, with all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.ledger.append(id_of(body))
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                answer = b'{"Attributes": ' + body + b"}"
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway closed the connection, or died
        finally:
            writer.close()


@contextmanager
def origin(delay_s: float = 0.0) -> Iterator[Origin]:
    """A running origin."""
    server = Origin(delay_s)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Signer:
    """SigV4 for one lease."""

    def __init__(self, lease: Mapping[str, str]) -> None:
        self._lease = lease
        self._keys: dict[str, bytes] = {}

    def _key(self, day: str) -> bytes:
        if day not in self._keys:
            key = b"AWS4" + self._lease["secret_access_key"].encode()
            for part in (day, REGION, "dynamodb", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keys[day] = key
        return self._keys[day]

    def headers(self, host: str, body: bytes) -> dict[str, str]:
        """All headers of a signed PutItem."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {
            "content-type": "application/x-amz-json-1.0", "host": host, "x-amz-date": now,
            "x-amz-security-token": self._lease["session_token"], "x-amz-target": "DynamoDB_20120810.PutItem",
        }  # fmt: skip
        signed = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"POST\n/\n\n{lines}\n{signed}\n{sha256(body).hexdigest()}"
        scope = f"{now[:8]}/{REGION}/dynamodb/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key(now[:8]), text.encode(), "sha256").hex()
        credential = f"{self._lease['access_key_id']}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers


@dataclass(slots=True)
class Call:
    """What came of one call: the status, or what broke."""

    ident: str
    status: int = 0
    body: bytes = b""
    broke: str = ""


@dataclass(slots=True)
class Load:
    """Clients that call without pause until stopped."""

    gateway_url: str
    lease: Mapping[str, str]
    connections: int = 4
    calls: list[Call] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        """host:port of the gateway."""
        return self.gateway_url.removeprefix("http://")

    def start(self) -> None:
        """Begin."""
        for number in range(self.connections):
            thread = threading.Thread(target=self._client, name=f"client {number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let each client end its call."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_TIMEOUT_S + 5)
            assert not thread.is_alive()

    def answered(self) -> list[Call]:
        """Calls that were answered with 200."""
        return [call for call in list(self.calls) if call.status == 200]

    def one(self) -> Call:
        """One call on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_TIMEOUT_S)
        call = self._call(connection, Signer(self.lease))
        connection.close()
        return call

    def _client(self) -> None:
        signer = Signer(self.lease)
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_TIMEOUT_S)
        while not self._stop.is_set():
            call = self._call(connection, signer)
            self.calls.append(call)
            if call.broke:
                connection.close()
                self._stop.wait(0.01)
        connection.close()

    def _call(self, connection: http.client.HTTPConnection, signer: Signer) -> Call:
        call = Call(str(uuid.uuid4()))
        body = b'{"TableName": "ledger", "Item": {"id": {"S": "%b"}}}' % call.ident.encode()
        try:
            connection.request("POST", "/", body, signer.headers(self.address, body))
            answer = connection.getresponse()
            call.body = answer.read()
            call.status = answer.status
        except (OSError, http.client.HTTPException) as error:
            call.broke = type(error).__name__
        return call


@contextmanager
def load(gateway: Any, connection: str = "origin", connections: int = 4) -> Iterator[Load]:
    """Load in a session of its own, until the end of the block."""
    body = {
        "agent": {"name": "load", "version": ""}, "command": ["load"], "cwd": "/", "host": "test", "pid": 1,
        "connections": [connection],
    }  # fmt: skip
    api = gateway.client()
    opened = api.post("/sessions", body)
    api.close()
    running = Load(opened["gateway_url"], opened["leases"][0], connections)
    running.start()
    try:
        yield running
    finally:
        running.stop()
