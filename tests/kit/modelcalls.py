"""Recorded calls of model APIs, made from what was asked and told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from narrows.core.values import Item, StoredExchange

PROTOCOLS = {
    "anthropic-messages": "anthropic",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "gemini": "gemini",
}


def http(start: str, headers: dict[str, str], body: bytes, *, chunks: int = 0) -> bytes:
    """One HTTP message, its body whole or in chunks of so many bytes."""
    lines = [start, *(f"{name}: {value}" for name, value in headers.items())]
    if chunks:
        lines.append("Transfer-Encoding: chunked")
        pieces = [body[at : at + chunks] for at in range(0, len(body), chunks)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
        framed = body
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + framed


def sse(events: Iterable[dict[str, Any]], *, named: bool = True) -> bytes:
    """A stream of events, each named by its type if `named`."""
    out = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        out.append(f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n")
    return "".join(out).encode()


def call(
    asked: Any,
    told: Any,
    *,
    protocol: str = "anthropic-messages",
    operation: str = "messages",
    path: str = "/v1/messages",
    status: int = 200,
    request_headers: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    facts: dict[str, object] | None = None,
    chunks: int = 0,
) -> StoredExchange:
    """A stored call: `told` is a value for a JSON answer, bytes for a stream."""
    stream = isinstance(told, bytes)
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    given = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return StoredExchange(
        b"",
        b"",
        "llm.message",
        request=http(f"POST {path} HTTP/1.1", {"Host": "gw.test", **(request_headers or {})}, given),
        response=http(f"HTTP/1.1 {status} X", {"Content-Type": kind, **(headers or {})}, body, chunks=chunks),
        request_facts={
            "service": PROTOCOLS.get(protocol, "openai"),
            "operation": operation,
            "protocol": protocol,
            **(facts or {}),
        },
        response_facts={"outcome": "complete", "status": status},
    )


def short(items: list[Item]) -> list[tuple[str, str, str]]:
    """(type, name, text) of items, for comparison."""
    return [(item.type, item.name, item.text) for item in items]
