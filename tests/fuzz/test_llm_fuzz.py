"""Invariant: a recorded model call is described whatever its bytes are, and the description can be stored as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kit.modelcalls import PROTOCOLS, call, sse

from narrows.core.values import Described, StoredExchange
from narrows.session.http.messages import Message
from narrows.session.llm import bedrock
from narrows.session.llm.describe import LlmDescriber

WORDS = [
    "assistant", "user", "system", "tool", "model", "text", "tool_use", "tool_result", "thinking", "message_start",
    "content_block_start", "content_block_delta", "message_delta", "input_json_delta", "text_delta", "messageStop",
    "response.output_item.done", "function_call", "message", "error", "image", "base64", "Bash", "apply_patch", "Write",
    "response.completed", "*** Begin Patch\n*** Add File: a\n+x", "```sh\nls\n```",
]  # fmt: skip
KEYS = [
    "type", "role", "content", "messages", "system", "text", "input", "id", "name", "index", "delta", "partial_json",
    "content_block", "message", "usage", "input_tokens", "output_tokens", "choices", "tool_calls", "function",
    "arguments", "output", "response", "item", "contents", "parts", "functionCall", "functionResponse", "args",
    "candidates", "usageMetadata", "error", "code", "metadata", "user_id", "source", "data", "tools", "citations",
    "contentBlockIndex", "toolUse", "toolResult", "reasoningContent", "stopReason", "request", "results", "outputs",
    "model", "stream", "service_tier", "cache_creation", "server_tool_use", "start", "bytes", "command", "file_path",
]  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(WORDS),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=5)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=6)
PROTOCOL = st.sampled_from([*PROTOCOLS, ""])


def whole(out: Described) -> None:
    orjson.dumps({field.name: getattr(out, field.name) for field in dataclasses.fields(out)})
    assert all(item.said_by in ("request", "response") for item in out.items)
    assert all(kind and value for kind, value in out.refs)


@settings(max_examples=150, deadline=None)
@given(
    protocol=PROTOCOL,
    asked=JSON,
    told=st.one_of(JSON, st.lists(OBJECTS, max_size=6)),
    status=st.sampled_from([200, 429]),
)
def test_any_json(protocol: str, asked: Any, told: Any, status: int) -> None:
    whole(LlmDescriber()(call(asked, told, protocol=protocol, status=status)))


@settings(max_examples=150, deadline=None)
@given(protocol=PROTOCOL, asked=OBJECTS, told=st.lists(OBJECTS, max_size=8), cut=st.integers(0, 400))
def test_any_stream(protocol: str, asked: Any, told: list[dict[str, Any]], cut: int) -> None:
    exchange = call(asked, sse(told, named=False), protocol=protocol)
    if cut < 200:
        exchange.response = exchange.response[: len(exchange.response) - cut]
    whole(LlmDescriber()(exchange))


@settings(max_examples=100, deadline=None)
@given(protocol=PROTOCOL, request=st.binary(max_size=60), response=st.binary(max_size=60), body=st.binary(max_size=60))
def test_any_bytes(protocol: str, request: bytes, response: bytes, body: bytes) -> None:
    facts: dict[str, object] = {"service": "x", "operation": "messages", "protocol": protocol}
    whole(LlmDescriber()(StoredExchange(b"", b"", "llm.message", request, response, request_facts=facts)))
    whole(LlmDescriber()(call(body, body, protocol=protocol)))


@settings(max_examples=100, deadline=None)
@given(
    operation=st.sampled_from(sorted(bedrock.OPERATIONS)),
    asked=OBJECTS,
    told=JSON,
    events=st.lists(OBJECTS, max_size=5),
)
def test_any_bedrock_call(operation: str, asked: dict[str, Any], told: Any, events: list[dict[str, Any]]) -> None:
    out = Described(service="bedrock-runtime", operation=operation, parameters=dict(asked), events=list(events))
    request = Message(body=orjson.dumps(asked), whole=True)
    response = Message(status=200, body=orjson.dumps(told), whole=True)
    bedrock.describe(request, response, told, out)
    whole(out)
