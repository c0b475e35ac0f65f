"""What single OpenTelemetry records say: log events of Claude Code and Codex, spans with `gen_ai.*`, and any other."""

from __future__ import annotations

import re
from typing import Any

from narrows.session.agents.names import parse
from narrows.session.agents.told import Told, shown

_JOINS = {
    "session.id": "agent_session",
    "conversation.id": "agent_session",
    "gen_ai.conversation.id": "agent_session",
    "prompt.id": "turn",
    "turn.id": "turn",
    "tool_use_id": "tool_call",
    "call_id": "tool_call",
    "gen_ai.tool.call.id": "tool_call",
    "request_id": "request",
    "aws.request_id": "request",
    "client_request_id": "request",
    "gen_ai.response.id": "message",
    "response_id": "message",
}
"""Attributes that name something which other exchanges name too."""
_HEX = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cost_usd", "duration_ms")


def any_value(value: Any, depth: int = 8) -> Any:
    """An AnyValue as a plain value. 64-bit integers come as texts in JSON."""
    if not isinstance(value, dict) or depth == 0:
        return None
    for kind, held in value.items():
        if kind in ("stringValue", "boolValue", "doubleValue"):
            return held
        if kind == "bytesValue":
            return shown(held)
        if kind == "intValue":
            text = str(held)
            return int(text) if len(text) < 21 and text.lstrip("-").isdecimal() else text[:64]
        if kind == "arrayValue" and isinstance(held, dict):
            return [any_value(one, depth - 1) for one in objects(held.get("values"))]
        if kind == "kvlistValue" and isinstance(held, dict):
            pairs = objects(held.get("values"))
            return {shown(one.get("key")): any_value(one.get("value"), depth - 1) for one in pairs}
    return None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, or nothing for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def joined(told: Told, attributes: dict[str, Any], record: dict[str, Any]) -> None:
    """Add the refs of one record, and what its resource tells of the program."""
    for kind, name in (("trace", "traceId"), ("span", "spanId")):
        value = shown(record.get(name)).lower()
        if _HEX.fullmatch(value) and value.strip("0"):
            told.ref(kind, value)
    parent = shown(record.get("parentSpanId")).lower()
    if _HEX.fullmatch(parent) and parent.strip("0"):
        told.ref("span", parent)
    for name, kind in _JOINS.items():
        told.ref(kind, attributes.get(name))
    out = told.out
    out.agent = out.agent or shown(attributes.get("service.name"))[:64]
    version = attributes.get("service.version") or attributes.get("app.version")
    out.agent_version = out.agent_version or shown(version)[:64]
    model = attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model") or attributes.get("model")
    out.model = shown(model)[:128] or out.model


def _id(attributes: dict[str, Any]) -> str:
    return shown(attributes.get("tool_use_id") or attributes.get("call_id") or attributes.get("gen_ai.tool.call.id"))


def event(told: Told, attributes: dict[str, Any], record: dict[str, Any], scope: str) -> None:
    """One log record: an event by `event.name`, else its body."""
    body = shown(any_value(record.get("body")))
    name = shown(attributes.get("event.name") or record.get("eventName")) or body
    word = name.rpartition(".")[2]
    if word == "user_prompt":
        told.add("prompt", shown(attributes.get("prompt")), name=name)
    elif word == "assistant_response":
        told.add("answer", shown(attributes.get("response") or attributes.get("text") or attributes.get("content")))
    elif word == "tool_result":
        _tool_result(told, attributes)
    elif word in ("tool_decision", "api_request", "api_error", "sse_event", "websocket_event", "conversation_starts"):
        told.add("notice", _line(attributes), id=_id(attributes), name=name, error=word == "api_error",
                 data=attributes)  # fmt: skip
    elif name.startswith("gen_ai."):
        _messages(told, attributes)
        told.add("notice", body or name, name=name, data=attributes)
    else:
        told.add("notice", body or _line(attributes), name=name or scope, data=attributes)


def _tool_result(told: Told, attributes: dict[str, Any]) -> None:
    success = attributes.get("success")
    text = shown(attributes.get("output") or attributes.get("result") or attributes.get("error"))
    data = {name: attributes[name] for name in ("arguments", "tool_parameters", "duration_ms") if name in attributes}
    told.add(
        "tool_result",
        text,
        id=_id(attributes),
        name=shown(attributes.get("tool_name") or attributes.get("tool")),
        data=data or None,
        error=success in (False, "false"),
    )


def span(told: Told, attributes: dict[str, Any], record: dict[str, Any]) -> None:
    """One span: a tool's run, a model's call, or something else that took time."""
    name = shown(record.get("name"))
    status = record.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    failed = code in (2, "STATUS_CODE_ERROR")
    if attributes.get("gen_ai.operation.name") == "execute_tool":
        tool, call = shown(attributes.get("gen_ai.tool.name")), _id(attributes)
        given = attributes.get("gen_ai.tool.call.arguments")
        told.add("tool_call", shown(given), id=call, name=tool, data=_value(given))
        if "gen_ai.tool.call.result" in attributes or failed:
            text = shown(attributes.get("gen_ai.tool.call.result"))
            told.add("tool_result", text, id=call, name=tool, error=failed)
        return
    _messages(told, attributes)
    times = [shown(record.get(key)) for key in ("startTimeUnixNano", "endTimeUnixNano")]
    data = {"attributes": attributes, "start": times[0], "end": times[1], "parent": shown(record.get("parentSpanId"))}
    told.add("notice", name, id=_id(attributes), name=f"span {name}", data=data, error=failed)


def _messages(told: Told, attributes: dict[str, Any]) -> None:
    """Messages of a model's call: of those that went in only what follows the last answer, and all that came out."""
    went_in = _list(attributes.get("gen_ai.input.messages"))
    last = max((n for n, one in enumerate(went_in) if one.get("role") == "assistant"), default=-1)
    for one in went_in[last + 1 :]:
        _message(told, one)
    for one in _list(attributes.get("gen_ai.output.messages")):
        _message(told, one)


def _message(told: Told, message: dict[str, Any]) -> None:
    role = message.get("role")
    kind = {"assistant": "answer", "system": "system"}.get(role if isinstance(role, str) else "", "prompt")
    for part in _list(message.get("parts")):
        what = part.get("type")
        if what == "text":
            told.add(kind, shown(part.get("content")))
        elif what == "reasoning":
            told.add("thinking", shown(part.get("content")))
        elif what == "tool_call":
            told.ref("tool_call", part.get("id"))
            told.add("tool_call", shown(part.get("arguments")), id=shown(part.get("id")), name=shown(part.get("name")),
                     data=_value(part.get("arguments")))  # fmt: skip
        elif what == "tool_call_response":
            told.ref("tool_call", part.get("id"))
            text = shown(part.get("response", part.get("result")))
            told.add("tool_result", text, id=shown(part.get("id")), name=shown(part.get("name")))


def _list(value: Any) -> list[dict[str, Any]]:
    return objects(_value(value))


def _value(value: Any) -> Any:
    """A value that may be given as a text of JSON."""
    if isinstance(value, str):
        found = parse(value)
        return value if found is None else found
    return value


def _line(attributes: dict[str, Any]) -> str:
    """The attributes that say most, on a line."""
    names = ("tool_name", "decision", "source", "model", "event.kind", "error", "error.message", "status_code", *_USAGE)
    return ", ".join(f"{name} {shown(attributes[name])[:500]}" for name in names if attributes.get(name) is not None)
