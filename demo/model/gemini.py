"""Gemini's generateContent, as far as a client needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from demo.model.forms import Saying
from demo.model.script import Asked, Tool, runs

_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 529: "UNAVAILABLE",
}  # fmt: skip


class GenerateContent:
    """`POST /v1beta/models/MODEL:generateContent` and `:streamGenerateContent`."""

    call_prefix = "call_"
    message_prefix = ""

    def read(self, path: str, body: Any, spoken: int) -> Asked:
        """See `Form`."""
        name, _, method = path.rpartition("/")[2].partition(":")
        contents = body["contents"]
        contents = contents if isinstance(contents, list) else [contents]
        turn = runs([content.get("role") == "model" for content in contents])
        declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        tools = tuple(Tool(one["name"], _schema(one)) for one in declared)
        return Asked("generateContent", name, method == "streamGenerateContent", turn, tools, body)

    def whole(self, saying: Saying) -> Any:
        """See `Form`."""
        parts: list[Any] = [{"text": saying.turn.thinking, "thought": True}] if saying.turn.thinking else []
        if saying.turn.text or saying.turn.refusal:
            parts.append({"text": saying.turn.text or saying.turn.refusal})
        return self._response(saying, parts + self._calls(saying), self._finish(saying))

    def events(self, saying: Saying) -> Iterator[tuple[str, Any]]:
        """See `Form`. Every event is a whole response; the last one carries the calls and the end."""
        if saying.turn.thinking:
            yield "", self._response(saying, [{"text": saying.turn.thinking, "thought": True}], "")
        for piece in saying.turn.pieces():
            yield "", self._response(saying, [{"text": piece}], "")
        yield "", self._response(saying, self._calls(saying) or [{"text": ""}], self._finish(saying))

    def error(self, status: int, message: str) -> Any:
        """See `Form`."""
        return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "INTERNAL")}}

    def stream_error(self, message: str) -> tuple[str, Any]:
        """See `Form`."""
        return "", self.error(503, message)

    @staticmethod
    def _finish(saying: Saying) -> str:
        return saying.turn.stop or ("SAFETY" if saying.turn.refusal else "STOP")

    @staticmethod
    def _calls(saying: Saying) -> list[Any]:
        return [{"functionCall": {"id": i, "name": tool.name, "args": given}} for i, tool, given in saying.calls]

    @staticmethod
    def _response(saying: Saying, parts: list[Any], finish: str) -> Any:
        asked, answered = saying.tokens
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate], "modelVersion": saying.asked.model, "responseId": saying.id,
            "usageMetadata": {
                "promptTokenCount": asked, "candidatesTokenCount": answered, "totalTokenCount": asked + answered,
            },
        }  # fmt: skip


def _schema(declared: dict[str, Any]) -> Any:
    names = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    return next((declared[name] for name in names if declared.get(name)), {})
