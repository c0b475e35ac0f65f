"""Chat Completions: what is new in a request, each kind of message, answers whole, streamed and cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.kit.modelcalls import call, short, sse

from narrows.core.values import Described
from narrows.session.llm.describe import LlmDescriber

ASKED: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": [{"type": "text", "text": "which buckets?"}]},
    ],
    "tools": [
        {"type": "function", "function": {"name": "bash", "parameters": {}}},
        {"type": "custom", "custom": {"name": "apply_patch"}},
    ],
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "aws s3 ls"}'}}
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 20},
}


def described(asked: Any, told: Any, **more: Any) -> Described:
    path = "/v1/chat/completions"
    return LlmDescriber()(call(asked, told, protocol="openai-chat", operation="chat.completions", path=path, **more))


def answer(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "gpt-5-2025-08-07", "choices": [choice], "usage": USAGE} | more


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "chatcmpl-1",
        "model": "gpt-5-2025-08-07",
        "object": "chat.completion.chunk",
        "choices": choices,
    } | more


def stream(*chunks: dict[str, Any], done: bool = True) -> bytes:
    return sse(chunks, named=False) + (b"data: [DONE]\n\n" if done else b"")


def test_a_first_call() -> None:
    out = described(ASKED, answer({"content": "I will look.", "tool_calls": [CALL]}, "tool_calls"))
    [command] = [item.text for item in out.items if item.type == "command"]
    assert command == "aws s3 ls"
    assert short([item for item in out.items if item.type != "command"]) == [
        ("system", "", "You are an agent."),
        ("prompt", "", "which buckets?"),
        ("answer", "", "I will look."),
        ("tool_call", "bash", "aws s3 ls"),
    ]
    assert out.items[3].data == {"command": "aws s3 ls"}
    assert {("message", "chatcmpl-1"), ("tool_call", "call_1")} <= set(out.refs)
    assert out.model == "gpt-5-2025-08-07"
    assert out.llm["stop_reason"] == "tool_calls"
    assert out.llm["tools"] == ["bash", "apply_patch"]
    assert out.llm["usage"] == {"input": 400, "output": 50, "cache_read": 600, "cache_write": None, "reasoning": 20}
    assert out.problems == []


def test_only_what_follows_the_last_answer_is_new() -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "call_2"}]}
    results = [
        {"role": "tool", "tool_call_id": "call_1", "content": "a\nb"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "c"}]},
    ]
    asked = ASKED | {"messages": [*ASKED["messages"], said, *results, {"role": "user", "content": "and?"}]}
    out = described(asked, answer({"content": "Two."}))
    assert short(out.items) == [
        ("tool_result", "bash", "a\nb"),
        ("tool_result", "bash", "c"),
        ("prompt", "", "and?"),
        ("answer", "", "Two."),
    ]
    assert [item.id for item in out.items[:2]] == ["call_1", "call_2"]
    assert out.llm["messages"] == 6


def test_what_is_put_into_the_models_mouth_is_no_answer() -> None:
    asked = ASKED | {"messages": [*ASKED["messages"], {"role": "assistant", "content": "The buckets are"}]}
    out = described(asked, answer({"content": " a and b"}))
    assert ("context", "prefill", "The buckets are") in short(out.items)
    assert ("prompt", "", "which buckets?") in short(out.items)


def test_a_stream_says_the_same_as_an_answer_in_one_piece() -> None:
    calls = [
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "bash", "arguments": ""}},
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "bash", "arguments": '{"command": '}},
        {"index": 1, "function": {"arguments": '{"command": "ls"}'}},
        {"index": 0, "function": {"arguments": '"aws s3 ls"}'}},
    ]
    told = stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "Hm"}),
        chunk({"reasoning_content": "."}),
        chunk({"content": "I will "}),
        chunk({"content": "look."}),
        *(chunk({"tool_calls": [one]}) for one in calls),
        chunk({}, "tool_calls"),
        {"id": "chatcmpl-1", "choices": [], "usage": USAGE},
    )
    two = CALL | {"id": "call_2", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    message = {"reasoning_content": "Hm.", "content": "I will look.", "tool_calls": [CALL, two]}
    whole = described(ASKED, answer(message, "tool_calls"))
    streamed = described(ASKED, told)
    assert streamed.items == whole.items
    assert streamed.refs == whole.refs
    assert streamed.llm == whole.llm | {"stream": True}
    assert streamed.problems == []


def test_a_cut_stream_keeps_what_came() -> None:
    part = {"index": 0, "id": "call_1", "function": {"name": "bash", "arguments": '{"comm'}}
    out = described(ASKED, stream(chunk({"content": "I will"}), chunk({"tool_calls": [part]}), done=False))
    assert ("answer", "", "I will") in short(out.items)
    [call_] = [item for item in out.items if item.type == "tool_call"]
    assert (call_.id, call_.data) == ("call_1", '{"comm')
    assert out.problems == ["response: the stream ended before the answer did"]


def test_older_functions_and_custom_tools() -> None:
    legacy = {"role": "function", "name": "ls", "content": "a"}
    asked = {"model": "gpt-4", "messages": [legacy], "functions": [{"name": "ls"}]}
    out = described(
        asked, answer({"content": None, "function_call": {"name": "ls", "arguments": "{}"}}, "function_call")
    )
    assert short(out.items) == [("tool_result", "ls", "a"), ("tool_call", "ls", "")]
    assert out.llm["tools"] == ["ls"]
    custom = {"id": "call_9", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin Patch"}}
    out = described(ASKED, answer({"tool_calls": [custom]}))
    [call_] = [item for item in out.items if item.type == "tool_call"]
    assert (call_.name, call_.id, call_.data) == ("apply_patch", "call_9", "*** Begin Patch")


def test_refusals_choices_and_unknown_members() -> None:
    told = answer({"content": None, "refusal": "No."}, new_field={"x": 1})
    told["choices"].append({"index": 1, "message": {"content": "Yes."}, "finish_reason": "stop"})
    told["choices"][0]["message"]["tool_calls"] = [{"id": "x", "type": "later", "later": {}}]
    out = described(ASKED | {"new_option": True}, told)
    said = [item for item in out.items if item.said_by == "response"]
    assert short(said) == [("answer", "refusal", "No."), ("notice", "later", ""), ("answer", "", "Yes.")]


def test_images_are_kept_as_what_they_are() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 200}}
    out = described({"model": "m", "messages": [{"role": "user", "content": [image]}]}, answer({"content": "A cat."}))
    assert out.items[0].name == "image_url"
    kept = out.items[0].data["image_url"]["url"]
    assert (kept["media_type"], kept["bytes"]) == ("image/png", 600)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_errors(status: int) -> None:
    body = {"error": {"message": "Too many.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    out = described(ASKED, body, status=status)
    assert (out.error_code, out.error_message, out.status) == ("rate_limit_exceeded", "Too many.", status)
    assert ("prompt", "", "which buckets?") in short(out.items)


def test_an_error_in_a_stream() -> None:
    out = described(ASKED, stream(chunk({"content": "I"}), {"error": {"message": "gone", "code": 502}}, done=False))
    assert (out.error_code, out.error_message) == ("502", "gone")
    assert ("answer", "", "I") in short(out.items)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_older_completions(streamed: bool) -> None:
    choices = [{"index": 0, "text": "ld", "finish_reason": "stop"}]
    told: Any = {"id": "cmpl-1", "model": "m", "choices": [{"index": 0, "text": "world", "finish_reason": "stop"}]}
    if streamed:
        first = {"id": "cmpl-1", "model": "m", "choices": [{"index": 0, "text": "wor", "finish_reason": None}]}
        told = stream(first, {"id": "cmpl-1", "model": "m", "choices": choices})
    out = described({"model": "m", "prompt": "hello "}, told)
    assert short(out.items) == [("prompt", "", "hello "), ("answer", "", "world")]


def test_another_service_tier_has_no_known_cost() -> None:
    assert described(ASKED, answer({"content": "x"})).llm["cost_usd"] is not None
    assert described(ASKED, answer({"content": "x"}, service_tier="flex")).llm["cost_usd"] is None


def test_arguments_that_are_an_object_already() -> None:
    part = {"index": 0, "id": "c", "function": {"name": "bash", "arguments": {"command": "ls"}}}
    out = described(ASKED, stream(chunk({"tool_calls": [part]}), chunk({}, "tool_calls")))
    [call_] = [item for item in out.items if item.type == "tool_call"]
    assert call_.data == {"command": "ls"}


def test_a_request_that_could_not_be_read_leaves_the_answer() -> None:
    out = described(b"{not json", answer({"content": "x"}))
    assert short(out.items) == [("answer", "", "x")]
    assert json.dumps(out.llm)


def test_what_an_agent_asks_for_itself_is_no_prompt() -> None:
    system = {"role": "system", "content": "You are a title generator. You output ONLY a thread title. Nothing else."}
    asked = {"model": "m", "messages": [system, {"role": "user", "content": "which buckets?"}]}
    assert short(described(asked, answer({"content": "Buckets"})).items)[1:] == [
        ("context", "errand", "which buckets?"),
        ("answer", "", "Buckets"),
    ]
