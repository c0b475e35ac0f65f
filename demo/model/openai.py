"""OpenAI's Chat Completions and Responses, as far as a client needs them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from demo.model.forms import CREATED, Saying, compact, halves
from demo.model.script import Asked, Tool, runs

_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"), 404: ("invalid_request_error", "unknown_url"),
    400: ("invalid_request_error", "invalid_value"), 429: ("requests", "rate_limit_exceeded"),
}  # fmt: skip


class _Errors:
    def error(self, status: int, message: str) -> Any:
        """See `Form`."""
        kind, code = _ERRORS.get(status, ("server_error", "server_error"))
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Chat(_Errors):
    """`POST /v1/chat/completions`."""

    call_prefix = "call_"
    message_prefix = "chatcmpl-"

    def read(self, path: str, body: Any, spoken: int) -> Asked:
        """See `Form`."""
        turn = runs([message.get("role") == "assistant" for message in body["messages"]])
        functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
        tools = tuple(Tool(one["name"], one.get("parameters") or {}) for one in functions)
        return Asked("chat.completions", body["model"], bool(body.get("stream")), turn, tools, body)

    def whole(self, saying: Saying) -> Any:
        """See `Form`."""
        message: dict[str, Any] = {"role": "assistant", "content": saying.turn.text or None, "refusal": None}
        if saying.turn.refusal:
            message["refusal"] = saying.turn.refusal
        if saying.turn.thinking:
            message["reasoning_content"] = saying.turn.thinking
        if saying.calls:
            message["tool_calls"] = [
                {"id": call, "type": "function", "function": {"name": tool.name, "arguments": compact(given)}}
                for call, tool, given in saying.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(saying)}
        answer = self._envelope(saying, "chat.completion")
        return answer | {"choices": [choice], "usage": self._usage(saying)}

    def events(self, saying: Saying) -> Iterator[tuple[str, Any]]:
        """See `Form`."""
        for delta in self._deltas(saying):
            yield "", self._chunk(saying, delta, None)
        yield "", self._chunk(saying, {}, self._finish(saying))
        if (saying.asked.body.get("stream_options") or {}).get("include_usage"):
            last = self._envelope(saying, "chat.completion.chunk")
            yield "", last | {"choices": [], "usage": self._usage(saying)}
        yield "", "[DONE]"

    def _deltas(self, saying: Saying) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": "", "refusal": None}
        for part in halves(saying.turn.thinking):
            yield {"reasoning_content": part}
        for part in halves(saying.turn.refusal):
            yield {"refusal": part}
        for piece in saying.turn.pieces():
            yield {"content": piece}
        for index, (call, tool, given) in enumerate(saying.calls):
            start = {"index": index, "id": call, "type": "function", "function": {"name": tool.name, "arguments": ""}}
            yield {"tool_calls": [start]}
            for part in halves(compact(given)):
                yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    def stream_error(self, message: str) -> tuple[str, Any]:
        """See `Form`."""
        return "", self.error(500, message)

    def _chunk(self, saying: Saying, delta: dict[str, Any], finish: str | None) -> Any:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._envelope(saying, "chat.completion.chunk") | {"choices": [choice]}

    @staticmethod
    def _envelope(saying: Saying, kind: str) -> dict[str, Any]:
        return {"id": saying.id, "object": kind, "created": CREATED, "model": saying.asked.model}

    @staticmethod
    def _finish(saying: Saying) -> str:
        return saying.turn.stop or ("tool_calls" if saying.calls else "stop")

    @staticmethod
    def _usage(saying: Saying) -> dict[str, Any]:
        asked, answered = saying.tokens
        details = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}
        return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered, **details}


class Responses(_Errors):
    """`POST /v1/responses`, and the same events over a WebSocket."""

    call_prefix = "call_"
    message_prefix = "resp_"

    def read(self, path: str, body: Any, spoken: int) -> Asked:
        """See `Form`."""
        given = body.get("input")
        items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        turn = spoken + runs([_by_model(item) for item in items])
        tools = tuple(
            Tool(tool.get("name", tool["type"]), tool.get("parameters") or {}, tool["type"])
            for tool in body.get("tools") or ()
        )
        return Asked("responses", body.get("model") or "unknown", bool(body.get("stream")), turn, tools, body)

    def whole(self, saying: Saying) -> Any:
        """See `Form`."""
        return self._response(saying, self._status(saying), self._items(saying))

    def events(self, saying: Saying) -> Iterator[tuple[str, Any]]:
        """See `Form`."""
        numbers = itertools.count()
        for event in self._events(saying):
            yield event["type"], event | {"sequence_number": next(numbers)}

    def _events(self, saying: Saying) -> Iterator[dict[str, Any]]:
        yield {"type": "response.created", "response": self._response(saying, "in_progress", [])}
        yield {"type": "response.in_progress", "response": self._response(saying, "in_progress", [])}
        items = self._items(saying)
        for index, item in enumerate(items):
            at = {"output_index": index, "item_id": item["id"]}
            yield {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}
            for name, event in _inner(item, saying):
                yield {"type": f"response.{name}", **at, **event}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        status = self._status(saying)
        yield {"type": f"response.{status}", "response": self._response(saying, status, items)}

    def stream_error(self, message: str) -> tuple[str, Any]:
        """See `Form`."""
        return "error", {"type": "error", "code": "server_error", "message": message, "param": None}

    @staticmethod
    def _status(saying: Saying) -> str:
        return "incomplete" if saying.turn.stop else "completed"

    @staticmethod
    def _items(saying: Saying) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        tail = saying.id.removeprefix("resp_")
        if saying.turn.thinking:
            summary = [{"type": "summary_text", "text": saying.turn.thinking}]
            item = {"id": f"rs_{tail}", "type": "reasoning", "summary": summary, "encrypted_content": "c2VhbGVk"}
            items.append(item)
        text, refusal = saying.turn.text, saying.turn.refusal
        if text or refusal:
            part: dict[str, Any] = {"type": "refusal", "refusal": refusal}
            if text:
                part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            item = {"id": f"msg_{tail}", "type": "message", "status": "completed", "role": "assistant"}
            items.append(item | {"content": [part]})
        items += [
            _call(f"fc_{number}{tail}", call, tool, given) for number, (call, tool, given) in enumerate(saying.calls)
        ]
        return items

    @staticmethod
    def _response(saying: Saying, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        asked, answered = saying.tokens
        usage = {
            "input_tokens": asked, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answered, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + answered,
        }  # fmt: skip
        body = saying.asked.body
        return {
            "id": saying.id, "object": "response", "created_at": CREATED, "status": status, "model": saying.asked.model,
            "output": items, "error": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
            "incomplete_details": {"reason": saying.turn.stop} if status == "incomplete" else None,
            "previous_response_id": body.get("previous_response_id"), "tool_choice": "auto", "tools": [],
            "temperature": 1.0, "top_p": 1.0, "store": bool(body.get("store", True)),
            "usage": None if status == "in_progress" else usage,
        }  # fmt: skip


def _by_model(item: dict[str, Any]) -> bool:
    kind = item.get("type") or "message"
    if kind == "message":
        return item.get("role") == "assistant"
    return not kind.endswith(("_output", "_response", "_reference"))


def _call(item: str, call: str, tool: Tool, given: Any) -> dict[str, Any]:
    known = {"id": item, "call_id": call, "status": "completed"}
    if tool.kind == "custom":
        text = given if isinstance(given, str) else str(given.get("input", given.get("command", compact(given))))
        return known | {"type": "custom_tool_call", "name": tool.name, "input": text}
    if tool.kind == "local_shell":
        action = {"type": "exec", "command": ["bash", "-lc", given["command"]], "env": {}}
        return known | {"type": "local_shell_call", "action": action}
    if tool.kind == "shell":
        return known | {"type": "shell_call", "action": {"commands": [given["command"]]}}
    return known | {"type": "function_call", "name": tool.name, "arguments": compact(given)}


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is announced: without what its own events will bring."""
    empty = {"status": "in_progress", "content": [], "arguments": "", "input": "", "summary": []}
    return {name: empty.get(name, value) for name, value in item.items() if name != "encrypted_content"}


def _inner(item: dict[str, Any], saying: Saying) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events between an item's beginning and its end."""
    if item["type"] == "message":
        part = item["content"][0]
        name = "output_text" if part["type"] == "output_text" else "refusal"
        field = "text" if name == "output_text" else "refusal"
        at = {"content_index": 0}
        yield "content_part.added", at | {"part": part | {field: ""}}
        for piece in saying.turn.pieces() or halves(saying.turn.refusal):
            yield f"{name}.delta", at | {"delta": piece, "logprobs": []}
        yield f"{name}.done", at | {field: part[field], "logprobs": []}
        yield "content_part.done", at | {"part": part}
    elif item["type"] == "reasoning":
        at, text = {"summary_index": 0}, item["summary"][0]["text"]
        yield "reasoning_summary_part.added", at | {"part": {"type": "summary_text", "text": ""}}
        for part in halves(text):
            yield "reasoning_summary_text.delta", at | {"delta": part}
        yield "reasoning_summary_text.done", at | {"text": text}
        yield "reasoning_summary_part.done", at | {"part": item["summary"][0]}
    elif item["type"] in ("function_call", "custom_tool_call"):
        function = item["type"] == "function_call"
        name, field = ("function_call_arguments", "arguments") if function else ("custom_tool_call_input", "input")
        for part in halves(item[field]):
            yield f"{name}.delta", {"delta": part}
        yield f"{name}.done", {field: item[field]}
