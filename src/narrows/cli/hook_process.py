"""Which of a hook's ancestors is the agent: the process that its commands share with its hooks, and nothing above."""

from __future__ import annotations

from narrows.cli.process import ancestors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_WORDS = {
    "cursor": ("cursor",),
    "claude-code": ("claude",),
    "codex": ("codex",),
    "gemini": ("gemini",),
    "copilot": ("copilot",),
    "opencode": ("opencode",),
}
"""How the names of each agent's programs begin."""
_PACKAGES = {
    "claude-code": "node_modules/@anthropic-ai/claude-code/",
    "codex": "node_modules/@openai/codex/",
    "gemini": "node_modules/@google/gemini-cli/",
    "copilot": "node_modules/@github/copilot/",
    "opencode": "node_modules/opencode-ai/",
}
"""Where the agents' scripts lie that an interpreter runs under a name of its own (`index.js`)."""
_BETWEEN = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "env", "timeout", "nice", "nohup"})
"""Programs that stand between an agent and its hook."""


def up_to_agent(agent: str, tree: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The part of `tree` (nearest first) from the hook's caller up to the agent, without process 1.

    The agent is the nearest process with its name, with those of the same name right above it (a wrapper's child, an
    editor's helper). An agent that is not known by name: the nearest process that is neither shell nor wrapper. Where
    one that is known by name is not among them, only the caller: another program's processes say nothing of it.
    """
    tree = [one for one in tree if int(one.get("pid", 0)) > 1]
    for number, one in enumerate(tree):
        if not _is(agent, one):
            continue
        while number + 1 < len(tree) and _is(agent, tree[number + 1]):
            number += 1
        return list(tree[: number + 1])
    if agent not in _WORDS:
        for number, one in enumerate(tree):
            if _name(one) not in _BETWEEN:
                return list(tree[: number + 1])
    return list(tree[:1])


def _is(agent: str, one: Mapping[str, Any]) -> bool:
    argv = [str(part) for part in list(one.get("argv") or ())[:3]]
    words = _WORDS.get(agent, (agent,))
    for path in (str(one.get("exe") or ""), *argv[:2]):
        if path.rpartition("/")[2].lower().startswith(words):
            return True
    package = _PACKAGES.get(agent)
    return package is not None and any(package in part for part in argv[1:])


def _name(one: Mapping[str, Any]) -> str:
    argv = one.get("argv") or ()
    name = str(argv[0] if argv else one.get("exe") or "").rpartition("/")[2].lstrip("-").lower()
    return name.rstrip("0123456789.")


def alive(pid: int, start: int) -> bool:
    """Whether that very process still runs. Where the system does not tell: yes."""
    found = ancestors(pid)
    return found[0]["start"] == start if found else not ancestors()
