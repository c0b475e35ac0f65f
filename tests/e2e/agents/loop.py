"""The loop of every coding agent, on the providers' own SDKs: ask, run what the model calls for, tell the outcome.

The first argument is a JSON list of conversations, those of one `api` held one after the other, those of several at
once: `api` (`messages`, `chat`, `responses`, `gemini`), `stream`, `model`, `prompt`. Optional: `aside`, a command that
the agent runs on its own account, without any tool call: before it asks, or with `during` while the first tool call
runs. Prints a JSON list of what each came to: `text`, or `error` with the SDK's own exception.

No SDK is told a key or an address: the environment has to have them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

warnings.simplefilter("ignore")

TOOLS: dict[str, Any] = {
    "bash": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    "write": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["file_path", "content"],
    },
}


@dataclass
class ToolCall:
    """One call of a tool, and what it came to."""

    id: str
    name: str
    given: dict[str, Any]
    output: str = ""
    failed: bool = False


class Talk(Protocol):
    """A conversation in one API's form."""

    def ask(self) -> tuple[str, list[ToolCall]]:
        """Send what there is to say; the answer's text and calls."""
        ...

    def tell(self, calls: list[ToolCall]) -> None:
        """Add the outcomes for the next request."""
        ...


class Messages:
    """Anthropic's Messages API."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import anthropic

        self._client = anthropic.Anthropic(max_retries=0)
        self._spec = spec
        self._said: list[Any] = [{"role": "user", "content": spec["prompt"]}]
        self._tools: list[Any] = [{"name": name, "input_schema": schema} for name, schema in TOOLS.items()]

    def ask(self) -> tuple[str, list[ToolCall]]:
        """See `Talk`."""
        sent: Any = {"model": self._spec["model"], "max_tokens": 500, "messages": self._said, "tools": self._tools}
        if self._spec["stream"]:
            with self._client.messages.stream(**sent) as stream:
                answer = stream.get_final_message()
        else:
            answer = self._client.messages.create(**sent)
        self._said.append({"role": "assistant", "content": [block.model_dump() for block in answer.content]})
        texts = [block.text for block in answer.content if block.type == "text"]
        calls = [ToolCall(one.id, one.name, dict(one.input)) for one in answer.content if one.type == "tool_use"]
        return "".join(texts), calls

    def tell(self, calls: list[ToolCall]) -> None:
        """See `Talk`."""
        results = [
            {"type": "tool_result", "tool_use_id": one.id, "content": one.output, "is_error": one.failed}
            for one in calls
        ]
        self._said.append({"role": "user", "content": results})


class Chat:
    """OpenAI's Chat Completions."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import openai

        self._client = openai.OpenAI(max_retries=0)
        self._spec = spec
        self._said: list[Any] = [{"role": "user", "content": spec["prompt"]}]
        self._tools: list[Any] = [
            {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in TOOLS.items()
        ]

    def ask(self) -> tuple[str, list[ToolCall]]:
        """See `Talk`."""
        sent: Any = {"model": self._spec["model"], "messages": self._said, "tools": self._tools}
        text, calls = self._streamed(sent) if self._spec["stream"] else self._whole(sent)
        called = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": json.dumps(one.given)}}
            for one in calls
        ]
        self._said.append({"role": "assistant", "content": text or None, **({"tool_calls": called} if called else {})})
        return text, calls

    def _whole(self, sent: Any) -> tuple[str, list[ToolCall]]:
        message = self._client.chat.completions.create(**sent).choices[0].message
        return message.content or "", [
            ToolCall(one.id, one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls or ()
        ]

    def _streamed(self, sent: Any) -> tuple[str, list[ToolCall]]:
        text = ""
        held: dict[int, list[str]] = {}
        for chunk in self._client.chat.completions.create(**sent, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for one in choice.delta.tool_calls or ():
                    parts = held.setdefault(one.index, ["", "", ""])
                    parts[0] += one.id or ""
                    parts[1] += one.function.name or ""
                    parts[2] += one.function.arguments or ""
        return text, [ToolCall(known, name, json.loads(given)) for known, name, given in held.values()]

    def tell(self, calls: list[ToolCall]) -> None:
        """See `Talk`."""
        self._said += [{"role": "tool", "tool_call_id": one.id, "content": one.output} for one in calls]


class Responses:
    """OpenAI's Responses: with `stream` it goes on from the answer before, else it sends all of it again."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import openai

        self._client = openai.OpenAI(max_retries=0)
        self._spec = spec
        self._input: list[Any] = [{"role": "user", "content": spec["prompt"]}]
        self._previous: str | None = None
        self._tools: list[Any] = [
            {"type": "function", "name": name, "parameters": schema, "strict": False} for name, schema in TOOLS.items()
        ]

    def ask(self) -> tuple[str, list[ToolCall]]:
        """See `Talk`."""
        sent: Any = {"model": self._spec["model"], "input": self._input, "tools": self._tools}
        if self._spec["stream"]:
            with self._client.responses.stream(**sent, previous_response_id=self._previous) as stream:
                for _ in stream:
                    pass
                answer = stream.get_final_response()
            self._previous, self._input = answer.id, []
        else:
            answer = self._client.responses.create(**sent)
            self._input += [item.model_dump(exclude_none=True) for item in answer.output]
        calls = [
            ToolCall(one.call_id, one.name, json.loads(one.arguments))
            for one in answer.output
            if one.type == "function_call"
        ]
        return answer.output_text, calls

    def tell(self, calls: list[ToolCall]) -> None:
        """See `Talk`."""
        self._input += [{"type": "function_call_output", "call_id": one.id, "output": one.output} for one in calls]


class Gemini:
    """Google's Gemini API."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from google import genai
        from google.genai import types

        self._types = types
        self._client = genai.Client()
        self._spec = spec
        self._said: list[Any] = [types.Content(role="user", parts=[types.Part(text=spec["prompt"])])]
        declared = [
            types.FunctionDeclaration(name=name, parameters_json_schema=schema) for name, schema in TOOLS.items()
        ]
        self._config = types.GenerateContentConfig(
            tools=[types.Tool(function_declarations=declared)],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )

    def ask(self) -> tuple[str, list[ToolCall]]:
        """See `Talk`."""
        sent: Any = {"model": self._spec["model"], "contents": self._said, "config": self._config}
        if self._spec["stream"]:
            answers: list[Any] = list(self._client.models.generate_content_stream(**sent))
        else:
            answers = [self._client.models.generate_content(**sent)]
        parts = [part for answer in answers for part in answer.candidates[0].content.parts or ()]
        self._said.append(self._types.Content(role="model", parts=parts))
        calls = [one.function_call for one in parts if one.function_call]
        return "".join(one.text or "" for one in parts), [ToolCall(one.id, one.name, dict(one.args)) for one in calls]

    def tell(self, calls: list[ToolCall]) -> None:
        """See `Talk`."""
        made = self._types.FunctionResponse
        parts = [
            self._types.Part(function_response=made(id=one.id, name=one.name, response={"output": one.output}))
            for one in calls
        ]
        self._said.append(self._types.Content(role="user", parts=parts))


APIS: dict[str, Any] = {"messages": Messages, "chat": Chat, "responses": Responses, "gemini": Gemini}


def run(calls: list[ToolCall], aside: str) -> None:
    """Run the tool calls of one answer, all at once, and what the agent does besides."""
    running = []
    for one in calls:
        if one.name == "write":
            Path(one.given["file_path"]).write_text(one.given["content"])
            one.output = "written"
            continue
        command = ["sh", "-c", one.given["command"]]
        running.append((one, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)))
    if aside:
        by_itself(aside)
    for one, process in running:
        one.output, _ = process.communicate()
        one.failed = process.returncode != 0


def by_itself(command: str) -> None:
    """A command of the agent's own."""
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)


def hold(spec: dict[str, Any]) -> dict[str, Any]:
    """One conversation to its end."""
    aside = spec.get("aside", "")
    if aside and not spec.get("during"):
        by_itself(aside)
        aside = ""
    talk: Talk = APIS[spec["api"]](spec)
    while True:
        text, calls = talk.ask()
        if not calls:
            return {"text": text}
        run(calls, aside)
        aside = ""
        talk.tell(calls)


def hold_all(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several, one after the other."""
    told = []
    for spec in specs:
        try:
            told.append(hold(spec))
        except Exception as error:
            told.append({"error": [type(error).__module__.partition(".")[0], type(error).__name__, str(error)]})
    return told


def main() -> None:
    """All conversations; what they came to in the order that they were given in."""
    specs = json.loads(sys.argv[1])
    lanes = {api: [spec for spec in specs if spec["api"] == api] for api in dict.fromkeys(one["api"] for one in specs)}
    with ThreadPoolExecutor(len(lanes)) as pool:
        told = dict(zip(lanes, map(iter, pool.map(hold_all, lanes.values())), strict=True))
    print(json.dumps([next(told[spec["api"]]) for spec in specs]))


main()
