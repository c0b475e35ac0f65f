"""Who asks, and the identifiers in headers."""

from __future__ import annotations

import json

import pytest

from narrows.core.values import Described
from narrows.session.http.messages import Message
from narrows.session.llm import clients


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("claude-cli/2.1.197 (external, sdk-cli)", ("claude-code", "2.1.197")),
        ("codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm", ("codex", "0.169.0")),
        ("codex_cli_rs/0.40.0 (Mac OS 15)", ("codex", "0.40.0")),
        ("opencode/1.18.33 ai-sdk/provider-utils/3.0.17 runtime/bun/1.3.2", ("opencode", "1.18.33")),
        ("GeminiCLI/0.61.0/gemini-2.5-pro (linux; x64; terminal)", ("gemini", "0.61.0")),
        ("mini-swe-agent/2.4.6", ("mini-swe-agent", "2.4.6")),
        ("litellm/1.80.0", ("litellm", "1.80.0")),
        ("Anthropic/Python 2.13.0", ("anthropic-python", "2.13.0")),
        ("AsyncAnthropic/Python 2.13.0", ("anthropic-python", "2.13.0")),
        ("OpenAI/Python 3.57.0", ("openai-python", "3.57.0")),
        ("AsyncOpenAI/Python 3.57.0", ("openai-python", "3.57.0")),
        ("OpenAI/JS 6.1.0", ("openai-js", "6.1.0")),
        ("google-genai-sdk/3.6.1 gl-python/3.11", ("google-genai", "3.6.1")),
        ("curl/8.0", ("", "")),
        ("", ("", "")),
    ],
)
def test_agents(user_agent: str, expected: tuple[str, str]) -> None:
    assert clients.agent_of(user_agent) == expected


def refs(**headers: str) -> list[tuple[str, str]]:
    message = Message(headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    out = Described()
    clients.read_agent(message, out)
    clients.read_trace(message, {"lease": "NRWLAAAA"}, out)
    clients.read_app(message, out)
    return out.refs


def test_sessions_and_turns_of_agents() -> None:
    metadata = json.dumps({"session_id": "s-1", "thread_id": "t-1", "turn_id": "u-1", "workspaces": {}})
    assert refs(session_id="s-1", thread_id="t-1", x_codex_turn_metadata=metadata) == [
        ("agent_session", "s-1"),
        ("agent_session", "t-1"),
        ("turn", "u-1"),
        ("lease", "NRWLAAAA"),
    ]
    assert refs(X_Claude_Code_Session_Id="c-1")[0] == ("agent_session", "c-1")
    assert refs(x_session_id="ses_1", x_session_affinity="ses_1")[0] == ("agent_session", "ses_1")
    assert refs(x_codex_turn_metadata="{") == [("lease", "NRWLAAAA")]


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-more", True),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        ("x", False),
    ],
)
def test_trace_context(value: str, known: bool) -> None:
    found = refs(traceparent=value)
    assert (found[1:] == [("trace", TRACE), ("span", SPAN)]) is known


def test_the_application_of_an_aws_client() -> None:
    agent = "Boto3/1.44.8 md/Botocore#1.44.8 ua/2.1 os/linux#6 lang/python#3.11 cfg/retry-mode#standard app/toolu_01"
    assert ("app", "toolu_01") in refs(user_agent=agent)
    assert ("app", "x") in refs(user_agent="aws-sdk-js/3", x_amz_user_agent="aws-sdk-js/3 app/x")
    assert refs(user_agent="my-app/1") == [("lease", "NRWLAAAA")]
