"""Events of a Responses stream: a cut anywhere leaves what came, and the end says it all."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.session.llm.openai_stream import gathered


def deltas(kind: str, *texts: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": f"response.{kind}.delta", "output_index": 0, "delta": text, **more} for text in texts]


def added(**item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


@pytest.mark.parametrize(
    ("events", "item"),
    [
        (
            [added(type="message", id="m", content=[]), *deltas("output_text", "I ", "will", content_index=0)],
            {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "I will"}]},
        ),
        (
            [
                added(type="function_call", call_id="c", name="sh", arguments=""),
                *deltas("function_call_arguments", '{"a"', ":1"),
            ],
            {"type": "function_call", "call_id": "c", "name": "sh", "arguments": '{"a":1'},
        ),
        (
            [
                added(type="custom_tool_call", call_id="c", name="sh", input=""),
                *deltas("custom_tool_call_input", "l", "s"),
            ],
            {"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": "ls"},
        ),
        (
            [
                added(type="shell_call", call_id="c"),
                *deltas("shell_call_command", "cd", command_index=0),
                *deltas("shell_call_command", "l", "s", command_index=1),
            ],
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["cd", "ls"]}},
        ),
        (
            [
                *deltas("reasoning_summary_text", "a", summary_index=0),
                *deltas("reasoning_summary_text", "b", summary_index=1),
            ],
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
            },
        ),
        (
            [
                *deltas("output_text", "lost", content_index=0),
                {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "found"},
            ],
            {"type": "message", "content": [{"type": "output_text", "text": "found"}]},
        ),
        (
            [*deltas("refusal", "N", "o", content_index=0)],
            {"type": "message", "content": [{"type": "refusal", "refusal": "No"}]},
        ),
    ],
)
def test_a_cut_stream_leaves_what_came(events: list[Any], item: dict[str, Any]) -> None:
    response, ended = gathered(
        [{"type": "response.created", "response": {"id": "r", "status": "in_progress"}}, *events]
    )
    assert response["output"] == [item]
    assert response["id"] == "r"
    assert not ended


def test_what_is_done_counts_more_than_deltas() -> None:
    done = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": []}}
    response, _ = gathered([*deltas("output_text", "x", content_index=0), done])
    assert response["output"] == [done["item"]]


def test_the_end_counts_more_than_all() -> None:
    end = {"type": "response.completed", "response": {"output": [{"type": "message"}], "status": "completed"}}
    response, ended = gathered([*deltas("output_text", "x", content_index=0), end])
    assert response["output"] == [{"type": "message"}]
    assert ended


def test_hostile_indices_are_passed_over() -> None:
    indices: list[Any] = [[], {}, "0", -1, 1.5, True, None, 1 << 60]
    events: list[Any] = [{"type": "response.output_item.added", "output_index": index, "item": {}} for index in indices]
    events += [None, 3, "x", [], {"type": {}}, {"type": "error", "error": []}]
    assert gathered(events)[0].get("output") is None
