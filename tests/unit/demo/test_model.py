"""The scripted model through the vendors' own clients: what they read is what the script says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from demo.model import Call, ModelServer, Script, Turn, served
from google import genai
from google.genai import types

ROOT = Path(__file__).resolve().parents[3]
LOOK = Turn("I will look.", (Call(shell="aws s3 ls"),), thinking="Which buckets are there?")
TASK = Script([LOOK, Turn("There are two buckets.")])
SHELL: dict[str, Any] = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
KEY = "the-one-key"


def of_anthropic(server: ModelServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=KEY)


def of_openai(server: ModelServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_does_the_task(stream: bool) -> None:
    tools: Any = [{"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}]
    messages: list[Any] = [{"role": "user", "content": "which buckets?"}]
    with served(TASK, key=KEY) as server, of_anthropic(server) as client:

        def ask() -> anthropic.types.Message:
            if not stream:
                return client.messages.create(model="m", max_tokens=99, messages=messages, tools=tools)
            with client.messages.stream(model="m", max_tokens=99, messages=messages, tools=tools) as events:
                return events.get_final_message()

        first = ask()
        assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
        assert first.stop_reason == "tool_use"
        call = first.content[2]
        assert call.type == "tool_use"
        assert call.input == {"command": "aws s3 ls"}
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "a\nb"}]},
        ]
        second = ask()
        assert second.content[0].type == "text"
        assert second.content[0].text == "There are two buckets."
        assert second.stop_reason == "end_turn"
        assert second.usage.input_tokens > 0
        told = [entry.saying for entry in server.received]
        assert told[0] is not None
        assert told[0].calls[0][0] == call.id
        assert [entry.get("authorization") for entry in server.received] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_chat_does_the_task(stream: bool) -> None:
    tools: Any = [{"type": "function", "function": {"name": "exec_command", "parameters": SHELL}}]
    messages: list[Any] = [{"role": "user", "content": "which buckets?"}]
    with served(TASK, key=KEY) as server, of_openai(server) as client:

        def ask() -> Any:
            if not stream:
                return client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0]
            with client.chat.completions.stream(
                model="m", messages=messages, tools=tools, stream_options={"include_usage": True}
            ) as events:
                answer = events.get_final_completion()
            assert answer.usage is not None
            return answer.choices[0]

        first = ask()
        assert first.finish_reason == "tool_calls"
        assert first.message.content == "I will look."
        call = first.message.tool_calls[0]
        assert json.loads(call.function.arguments) == {"cmd": "aws s3 ls"}
        messages += [
            {"role": "assistant", "content": "I will look.", "tool_calls": [call.model_dump(mode="json")]},
            {"role": "tool", "tool_call_id": call.id, "content": "a\nb"},
        ]
        second = ask()
        assert (second.message.content, second.finish_reason) == ("There are two buckets.", "stop")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_responses_does_the_task(stream: bool, stored: bool) -> None:
    tools: Any = [{"type": "function", "name": "exec_command", "parameters": SHELL, "strict": False}]
    asked: list[Any] = [{"role": "user", "content": "which buckets?"}]
    with served(TASK, key=KEY) as server, of_openai(server) as client:

        def ask(previous: str | None) -> Any:
            given: Any = {"model": "m", "input": asked, "tools": tools, "previous_response_id": previous}
            if not stream:
                return client.responses.create(**given)
            with client.responses.stream(**given) as events:
                return events.get_final_response()

        first = ask(None)
        assert first.output_text == "I will look."
        assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
        call = first.output[2]
        assert json.loads(call.arguments) == {"cmd": "aws s3 ls"}
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "a\nb"}
        asked = [result] if stored else [*asked, *(item.model_dump(mode="json") for item in first.output), result]
        second = ask(first.id if stored else None)
        assert second.output_text == "There are two buckets."
        assert second.status == "completed"


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
def test_responses_over_a_websocket() -> None:
    tools: Any = [{"type": "custom", "name": "shell"}]
    with served(TASK, key=KEY) as server, of_openai(server) as client, client.responses.connect() as connection:
        connection.send({"type": "response.create", "model": "m", "input": "which buckets?", "tools": tools})
        answers: list[Any] = []
        for event in connection:
            if event.type != "response.completed":
                continue
            answers.append(event.response)
            if len(answers) == 2:
                break
            call = event.response.output[2]
            assert call.type == "custom_tool_call"
            assert call.input == "aws s3 ls"
            result: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "a\nb"}
            connection.send(
                {"type": "response.create", "model": "m", "input": [result], "previous_response_id": event.response.id}
            )
        assert [entry.method for entry in server.received] == ["GET", "WS", "WS"]
        assert answers[1].output_text == "There are two buckets."


def test_a_response_that_is_only_read_ahead_says_nothing() -> None:
    with served(TASK) as server, of_openai(server) as client:
        warm = client.responses.create(model="m", input="?", extra_body={"generate": False})
        assert warm.output == []
        first = client.responses.create(model="m", input="go", previous_response_id=warm.id)
        assert first.output_text == "I will look."


@pytest.mark.parametrize("stream", [False, True])
def test_gemini_does_the_task(stream: bool) -> None:
    declared = types.FunctionDeclaration(name="run_shell_command", parameters_json_schema=SHELL)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    history: list[Any] = [types.Content(role="user", parts=[types.Part(text="which buckets?")])]
    with served(TASK, key=KEY) as server:
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=server.url))

        def ask() -> list[types.Part]:
            if stream:
                chunks = list(client.models.generate_content_stream(model="m", contents=history, config=config))
            else:
                chunks = [client.models.generate_content(model="m", contents=history, config=config)]
            parts = [part for chunk in chunks for part in (chunk.candidates or [])[0].content.parts or []]  # type: ignore[union-attr]
            assert chunks[-1].usage_metadata is not None
            return parts

        first = ask()
        calls = [part.function_call for part in first if part.function_call]
        assert calls[0].args == {"cmd": "aws s3 ls"}
        assert "".join(part.text or "" for part in first if not part.thought) == "I will look."
        history += [
            types.Content(role="model", parts=first),
            types.Content(role="user", parts=[types.Part.from_function_response(name="x", response={"output": "a"})]),
        ]
        assert "".join(part.text or "" for part in ask()) == "There are two buckets."
        client.close()


def test_a_wrong_key_is_refused_in_each_form() -> None:
    with served(TASK, key="another") as server:
        with of_anthropic(server) as client, pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])
        with of_openai(server) as other, pytest.raises(openai.AuthenticationError):
            other.responses.create(model="m", input="?")
        assert all(entry.saying is None for entry in server.received)


def test_errors_come_first_and_then_the_turn() -> None:
    with served(Script([Turn("At last.", errors=(529, 429))])) as server, of_anthropic(server) as client:
        answer = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])
        assert answer.content[0].type == "text"
        assert [entry.status for entry in server.received] == [529, 429, 200]


def test_a_stream_breaks_off_where_the_script_says() -> None:
    with served(Script([Turn("one two three", cut_after=4)])) as server, of_openai(server) as client:
        stream = client.with_options(max_retries=0).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], stream=True
        )
        got: list[str] = []
        with pytest.raises(openai.APIConnectionError):
            got += [chunk.choices[0].delta.content or "" for chunk in stream]
        assert server.received[0].sent.count(b"data:") == 4


def test_an_error_in_the_stream() -> None:
    with served(Script([Turn("one two", stream_error="too busy")])) as server, of_anthropic(server) as client:
        events = client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True
        )
        with pytest.raises(anthropic.APIStatusError, match="too busy"):
            list(events)
        assert b"message_stop" not in server.received[0].sent


def test_a_test_holds_the_stream_between_two_pieces() -> None:
    async def scenario() -> None:
        gate = asyncio.Semaphore(0)
        server = ModelServer(Script([Turn("one two")]))
        server.pace = gate.acquire
        async with server.run(), openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
            gate.release()
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "?"}], stream=True
            )
            assert (await anext(stream)).choices[0].delta.role == "assistant"
            gate.release()
            assert (await anext(stream)).choices[0].delta.content == "one "
            for _ in range(9):
                gate.release()
            assert [chunk.choices[0].delta.content async for chunk in stream] == ["two", None]

    asyncio.run(scenario())


def test_models_tokens_and_what_is_not_served() -> None:
    with served(TASK) as server, of_anthropic(server) as client, of_openai(server) as other:
        assert [model.id for model in client.models.list()] == ["scripted-1", "scripted-2"]
        assert [model.id for model in other.models.list()] == ["scripted-1", "scripted-2"]
        counted = client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "?"}])
        assert counted.input_tokens > 0
        with pytest.raises(openai.NotFoundError):
            other.embeddings.create(model="m", input="?")
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.list()


def test_without_tools_nothing_is_called() -> None:
    with served(TASK) as server, of_openai(server) as client:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a title"}])
        assert answer.choices[0].message.tool_calls is None


def test_as_a_program(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"turns": [{"text": "From a file.", "calls": [{"shell": "ls"}]}]}))
    command = [sys.executable, "-m", "demo.model", "--script", str(script), "--key-variable", "THE_KEY"]
    environment = os.environ | {"THE_KEY": KEY}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
                assert client.responses.create(model="m", input="?").output_text == "From a file."
        finally:
            process.terminate()
