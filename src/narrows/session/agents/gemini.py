"""Gemini CLI's hook events. It gives no id to a tool call: a result joins its call by name, input and order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narrows.session.agents import claude_code, tools
from narrows.session.agents.told import Told, shown


def describe(told: Told) -> bool:
    """Add what the event says; False if it is not known."""
    told.ref("agent_session", told.text("session_id"))
    request = told.value("llm_request")
    if isinstance(request, dict) and isinstance(request.get("model"), str):
        told.out.model = request["model"][:128]
    handle = _EVENTS.get(told.event)
    if handle is None:
        return False
    handle(told)
    return True


def _id(told: Told) -> str:
    return told.text("tool_call_id", "call_id", "tool_use_id")


def _before_tool(told: Told) -> None:
    tools.call(told, told.text("tool_name"), told.value("tool_input"), _id(told), cwd=told.text("cwd"))


def _after_tool(told: Told) -> None:
    tools.result(told, told.text("tool_name"), told.value("tool_input"), told.value("tool_response"), _id(told))


def _after_agent(told: Told) -> None:
    told.add("answer", told.text("prompt_response"))


def _before_model(told: Told) -> None:
    """The request with its whole history: told by its last message, which is what is new."""
    request = told.value("llm_request")
    messages = request.get("messages") if isinstance(request, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else {}
    text = shown(last.get("content")) if isinstance(last, dict) else ""
    told.notice(text, data={"messages": len(messages) if isinstance(messages, list) else 0})


def _after_model(told: Told) -> None:
    """One chunk of the model's answer. The whole answer comes with AfterAgent."""
    told.notice("".join(_parts(told.value("llm_response"))))


def _parts(response: Any) -> list[str]:
    out: list[str] = []
    candidates = response.get("candidates") if isinstance(response, dict) else None
    for one in candidates if isinstance(candidates, list) else ():
        content = one.get("content") if isinstance(one, dict) else None
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            out.append(part if isinstance(part, str) else shown(part.get("text") if isinstance(part, dict) else None))
    return out


def _selection(told: Told) -> None:
    told.notice("tools are being selected")


_EVENTS: dict[str, Callable[[Told], None]] = {
    "BeforeTool": _before_tool,
    "AfterTool": _after_tool,
    "BeforeAgent": claude_code.prompt,
    "AfterAgent": _after_agent,
    "BeforeModel": _before_model,
    "AfterModel": _after_model,
    "BeforeToolSelection": _selection,
    "SessionStart": claude_code.session_start,
    "SessionEnd": claude_code.session_end,
    "Notification": claude_code.notification,
    "PreCompress": claude_code.summary,
}
