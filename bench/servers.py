"""The origin and the peers: nginx as both, mitmproxy in an environment of its own, and a naive aiohttp proxy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.load import ANSWER, BUCKET, CHAT, COMPLETION, OBJECT, UPLOAD
from bench.processes import free_port, listening, started, wait_until

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
PEERS_PIN = ROOT / "bench" / "peers.txt"

COMMON = """
daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log stderr error;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_timeout 3600;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
"""

ORIGIN = """
    sendfile on;
    tcp_nopush on;
    types {{ }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            default_type application/x-amz-json-1.0;
            add_header x-amzn-RequestId BENCH00000000000000000000000000000000000000000000000;
            return 200 '{answer}';
        }}
        location = {chat} {{
            default_type application/json;
            return 200 '{completion}';
        }}
        location /{bucket}/ {{
            default_type application/json;
            root {here};
            dav_methods PUT;
        }}
    }}
}}
"""

PROXY = """
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            {extra}
        }}
    }}
}}
"""


class Origin:
    """A running origin: its port and process, and where an upload lands."""

    def __init__(self, port: int, pid: int, here: Path) -> None:
        self.port = port
        self.pid = pid
        self.uploaded = here / UPLOAD.lstrip("/")


@contextlib.contextmanager
def origin(here: Path, body: bytes, core: int, log: Path) -> Iterator[Origin]:
    """nginx that answers a small call from its configuration, serves a file, and takes a PUT only whole.

    `here` should be in memory: a PUT is written to a file by nginx's DAV module once the whole body has come,
    which is also how the benchmark checks that uploads arrive whole.
    """
    (here / BUCKET).mkdir()
    (here / OBJECT.lstrip("/")).write_bytes(body)
    port = free_port()
    text = ORIGIN.format(
        port=port, here=here, bucket=BUCKET, answer=ANSWER.decode(), chat=CHAT, completion=COMPLETION.decode()
    )
    with _nginx(here, text, port, core, log, "the origin") as process:
        yield Origin(port, process.pid, here)


@contextlib.contextmanager
def nginx(here: Path, to: int, core: int, log: Path, *, streaming: bool) -> Iterator[tuple[int, int]]:
    """nginx as a reverse proxy with kept upstream connections; yields (port, pid).

    As it comes it takes a request's body whole, into a temporary file where it is over 16 KB, before it opens the
    upstream; `streaming` turns that off, and temporary files for responses with it.
    """
    port = free_port()
    extra = "proxy_request_buffering off; proxy_max_temp_file_size 0;" if streaming else ""
    text = PROXY.format(port=port, origin=to, extra=extra)
    with _nginx(here, text, port, core, log, "nginx") as process:
        yield port, process.pid


@contextlib.contextmanager
def _nginx(here: Path, text: str, port: int, core: int, log: Path, what: str) -> Iterator[subprocess.Popen[bytes]]:
    user = "user root;" if os.geteuid() == 0 else ""
    conf = here / "nginx.conf"
    conf.write_text(COMMON.format(here=here, user=user) + text)
    # SIGTERM is nginx's fast stop.
    with started(["nginx", "-e", "stderr", "-p", here, "-c", conf], core=core, log=log) as process:
        wait_until(lambda: listening(port), what, process, log, 10)
        yield process


@contextlib.contextmanager
def stream_origin(core: int, log: Path) -> Iterator[int]:
    """The model API that streams tokens as fast as it can; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.streams", str(port)]
    with started(command, core=core, log=log, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        wait_until(lambda: listening(port), "the streaming origin", process, log, 20)
        yield port


@contextlib.contextmanager
def naive(to: int, core: int, log: Path) -> Iterator[tuple[int, int]]:
    """The naive aiohttp proxy; yields (port, pid)."""
    port = free_port()
    command = [sys.executable, "-m", "bench.naive", str(port), f"http://127.0.0.1:{to}"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with started(command, core=core, log=log, env=environ, stop=signal.SIGINT) as process:
        wait_until(lambda: listening(port), "the naive proxy", process, log, 20)
        yield port, process.pid


@contextlib.contextmanager
def mitmproxy(here: Path, to: int, core: int, log: Path, *, flows: Path | None = None) -> Iterator[tuple[int, int]]:
    """mitmdump as a quiet reverse proxy that streams bodies from 512 KB on; yields (port, pid).

    It keeps nothing, unless `flows` names the file to which it writes every request and answer.
    """
    port = free_port()
    options = {"flow_detail": "0", "stream_large_bodies": "512k", "confdir": str(here), "listen_host": "127.0.0.1"}
    command = [str(PEERS / "bin" / "mitmdump"), "-q", "--mode", f"reverse:http://127.0.0.1:{to}", "-p", str(port)]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    if flows:
        command += ["-w", str(flows)]
    with started(command, core=core, log=log) as process:
        wait_until(lambda: listening(port), "mitmproxy", process, log, 30)
        yield port, process.pid


def install_peers() -> None:
    """Make the peers' environment, if it is not the one that `peers.txt` names. Raises CalledProcessError."""
    stamp = PEERS / "peers.txt"
    wanted = PEERS_PIN.read_bytes()
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True)
    (PEERS / ".gitignore").write_text("*\n")
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(PEERS_PIN)], check=True)
    stamp.write_bytes(wanted)
