"""A small agent on the anthropic SDK: asks, runs what it is told to in a shell, tells the outcome, until it is done.

Arguments: the prompt; `hooks` to report each tool call as Claude Code's hooks do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import anthropic

BASH: Any = {
    "name": "bash",
    "description": "Runs a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
SESSION = "3b0f5a0e-7a58-4a3b-9c63-5a2f6f1d0b77"


def report(event: str, **more: Any) -> None:
    """One hook's report, as the agent's own hook would make it."""
    if "hooks" in sys.argv[2:]:
        told = {"session_id": SESSION, "prompt_id": "turn-1", "hook_event_name": event, "cwd": os.getcwd(), **more}
        subprocess.run(["narrows", "hook", "claude-code"], input=json.dumps(told), text=True, check=True)


def main() -> None:
    """The loop of every agent."""
    prompt = sys.argv[1]
    report("UserPromptSubmit", prompt=prompt)
    client = anthropic.Anthropic(default_headers={"X-Claude-Code-Session-Id": SESSION}, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": prompt}]
    while True:
        answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=500, tools=[BASH], messages=messages)
        messages.append({"role": "assistant", "content": [block.model_dump() for block in answer.content]})
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            break
        results = []
        for call in calls:
            given: Any = call.input
            report("PreToolUse", tool_name="Bash", tool_input=given, tool_use_id=call.id)
            done = subprocess.run(["bash", "-c", given["command"]], capture_output=True, text=True, check=False)
            report("PostToolUse", tool_name="Bash", tool_input=given, tool_use_id=call.id,
                   tool_response={"stdout": done.stdout, "stderr": done.stderr})  # fmt: skip
            results.append({"type": "tool_result", "tool_use_id": call.id, "content": done.stdout + done.stderr,
                            "is_error": done.returncode != 0})  # fmt: skip
        messages.append({"role": "user", "content": results})
    print(*(block.text for block in answer.content if block.type == "text"))


main()
