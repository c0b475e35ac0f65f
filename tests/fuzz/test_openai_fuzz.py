"""Invariant: whatever JSON is asked and told, a describer returns, and what it gives can be kept as JSON."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.values import Described
from narrows.session.llm import openai_chat, openai_responses, openai_socket
from narrows.session.llm.told import Told
from narrows.wire.websocket import TEXT, frame

NAMES = (
    "action", "arguments", "choices", "client_metadata", "code", "content", "delta", "error", "finish_reason",
    "function", "id", "index", "input", "instructions", "item", "message", "messages", "model", "name", "output",
    "output_index", "outputs", "prompt", "response", "role", "summary", "text", "tool_calls", "tools", "type",
    "usage", "call_id", "stdout", "outcome", "annotations", "previous_response_id", "stream_id", "content_index",
    "reasoning", "operation",
)  # fmt: skip
WORDS = (
    "message", "function_call", "function_call_output", "reasoning", "user", "assistant", "tool", "system",
    "shell_call", "mcp_call", "program", "error", "response.created", "response.completed",
    "response.output_item.added", "response.output_item.done", "response.output_text.delta",
    "response.function_call_arguments.delta", "response.create", "<skill>", "</skill>", "{", '{"a":1}',
    "data:a;b,c",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.sampled_from(WORDS),
    st.text(max_size=4),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)
EVENTS = st.lists(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"type": st.sampled_from(WORDS)},
            optional={"output_index": LEAVES, "item": JSON, "delta": LEAVES, "response": JSON, "content_index": LEAVES},
        ),
        st.fixed_dictionaries(
            {"choices": st.lists(st.fixed_dictionaries({"index": LEAVES, "delta": JSON}), max_size=3)}
        ),
    ),
    max_size=6,
)
REQUESTS = st.one_of(
    JSON,
    st.fixed_dictionaries({}, optional={"messages": st.lists(JSON, max_size=4), "prompt": JSON, "tools": JSON}),
    st.fixed_dictionaries({}, optional={"input": st.lists(JSON, max_size=4), "client_metadata": JSON, "tools": JSON}),
)


def keeps(out: Described) -> None:
    for item in out.items:
        assert isinstance(item.text, str)
        assert isinstance(item.id, str)
        assert isinstance(item.name, str)
        assert isinstance(item.error, bool)
        orjson.dumps(item.data)
    assert all(isinstance(value, str) and value for _, value in out.refs)
    assert isinstance(out.model, str)
    assert isinstance(out.error_code, str)
    assert isinstance(out.error_message, str)
    orjson.dumps(out.llm)


@settings(max_examples=200, deadline=None)
@given(asked=REQUESTS, body=JSON, events=EVENTS, streamed=st.booleans())
def test_any_json_is_described(asked: Any, body: Any, events: list[Any], streamed: bool) -> None:
    for describe in (openai_chat.describe, openai_responses.describe):
        out = Described()
        told = Told(200, None if streamed else body, events if streamed else [], [""] * len(events), streamed)
        describe(asked, told, out)
        keeps(out)


HEADS = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
)


@settings(max_examples=100, deadline=None)
@given(client=st.lists(JSON | st.binary(max_size=4), max_size=3), events=EVENTS, garbage=st.binary(max_size=5))
def test_any_connection_is_described(client: list[Any], events: list[Any], garbage: bytes) -> None:
    request = HEADS[0] + b"".join(
        one if isinstance(one, bytes) else frame(TEXT, orjson.dumps(one), b"1234") for one in client
    )
    response = HEADS[1] + b"".join(frame(TEXT, orjson.dumps(one)) for one in events) + garbage
    out = Described()
    openai_socket.describe(request, response, out)
    keeps(out)
