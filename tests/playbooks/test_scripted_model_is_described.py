"""What the scripted model says over each API is what its recorded bytes are described as, streamed or not."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from demo.model import Call, ModelServer, Script, Turn, served

from narrows.core.values import StoredExchange
from narrows.session.http.messages import read_response
from narrows.session.llm.describe import LlmDescriber

EDIT = Call("write_file", {"file_path": "/w/a.py", "content": "print('grüß dich')\n"})
LOOK = Turn("I will look:\n```sh\naws s3 ls\n```", (Call(shell="aws s3 ls"), EDIT), thinking="Which ones?")
SHELL: dict[str, Any] = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
PROMPT = "which buckets?"
APIS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "anthropic-messages": (
        "anthropic",
        "messages",
        "/v1/messages",
        {
            "max_tokens": 99,
            "messages": [{"role": "user", "content": PROMPT}],
            "tools": [{"name": "bash", "input_schema": SHELL}],
        },
    ),
    "openai-chat": (
        "openai",
        "chat.completions",
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "tools": [{"type": "function", "function": {"name": "bash", "parameters": SHELL}}],
            "stream_options": {"include_usage": True},
        },
    ),
    "openai-responses": (
        "openai",
        "responses",
        "/v1/responses",
        {"input": PROMPT, "tools": [{"type": "function", "name": "bash", "parameters": SHELL}]},
    ),
    "gemini": (
        "gemini",
        "generateContent",
        "/v1beta/models/m:generateContent",
        {
            "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
            "tools": [{"functionDeclarations": [{"name": "bash", "parametersJsonSchema": SHELL}]}],
        },
    ),
}


def exchange(server: ModelServer, protocol: str, *, stream: bool) -> StoredExchange:
    """One call as it is on the wire."""
    provider, operation, path, body = APIS[protocol]
    if protocol != "gemini":
        body = body | {"model": "m", "stream": stream}
    elif stream:
        operation, path = "streamGenerateContent", path.replace("generateContent", "streamGenerateContent") + "?alt=sse"
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nConnection: close\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
        connection.sendall(request)
        response = b""
        while not read_response(response, b"POST", cut=True).whole and (piece := connection.recv(65536)):
            response += piece
    facts: dict[str, object] = {"service": provider, "operation": operation, "protocol": protocol}
    return StoredExchange(
        b"", b"", "llm.message", request=request, response=response, request_facts=facts, response_facts={}
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", APIS)
def test_each_api(protocol: str, stream: bool) -> None:
    with served(Script([LOOK])) as server:
        stored = exchange(server, protocol, stream=stream)
        saying = server.received[0].saying
    assert saying is not None
    out = LlmDescriber()(stored)
    assert out.problems == [] and out.status == 200
    items = [(item.type, item.text) for item in out.items if item.type != "thinking"]
    assert items == [
        ("prompt", PROMPT),
        ("answer", LOOK.text),
        ("code", "aws s3 ls"),
        ("tool_call", "aws s3 ls"),
        ("command", "aws s3 ls"),
        ("tool_call", "/w/a.py"),
        ("file_edit", "print('grüß dich')\n"),
    ]
    if protocol in ("anthropic-messages", "gemini"):
        assert [item.text for item in out.items if item.type == "thinking"] == ["Which ones?"]
    if protocol != "gemini":
        assert [item.id for item in out.items if item.type == "tool_call"] == [call[0] for call in saying.calls]
    assert out.llm["stream"] is stream and out.llm["tools"] == ["bash"] and out.model == "m"
    assert out.llm["usage"]["input"] and out.llm["usage"]["output"] and out.llm["stop_reason"]
    assert any(kind == "message" for kind, _ in out.refs)


@pytest.mark.parametrize("protocol", APIS)
def test_a_stream_that_breaks(protocol: str) -> None:
    with served(Script([Turn("one two three four five six", cut_after=4)])) as server:
        stored = exchange(server, protocol, stream=True)
    out = LlmDescriber()(stored)
    assert out.items[0].text == PROMPT
    assert "one two three four five six".startswith("".join(item.text for item in out.items[1:]))
    assert out.problems


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", APIS)
def test_errors(protocol: str, stream: bool) -> None:
    with served(Script([Turn("x", errors=(429,))])) as server:
        stored = exchange(server, protocol, stream=stream)
    out = LlmDescriber()(stored)
    assert out.status == 429 and out.error_code and out.error_message
    assert out.llm["cost_usd"] is None


@pytest.mark.parametrize("protocol", APIS)
def test_an_error_within_a_stream(protocol: str) -> None:
    with served(Script([Turn("one two", stream_error="overloaded today")])) as server:
        stored = exchange(server, protocol, stream=True)
    out = LlmDescriber()(stored)
    assert out.status == 200 and "overloaded today" in out.error_message
