"""Refusals in the form of each provider's own errors, so that its SDK raises its own exception.

Sources: Anthropic "Errors", OpenAI "Error codes", Google AIP-193 (`google.rpc.Status`).
"""

from __future__ import annotations

import orjson

from narrows.core.errors import Refusal
from narrows.session.llm import route

_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
}  # fmt: skip
_OPENAI = {
    400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error",
    404: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
_GOOGLE = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    413: "INVALID_ARGUMENT", 421: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def form_of(protocol: str, provider: str) -> str:
    """`anthropic`, `openai` or `gemini`: whose errors the caller reads, by what it asked, else by the connection."""
    if protocol:
        return {route.ANTHROPIC: "anthropic", route.GEMINI: "gemini"}.get(protocol, "openai")
    return provider if provider in ("anthropic", "gemini") else "openai"


def render(form: str, refusal: Refusal, request_id: str, *, head: bool) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body. The exchange's id stands where the SDK looks for a request's id."""
    status, message = refusal.status, f"Narrows: {refusal} [{refusal.code}]"
    named = b"x-request-id"
    if form == "anthropic":
        kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
        error: object = {
            "type": "error", "error": {"type": kind, "message": message}, "request_id": request_id,
        }  # fmt: skip
        named = b"request-id"
    elif form == "gemini":
        kind = _GOOGLE.get(status, "FAILED_PRECONDITION" if status < 500 else "INTERNAL")
        error = {"error": {"code": status, "message": message, "status": kind}}
    else:
        kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "server_error")
        error = {"error": {"message": message, "type": kind, "param": None, "code": refusal.code}}
    body = orjson.dumps(error)
    headers = [
        (b"Content-Type", b"application/json"),
        (named, request_id.encode("ascii")),
        (b"X-Narrows-Exchange", request_id.encode("ascii")),
        (b"Content-Length", b"%d" % len(body)),
    ]
    return status, headers, b"" if head else body
