"""The server: who asks, in which API's form, and what the script says to it."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

from demo.model import http
from demo.model.anthropic import Messages
from demo.model.forms import Form, Saying, compact, events_of
from demo.model.gemini import GenerateContent
from demo.model.http import Head, Request
from demo.model.openai import Chat, Responses
from demo.model.script import Asked, Script, Turn

ANTHROPIC, GEMINI, CHAT, RESPONSES = Messages(), GenerateContent(), Chat(), Responses()
MODELS = ("scripted-1", "scripted-2")
_REMEMBERED = 10_000


@dataclass
class Received:
    """One request (or WebSocket message) of the ledger. `at_ns` is of the monotonic clock.

    `asked` is None for what is no question to a model; `saying` is what it was told, with its ids; `sent` are the
    answer's bytes, without HTTP's framing.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    at_ns: int
    status: int = 0
    asked: Asked | None = None
    saying: Saying | None = None
    sent: bytes = b""

    def get(self, name: str) -> str:
        """A header's first value, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ModelServer:
    """Answers as `script` says. With a `key`, whoever does not bring it gets that API's 401.

    `received` is the ledger of the last `keep` requests. `pace`, when set, is awaited before every piece of a stream
    and before a whole answer: a test holds the server there with an event of its own.
    """

    def __init__(self, script: Script, *, key: str = "", keep: int = 10_000) -> None:
        self.script = script
        self.pace: Callable[[], Awaitable[object]] | None = None
        self.log: TextIO | None = None
        self.received: deque[Received] = deque(maxlen=keep)
        self.url = ""
        self.port = 0
        self._key = key
        self._failed: Counter[tuple[str, int]] = Counter()
        self._spoken: dict[str, int] = {}
        self._ids = itertools.count(1)
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def run(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[ModelServer]:
        """Serve on 127.0.0.1 until the block is left, then break off whatever is open."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls, limit=http.MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (request := await http.read(reader, writer)) is not None and await self._answer(
                request, reader, writer
            ):
                pass
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client left, or the server is being closed
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection goes on."""
        entry = self.enter(request.method, request.target, request.headers, request.body)
        form = form_of(request)
        if not self.admits(request):
            return await self._json(writer, entry, 401, form.error(401, "the API key is not valid"))
        if request.get("upgrade").lower() == "websocket" and request.path.endswith("/responses"):
            from demo.model.websocket import serve  # needs wsproto, which nothing else here does

            entry.status = 101
            await serve(self, request, reader, writer)
            return False
        question = request.method == "POST" and asks(request.path)
        if not question:
            status, body = other(request, form)
            return await self._json(writer, entry, status, body)
        try:
            saying = self.say(form, request.path, json.loads(request.body), len(request.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return await self._json(writer, entry, 400, form.error(400, f"the request was not understood: {error!r}"))
        entry.asked, entry.saying = saying.asked, saying
        if status := self.failure(saying.asked, saying.turn):
            return await self._json(writer, entry, status, form.error(status, "the script says so"))
        if saying.asked.stream:
            return await self._stream(writer, entry, form, saying, request.query.get("alt", "sse"))
        if self.pace is not None:
            await self.pace()
        return await self._json(writer, entry, 200, form.whole(saying), saying.turn.cut_after)

    def enter(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Received:
        """Put a request into the ledger."""
        entry = Received(method, target, headers, body, time.monotonic_ns())
        self.received.append(entry)
        return entry

    def admits(self, request: Request) -> bool:
        """Whether the request brings the key, in whichever place its API has for it."""
        if not self._key:
            return True
        brought = (
            request.get("x-api-key"), request.get("authorization").removeprefix("Bearer "),
            request.get("x-goog-api-key"), request.query.get("key", ""),
        )  # fmt: skip
        return any(hmac.compare_digest(one.encode(), self._key.encode()) for one in brought)

    def say(self, form: Form, path: str, body: Any, size: int) -> Saying:
        """What the script says to a question. Raises ValueError, KeyError, TypeError or AttributeError for nonsense."""
        spoken = self._spoken.get(body.get("previous_response_id") or "", 0)
        asked = form.read(path, body, spoken)
        warming = body.get("generate") is False  # Codex lets the provider read its instructions ahead
        saying = Saying(asked, Turn() if warming else self.script.turn(asked), size)
        saying.resolve(form.call_prefix, form.message_prefix)
        if len(self._spoken) >= _REMEMBERED:
            del self._spoken[next(iter(self._spoken))]
        self._spoken[saying.id] = asked.turn + (not warming)
        return saying

    def failure(self, asked: Asked, turn: Turn) -> int:
        """The status that the script has for this request, 0 for none."""
        place = (asked.api, asked.turn)
        if self._failed[place] >= len(turn.errors):
            return 0
        self._failed[place] += 1
        return turn.errors[self._failed[place] - 1]

    async def _json(
        self, writer: asyncio.StreamWriter, entry: Received, status: int, body: Any, cut_after: int | None = None
    ) -> bool:
        raw = b"" if entry.method == "HEAD" else compact(body).encode()
        head = self._head(status, "application/json")
        if status in (429, 503, 529):
            head.headers.append(("retry-after-ms", "1"))
        entry.status, entry.sent = status, raw[:cut_after]
        writer.write(head.raw(("Content-Length", str(len(raw)))) + entry.sent)
        await writer.drain()
        self._say_done(entry)
        return cut_after is None

    async def _stream(
        self, writer: asyncio.StreamWriter, entry: Received, form: Form, saying: Saying, alt: str
    ) -> bool:
        as_array = form is GEMINI and alt != "sse"
        entry.status = 200
        head = self._head(200, "application/json" if as_array else "text/event-stream; charset=utf-8")
        writer.write(head.raw(("Transfer-Encoding", "chunked"), ("Cache-Control", "no-cache")))
        sent = bytearray()
        for number, event in enumerate(events_of(form, saying)):
            if number == saying.turn.cut_after:
                entry.sent = bytes(sent)
                return False
            if self.pace is not None:
                await self.pace()
            raw = _as_array(event, number) if as_array else _as_sse(event)
            sent += raw
            writer.write(b"%x\r\n%b\r\n" % (len(raw), raw))
            await writer.drain()
        if as_array:
            sent += b"]"
            writer.write(b"1\r\n]\r\n")
        entry.sent = bytes(sent)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self._say_done(entry)
        return True

    def _head(self, status: int, kind: str) -> Head:
        request_id = f"req_{next(self._ids):020d}"
        return Head(status, [("Content-Type", kind), ("request-id", request_id), ("x-request-id", request_id)])

    def _say_done(self, entry: Received) -> None:
        if self.log is not None:
            spent = (time.monotonic_ns() - entry.at_ns) // 1000
            line = {"method": entry.method, "path": entry.target.partition("?")[0], "status": entry.status}
            print(compact(line | {"microseconds": spent}), file=self.log, flush=True)


def asks(path: str) -> bool:
    """Whether a path is a question to a model."""
    ends = ("/messages", "/chat/completions", "/responses", ":generateContent", ":streamGenerateContent")
    return path.endswith(ends)


def form_of(request: Request) -> Form:
    """The API whose form a request has, so that a refusal has it too."""
    path = request.path
    if path.endswith("/chat/completions"):
        return CHAT
    if "/v1beta" in path or path.lower().endswith("generatecontent") or request.get("x-goog-api-key"):
        return GEMINI
    if "/messages" in path or request.get("anthropic-version") or request.get("x-api-key"):
        return ANTHROPIC
    return RESPONSES


def other(request: Request, form: Form) -> tuple[int, Any]:
    """The answer to what is no question: a list of models, a count of tokens, or a 404."""
    if request.method == "GET" and request.path.endswith("/models"):
        if form is GEMINI:
            return 200, {"models": [{"name": f"models/{name}", "displayName": name} for name in MODELS]}
        made = {
            "object": "model",
            "created": 0,
            "owned_by": "script",
            "type": "model",
            "created_at": "2026-01-01T00:00:00Z",
        }
        data = [{"id": name, "display_name": name, **made} for name in MODELS]
        return 200, {"object": "list", "data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
    if request.method == "POST" and request.path.endswith("/count_tokens"):
        return 200, {"input_tokens": max(1, len(request.body) // 4)}
    if request.method == "POST" and request.path.endswith(":countTokens"):
        return 200, {"totalTokens": max(1, len(request.body) // 4)}
    return 404, form.error(404, f"{request.method} {request.path} is not served here")


def _as_sse(event: tuple[str, Any]) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else compact(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def _as_array(event: tuple[str, Any], number: int) -> bytes:
    return (b"," if number else b"[") + compact(event[1]).encode()
