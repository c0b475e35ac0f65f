"""What each event of the six agents means: every fixture through the describer, and hostile ones too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.values import Described, StoredExchange
from narrows.session.agents import names
from narrows.session.agents.describe import AgentDescriber

HOOKS = Path(__file__).parents[3] / "fixtures" / "hooks"
ALL = sorted((path.parent.name, path.stem) for path in HOOKS.glob("*/*.json"))
HANDLER = 'def handler(event, context):\n    return {"ok": True}\n'


def exchange(agent: str, payload: bytes, event: str = "", headers: str = "") -> StoredExchange:
    """A report as the gateway records it."""
    head = f"POST /_narrows/events/{agent} HTTP/1.1\r\nHost: gw\r\n{headers}Content-Length: {len(payload)}\r\n\r\n"
    body = b'{"decision":"allow","reason":"","exchange":"x"}'
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    name = event or names.event_name(agent, payload)
    facts: dict[str, object] = {"service": agent, "operation": name}
    return StoredExchange(b"e" * 16, b"s" * 16, "agent.event", head.encode() + payload, answer, request_facts=facts)


def described(agent: str, name: str) -> Described:
    """A fixture's meaning."""
    return AgentDescriber()(exchange(agent, (HOOKS / agent / f"{name}.json").read_bytes(), event_of(agent, name)))


def event_of(agent: str, name: str) -> str:
    """The event that a fixture's file name says: a variant of one has a further word."""
    return (
        "tool.execute.after"
        if name == "tool.execute.after.edit"
        else (name if agent == "opencode" else name.partition(".")[0])
    )


def said(out: Described) -> list[tuple[str, str, str]]:
    return [(item.type, item.text, item.id) for item in out.items]


def file_ref(text: str) -> tuple[str, str]:
    return ("file", hashlib.sha256(text.encode()).hexdigest())


@pytest.mark.parametrize(("agent", "name"), ALL)
def test_every_event_is_understood(agent: str, name: str) -> None:
    payload = (HOOKS / agent / f"{name}.json").read_bytes()
    told = names.event_name(agent, payload)
    if (agent, name) == ("copilot", "notification"):
        assert told == "Notification"
    elif not (agent == "copilot" and name in ("preMcpToolCall", "permissionRequest")):
        assert told == event_of(agent, name)  # these two cannot be told from preToolUse: the hook command says
    out = described(agent, name)
    assert out.problems == []
    assert out.service == agent and out.agent == agent and out.status == 200
    assert out.items, "an event says something"
    # Not the payload as it came: that is for events that are not known.
    assert all(item.text != payload.decode() for item in out.items)
    assert [kind for kind, _ in out.refs if kind == "agent_session"] == ["agent_session"]


EXPECTED: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    ("cursor", "beforeSubmitPrompt"): [
        ("prompt", "List the buckets of the shop and tell me which is public", ""),
        ("context", "", ""), ("context", "", ""),
    ],
    ("cursor", "preToolUse"): [
        ("tool_call", "aws s3api list-buckets", "0f9c7f5e-7f0a-4b52-8d51-1f6f1f6f6a10"),
        ("command", "aws s3api list-buckets", "0f9c7f5e-7f0a-4b52-8d51-1f6f1f6f6a10"),
    ],
    ("cursor", "postToolUse"): [
        ("tool_result", '{"Buckets":[{"Name":"shop-media"}]}', "0f9c7f5e-7f0a-4b52-8d51-1f6f1f6f6a10")
    ],
    ("cursor", "beforeShellExecution"): [("command", "aws s3api list-buckets", "")],
    ("cursor", "afterShellExecution"): [("tool_result", '{"Buckets":[]}\n', "")],
    ("cursor", "beforeMCPExecution"): [("tool_call", '{"sql":"select 1"}', "")],
    ("cursor", "beforeReadFile"): [("file_read", 'resource "aws_s3_bucket" "media" {}\n', "")],
    ("cursor", "afterFileEdit"): [("file_edit", HANDLER, ""), ("file_edit", "timeout = 30", "")],
    ("cursor", "afterTabFileEdit"): [("file_edit", "x = 2", "")],
    ("cursor", "afterAgentResponse"): [("answer", "The bucket shop-media is public.", "")],
    ("cursor", "afterAgentThought"): [("thinking", "I should look at the bucket policy first.", "")],
    ("cursor", "subagentStart"): [("subagent", "Find where the bucket name is set", "")],
    ("cursor", "subagentStop"): [("subagent", "In infra.tf, line 3", "")],
    ("claude-code", "UserPromptSubmit"): [("prompt", "Deploy the handler to the function shop-api", "")],
    ("claude-code", "PostToolUse"): [
        ("tool_result", '{"LastUpdateStatus":"InProgress"}', "toolu_01VqyLrW4v7bZ3fXq8cPzKdM")
    ],
    ("claude-code", "Stop"): [("answer", "The function is deployed.", "")],
    ("claude-code", "SubagentStop"): [("subagent", "Found it in infra.tf", "a1b2")],
    ("codex", "UserPromptSubmit"): [("prompt", "Rotate the key of the user ci", "")],
    ("codex", "PreToolUse"): [
        ("tool_call", "aws iam list-access-keys --user-name ci", "call_9XbW"),
        ("command", "aws iam list-access-keys --user-name ci", "call_9XbW"),
    ],
    ("codex", "Stop"): [("answer", "The key is rotated.", "")],
    ("codex", "agent-turn-complete"): [("prompt", "Rotate the key", ""), ("answer", "Done.", "")],
    ("gemini", "BeforeAgent"): [("prompt", "How many tables are there?", "")],
    ("gemini", "AfterAgent"): [("answer", "There are four tables.", "")],
    ("gemini", "BeforeTool"): [
        ("tool_call", "aws dynamodb list-tables", ""), ("command", "aws dynamodb list-tables", ""),
    ],
    ("gemini", "AfterTool"): [("tool_result", 'Output: {"TableNames":["a"]}', "")],
    ("gemini", "AfterModel"): [("notice", "There are four", "")],
    ("gemini", "BeforeModel"): [("notice", "How many tables are there?", "")],
    ("copilot", "userPromptSubmitted"): [("prompt", "How long is the queue?", "")],
    ("copilot", "preToolUse"): [
        ("tool_call", "aws sqs get-queue-attributes --queue-url q", ""),
        ("command", "aws sqs get-queue-attributes --queue-url q", ""),
    ],
    ("copilot", "postToolUse"): [("tool_result", '{"Attributes":{}}', "")],
    ("copilot", "PreToolUse"): [("tool_call", "ls", ""), ("command", "ls", "")],
    ("copilot", "errorOccurred"): [("notice", "model call failed", "")],
    ("opencode", "chat.message"): [("prompt", "Which stacks are there?", "")],
    ("opencode", "tool.execute.before"): [
        ("tool_call", "aws cloudformation list-stacks", "toolu_oc1"),
        ("command", "aws cloudformation list-stacks", "toolu_oc1"),
    ],
    ("opencode", "tool.execute.after"): [("tool_result", '{"StackSummaries":[]}', "toolu_oc1")],
}  # fmt: skip


@pytest.mark.parametrize(("agent", "name"), sorted(EXPECTED))
def test_what_it_says(agent: str, name: str) -> None:
    assert said(described(agent, name)) == EXPECTED[agent, name]


def test_ids_join() -> None:
    cursor = described("cursor", "preToolUse")
    assert ("agent_session", "668320d2-2fd8-4888-b33c-2a466fec86e7") in cursor.refs
    assert ("turn", "490b90b7-a2ce-4c2c-bb76-cb77b125df2f") in cursor.refs
    assert ("tool_call", "0f9c7f5e-7f0a-4b52-8d51-1f6f1f6f6a10") in cursor.refs
    assert (cursor.agent_version, cursor.model) == ("3.21.16", "claude-4.5-sonnet")
    claude = described("claude-code", "PreToolUse")
    assert ("turn", "5d1d6f3a-9f7f-4f60-8c50-2f6a1f7f0b22") in claude.refs
    assert ("tool_call", "toolu_01VqyLrW4v7bZ3fXq8cPzKdM") in claude.refs
    codex = described("codex", "PreToolUse")
    assert ("turn", "019f3d60-0000-7f01-b42c-d19d98e1d1aa") in codex.refs and codex.model == "gpt-5"


def test_an_edit_has_old_and_new_and_is_found_by_its_hash() -> None:
    edit = described("cursor", "afterFileEdit")
    first, second = edit.items
    assert (first.name, first.data["old"], first.data["new"]) == ("/home/ana/shop/handler.py", "", HANDLER)
    assert (second.data["old"], second.data["new"]) == ("timeout = 3", "timeout = 30")
    assert file_ref(HANDLER) in edit.refs and file_ref("timeout = 30") in edit.refs

    write = described("claude-code", "PostToolUse.Write")
    assert [item.type for item in write.items] == ["tool_result", "file_edit"]
    assert write.items[1].data["whole"] is True and file_ref(HANDLER) in write.refs
    change = described("claude-code", "PostToolUse.Edit").items[1]
    assert (change.name, change.data["old"], change.text) == ("/home/ana/shop/handler.py", "True", "False")
    assert described("claude-code", "PostToolUse.Read").items[1].type == "file_read"

    copilot = described("copilot", "postToolUse.create").items[1]
    assert (copilot.type, copilot.name, copilot.text) == ("file_edit", "/home/ana/shop/n.txt", "hello\n")
    opencode = described("opencode", "tool.execute.after.edit").items[1]
    assert (opencode.name, opencode.data["old"], opencode.text) == ("/home/ana/shop/a.py", "a", "b")


def test_a_patch_adds_files_and_changes_others() -> None:
    out = described("codex", "PostToolUse.apply_patch")
    edits = [(item.name, item.data["old"], item.text, item.data["whole"]) for item in out.items[1:]]
    assert edits == [
        ("rotate.sh", "", "#!/bin/sh\naws iam create-access-key --user-name ci\n", True),
        ("README.md", "keys\nold line\n", "keys\nnew line\n", False),
    ]
    assert file_ref("#!/bin/sh\naws iam create-access-key --user-name ci\n") in out.refs
    assert all(item.type != "command" for item in out.items), "a patch is no command"


@pytest.mark.parametrize(
    ("agent", "name"),
    [("cursor", "postToolUseFailure"), ("claude-code", "PostToolUseFailure"), ("gemini", "AfterTool.replace"),
     ("copilot", "postToolUseFailure")],
)  # fmt: skip
def test_a_tool_that_failed_changed_nothing(agent: str, name: str) -> None:
    (item,) = described(agent, name).items
    assert item.type == "tool_result" and item.error and item.text


def test_an_unknown_event_and_an_unknown_agent_stay_as_they_are() -> None:
    payload = b'{"hook_event_name":"beforeTeleport","conversation_id":"c1","where":"Mars"}'
    out = AgentDescriber()(exchange("cursor", payload))
    assert out.operation == "beforeTeleport"
    assert said(out) == [("notice", payload.decode(), "")] and ("agent_session", "c1") in out.refs
    other = AgentDescriber()(exchange("my-agent", b'{"session_id":"s1","x":1}'))
    assert other.operation == "event" and other.agent == "my-agent"
    assert said(other) == [("notice", '{"session_id":"s1","x":1}', "")] and other.refs == [("agent_session", "s1")]


def test_copilot_says_by_its_command_which_event_it_is() -> None:
    payload = (HOOKS / "copilot" / "preMcpToolCall.json").read_bytes()
    one = exchange("copilot", payload, headers="X-Narrows-Event: preMcpToolCall\r\n")
    one.request_facts = {}
    assert AgentDescriber()(one).operation == "preMcpToolCall"
    assert names.event_name("copilot", payload, "preMcpToolCall") == "preMcpToolCall"


def test_a_deny_is_told() -> None:
    one = exchange("cursor", (HOOKS / "cursor" / "preToolUse.json").read_bytes())
    body = b'{"decision":"deny","reason":"a secret is in it"}'
    one.response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    out = AgentDescriber()(one)
    assert (out.error_code, out.error_message) == ("deny", "a secret is in it")


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"\xff\xfe\x00garbage",
    b'{"hook_event_name":"preToolUse","tool_name":"\\u001b[2J\\ud800","tool_input":{"command":"\\u001b]0;x\\u0007"}}',
    b'{"hook_event_name":' + b"[" * 100_000,
    b'{"hook_event_name":"preToolUse","tool_input":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"hook_event_name":"preToolUse","tool_input":{"n":' + b"9" * 3000 + b"}}",
    b'{"hook_event_name":"x\\r\\ny","conversation_id":"' + b"a" * 10_000 + b'"}',
    b'{"hook_event_name":["preToolUse"],"tool_input":3,"edits":{},"attachments":3}',
]


@pytest.mark.parametrize("agent", [*names.AGENTS, "otlp", "narrows", "other"])
@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_payloads(agent: str, payload: bytes) -> None:
    for event in ("", "preToolUse", "PreToolUse", "afterFileEdit", "PostToolUse", "traces", "lease.issued"):
        out = AgentDescriber()(exchange(agent, payload, event))
        # Whatever came can be stored: orjson and SQLite refuse what this refuses.
        json.dumps([out.parameters, [[i.text, i.id, i.name, i.data] for i in out.items], out.refs], allow_nan=False)
        repr(out).encode()
        "".join([out.text, *(i.text + i.name + i.id for i in out.items), *(v for _, v in out.refs)]).encode()


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["text", "command", "content", "edits", "file_path", "error", "parts"]), inner),
    max_leaves=8,
)  # fmt: skip
FIELDS = sorted({key for agent, name in ALL for key in json.loads((HOOKS / agent / f"{name}.json").read_text())})
EVENTS = sorted({event_of(agent, name) for agent, name in ALL})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(names.AGENTS), st.sampled_from(EVENTS), st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_fields_of_any_type(agent: str, event: str, fields: dict[str, Any]) -> None:
    out = AgentDescriber()(exchange(agent, json.dumps(fields).encode(), event))
    assert out.items


def test_a_cut_payload_is_said_to_be_cut() -> None:
    one = exchange("cursor", (HOOKS / "cursor" / "preToolUse.json").read_bytes())
    one.request = one.request[:-20]
    one.request_truncated = True
    out = AgentDescriber()(one)
    assert any("only the first" in problem for problem in out.problems)
    assert out.items[0].type == "notice"


def test_a_long_text_is_bounded_and_said_to_be() -> None:
    payload = json.dumps({"hook_event_name": "beforeSubmitPrompt", "prompt": "a" * 1_000_000}).encode()
    out = AgentDescriber()(exchange("cursor", payload))
    assert len(out.items[0].text) == 256 << 10 and "1000000 characters" in out.problems[0]
    assert len(out.text) <= 64 << 10
