"""The WebSocket form of the Responses API: each `response.create` is answered with that response's events."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from demo.model.forms import compact, events_of
from demo.model.http import Request
from demo.model.openai import Responses
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.events import Request as Handshake
from wsproto.extensions import PerMessageDeflate

if TYPE_CHECKING:
    from demo.model.server import ModelServer


async def serve(
    server: ModelServer, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Speak on one upgraded connection until either side ends it."""
    ws = WSConnection(ConnectionType.SERVER)
    data = request.head
    parts: list[str] = []
    while True:
        ws.receive_data(data or None)
        for event in ws.events():
            if isinstance(event, Handshake):
                writer.write(ws.send(AcceptConnection(extensions=[PerMessageDeflate()])))
            elif isinstance(event, Ping):
                writer.write(ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                if not data:
                    return
                writer.write(ws.send(event.response()))
                await writer.drain()
                return
            elif isinstance(event, TextMessage):
                parts.append(event.data)
                if event.message_finished:
                    text = "".join(parts)
                    parts.clear()
                    if not await _message(server, request, text, ws, writer):
                        return
            elif isinstance(event, BytesMessage):
                writer.write(ws.send(CloseConnection(1003, "text is spoken here")))
                await writer.drain()
                return
        await writer.drain()
        data = await reader.read(1 << 16)


async def _message(
    server: ModelServer, request: Request, text: str, ws: WSConnection, writer: asyncio.StreamWriter
) -> bool:
    """Answer one message; returns whether the connection goes on."""
    form = Responses()
    entry = server.enter("WS", request.target, request.headers, text.encode())

    async def send(event: Any) -> None:
        raw = compact(event)
        entry.sent += raw.encode() + b"\n"
        out: Event = TextMessage(raw)
        writer.write(ws.send(out))
        await writer.drain()

    try:
        body = json.loads(text)
        if body.get("type") != "response.create":
            raise ValueError("only response.create is understood")
        saying = server.say(form, request.path, body | {"stream": True}, len(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        entry.status = 400
        await send({"type": "error", "status": 400, **form.error(400, f"not understood: {error!r}")})
        return True
    entry.asked, entry.saying, entry.status = saying.asked, saying, 200
    if status := server.failure(saying.asked, saying.turn):
        entry.status = status
        await send({"type": "error", "status": status, **form.error(status, "the script says so")})
        return True
    lane = {"stream_id": body["stream_id"]} if "stream_id" in body else {}
    for number, (_, event) in enumerate(events_of(form, saying)):
        if number == saying.turn.cut_after:
            return False
        if server.pace is not None:
            await server.pace()
        await send(event | lane)
    return True
