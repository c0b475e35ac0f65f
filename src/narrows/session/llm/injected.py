"""Tells what a person or program asked from what the agent put in by itself.

Agents send both in messages of the role `user`: the working directory, the project's instructions, reminders. They
mark theirs with tags of their own, and only tags that are known to be an agent's count here: people put tags into their
prompts, too. Linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import Final

from narrows.core.values import Item

TAGS: Final = frozenset(
    (
        "apps_instructions", "collaboration_mode", "environment_context", "environment_details", "model_switch",
        "permissions instructions", "personality_spec", "plugins_instructions", "session_context", "skill",
        "skills_instructions", "subagent_notification", "system-reminder", "turn_aborted", "user_instructions",
        "user_shell_command",
    )
)  # fmt: skip
"""Codex, Claude Code (`system-reminder`), Gemini CLI (`session_context`), Cline and its kin (`environment_details`)."""

_OPENING = re.compile("<(" + "|".join(map(re.escape, sorted(TAGS))) + r")(?:\s[^<>]{0,500})?>")
_PROJECT = re.compile(r"# AGENTS\.md instructions for [^\n]*\n+<INSTRUCTIONS>")
_PROJECT_TAG: Final = "AGENTS.md"
_PROJECT_END: Final = "</INSTRUCTIONS>"

_ERRANDS: Final = ("You are a title generator",)
"""How the system text begins of calls that an agent makes for itself. opencode makes one at each session's start."""


def errand(items: list[Item]) -> None:
    """Of a call that the agent makes for itself, nobody asked anything: its prompts become context (`errand`)."""
    if any(item.type == "system" and item.text.startswith(_ERRANDS) for item in items):
        for item in items:
            if item.type == "prompt":
                item.type, item.name = "context", "errand"


def split(text: str) -> list[tuple[str, str]]:
    """The parts of a text in their order: (the agent's tag or an empty string, the part). White space alone is none."""
    parts: list[tuple[str, str]] = []
    endless: set[str] = set()
    start = at = 0
    while (opening := _next(text, at)) is not None:
        tag, end = (opening[1], f"</{opening[1]}>") if opening.re is _OPENING else (_PROJECT_TAG, _PROJECT_END)
        stop = -1 if end in endless else text.find(end, opening.end())
        if stop < 0:
            endless.add(end)
            at = opening.end()
            continue
        parts += [("", text[start : opening.start()]), (tag, text[opening.start() : stop + len(end)])]
        start = at = stop + len(end)
    parts.append(("", text[start:]))
    return [(tag, part.strip() if len(parts) > 1 else part) for tag, part in parts if part.strip()]


def _next(text: str, at: int) -> re.Match[str] | None:
    if at == 0 and (project := _PROJECT.match(text, len(text) - len(text.lstrip()))) is not None:
        return project
    return _OPENING.search(text, at)
