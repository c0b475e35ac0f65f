"""Stories that a scripted model tells to agents, and what `narrows why` has to say of them afterwards.

A story is a list of turns, chosen by the model's name in the request: every API has that, so that one model serves
many agents at once. Everything is looked at as a user does: commands, their `--json`, the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.model.script import Asked
from tests.gateway import Gateway, Ran, gateway
from tests.kit.model import ModelServer, Script, Turn, served

KEY = "sk-real-key-of-the-tests-0123456789"
"""The model's key, which only the gateway has."""

PROVIDERS = {"claude": "anthropic", "gpt": "openai", "gem": "gemini"}
"""The connections to the scripted model, by name."""


class Stories:
    """Turns by the name of the model that is asked. Whoever asks another model is told `Done.`"""

    def __init__(self) -> None:
        self._told: dict[str, Sequence[Turn]] = {}

    def add(self, model: str, *turns: Turn) -> str:
        """Tell this to whoever asks `model`; returns that name."""
        self._told[model] = turns
        return model

    def turn(self, asked: Asked) -> Turn:
        """What a `Script` does."""
        turns = self._told.get(asked.model, ())
        return turns[asked.turn] if asked.turn < len(turns) else Turn("Done.")


@dataclass(slots=True)
class Stage:
    """A gateway with AWS and the model behind it."""

    narrows: Gateway
    model: ModelServer
    stories: Stories

    def asked(self, model: str) -> int:
        """How many requests came for a model."""
        return sum(1 for one in self.model.received if one.asked is not None and one.asked.model == model)


@contextmanager
def stage(home: Path, moto: str, *connections: str, **env: str) -> Iterator[Stage]:
    """A gateway with the connection `demo` to `moto`, and those of `PROVIDERS` that are named."""
    stories = Stories()
    with served(Script(stories.turn), key=KEY) as model, gateway(home, UPSTREAM_MODEL_KEY=KEY, **env) as found:
        found.connect("demo", moto)
        for name in connections:
            add_model(found, name, PROVIDERS[name], model.url)
        yield Stage(found, model, stories)


def add_model(narrows: Gateway, name: str, provider: str, url: str, *options: str) -> None:
    """`narrows connection add llm`."""
    narrows.narrows(
        "connection", "add", "llm", name, "--provider", provider, "--endpoint", url, "--allow-private",
        "--api-key-env", "UPSTREAM_MODEL_KEY", *options,
    )  # fmt: skip


def run(
    narrows: Gateway, command: Sequence[str], *options: str, env: Mapping[str, str] | None = None, seconds: float = 100
) -> Ran:
    """`narrows run`, as it is and several at once: what it told the command is not looked at."""
    done = narrows.narrows("run", *options, "--", *command, check=False, env=env, seconds=seconds)
    found = re.search(r"^narrows: session ([0-9a-f-]{36})", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, found[1], {})


class Why:
    """The answer to why something happened: what `narrows why ID --json` prints, as the API gives it."""

    def __init__(self, narrows: Gateway, node: str, direction: str = "up") -> None:
        exchange, _, number = node.partition("#")
        query = {"direction": direction, **({"item": number} if number else {})}
        self.found: dict[str, Any] = narrows.get(f"/exchanges/{exchange}/why", **query)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """From the effect up."""
        return list(self.found["steps"])

    @property
    def evidence(self) -> list[str]:
        """Of each link, from the effect up."""
        return [step["link"]["evidence"] for step in self.steps if step["link"]]

    @property
    def kinds(self) -> list[str]:
        """What each step is: an item's type, `process`, or the exchange's kind."""
        return [_kind(step) for step in self.steps]

    @property
    def command(self) -> str:
        """The command of the nearest tool call."""
        for step in self.steps:
            item = step["item"] or {}
            if item.get("type") in ("tool_call", "command"):
                given = item.get("data") or {}
                return str(given.get("command") or given.get("cmd") or item.get("text"))
        return ""

    @property
    def call_id(self) -> str:
        """The id of the nearest tool call."""
        return next((str(s["item"]["id"]) for s in self.steps if (s["item"] or {}).get("type") == "tool_call"), "")

    def reaches(self, prompt: str, command: str | None = None) -> None:
        """The whole claim: call, process, tool call, prompt; the first link proven, none of the others inferred."""
        told = json.dumps(self.found, indent=1)
        assert self.found["reached"], told
        assert self.evidence[0] == "proven" and set(self.evidence) <= {"proven", "reported"}, told
        assert self.found["weakest"] in ("proven", "reported"), told
        assert self.kinds[:2] == ["aws.call", "process"], told
        assert self.steps[0]["link"]["rule"] == "lease", told
        assert "tool_call" in self.kinds[2:] or "command" in self.kinds[2:], told
        for step, above in zip(self.steps, self.steps[1:], strict=False):
            assert step["link"]["cause"] == above["node"], told
            assert step["started_ns"] >= above["started_ns"], told
        assert self.kinds[-1] == "prompt" and self.steps[-1]["item"]["text"].strip() == prompt, told
        if command is not None:
            assert self.command == command, told


def _kind(step: dict[str, Any]) -> str:
    if step["item"] is not None:
        return str(step["item"]["type"])
    return "process" if step["operation"] == "lease.issued" else str(step["kind"])


def aws(narrows: Gateway, session: str, operation: str, count: int = 1) -> list[dict[str, Any]]:
    """The session's AWS calls of an operation, in order."""
    rows = narrows.calls(session, count, f"kind:aws.call operation:{operation}")
    assert len(rows) == count, rows
    return rows


def settled(stage: Stage, ran: Ran, model: str, *more: str, least: int = 0) -> None:
    """Wait until everything that the session asked of these models is in the index, and `least` exchanges in all."""
    asked = sum(stage.asked(name) for name in (model, *more))
    stage.narrows.calls(ran.session, asked, "kind:llm.message")
    stage.narrows.calls(ran.session, max(least, asked))


def caused(narrows: Gateway, prompt: str) -> set[str]:
    """The exchanges that came of a prompt, by `narrows why --down`."""
    return {str(node["exchange"]) for node in Why(narrows, prompt, "down").found["nodes"]}


def timeline(narrows: Gateway, session: str) -> list[tuple[str, str]]:
    """(type, text) of each line of `narrows show SESSION`, in order, without what is told again."""
    found = narrows.get(f"/sessions/{session}/timeline", limit=500)
    assert not found["next"]
    return [(entry["type"], _text(entry)) for entry in found["items"] if not entry["same_as"]]


def _text(entry: dict[str, Any]) -> str:
    item = entry["item"]
    return str(entry.get("operation", "")) if item is None else str(item.get("text", ""))


def in_order(told: list[tuple[str, str]], *wanted: tuple[str, str]) -> None:
    """Each of `wanted` is there, one after the other."""
    at = -1
    for kind, text in wanted:
        at = next((n for n in range(at + 1, len(told)) if told[n][0] == kind and text in told[n][1]), -2)
        assert at >= 0, f"{(kind, text)} is not where it should be in {told}"
