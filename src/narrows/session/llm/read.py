"""Takes what was asked and told out of HTTP: JSON, server-sent events, JSON lines, or an array that is streamed."""

from __future__ import annotations

import json
from typing import Any

from narrows.core.errors import ProtocolError
from narrows.session.http.messages import Message
from narrows.session.llm.loose import parse
from narrows.session.llm.told import Told
from narrows.wire.sse import Event, Parser

BODY = 64 << 20
"""Bytes of a body that are read, after its content coding."""
EVENTS = 200_000
"""Events that are read of one stream."""


def read_asked(request: Message, *, cut: bool, problems: list[str]) -> Any:
    """The request's JSON, or None with a problem."""
    if not request.body:
        return None
    if cut:
        problems.append(f"request: only the first {len(request.body)} bytes of the body were read")
        return None
    try:
        return parse(request.body)
    except ValueError as error:
        problems.append(f"request: the body is not JSON: {error}")
        return None


def read_told(response: Message, *, cut: bool, problems: list[str]) -> Told:
    """The answer, as far as it came. `cut` says that more may have come than the bytes hold."""
    told = Told(status=response.status, cut=cut)
    body = response.body
    kind = response.header(b"content-type").partition(";")[0].strip().lower()
    if kind == "text/event-stream" or (kind != "application/json" and body.startswith((b"event:", b"data:", b":"))):
        _events(body, told, problems)
    elif kind in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        _lines(body, told, problems)
    elif body:
        _document(body, told, problems)
    return told


def _events(body: bytes, told: Told, problems: list[str]) -> None:
    told.streamed = True
    parser = Parser()
    parser.feed(body)
    try:
        while (event := parser.next()) is not None:
            _take(event, told, problems)
    except ProtocolError as error:
        problems.append(f"response: {error}")
        told.cut = True
    last = parser.finish()
    if last is not None and not told.cut:
        _take(last, told, problems)
    elif last is not None and _is_json(last.data):
        _take(last, told, problems)  # whole, though its blank line never came


def _take(event: Event, told: Told, problems: list[str]) -> None:
    text = event.data.strip()
    if not text or text == "[DONE]":
        return
    if len(told.events) >= EVENTS:
        if len(told.events) == EVENTS and not told.cut:
            problems.append(f"response: only the first {EVENTS} events were read")
        told.cut = True
        return
    try:
        value = parse(text)
    except ValueError:
        if len(problems) < 20:
            problems.append(f"response: an event {event.name[:40]!r} of {len(text)} characters is not JSON")
        return
    told.events.append(value)
    told.names.append(event.name)


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _lines(body: bytes, told: Told, problems: list[str]) -> None:
    told.streamed = True
    for line in body.split(b"\n"):
        if not line.strip() or len(told.events) >= EVENTS:
            continue
        try:
            told.events.append(parse(line))
            told.names.append("")
        except ValueError:
            if not told.cut:
                problems.append(f"response: a line of {len(line)} bytes is not JSON")


def _document(body: bytes, told: Told, problems: list[str]) -> None:
    try:
        value = parse(body)
    except ValueError as error:
        if body.lstrip()[:1] == b"[":
            _partial(body, told)
        if not told.events:
            problems.append(f"response: the body is not JSON: {error}")
        return
    if isinstance(value, list):
        told.streamed = True
        told.events = value[:EVENTS]
        told.names = [""] * len(told.events)
    else:
        told.body = value


def _partial(body: bytes, told: Told) -> None:
    """The elements of an array whose end never came."""
    text = body.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    while at < len(text) and len(told.events) < EVENTS:
        if text[at] in " \t\r\n,":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
            told.events.append(parse(json.dumps(value)))
        except (ValueError, RecursionError):
            break
        told.names.append("")
    told.streamed = told.streamed or bool(told.events)
    told.cut = True
