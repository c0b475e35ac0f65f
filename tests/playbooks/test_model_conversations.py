"""Conversations with models as agents hold them: each call sends the whole history, each thing is told once.

Every conversation is a list of turns, written down with what must come out of each. The shapes are those that Claude
Code, Codex, opencode, Gemini CLI and mini-swe-agent were seen or are documented to send.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest
from tests.kit.modelcalls import call, http, sse

from narrows.core.values import Described, StoredExchange
from narrows.session.aws.describe import AwsDescriber
from narrows.session.aws.models import Models
from narrows.session.llm.describe import LlmDescriber

CODE = 'def handler(event, context):\n    return {"statusCode": 200}\n'
SESSION = "6d1f3d1c-8f7f-4b57-9c5a-0c8d4f0e2a11"


def told(*described: Described) -> list[tuple[str, str, str]]:
    """(type, id, text) of all items of calls in their order, without system text and what the agent put in."""
    items = [item for out in described for item in out.items if item.type not in ("system", "context")]
    return [(item.type, item.id, item.text) for item in items]


def refs(out: Described, kind: str) -> set[str]:
    return {value for name, value in out.refs if name == kind}


def messages_stream(at: int, *blocks: dict[str, Any], reason: str = "tool_use") -> bytes:
    """An Anthropic stream; a block's input is split in the middle of everything."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": f"msg_{at}", "model": "claude-sonnet-4-5", "usage": {}}},
        {"type": "ping"},
    ]
    for index, given in enumerate(blocks):
        block = dict(given)
        deltas: list[dict[str, Any]] = []
        if block["type"] == "text":
            text, block["text"] = block["text"], ""
            deltas = [{"type": "text_delta", "text": text[i : i + 3]} for i in range(0, len(text), 3)]
        if block["type"] == "tool_use":
            raw, block["input"] = json.dumps(block["input"]), {}
            deltas = [{"type": "input_json_delta", "partial_json": raw[i : i + 5]} for i in range(0, len(raw), 5)]
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events += [{"type": "ping"}, {"type": "content_block_stop", "index": index}]
    events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}})
    return sse([*events, {"type": "message_stop"}])


class ClaudeCode:
    """The client's side of one conversation."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.calls = 0

    def turn(self, content: list[dict[str, Any]], *blocks: dict[str, Any], reason: str = "tool_use") -> Described:
        self.history.append({"role": "user", "content": content})
        asked = {
            "model": "claude-sonnet-4-5",
            "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197;"}],
            "messages": self.history,
            "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})},
            "stream": True,
        }
        self.calls += 1
        headers = {"User-Agent": "claude-cli/2.1.197 (external, sdk-cli)", "X-Claude-Code-Session-Id": SESSION}
        stream = messages_stream(self.calls, *blocks, reason=reason)
        out = LlmDescriber()(call(asked, stream, path="/v1/messages?beta=true", request_headers=headers, chunks=23))
        self.history.append({"role": "assistant", "content": list(blocks)})
        assert out.problems == [] and refs(out, "agent_session") == {SESSION} and out.agent == "claude-code"
        return out


def result(identifier: str, text: str, *, error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identifier, "content": text, "is_error": error}


def test_claude_code_writes_a_function_and_deploys_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    agent = ClaudeCode()
    command = "zip f.zip lambda_function.py && aws lambda create-function --function-name f --zip-file fileb://f.zip"
    first = agent.turn(
        [
            {"type": "text", "text": "<system-reminder>\nAs you answer...\n</system-reminder>"},
            {"type": "text", "text": "Deploy a function that says 200"},
        ],
        {"type": "text", "text": "I will write it."},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "Write",
            "input": {"file_path": "/w/lambda_function.py", "content": CODE},
        },
    )
    second = agent.turn(
        [result("toolu_1", "File created"), {"type": "text", "text": "<system-reminder>todo</system-reminder>"}],
        {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {"command": command, "description": "Deploys"}},
    )
    third = agent.turn(
        [result("toolu_2", '{"FunctionName": "f"}')], {"type": "text", "text": "Done."}, reason="end_turn"
    )
    assert told(first, second, third) == [
        ("prompt", "", "Deploy a function that says 200"),
        ("answer", "", "I will write it."),
        ("tool_call", "toolu_1", "/w/lambda_function.py"),
        ("file_edit", "toolu_1", CODE),
        ("tool_result", "toolu_1", "File created"),
        ("tool_call", "toolu_2", command),
        ("command", "toolu_2", command),
        ("tool_result", "toolu_2", '{"FunctionName": "f"}'),
        ("answer", "", "Done."),
    ]
    assert refs(first, "tool_call") == {"toolu_1"} and refs(second, "tool_call") == {"toolu_1", "toolu_2"}

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("lambda_function.py", CODE)
    body = json.dumps({"FunctionName": "f", "Code": {"ZipFile": base64.b64encode(packed.getvalue()).decode()}})
    facts: dict[str, object] = {
        "service": "lambda",
        "operation": "CreateFunction",
        "protocol": "rest-json",
        "region": "eu-west-1",
    }
    exchange = StoredExchange(
        b"",
        b"",
        "aws.call",
        request=http("POST /2015-03-31/functions HTTP/1.1", {"Host": "h"}, body.encode()),
        response=http("HTTP/1.1 201 Created", {}, b"{}"),
        request_facts=facts,
    )
    deployed = AwsDescriber(Models(tmp_path_factory.mktemp("models")))(exchange)
    digest = sha256(CODE.encode()).hexdigest()
    assert digest in refs(first, "file") & refs(deployed, "file")
    assert not refs(second, "file") & refs(deployed, "file")


def test_claude_code_fails_is_interrupted_and_goes_on() -> None:
    agent = ClaudeCode()
    first = agent.turn(
        [{"type": "text", "text": "Look at a and b"}],
        {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/a"}},
        {"type": "tool_use", "id": "toolu_2", "name": "Read", "input": {"file_path": "/b"}},
    )
    second = agent.turn(
        [
            result("toolu_1", "A"),
            result("toolu_2", "File does not exist.", error=True),
            {"type": "text", "text": "[Request interrupted by user]"},
            {"type": "text", "text": "Only a, please"},
        ],
        {"type": "text", "text": "It says A."},
        reason="end_turn",
    )
    assert told(first, second) == [
        ("prompt", "", "Look at a and b"),
        ("tool_call", "toolu_1", "/a"),
        ("file_read", "toolu_1", ""),
        ("tool_call", "toolu_2", "/b"),
        ("file_read", "toolu_2", ""),
        ("tool_result", "toolu_1", "A"),
        ("tool_result", "toolu_2", "File does not exist."),
        ("prompt", "", "[Request interrupted by user]"),
        ("prompt", "", "Only a, please"),
        ("answer", "", "It says A."),
    ]


def test_codex_sends_its_items_again() -> None:
    items: list[dict[str, Any]] = [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "<environment_context>\n<cwd>/w</cwd>\n</environment_context>"}],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Which buckets are there?"}]},
    ]
    metadata = json.dumps({"session_id": "s-1", "thread_id": "s-1", "turn_id": "turn-1"})
    headers = {
        "User-Agent": "codex_exec/0.169.0 (Debian 12.0.0; x86_64)",
        "session-id": "s-1",
        "thread-id": "s-1",
        "x-codex-turn-metadata": metadata,
    }

    def turn(number: int, *output: dict[str, Any]) -> Described:
        asked = {"model": "gpt-5-codex", "instructions": "You are Codex", "input": list(items), "stream": True}
        response = {"id": f"resp_{number}", "model": "gpt-5-codex", "output": list(output), "status": "completed"}
        usage = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 5}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": f"resp_{number}"}},
            *({"type": "response.output_item.done", "output_index": i, "item": item} for i, item in enumerate(output)),
            {"type": "response.completed", "response": response | {"usage": usage}},
        ]
        items.extend(output)
        exchange = call(
            asked,
            sse(events),
            protocol="openai-responses",
            operation="responses",
            path="/v1/responses",
            request_headers=headers,
        )
        return LlmDescriber()(exchange)

    arguments = json.dumps({"cmd": "aws s3 ls"})
    first = turn(
        1, {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "arguments": arguments}
    )
    items.append({"type": "function_call_output", "call_id": "call_1", "output": "2026-01-01 logs"})
    second = turn(
        2,
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "One: logs."}]},
    )
    assert told(first, second) == [
        ("prompt", "", "Which buckets are there?"),
        ("tool_call", "call_1", "aws s3 ls"),
        ("command", "call_1", "aws s3 ls"),
        ("tool_result", "call_1", "2026-01-01 logs"),
        ("answer", "", "One: logs."),
    ]
    for out in (first, second):
        assert (out.agent, out.agent_version, out.model) == ("codex", "0.169.0", "gpt-5-codex")
        assert refs(out, "agent_session") == {"s-1"} and refs(out, "turn") == {"turn-1"}
        assert out.llm["cost_usd"] == pytest.approx((40 * 1.25 + 60 * 0.125 + 5 * 10) / 1e6)


def test_opencode_asks_for_a_title_and_then_works() -> None:
    headers = {"User-Agent": "opencode/1.18.33 ai-sdk/provider-utils/3.0.17 runtime/bun/1.3.2", "x-session-id": "ses_1"}

    def turn(asked: dict[str, Any], *chunks: dict[str, Any]) -> Described:
        events = [{"id": "chatcmpl-1", "model": "m1", "choices": [{"index": 0, "delta": c}]} for c in chunks]
        events.append(
            {"id": "chatcmpl-1", "model": "m1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        )
        stream = sse(events, named=False) + b"data: [DONE]\n\n"
        exchange = call(asked, stream, protocol="openai-chat", operation="chat.completions", request_headers=headers)
        return LlmDescriber()(exchange)

    system = {"role": "system", "content": "You are opencode"}
    user = {"role": "user", "content": "Which buckets are there?"}
    titles = {"role": "system", "content": "You are a title generator. You output ONLY a thread title."}
    title = turn({"model": "m1", "messages": [titles, user]}, {"role": "assistant", "content": "Bucket list"})
    function = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "bash", "arguments": ""}}
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in ('{"comm', 'and": "ls"', "}")]
    tools = [{"type": "function", "function": {"name": "bash"}}]
    work = turn(
        {"model": "m1", "messages": [system, user], "tools": tools},
        {"role": "assistant", "tool_calls": [function]},
        *pieces,
    )
    assert told(title)[-1] == ("answer", "", "Bucket list") and title.llm["tools"] == []
    assert told(work)[-2:] == [("tool_call", "call_1", "ls"), ("command", "call_1", "ls")]
    assert work.llm["tools"] == ["bash"] and work.llm["cost_usd"] is None
    for out in (title, work):
        assert (out.agent, refs(out, "agent_session")) == ("opencode", {"ses_1"})


def test_mini_swe_agent_puts_its_commands_into_code_blocks() -> None:
    asked = {
        "model": "claude-sonnet-4-5",
        "messages": [
            {"role": "system", "content": "Your response must contain exactly ONE bash code block"},
            {"role": "user", "content": "Count the buckets"},
            {"role": "assistant", "content": "THOUGHT: list\n\n```mswea_bash_command\naws s3 ls\n```"},
            {"role": "user", "content": "<returncode>0</returncode>\n<output>\nlogs\n</output>"},
        ],
    }
    content = "THOUGHT: count them\n\n```mswea_bash_command\naws s3 ls | wc -l\n```"
    body = {"id": "chatcmpl-1", "model": "m1", "choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    headers = {"User-Agent": "litellm/1.80.0"}
    exchange = call(asked, body, protocol="openai-chat", operation="chat.completions", request_headers=headers)
    out = LlmDescriber()(exchange)
    assert told(out) == [
        ("prompt", "", "<returncode>0</returncode>\n<output>\nlogs\n</output>"),
        ("answer", "", content),
        ("code", "", "aws s3 ls | wc -l"),
        ("command", "", "aws s3 ls | wc -l"),
    ]


def test_a_long_conversation_tells_each_thing_once() -> None:
    agent = ClaudeCode()
    described = [agent.turn([{"type": "text", "text": "Do all of it"}], use(0))]
    for at in range(1, 40):
        described.append(agent.turn([result(f"toolu_{at - 1}", f"result {at - 1}")], use(at)))
    counts = Counter((item.type, item.id) for out in described for item in out.items)
    assert counts[("prompt", "")] == 1
    assert {key: n for key, n in counts.items() if n > 1} == {}
    assert sum(len(out.text) for out in described) < 8000
    assert described[-1].llm["messages"] == 79


def use(at: int) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{at}", "name": "Bash", "input": {"command": f"echo {at}"}}
