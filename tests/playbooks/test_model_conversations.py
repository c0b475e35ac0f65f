"""Conversations with the scripted model, by the vendors' own clients: what was said is what the record says.

Each conversation is one task in two calls: the model wants a command, its result comes back, and it is done. The same
items must come out of every API, streaming and not, and nothing of the history a second time.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types
from tests.kit.model import Call, ModelServer, Received, Script, Turn, served
from tests.kit.modelcalls import http

from narrows.core.values import Described, Item, StoredExchange
from narrows.session.llm import openai_socket
from narrows.session.llm.describe import LlmDescriber
from narrows.session.llm.route import route

COMMAND = "aws s3 ls | sort"
TASK = Script(
    [
        Turn("I will look.", (Call(shell=COMMAND),), thinking="Which buckets are there?"),
        Turn("There are two buckets:\n```python\nBUCKETS = ['one', 'two']\n```\n"),
    ]
)
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
FIRST = [
    ("request", "system", "Be brief."),
    ("request", "prompt", "which buckets?"),
    ("response", "thinking", "Which buckets are there?"),
    ("response", "answer", "I will look."),
    ("response", "command", COMMAND),
]
SECOND = [
    ("request", "tool_result", "one\ntwo"),
    ("response", "answer", "There are two buckets:\n```python\nBUCKETS = ['one', 'two']\n```\n"),
    ("response", "code", "BUCKETS = ['one', 'two']"),
]


def of(entry: Received) -> Described:
    """The description of one request of the server's ledger, as it would have been recorded."""
    line = f"{entry.method} {entry.target} HTTP/1.1"
    headers = {name: value for name, value in entry.headers if name.lower() not in ("content-length", "host")}
    way = route(entry.method.encode(), entry.target.encode())
    stream = entry.sent.startswith((b"data:", b"event:"))
    return LlmDescriber()(
        StoredExchange(
            b"",
            b"",
            "llm.message",
            request=http(line, {"Host": "model.test", **headers}, entry.body),
            response=http(
                f"HTTP/1.1 {entry.status} X",
                {"Content-Type": "text/event-stream" if stream else "application/json"},
                entry.sent,
                chunks=7 if stream else 0,
            ),
            request_facts={"service": "openai", "operation": way.operation, "protocol": way.protocol},
            response_facts={"outcome": "complete", "status": entry.status},
        )
    )


def said(items: list[Item]) -> list[tuple[str, str, str]]:
    return [(item.said_by, item.type, item.text) for item in items if item.type != "tool_call"]


def states(entries: list[Received]) -> None:
    """Both calls say what the script says, and the tool's call and result are joined by one id."""
    first, second = map(of, entries)
    assert said(first.items) == FIRST
    assert said(second.items) == SECOND
    assert first.problems == second.problems == []
    [call] = [item for item in first.items if item.type == "tool_call"]
    [result] = [item for item in second.items if item.type == "tool_result"]
    assert call.id
    assert call.id == result.id
    assert call.data == {"command": COMMAND}
    for out in (first, second):
        assert ("tool_call", call.id) in out.refs
        assert out.llm["usage"]["input"] > 0
        assert out.llm["usage"]["output"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_messages(stream: bool) -> None:
    tools: Any = [{"name": "Bash", "input_schema": SCHEMA}]
    messages: list[Any] = [{"role": "user", "content": "which buckets?"}]
    with served(TASK) as server, anthropic.Anthropic(base_url=server.url, api_key="k") as client:

        def ask() -> Any:
            given: Any = {"model": "m", "max_tokens": 9, "system": "Be brief.", "messages": messages, "tools": tools}
            if not stream:
                return client.messages.create(**given)
            with client.messages.stream(**given) as events:
                return events.get_final_message()

        answer = ask()
        result = {"type": "tool_result", "tool_use_id": answer.content[-1].id, "content": "one\ntwo"}
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        ask()
        states(list(server.received))


@pytest.mark.parametrize("stream", [False, True])
def test_chat(stream: bool) -> None:
    tools: Any = [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}]
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "which buckets?"},
    ]
    with served(TASK) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as client:

        def ask() -> Any:
            given: Any = {"model": "m", "messages": messages, "tools": tools}
            if not stream:
                return client.chat.completions.create(**given).choices[0].message
            with client.chat.completions.stream(**given, stream_options={"include_usage": True}) as events:
                return events.get_final_completion().choices[0].message

        answer = ask()
        calls = [call.model_dump(mode="json") for call in answer.tool_calls]
        messages += [
            {"role": "assistant", "content": answer.content, "tool_calls": calls},
            {"role": "tool", "tool_call_id": calls[0]["id"], "content": "one\ntwo"},
        ]
        ask()
        states(list(server.received))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_responses(stream: bool, stored: bool) -> None:
    tools: Any = [{"type": "function", "name": "bash", "parameters": SCHEMA, "strict": False}]
    history: list[Any] = [{"role": "user", "content": "which buckets?"}]
    with served(TASK) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as client:

        def ask(previous: str | None) -> Any:
            given: Any = {"model": "m", "input": history, "tools": tools, "instructions": "Be brief."}
            if previous:
                given["previous_response_id"] = previous
            if not stream:
                return client.responses.create(**given)
            with client.responses.stream(**given) as events:
                return events.get_final_response()

        answer = ask(None)
        result = {"type": "function_call_output", "call_id": answer.output[-1].call_id, "output": "one\ntwo"}
        made = [item.model_dump(mode="json") for item in answer.output]
        history = [result] if stored else [*history, *made, result]
        ask(answer.id if stored else None)
        states(list(server.received))


@pytest.mark.parametrize("stream", [False, True])
def test_generate_content(stream: bool) -> None:
    declared = types.FunctionDeclaration(name="run_shell_command", parameters_json_schema=SCHEMA)
    tools: Any = [types.Tool(function_declarations=[declared])]
    config = types.GenerateContentConfig(tools=tools, system_instruction="Be brief.")
    history: list[Any] = [types.Content(role="user", parts=[types.Part(text="which buckets?")])]
    with served(TASK) as server:
        client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=server.url))

        def ask() -> list[Any]:
            if stream:
                chunks = list(client.models.generate_content_stream(model="m", contents=history, config=config))
            else:
                chunks = [client.models.generate_content(model="m", contents=history, config=config)]
            found: list[Any] = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
            return [part for content in found for part in content.parts]

        parts = ask()
        [call] = [part.function_call for part in parts if part.function_call]
        answer = types.FunctionResponse(id=call.id, name=call.name, response={"output": "one\ntwo"})
        history += [
            types.Content(role="model", parts=parts),
            types.Content(role="user", parts=[types.Part(function_response=answer)]),
        ]
        ask()
        client.close()
        states(list(server.received))


class Tap:
    """Stands between a client and the server on one connection, and keeps the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self.sent, self.told = bytearray(), bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target = port
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=self._copy, args=(server, client, self.told))
            back.start()
            self._copy(client, server, self.sent)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        while data := source.recv(1 << 16):
            kept += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Wait until both sides are done."""
        self._thread.join()
        self._listener.close()


@contextmanager
def tapped(server: ModelServer) -> Iterator[Tap]:
    tap = Tap(server.port)
    try:
        yield tap
    finally:
        tap.close()


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
@pytest.mark.parametrize("compression", ["deflate", None])
def test_responses_over_a_websocket(compression: str | None) -> None:
    tools: Any = [{"type": "function", "name": "bash", "parameters": SCHEMA, "strict": False}]
    with served(TASK) as server, tapped(server) as tap:
        url = f"http://127.0.0.1:{tap.port}/v1"
        options: Any = {"compression": compression}
        with (
            openai.OpenAI(base_url=url, api_key="k") as client,
            client.responses.connect(websocket_connection_options=options) as connection,
        ):
            asked: Any = {"type": "response.create", "model": "m", "instructions": "Be brief.", "tools": tools}
            connection.send(asked | {"input": "which buckets?"})
            answer = final(connection)
            result = {"type": "function_call_output", "call_id": answer.output[-1].call_id, "output": "one\ntwo"}
            connection.send(asked | {"input": [result], "previous_response_id": answer.id})
            final(connection)
    head = bytes(tap.told).partition(b"\r\n\r\n")[0].lower()
    assert (b"permessage-deflate" in head) is (compression is not None)
    out = Described()
    openai_socket.describe(bytes(tap.sent), bytes(tap.told), out)
    spoken = [one for one in FIRST + SECOND if one[1] not in ("command", "code")]
    assert said(out.items) == spoken
    assert out.problems == []
    calls = {item.id for item in out.items if item.type in ("tool_call", "tool_result")}
    assert calls == {answer.output[-1].call_id}


def final(connection: Any) -> Any:
    for event in connection:
        if event.type == "response.completed":
            return event.response
    raise AssertionError("the connection ended before the response did")
