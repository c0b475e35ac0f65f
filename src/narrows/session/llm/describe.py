"""Describes a recorded call of a model API: what was asked and told anew, by whom, with which model, at what cost.

Never raises on hostile bytes: what could not be read is told in `problems`, and the rest is still there. What each API
says in its own words is read by a module of its own (`describe(asked, told, out)`); what they have in common is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from narrows.core.values import Described, Outcome, StoredExchange
from narrows.session.http.messages import Message, read_request, read_response
from narrows.session.llm import (
    anthropic,
    clients,
    code,
    gemini,
    injected,
    openai_chat,
    openai_responses,
    openai_socket,
    prices,
)
from narrows.session.llm.loose import STRING, arr, bounded, first, num, obj, txt
from narrows.session.llm.read import BODY, read_asked, read_told
from narrows.session.llm.told import Told

TEXT = 128 << 10
"""Characters of search text of one exchange."""
ITEMS = 20_000
"""Items that are kept of one exchange."""
PROBLEMS = 20
SYSTEM = 500
"""Characters of the system text that stand among the parameters."""
_TITLE = re.compile(r"\btitle generator\b|\b(?:generate|write|create|output)\b.{0,40}\btitle\b", re.IGNORECASE)
"""System text of the calls by which agents (opencode, Claude Code) name a conversation: not what the user asked for."""
_STANDARD_TIERS = ("", "default", "standard", "auto")
"""Service tiers that are charged at the prices of the table."""
USAGE = ("input", "output", "cache_read", "cache_write", "reasoning")
"""`input` and `output` are tokens; `input` counts what came from no cache and went to none. `reasoning` is a part of
`output`."""

Describer = Callable[[Any, Told, Described], None]


_DESCRIBERS: dict[str, Describer] = {
    "anthropic-messages": anthropic.describe,
    "gemini": gemini.describe,
    "openai-chat": openai_chat.describe,
    "openai-responses": openai_responses.describe,
}
"""By the fact `protocol`; of others only what all calls have is described."""


class LlmDescriber:
    """Implements `core.ports.Describe` for exchanges of kind `llm.message`."""

    def __call__(self, exchange: StoredExchange) -> Described:
        """Describe one exchange."""
        facts = exchange.request_facts
        out = Described()
        for name in ("service", "operation", "action", "access_level", "protocol", "region"):
            setattr(out, name, txt(facts.get(name)))
        request = read_request(exchange.request, BODY)
        response = read_response(exchange.response, request.method, cut=exchange.response_truncated, limit=BODY)
        if not exchange.response or openai_socket.is_socket(exchange.response):
            response.problems.clear()  # no answer is an outcome of the exchange, not a decoding problem
        heads(request, response, facts, out)
        out.status = response.status or num(exchange.response_facts.get("status")) or 0
        if openai_socket.is_socket(exchange.response):
            _socket(exchange, out)
            out.problems = out.problems[:PROBLEMS]
            return out
        asked = read_asked(request, cut=exchange.request_truncated or not request.whole, problems=out.problems)
        told = read_told(response, cut=_cut(exchange, response), problems=out.problems)
        out.model = _model(asked, request)
        if out.model:
            out.parameters["model"] = out.model  # as asked for; the answer may name another
        describe = _DESCRIBERS.get(out.protocol)
        if describe is not None and (asked is not None or told.body is not None or told.events):
            describe(asked, told, out)
        finish(asked, told, out, out.service)
        out.problems = (request.problems + response.problems + out.problems)[:PROBLEMS]
        return out


def _socket(exchange: StoredExchange, out: Described) -> None:
    """A connection that became a WebSocket, on which the Responses API is asked many times."""
    cut = exchange.request_truncated or exchange.response_truncated
    openai_socket.describe(exchange.request, exchange.response, out, cut=cut)
    long = obj(obj(prices.price(out.service, out.model)).get("long"))
    usage = obj(out.llm.get("usage"))
    if long and sum(num(usage.get(name)) or 0 for name in ("input", "cache_read", "cache_write")) > long["above"]:
        out.llm["priced_otherwise"] = True  # which of the answers are charged as long is not known from the sum
    finish(None, Told(status=out.status, streamed=True), out, out.service)


def heads(request: Message, response: Message, facts: dict[str, object], out: Described) -> None:
    """Fill what the heads say: agent, session, trace, lease, and the provider's request id."""
    clients.read_agent(request, out)
    clients.read_trace(request, facts, out)
    for name in (b"request-id", b"x-request-id", b"x-amzn-requestid", b"x-goog-request-id"):
        out.request_id = out.request_id or response.header(name)[:200]
    clients.add(out, "request", out.request_id)


def finish(asked: Any, told: Told, out: Described, provider: str) -> None:
    """What follows from the items, whatever the API: errors, parameters, code, refs, usage, cost, bounds, text."""
    _error(told, out)
    injected.errand(out.items)
    _parameters(obj(asked), out)
    out.text = _text(out)
    code.derive(out)  # after the text: its words stand in the items that it takes them out of
    _llm(obj(asked), told, out, provider)
    for item in out.items:
        if item.type in ("tool_call", "tool_result"):
            clients.add(out, "tool_call", item.id)
    out.refs = list(dict.fromkeys(out.refs))
    _bound(out)


def _cut(exchange: StoredExchange, response: Message) -> bool:
    outcome = exchange.response_facts.get("outcome", "")
    return exchange.response_truncated or not response.whole or outcome not in ("", Outcome.COMPLETE, Outcome.REFUSED)


def _model(asked: Any, request: Message) -> str:
    """The model that is asked for: in the body, or in the path of Gemini's API."""
    named = txt(obj(asked).get("model"))
    if not named:
        path = unquote(request.target.decode("latin-1").partition("?")[0])
        named = path.rpartition("/models/")[2].partition(":")[0] if "/models/" in path else ""
    return named[:200]


def _error(told: Told, out: Described) -> None:
    """Each provider's error: an object under `error`, or that object in a stream's event."""
    if out.error_code or out.error_message:
        return
    bodies = [told.body] if told.status >= 400 or told.body is not None else []
    for body in (*bodies, *(event for event in told.events if _is_error(event))):
        body = obj(body)
        error = body.get("error") if body.get("error") is not None else body if _is_error(body) else None
        if error is None and told.status >= 400:
            error = first(body, "detail", "message")
        if isinstance(error, str):
            out.error_code, out.error_message = str(told.status) if told.status >= 400 else "error", error
        elif isinstance(error, dict):
            code_ = first(error, "status", "code", "type") if "status" in error else first(error, "type", "code")
            if isinstance(error.get("code"), str) and error["code"]:
                code_ = error["code"]
            out.error_code = str(code_ if code_ is not None else "error")[:200]
            out.error_message = txt(error.get("message"))
        if error:
            return


def _is_error(event: Any) -> bool:
    event = obj(event)
    return event.get("type") == "error" or (bool(event.get("error")) and event.get("object") != "response")


def _parameters(asked: dict[str, Any], out: Described) -> None:
    """The parameters that one looks for, under the same names for every API."""
    inner = obj(asked.get("request")) or asked  # Code Assist wraps Gemini's request
    config = obj(first(inner, "generationConfig", "inferenceConfig"))
    limit = first(inner, "max_tokens", "max_completion_tokens", "max_output_tokens")
    found: dict[str, object] = {
        "model": out.model,
        "stream": out.llm.get("stream", asked.get("stream")),
        "max_tokens": first(config, "maxOutputTokens", "maxTokens") if limit is None else limit,
        "temperature": first(inner, "temperature") if "temperature" in inner else config.get("temperature"),
        "tools": tool_names(inner),
        "messages": _messages(inner),
        "system": system_text(inner)[:SYSTEM],
    }
    for name, value in found.items():
        if value not in (None, "", []) and isinstance(value, str | int | float | bool | list):
            out.parameters.setdefault(name, value)


def tool_names(asked: dict[str, Any]) -> list[str]:
    """The names of the tools that are offered; of one without a name, its type."""
    names = []
    for tool in [*arr(asked.get("tools")), *arr(obj(asked.get("toolConfig")).get("tools"))]:
        tool = obj(tool)
        declared = arr(first(tool, "functionDeclarations", "function_declarations"))
        inner = obj(tool.get("function")) or obj(tool.get("toolSpec")) or tool
        if declared:
            names += [txt(obj(function).get("name")) for function in declared]
        else:
            names.append(txt(inner.get("name")) or txt(tool.get("type")) or next(iter(tool), ""))
    return [name[:200] for name in names if name][:500]


def system_text(asked: dict[str, Any]) -> str:
    """The system text of a request, wherever its API has it."""
    said = first(asked, "system", "instructions", "systemInstruction", "system_instruction")
    if said is None:
        for message in arr(first(asked, "messages", "input")):
            if obj(message).get("role") in ("system", "developer"):
                said = obj(message).get("content")
                break
    return _plain(said)


def _plain(said: Any) -> str:
    """The text of a string, of content blocks, or of an object with `parts`."""
    if isinstance(said, str):
        return said
    if isinstance(said, dict):
        return _plain(said.get("parts")) or txt(said.get("text"))
    return "\n".join(
        text for part in arr(said) if (text := part if isinstance(part, str) else txt(obj(part).get("text")))
    )


def _messages(asked: dict[str, Any]) -> int | None:
    said = first(asked, "messages", "input", "contents")
    return len(said) if isinstance(said, list) else 1 if isinstance(said, str) else None


def _llm(asked: dict[str, Any], told: Told, out: Described, provider: str) -> None:
    """Complete `llm`, whose fields `core.values.Described` names; `purpose` is `title` for a call that names a chat."""
    llm = out.llm
    inner = obj(asked.get("request")) or asked
    usage = obj(llm.get("usage"))
    llm["provider"] = llm.get("provider") or provider
    llm["api"] = llm.get("api") or out.operation
    llm.setdefault("stream", told.streamed or asked.get("stream") is True)
    llm.setdefault("stop_reason", "")
    llm.setdefault("messages", _messages(inner))
    llm.setdefault("tools", tool_names(inner))
    if not llm["tools"] and _TITLE.search(system_text(inner)[:4000]) is not None:
        llm["purpose"] = "title"
    llm["usage"] = {name: num(usage.get(name)) for name in USAGE}
    if num(usage.get("cache_write_1h")):
        llm["usage"]["cache_write_1h"] = usage["cache_write_1h"]
    other = bool(llm.pop("priced_otherwise", False)) or llm.get("service_tier", "") not in _STANDARD_TIERS
    llm["cost_usd"] = None if other else prices.cost(txt(llm["provider"]), out.model, llm["usage"])


def _bound(out: Described) -> None:
    """Cut what is too long, and say so."""
    if len(out.items) > ITEMS:
        out.problems.append(f"only the first {ITEMS} of {len(out.items)} items are kept")
        del out.items[ITEMS:]
    for item in out.items:
        if len(item.text) > STRING:
            out.problems.append(f"{item.type}: a text of {len(item.text)} characters, the first {STRING} are kept")
            item.text = item.text[:STRING]
        item.data, cut = bounded(item.data)
        if cut:
            out.problems.append(f"{item.type}: data that is long or deeply nested is kept in part")


def _text(out: Described) -> str:
    """Search text: the items' texts, names and data, and the error."""
    found: list[str] = []
    room = TEXT
    _strings([out.error_code, out.error_message], found, TEXT)
    # System text is long and the same in every session: it gets what room is left.
    for item in sorted(out.items, key=lambda item: item.type == "system"):
        room = _strings([item.name, item.text, item.data], found, room)
    return "\n".join(found)


def _strings(value: Any, into: list[str], room: int) -> int:
    if room <= 0:
        return 0
    if isinstance(value, str):
        if value:
            into.append(value[:room])
        return room - len(value) - 1 if value else room
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        room = _strings(item, into, room)
    return room
