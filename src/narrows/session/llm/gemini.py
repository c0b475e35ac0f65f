"""Gemini: `generateContent`, `streamGenerateContent` as server-sent events or as an array, and the Code Assist form.

Code Assist (`v1internal:`), which Google-login clients speak, wraps the request under `request` and each answer under
`response`. A function call has no id unless the client asks for one: it is then its name and how many of that name came
before it in the conversation (`read_file:3`), which is the same in the answer and when its result is sent.
Source: the API reference of the Gemini API and the types of its SDK.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from narrows.core.values import Described, Item
from narrows.session.llm.anthropic import spoken
from narrows.session.llm.clients import add
from narrows.session.llm.loose import arr, compact, first, media, num, obj, txt, without_media
from narrows.session.llm.told import Told

_KEYS = ("text", "functionCall", "functionResponse", "executableCode", "codeExecutionResult", "inlineData", "fileData")


def describe(asked: Any, told: Told, out: Described) -> None:
    """Fill `out` from a request's JSON and the answer to it."""
    asked = obj(asked)
    add(out, "turn", asked.get("user_prompt_id"))
    inner = obj(asked.get("request")) or asked
    add(out, "agent_session", first(inner, "session_id", "sessionId"))
    calls: Counter[str] = Counter()
    if out.operation not in ("countTokens", "count_tokens"):
        _request(inner, calls, out)
    answers = [obj(obj(body).get("response")) or obj(body) for body in (told.events or [told.body])]
    parts: list[dict[str, Any]] = []
    for body in answers:
        _about(body, out)
        for candidate in map(obj, arr(body.get("candidates"))):
            parts += [obj(part) for part in arr(obj(candidate.get("content")).get("parts"))]
            if candidate.get("finishReason"):
                out.llm["stop_reason"] = txt(candidate.get("finishReason"))
    for part in _joined(parts):
        _answer(part, calls, out)
    out.llm["stream"] = told.streamed or "stream" in out.operation


def _about(body: dict[str, Any], out: Described) -> None:
    """Model, id, usage and refusal of one answer or of one chunk; a later chunk's counts replace the earlier ones."""
    out.model = txt(body.get("modelVersion")) or out.model
    add(out, "message", body.get("responseId"))
    blocked = txt(obj(body.get("promptFeedback")).get("blockReason"))
    if blocked:
        out.llm["stop_reason"] = blocked
    usage = obj(body.get("usageMetadata"))
    if "totalTokens" in body and not usage:  # countTokens
        out.llm["usage"] = {"input": num(body.get("totalTokens"))}
    if not usage:
        return
    cached = num(usage.get("cachedContentTokenCount"))
    thought = num(usage.get("thoughtsTokenCount"))
    prompt, said = num(usage.get("promptTokenCount")), num(usage.get("candidatesTokenCount"))
    tools = num(usage.get("toolUsePromptTokenCount")) or 0
    out.llm["priced_otherwise"] = usage.get("trafficType") not in (None, "", "ON_DEMAND")
    out.llm["usage"] = {
        # Cached tokens are counted among the prompt's, thoughts beside the answer's.
        "input": None if prompt is None else max(0, prompt - (cached or 0)) + tools,
        "output": None if said is None and thought is None else (said or 0) + (thought or 0),
        "cache_read": cached,
        "reasoning": thought,
    }


def _request(asked: dict[str, Any], calls: Counter[str], out: Described) -> None:
    contents = [obj(content) for content in arr(asked.get("contents"))]
    last = max((at for at, content in enumerate(contents) if content.get("role") == "model"), default=-1)
    results: Counter[str] = Counter()
    for content in contents[: last + 1]:
        for part in map(obj, arr(content.get("parts"))):
            if "functionCall" in part:
                _identifier(obj(part["functionCall"]), calls)
            elif "functionResponse" in part:
                _identifier(obj(part["functionResponse"]), results)
    if last < 0:
        system = _text(first(asked, "systemInstruction", "system_instruction"))
        if system:
            out.items.append(Item("system", system))
    for content in contents[last + 1 :]:
        for part in map(obj, arr(content.get("parts"))):
            _asked_part(part, results, out)


def _asked_part(part: dict[str, Any], results: Counter[str], out: Described) -> None:
    if isinstance(part.get("text"), str):
        out.items += spoken(part["text"])
    elif "functionResponse" in part:
        result = obj(part["functionResponse"])
        response = result.get("response")
        output = first(obj(response), "output", "result", "error")
        text = output if isinstance(output, str) else compact(without_media(response))
        failed = "error" in obj(response)
        name = txt(result.get("name"))
        data = without_media(response)
        out.items.append(Item("tool_result", text, _identifier(result, results), name, data, error=failed))
    elif "inlineData" in part:
        inline = obj(part["inlineData"])
        data = media(inline.get("data"), txt(inline.get("mimeType")))
        add(out, "file", data["sha256"])
        out.items.append(Item("prompt", name="inlineData", data=data))
    elif "fileData" in part:
        out.items.append(Item("prompt", name="fileData", data=part["fileData"]))
    else:
        out.items.append(Item("notice", name=_kind(part), data=without_media(part)))


def _identifier(call: dict[str, Any], counted: Counter[str]) -> str:
    """A call's or result's id, or its name and its place among those of that name."""
    name = txt(call.get("name"))
    counted[name] += 1
    return txt(call.get("id")) or f"{name}:{counted[name]}"


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts with the texts of neighbouring chunks put together."""
    out: list[dict[str, Any]] = []
    texts: list[str] = []
    for part in parts:
        text = part.get("text")
        if isinstance(text, str) and out and texts and bool(part.get("thought")) == bool(out[-1].get("thought")):
            texts.append(text)
            continue
        if texts:
            out[-1]["text"] = "".join(texts)
        texts = [text] if isinstance(text, str) else []
        out.append(dict(part))
    if texts:
        out[-1]["text"] = "".join(texts)
    return out


def _answer(part: dict[str, Any], calls: Counter[str], out: Described) -> None:
    if isinstance(part.get("text"), str):
        if part["text"]:
            kind = "thinking" if part.get("thought") else "answer"
            out.items.append(Item(kind, part["text"], said_by="response"))
    elif "functionCall" in part:
        call = obj(part["functionCall"])
        name = txt(call.get("name"))
        out.items.append(Item("tool_call", "", _identifier(call, calls), name, call.get("args"), said_by="response"))
    elif "toolCall" in part:  # of a tool that runs at the provider
        use = obj(part["toolCall"])
        name, given = txt(use.get("toolType")), use.get("args")
        out.items.append(Item("tool_call", "", txt(use.get("id")), name, given, said_by="response"))
    elif "toolResponse" in part:
        came = obj(part["toolResponse"])
        text = compact(without_media(came.get("response")))
        out.items.append(Item("tool_result", text, txt(came.get("id")), txt(came.get("toolType")), said_by="response"))
    elif "executableCode" in part:
        code = obj(part["executableCode"])
        language = txt(code.get("language")).lower()
        identifier = txt(code.get("id"))
        out.items.append(Item("code", txt(code.get("code")), identifier, language, said_by="response"))
    elif "codeExecutionResult" in part:
        result = obj(part["codeExecutionResult"])
        failed = result.get("outcome") not in (None, "OUTCOME_OK")
        out.items.append(
            Item(
                "tool_result",
                txt(result.get("output")),
                txt(result.get("id")),
                "code_execution",
                error=failed,
                said_by="response",
            )
        )
    elif part:
        out.items.append(Item("notice", name=_kind(part), data=without_media(part), said_by="response"))


def _kind(part: dict[str, Any]) -> str:
    return next((key for key in _KEYS if key in part), next(iter(part), ""))[:100]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text for part in arr(obj(content).get("parts")) if (text := txt(obj(part).get("text"))))
