"""One data-plane worker: builds the path from its parts and serves the gateway port until told to stop.

Started by the supervisor only. Everything that the path needs is constructed here and nowhere else, so that this
page shows what a worker consists of.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import uvloop

from narrows import processes
from narrows.cli.child import Child, receive
from narrows.clock import SystemClock
from narrows.core.errors import NarrowsError, RecorderFailed
from narrows.directory import FileDirectory
from narrows.identity.lease import LeaseIssuer, load_or_create
from narrows.listen.ca import CertificateAuthority
from narrows.listen.connection import ClientConnection
from narrows.listen.server import Listener, bind, bind_local
from narrows.listen.tunnel import Tunnels
from narrows.path import Gateway, Limits
from narrows.record.recorder import Recorder
from narrows.redact.detect import detector
from narrows.redact.findings import in_body
from narrows.session.aws.handler import AwsHandler
from narrows.session.aws.models import Models
from narrows.session.events import masking
from narrows.session.events.handler import EventsHandler
from narrows.session.http.handler import HttpHandler
from narrows.session.llm.handler import LlmHandler
from narrows.settings import Settings
from narrows.upstream.credentials import UpstreamCredentials
from narrows.upstream.http import Pool
from narrows.upstream.sources import Sources

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.2
"""How often the directory file is looked at: a revocation reaches a worker well within a second."""

DRAIN_SECONDS = 10.0


class Worker:
    """The parts of a worker, and its life."""

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        settings = child.settings
        self._child = child
        self._loop = loop
        self._stopped = asyncio.Event()
        clock = SystemClock()
        data = settings.data
        self._directory = FileDirectory(data / "run" / "directory.json")
        leases = LeaseIssuer(load_or_create(data / "keys" / "lease.key"))
        self._authority = CertificateAuthority.load_or_create(data / "keys", data / "ca.pem")
        self._recorder = Recorder(
            data / "wal",
            child.writer,
            clock,
            segment_bytes=settings.segment_bytes,
            queue_bytes=settings.recorder_queue_bytes,
            on_failure=self._recorder_failed,
        )
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bulk")
        self._pool = Pool(
            per_origin=settings.max_connections_per_upstream,
            idle_s=settings.upstream_idle_s,
            connect_timeout_s=settings.upstream_connect_timeout_s,
            own_ports=frozenset({settings.gateway_port, settings.api_port}),
        )
        handler = AwsHandler(
            Models(data / "cache"),
            leases,
            self._directory,
            clock,
            gateway_hosts=("localhost", settings.listen_host),
        )
        events = EventsHandler(
            self._directory,
            leases,
            mask=lambda raw: masking.mask(detector().mask(raw)[0]),  # first the detector, which sees the whole
            scan=lambda raw: in_body(raw, detector()),
            processes=processes.peer,
        )
        models = LlmHandler(leases, self._directory, scan=lambda body: in_body(body, detector()))
        self._gateway = Gateway(
            # What is signed the AWS way is AWS's; what no one claims is refused in AWS's form.
            handlers=(events, HttpHandler(self._directory), models, handler),
            directory=self._directory,
            tunnels=Tunnels(self._authority, self._directory, leases),
            credentials=UpstreamCredentials(
                Sources(sealed=data / "credentials"), wall_ns=clock.wall_ns, mono_ns=clock.mono_ns
            ),
            pool=self._pool,
            recorder=self._recorder,
            clock=clock,
            executor=self._executor,
            limits=_limits(settings),
            loop=loop,
            spool=data / "run",
        )
        self._listeners = [self._listen(bind(settings.listen_host, settings.gateway_port), settings)]
        local = bind_local(settings.gateway_port, max(child.index, 0))
        if local is None:
            log.warning("the kernel names no callers: no local socket could be made for port %d", settings.gateway_port)
        else:
            self._listeners.append(self._listen(local, settings))

    def _listen(self, sock: socket.socket, settings: Settings) -> Listener:
        return Listener(
            sock,
            self._serve,
            tls=self._authority.context_for(settings.listen_host),
            max_head=settings.max_head_bytes,
            max_connections=settings.max_connections,
            first_byte_timeout_s=settings.head_timeout_s,
        )

    def _serve(self, client: ClientConnection) -> object:
        return self._gateway.serve(client)

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the end of the supervisor; then let exchanges finish and close the record."""
        self._recorder.start(self._loop)
        for listener in self._listeners:
            listener.start()
        self._refresh()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopped.set)
        self._child.on_orphaned(self._loop, self._stopped.set)
        self._child.ready()
        gc.collect()
        gc.freeze()  # what was built at start lives as long as the process: never look at it again
        gc.set_threshold(20_000, 20, 100)
        await self._stopped.wait()
        for listener in self._listeners:
            listener.stop_accepting()
        await asyncio.gather(*[listener.drain(DRAIN_SECONDS) for listener in self._listeners])
        self._pool.close()
        await self._recorder.close()
        self._executor.shutdown()

    def _refresh(self) -> None:
        self._directory.refresh()
        self._loop.call_later(REFRESH_SECONDS, self._refresh)

    def _recorder_failed(self, error: RecorderFailed) -> None:
        log.critical("nothing passes any more: %s", error)


def _limits(settings: Settings) -> Limits:
    return Limits(
        head_s=settings.head_timeout_s, idle_s=settings.idle_timeout_s, body_stall_s=settings.body_stall_timeout_s
    )


async def _main(child: Child) -> None:
    await Worker(child, asyncio.get_running_loop()).run()


def main() -> int:
    """Entry point of `python -m narrows.cli.worker`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker %(message)s", stream=sys.stderr)
    try:
        child = receive()
        uvloop.run(_main(child))
    except NarrowsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
