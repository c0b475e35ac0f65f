"""Acts as Cursor: runs its hooks as `~/.cursor/hooks.json` says, and commands in a shell, all from one process.

This file's name is how a hook knows which of its processes is the agent.

The first argument is a JSON list of steps: `{"hook": EVENT, "told": PAYLOAD}`, `{"shell": COMMAND}`,
`{"write": PATH, "content": TEXT}`. Prints what each hook answered and each command printed, as a JSON list.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOOKS: dict[str, Any] = json.loads((Path.home() / ".cursor" / "hooks.json").read_text())["hooks"]


def hook(event: str, told: dict[str, Any]) -> list[Any]:
    """Run an event's hooks as Cursor does: one process each, the payload on standard input, JSON back."""
    answers = []
    for entry in HOOKS[event]:
        done = subprocess.run(
            entry["command"], shell=True, input=json.dumps(told), capture_output=True, text=True, check=False
        )
        answers.append([done.returncode, json.loads(done.stdout or "null"), done.stderr])
    return answers


def main() -> None:
    """All steps."""
    env = os.environ | {"AWS_PROFILE": "narrows-demo"}  # what docs/agents.md says to set for Cursor
    told: list[Any] = []
    for step in json.loads(sys.argv[1]):
        if "hook" in step:
            told.append(hook(step["hook"], step["told"]))
        elif "write" in step:
            Path(step["write"]).write_text(step["content"])
            told.append("written")
        else:
            done = subprocess.run(["sh", "-c", step["shell"]], env=env, capture_output=True, text=True, check=False)
            told.append([done.returncode, done.stdout, done.stderr])
    print(json.dumps(told))


main()
