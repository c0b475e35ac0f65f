"""What the scripted model says: turns, chosen by how often the model has spoken in the conversation that came in.

As JSON:

    {"turns": [
        {"text": "I will look.", "calls": [{"shell": "aws s3 ls"}]},
        {"text": "One more.", "thinking": "...", "calls": [{"name": "write", "input": {"path": "a", "content": "b"}}]},
        {"text": "Done."}
    ]}

Optional in a turn: `errors` (statuses that are answered first, one a request, before the turn itself), `cut_after`
(the connection breaks after that many events of a stream, or bytes of another answer), `stream_error` (an error event
in place of the end), `stop` (the stop reason in the API's own word), `refusal` (text). `{"shell": "..."}` calls
whatever the agent that asks names its shell tool, in that tool's own form; a turn's calls are left out for a request
that offers no tools (agents ask for titles like that).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_SHELLS = (
    "bash",
    "shell",
    "exec_command",
    "run_shell_command",
    "local_shell",
    "shell_command",
    "run_command",
    "terminal",
)
_PIECES = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True)
class Tool:
    """A tool that a request offers. `kind` is the API's own type of it (`function`, `custom`, `local_shell`)."""

    name: str
    schema: dict[str, Any] = field(default_factory=dict)
    kind: str = "function"


@dataclass(frozen=True)
class Call:
    """A tool call to make. An empty `id` gets one. `shell` is a command for the agent's own shell tool."""

    name: str = ""
    input: Any = None
    id: str = ""
    shell: str = ""

    def resolved(self, tools: Sequence[Tool]) -> tuple[Tool, Any]:
        """The offered tool to call and its input. A shell command goes in the form of the tool that is offered."""
        if not self.shell:
            named = [tool for tool in tools if tool.name == self.name]
            return (named[0] if named else Tool(self.name)), ({} if self.input is None else self.input)
        offered = [tool for tool in tools if tool.name.lower() in _SHELLS or tool.kind in ("local_shell", "shell")]
        tool = min(offered, key=lambda tool: _rank(tool.name)) if offered else Tool("bash")
        return tool, _shell_input(tool, self.shell)


def _rank(name: str) -> int:
    return _SHELLS.index(name.lower()) if name.lower() in _SHELLS else len(_SHELLS)


def _shell_input(tool: Tool, command: str) -> dict[str, Any]:
    if tool.kind in ("local_shell", "shell"):
        return {"command": command}
    fields = tool.schema.get("properties") or {}
    name = next((name for name in ("command", "cmd", "script", "input") if name in fields), "command")
    shape = fields.get(name) or {}
    given: dict[str, Any] = {name: ["bash", "-lc", command] if shape.get("type") == "array" else command}
    if "description" in (tool.schema.get("required") or ()):
        given["description"] = "Run the command of the script"
    return given


@dataclass(frozen=True)
class Turn:
    """What the model says once."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thinking: str = ""
    refusal: str = ""
    stop: str = ""
    errors: tuple[int, ...] = ()
    cut_after: int | None = None
    stream_error: str = ""

    def pieces(self) -> list[str]:
        """The text in the pieces that a stream sends, a word each."""
        return _PIECES.findall(self.text)


@dataclass(frozen=True)
class Asked:
    """What a request carries, in any of the APIs. `turn` counts how often the model has spoken in it before."""

    api: str
    model: str
    stream: bool
    turn: int
    tools: tuple[Tool, ...] = ()
    body: Any = None


class Script:
    """Turns in their order, or a function from `Asked` to a turn. After the last turn the model says `Done.`"""

    def __init__(self, turns: Sequence[Turn] | Callable[[Asked], Turn]) -> None:
        self._turns = turns

    @classmethod
    def from_json(cls, data: Any) -> Script:
        """Read the form above. Raises ValueError, KeyError or TypeError for another."""
        turns = []
        for turn in data["turns"]:
            known = dict(turn)
            known["calls"] = tuple(Call(**call) for call in known.get("calls", ()))
            known["errors"] = tuple(known.get("errors", ()))
            turns.append(Turn(**known))
        return cls(turns)

    def turn(self, asked: Asked) -> Turn:
        """What to say to this request."""
        if callable(self._turns):
            return self._turns(asked)
        return self._turns[asked.turn] if asked.turn < len(self._turns) else Turn("Done.")


def runs(made_by_model: Sequence[bool]) -> int:
    """How many separate runs of model-made messages there are: that often the model has spoken."""
    return sum(1 for at, ours in enumerate(made_by_model) if ours and not (at and made_by_model[at - 1]))
