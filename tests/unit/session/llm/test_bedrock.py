"""Models on Bedrock: the same items from Converse, InvokeModel and their streams."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.kit.modelcalls import http, short

from narrows.core.ports import Describe
from narrows.core.values import Described, StoredExchange
from narrows.session.aws.describe import AwsDescriber
from narrows.session.aws.models import Models
from narrows.wire.eventstream import STRING, Header, Message, encode

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture(scope="module")
def describe(tmp_path_factory: pytest.TempPathFactory) -> Describe:
    return AwsDescriber(Models(tmp_path_factory.mktemp("models")))


def event(kind: str, payload: Any, *, exception: bool = False) -> bytes:
    kinds = (
        (":message-type", "exception", ":exception-type") if exception else (":message-type", "event", ":event-type")
    )
    headers = {kinds[0]: Header(STRING, kinds[1]), kinds[2]: Header(STRING, kind)}
    return encode(Message(headers, json.dumps(payload).encode()))


def exchange(operation: str, asked: Any, told: bytes, *, headers: dict[str, str] | None = None) -> StoredExchange:
    verb = {
        "Converse": "converse",
        "ConverseStream": "converse-stream",
        "InvokeModel": "invoke",
        "InvokeModelWithResponseStream": "invoke-with-response-stream",
    }[operation]
    path = f"/model/{MODEL.replace(':', '%3A')}/{verb}"
    facts: dict[str, object] = {"service": "bedrock-runtime", "operation": operation, "protocol": "rest-json"}
    kind = "application/vnd.amazon.eventstream" if "stream" in verb else "application/json"
    return StoredExchange(
        b"",
        b"",
        "aws.call",
        request=http(f"POST {path} HTTP/1.1", {"Host": "h", **(headers or {})}, json.dumps(asked).encode()),
        response=http("HTTP/1.1 200 OK", {"Content-Type": kind, "x-amzn-RequestId": "RID"}, told),
        request_facts=facts | {"region": "eu-west-1", "lease": "NRWA1"},
    )


CONVERSE: dict[str, Any] = {
    "system": [{"text": "You are terse."}],
    "inferenceConfig": {"maxTokens": 512, "temperature": 0.5},
    "toolConfig": {"tools": [{"toolSpec": {"name": "bash", "inputSchema": {"json": {}}}}]},
    "messages": [
        {"role": "user", "content": [{"text": "List the buckets"}]},
        {
            "role": "assistant",
            "content": [
                {"text": "Yes"},
                {"toolUse": {"toolUseId": "tooluse_1", "name": "bash", "input": {"command": "ls"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "tooluse_1",
                        "status": "error",
                        "content": [{"text": "denied"}, {"json": {"code": 1}}],
                    }
                },
                {"cachePoint": {"type": "default"}},
                {"text": "Try again"},
            ],
        },
    ],
}
EXPECTED = [
    ("tool_result", "bash", 'denied\n{"code":1}'),
    ("prompt", "", "Try again"),
    ("thinking", "", "Use the CLI."),
    ("answer", "", "Trying."),
    ("tool_call", "bash", "aws s3 ls"),
    ("command", "bash", "aws s3 ls"),
]


def check(out: Described) -> None:
    assert short(out.items) == EXPECTED
    assert out.items[0].error and out.items[0].id == "tooluse_1"
    assert out.items[4].data == {"command": "aws s3 ls"} and out.items[5].id == "tooluse_2"
    assert {("tool_call", "tooluse_1"), ("tool_call", "tooluse_2"), ("lease", "NRWA1"), ("request", "RID")} <= set(
        out.refs
    )
    assert out.model == MODEL and out.llm["stop_reason"] == "tool_use"
    assert out.llm["usage"] == {"input": 11, "output": 7, "cache_read": 3, "cache_write": None, "reasoning": None}
    assert (out.llm["provider"], out.llm["tools"], out.llm["cost_usd"]) == ("bedrock", ["bash"], None)
    assert out.problems == []


USAGE = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18, "cacheReadInputTokens": 3}


def test_converse(describe: Describe) -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Use the CLI.", "signature": "s"}}},
        {"text": "Trying."},
        {"toolUse": {"toolUseId": "tooluse_2", "name": "bash", "input": {"command": "aws s3 ls"}}},
    ]
    told = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "tool_use", "usage": USAGE}
    out = describe(exchange("Converse", CONVERSE, json.dumps(told).encode()))
    check(out)
    assert out.llm["api"] == "Converse" and not out.llm["stream"]


def stream() -> list[bytes]:
    def delta(at: int, **given: Any) -> bytes:
        return event("contentBlockDelta", {"contentBlockIndex": at, "delta": given, "p": "abcd"})

    return [
        event("messageStart", {"role": "assistant"}),
        delta(0, reasoningContent={"text": "Use "}),
        delta(0, reasoningContent={"text": "the CLI."}),
        delta(0, reasoningContent={"signature": "s"}),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        delta(1, text="Try"),
        delta(1, text="ing."),
        event(
            "contentBlockStart",
            {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "tooluse_2", "name": "bash"}}},
        ),
        delta(2, toolUse={"input": '{"comm'}),
        delta(2, toolUse={"input": 'and": "aws s3 ls"}'}),
        event("messageStop", {"stopReason": "tool_use"}),
        event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}}),
    ]


def test_converse_as_a_stream(describe: Describe) -> None:
    out = describe(exchange("ConverseStream", CONVERSE, b"".join(stream())))
    check(out)
    assert out.llm["stream"]


def test_a_stream_that_fails(describe: Describe) -> None:
    failed = event("throttlingException", {"message": "Too many requests"}, exception=True)
    out = describe(exchange("ConverseStream", CONVERSE, b"".join(stream()[:6]) + failed))
    assert (out.error_code, out.error_message) == ("throttlingException", "Too many requests")
    assert short(out.items)[-1] == ("answer", "", "Try")


ANTHROPIC = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 32000,
    "system": "You are Claude Code.",
    "messages": [{"role": "user", "content": "List the buckets"}],
}


def test_invoke_with_an_anthropic_body(describe: Describe) -> None:
    told = {
        "id": "msg_bdrk_1",
        "type": "message",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "tool_use", "id": "toolu_bdrk_1", "name": "Bash", "input": {"command": "aws s3 ls"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "output_tokens": 4},
    }
    headers = {"User-Agent": "claude-cli/2.1.197 (external, sdk-cli)", "X-Claude-Code-Session-Id": "s-1"}
    out = describe(exchange("InvokeModel", ANTHROPIC, json.dumps(told).encode(), headers=headers))
    assert [item.type for item in out.items] == ["system", "prompt", "tool_call", "command"]
    assert (out.agent, out.agent_version) == ("claude-code", "2.1.197")
    assert {("agent_session", "s-1"), ("message", "msg_bdrk_1"), ("tool_call", "toolu_bdrk_1")} <= set(out.refs)
    assert out.llm["usage"]["input"] == 10 and out.parameters["modelId"] == MODEL


def test_invoke_as_a_stream_with_an_anthropic_body(describe: Describe) -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_bdrk_2", "usage": {"output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Two."}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 4}},
    ]
    told = b"".join(
        event("chunk", {"bytes": base64.b64encode(json.dumps(e).encode()).decode(), "p": "ab"}) for e in events
    )
    out = describe(exchange("InvokeModelWithResponseStream", ANTHROPIC, told))
    assert short(out.items)[-1] == ("answer", "", "Two.")
    assert (out.llm["usage"]["input"], out.llm["usage"]["output"]) == (12, 4)
    assert ("message", "msg_bdrk_2") in out.refs and out.problems == []


@pytest.mark.parametrize(
    ("asked", "told", "usage"),
    [
        (
            {"inputText": "Hi"},
            {
                "inputTextTokenCount": 3,
                "results": [{"tokenCount": 2, "outputText": "Hello", "completionReason": "FINISH"}],
            },
            (3, None),
        ),
        (
            {"prompt": "Hi"},
            {"generation": "Hello", "prompt_token_count": 3, "generation_token_count": 2, "stop_reason": "stop"},
            (3, 2),
        ),
        ({"prompt": "Hi"}, {"outputs": [{"text": "Hello", "stop_reason": "stop"}]}, (None, None)),
        ({"message": "Hi"}, {"text": "Hello", "finish_reason": "COMPLETE"}, (None, None)),
        (
            {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
            {
                "output": {"message": {"content": [{"text": "Hello"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 3, "outputTokens": 2},
            },
            (3, 2),
        ),
    ],
)
def test_bodies_of_other_families(
    describe: Describe, asked: Any, told: Any, usage: tuple[int | None, int | None]
) -> None:
    out = describe(exchange("InvokeModel", asked, json.dumps(told).encode()))
    assert short(out.items) == [("prompt", "", "Hi"), ("answer", "", "Hello")]
    assert (out.llm["usage"]["input"], out.llm["usage"]["output"]) == usage
    assert out.problems == []


def test_a_body_of_an_unknown_family_is_not_guessed_at(describe: Describe) -> None:
    out = describe(exchange("InvokeModel", {"texts": ["a"]}, b'{"embeddings":[[0.1]]}'))
    assert out.items == [] and out.model == MODEL
