"""GET and POST to an issuer: bounded in size and time, TLS verified, no redirects, no proxy.

Synchronous: the gateway calls it in a thread, the command line where it stands. Standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode, urlsplit

from narrows.core.errors import UpstreamError
from narrows.core.issuers import check_url

MAX_BYTES = 1 << 20
TOTAL_S = 10.0
CONNECT_S = 5.0


class Fetcher:
    """Fetches from one issuer. `ca_file` holds further authorities to trust, PEM; `what` is how errors call it."""

    def __init__(self, ca_file: str = "", *, total_s: float = TOTAL_S, what: str = "issuer") -> None:
        self._what = what
        self._ca_file = ca_file
        self._total_s = total_s
        self._context: ssl.SSLContext | None = None

    def get(self, url: str) -> bytes:
        """The body of a GET that was answered with 200. Raises UpstreamError, ConfigError for a URL without TLS."""
        status, body = self._send("GET", url, None)
        if status != 200:
            raise self._failed(url, f"it answered with HTTP status {status}")
        return body

    def post(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of a POST of form fields. Raises as `get`."""
        return self._send("POST", url, urlencode(form).encode())

    def _send(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        check_url(url, f"URL of the {self._what}")
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "application/json", "User-Agent": "narrows"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            with self._connected(url) as connection:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                raw = response.read(MAX_BYTES + 1)
                if response.length and len(raw) <= MAX_BYTES:
                    raise self._failed(url, "its answer was cut off, or took too long")
                if len(raw) > MAX_BYTES:
                    raise self._failed(url, f"its answer is longer than {MAX_BYTES} bytes")
                return response.status, raw
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(url, f"{type(error).__name__}: {error}"[:300]) from error

    @contextlib.contextmanager
    def _connected(self, url: str) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        raw = socket.create_connection((host, port), timeout=CONNECT_S)
        # Time-outs of a socket are per read: this one is for the whole, however slowly the other end drips.
        timer = threading.Timer(self._total_s, _cut, (raw,))
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(host, port)
        try:
            connection.sock = self._tls().wrap_socket(raw, server_hostname=host) if secure else raw
            yield connection
        finally:
            timer.cancel()
            connection.close()
            raw.close()

    def _failed(self, url: str, why: str) -> UpstreamError:
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        what = f"The {self._what} at {where} could not be asked"
        return UpstreamError(what, why, "see whether it can be reached", phase="request")

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._ca_file:
                self._context.load_verify_locations(self._ca_file)
        return self._context


def _cut(raw: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        raw.shutdown(socket.SHUT_RDWR)
