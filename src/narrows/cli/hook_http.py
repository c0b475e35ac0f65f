"""One HTTP/1.1 exchange over a plain socket: how a hook speaks to the gateway and its API without an HTTP library.

`http.client` alone would cost as much time as everything else that the hook does. The gateway is asked through a
worker's Unix socket first (Linux: an abstract name, where the kernel tells the gateway who asks), then through TCP.
An abstract name is nobody's property: the answerer must be a process of this user or of root, else it gets nothing.
Time is bounded by the caller's alarm.
"""

from __future__ import annotations

import os
import socket
import sys

from narrows.core.errors import NarrowsError

HEAD = 65536
"""Bytes of an answer's head at most."""
ANSWER = 8 << 20
"""Bytes of an answer's body at most: the API's answer to an opened session holds certificates and leases."""
WORKERS = 4
"""Workers whose Unix sockets are tried."""


class NoAnswerError(NarrowsError):
    """The gateway could not be reached, or what answered does not speak HTTP."""

    code = "unreachable"


def split(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`. Raises NoAnswerError."""
    rest = url.removeprefix("http://").rstrip("/")
    host, _, port = rest.rpartition(":")
    if not url.startswith("http://") or "/" in rest or "@" in rest or not host or not port.isdecimal():
        raise NoAnswerError("The gateway could not be reached", "its address is not http://HOST:PORT")
    return host.strip("[]"), int(port)


def post(
    url: str, path: str, token: str, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, near: bool = False
) -> tuple[int, bytes]:
    """POST a JSON body, get status and body. `near`: try the workers' Unix sockets first. Raises NoAnswerError."""
    return _exchange(url, "POST", path, token, body, headers, near=near)


def get(url: str, path: str, token: str) -> tuple[int, bytes]:
    """GET, the same way."""
    return _exchange(url, "GET", path, token, b"", (), near=False)


def _exchange(
    url: str, method: str, path: str, token: str, body: bytes, headers: tuple[tuple[str, str], ...], *, near: bool
) -> tuple[int, bytes]:
    host, port = split(url)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise NoAnswerError("The gateway was not asked", "its token is not one word of text")
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {name}",
        f"Authorization: Bearer {token}",
        "Accept: application/json",
        "Connection: close",
    ]
    if method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    try:
        with _connect(host, port, near=near) as stream:
            _send(stream, head, body)
            return _answer(stream, name)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NoAnswerError("The gateway could not be reached", f"{name}: {why}") from error


def _send(stream: socket.socket, head: bytes, body: bytes) -> None:
    try:
        stream.sendall(head)
        stream.sendall(body)
    except (BrokenPipeError, ConnectionResetError):
        # A refusal before the whole body was read: the answer may be there all the same.
        return


def _connect(host: str, port: int, *, near: bool) -> socket.socket:
    if near and sys.platform == "linux" and host in ("127.0.0.1", "::1", "localhost"):
        for worker in range(WORKERS):
            stream = _near(port, worker)
            if stream is not None:
                return stream
    return socket.create_connection((host, port))


def _near(port: int, worker: int) -> socket.socket | None:
    """A connection to a worker's Unix socket; None if there is none, or it is not this user's or root's."""
    if sys.platform != "linux":
        return None
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(f"\0narrows-{port}-{worker}")
        peer = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        stream.close()
        return None  # TCP is tried next, and its failure is told
    if int.from_bytes(peer[4:8], sys.byteorder) not in (os.geteuid(), 0):
        stream.close()
        return None
    return stream


def _answer(stream: socket.socket, name: str) -> tuple[int, bytes]:
    raw = b""
    while (end := raw.find(b"\r\n\r\n")) < 0:
        piece = stream.recv(65536)
        if not piece or len(raw) > HEAD:
            raise NoAnswerError("The gateway could not be reached", f"{name} did not answer in HTTP")
        raw += piece
        while raw.startswith(b"HTTP/1.1 1") and b"\r\n\r\n" in raw:
            raw = raw.partition(b"\r\n\r\n")[2]
    lines = raw[:end].decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise NoAnswerError("The gateway could not be reached", f"{name} did not answer in HTTP")
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    rest = raw[end + 4 :]
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return int(words[1]), _chunked(stream, rest, name)
    length = fields.get("content-length", "")
    want = int(length) if length.isdecimal() and len(length) < 12 else ANSWER
    parts, got = [rest], len(rest)
    while got < want and (piece := stream.recv(262144)):
        parts.append(piece)
        got += len(piece)
        if got > ANSWER:
            raise NoAnswerError("The gateway's answer was refused", f"it is longer than {ANSWER} bytes")
    if length and got < want:
        raise NoAnswerError("The gateway could not be reached", f"{name} broke off its answer")
    return int(words[1]), b"".join(parts)[:want]


def _chunked(stream: socket.socket, raw: bytes, name: str) -> bytes:
    """A chunked body. The server closes after it, so that it can be read to its end first."""
    parts, got = [raw], len(raw)
    while piece := stream.recv(262144):
        parts.append(piece)
        got += len(piece)
        if got > ANSWER:
            raise NoAnswerError("The gateway's answer was refused", f"it is longer than {ANSWER} bytes")
    raw, at = b"".join(parts), 0
    out: list[bytes] = []
    while True:
        end = raw.find(b"\r\n", at)
        try:
            size = int(raw[at : max(end, at)].partition(b";")[0], 16)
        except ValueError as error:
            raise NoAnswerError("The gateway could not be reached", f"{name} broke off its answer") from error
        if not size:
            return b"".join(out)
        out.append(raw[end + 2 : end + 2 + size])
        at = end + 4 + size
