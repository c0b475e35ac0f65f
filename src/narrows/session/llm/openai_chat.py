"""OpenAI Chat Completions, as OpenAI and the many that are compatible with it speak it, and the older Completions.

Of the history that clients send again only what follows the model's last message is described, and the whole answer.
A stream is put together first: tool calls by their `index`, then it reads as an answer that came in one piece.
"""

from __future__ import annotations

from typing import Any

from narrows.core.values import Described, Item
from narrows.session.llm.clients import add
from narrows.session.llm.injected import errand
from narrows.session.llm.loose import arr, first, num, obj, txt
from narrows.session.llm.openai_parts import (
    arguments,
    asked_items,
    call_item,
    codex,
    cut,
    error,
    notice,
    priced_otherwise,
    result_item,
    slim,
    text_of,
    tool_names,
    usage,
)
from narrows.session.llm.told import Told

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
"""Members of a delta that are pieces of one text. The last two are how compatible hosts spell thinking."""

_LOOK_BACK = 20
"""Messages before the new ones in which the names of the tools are looked up that the results belong to."""


def describe(asked: Any, told: Told, out: Described) -> None:
    """Fill `out` from one call. `asked` is the request's JSON, None where it could not be read."""
    request = obj(asked)
    out.model = txt(request.get("model"))
    out.llm |= {"stream": told.streamed, "stop_reason": "", "messages": len(arr(request.get("messages")))}
    out.llm |= {"tools": tool_names(request.get("tools") or request.get("functions")), "usage": usage(None)}
    if "messages" in request:
        _asked(arr(request["messages"]), out)
        errand(out.items)
    elif "prompt" in request:
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        for prompt in prompts:
            if isinstance(prompt, str):
                asked_items(prompt, out)
    codex(request.get("client_metadata"), out)
    answer = _gathered(told, out) if told.streamed else obj(told.body)
    _answered(answer, out)


def _asked(messages: list[Any], out: Described) -> None:
    spoken = [obj(message).get("role") == "assistant" for message in messages]
    end = len(messages)
    while end and spoken[end - 1]:
        end -= 1  # at the end stands what the model shall go on from, not what it said
    start = next((at + 1 for at in range(end - 1, -1, -1) if spoken[at]), 0)
    calls: dict[str, str] = {}
    for message in messages[max(0, start - _LOOK_BACK) : start]:
        for call in map(obj, arr(obj(message).get("tool_calls"))):
            calls[txt(call.get("id"))] = txt(obj(first(call, "function", "custom")).get("name"))
    for message in messages[start:]:
        _asked_message(obj(message), calls, out)


def _asked_message(message: dict[str, Any], calls: dict[str, str], out: Described) -> None:
    role, content = message.get("role"), message.get("content")
    if role in ("system", "developer"):
        out.items.append(Item("system", text_of(content)))
    elif role in ("tool", "function"):
        call = txt(message.get("tool_call_id"))
        result_item(out, call, content, txt(message.get("name")) or calls.get(call, ""), "request")
    elif role == "user":
        asked_items(content, out)
    elif role == "assistant":
        out.items.append(Item("context", text_of(content), name="prefill"))
    elif message:
        notice(out, txt(role) or "message", message, "request")


def _answered(answer: dict[str, Any], out: Described) -> None:
    error(answer.get("error"), out)
    add(out, "message", answer.get("id"))
    out.model = txt(answer.get("model")) or out.model
    if "usage" in answer:
        out.llm["usage"] = usage(answer["usage"])
    for choice in map(obj, arr(answer.get("choices"))):
        out.llm["stop_reason"] = out.llm["stop_reason"] or txt(choice.get("finish_reason"))
        if isinstance(choice.get("text"), str):
            out.items.append(Item("answer", choice["text"], said_by="response"))
        _answered_message(obj(choice.get("message")), out)
    priced_otherwise(txt(answer.get("service_tier")), out)


def _answered_message(message: dict[str, Any], out: Described) -> None:
    thinking = text_of(first(message, "reasoning_content", "reasoning"))
    if thinking:
        out.items.append(Item("thinking", thinking, said_by="response"))
    content = text_of(message.get("content")) or text_of([obj(message.get("audio"))])
    if content:
        cited = slim(message.get("annotations")) or None
        data = {"annotations": cited} if cited else None
        out.items.append(Item("answer", content, data=data, said_by="response"))
    if refusal := txt(message.get("refusal")):
        out.items.append(Item("answer", refusal, name="refusal", said_by="response"))
    for call in map(obj, arr(message.get("tool_calls"))):
        function, custom = obj(call.get("function")), obj(call.get("custom"))
        if custom:
            call_item(out, txt(custom.get("name")), call.get("id"), txt(custom.get("input")))
        elif function:
            call_item(out, txt(function.get("name")), call.get("id"), arguments(function.get("arguments")))
        elif call:
            notice(out, txt(call.get("type")) or "tool_call", call, "response")
    if legacy := obj(message.get("function_call")):
        call_item(out, txt(legacy.get("name")), "", arguments(legacy.get("arguments")))


class _Choice:
    """One choice of a stream, as it grows."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.completion: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.legacy: dict[str, Any] = {}
        self.others: dict[str, Any] = {}
        self.finish = ""

    def grow(self, choice: dict[str, Any]) -> None:
        """Take one chunk's part of this choice."""
        delta = obj(first(choice, "delta", "message"))
        for name in _TEXTS:
            if text := text_of(delta.get(name)):
                self.texts.setdefault(name, []).append(text)
        for name in ("audio", "annotations"):
            if delta.get(name):
                self.others[name] = delta[name]
        if isinstance(choice.get("text"), str):
            self.completion.append(choice["text"])
        for place, call in enumerate(map(obj, arr(delta.get("tool_calls")))):
            index = num(call.get("index"))
            _grow_call(self.calls.setdefault(place if index is None else index, {}), call)
        if legacy := obj(delta.get("function_call")):
            _grow_function(self.legacy, legacy)
        self.finish = txt(choice.get("finish_reason")) or self.finish

    def whole(self) -> dict[str, Any]:
        """The choice as an answer in one piece has it."""
        message: dict[str, Any] = {name: "".join(texts) for name, texts in self.texts.items()} | self.others
        if self.calls:
            message["tool_calls"] = [_joined(self.calls[index]) for index in sorted(self.calls)]
        if self.legacy:
            message["function_call"] = _joined_function(self.legacy)
        choice: dict[str, Any] = {"message": message, "finish_reason": self.finish}
        if self.completion:
            choice["text"] = "".join(self.completion)
        return choice


def _gathered(told: Told, out: Described) -> dict[str, Any]:
    """The answer that the chunks of a stream make up."""
    answer: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    finished = False
    for event in map(obj, told.events):
        for name in ("id", "model", "service_tier"):
            if txt(event.get(name)):
                answer.setdefault(name, event[name])
        if obj(event.get("usage")):
            answer["usage"] = event["usage"]
        if event.get("error"):
            answer["error"] = event["error"]
        for choice in map(obj, arr(event.get("choices"))):
            choices.setdefault(num(choice.get("index")) or 0, _Choice()).grow(choice)
            finished = finished or bool(txt(choice.get("finish_reason")))
    if not finished and not answer.get("error"):
        cut(told, out)
    answer["choices"] = [choices[index].whole() for index in sorted(choices)]
    return answer


def _grow_call(call: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("id", "type"):
        if txt(delta.get(name)):
            call.setdefault(name, delta[name])
    for name in ("function", "custom"):
        if part := obj(delta.get(name)):
            _grow_function(call.setdefault(name, {}), part)


def _grow_function(function: dict[str, Any], delta: dict[str, Any]) -> None:
    if txt(delta.get("name")):
        function.setdefault("name", delta["name"])
    for name in ("arguments", "input"):
        if isinstance(delta.get(name), str):
            function.setdefault(name, []).append(delta[name])
        elif isinstance(delta.get(name), dict):
            function[name] = [delta[name]]  # some compatible hosts send the input as an object, whole


def _joined(call: dict[str, Any]) -> dict[str, Any]:
    return {name: _joined_function(part) if isinstance(part, dict) else part for name, part in call.items()}


def _joined_function(function: dict[str, Any]) -> dict[str, Any]:
    joined = dict(function)
    for name in ("arguments", "input"):
        pieces = function.get(name)
        if pieces:
            joined[name] = pieces[-1] if isinstance(pieces[-1], dict) else "".join(filter(None, map(txt, pieces)))
    return joined
