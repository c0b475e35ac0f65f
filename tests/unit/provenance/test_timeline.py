"""A timeline has each thing once, however many reports there are of it."""

from __future__ import annotations

from narrows.provenance.model import Exchange
from narrows.provenance.timeline import Entry, timeline

from .conversations import SESSION, asked, call, claude_code, cursor, hook, model, said


def shown(exchanges: list[Exchange]) -> list[Entry]:
    return [entry for entry in timeline(exchanges) if not entry.same_as]


def test_claude_code_on_the_wire_and_by_hooks() -> None:
    kinds = [entry.type for entry in shown(claude_code()) if entry.type not in ("system", "context", "thinking")]
    assert kinds == ["prompt", "answer", "tool_call", "process", "call", "tool_result", "tool_call", "process", "call",
                     "call", "tool_result", "answer"]  # fmt: skip


def test_cursors_two_reports_of_a_shell_call_are_one() -> None:
    assert [entry.type for entry in shown(cursor())].count("command") == 0
    tool = next(entry for entry in timeline(cursor()) if entry.type == "tool_call")
    assert tool.result == "ok"


def test_two_equal_prompts_of_one_kind_are_two() -> None:
    talk = [
        hook("h1", 0, "claude-code", "UserPromptSubmit", asked("prompt", "continue"), refs=[SESSION]),
        model("m1", 1, asked("prompt", "continue"), said("answer", "a"), refs=[SESSION]),
        hook("h2", 3, "claude-code", "UserPromptSubmit", asked("prompt", "continue"), refs=[SESSION]),
        model("m2", 4, asked("prompt", "continue"), said("answer", "a"), refs=[SESSION]),
    ]
    assert [entry.node for entry in shown(talk)] == ["h1#0", "m1#1", "h2#0", "m2#1"]


def test_a_result_that_is_an_error_to_any_is_one() -> None:
    talk = [
        model("m", 0, said("tool_call", "", "t", "Bash")),
        hook("h", 2, "claude-code", "PostToolUse", asked("tool_result", "", "t")),
        model("n", 3, asked("tool_result", "denied", "t", error=True)),
    ]
    assert timeline(talk)[0].result == "error"


def test_answers_stand_at_their_end_and_calls_at_their_start() -> None:
    talk = [model("m", 0, asked("prompt", "p"), said("answer", "a")), call("c", 0.5, "GetObject")]
    assert [entry.node for entry in timeline(talk)] == ["m#0", "c", "m#1"]


def test_a_conversation_on_one_websocket_stands_in_its_order() -> None:
    """Only its last answer is known to come at its end."""
    said_there = [asked("prompt", "p"), said("tool_call", "", "t1", "exec_command", {"cmd": "aws s3 ls"}),
                  asked("tool_result", "ok", "t1"), said("answer", "done")]  # fmt: skip
    talk = [model("m", 0, *said_there), call("c", 0.5, "ListBuckets")]
    assert [entry.node for entry in timeline(talk)] == ["m#0", "m#1", "m#2", "c", "m#3"]
