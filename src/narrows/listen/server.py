"""The gateway port: accepts sockets, tells TLS from plain HTTP by the first byte, and enforces deadlines.

One port serves every form (plain endpoint, TLS endpoint, forward proxy). Several workers bind it with
SO_REUSEPORT, so the kernel spreads connections over them and they share nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Any

from narrows import processes
from narrows.core.errors import ConfigError
from narrows.listen.connection import ClientConnection
from narrows.tasks import spawn

TLS_HANDSHAKE = 0x16
"""First byte of a TLS record that carries a ClientHello (RFC 8446 section 5.1)."""

BACKLOG = 4096


def bind(host: str, port: int, *, reuse_port: bool = True) -> socket.socket:
    """Return a bound, non-blocking, not yet listening socket. Raises ConfigError when the port is taken."""
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(info[0], info[1], info[2])
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(info[4])
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"Cannot listen on {host}:{port}", error.strerror or str(error), "choose another port, or stop what uses it"
        ) from error
    return sock


def bind_local(port: int, worker: int) -> socket.socket | None:
    """A socket for processes of this machine, through which the kernel says who connects: Linux's abstract name
    `narrows-PORT-WORKER`. None where there is no such thing, or the name is taken: TCP serves all the same.
    """
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"\0narrows-{port}-{worker}")
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


SO_PEERPIDFD = 77
"""Not in Python's `socket`; Linux 6.5 and later."""


def process_of(sock: socket.socket) -> str:
    """Who connected a local socket, by the kernel's word (SO_PEERCRED, unix(7)): `pid:PID:START`; else `local`.

    To be asked when the socket is accepted. The one who connected may hand the socket on and end, and its pid go to a
    process that knows nothing of it: whether it is still there is asked of the kernel too, where it can tell.
    """
    if sys.platform != "linux" or sock.family != socket.AF_UNIX:
        return "local"
    pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        alive = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return "local"  # it has ended
        alive = -1
    start = processes.stat(pid)[0] if pid > 0 else 0
    if alive >= 0:
        poll = select.poll()
        poll.register(alive, select.POLLIN)
        ended = bool(poll.poll(0))
        os.close(alive)
        if ended:
            return "local"
    return f"pid:{pid}:{start}" if start else "local"


class Listener:
    """Accepts on one socket and keeps the set of live connections.

    `serve` is called once per connection and returns the task that runs the path for it. At `max_connections` a
    new connection is answered 503 and closed: refused clearly, never queued.
    """

    def __init__(
        self,
        sock: socket.socket,
        serve: Callable[[ClientConnection], Any],
        *,
        tls: ssl.SSLContext | None,
        max_head: int,
        max_connections: int,
        first_byte_timeout_s: float,
        handshake_timeout_s: float = 15.0,
    ) -> None:
        self._sock = sock
        self._serve = serve
        self._tls = tls
        self._max_head = max_head
        self._max_connections = max_connections
        self._first_byte_timeout_s = first_byte_timeout_s
        self._handshake_timeout_s = handshake_timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[socket.socket, tuple[float, str]] = {}
        self._adopting = 0
        self._draining = False
        self._sweep: asyncio.TimerHandle | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.connections: set[ClientConnection] = set()
        self.refused = 0

    def start(self) -> None:
        """Begin to accept."""
        self._sock.listen(BACKLOG)
        self._loop.add_reader(self._sock, self._accept)
        self._sweep = self._loop.call_later(0.5, self._enforce)

    def stop_accepting(self) -> None:
        """Close the listening socket; live connections go on."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for sock in list(self._waiting):
            self._drop_waiting(sock)

    async def drain(self, timeout_s: float) -> None:
        """Close idle connections now and the others after the request under way; abort what is left then.

        Takes at most `timeout_s` and a second. A client that never pauses is told to go by `Connection: close`.
        """
        self._draining = True
        for client in list(self.connections):
            client.last = True
            if client.idle:
                client.close()
        deadline = self._loop.time() + timeout_s
        while self.connections or self._adopting:
            left = deadline - self._loop.time()
            if left <= 0:
                break
            running = [c.server_task for c in self.connections if c.server_task is not None]
            # In steps, for those that are being adopted meanwhile.
            await asyncio.wait(running, timeout=min(left, 0.1)) if running else await asyncio.sleep(0.01)
        tasks = [c.server_task for c in self.connections if c.server_task is not None]
        for client in list(self.connections):
            client.end("the gateway stopped")
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)  # each still writes how its exchange ended
        if self._sweep is not None:
            self._sweep.cancel()

    # -- accepting --------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(64):
            try:
                conn, _peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            conn.setblocking(False)
            if conn.family in (socket.AF_INET, socket.AF_INET6):
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.connections) + len(self._waiting) + self._adopting >= self._max_connections:
                self._refuse(conn)
                continue
            peer = process_of(conn) if conn.family == socket.AF_UNIX else ""
            self._waiting[conn] = self._loop.time() + self._first_byte_timeout_s, peer
            self._loop.add_reader(conn, self._first_byte, conn)

    def _pause(self, error: OSError) -> None:
        """Out of descriptors or memory: the kernel keeps the client in its queue; asking again at once would spin."""
        self._loop.call_exception_handler({"message": "no connection is accepted for a second", "exception": error})
        self._loop.remove_reader(self._sock)
        self._resume = self._loop.call_later(1.0, self._loop.add_reader, self._sock, self._accept)

    def _refuse(self, conn: socket.socket) -> None:
        self.refused += 1
        try:
            conn.send(
                b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
            )
        except OSError:
            self.refused += 0  # the peer is gone already: there is nobody to tell
        conn.close()

    def _first_byte(self, conn: socket.socket) -> None:
        try:
            first = conn.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        self._loop.remove_reader(conn)
        _, peer = self._waiting.pop(conn)
        if not first:
            conn.close()
            return
        tls = self._tls if first[0] == TLS_HANDSHAKE else None
        spawn(self._adopt(conn, tls, peer), name="adopt", on_error=self._ignore_handshake_failure)

    async def _adopt(self, conn: socket.socket, tls: ssl.SSLContext | None, peer: str) -> None:
        scheme = "https" if tls is not None else "http"

        def factory() -> ClientConnection:
            client = ClientConnection(self._loop, self._max_head, self._opened, self._closed, scheme)
            client.deadline = self._loop.time() + self._first_byte_timeout_s
            client.peer = peer
            return client

        kwargs: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": self._handshake_timeout_s} if tls else {}
        self._adopting += 1
        try:
            await self._loop.connect_accepted_socket(factory, conn, **kwargs)
        finally:
            self._adopting -= 1

    def _ignore_handshake_failure(self, error: BaseException) -> None:
        """A client that fails its handshake has sent no request: there is no exchange to record."""
        if not isinstance(error, (OSError, ssl.SSLError, TimeoutError)):
            self._loop.call_exception_handler({"message": "accepting a connection failed", "exception": error})

    def _opened(self, client: ClientConnection) -> asyncio.Task[Any]:
        self.connections.add(client)
        client.last = self._draining
        return spawn(self._serve(client), name="client")

    def _closed(self, client: ClientConnection) -> None:
        self.connections.discard(client)

    # -- deadlines --------------------------------------------------------------------------------------------

    def _enforce(self) -> None:
        now = self._loop.time()
        for sock, (deadline, _) in list(self._waiting.items()):
            if now > deadline:
                self._drop_waiting(sock)
        for client in list(self.connections):
            if client.deadline and now > client.deadline:
                client.end("the client let a time limit pass")
        self._sweep = self._loop.call_later(0.5, self._enforce)

    def _drop_waiting(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        self._waiting.pop(sock, None)
        sock.close()
