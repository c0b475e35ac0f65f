"""Cursor: what its hooks tell, in a session that they opened themselves, and AWS calls of the commands that it runs.

The events have the documented shape (tests/fixtures/hooks/cursor); the hooks are the processes that `narrows connect
cursor` wrote into its settings, and AWS goes by the profile that it wrote.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import Gateway, gateway
from tests.kit.stories import Why, aws, caused, in_order, timeline

pytestmark = pytest.mark.slow

EDITOR = str(Path(__file__).parent / "agents" / "cursor.py")
FIXTURES = Path(__file__).parents[1] / "fixtures" / "hooks" / "cursor"
PROMPT, SECOND = "Make a bucket for the shop's media", "Now put the handler into it"
MAKE = "aws s3 mb s3://shop-media"
CODE = "def handler(event, context):\n    return {'shop': 'open'}\n"


@pytest.fixture(scope="module")
def narrows(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway to which Cursor is connected, in a home of its own."""
    with gateway(tmp_path_factory.mktemp("cursor")) as found:
        found.connect("demo", moto)
        found.narrows("connect", "cursor", "--connection", "demo", "--yes")
        yield found


class Conversation:
    """Steps of the editor in one conversation; a new generation with each prompt."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: list[dict[str, Any]] = []
        self._turn = 0

    def hook(self, event: str, **more: Any) -> None:
        """An event as the fixture has it, with these fields in place of its own."""
        told = json.loads((FIXTURES / f"{event}.json").read_text())
        told |= {"conversation_id": self.name, "generation_id": f"{self.name}-{self._turn}", **more}
        if "session_id" in told:
            told["session_id"] = self.name
        self.steps.append({"hook": event, "told": told})

    def prompt(self, text: str) -> None:
        """The person asks."""
        self._turn += 1
        self.hook("beforeSubmitPrompt", prompt=text, attachments=[])

    def shell(self, command: str, tool: str) -> None:
        """A command of the agent's, with all that Cursor tells of it."""
        given = {"command": command, "working_directory": "/"}
        self.hook("preToolUse", tool_name="Shell", tool_input=given, tool_use_id=tool)
        self.hook("beforeShellExecution", command=command)
        self.steps.append({"shell": command})
        self.hook("afterShellExecution", command=command, output="")
        self.hook("postToolUse", tool_name="Shell", tool_input=given, tool_use_id=tool, tool_output="")

    def edit(self, path: Path, text: str) -> None:
        """A file that the agent writes."""
        self.steps.append({"write": str(path), "content": text})
        self.hook("afterFileEdit", file_path=str(path), edits=[{"old_string": "", "new_string": text}])


def act(narrows: Gateway, talk: Conversation) -> None:
    """Run the editor; every hook has to allow, every command to work."""
    done = subprocess.run(
        [sys.executable, EDITOR, json.dumps(talk.steps)], env=narrows.environ(), capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for step, told in zip(talk.steps, json.loads(done.stdout), strict=True):
        if "shell" in step:
            assert told[0] == 0, (step, told)
        elif "hook" in step:
            ((code, answer, err),) = told
            assert code == 0 and err == "", (step["hook"], told)
            assert isinstance(answer, dict) and answer.get("permission", "allow") == "allow" and answer.get(
                "continue", True), (step["hook"], told)  # fmt: skip


def test_why_leads_to_the_prompt_that_the_hook_told(narrows: Gateway, tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    put = f"aws s3 cp {handler} s3://shop-media/handler.py --only-show-errors"
    talk = Conversation("7f6b1a52-conversation")
    talk.hook("sessionStart")
    talk.prompt(PROMPT)
    talk.shell(MAKE, "tool-make")
    talk.hook("afterAgentResponse", text="The bucket is there.")
    talk.hook("stop")
    talk.prompt(SECOND)
    talk.edit(handler, CODE)
    talk.shell(put, "tool-put")
    talk.hook("afterAgentResponse", text="The handler is in the bucket.")
    talk.hook("stop")
    talk.hook("sessionEnd")
    act(narrows, talk)

    (session,) = {row["session"] for row in narrows.rows("search", "service:cursor")}
    hooks = sum(1 for step in talk.steps if "hook" in step)
    rows = narrows.calls(session, hooks + 4)
    assert {row["agent"] for row in rows} == {"cursor"}
    made, stored = aws(narrows, session, "CreateBucket")[0], aws(narrows, session, "PutObject")[0]
    for call, prompt, command in ((made, PROMPT, MAKE), (stored, SECOND, put)):
        why = Why(narrows, call["id"])
        why.reaches(prompt, command)
        top = why.steps[-1]
        assert (top["kind"], top["operation"], top["agent"]) == ("agent.event", "beforeSubmitPrompt", "cursor")
        assert top["agent_version"] == "3.21.16" and top["model"] == "claude-4.5-sonnet"
        assert call["id"] in caused(narrows, top["node"])
    assert stored["id"] not in caused(narrows, Why(narrows, made["id"]).steps[-1]["node"])

    (same,) = Why(narrows, stored["id"]).steps[0]["same_bytes"][:1]
    assert same["evidence"] == "proven"
    exchange, _, number = same["cause"].partition("#")
    edited = narrows.get(f"/exchanges/{exchange}")
    assert edited["operation"] == "afterFileEdit" and edited["items"][int(number or 0)]["text"] == CODE
    in_order(
        timeline(narrows, session),
        ("prompt", PROMPT), ("tool_call", MAKE), ("process", ""), ("call", "CreateBucket"),
        ("answer", "The bucket is there."), ("prompt", SECOND), ("file_edit", ""), ("tool_call", put),
        ("call", "PutObject"), ("answer", "The handler is in the bucket."),
    )  # fmt: skip
    state = narrows.get(f"/sessions/{session}")
    assert state["state"] == "closed" and state["agent"] == "cursor"
    printed = narrows.narrows("why", made["id"]).stdout
    assert "cursor 3.21.16" in printed and PROMPT in printed


def test_a_command_that_no_hook_told_of_is_not_claimed(narrows: Gateway) -> None:
    """A terminal of the person's in the same editor: the process is proven, and no prompt is named as its cause."""
    talk = Conversation("a-terminal")
    talk.prompt("Explain this file")
    talk.hook("afterAgentResponse", text="It is a handler.")
    talk.steps.append({"shell": "aws sns list-topics"})
    talk.hook("sessionEnd")
    act(narrows, talk)
    row = next(iter(narrows.rows("search", "operation:ListTopics AND agent:cursor")))
    why = Why(narrows, row["id"])
    assert why.evidence == ["proven"] and why.kinds == ["aws.call", "process"] and not why.found["reached"]
