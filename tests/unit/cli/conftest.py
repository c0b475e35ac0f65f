"""A stand-in for the management API: canned answers by method and path, and a note of what was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from narrows.cli import local

TOKEN = "t" * 43
Answer = tuple[int, Any]


class FakeApi:
    """`answers` maps `METHOD /path` to (status, JSON or bytes), or to a function of query and body."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.answers: dict[str, Answer | Callable[[dict[str, str], Any], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                key = f"{self.command} {parts.path.removeprefix('/api/v1')}"
                api.asked.append((key, query, body))
                found = api.answers.get(key, (404, {"title": "There is no such thing", "code": "not_found"}))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    found = (401, {"title": "The request was refused", "detail": "no token", "code": "unauthorized"})
                status, value = found(query, body) if callable(found) else found
                raw = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self, key: str) -> list[Any]:
        """What was sent to `METHOD /path`."""
        return [body for asked, _, body in self.asked if asked == key]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("NARROWS_", "AWS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    """A fake gateway that runs on the data directory the environment names: local file, lock and API."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "run").mkdir(mode=0o700)
    fake = FakeApi(data)
    local.write(data, api=fake.url, gateway="http://127.0.0.1:8470", token=TOKEN, pid=1)
    lock = local.Lock(data)
    assert lock.take()
    yield fake
    lock.release()
    fake.stop()
