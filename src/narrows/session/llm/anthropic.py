"""Anthropic Messages: `POST /v1/messages`, its answer as JSON or as a stream, and `count_tokens`.

Of the conversation, which clients send whole each time, only what follows the last assistant message is new. Unknown
blocks, deltas and events are kept as items of type `notice`. Source: Anthropic's API reference and SDK types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from narrows.core.values import Described, Item
from narrows.session.llm import injected
from narrows.session.llm.clients import add
from narrows.session.llm.loose import arr, compact, first, media, num, obj, parse, txt, without_media
from narrows.session.llm.told import Told

Side = Literal["request", "response"]

NOTICES = 50
"""Unknown events of one stream that are kept."""

_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_LEGACY_USER = re.compile(r"_session_([0-9a-f-]{36})$")


def describe(asked: Any, told: Told, out: Described) -> None:
    """Fill `out` from a request's JSON and the answer to it."""
    asked = obj(asked)
    _user(asked, out)
    if "input_tokens" in obj(told.body) and "content" not in obj(told.body):
        # count_tokens sends what the real call sends again: its items come with that one.
        count = num(obj(told.body).get("input_tokens"))
        out.llm["usage"] = {"input": count}
        out.llm["messages"] = len(arr(asked.get("messages")))
        out.items.append(Item("notice", f"{count} tokens counted", name="count_tokens", said_by="response"))
        return
    if out.operation != "count_tokens":
        request_items(asked, out)
    message = _from_stream(told, out) if told.events else obj(told.body)
    if message.get("type") != "error":
        answer(message, out)


def request_items(asked: dict[str, Any], out: Described) -> None:
    """What is new in the request: after the last assistant message, or all of it in a conversation's first call."""
    messages = [obj(message) for message in arr(asked.get("messages"))]
    last = _last_assistant(messages[:-1])
    if last < 0:
        system = _text(asked.get("system"))
        if system:
            out.items.append(Item("system", system))
    calls = _call_names(messages[last] if last >= 0 else {})
    for message in messages[last + 1 :]:
        role = txt(message.get("role"))
        for block in _blocks(message.get("content")):
            if role == "user":
                _user_block(block, calls, out)
            elif role == "assistant":
                # The last message may be the start of the answer, put into the model's mouth.
                out.items.append(Item("context", txt(block.get("text")), name="prefill"))
            else:
                out.items.append(Item("system", txt(block.get("text")) or compact(without_media(block))))


def answer(message: dict[str, Any], out: Described) -> None:
    """The assistant message of an answer: its blocks, ids, stop reason and usage."""
    for block in _blocks(message.get("content")):
        _answer_block(block, out)
    add(out, "message", message.get("id"))
    out.model = txt(message.get("model")) or out.model
    reason = txt(message.get("stop_reason"))
    if reason:
        out.llm["stop_reason"] = reason
    usage = obj(message.get("usage"))
    if usage:
        out.llm["usage"] = _usage(usage)
        out.llm["priced_otherwise"] = _priced_otherwise(usage)


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    hour = num(obj(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    return {
        "input": num(usage.get("input_tokens")),
        "output": num(usage.get("output_tokens")),
        "cache_read": num(usage.get("cache_read_input_tokens")),
        "cache_write": num(usage.get("cache_creation_input_tokens")),
        "cache_write_1h": hour,
        "reasoning": num(obj(usage.get("output_tokens_details")).get("thinking_tokens")),
    }


def _priced_otherwise(usage: dict[str, Any]) -> bool:
    """True where the price table's rates are not the ones that were charged."""
    tools = any(num(count) for count in obj(usage.get("server_tool_use")).values())
    place = usage.get("inference_geo") not in (None, "", "global", "not_available")
    fast = usage.get("speed") not in (None, "", "standard")
    # What a compaction, an adviser or another model cost is not in the sums.
    inner = any(obj(one).get("type") != "message" for one in arr(usage.get("iterations")))
    credited = usage.get("fallback_credit") is not None
    return tools or place or fast or inner or credited or usage.get("service_tier") not in (None, "", "standard")


def _user(asked: dict[str, Any], out: Described) -> None:
    """The agent's session in `metadata.user_id`, which Claude Code fills with a JSON string."""
    user = txt(obj(asked.get("metadata")).get("user_id"))
    if user.startswith("{"):
        try:
            add(out, "agent_session", obj(parse(user)).get("session_id"))
        except ValueError:
            out.problems.append("request: metadata.user_id starts like JSON and is none")
    elif (found := _LEGACY_USER.search(user[:400])) is not None:
        add(out, "agent_session", found[1])


def _last_assistant(messages: list[dict[str, Any]]) -> int:
    return max((at for at, message in enumerate(messages) if message.get("role") == "assistant"), default=-1)


def _call_names(message: dict[str, Any]) -> dict[str, str]:
    blocks = [block for block in _blocks(message.get("content")) if block.get("type") in _CALLS]
    return {txt(block.get("id")): txt(block.get("name")) for block in blocks}


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{"type": "text", "text": block} if isinstance(block, str) else obj(block) for block in arr(content)]


def _text(content: Any) -> str:
    """The text of content that is a string or blocks; what has no text is named in brackets."""
    if isinstance(content, str):
        return content
    parts = []
    for block in _blocks(content):
        kind = txt(block.get("type"))
        parts.append(txt(block.get("text")) if kind == "text" else f"[{kind or 'block'}]")
    return "\n".join(parts)


def _user_block(block: dict[str, Any], calls: dict[str, str], out: Described) -> None:
    kind = block.get("type")
    if kind == "text":
        out.items += spoken(txt(block.get("text")))
    elif kind == "tool_result":
        identifier = txt(block.get("tool_use_id"))
        out.items.append(
            Item(
                "tool_result",
                _text(block.get("content")),
                identifier,
                calls.get(identifier, ""),
                _structured(block.get("content")),
                error=block.get("is_error") is True,
            )
        )
    elif kind in ("image", "document"):
        source = obj(block.get("source"))
        data = without_media(source)
        if source.get("type") == "base64":
            data = media(source.get("data"), txt(source.get("media_type")))
            add(out, "file", data["sha256"])
        text = txt(source.get("data")) if source.get("type") == "text" else ""
        out.items.append(Item("prompt", text, name=txt(kind), data=None if text else data))
    else:
        out.items.append(_unknown(block, "request"))


def spoken(text: str) -> list[Item]:
    """A user's text as prompts, and as context what the agent put in by itself."""
    return [Item("context" if tag else "prompt", part, name=tag) for tag, part in injected.split(text)]


def _structured(content: Any) -> Any:
    """Content blocks that are more than text."""
    blocks = arr(content)
    return without_media(blocks) if any(obj(block).get("type") != "text" for block in blocks) else None


def _answer_block(block: dict[str, Any], out: Described) -> None:
    kind = txt(block.get("type"))
    if kind == "text":
        cited = arr(block.get("citations"))
        data = {"citations": cited} if cited else None
        out.items.append(Item("answer", txt(block.get("text")), data=data, said_by="response"))
    elif kind == "thinking":
        out.items.append(Item("thinking", txt(block.get("thinking")), said_by="response"))
    elif kind == "redacted_thinking":
        redacted = {"redacted": len(txt(block.get("data")))}
        out.items.append(Item("thinking", data=redacted, said_by="response"))
    elif kind in _CALLS:
        given = block.get("input")
        call = Item("tool_call", "", txt(block.get("id")), txt(block.get("name")), given, said_by="response")
        out.items.append(call)
    elif kind.endswith("tool_result"):
        # Tools that run at the provider put their results into the answer.
        content = block.get("content")
        failed = block.get("is_error") is True or txt(obj(content).get("type")).endswith("_error")
        inner = obj(content)
        text = txt(first(inner, "error_code", "stdout")) if inner else _text(content)
        out.items.append(
            Item(
                "tool_result",
                text,
                txt(block.get("tool_use_id")),
                kind,
                without_media(content),
                error=failed,
                said_by="response",
            )
        )
    else:
        out.items.append(_unknown(block, "response"))


def _unknown(block: dict[str, Any], side: Side) -> Item:
    text = txt(block.get("content"))  # of a compaction, the summary that goes on for the conversation
    return Item("notice", text, name=txt(block.get("type"))[:100], data=without_media(block), said_by=side)


@dataclass(slots=True)
class _Block:
    """A content block of a stream while its deltas come."""

    start: dict[str, Any]
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    json: list[str] = field(default_factory=list)
    citations: list[Any] = field(default_factory=list)

    def whole(self, out: Described) -> dict[str, Any]:
        """The block as an answer that is not streamed has it."""
        block = dict(self.start)
        if self.text or "text" in block:
            block["text"] = txt(block.get("text")) + "".join(self.text)
        if self.thinking or "thinking" in block:
            block["thinking"] = txt(block.get("thinking")) + "".join(self.thinking)
        if self.citations:
            block["citations"] = [*arr(block.get("citations")), *self.citations]
        given = "".join(self.json)
        if given.strip():
            try:
                block["input"] = parse(given)
            except ValueError:
                block["input"] = {"partial": given}
                out.problems.append(f"response: the input of {txt(block.get('name'))[:64]} is not whole")
        return block


def _from_stream(told: Told, out: Described) -> dict[str, Any]:
    """The message that a stream's events make, as far as they came."""
    message: dict[str, Any] = {}
    blocks: dict[int, _Block] = {}
    ended = False
    notices: list[Item] = []
    for event in map(obj, told.events):
        kind = txt(event.get("type"))
        if kind == "message_start":
            message = dict(obj(event.get("message")))
        elif kind == "content_block_start":
            blocks[num(event.get("index")) or 0] = _Block(obj(event.get("content_block")))
        elif kind == "content_block_delta":
            if not _delta(blocks, event) and len(notices) < NOTICES:
                notices.append(_unknown(event, "response"))
        elif kind == "message_delta":
            _message_delta(message, event)
        elif kind == "message_stop":
            ended = True
        elif kind not in ("ping", "content_block_stop", "error") and len(notices) < NOTICES:
            notices.append(_unknown(event, "response"))
    if not ended:
        told.cut = True
        out.problems.append("response: the stream ended before the message did")
    content = [blocks[at].whole(out) for at in sorted(blocks)]
    out.items += notices
    return message | {"content": content or message.get("content", [])}


def _delta(blocks: dict[int, _Block], event: dict[str, Any]) -> bool:
    """Add a delta to its block; False if it is of no known kind."""
    delta = obj(event.get("delta"))
    kind = txt(delta.get("type"))
    block = blocks.setdefault(num(event.get("index")) or 0, _Block({"type": _BLOCK_OF.get(kind, "")}))
    if kind == "text_delta":
        block.text.append(txt(delta.get("text")))
    elif kind == "thinking_delta":
        block.thinking.append(txt(delta.get("thinking")))
    elif kind == "input_json_delta":
        block.json.append(txt(delta.get("partial_json")))
    elif kind == "citations_delta":
        block.citations.append(delta.get("citation"))
    elif kind == "compaction_delta":
        block.start["content"] = txt(block.start.get("content")) + txt(delta.get("content"))
    else:
        return kind == "signature_delta"
    return True


_BLOCK_OF = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "tool_use",
    "citations_delta": "text",
}
"""The block that a delta belongs to whose start never came."""


def _message_delta(message: dict[str, Any], event: dict[str, Any]) -> None:
    """The last counts stand: those of a delta are of the whole message, and may leave out what did not change."""
    for name, value in obj(event.get("delta")).items():
        if value is not None:
            message[name] = value
    usage = obj(event.get("usage"))
    if usage:
        known = {name: value for name, value in usage.items() if value is not None}
        message["usage"] = obj(message.get("usage")) | known
