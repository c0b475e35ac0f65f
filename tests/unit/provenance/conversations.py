"""Conversations in the shape of real agents, as the rules see them: made of few words."""

from __future__ import annotations

from typing import Any

from narrows.core.values import Item
from narrows.provenance.model import Exchange, Process

SECOND = 1_000_000_000
T0 = 1_795_600_000 * SECOND


def said(type_: str, text: str = "", id_: str = "", name: str = "", data: Any = None, *, error: bool = False) -> Item:
    """An item of an answer."""
    return Item(type_, text, id_, name, data, error, "response")


def asked(type_: str, text: str = "", id_: str = "", name: str = "", data: Any = None, *, error: bool = False) -> Item:
    """An item of a request."""
    return Item(type_, text, id_, name, data, error, "request")


def model(id_: str, at: float, *items: Item, refs: Any = (), **more: Any) -> Exchange:
    """A model call that began at that second and took one."""
    known = {"service": "anthropic", "operation": "messages", "model": "claude-sonnet-4-5", "agent": "claude-code"}
    start = T0 + int(at * SECOND)
    return Exchange(id_, "llm.message", started_ns=start, ended_ns=start + SECOND, answered_ns=start + SECOND // 2,
                    items=items, refs=tuple(refs), **(known | more))  # fmt: skip


def hook(id_: str, at: float, agent: str, event: str, *items: Item, refs: Any = (), **more: Any) -> Exchange:
    """A report of an agent."""
    start = T0 + int(at * SECOND)
    return Exchange(id_, "agent.event", agent, event, start, start + 1000, start, items=items, refs=tuple(refs),
                    agent=agent, **more)  # fmt: skip


def minted(id_: str, at: float, lease: str, *argvs: list[str], kernel: bool = True) -> Exchange:
    """A lease for a process, its tree nearest first."""
    start = T0 + int(at * SECOND)
    tree = tuple(Process(4000 - n, tuple(argv), "/src") for n, argv in enumerate(argvs))
    return Exchange(id_, "agent.event", "narrows", "lease.issued", start, start + 1000, start, lease=lease,
                    refs=(("lease", lease),), processes=tree, kernel=kernel)  # fmt: skip


def call(id_: str, at: float, operation: str, lease: str = "", service: str = "s3", **more: Any) -> Exchange:
    """An AWS call."""
    start = T0 + int(at * SECOND)
    return Exchange(id_, "aws.call", service, operation, start, start + SECOND // 10, start, lease=lease, **more)


HELPER = ["/venv/bin/python", "/venv/bin/narrows", "aws-credentials", "--connection", "prod"]
SESSION = ("agent_session", "5f0c")


def claude_code() -> list[Exchange]:
    """Claude Code over the wire and with hooks: two turns of the model, the second command calls AWS twice."""
    turn = ("turn", "prompt-1")
    list_, remove = "aws s3 ls s3://exports", "aws s3 rm s3://exports/2019.csv --only-show-errors"
    wrapped = f"source /tmp/snapshot && eval '{remove}' < /dev/null && pwd -P >| /tmp/cwd"
    agent = ["claude", "-p", "clean up"]
    return [
        hook("h-prompt", 0, "claude-code", "UserPromptSubmit", asked("prompt", "clean up the exports"),
             refs=[SESSION, turn]),
        model("m1", 1, asked("system", "You are"), asked("context", "<system-reminder>"),
              asked("prompt", "clean up the exports"), said("thinking", "let me see"), said("answer", "I look first."),
              said("tool_call", "", "toolu_1", "Bash", {"command": list_}), said("command", list_, "toolu_1"),
              refs=[SESSION, ("message", "msg_1"), ("tool_call", "toolu_1")], messages=1, agent_version="2.1.197"),
        hook("h-pre-1", 2.1, "claude-code", "PreToolUse", asked("tool_call", list_, "toolu_1", "Bash"),
             asked("command", list_, "toolu_1", "Bash"), refs=[SESSION, turn, ("tool_call", "toolu_1")]),
        minted("l1", 2.5, "NRWL1", HELPER, ["python3", "/usr/bin/aws", *list_.split()[1:]], agent),
        call("c1", 2.6, "ListObjectsV2", "NRWL1"),
        hook("h-post-1", 3, "claude-code", "PostToolUse", asked("tool_result", "2019.csv", "toolu_1", "Bash"),
             refs=[SESSION, turn]),
        model("m2", 4, asked("tool_result", "2019.csv", "toolu_1"),
              said("tool_call", "", "toolu_2", "Bash", {"command": remove}), said("command", remove, "toolu_2"),
              refs=[SESSION, ("message", "msg_2")], messages=3, agent_version="2.1.197"),
        hook("h-pre-2", 5.1, "claude-code", "PreToolUse", asked("tool_call", remove, "toolu_2", "Bash"),
             asked("command", remove, "toolu_2", "Bash"), refs=[SESSION, turn]),
        minted("l2", 5.5, "NRWL2", HELPER, ["aws", "s3", "rm"], ["/bin/bash", "-c", "-l", wrapped], agent),
        call("c2", 5.6, "HeadObject", "NRWL2"),
        call("c3", 5.7, "DeleteObject", "NRWL2"),
        hook("h-post-2", 6, "claude-code", "PostToolUse", asked("tool_result", "", "toolu_2", "Bash"),
             refs=[SESSION, turn]),
        model("m3", 7, asked("tool_result", "", "toolu_2"), said("answer", "Done."), refs=[SESSION], messages=5),
    ]  # fmt: skip


def codex() -> list[Exchange]:
    """Codex over the wire only: `exec_command`, results in the next request's input."""
    text = "aws lambda update-function-code --function-name f --zip-file fileb://f.zip"
    refs = [("agent_session", "thread-1"), ("turn", "turn-1")]
    more = {"service": "openai", "operation": "responses", "model": "gpt-5", "agent": "codex"}
    return [
        model("m1", 0, asked("prompt", "deploy it"),
              said("tool_call", "", "call_1", "exec_command", {"cmd": text}), refs=refs, **more),
        minted("l1", 2, "NRWL1", HELPER, ["bash", "-lc", text], ["codex", "exec"], kernel=False),
        call("c1", 2.1, "UpdateFunctionCode20150331v2", "NRWL1", "lambda"),
        model("m2", 4, asked("tool_result", "ok", "call_1"), said("answer", "deployed"), refs=refs, **more),
    ]  # fmt: skip


def cursor() -> list[Exchange]:
    """Cursor: hooks alone. The shell call is reported with its id and without; no model call is on the wire."""
    text = "terraform apply -auto-approve && aws sns publish --topic-arn t --message done"
    refs = [("agent_session", "conv-1"), ("turn", "gen-1")]
    return [
        hook("h1", 0, "cursor", "beforeSubmitPrompt", asked("prompt", "roll it out"), refs=refs, model="gpt-5"),
        hook("h2", 1, "cursor", "preToolUse", asked("tool_call", text, "tool_9", "Shell", {"command": text}),
             asked("command", text, "tool_9", "Shell"), refs=refs, model="gpt-5"),
        hook("h3", 1.1, "cursor", "beforeShellExecution", asked("command", text, "", "Shell"), refs=refs),
        minted("l1", 2, "NRWL1", HELPER, ["terraform", "apply", "-auto-approve"], ["/bin/zsh", "-c", text]),
        call("c1", 2.2, "CreateQueue", "NRWL1", "sqs"),
        hook("h4", 3, "cursor", "afterShellExecution", asked("tool_result", "done", "", "Shell"), refs=refs),
        hook("h5", 3.1, "cursor", "postToolUse", asked("tool_result", "done", "tool_9", "Shell"), refs=refs),
        hook("h6", 4, "cursor", "afterAgentResponse", asked("answer", "It is out."), refs=refs),
    ]  # fmt: skip


def mini_swe_agent() -> list[Exchange]:
    """mini-swe-agent with plain chat completions: commands in code blocks, outcomes told as a user's messages."""
    first, second = "aws s3 ls", "aws s3 cp s3://a/x s3://b/x"
    more = {"service": "openai", "operation": "chat.completions", "model": "m", "agent": "mini-swe-agent"}
    return [
        model("m1", 0, asked("system", "You are"), asked("prompt", "copy x"),
              said("answer", f"```bash\n{first}\n```"), said("code", first, "", "bash"), said("command", first),
              messages=2, **more),
        minted("l1", 1.5, "NRWL1", HELPER, ["python3", "/usr/bin/aws", "s3", "ls"], ["mini"]),
        call("c1", 1.6, "ListBuckets", "NRWL1"),
        model("m2", 2, asked("prompt", "<returncode>0</returncode>\n<output>a b</output>"),
              said("answer", f"```bash\n{second}\n```"), said("code", second, "", "bash"), said("command", second),
              messages=4, **more),
        minted("l2", 3.5, "NRWL2", HELPER, ["/bin/sh", "-c", second], ["mini"]),
        call("c2", 3.6, "CopyObject", "NRWL2"),
        model("m3", 4, asked("prompt", "<returncode>0</returncode>"), said("answer", "done"), messages=6, **more),
    ]  # fmt: skip
