"""A whole gateway in one loop: real recorder, leases, directory, authority and models; a scripted origin behind it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from tests.kit.client import Client, Signer
from tests.kit.origin import Origin, Script, plain
from tests.kit.record import Recorded, exchanges

from narrows import processes
from narrows.clock import SystemClock
from narrows.core.errors import RecorderFailed
from narrows.core.values import Agent, ApiKey, Connection, Durability, Principal
from narrows.directory import FileDirectory, write
from narrows.identity.lease import LeaseIssuer
from narrows.listen.ca import CertificateAuthority
from narrows.listen.server import Listener, bind, bind_local
from narrows.listen.tunnel import Tunnels
from narrows.path import Gateway, Limits
from narrows.record.recorder import Recorder
from narrows.session.aws.handler import AwsHandler
from narrows.session.aws.models import Models
from narrows.session.call import Handler
from narrows.session.events.handler import EventsHandler
from narrows.session.http.handler import HttpHandler
from narrows.session.llm.handler import LlmHandler
from narrows.upstream.http import Pool
from narrows.wire.sigv4 import Credentials

REAL = Credentials(
    "AKIAREALREALREALREAL", "real/secret+secret/secret+secret/secret+", "REALTOKEN/+real/token+" * 12 + "=="
)
"""The upstream credential: with the characters of base64 that spellings differ in."""

REAL_KEY = "sk-real-key/of+the-tests-0123456789"
"""The upstream key of model APIs."""

SESSION = bytes(range(100, 116))
OTHER_SESSION = bytes(range(50, 66))


@functools.lru_cache(maxsize=1)
def models() -> Models:
    """The indexed service models, once a test run."""
    directory = tempfile.mkdtemp(prefix="narrows-models-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Models(Path(directory))


class StaticCredentials:
    """Upstream credentials that are there."""

    def __init__(self) -> None:
        self.value = REAL
        self.key = ApiKey(REAL_KEY)
        self.failure: Exception | None = None

    def cached(self, _lease: object, connection: Connection) -> Credentials | ApiKey | None:
        """At once."""
        return None if self.failure else self._of(connection)

    async def get(self, _lease: object, connection: Connection) -> Credentials | ApiKey:
        """As `cached`."""
        if self.failure:
            raise self.failure
        return self._of(connection)

    def _of(self, connection: Connection) -> Credentials | ApiKey:
        return self.key if connection.kind == "llm" else self.value


class ControlledRecorder:
    """The real recorder, with a hand on it: `gate` holds back durability, `fail_at` fails the append of that number."""

    def __init__(self, inner: Recorder) -> None:
        self.inner = inner
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.appended = 0
        self.fail_at = -1
        self._waited = asyncio.Event()

    def append(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes, data: bytes | memoryview
    ) -> int:
        """As the real one, until it fails."""
        self.appended += 1
        if 0 <= self.fail_at < self.appended:
            raise RecorderFailed("The disk is full", "the test says so")
        return self.inner.append(kind, flags, session, exchange, meta, data)

    async def durable(self, seq: int) -> None:
        """As the real one, once the gate is open."""
        self.waiting += 1
        self._waited.set()
        await self.gate.wait()
        self.waiting -= 1
        if 0 <= self.fail_at <= self.appended:
            raise RecorderFailed("The disk is full", "the test says so")
        await self.inner.durable(seq)

    async def asked(self) -> None:
        """Wait until somebody waits for durability."""
        while not self.waiting:
            self._waited.clear()
            await self._waited.wait()

    async def room(self) -> None:
        """As the real one."""
        await self.inner.room()


class World:
    """The parts, for tests to reach into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.clock = SystemClock()
        self.origin = Origin()
        self.credentials = StaticCredentials()
        self.leases = LeaseIssuer(bytes(32))
        self.now_s = int(time.time())
        self.errors: list[dict[str, Any]] = []
        self.clients: list[Client] = []
        self.version = 0
        self.port = 0
        self.recorder: ControlledRecorder
        self.listener: Listener
        self.pool: Pool
        self.directory: FileDirectory
        self.authority: CertificateAuthority
        self.gateway: Gateway
        principal, agent = Principal("alice", groups=("dev",)), Agent("tester", "1")
        self.lease = self.leases.issue(
            session=SESSION, connection="demo", principal=principal, agent=agent, expires=self.now_s + 3600
        )
        self.proxy_token = self.leases.proxy_token(
            session=SESSION, principal=principal, agent=agent, expires=self.now_s + 3600, connections=("demo",)
        )

    # -- set-up

    def publish(self, connection: Connection, ended: dict[bytes, str] | None = None, *more: Connection) -> None:
        """Write the directory, as the control process does."""
        self.version += 1
        write(self.path / "directory.json", self.version, [connection, *more], ended or {})

    def connection(self, **options: Any) -> Connection:
        """The connection `demo`, which leads to the origin."""
        values: dict[str, Any] = {
            "endpoint": f"http://127.0.0.1:{self.origin.port}",
            "hosts": ("*.amazonaws.com",),
            "allow_private": True,
            "durability": Durability.STRICT,
        }
        return Connection("demo", **(values | options))

    # -- clients

    @property
    def signer(self) -> Signer:
        """Signs with the lease."""
        lease = self.lease
        return Signer(Credentials(lease.access_key_id, lease.secret_access_key, lease.session_token), self.now_s)

    def trusting(self) -> ssl.SSLContext:
        """A client's TLS context that trusts the gateway's authority."""
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    async def local(self) -> Client:
        """A connection through which the kernel names this process."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(f"\0narrows-{self.port}-0")  # uvloop does not know abstract names
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=1 << 20)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def client(self, *, tls: bool = False) -> Client:
        """A connection to the gateway."""
        client = await Client.connect(self.port, self.trusting() if tls else None)
        self.clients.append(client)
        return client

    def connect_request(self, authority: bytes, token: str | None = None) -> bytes:
        """A CONNECT head with the proxy token."""
        import base64

        value = base64.b64encode(b"narrows:" + (self.proxy_token if token is None else token).encode())
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic %b\r\n\r\n" % (
            authority,
            authority,
            value,
        )

    async def tunnel(self, host: str = "s3.eu-west-1.amazonaws.com") -> Client:
        """A connection inside CONNECT."""
        client = await self.client()
        answer = await client.ask(self.connect_request(host.encode() + b":443"), b"CONNECT")
        assert answer.status == 200, answer.body
        await client.start_tls(self.trusting(), host)
        return client

    # -- the record

    async def recorded(self) -> list[Recorded]:
        """All exchanges on record by now."""
        if self.recorder.inner.failed is None:
            await self.recorder.inner.durable(self.recorder.inner.stats.frames - 1)
        return exchanges(self.path / "wal" / "w")

    async def only(self) -> Recorded:
        """The one exchange on record, closed and in order."""
        found = await self.recorded()
        assert len(found) == 1, [one.facts for one in found]
        found[0].check()
        return found[0]

    async def ended(self, count: int = 1) -> list[Recorded]:
        """Wait until `count` exchanges are closed on record."""
        while True:
            found = await self.recorded()
            if sum(1 for one in found if one.outcome) >= count:
                for one in found:
                    one.check()
                return found
            await asyncio.sleep(0.01)

    def leaks(self, *needles: bytes) -> list[str]:
        """Where one of `needles` lies in a file of the recording or came to a client."""
        found = []
        for path in (self.path / "wal").rglob("*.seg"):
            data = path.read_bytes()
            found += [f"{path.name}: {needle[:12]!r}..." for needle in needles if needle in data]
        for client in self.clients:
            found += [f"client: {needle[:12]!r}..." for needle in needles if needle in client.received]
        return found

    def secrets(self) -> tuple[bytes, ...]:
        """What may lie nowhere."""
        assert REAL.session_token is not None
        return (
            self.lease.secret_access_key.encode(),
            self.lease.session_token.encode(),
            self.proxy_token.encode(),
            REAL.secret_access_key.encode(),
            REAL.session_token.encode(),
            REAL_KEY.encode(),
        )


@asynccontextmanager
async def world(
    path: Path,
    script: Script = plain,
    *,
    limits: Limits | None = None,
    connection: dict[str, Any] | None = None,
    keep: bool = True,
    max_connections: int = 10_000,
    max_head: int = 65536,
    per_origin: int = 256,
    connect_timeout_s: float = 5.0,
    first_byte_timeout_s: float = 15.0,
    queue_bytes: int = 32 * 1024 * 1024,
    errors: bool = False,
    handlers: Callable[[World], Sequence[Handler]] | None = None,
) -> AsyncIterator[World]:
    """A running gateway. `errors`: faults reported to the loop are expected; else they fail the test at the end.

    `handlers` gives further handlers, which are asked before AWS's.
    """
    w = World(path)
    w.loop.set_exception_handler(lambda _loop, context: w.errors.append(context))
    w.origin.script, w.origin.keep = script, keep
    await w.origin.start()
    w.publish(w.connection(**(connection or {})))
    w.directory = FileDirectory(path / "directory.json")
    (path / "keys").mkdir(mode=0o700)
    w.authority = CertificateAuthority.load_or_create(path / "keys", path / "ca.pem")
    recorder = Recorder(path / "wal", "w", w.clock, queue_bytes=queue_bytes)
    recorder.start(w.loop)
    w.recorder = ControlledRecorder(recorder)
    executor = ThreadPoolExecutor(1)
    sock = bind("127.0.0.1", 0)
    w.port = sock.getsockname()[1]
    w.pool = Pool(per_origin=per_origin, idle_s=60, connect_timeout_s=connect_timeout_s, own_ports=frozenset({w.port}))
    handler = AwsHandler(models(), w.leases, w.directory, w.clock, gateway_hosts=("localhost", "127.0.0.1"))
    events = EventsHandler(w.directory, w.leases, processes=processes.peer)
    more = handlers(w) if handlers is not None else ()
    w.gateway = Gateway(
        (events, *more, HttpHandler(w.directory), LlmHandler(w.leases, w.directory), handler), w.directory,
        Tunnels(w.authority, w.directory, w.leases), w.credentials,
        w.pool, w.recorder, w.clock, executor, limits or Limits(), w.loop,
    )  # fmt: skip
    listeners = [
        Listener(
            one,
            w.gateway.serve,
            tls=w.authority.context_for("localhost"),
            max_head=max_head,
            max_connections=max_connections,
            first_byte_timeout_s=first_byte_timeout_s,
        )
        for one in (sock, bind_local(w.port, 0))
        if one is not None
    ]
    w.listener = listeners[0]
    for listener in listeners:
        listener.start()
    try:
        yield w
    finally:
        for client in w.clients:
            client.writer.transport.abort()
        w.recorder.gate.set()
        for listener in listeners:
            listener.stop_accepting()
        await asyncio.gather(*[listener.drain(2.0) for listener in listeners])
        w.pool.close()
        await w.origin.stop()
        await recorder.close()
        executor.shutdown()
    if not errors:
        assert not w.errors, w.errors
    assert not w.origin.faults, w.origin.faults
    assert not w.listener.connections


def drive(path: Path, body: Callable[[World], Awaitable[None]], *, timeout_s: float = 60, **options: Any) -> None:
    """Run `body` against a new world under uvloop, as workers run."""

    async def main() -> None:
        async with asyncio.timeout(timeout_s), world(path, **options) as w:
            await body(w)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def scenario(
    *, timeout_s: float = 60, **options: Any
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a test of `async def test_x(w: World, ...)`; what follows `w` comes from pytest."""

    def wrap(body: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(tmp_path: Path, **arguments: Any) -> None:
            drive(tmp_path, lambda w: body(w, **arguments), timeout_s=timeout_s, **options)

        signature = inspect.signature(body)
        first = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[first, *list(signature.parameters.values())[1:]]
        )
        return test

    return wrap


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
