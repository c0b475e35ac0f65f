"""What all calls of model APIs have in common: encodings, bounds, errors, parameters, what is missing."""

from __future__ import annotations

import gzip
import json
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from tests.kit.modelcalls import call, http, short, sse

from narrows.core.ports import Describe
from narrows.core.values import StoredExchange
from narrows.session.llm.describe import PROBLEMS, TEXT, LlmDescriber
from narrows.session.llm.loose import STRING, parse
from narrows.wire import websocket

ASKED: dict[str, Any] = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Say hello"}]}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-5"}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "message_stop"},
]
describe: Describe = LlmDescriber()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(sse(EVENTS))),
        ("br", brotli.compress(sse(EVENTS))),
        ("zstd", zstandard.compress(sse(EVENTS))),
    ],
)
def test_compressed_streams(coding: str, packed: bytes) -> None:
    out = describe(call(ASKED, packed, headers={"Content-Encoding": coding}, chunks=11))
    assert short(out.items) == [("prompt", "", "Say hello"), ("answer", "", "hello")]
    assert out.problems == []


def test_a_compressed_request() -> None:
    packed = zstandard.compress(json.dumps(ASKED).encode())
    out = describe(call(packed, sse(EVENTS), request_headers={"Content-Encoding": "zstd"}))
    assert short(out.items)[0] == ("prompt", "", "Say hello")


def test_a_compressed_stream_that_the_client_left() -> None:
    machine = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(
        machine.compress(sse([one])) + machine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for one in EVENTS[:3]
    )
    exchange = call(ASKED, packed, headers={"Content-Encoding": "zstd"}, chunks=64)
    exchange.response = exchange.response[:-5]
    exchange.response_facts["outcome"] = "client_gone"
    assert short(describe(exchange).items)[-1] == ("answer", "", "hello")


def test_an_exchange_that_was_never_answered() -> None:
    exchange = call(ASKED, {})
    exchange.response = b""
    out = describe(exchange)
    assert short(out.items) == [("prompt", "", "Say hello")]
    assert (out.status, out.problems, out.llm["cost_usd"]) == (200, [], None)


def test_a_request_that_was_cut_says_so_and_the_answer_is_there() -> None:
    exchange = call(ASKED, sse(EVENTS))
    exchange.request_truncated = True
    out = describe(exchange)
    assert short(out.items) == [("answer", "", "hello")]
    assert any("only the first" in problem for problem in out.problems)


@pytest.mark.parametrize(
    ("told", "status", "expected"),
    [
        (
            {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}},
            404,
            ("not_found_error", "model: x"),
        ),
        (
            {
                "error": {
                    "message": "Bad key",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
            },
            401,
            ("invalid_api_key", "Bad key"),
        ),
        (
            {"error": {"message": "Slow down", "type": "rate_limit_error", "code": None}},
            429,
            ("rate_limit_error", "Slow down"),
        ),
        (
            {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}},
            503,
            ("UNAVAILABLE", "Overloaded"),
        ),
        ({"error": "model 'x' not found"}, 404, ("404", "model 'x' not found")),
        ({"detail": "Not Found"}, 404, ("404", "Not Found")),
    ],
)
def test_errors_in_each_shape(told: Any, status: int, expected: tuple[str, str]) -> None:
    out = describe(call(ASKED, told, status=status, protocol="", operation="files"))
    assert (out.error_code, out.error_message, out.status) == (*expected, status)


def test_heads_of_any_call() -> None:
    out = describe(
        call(
            ASKED,
            sse(EVENTS),
            request_headers={"User-Agent": "codex_exec/0.169.0 (x)", "session-id": "s-1"},
            headers={"x-request-id": "req_9"},
            facts={"lease": "NRWL7"},
        )
    )
    assert (out.agent, out.agent_version, out.request_id) == ("codex", "0.169.0", "req_9")
    assert {("agent_session", "s-1"), ("lease", "NRWL7"), ("request", "req_9")} <= set(out.refs)


def test_parameters_by_the_same_names_for_each_api() -> None:
    chat = {
        "model": "gpt-4.1",
        "max_completion_tokens": 99,
        "temperature": 0.2,
        "stream": False,
        "tools": [{"type": "function", "function": {"name": "bash"}}],
        "messages": [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "hi"}],
    }
    out = describe(call(chat, {}, protocol="openai-chat", operation="chat.completions"))
    assert out.parameters == {
        "model": "gpt-4.1",
        "max_tokens": 99,
        "temperature": 0.2,
        "stream": False,
        "tools": ["bash"],
        "messages": 2,
        "system": "s" * 500,
    }


def test_long_texts_are_kept_up_to_the_limit() -> None:
    for size, kept in ((STRING, True), (STRING + 1, False)):
        asked = {"messages": [{"role": "user", "content": "x" * size}]}
        out = describe(call(asked, sse(EVENTS)))
        assert len(out.items[0].text) == STRING and len(out.text) <= TEXT + 2
        assert (out.problems == []) is kept


def test_data_is_bounded_in_depth_and_length() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    content = [
        {"type": "tool_use", "id": "t", "name": "n", "input": {"deep": deep}},
        {"type": "tool_use", "id": "u", "name": "n", "input": {"long": "y" * (STRING + 9)}},
    ]
    out = describe(call(ASKED, {"type": "message", "content": content}))
    assert len(json.dumps(out.items[1].data)) < 1000 and len(out.items[2].data["long"]) == STRING
    assert len(out.problems) == 2


def test_an_event_that_is_no_json_is_told_once_and_many_are_bounded() -> None:
    bad = b"".join(b"data: {not json %d\n\n" % i for i in range(100))
    out = describe(call(ASKED, bad + sse(EVENTS)))
    assert len(out.problems) == PROBLEMS and short(out.items)[-1] == ("answer", "", "hello")


def test_half_a_surrogate_pair() -> None:
    assert parse(b'{"a": "x\\ud83d"}') == {"a": "x?"}
    assert parse('{"a": "\\ud83d\\ude42"}') == {"a": "🙂"}
    out = describe(call(b'{"messages":[{"role":"user","content":"broken \\ud83d here"}]}', sse(EVENTS)))
    assert short(out.items)[0] == ("prompt", "", "broken ? here")
    with pytest.raises(ValueError):
        parse(b'{"\\ud')


def test_json_lines() -> None:
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in EVENTS)
    exchange = call(ASKED, {})
    exchange.response = http("HTTP/1.1 200 OK", {"Content-Type": "application/x-ndjson"}, lines)
    assert short(describe(exchange).items)[-1] == ("answer", "", "hello")


def test_what_is_no_known_api_is_still_a_call() -> None:
    exchange = StoredExchange(
        b"",
        b"",
        "llm.message",
        request=http("GET /v1/models?limit=1000 HTTP/1.1", {"Host": "h", "User-Agent": "claude-cli/2.1.197"}, b""),
        response=http("HTTP/1.1 200 OK", {"Content-Type": "application/json"}, b'{"data":[{"id":"claude-opus-4-8"}]}'),
        request_facts={"service": "anthropic", "operation": "models", "protocol": ""},
    )
    out = describe(exchange)
    assert (out.status, out.items, out.agent, out.model) == (200, [], "claude-code", "")
    assert out.llm["provider"] == "anthropic" and out.problems == []


def test_a_connection_that_became_a_websocket() -> None:
    head = (
        "GET /v1/responses HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nsession-id: s-1\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    asked = {"type": "response.create", "model": "gpt-5", "input": "Which buckets?"}
    call_ = {"type": "function_call", "call_id": "call_1", "name": "exec_command", "arguments": '{"cmd": "aws s3 ls"}'}
    usage = {"input_tokens": 10, "output_tokens": 2}
    response = {"id": "resp_1", "model": "gpt-5", "status": "completed", "output": [call_], "usage": usage}
    told = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_item.done", "output_index": 0, "item": call_},
        {"type": "response.completed", "response": response},
    ]
    exchange = StoredExchange(
        b"",
        b"",
        "llm.message",
        request=head.encode() + websocket.frame(websocket.TEXT, json.dumps(asked).encode(), b"\x01\x02\x03\x04"),
        response=answer.encode() + b"".join(websocket.frame(websocket.TEXT, json.dumps(one).encode()) for one in told),
        request_facts={"service": "openai", "operation": "responses", "protocol": "openai-responses", "lease": "NRWL1"},
        response_facts={"outcome": "complete", "status": 101},
    )
    out = describe(exchange)
    assert short(out.items) == [
        ("prompt", "", "Which buckets?"),
        ("tool_call", "exec_command", "aws s3 ls"),
        ("command", "exec_command", "aws s3 ls"),
    ]
    assert {("lease", "NRWL1"), ("agent_session", "s-1"), ("tool_call", "call_1"), ("message", "resp_1")} <= set(
        out.refs
    )
    assert out.llm["cost_usd"] == pytest.approx((10 * 1.25 + 2 * 10) / 1e6)
    assert (out.status, out.model, out.problems) == (101, "gpt-5", [])
    for at in range(0, len(exchange.response), 37):
        exchange.response = exchange.response[: len(exchange.response) - at]
        assert short(describe(exchange).items)[:1] in ([("prompt", "", "Which buckets?")], [])
