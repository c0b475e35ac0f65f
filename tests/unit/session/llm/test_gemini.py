"""Gemini: streams as events and as an array, calls without ids, Code Assist."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.kit.modelcalls import call, short, sse

from narrows.core.values import Described
from narrows.session.llm.describe import LlmDescriber

STREAM = "streamGenerateContent"
ASKED: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "You are Gemini CLI."}]},
    "contents": [{"role": "user", "parts": [{"text": "Read a.py and b.py"}]}],
    "tools": [{"functionDeclarations": [{"name": "read_file"}, {"name": "run_shell_command"}]}],
    "generationConfig": {"temperature": 0, "maxOutputTokens": 8192, "thinkingConfig": {"includeThoughts": True}},
}


def chunk(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0} | more],
        "modelVersion": "gemini-2.5-pro",
        "responseId": "resp1",
    }


CHUNKS = [
    chunk({"text": "I should ", "thought": True}),
    chunk({"text": "read both.", "thought": True}),
    chunk({"text": "Reading "}),
    chunk({"text": "now.\n"}),
    chunk(
        {"functionCall": {"name": "read_file", "args": {"absolute_path": "/w/a.py"}}, "thoughtSignature": "Cg=="},
        {"functionCall": {"name": "read_file", "args": {"absolute_path": "/w/b.py"}}},
    ),
    chunk({"functionCall": {"id": "call-7", "name": "run_shell_command", "args": {"command": "ls"}}})
    | {
        "usageMetadata": {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 400,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 30,
            "totalTokenCount": 1050,
        }
    },
    chunk(finishReason="STOP"),
]


def describe(asked: Any, told: Any, *, operation: str = STREAM, **more: Any) -> Described:
    path = f"/v1beta/models/gemini-2.5-pro:{operation}"
    return LlmDescriber()(call(asked, told, protocol="gemini", operation=operation, path=path, **more))


@pytest.mark.parametrize("form", ["sse", "array", "wrapped"])
def test_a_stream_in_each_form(form: str) -> None:
    asked = ASKED
    told: Any = sse(CHUNKS, named=False)
    if form == "array":
        told = CHUNKS
    elif form == "wrapped":
        asked = {"model": "gemini-2.5-pro", "project": "p", "user_prompt_id": "turn-1", "request": ASKED}
        asked["request"] = ASKED | {"session_id": "session-1"}
        told = sse([{"response": one, "traceId": "t"} for one in CHUNKS], named=False)
    out = describe(asked, told)
    assert short(out.items) == [
        ("system", "", "You are Gemini CLI."),
        ("prompt", "", "Read a.py and b.py"),
        ("thinking", "", "I should read both."),
        ("answer", "", "Reading now.\n"),
        ("tool_call", "read_file", "/w/a.py"),
        ("file_read", "/w/a.py", ""),
        ("tool_call", "read_file", "/w/b.py"),
        ("file_read", "/w/b.py", ""),
        ("tool_call", "run_shell_command", "ls"),
        ("command", "run_shell_command", "ls"),
    ]
    assert [item.id for item in out.items if item.type == "tool_call"] == ["read_file:1", "read_file:2", "call-7"]
    assert out.llm["usage"] == {
        "input": 600,
        "output": 50,
        "cache_read": 400,
        "cache_write": None,
        "reasoning": 30,
    }
    assert out.llm["cost_usd"] == pytest.approx((600 * 1.25 + 50 * 10 + 400 * 0.125) / 1e6)
    assert (out.model, out.llm["stop_reason"], out.llm["stream"]) == ("gemini-2.5-pro", "STOP", True)
    assert out.llm["tools"] == ["read_file", "run_shell_command"] and out.llm["messages"] == 1
    assert out.parameters["max_tokens"] == 8192 and out.parameters["temperature"] == 0
    assert ("message", "resp1") in out.refs
    if form == "wrapped":
        assert {("turn", "turn-1"), ("agent_session", "session-1")} <= set(out.refs)
    assert out.problems == []


def test_results_find_the_calls_that_had_no_id() -> None:
    contents = [
        *ASKED["contents"],
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "read_file", "args": {"absolute_path": "/w/a.py"}}},
                {"functionCall": {"name": "read_file", "args": {"absolute_path": "/w/b.py"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "read_file", "response": {"output": "A = 1"}}},
                {"functionResponse": {"name": "read_file", "response": {"error": "File not found"}}},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}},
            ],
        },
    ]
    told = {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"functionCall": {"name": "read_file", "args": {}}},
                        {"executableCode": {"language": "PYTHON", "code": "print(40 + 2)"}},
                        {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}},
                        {"toolCall": {"id": "g1", "toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["x"]}}},
                        {"toolResponse": {"id": "g1", "toolType": "GOOGLE_SEARCH_WEB", "response": {"n": 1}}},
                        {"hologram": {"x": 1}},
                    ]
                },
                "finishReason": "STOP",
            }
        ]
    }
    out = describe(ASKED | {"contents": contents}, told, operation="generateContent")
    assert [(item.type, item.id, item.error) for item in out.items] == [
        ("tool_result", "read_file:1", False),
        ("tool_result", "read_file:2", True),
        ("prompt", "", False),
        ("tool_call", "read_file:3", False),
        ("code", "", False),
        ("tool_result", "", True),
        ("tool_call", "g1", False),
        ("tool_result", "g1", False),
        ("notice", "", False),
    ]
    assert [item.text for item in out.items[:2]] == ["A = 1", "File not found"]
    assert (out.items[4].name, out.items[8].name) == ("python", "hologram")


def test_an_array_that_was_cut() -> None:
    whole = json.dumps(CHUNKS, indent=1).encode()
    exchange = call(ASKED, CHUNKS, protocol="gemini", operation=STREAM)
    exchange.response = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n" + whole[: len(whole) // 2]
    )
    out = LlmDescriber()(exchange)
    assert ("thinking", "", "I should read both.") in short(out.items)


def test_errors_and_refused_prompts() -> None:
    error = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}
    for told in (error, [error]):
        out = describe(ASKED, told, status=400)
        assert (out.error_code, out.error_message) == ("INVALID_ARGUMENT", "API key not valid.")
    out = describe(ASKED, {"promptFeedback": {"blockReason": "SAFETY"}}, operation="generateContent")
    assert out.llm["stop_reason"] == "SAFETY"


def test_counting_tokens() -> None:
    out = describe(ASKED, {"totalTokens": 31}, operation="countTokens")
    assert out.items == [] and out.llm["usage"]["input"] == 31 and out.llm["cost_usd"] is None
