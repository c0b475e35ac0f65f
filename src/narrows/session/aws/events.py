"""Event streams of responses as a list of events, each with its type and its decoded payload."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from narrows.core.errors import ProtocolError
from narrows.session.aws import xmlbody
from narrows.session.aws.decode import operation_model
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import OPEN_SERVICES, SENSITIVE, Shape, Shower, plain
from narrows.session.aws.values import Protocol, Target
from narrows.wire.eventstream import Decoder, Message

EVENTS = 20_000
"""Events that are decoded of one stream; a problem says that there were more."""


def decode_events(
    models: Models, target: Target, body: bytes, *, truncated: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """(events, problems) of an event stream body without HTTP framing. Raises DecodeProblem for no model.

    An event is `{"type": ..., <members>}`; an exception or error is `{"type": ..., "error": code, "message": ...}`.
    """
    output = operation_model(models, target).output_shape
    name = output.event_stream_name if output is not None else None
    stream = output.members[name] if name else None
    show = Shower(target.service not in OPEN_SERVICES)
    decoder = Decoder()
    problems: list[str] = []
    messages: list[Message] = []
    try:
        messages = decoder.feed(body)
        if not truncated:
            decoder.finish()
    except ProtocolError as error:
        problems.append(f"event stream: {error}")
        messages = messages or _whole(body)
    if len(messages) > EVENTS:
        problems.append(f"event stream: only the first {EVENTS} of {len(messages)} events were decoded")
    out = []
    for message in messages[:EVENTS]:
        try:
            out.append(_event(message, stream, target, show))
        except DecodeProblem as error:
            problems.append(f"event {message.text(':event-type')[:64]}: {error}")
            out.append({"type": message.text(":event-type"), "payload": plain(message.payload)})
    return out, problems


def _whole(body: bytes) -> list[Message]:
    """The messages before the first broken one, fed one length prefix at a time."""
    decoder, out, at = Decoder(), [], 0
    while len(body) - at >= 16:
        size = int.from_bytes(body[at : at + 4], "big")
        if size < 16 or size > len(body) - at:
            break
        try:
            out += decoder.feed(body[at : at + size])
        except ProtocolError:
            break  # reported by the caller, which met the same error
        at += size
    return out


def _event(message: Message, stream: Shape | None, target: Target, show: Shower) -> dict[str, Any]:
    kind = message.text(":message-type") or "event"
    if kind == "error":
        return {
            "type": "error",
            "error": message.text(":error-code"),
            "message": message.text(":error-message"),
        }
    if kind == "exception":
        code = message.text(":exception-type")
        return {"type": "exception", "error": code, "message": _message_text(message.payload)}
    name = message.text(":event-type")
    shape = stream.members.get(name) if stream is not None else None
    event: dict[str, Any] = {"type": name}
    if shape is None:
        return event | _payload_plain(message)
    body_member = ""
    for member_name, member in shape.members.items():
        if member.serialization.get("eventheader"):
            header = message.headers.get(member_name)
            if header is not None:
                event[member_name] = show.value(member, plain(header.value))
        elif member.serialization.get("eventpayload"):
            body_member = member_name
    if body_member:
        event[body_member] = _member(show, shape.members[body_member], message.payload, target)
        return event
    parsed = _document(show, shape, message.payload, target)
    return event | _inner_json(parsed)


def _member(show: Shower, shape: Shape, payload: bytes, target: Target) -> Any:
    if show.hide and shape.metadata.get("sensitive"):
        return SENSITIVE
    if shape.type_name == "string":
        return payload.decode("utf-8", "replace")
    if shape.type_name == "blob":
        return _readable(payload)
    return _document(show, shape, payload, target)


def _document(show: Shower, shape: Shape, payload: bytes, target: Target) -> dict[str, Any]:
    if not payload:
        return {}
    if target.protocol is Protocol.REST_XML:
        value = xmlbody.XmlDecoder(show).value(shape, xmlbody.parse(payload))
    elif target.protocol is Protocol.CBOR:
        from narrows.session.aws import cbor

        value = show.value(shape, cbor.decode(payload))
    else:
        try:
            value = show.value(shape, orjson.loads(payload))
        except orjson.JSONDecodeError as error:
            raise DecodeProblem("its payload is not JSON", str(error)) from error
    return value if isinstance(value, dict) else {"": value}


def _inner_json(event: dict[str, Any]) -> dict[str, Any]:
    """Bedrock puts a model's own JSON into a `bytes` member as base64: show that JSON."""
    inner = event.get("bytes")
    if isinstance(inner, str):
        try:
            raw = base64.b64decode(inner, validate=True)
        except (binascii.Error, ValueError):
            return event
        return event | {"bytes": _readable(raw)}
    return event


def _readable(raw: bytes) -> Any:
    if raw[:1] in (b"{", b"["):
        try:
            return plain(orjson.loads(raw))
        except (orjson.JSONDecodeError, DecodeProblem):
            return plain(raw)  # it only starts like JSON
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return plain(raw)
    return text if text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text) else plain(raw)


def _payload_plain(message: Message) -> dict[str, Any]:
    return {"payload": _readable(message.payload)} if message.payload else {}


def _message_text(payload: bytes) -> str:
    value = _readable(payload)
    if isinstance(value, dict):
        return str(value.get("message") or value.get("Message") or "")
    return value if isinstance(value, str) else ""
