"""Models on Amazon Bedrock: Converse, InvokeModel, their streams, as items like those of any other model API.

The calls themselves are AWS calls and described as such; here is what they say. Bodies of InvokeModel are each model
family's own: Anthropic's are Messages, Nova's like Converse, gpt-oss's Chat Completions; Titan, Llama, Mistral and
Cohere have a prompt and a text. Of others nothing is guessed.
"""

from __future__ import annotations

from typing import Any

from narrows.core.values import Described, Item
from narrows.session.http.messages import Message
from narrows.session.llm import anthropic, openai_chat
from narrows.session.llm.anthropic import spoken
from narrows.session.llm.clients import add, read_agent
from narrows.session.llm.describe import finish
from narrows.session.llm.loose import arr, compact, first, num, obj, parse, txt, without_media
from narrows.session.llm.told import Told

OPERATIONS = frozenset(("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"))
"""Operations of `bedrock-runtime` that ask a model."""

_STREAM_EVENTS = frozenset(
    ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")
)


def describe(request: Message, response: Message, result: Any, out: Described) -> None:
    """Add what a call of `bedrock-runtime` says to its description, whose parameters and events are filled already."""
    out.model = txt(out.parameters.get("modelId"))[:200]
    read_agent(request, out)
    text = out.text
    told = Told(status=response.status, cut=not response.whole)
    converse = out.operation in ("Converse", "ConverseStream")
    asked = dict(out.parameters) if converse else _json(request, "request", out)
    if out.operation == "Converse":
        told.body = result
    elif out.operation == "ConverseStream":
        told.streamed, told.events = True, list(out.events)
    elif out.operation == "InvokeModel":
        told.body = _json(response, "response", out) if 0 < response.status < 300 else None
    else:
        told.streamed = True
        told.events = [event["bytes"] for event in out.events if isinstance(event.get("bytes"), dict)]
    _dispatch(asked, told, out, converse=converse)
    told.status = 0  # what failed was described as an AWS error
    parameters, out.parameters = out.parameters, {}
    finish(asked, told, out, "bedrock")
    out.parameters = parameters
    out.llm["api"] = out.operation
    out.text = text or out.text


def _json(message: Message, which: str, out: Described) -> Any:
    if not message.body or not message.whole:
        return None
    try:
        return parse(message.body)
    except ValueError:
        out.problems.append(f"{which}: the model's own body is not JSON")
        return None


def _dispatch(asked: Any, told: Told, out: Described, *, converse: bool) -> None:
    given, body = obj(asked), obj(told.body)
    if converse or "output" in body or any(_STREAM_EVENTS & obj(event).keys() for event in told.events[:1]):
        _converse(given, told, out)
    elif "anthropic_version" in given or body.get("type") == "message":
        anthropic.describe(asked, told, out)
        _metrics(told, out)
    elif "choices" in body or any("choices" in obj(event) for event in told.events[:1]):
        openai_chat.describe(asked, told, out)
    else:
        _plain(given, [obj(event) for event in told.events] or [body], out)


def _metrics(told: Told, out: Described) -> None:
    """The counts that Bedrock adds to a stream's last event, where the model gave none."""
    metrics = next((m for e in told.events if (m := obj(obj(e).get("amazon-bedrock-invocationMetrics")))), {})
    usage = obj(out.llm.get("usage"))
    for name, member in (("input", "inputTokenCount"), ("output", "outputTokenCount")):
        if metrics and usage.get(name) is None:
            usage[name] = num(metrics.get(member))
    if usage:
        out.llm["usage"] = usage


def _converse(asked: dict[str, Any], told: Told, out: Described) -> None:
    messages = [obj(message) for message in arr(asked.get("messages"))]
    last = max((at for at, message in enumerate(messages[:-1]) if message.get("role") == "assistant"), default=-1)
    if last < 0 and (system := _text(asked.get("system"))):
        out.items.append(Item("system", system))
    names = {
        txt(use.get("toolUseId")): txt(use.get("name"))
        for block in (arr(messages[last].get("content")) if last >= 0 else [])
        if (use := obj(obj(block).get("toolUse")))
    }
    for message in messages[last + 1 :]:
        for block in map(obj, arr(message.get("content"))):
            if message.get("role") == "assistant":
                out.items.append(Item("context", txt(block.get("text")), name="prefill"))
            else:
                _asked_block(block, names, out)
    _metadata(asked, out)
    if told.events:
        blocks, closing = _gathered(told, out)
    else:
        closing = obj(told.body)
        blocks = [obj(b) for b in arr(obj(obj(closing.get("output")).get("message")).get("content"))]
    for block in blocks:
        _answer_block(block, out)
    out.llm["stop_reason"] = txt(closing.get("stopReason"))
    out.llm["stream"] = bool(told.events)
    usage = obj(closing.get("usage"))
    out.llm["usage"] = {
        "input": num(usage.get("inputTokens")),
        "output": num(usage.get("outputTokens")),
        "cache_read": num(usage.get("cacheReadInputTokens")),
        "cache_write": num(usage.get("cacheWriteInputTokens")),
    }


def _metadata(asked: dict[str, Any], out: Described) -> None:
    """`requestMetadata` is the caller's own; a session's id in it joins."""
    for name, value in obj(asked.get("requestMetadata")).items():
        if name.replace("_", "-").lower() in ("session-id", "sessionid", "conversation-id"):
            add(out, "agent_session", value)


def _asked_block(block: dict[str, Any], names: dict[str, str], out: Described) -> None:
    if isinstance(block.get("text"), str):
        out.items += spoken(block["text"])
    elif "toolResult" in block:
        result = obj(block["toolResult"])
        parts = [obj(part) for part in arr(result.get("content"))]
        identifier = txt(result.get("toolUseId"))
        data = without_media(parts) if any("text" not in part for part in parts) else None
        failed = result.get("status") == "error"
        out.items.append(
            Item("tool_result", _text(parts), identifier, names.get(identifier, ""), data, error=failed),
        )
    elif "cachePoint" not in block and block:
        kind = next(iter(block))
        media = kind in ("image", "document", "video", "audio")
        out.items.append(Item("prompt" if media else "notice", name=kind[:100], data=without_media(block[kind])))


def _answer_block(block: dict[str, Any], out: Described) -> None:
    if isinstance(block.get("text"), str):
        out.items.append(Item("answer", block["text"], said_by="response"))
    elif "toolUse" in block:
        use = obj(block["toolUse"])
        identifier, name = txt(use.get("toolUseId")), txt(use.get("name"))
        out.items.append(Item("tool_call", "", identifier, name, use.get("input"), said_by="response"))
    elif "reasoningContent" in block:
        reasoning = obj(block["reasoningContent"])
        text = txt(first(obj(reasoning.get("reasoningText")), "text"))
        hidden = None if text else {"redacted": True}
        out.items.append(Item("thinking", text, data=hidden, said_by="response"))
    elif "citationsContent" in block:
        cited = obj(block["citationsContent"])
        data = {"citations": cited.get("citations")}
        out.items.append(Item("answer", _text(cited.get("content")), data=data, said_by="response"))
    elif block:
        kind = next(iter(block))
        out.items.append(Item("notice", name=kind[:100], data=without_media(block[kind]), said_by="response"))


def _gathered(told: Told, out: Described) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(blocks, closing members) of a ConverseStream, whose events come as `{"type": name, ...}` or `{name: {...}}`."""
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, list[str]] = {}
    closing: dict[str, Any] = {}
    for event in map(obj, told.events):
        kind = txt(event.get("type")) or next(iter(_STREAM_EVENTS & event.keys()), "")
        body = event if "type" in event else obj(event.get(kind))
        at = num(body.get("contentBlockIndex")) or 0
        if kind == "contentBlockStart":
            blocks[at] = dict(obj(body.get("start")))
        elif kind == "contentBlockDelta":
            _grow(blocks.setdefault(at, {}), inputs.setdefault(at, []), obj(body.get("delta")))
        elif kind == "messageStop":
            closing["stopReason"] = body.get("stopReason")
        elif kind == "metadata":
            closing["usage"] = body.get("usage")
    if "stopReason" not in closing:
        out.problems.append("response: the stream ended before the message did")
    for at, pieces in inputs.items():
        if "toolUse" in blocks[at]:
            blocks[at]["toolUse"] = {**obj(blocks[at]["toolUse"]), "input": _input("".join(pieces), out)}
    return [blocks[at] for at in sorted(blocks)], closing


def _grow(block: dict[str, Any], pieces: list[str], delta: dict[str, Any]) -> None:
    if isinstance(delta.get("text"), str):
        block["text"] = txt(block.get("text")) + delta["text"]
    elif "toolUse" in delta:
        block.setdefault("toolUse", {})
        pieces.append(txt(obj(delta["toolUse"]).get("input")))
    elif "reasoningContent" in delta:
        text = obj(block.setdefault("reasoningContent", {})).setdefault("reasoningText", {"text": ""})
        text["text"] += txt(obj(delta["reasoningContent"]).get("text"))


def _input(text: str, out: Described) -> Any:
    if not text.strip():
        return {}
    try:
        return parse(text)
    except ValueError:
        out.problems.append("response: the input of a tool call is not whole")
        return {"partial": text}


def _text(parts: Any) -> str:
    """The text of Converse's content: blocks with `text` or `json`; other kinds are named in brackets."""
    found = []
    for part in map(obj, arr(parts)):
        if isinstance(part.get("text"), str):
            found.append(part["text"])
        elif "json" in part:
            found.append(compact(part["json"]))
        elif part and "cachePoint" not in part:
            found.append(f"[{next(iter(part))}]")
    return "\n".join(found)


def _plain(asked: dict[str, Any], told: list[dict[str, Any]], out: Described) -> None:
    """Families whose body is a prompt and whose answer is a text: Titan, Llama, Mistral, Cohere."""
    prompt = txt(first(asked, "inputText", "prompt", "message"))
    if prompt:
        out.items.append(Item("prompt", prompt))
    texts: list[str] = []
    usage: dict[str, Any] = {}
    for body in told:
        inner = [
            obj(one) for one in (*arr(body.get("results")), *arr(body.get("outputs")), *arr(body.get("generations")))
        ]
        for one in inner or [body]:
            texts.append(txt(first(one, "outputText", "generation", "text")))
            reason = txt(first(one, "completionReason", "stop_reason", "finish_reason"))
            out.llm["stop_reason"] = reason or out.llm.get("stop_reason", "")
        counts = {
            "input": num(first(body, "inputTextTokenCount", "prompt_token_count")),
            "output": num(first(body, "generation_token_count", "totalOutputTextTokenCount")),
        }
        usage |= {name: count for name, count in counts.items() if count is not None}
    if any(texts):
        out.items.append(Item("answer", "".join(texts), said_by="response"))
    out.llm["usage"] = usage
