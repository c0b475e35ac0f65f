"""What an agent puts into a user's message by itself is told from what was asked."""

from __future__ import annotations

import pytest

from narrows.session.llm.injected import split

REMINDER = "<system-reminder>\nToday is Tuesday.\n</system-reminder>"
PROJECT = "# AGENTS.md instructions for /home/dev/shop\n\n<INSTRUCTIONS>\nUse tabs.\n</INSTRUCTIONS>"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("which buckets?", [("", "which buckets?")]),
        ("  as it is\n", [("", "  as it is\n")]),
        (REMINDER, [("system-reminder", REMINDER)]),
        (f"first\n{REMINDER}\nthen", [("", "first"), ("system-reminder", REMINDER), ("", "then")]),
        (PROJECT, [("AGENTS.md", PROJECT)]),
        (f"{PROJECT}\n\nnow", [("AGENTS.md", PROJECT), ("", "now")]),
        (f"see {PROJECT}", [("", f"see {PROJECT}")]),
        (
            '<environment_context cwd="/">x</environment_context>',
            [("environment_context", '<environment_context cwd="/">x</environment_context>')],
        ),
        ("<task>mine</task>", [("", "<task>mine</task>")]),
        ("what does <system-reminder> do?", [("", "what does <system-reminder> do?")]),
        (" \n ", []),
    ],
)
def test_parts(text: str, parts: list[tuple[str, str]]) -> None:
    assert split(text) == parts


def test_many_openings_without_an_end_take_no_time() -> None:
    text = "<skill>" * 200_000
    assert split(text) == [("", text)]
