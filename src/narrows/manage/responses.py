"""The two kinds of answer: JSON, and RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


class JsonResponse(Response):
    """JSON by orjson. Bytes that are not UTF-8 were replaced before they came here."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode; lone surrogates, which recorded text may hold, are replaced."""
        try:
            return orjson.dumps(content)
        except TypeError:
            return orjson.dumps(_encodable(content))


class ProblemResponse(JsonResponse):
    """An error's answer."""

    media_type = "application/problem+json"

    def __init__(self, body: dict[str, Any], status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, status, {"Cache-Control": "no-store", **(headers or {})})


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(_encodable(k)): _encodable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
