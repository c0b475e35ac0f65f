"""Responses: every kind of item, what is new in a history that is sent again, streams whole and cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.kit.modelcalls import call, short, sse

from narrows.core.values import Described, Item
from narrows.session.llm.describe import LlmDescriber

THREAD, TURN = "01a20f51-2fc5-7890-9f2d-2611076b361b", "01a20f51-2fda-72b1-a947-b89215b1008b"
METADATA = {
    "installation_id": "i",
    "session_id": THREAD,
    "thread_id": THREAD,
    "turn_id": TURN,
    "x-codex-turn-metadata": json.dumps({"session_id": THREAD, "turn_id": TURN, "sandbox_mode": "none"}),
}
CONTEXT = "<environment_context>\n  <cwd>/work</cwd>\n  <shell>bash</shell>\n</environment_context>"
FIRST: list[Any] = [
    {
        "type": "message",
        "id": "msg_0",
        "role": "developer",
        "content": [{"type": "input_text", "text": "You are Codex."}],
    },
    {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": CONTEXT}]},
    {"type": "message", "id": "msg_2", "role": "user", "content": [{"type": "input_text", "text": "which buckets?"}]},
]
CODEX: dict[str, Any] = {
    "model": "gpt-5",
    "stream": True,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "input": FIRST,
    "prompt_cache_key": THREAD,
    "client_metadata": METADATA,
    "tools": [
        {"type": "function", "name": "exec_command"},
        {"type": "namespace", "name": "agents"},
        {"type": "web_search"},
    ],
}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "content": None,
    "encrypted_content": "c2VhbGVk",
    "summary": [{"type": "summary_text", "text": "Which"}, {"type": "summary_text", "text": "buckets?"}],
}
MESSAGE = {
    "type": "message",
    "id": "msg_3",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "I will look.", "annotations": []}],
}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "exec_command",
    "status": "completed",
    "arguments": '{"cmd":"aws s3 ls"}',
}
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 1050,
}


def described(asked: Any, told: Any, **more: Any) -> Described:
    path = "/v1/responses"
    return LlmDescriber()(call(asked, told, protocol="openai-responses", operation="responses", path=path, **more))


def response(*output: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    whole = {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "model": "gpt-5-2025-08-07",
        "output": list(output),
    }
    return whole | {"usage": USAGE, "error": None, "incomplete_details": None} | more


def told_of(*output: Any, end: str = "completed", **more: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(status="in_progress", usage=None)},
        {"type": "response.in_progress", "response": response(status="in_progress", usage=None)},
    ]
    for index, item in enumerate(output):
        begun = item | {"status": "in_progress", "content": [], "summary": [], "arguments": ""}
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{end}", "response": response(*output, status=end, **more)})
    return events


def answered(*output: Any) -> list[Item]:
    return [item for item in described({"input": "?"}, response(*output)).items if item.said_by == "response"]


def test_codex_first_call() -> None:
    out = described(CODEX, sse(told_of(REASONING, MESSAGE, CALL)))
    [command] = [item.text for item in out.items if item.type == "command"]
    assert command == "aws s3 ls"
    assert short([item for item in out.items if item.type != "command"]) == [
        ("system", "", "You are Codex."),
        ("context", "environment_context", CONTEXT),
        ("prompt", "", "which buckets?"),
        ("thinking", "", "Which\n\nbuckets?"),
        ("answer", "", "I will look."),
        ("tool_call", "exec_command", "aws s3 ls"),
    ]
    assert out.items[5].id == "call_1"
    assert sorted(out.refs) == [
        ("agent_session", THREAD),
        ("message", "resp_1"),
        ("tool_call", "call_1"),
        ("turn", TURN),
    ]
    assert out.model == "gpt-5-2025-08-07"
    assert out.llm["usage"] == {"input": 300, "output": 50, "cache_read": 600, "cache_write": 100, "reasoning": 20}
    assert (out.llm["stop_reason"], out.llm["stream"], out.llm["messages"]) == ("completed", True, 3)
    assert out.llm["tools"] == ["exec_command", "agents", "web_search"]
    assert out.problems == []


def test_codex_sends_all_again_and_only_the_results_are_new() -> None:
    good = "Chunk ID: fa35bd\nWall time: 0.0 seconds\nProcess exited with code 0\nOutput:\ntwo buckets\n"
    bad = "Chunk ID: eed6fe\nWall time: 0.0 seconds\nProcess exited with code 1\nOutput:\nExit code: 0\n"
    results = [
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": good},
        {"type": "function_call_output", "id": "fco_2", "call_id": "call_2", "output": bad},
    ]
    again = [*FIRST, REASONING, MESSAGE, CALL, CALL | {"id": "fc_2", "call_id": "call_2"}, *results]
    out = described(CODEX | {"input": again}, sse(told_of(MESSAGE)))
    assert short(out.items) == [
        ("tool_result", "exec_command", good),
        ("tool_result", "exec_command", bad),
        ("answer", "", "I will look."),
    ]
    assert [(item.id, item.error, item.data) for item in out.items[:2]] == [
        ("call_1", False, {"exit_code": 0}),
        ("call_2", True, {"exit_code": 1}),
    ]


def test_a_next_turn_of_the_same_conversation() -> None:
    again = [*FIRST, MESSAGE, {"role": "user", "content": "and their sizes?"}]
    out = described(CODEX | {"input": again}, sse(told_of(MESSAGE)))
    assert short(out.items) == [("prompt", "", "and their sizes?"), ("answer", "", "I will look.")]


def test_codex_says_itself_what_each_part_is() -> None:
    part = {"type": "input_text", "text": "<environment_context>not an agent's</environment_context>"}
    typed = {"type": "message", "role": "user", "content": [part, {"type": "input_text", "text": "Use tabs."}]}
    kinds = {"content_item_kinds": ["user.text", "user_instructions.agents_md"]}
    out = described({"input": [typed | {"internal_chat_message_metadata_passthrough": kinds}]}, response())
    assert short(out.items) == [
        ("prompt", "", part["text"]),
        ("context", "user_instructions.agents_md", "Use tabs."),
    ]


def test_a_history_at_the_provider() -> None:
    asked = {
        "model": "gpt-5",
        "instructions": "Be brief.",
        "previous_response_id": "resp_0",
        "conversation": {"id": "conv_1"},
        "input": [{"type": "function_call_output", "call_id": "call_1", "output": "a"}],
    }
    out = described(asked, response(MESSAGE))
    assert short(out.items) == [("tool_result", "", "a"), ("answer", "", "I will look.")]
    assert {("previous", "resp_0"), ("agent_session", "conv_1"), ("message", "resp_1")} <= set(out.refs)


def test_a_plain_question() -> None:
    out = described({"model": "gpt-5", "instructions": "Be brief.", "input": "why?"}, response(MESSAGE))
    assert short(out.items) == [("system", "", "Be brief."), ("prompt", "", "why?"), ("answer", "", "I will look.")]


@pytest.mark.parametrize(
    ("item", "name", "identifier", "data"),
    [
        (CALL | {"arguments": "{not json"}, "exec_command", "call_1", "{not json"),
        (CALL | {"arguments": ""}, "exec_command", "call_1", {}),
        (CALL | {"namespace": "agents", "name": "spawn"}, "agents__spawn", "call_1", {"cmd": "aws s3 ls"}),
        (
            {"type": "custom_tool_call", "id": "c", "call_id": "call_2", "name": "grep", "input": "x y"},
            "grep",
            "call_2",
            "x y",
        ),
        (
            {
                "type": "local_shell_call",
                "call_id": "call_3",
                "action": {"type": "exec", "command": ["bash", "-lc", "ls"]},
            },
            "local_shell",
            "call_3",
            {"type": "exec", "command": ["bash", "-lc", "ls"]},
        ),
        (
            {"type": "shell_call", "call_id": "call_4", "action": {"commands": ["ls"]}},
            "shell",
            "call_4",
            {"commands": ["ls"]},
        ),
        (
            {"type": "apply_patch_call", "call_id": "call_5", "operation": {"type": "delete_file", "path": "a"}},
            "apply_patch",
            "call_5",
            {"type": "delete_file", "path": "a"},
        ),
        (
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "q"},
            },
            "web_search",
            "ws_1",
            {"action": {"type": "search", "query": "q"}},
        ),
        ({"type": "later_call", "id": "l_1", "status": "done", "what": 1}, "later", "l_1", {"what": 1}),
    ],
)
def test_tool_calls(item: dict[str, Any], name: str, identifier: str, data: Any) -> None:
    made = [item for item in answered(item) if item.type == "tool_call"]
    assert [(item.name, item.id, item.data) for item in made] == [(name, identifier, data)]


def test_commands_and_edits_come_out_of_the_calls() -> None:
    shell = {"type": "shell_call", "call_id": "call_4", "action": {"commands": ["cd /work", "aws s3 ls"]}}
    patch = {"type": "create_file", "path": "a.py", "diff": "+print(1)\n+print(2)"}
    items = answered(shell, {"type": "apply_patch_call", "call_id": "call_5", "operation": patch})
    assert [(item.type, item.text, item.id) for item in items if item.type == "command"] == [
        ("command", "cd /work\naws s3 ls", "call_4"),
    ]
    [edit] = [item for item in items if item.type == "file_edit"]
    assert (edit.name, edit.id) == ("a.py", "call_5")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {
                "type": "mcp_call",
                "id": "mcp_1",
                "server_label": "jira",
                "name": "find",
                "arguments": '{"q":1}',
                "output": "3",
            },
            [("tool_call", "mcp__jira__find", ""), ("tool_result", "mcp__jira__find", "3")],
        ),
        (
            {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
            [
                ("tool_call", "code_interpreter", ""),
                ("code", "python", "1+1"),
                ("tool_result", "code_interpreter", "2"),
            ],
        ),
        (
            {"type": "program", "call_id": "p_1", "code": "go()", "fingerprint": "f"},
            [("tool_call", "program", ""), ("code", "program", "go()")],
        ),
        (
            {"type": "program_output", "call_id": "p_1", "result": "ok", "status": "completed"},
            [("tool_result", "program", "ok")],
        ),
        ({"type": "compaction", "id": "cmp_1", "encrypted_content": "x" * 300}, [("notice", "compaction", "")]),
        ({"type": "mcp_list_tools", "server_label": "jira", "tools": []}, [("notice", "mcp_list_tools", "")]),
        ({"type": "never_seen", "deep": {"er": 1}}, [("notice", "never_seen", "")]),
        ({"type": "reasoning", "summary": [], "encrypted_content": "x"}, []),
        (
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]},
            [("thinking", "", "raw")],
        ),
        (MESSAGE | {"content": [{"type": "refusal", "refusal": "No."}]}, [("answer", "refusal", "No.")]),
        (MESSAGE | {"content": [{"type": "hologram", "x": 1}]}, [("notice", "hologram", "")]),
    ],
)
def test_other_items(item: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert short(answered(item)) == expected


@pytest.mark.parametrize(
    ("output", "text", "error"),
    [
        ({"output": "plain"}, "plain", False),
        ({"output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}, "a\nb", False),
        ({"output": [{"stdout": "o", "stderr": "e", "outcome": {"type": "exit", "exit_code": 2}}]}, "oe", True),
        ({"output": [{"stdout": "o", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]}, "o", False),
        ({"output": [{"stdout": "", "stderr": "", "outcome": {"type": "timeout"}}]}, "", True),
        ({"output": '{"output":"denied","metadata":{"exit_code":1,"duration_seconds":0.1}}'}, "denied", True),
        (
            {"output": "Exit code: 3\nWall time: 0 seconds\nOutput:\nx"},
            "Exit code: 3\nWall time: 0 seconds\nOutput:\nx",
            True,
        ),
        ({"output": "the text says Exit code: 3"}, "the text says Exit code: 3", False),
        ({"output": {"content": "no", "success": False}}, "no", True),
        ({"output": "no such file", "status": "failed"}, "no such file", True),
    ],
)
def test_results(output: dict[str, Any], text: str, error: bool) -> None:
    item = {"type": "shell_call_output", "call_id": "call_1"} | output
    [result] = described({"input": [item]}, response()).items
    assert (result.type, result.id, result.text, result.error) == ("tool_result", "call_1", text, error)


def test_approvals_and_unknown_input_are_notices() -> None:
    items = [
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False},
        {"type": "compaction_trigger"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64," + "QUJD" * 100}]},
    ]
    out = described({"input": items}, response())
    assert short(out.items) == [
        ("notice", "mcp_approval_response", "refused"),
        ("notice", "compaction_trigger", ""),
        ("prompt", "input_image", ""),
    ]
    assert out.items[2].data["image_url"]["bytes"] == 300


def test_the_items_that_are_done_count_where_the_end_has_none() -> None:
    events = told_of(MESSAGE, CALL)
    events[-1]["response"]["output"] = []
    out = described(CODEX, sse(events))
    assert [item.type for item in out.items if item.said_by == "response"] == ["answer", "tool_call", "command"]
    assert out.llm["stop_reason"] == "completed"


def test_ends_that_are_no_success() -> None:
    more = {"incomplete_details": {"reason": "max_output_tokens"}}
    out = described(CODEX, sse(told_of(MESSAGE, end="incomplete", **more)))
    assert (out.llm["stop_reason"], out.error_code) == ("max_output_tokens", "")
    failure = {"error": {"code": "server_error", "message": "Sorry."}}
    out = described(CODEX, sse(told_of(end="failed", **failure)))
    assert (out.llm["stop_reason"], out.error_code, out.error_message) == ("failed", "server_error", "Sorry.")
    assert out.problems == []


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "overloaded", "message": "Later.", "param": None},
        {"type": "error", "status": 429, "error": {"type": "requests", "code": "overloaded", "message": "Later."}},
    ],
)
def test_errors_in_a_stream(event: dict[str, Any]) -> None:
    out = described(CODEX, sse([*told_of(MESSAGE)[:-1], event]))
    assert (out.error_code, out.error_message) == ("overloaded", "Later.")
    assert ("answer", "", "I will look.") in short(out.items)


def test_an_error_as_an_answer() -> None:
    body = {"error": {"message": "No such model.", "type": "invalid_request_error", "code": "model_not_found"}}
    out = described(CODEX, body, status=404)
    assert (out.error_code, out.error_message, out.model) == ("model_not_found", "No such model.", "gpt-5")


def test_tools_that_cost_by_the_call_leave_the_cost_unknown() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}}
    spent: Any = {"usage": {"input_tokens": 1000, "output_tokens": 10}}
    assert described(CODEX, sse(told_of(MESSAGE, **spent))).llm["cost_usd"] is not None
    assert described(CODEX, sse(told_of(search, MESSAGE, **spent))).llm["cost_usd"] is None
