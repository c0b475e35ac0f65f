"""Anthropic Messages: what is new in a request, every kind of block, streams whole and cut."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

import pytest
from tests.kit.modelcalls import call, short, sse

from narrows.core.values import Described
from narrows.session.llm.describe import LlmDescriber

SESSION = "6d1f3d1c-8f7f-4b57-9c5a-0c8d4f0e2a11"
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-4-5-20250929",
    "max_tokens": 32000,
    "temperature": 1,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=sdk-cli;"},
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
    ],
    "tools": [{"name": "Bash", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}],
    "metadata": {"user_id": json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": SESSION})},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nToday is Tuesday.\n</system-reminder>"},
                {"type": "text", "text": "Which buckets are public?"},
            ],
        }
    ],
}
USAGE = {
    "input_tokens": 1000,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 3000,
    "output_tokens": 1,
    "service_tier": "standard",
}


def start(**more: Any) -> dict[str, Any]:
    message = {"id": "msg_01", "type": "message", "role": "assistant", "content": [], "usage": USAGE}
    return {"type": "message_start", "message": message | {"model": "claude-sonnet-4-5-20250929"} | more}


def block(index: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str, output: int = 50) -> list[dict[str, Any]]:
    closing = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": closing, "usage": {"output_tokens": output}},
        {"type": "message_stop"},
    ]


def describe(asked: Any, told: Any, **more: Any) -> Described:
    return LlmDescriber()(call(asked, told, **more))


def test_the_first_call_of_a_conversation() -> None:
    given = '{"command": "aws s3 ls", "description": "Lists buckets"}'
    events = [
        start(),
        {"type": "ping"},
        block(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, type="thinking_delta", thinking="They want "),
        delta(0, type="thinking_delta", thinking="a list."),
        delta(0, type="signature_delta", signature="EqQB"),
        stop(0),
        block(1, {"type": "text", "text": ""}),
        delta(1, type="text_delta", text="I will lö"),
        delta(1, type="text_delta", text="ok. 🙂"),
        stop(1),
        block(2, {"type": "tool_use", "id": "toolu_01", "name": "Bash", "input": {}}),
        delta(2, type="input_json_delta", partial_json=""),
        *(delta(2, type="input_json_delta", partial_json=letter) for letter in given),
        stop(2),
        *ending("tool_use"),
    ]
    out = describe(ASKED, sse(events), headers={"request-id": "req_01"}, chunks=7)
    assert short(out.items) == [
        ("system", "", "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=sdk-cli;\nYou are Claude Code."),
        ("context", "system-reminder", "<system-reminder>\nToday is Tuesday.\n</system-reminder>"),
        ("prompt", "", "Which buckets are public?"),
        ("thinking", "", "They want a list."),
        ("answer", "", "I will löok. 🙂"),
        ("tool_call", "Bash", "aws s3 ls"),
        ("command", "Bash", "aws s3 ls"),
    ]
    assert out.items[5].data == json.loads(given) and out.items[5].id == out.items[6].id == "toolu_01"
    assert [item.said_by for item in out.items] == ["request"] * 3 + ["response"] * 4
    assert set(out.refs) == {
        ("agent_session", SESSION),
        ("message", "msg_01"),
        ("tool_call", "toolu_01"),
        ("request", "req_01"),
    }
    assert out.problems == []
    assert out.llm == {
        "provider": "anthropic",
        "api": "messages",
        "stream": True,
        "stop_reason": "tool_use",
        "messages": 1,
        "tools": ["Bash", "web_search"],
        "usage": {"input": 1000, "output": 50, "cache_read": 3000, "cache_write": 200, "reasoning": None},
        "cost_usd": pytest.approx((1000 * 3 + 50 * 15 + 3000 * 0.3 + 200 * 3.75) / 1e6),
    }
    assert out.parameters["max_tokens"] == 32000 and out.parameters["temperature"] == 1
    assert str(out.parameters["system"]).endswith("You are Claude Code.")


def test_only_what_is_new_is_told_of_a_history_that_is_sent_again() -> None:
    history = [
        *ASKED["messages"],
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I will look."},
                {"type": "tool_use", "id": "toolu_01", "name": "Bash", "input": {"command": "aws s3 ls"}},
                {"type": "tool_use", "id": "toolu_02", "name": "Read", "input": {"file_path": "/a"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_01", "content": "2026-01-01 logs", "is_error": False},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_02",
                    "is_error": True,
                    "content": [{"type": "text", "text": "No such file"}, {"type": "tool_reference", "name": "x"}],
                },
                {"type": "text", "text": "<system-reminder>keep a list</system-reminder>and hurry"},
            ],
        },
        {"role": "system", "content": "The user switched to plan mode."},
    ]
    told = {
        "id": "msg_02",
        "type": "message",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "Only logs.", "citations": [{"type": "char_location"}]}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 6},
    }
    out = describe(ASKED | {"messages": history, "stream": False}, told)
    assert short(out.items) == [
        ("tool_result", "Bash", "2026-01-01 logs"),
        ("tool_result", "Read", "No such file\n[tool_reference]"),
        ("context", "system-reminder", "<system-reminder>keep a list</system-reminder>"),
        ("prompt", "", "and hurry"),
        ("system", "", "The user switched to plan mode."),
        ("answer", "", "Only logs."),
    ]
    assert [(item.id, item.error) for item in out.items[:2]] == [("toolu_01", False), ("toolu_02", True)]
    assert out.items[5].data == {"citations": [{"type": "char_location"}]}
    assert {("tool_call", "toolu_01"), ("tool_call", "toolu_02"), ("message", "msg_02")} <= set(out.refs)
    assert out.llm["messages"] == 4 and out.llm["stream"] is False
    assert "I will look" not in out.text and "Only logs." in out.text


def test_blocks_of_every_kind_and_unknown_ones() -> None:
    image = b"\x89PNG" * 100
    asked = ASKED | {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {
                            "type": "base64",
                            "media_type": "image/png",
                            "data": base64.b64encode(image).decode(),
                        },
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a page"}},
                    {"type": "hologram", "beam": {"width": 3}},
                    "just text",
                ],
            }
        ]
    }
    content = [
        {"type": "redacted_thinking", "data": "abcd"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "public buckets"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [{"type": "web_search_result", "title": "T", "url": "https://t.test"}],
        },
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "srvtoolu_2",
            "content": {"type": "bash_code_execution_tool_result_error", "error_code": "unavailable"},
        },
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "telepathy", "thought": "x"},
    ]
    out = describe(asked, {"type": "message", "id": "msg_03", "content": content, "usage": USAGE | {"new": 1}})
    assert [(item.type, item.name) for item in out.items[1:]] == [
        ("prompt", "image"),
        ("prompt", "document"),
        ("notice", "hologram"),
        ("prompt", ""),
        ("thinking", ""),
        ("tool_call", "web_search"),
        ("tool_result", "web_search_tool_result"),
        ("tool_result", "bash_code_execution_tool_result"),
        ("notice", "container_upload"),
        ("notice", "telepathy"),
    ]
    digest = sha256(image).hexdigest()
    assert out.items[1].data == {"media_type": "image/png", "bytes": 400, "sha256": digest}
    assert ("file", digest) in out.refs
    assert out.items[2].text == "a page" and out.items[3].data == {"type": "hologram", "beam": {"width": 3}}
    assert [item.error for item in out.items[7:9]] == [False, True] and out.items[8].text == "unavailable"
    assert out.items[10].data == {"type": "telepathy", "thought": "x"}
    assert out.problems == []


def test_unknown_events_and_deltas_are_kept() -> None:
    events = [
        start(),
        block(0, {"type": "text", "text": ""}),
        delta(0, type="text_delta", text="hi"),
        delta(0, type="aura_delta", aura=1),
        {"type": "weather", "sky": "blue"},
        *ending("end_turn"),
    ]
    out = describe(ASKED, sse(events))
    assert ("answer", "", "hi") in short(out.items)
    assert [item.data for item in out.items if item.type == "notice"] == [events[3], events[4]]
    assert out.llm["stop_reason"] == "end_turn" and out.problems == []


def test_a_stream_that_was_cut_is_told_as_far_as_it_came() -> None:
    events = [
        start(),
        block(0, {"type": "text", "text": ""}),
        delta(0, type="text_delta", text="Half an ans"),
        block(1, {"type": "tool_use", "id": "toolu_9", "name": "Write", "input": {}}),
        delta(1, type="input_json_delta", partial_json='{"file_path": "/a", "cont'),
    ]
    exchange = call(ASKED, sse(events))
    exchange.response_facts["outcome"] = "client_gone"
    out = LlmDescriber()(exchange)
    assert [(item.type, item.text) for item in out.items[-2:]] == [("answer", "Half an ans"), ("tool_call", "")]
    assert out.items[-1].data == {"partial": '{"file_path": "/a", "cont'}
    assert any("ended before" in problem for problem in out.problems)
    assert any("Write is not whole" in problem for problem in out.problems)
    assert out.llm["usage"]["input"] == 1000 and out.llm["stop_reason"] == ""


@pytest.mark.parametrize("at", range(20, 400, 20))
def test_the_bytes_may_end_anywhere(at: int) -> None:
    exchange = call(ASKED, sse([start(), block(0, {"type": "text", "text": ""}), *ending("end_turn")]), chunks=50)
    exchange.response = exchange.response[:at]
    out = LlmDescriber()(exchange)
    assert ("prompt", "", "Which buckets are public?") in short(out.items)


def test_errors_before_and_within_a_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    out = describe(ASKED, error, status=529)
    assert (out.status, out.error_code, out.error_message) == (529, "overloaded_error", "Overloaded")
    assert out.llm["cost_usd"] is None and [item.type for item in out.items] == ["system", "context", "prompt"]
    late = [start(), block(0, {"type": "text", "text": ""}), delta(0, type="text_delta", text="so"), error]
    out = describe(ASKED, sse(late))
    assert (out.status, out.error_code) == (200, "overloaded_error")
    assert ("answer", "", "so") in short(out.items)


def test_counting_tokens_tells_nothing_twice() -> None:
    out = describe(ASKED, {"input_tokens": 2095}, operation="count_tokens", path="/v1/messages/count_tokens")
    assert short(out.items) == [("notice", "count_tokens", "2095 tokens counted")]
    assert out.llm["usage"]["input"] == 2095 and out.llm["cost_usd"] is None
    assert ("agent_session", SESSION) in out.refs


@pytest.mark.parametrize(
    "charged",
    [
        {"service_tier": "priority"},
        {"server_tool_use": {"web_search_requests": 1}},
        {"inference_geo": "us"},
        {"speed": "fast"},
        {"iterations": [{"type": "message"}, {"type": "compaction", "input_tokens": 180000}]},
        {"fallback_credit": {"status": {"type": "redeemed"}}},
    ],
)
def test_what_is_charged_otherwise_has_no_cost(charged: dict[str, Any]) -> None:
    told = {"type": "message", "model": "claude-sonnet-4-5", "content": [], "usage": USAGE}
    assert describe(ASKED, told).llm["cost_usd"] is not None
    assert describe(ASKED, told | {"usage": USAGE | charged}).llm["cost_usd"] is None


def test_cache_written_for_an_hour_costs_more() -> None:
    usage = USAGE | {"cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150}}
    told = {"type": "message", "model": "claude-sonnet-4-5", "content": [], "usage": usage}
    cost = describe(ASKED, told).llm["cost_usd"]
    assert cost == pytest.approx((1000 * 3 + 1 * 15 + 3000 * 0.3 + 50 * 3.75 + 150 * 6) / 1e6)


def test_an_answer_that_is_put_into_the_models_mouth_is_not_the_history() -> None:
    messages = [*ASKED["messages"], {"role": "assistant", "content": "{"}]
    out = describe(ASKED | {"messages": messages}, {"type": "message", "content": [{"type": "text", "text": "}"}]})
    assert ("prompt", "", "Which buckets are public?") in short(out.items)
    assert ("context", "prefill", "{") in short(out.items) and ("answer", "", "}") in short(out.items)


def test_a_compaction_is_told_with_its_summary() -> None:
    events = [
        start(),
        block(0, {"type": "compaction", "content": None}),
        delta(0, type="compaction_delta", content="So far: "),
        delta(0, type="compaction_delta", content="nothing."),
        stop(0),
        *ending("compaction"),
    ]
    out = describe(ASKED, sse(events))
    assert short(out.items)[-1] == ("notice", "compaction", "So far: nothing.") and out.problems == []
