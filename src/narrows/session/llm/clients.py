"""Who asks: agent and version from User-Agent, and the identifiers that agents put into headers.

Measured with Claude Code 2.1, Codex 0.169, opencode 1.18; the others as their sources say.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from narrows.core.values import Described
from narrows.session.http.messages import Message
from narrows.session.llm.loose import obj, parse, txt

_AGENTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"\bclaude-cli/(\S+)", "claude-code"),
        (r"\bclaude-code/(\S+)", "claude-code"),
        (r"\bcodex[a-z_-]*/(\S+)", "codex"),
        (r"\bopencode/(\S+)", "opencode"),
        (r"\bGeminiCLI[a-z-]*/(\S+)", "gemini"),
        (r"\b(?:GitHub)?Copilot(?:-?cli)?/(\S+)", "copilot"),
        (r"\bcursor/(\S+)", "cursor"),
        (r"\bmini-?swe-?agent/(\S+)", "mini-swe-agent"),
        (r"\baider(?:-chat)?/(\S+)", "aider"),
        (r"\blitellm/(\S+)", "litellm"),
        (r"\bAsyncAnthropic/Python (\S+)", "anthropic-python"),
        (r"\bAnthropic(?:Bedrock|Vertex)?/Python (\S+)", "anthropic-python"),
        (r"\bAnthropic(?:Bedrock|Vertex)?/JS (\S+)", "anthropic-js"),
        (r"\b(?:AsyncOpenAI|AzureOpenAI|OpenAI)/Python (\S+)", "openai-python"),
        (r"\b(?:AzureOpenAI|OpenAI)/JS (\S+)", "openai-js"),
        (r"\bgoogle-genai-sdk/(\S+)", "google-genai"),
        (r"\bai-sdk/[a-z-]*/?(\S+)", "ai-sdk"),
    )
)
_SESSIONS = (b"x-claude-code-session-id", b"session-id", b"session_id", b"thread-id", b"x-session-id")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_APP = re.compile(r"(?:^|\s)app/(\S{1,50})")
_ID = 200


def agent_of(user_agent: str) -> tuple[str, str]:
    """(agent, version) that a User-Agent names, empty where it names none that is known."""
    for pattern, name in _AGENTS:
        found = pattern.search(user_agent[:1000])
        if found is not None:
            return name, found[1].split("/", 1)[0].strip(",;()")[:40]
    return "", ""


def read_agent(request: Message, out: Described) -> None:
    """Fill agent, version and the refs `agent_session` and `turn` from a model call's headers."""
    out.agent, out.agent_version = agent_of(request.header(b"user-agent"))
    for name in _SESSIONS:
        add(out, "agent_session", request.header(name))
    metadata = request.header(b"x-codex-turn-metadata")
    if metadata:
        try:
            fields = obj(parse(metadata))
        except ValueError:
            out.problems.append("request: x-codex-turn-metadata is not JSON")
            return
        add(out, "turn", fields.get("turn_id"))
        add(out, "agent_session", fields.get("session_id"))
        add(out, "agent_session", fields.get("thread_id"))


def read_trace(request: Message, facts: dict[str, object], out: Described) -> None:
    """Fill the refs that any exchange may have: `lease` from the facts, `trace` and `span` from traceparent."""
    add(out, "lease", facts.get("lease"))
    found = _TRACEPARENT.fullmatch(request.header(b"traceparent").strip())
    # W3C Trace Context: version ff and ids of zeros only are invalid, and then there is no trace.
    if found is not None and found[1].strip("0") and found[2].strip("0") and not found[0].startswith("ff"):
        add(out, "trace", found[1])
        add(out, "span", found[2])


def read_app(request: Message, out: Described) -> None:
    """Fill the ref `app` from an AWS SDK's User-Agent (AWS_SDK_UA_APP_ID, at most 50 characters)."""
    for name in (b"x-amz-user-agent", b"user-agent"):
        found = _APP.search(request.header(name))
        if found is not None:
            add(out, "app", unquote(found[1]))
            return


def add(out: Described, kind: str, value: object) -> None:
    """Add a ref once, if there is a value that can be one."""
    text = txt(value).strip()
    if text and len(text) <= _ID and (kind, text) not in out.refs:
        out.refs.append((kind, text))
