"""Anthropic's Messages API, as far as a client needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from demo.model.forms import Saying, compact, halves
from demo.model.script import Asked, Tool, runs

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip


class Messages:
    """`POST /v1/messages`."""

    call_prefix = "toolu_"
    message_prefix = "msg_"

    def read(self, path: str, body: Any, spoken: int) -> Asked:
        """See `Form`."""
        turn = runs([message.get("role") == "assistant" for message in body["messages"]])
        tools = tuple(Tool(tool["name"], tool.get("input_schema") or {}) for tool in body.get("tools") or ())
        return Asked("messages", body["model"], bool(body.get("stream")), turn, tools, body)

    def whole(self, saying: Saying) -> Any:
        """See `Form`."""
        blocks: list[Any] = []
        if saying.turn.thinking:
            blocks.append({"type": "thinking", "thinking": saying.turn.thinking, "signature": "c2NyaXB0ZWQ="})
        text = saying.turn.text or saying.turn.refusal
        if text:
            blocks.append({"type": "text", "text": text})
        blocks += [{"type": "tool_use", "id": i, "name": tool.name, "input": given} for i, tool, given in saying.calls]
        asked, answered = saying.tokens
        return self._message(saying, blocks, self._stop(saying), {"input_tokens": asked, "output_tokens": answered})

    def events(self, saying: Saying) -> Iterator[tuple[str, Any]]:
        """See `Form`."""
        for event in self._events(saying):
            yield event["type"], event

    def _events(self, saying: Saying) -> Iterator[dict[str, Any]]:
        asked, answered = saying.tokens
        usage = {"input_tokens": asked, "output_tokens": 1}
        yield {"type": "message_start", "message": self._message(saying, [], None, usage)}
        yield {"type": "ping"}
        index = 0
        if saying.turn.thinking:
            start = {"type": "thinking", "thinking": "", "signature": ""}
            deltas: list[dict[str, Any]] = [
                {"type": "thinking_delta", "thinking": part} for part in halves(saying.turn.thinking)
            ]
            deltas.append({"type": "signature_delta", "signature": "c2NyaXB0ZWQ="})
            yield from _block(index, start, deltas)
            index += 1
        pieces = saying.turn.pieces() or halves(saying.turn.refusal)
        if pieces:
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
            yield from _block(index, {"type": "text", "text": ""}, deltas)
            index += 1
        for call, tool, given in saying.calls:
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *halves(compact(given))]]
            yield from _block(index, {"type": "tool_use", "id": call, "name": tool.name, "input": {}}, deltas)
            index += 1
        stop = {"stop_reason": self._stop(saying), "stop_sequence": None}
        yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": answered}}
        yield {"type": "message_stop"}

    def error(self, status: int, message: str) -> Any:
        """See `Form`."""
        return {"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), "message": message}}

    def stream_error(self, message: str) -> tuple[str, Any]:
        """See `Form`."""
        return "error", {"type": "error", "error": {"type": "overloaded_error", "message": message}}

    @staticmethod
    def _stop(saying: Saying) -> str:
        if saying.turn.stop:
            return saying.turn.stop
        return "tool_use" if saying.calls else "refusal" if saying.turn.refusal else "end_turn"

    @staticmethod
    def _message(saying: Saying, blocks: list[Any], stop: str | None, usage: dict[str, int]) -> Any:
        cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {
            "id": saying.id, "type": "message", "role": "assistant", "model": saying.asked.model, "content": blocks,
            "stop_reason": stop, "stop_sequence": None, "usage": usage | cache,
        }  # fmt: skip


def _block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
