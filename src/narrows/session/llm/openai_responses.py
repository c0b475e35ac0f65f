"""The OpenAI Responses API, over HTTP and over a WebSocket.

Clients that keep no history at the provider (Codex) send the whole of it each time: described is what follows the last
item that the model made, and the whole answer. Calls and results are joined by `call_id`. Item types that are not known
are kept as notices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narrows.core.values import Described, Item
from narrows.session.llm.clients import add
from narrows.session.llm.injected import errand
from narrows.session.llm.loose import arr, first, obj, txt
from narrows.session.llm.openai_parts import (
    Side,
    arguments,
    asked_items,
    call_item,
    codex,
    cut,
    error,
    notice,
    priced_otherwise,
    result_item,
    slim,
    text_of,
    tool_names,
    usage,
)
from narrows.session.llm.openai_stream import gathered
from narrows.session.llm.told import Told

_BY_MODEL = frozenset(
    ("reasoning", "compaction", "item_reference", "program", "mcp_list_tools", "mcp_approval_request")
)
"""Beside every `*_call`: items in a history that the model or the provider made."""
_OF_PROVIDER = frozenset(("program_output", "tool_search_output"))
"""Results that the provider puts beside its own calls."""
_LOOK_BACK = 50
"""Items before the new ones in which the names of the tools are looked up that the results belong to."""


def describe(asked: Any, told: Told, out: Described) -> None:
    """Fill `out` from one call. `asked` is the request's JSON, None where it could not be read."""
    request = obj(asked)
    given = request.get("input")
    out.model = txt(request.get("model"))
    out.llm |= {"stream": told.streamed, "stop_reason": "", "messages": len(given) if isinstance(given, list) else 1}
    out.llm |= {"tools": tool_names(request.get("tools")), "usage": usage(None)}
    _identifiers(request, out)
    _asked(request, out)
    errand(out.items)
    response = obj(told.body)
    if told.streamed:
        response, ended = gathered(told.events)
        if not ended:
            cut(told, out)
    _answered(response, out)


def _identifiers(request: dict[str, Any], out: Described) -> None:
    add(out, "previous", request.get("previous_response_id"))
    conversation = request.get("conversation")
    add(out, "agent_session", conversation if isinstance(conversation, str) else obj(conversation).get("id"))
    codex(request.get("client_metadata"), out)


def _asked(request: dict[str, Any], out: Described) -> None:
    given = request.get("input")
    items = [{"content": given}] if isinstance(given, str) else [obj(item) for item in arr(given)]
    start = next((at + 1 for at in range(len(items) - 1, -1, -1) if _by_model(items[at])), 0)
    if not start and not request.get("previous_response_id") and (system := txt(request.get("instructions"))):
        out.items.append(Item("system", system))
    before = items[max(0, start - _LOOK_BACK) : start]
    calls = {txt(_call_id(item)): txt(item["name"]) for item in before if item.get("name")}
    for item in items[start:]:
        _asked_item(item, calls, out)


def _kind(item: dict[str, Any]) -> str:
    return txt(item.get("type")) or ("message" if "content" in item else "item_reference" if "id" in item else "item")


def _by_model(item: dict[str, Any]) -> bool:
    kind = _kind(item)
    if kind == "message":
        return item.get("role") == "assistant"
    return kind in _BY_MODEL or kind in _OF_PROVIDER or kind.endswith("_call")


def _asked_item(item: dict[str, Any], calls: dict[str, str], out: Described) -> None:
    kind = _kind(item)
    if kind == "message":
        if item.get("role") in ("system", "developer"):
            out.items.append(Item("system", text_of(item.get("content"))))
        else:
            about = obj(item.get("internal_chat_message_metadata_passthrough"))  # Codex, since 0.169
            asked_items(item.get("content"), out, about.get("content_item_kinds"))
    elif kind.endswith("_output"):
        named = item if item.get("name") else item | {"name": calls.get(txt(_call_id(item)))}
        _result(named, kind, out, "request")
    elif kind == "mcp_approval_response":
        text = "approved" if item.get("approve") is True else "refused"
        out.items.append(Item("notice", text, txt(item.get("approval_request_id")), kind, slim(item)))
    elif item:
        notice(out, kind, item, "request")


def _result(item: dict[str, Any], kind: str, out: Described, side: Side) -> None:
    output = first(item, "output", "result", "tools")
    failed = item.get("status") in ("failed", "incomplete")
    name = txt(item.get("name")) or ("" if kind == "function_call_output" else kind.removesuffix("_output"))
    result_item(out, item.get("call_id") or item.get("id"), output, name, side, failed=failed)


def _answered(response: dict[str, Any], out: Described) -> None:
    add(out, "message", response.get("id"))
    add(out, "previous", response.get("previous_response_id"))
    out.model = txt(response.get("model")) or out.model
    if response.get("usage"):
        out.llm["usage"] = usage(response["usage"])
    for item in map(obj, arr(response.get("output"))):
        _answered_item(item, out)
    reason = txt(obj(response.get("incomplete_details")).get("reason")) or txt(response.get("status"))
    out.llm["stop_reason"] = "" if reason in ("in_progress", "queued") else reason
    error(response.get("error"), out)
    priced_otherwise(txt(response.get("service_tier")), out)


def _answered_item(item: dict[str, Any], out: Described) -> None:
    kind = _kind(item)
    if kind in _ANSWERED:
        _ANSWERED[kind](item, out)
    elif kind.endswith("_output"):
        _result(item, kind, out, "response")
    elif kind.endswith("_call"):
        _other_call(item, out)
    elif item:
        notice(out, kind, item, "response")


def _message(item: dict[str, Any], out: Described) -> None:
    for part in map(obj, arr(item.get("content"))):
        if text := txt(part.get("text")):
            cited = slim(part.get("annotations")) or None
            data = {"annotations": cited} if cited else None
            out.items.append(Item("answer", text, data=data, said_by="response"))
        elif text := txt(part.get("refusal")):
            out.items.append(Item("answer", text, name="refusal", said_by="response"))
        elif part and part.get("type") not in ("output_text", "refusal"):
            notice(out, txt(part.get("type")) or "part", part, "response")


def _reasoning(item: dict[str, Any], out: Described) -> None:
    texts = [txt(obj(part).get("text")) for part in (*arr(item.get("summary")), *arr(item.get("content")))]
    if any(texts):  # what is encrypted is no text
        out.items.append(Item("thinking", "\n\n".join(filter(None, texts)), said_by="response"))


def _function(item: dict[str, Any], out: Described) -> None:
    name, namespace = txt(item.get("name")), txt(item.get("namespace"))
    if namespace and not name.startswith(namespace):
        name = f"{namespace}__{name}"
    call_item(out, name, _call_id(item), arguments(item.get("arguments")))


def _custom(item: dict[str, Any], out: Described) -> None:
    call_item(out, txt(item.get("name")), _call_id(item), txt(item.get("input")))


def _shell(item: dict[str, Any], out: Described) -> None:
    call_item(out, _kind(item).removesuffix("_call"), _call_id(item), slim(item.get("action")))


def _patch(item: dict[str, Any], out: Described) -> None:
    call_item(out, "apply_patch", _call_id(item), item.get("operation"))


def _mcp(item: dict[str, Any], out: Described) -> None:
    name = "__".join(filter(None, ("mcp", txt(item.get("server_label")), txt(item.get("name")))))
    call_item(out, name, _call_id(item), arguments(item.get("arguments")))
    output, failure = item.get("output"), item.get("error")
    if output is not None or failure:
        said = failure if failure else output
        result_item(out, _call_id(item), said, name, "response", failed=bool(failure))


def _interpreter(item: dict[str, Any], out: Described) -> None:
    code = txt(item.get("code"))
    call_item(out, "code_interpreter", _call_id(item), {"code": code, "container_id": item.get("container_id")})
    if code:
        out.items.append(Item("code", code, name="python", said_by="response"))
    for output in map(obj, arr(item.get("outputs"))):
        said = output["logs"] if isinstance(output.get("logs"), str) else output
        result_item(out, _call_id(item), said, "code_interpreter", "response")


def _program(item: dict[str, Any], out: Described) -> None:
    code = txt(item.get("code"))
    call_item(out, "program", _call_id(item), {"code": code})
    if code:
        out.items.append(Item("code", code, name="program", said_by="response"))


def _other_call(item: dict[str, Any], out: Described) -> None:
    """A tool that the provider runs itself: its members are its input, and its results where it shows any."""
    name = _kind(item).removesuffix("_call")
    results = {key: item[key] for key in ("results", "result", "output") if item.get(key)}
    data = {key: value for key, value in item.items() if key not in ("id", "call_id", "type", "status", *results)}
    call_item(out, name, _call_id(item), slim(data))
    if results:
        failed = item.get("status") in ("failed", "incomplete")
        result_item(out, _call_id(item), slim(results), name, "response", failed=failed)


def _call_id(item: dict[str, Any]) -> Any:
    return first(item, "call_id", "id")


_ANSWERED: dict[str, Callable[[dict[str, Any], Described], None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function,
    "custom_tool_call": _custom,
    "local_shell_call": _shell,
    "shell_call": _shell,
    "apply_patch_call": _patch,
    "mcp_call": _mcp,
    "code_interpreter_call": _interpreter,
    "program": _program,
}
