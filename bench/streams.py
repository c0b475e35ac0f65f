"""What a stream of tokens loses on its way: time to the first token, and tokens a second.

The origin and the client are ours, on the load's core: the origin sends the head and the first token at once and the
rest without a pause, so that what is measured is the way and not a model.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from dataclasses import dataclass

from bench.load import CHAT, Way
from bench.processes import BenchError

TOKENS = 2000
"""Tokens of a long stream."""
SHORT = 20

ASKED = {"model": "bench-model", "stream": True, "messages": [{"role": "user", "content": "count"}]}


def token(number: int, finish: str | None = None) -> bytes:
    """One event of a chat completion's stream."""
    delta = {"role": "assistant", "content": f"{number} "} if number == 0 else {"content": f"{number} "}
    chunk = {
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1764000000, "model": "bench-model",
        "choices": [{"index": 0, "delta": delta if finish is None else {}, "finish_reason": finish}],
    }  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chunked(data: bytes) -> bytes:
    """As one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with a stream: `n` tokens, as the header X-Tokens or the request's `max_tokens` says."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length:") + 15
            body = await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            tokens = int(json.loads(body).get("max_tokens", SHORT))
            writer.write(HEAD + chunked(token(0)))
            await writer.drain()
            for number in range(1, tokens):
                writer.write(chunked(token(number)))
                if number % 16 == 0:
                    await writer.drain()
            writer.write(chunked(token(0, "stop")) + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve on the port that the command line names."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as the client saw it: seconds to the first token, and tokens a second from then on."""

    first_s: float
    per_s: float


class Client:
    """One kept connection over which streams are asked for, one after another."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._sock = socket.create_connection(("127.0.0.1", way.port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def stream(self, tokens: int) -> Stream:
        """Ask for so many tokens. Raises BenchError when they do not all come."""
        body = json.dumps(ASKED | {"max_tokens": tokens}).encode()
        lines = [f"POST {self._way.prefix}{CHAT} HTTP/1.1", f"Host: 127.0.0.1:{self._way.port}"]
        lines += [f"{name}: {value}" for name, value in self._way.headers]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        began = time.perf_counter()
        self._sock.sendall("\r\n".join(lines).encode() + body)
        held, first = bytearray(), 0.0
        while not held.endswith(b"0\r\n\r\n"):
            piece = self._sock.recv(65536)
            if not piece:
                raise BenchError(f"a stream broke off after {len(held)} bytes: {bytes(held[:300])!r}")
            held += piece
            if not first and b'"content"' in held:
                first = time.perf_counter()
        ended = time.perf_counter()
        came = held.count(b'"content"')
        if not held.startswith(b"HTTP/1.1 200") or came < tokens:
            raise BenchError(f"a stream of {tokens} tokens had {came}: {bytes(held[:300])!r}")
        return Stream(first - began, (tokens - 1) / max(ended - first, 1e-9))


def first_tokens(ways: dict[str, Way], rounds: int, each: int) -> dict[str, list[float]]:
    """Milliseconds to the first token, by name; the ways take turns, so that all of them see the same machine."""
    clients = {name: Client(way) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, client in clients.items():
            client.stream(SHORT)
            found[name] += [client.stream(SHORT).first_s * 1000 for _ in range(each)]
    for client in clients.values():
        client.close()
    return found


def speeds(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Tokens a second of a long stream, by name: the median of the rounds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            client = Client(way)
            found[name].append(client.stream(TOKENS).per_s)
            client.close()
    return {name: statistics.median(values) for name, values in found.items()}


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    asyncio.run(main())
