"""What OpenAI's APIs share: parts of contents, arguments, usage, errors, and what Codex says of itself.

Sources: the type definitions of OpenAI's Python library; Codex's requests as they were recorded.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from narrows.core.values import Described, Item
from narrows.session.llm import injected
from narrows.session.llm.clients import add
from narrows.session.llm.loose import arr, compact, first, media, num, obj, parse, txt, without_media
from narrows.session.llm.told import Told

Side = Literal["request", "response"]

_EXIT = re.compile(r"(?:Process exited with code|Exit code:) (-?\d{1,10})\b")
_EXIT_WITHIN = 400
"""Characters at the beginning of a command's result within which Codex says how it ended."""
_DATA_URL = re.compile(r"data:([^;,]{0,100})(?:;[^,]{0,100})?,")


def notice(out: Described, name: str, value: Any, side: Side) -> None:
    """Keep what has no meaning here as it is."""
    out.items.append(Item("notice", name=name, data=slim(value), said_by=side))


def text_of(content: Any) -> str:
    """The text of a content: a string, or the text parts of a list of parts, a line each."""
    if isinstance(content, str):
        return content
    texts = (txt(first(obj(part), "text", "refusal", "transcript")) for part in arr(content))
    return "\n".join(text for text in texts if text)


def asked_items(content: Any, out: Described, kinds: Any = None) -> None:
    """A user's message: prompts, and what the agent put in by itself. `kinds` is what Codex calls each part."""
    parts = [{"text": content}] if isinstance(content, str) else arr(content)
    named = [txt(kind) for kind in arr(kinds)]
    if len(named) != len(parts):
        named = [""] * len(parts)
    for part, kind in zip(map(obj, parts), named, strict=True):
        text = part.get("text")
        if isinstance(text, str) and kind:
            typed = kind.startswith("user.")
            out.items.append(Item("prompt" if typed else "context", text, name="" if typed else kind))
        elif isinstance(text, str):
            for tag, said in injected.split(text):
                out.items.append(Item("context" if tag else "prompt", said, name=tag))
        elif part:
            out.items.append(Item("prompt", name=txt(part.get("type")) or "part", data=slim(part)))


def slim(value: Any, depth: int = 0) -> Any:
    """A structure whose embedded files (data URLs, base64) are replaced by type, length and SHA-256."""
    if depth > 8:
        return without_media(value)
    if isinstance(value, list):
        return [slim(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _slim_member(key, item, value, depth) for key, item in value.items()}
    return value


def _slim_member(key: str, item: Any, whole: dict[str, Any], depth: int) -> Any:
    if not isinstance(item, str) or len(item) <= 256:
        return slim(item, depth + 1)
    if (url := _DATA_URL.match(item)) is not None:
        return media(item[url.end() :], url[1])
    if key in ("data", "file_data", "result", "b64_json", "encrypted_content"):
        return media(item, txt(first(whole, "media_type", "format", "output_format")))
    return item


def arguments(raw: Any) -> Any:
    """A tool's input: the JSON that its text is, else the text as it came."""
    if not isinstance(raw, str):
        return raw
    try:
        return parse(raw) if raw.strip() else {}
    except ValueError:
        return raw


def call_item(out: Described, name: str, call: Any, data: Any) -> None:
    """A tool call of an answer. Its ref is made from the item, with those of all items."""
    out.items.append(Item("tool_call", id=txt(call), name=name, data=data, said_by="response"))


def result_item(out: Described, call: Any, output: Any, name: str, side: Side, *, failed: bool = False) -> None:
    """A tool's result. It counts as failed where the API says so, or the agent's own first lines give an exit code."""
    text, data, error = _output(output)
    out.items.append(Item("tool_result", text, txt(call), name, data, error or failed, side))


def _output(output: Any) -> tuple[str, Any, bool]:
    if isinstance(output, str):
        return _text_output(output)
    if isinstance(output, list):
        shells = [obj(part) for part in output if "stdout" in obj(part) or "stderr" in obj(part)]
        if shells:
            texts = [txt(part.get("stdout")) + txt(part.get("stderr")) for part in shells]
            outcomes = [obj(part.get("outcome")) for part in shells]
            failed = any(one.get("type") == "timeout" or (num(one.get("exit_code")) != 0) for one in outcomes if one)
            return "\n".join(texts), {"outcomes": outcomes}, failed
        rest = [slim(part) for part in output if not isinstance(first(obj(part), "text", "refusal"), str)]
        return text_of(output), rest or None, False
    whole = obj(output)
    if "content" in whole and "success" in whole:
        return text_of(whole["content"]), None, whole["success"] is False
    return "", slim(output), False


def _text_output(text: str) -> tuple[str, Any, bool]:
    if text.startswith('{"output":'):
        try:
            whole = obj(parse(text))
        except ValueError:
            return text, None, False
        code = obj(whole.get("metadata")).get("exit_code")
        if isinstance(code, int) and isinstance(whole.get("output"), str):
            return whole["output"], {"exit_code": code}, code != 0
        return text, None, False
    if text.startswith(("Chunk ID:", "Exit code:", "Wall time:")):
        found = _EXIT.search(text.partition("\nOutput:")[0][:_EXIT_WITHIN])
        if found is not None:
            return text, {"exit_code": int(found[1])}, int(found[1]) != 0
    return text, None, False


def usage(given: Any) -> dict[str, int | None]:
    """Tokens in either dialect. `input` is what was not read from or written to a cache; OpenAI counts all as one."""
    counts = obj(given)
    came = num(first(counts, "prompt_tokens", "input_tokens"))
    about = obj(first(counts, "prompt_tokens_details", "input_tokens_details"))
    spoken = obj(first(counts, "completion_tokens_details", "output_tokens_details"))
    read = num(first(about, "cached_tokens"))
    if read is None:
        read = num(counts.get("prompt_cache_hit_tokens"))
    wrote = num(about.get("cache_write_tokens"))
    cached = (read or 0) + (wrote or 0)
    return {
        "input": came if came is None else max(0, came - cached),
        "output": num(first(counts, "completion_tokens", "output_tokens")),
        "cache_read": read,
        "cache_write": wrote,
        "reasoning": num(spoken.get("reasoning_tokens")),
    }


def error(given: Any, out: Described) -> None:
    """Note an error that an answer or an event of a stream carries."""
    about = {"message": given} if isinstance(given, str) and given else obj(given)
    if not about:
        return
    code = first(about, "code", "type", "status")
    out.error_code = txt(code) or (str(code) if isinstance(code, int) else "") or "error"
    out.error_message = txt(about.get("message")) or compact(slim(about))


def priced_otherwise(tier: str, out: Described) -> None:
    """Say where list prices are not what was charged: another service tier, or tools that cost by the call."""
    tools = {"web_search", "file_search", "code_interpreter", "image_generation", "computer"}
    charged = any(item.type == "tool_call" and item.name in tools and item.data for item in out.items)
    out.llm["priced_otherwise"] = charged or tier not in ("", "default", "standard")


def cut(told: Told, out: Described) -> None:
    """Say that a stream did not come to its end."""
    told.cut = True
    out.problems.append("response: the stream ended before the answer did")


def codex(client: Any, out: Described) -> None:
    """Refs of the session and turn that Codex names in `client_metadata` (its turn metadata is JSON within)."""
    named = obj(client)
    sources = [named]
    inner = named.get("x-codex-turn-metadata")
    if isinstance(inner, str):
        sources.append(obj(arguments(inner)))
    for source in sources:
        add(out, "agent_session", source.get("session_id"))
        add(out, "agent_session", source.get("thread_id"))
        add(out, "turn", source.get("turn_id"))


def tool_names(tools: Any) -> list[str]:
    """The names of the tools that a request offers; those without a name go by their type."""
    names = []
    for tool in map(obj, arr(tools)):
        inner = obj(first(tool, "function", "custom"))
        name = txt(first(inner, "name")) or txt(first(tool, "name", "server_label", "type"))
        if name:
            names.append(name)
    return names
