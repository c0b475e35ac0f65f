"""OpenTelemetry batches: Claude Code's and Codex's events, gen_ai spans, both encodings, and garbage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from narrows.core.values import Described, StoredExchange
from narrows.session.agents.describe import AgentDescriber

TRACE, SPAN, PARENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "eee19b7ec3c1b173"
JSON, PROTOBUF = "application/json", "application/x-protobuf"


def attributes(**values: Any) -> list[dict[str, Any]]:
    out = []
    for name, value in values.items():
        kind = "boolValue" if isinstance(value, bool) else "intValue" if isinstance(value, int) else "stringValue"
        held = str(value) if kind == "intValue" else value
        out.append({"key": name.replace("__", "."), "value": {kind: held}})
    return out


def described(signal: str, body: bytes, media: str = JSON) -> Described:
    head = f"POST /_narrows/otlp/v1/{signal} HTTP/1.1\r\nHost: gw\r\nContent-Type: {media}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    facts: dict[str, object] = {"service": "otlp", "operation": signal}
    return AgentDescriber()(
        StoredExchange(b"e" * 16, b"s" * 16, "agent.event", head.encode() + body, request_facts=facts)
    )


def logs(*records: dict[str, Any], service: str = "claude-code") -> dict[str, Any]:
    resource = {"attributes": attributes(service__name=service, service__version="2.1.197")}
    scope = {"scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": list(records)}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}


def spans(*records: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes(service__name="my-agent")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(records)}]}]}


def event(name: str, **values: Any) -> dict[str, Any]:
    return {"body": {"stringValue": f"claude_code.{name}"}, "attributes": attributes(event__name=name, **values),
            "traceId": TRACE, "spanId": SPAN}  # fmt: skip


CLAUDE = logs(
    event("user_prompt", session__id="S", prompt__id="P", prompt="List the buckets", prompt_length=16),
    event(
        "api_request", session__id="S", prompt__id="P", request_id="req_1", model="claude-sonnet-4-5", input_tokens=9
    ),
    event("tool_decision", session__id="S", tool_name="Bash", tool_use_id="toolu_1", decision="accept"),
    event("tool_result", session__id="S", tool_name="Bash", tool_use_id="toolu_1", success="false", error="denied"),
    event("assistant_response", session__id="S", response="There are two."),
    event("hook_execution_start", session__id="S"),
)


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_claude_codes_events(media: str) -> None:
    raw = json.dumps(CLAUDE).encode()
    if media == PROTOBUF:
        raw = as_protobuf("logs", CLAUDE)
    out = described("logs", raw, media)
    assert out.problems == []
    assert [(item.type, item.id, item.error) for item in out.items] == [
        ("prompt", "", False), ("notice", "", False), ("notice", "toolu_1", False), ("tool_result", "toolu_1", True),
        ("answer", "", False), ("notice", "", False),
    ]  # fmt: skip
    assert out.items[0].text == "List the buckets" and out.items[4].text == "There are two."
    assert {("agent_session", "S"), ("turn", "P"), ("request", "req_1"), ("tool_call", "toolu_1"), ("trace", TRACE),
            ("span", SPAN)} <= set(out.refs)  # fmt: skip
    assert (out.agent, out.agent_version, out.model) == ("claude-code", "2.1.197", "claude-sonnet-4-5")


def as_protobuf(signal: str, batch: dict[str, Any]) -> bytes:
    """The batch in protobuf. Its JSON mapping wants ids in base64."""
    import base64

    text = json.dumps(batch)
    for name in (TRACE, SPAN, PARENT):
        text = text.replace(name, base64.b64encode(bytes.fromhex(name)).decode())
    message: Any = {"logs": LogsData, "traces": TracesData, "metrics": MetricsData}[signal]()
    raw: bytes = ParseDict(json.loads(text), message).SerializeToString()
    return raw


def test_codex_events() -> None:
    record = {"attributes": attributes(
        event__name="codex.tool_result", conversation__id="T", call_id="call_1", tool_name="exec_command",
        arguments='{"cmd":"ls"}', output="a", success="true", duration_ms=3, app__version="0.169.0",
    )}  # fmt: skip
    prompt = {
        "attributes": attributes(event__name="codex.user_prompt", conversation__id="T", prompt="hi", model="gpt-5")
    }
    out = described("logs", json.dumps(logs(prompt, record, service="codex_exec")).encode())
    assert [(item.type, item.text, item.id) for item in out.items] == [
        ("prompt", "hi", ""), ("tool_result", "a", "call_1"),
    ]  # fmt: skip
    assert {("agent_session", "T"), ("tool_call", "call_1")} <= set(out.refs) and out.model == "gpt-5"


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_gen_ai_spans(media: str) -> None:
    went_in = [
        {"role": "user", "parts": [{"type": "text", "content": "old question"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "old answer"}]},
        {"role": "user", "parts": [{"type": "text", "content": "new question"}]},
    ]
    came_out = [{"role": "assistant", "parts": [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "call_7", "name": "sh", "arguments": {"cmd": "aws s3 ls"}},
    ]}]  # fmt: skip
    chat = {
        "traceId": TRACE, "spanId": SPAN, "parentSpanId": PARENT, "name": "chat m1", "startTimeUnixNano": "1",
        "endTimeUnixNano": "2", "attributes": attributes(
            gen_ai__operation__name="chat", gen_ai__request__model="m1", gen_ai__conversation__id="C",
            gen_ai__response__id="msg_1", gen_ai__input__messages=json.dumps(went_in),
            gen_ai__output__messages=json.dumps(came_out),
        ),
    }  # fmt: skip
    tool = {"traceId": TRACE, "spanId": SPAN, "name": "execute_tool sh", "attributes": attributes(
        gen_ai__operation__name="execute_tool", gen_ai__tool__name="sh", gen_ai__tool__call__id="call_7",
        gen_ai__tool__call__arguments='{"cmd":"aws s3 ls"}', gen_ai__tool__call__result="2 buckets")}  # fmt: skip
    batch = spans(chat, tool)
    out = described("traces", as_protobuf("traces", batch) if media == PROTOBUF else json.dumps(batch).encode(), media)
    assert [(item.type, item.text) for item in out.items if item.type != "notice"] == [
        ("prompt", "new question"), ("thinking", "hm"), ("tool_call", '{"cmd": "aws s3 ls"}'),
        ("tool_call", '{"cmd":"aws s3 ls"}'), ("tool_result", "2 buckets"),
    ]  # fmt: skip
    assert {("trace", TRACE), ("span", SPAN), ("span", PARENT), ("agent_session", "C"), ("message", "msg_1"),
            ("tool_call", "call_7")} <= set(out.refs)  # fmt: skip
    assert out.model == "m1"


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_metrics_are_named_and_join(media: str) -> None:
    point = {"asDouble": 0.1, "attributes": attributes(session__id="S", model="m")}
    metric = {"name": "claude_code.cost.usage", "sum": {"dataPoints": [point], "aggregationTemporality": 1}}
    batch = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    out = described(
        "metrics", as_protobuf("metrics", batch) if media == PROTOBUF else json.dumps(batch).encode(), media
    )
    assert [item.text for item in out.items] == ["claude_code.cost.usage"] and ("agent_session", "S") in out.refs


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics", "profiles"])
@pytest.mark.parametrize("media", [JSON, PROTOBUF])
@pytest.mark.parametrize("body", [b"", b"[]", b"\xff\xff\xff", b"{", b'{"resourceLogs":[{"scopeLogs":3},null,{}]}'])
def test_garbage(signal: str, media: str, body: bytes) -> None:
    described(signal, body, media)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["traces", "logs", "metrics"]), st.binary(max_size=200))
def test_any_bytes_as_protobuf(signal: str, body: bytes) -> None:
    described(signal, body, PROTOBUF)


def test_ids_of_zeros_and_of_other_forms_join_nothing() -> None:
    record = {"traceId": "0" * 32, "spanId": "xyz", "attributes": attributes(event__name="x")}
    assert [
        ref for ref in described("logs", json.dumps(logs(record)).encode()).refs if ref[0] in ("trace", "span")
    ] == []
