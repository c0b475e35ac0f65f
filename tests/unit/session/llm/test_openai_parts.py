"""What OpenAI's APIs share: usage in both dialects, tools' inputs, files in contents."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.core.values import Described
from narrows.session.llm.openai_parts import arguments, codex, slim, text_of, tool_names, usage


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (None, None, None, None, None)),
        ({"prompt_tokens": 10, "completion_tokens": 2}, (10, 2, None, None, None)),
        ({"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}, (6, 2, 4, None, None)),
        (
            {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3}},
            (3, None, 4, 3, None),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 8}, (2, 2, 8, None, None)),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}, (0, None, 4, None, None)),
        ({"prompt_tokens": "10", "completion_tokens": -1, "completion_tokens_details": []}, (None,) * 5),
    ],
)
def test_usage(given: Any, expected: tuple[int | None, ...]) -> None:
    assert tuple(usage(given).values()) == expected


@pytest.mark.parametrize(
    ("raw", "expected"), [('{"a":1}', {"a": 1}), ("", {}), ("{", "{"), ("[1]", [1]), ({"a": 1}, {"a": 1}), (None, None)]
)
def test_arguments(raw: Any, expected: Any) -> None:
    assert arguments(raw) == expected


def test_files_in_contents_become_their_digests() -> None:
    part = {"type": "input_file", "file_data": "data:text/plain;base64," + "QUJD" * 100, "name": "a"}
    assert slim([part])[0]["file_data"]["bytes"] == 300
    assert slim({"text": "x" * 1000}) == {"text": "x" * 1000}
    deep: Any = {}
    for _ in range(500):
        deep = {"x": deep}
    assert slim(deep)


def test_texts_of_contents() -> None:
    assert text_of("a") == "a"
    assert text_of([{"text": "a"}, {"refusal": "b"}, {"text": 3}, None, {"type": "image"}]) == "a\nb"
    assert text_of({"text": "a"}) == ""


def test_codex_names_its_session_and_turn() -> None:
    out = Described()
    codex({"session_id": "s", "thread_id": "t", "turn_id": "", "x-codex-turn-metadata": '{"turn_id": "u"}'}, out)
    assert out.refs == [("agent_session", "s"), ("agent_session", "t"), ("turn", "u")]
    codex({"x-codex-turn-metadata": "{"}, out)
    codex("nothing", out)
    assert len(out.refs) == 3


def test_names_of_tools() -> None:
    assert tool_names([{"type": "web_search"}, {"type": "mcp", "server_label": "jira"}, {"name": 1}, None, {}]) == [
        "web_search", "jira",
    ]  # fmt: skip
