"""The control process: API, sealing, indexing, the directory, and the end of sessions whose time is over.

Started by the supervisor only. Everything that the management API needs is constructed here. Workers go on without
this process; it may restart at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

import orjson
import uvicorn
import uvloop

from narrows.cli import prepare
from narrows.cli.child import Child, receive
from narrows.cli.local import url
from narrows.cli.loops import Indexing, Sealing
from narrows.cli.owner import local_owner
from narrows.cli.tester import ConnectionTester
from narrows.clock import SystemClock
from narrows.core import ids
from narrows.core.errors import NarrowsError, NotFound, RecorderFailed
from narrows.core.issuers import Issuer
from narrows.core.ports import Clock, Describe
from narrows.core.values import Described, StoredExchange
from narrows.identity.jwks import Fetch
from narrows.identity.lease import LeaseIssuer, load_or_create
from narrows.identity.oidc_fetch import Fetcher
from narrows.identity.oidc_verifier import Verifier
from narrows.manage.app import create_app
from narrows.manage.control import ControlStore, Session
from narrows.manage.deps import Deps
from narrows.manage.guard import LocalOwner
from narrows.manage.sessions import end_expired, end_session
from narrows.manage.tokens import TokenStore
from narrows.record.index.check import check_row
from narrows.record.index.rows import ExchangeRow, SessionRow
from narrows.record.index.sqlite import SqliteIndex
from narrows.record.indexer import Indexer
from narrows.record.log.leaf import Place
from narrows.record.reader import iter_raw
from narrows.record.recorder import Recorder
from narrows.record.sealed import sealed_size
from narrows.redact.detect import detector
from narrows.redact.findings import findings, noted
from narrows.session.agents.describe import AgentDescriber
from narrows.session.aws.describe import AwsDescriber
from narrows.session.aws.models import Models
from narrows.session.llm.describe import LlmDescriber
from narrows.settings import Settings
from narrows.tasks import spawn

log = logging.getLogger(__name__)

EXPIRY_S = 1.0
IDLE_EVERY = 15
"""Every how many looks for expired sessions idle ones are looked for too."""


class PublishedLog:
    """The log as the API shows it: what is published on disk."""

    def __init__(self, data: Path, sealing: Sealing) -> None:
        self._data = data
        self._checkpoint = data / "log" / "checkpoint"
        self._sealing = sealing

    def checkpoint(self) -> str:
        """The newest signed checkpoint. Raises NotFound before the first."""
        try:
            return self._checkpoint.read_text("utf-8")
        except FileNotFoundError as error:
            raise NotFound(
                "There is no checkpoint yet", "nothing was sealed", "one is published within a second of a record"
            ) from error

    def status(self) -> dict[str, Any]:
        """Leaves, the last checkpoint's time, and how far the sealer is behind."""
        try:
            published = self._checkpoint.stat().st_mtime_ns
        except FileNotFoundError:
            published = 0
        found = {"size": sealed_size(self._data), "time": published, "lag": self._sealing.behind}
        return found | ({"problem": self._sealing.problem} if self._sealing.problem else {})


class Server(uvicorn.Server):
    """uvicorn without its own signal handling; calls `on_started` once it serves."""

    on_started: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the control process's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self.on_started()


class Control:
    """The parts of the control process, and its life."""

    def __init__(self, child: Child) -> None:
        settings = child.settings
        data = settings.data
        self._child = child
        self._settings = settings
        self._clock = SystemClock()
        self._store = ControlStore(data / "control.db", data / "run" / "directory.json", self._clock)
        self._tokens = TokenStore(data / "tokens.db", self._clock, settings.roles)
        self._index = SqliteIndex(data / "index.db")
        self._recorder = Recorder(
            data / "wal",
            child.writer,
            self._clock,
            segment_bytes=settings.segment_bytes,
            queue_bytes=settings.recorder_queue_bytes,
            on_failure=self._recorder_failed,
        )
        interval_s = settings.seal_interval_ms / 1000
        self._sealing = Sealing(data, prepare.signing_key(settings), self._clock, interval_s)
        self._describe = describer(settings)
        indexer = Indexer(data, self._index, self._describe)
        self._indexing = Indexing(indexer, self._sealing.sealed, interval_s)
        self._tester = ConnectionTester(self._clock, data / "credentials")
        self.deps = self._make_deps()
        self._server = Server(
            uvicorn.Config(
                create_app(self.deps),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
        )
        self._server.on_started = child.ready

    def _make_deps(self) -> Deps:
        settings, data = self._settings, self._settings.data

        def raw(location: Any, direction: str) -> Iterator[bytes]:
            return iter_raw(data, _place(location), cast(Literal["request", "sent", "response"], direction))

        def check(row: ExchangeRow) -> list[dict[str, str]]:
            return [found.json() for found in check_row(data, row, self._describe)]

        return Deps(
            store=self._store,
            index=self._index,
            log=PublishedLog(data, self._sealing),
            issuer=LeaseIssuer(load_or_create(data / "keys" / "lease.key")),
            record=self._record,
            iter_raw=raw,
            clock=self._clock,
            verify_token=LocalOwner(self._child.token, local_owner()),
            gateway_url=settings.gateway_url or url(settings.listen_host, settings.gateway_port),
            ca_pem=(data / "ca.pem").read_text("ascii"),
            test_connection=self._tester,
            random=os.urandom,
            ready=self._not_ready,
            check_row=check,
            hosts=frozenset({settings.listen_host, urlsplit(settings.api_url).hostname or settings.listen_host}),
            origins=frozenset({settings.api_url} - {""}),
            session_ttl_s=settings.session_ttl_s,
            tokens=self._tokens,
            verify_identity=identity_verifier(settings, self._clock),
            issuers=settings.oidc,
            token_ttl_s=settings.token_ttl_s,
            login_ttl_s=settings.login_ttl_s,
        )

    async def _record(self, kind: int, session: bytes, meta: dict[str, Any]) -> None:
        seq = self._recorder.append(int(kind), 0, session, ids.NIL, orjson.dumps(meta), b"")
        await self._recorder.durable(seq)

    def _not_ready(self) -> str:
        if self._recorder.failed is not None:
            return str(self._recorder.failed)
        return self._sealing.problem

    def _recorder_failed(self, error: RecorderFailed) -> None:
        log.critical("nothing can be opened or changed any more: %s", error)

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the end of the supervisor; then seal and index what is left."""
        loop = asyncio.get_running_loop()
        self._recorder.start(loop)
        self._sealing.start()
        self._indexing.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._child.on_orphaned(loop, self._stop)
        sessions = spawn(self._end_sessions(), name="end sessions")
        spawn(asyncio.to_thread(index_models, self._settings.data), name="index AWS models")
        try:
            with socket.socket(fileno=self._child.api_fd) as listening:
                await self._server.serve([listening])
        finally:
            sessions.cancel()
            await self._recorder.close()
            await asyncio.to_thread(self._sealing.stop)
            await asyncio.to_thread(self._indexing.stop)
            self._tester.close()
            self._index.close()
            self._store.close()
            self._tokens.close()

    def _stop(self) -> None:
        self._server.should_exit = True

    async def _end_sessions(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(EXPIRY_S)
            looks += 1
            try:
                await end_expired(self.deps)
                if looks % IDLE_EVERY == 0:
                    await self._end_idle()
            except NarrowsError as error:
                log.error("a session whose time is over: %s", error)
            except Exception:
                log.exception("sessions whose time is over could not be ended; tried again")

    async def _end_idle(self) -> None:
        """End open sessions that have had no exchange for `session_idle_s`. Asks the index, if it is up to date."""
        if self._sealing.behind or self._sealing.problem or not self._indexing.current:
            return
        now, idle_s = self._clock.wall_ns(), self._settings.session_idle_s
        for session in await asyncio.to_thread(idle_sessions, self._store, self._index, now, idle_s):
            await end_session(self.deps, session, "expired", "idle")


class _Sessions(Protocol):
    def sessions(self, state: str = "open") -> list[Session]: ...


class _LastSeen(Protocol):
    def session(self, id_or_prefix: str) -> SessionRow: ...


def idle_sessions(store: _Sessions, index: _LastSeen, now_ns: int, idle_s: int) -> list[bytes]:
    """The open sessions that were opened, and had their last exchange, more than `idle_s` seconds ago."""
    before = now_ns - idle_s * 1_000_000_000
    found = []
    for session in store.sessions("open"):
        if session.opened_ns >= before:
            continue
        try:
            last_ns = index.session(ids.text(session.id)).last_ns
        except NotFound:
            last_ns = 0
        if last_ns < before:
            found.append(session.id)
    return found


def identity_verifier(settings: Settings, clock: Clock) -> Verifier:
    """What verifies tokens of the configured issuers."""

    def fetch(issuer: Issuer) -> Fetch:
        return Fetcher(issuer.ca_file).get

    return Verifier(settings.oidc, fetch, lambda: clock.wall_ns() / 1e9, lambda: clock.mono_ns() / 1e9)


def index_models(data: Path) -> None:
    """Index the models of all AWS services once per version, so that no call waits for its service's."""
    models = Models(data / "cache")
    if not models.complete:
        models.build_all()


def describer(settings: Settings) -> Describe:
    """What describes exchanges for the index: each kind by its own, what is said in it looked through for credentials.

    The text is cut to `index_body_bytes`.
    """
    aws = AwsDescriber(Models(settings.data / "cache"), gateway_hosts=("localhost", settings.listen_host))
    others: dict[str, Describe] = {"llm.message": LlmDescriber(), "agent.event": AgentDescriber()}

    def describe(exchange: StoredExchange) -> Described:
        described = others.get(exchange.kind, aws)(exchange)
        described.findings += noted(exchange.request_facts)
        if described.items:
            described.findings += findings(described, {}, detector())
        described.text = described.text[: settings.index_body_bytes]
        return described

    return describe


def _place(location: Any) -> Place:
    try:
        return Place.parse(str(location))
    except ValueError as error:
        raise NotFound("There are no recorded bytes", "this row is of no exchange") from error


def main() -> int:
    """Entry point of `python -m narrows.cli.control`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s control %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        uvloop.run(Control(receive()).run())
    except NarrowsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
