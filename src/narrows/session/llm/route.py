"""What a request to a model API is, by its path alone: the API's name for it, and how its body is to be read.

Sources: the API references of Anthropic (Messages), OpenAI (Chat Completions, Responses) and Google (Gemini API).
"""

from __future__ import annotations

import re
from typing import NamedTuple

ANTHROPIC = "anthropic-messages"
CHAT = "openai-chat"
RESPONSES = "openai-responses"
GEMINI = "gemini"

_WORD = re.compile(r"[a-z][a-z_.-]{0,63}")
_METHOD = re.compile(r"[A-Za-z]{1,64}")
_MAX_SEGMENTS = 32


class Route(NamedTuple):
    """`operation` is the API's word for what is asked, never empty; `protocol` is empty for bodies of no known form."""

    operation: str
    protocol: str


def route(method: bytes, path: bytes) -> Route:
    """The route of a path (a query is passed over). Takes any bytes."""
    text = path.partition(b"?")[0].decode("ascii", "replace")
    parts = [part for part in text.split("/", _MAX_SEGMENTS) if part]
    last = parts[-1] if parts else ""
    before = parts[-2] if len(parts) > 1 else ""
    asked = last.rpartition(":")[2]
    if asked != last and _METHOD.fullmatch(asked):
        return Route(asked, GEMINI)
    if last == "messages":
        return Route("messages", ANTHROPIC)
    if last == "count_tokens" and before == "messages":
        return Route("count_tokens", ANTHROPIC)
    if last == "completions" and before == "chat":
        return Route("chat.completions", CHAT)
    if last == "responses":
        return Route("responses", RESPONSES)
    if "models" in parts:
        return Route("models", "")
    # The last word that is no id: /v1/files/file-9x4b is about files.
    word = next((part for part in reversed(parts) if _WORD.fullmatch(part)), "")
    return Route(word or method.decode("ascii", "replace").lower(), "")
