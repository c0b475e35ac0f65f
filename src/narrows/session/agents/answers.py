"""What an agent's hook must print so that the agent does what the gateway decided: one form per agent and event.

Hooks fail in different ways, and that decides the forms (measured and documented behaviour of the agents' versions
of 2026):

- Cursor reads flat snake_case keys. With `failClosed` an empty output counts as a failure, so each allow says so.
  Exit code 2 with a body would show the raw body as the reason: a deny is exit 0 with JSON, or bare exit 2.
- Claude Code: exit 2 blocks most events that can be blocked; `PermissionRequest` only listens to JSON. An allow says
  nothing (`{}`): `permissionDecision: allow` would skip the user's own permission prompt.
- Codex refuses unknown fields, and a refused answer lets the tool run: only fields of its schema, an allow is `{}`.
- Gemini CLI: `decision` and `reason`; any exit code but 0 and 2 is a warning.
- Copilot CLI: `permissionDecision` and its reason for tools, `behavior` for permission requests.
- opencode runs no commands as hooks: the answer is read by our own plugin, which throws to block.

`ask` is never said: agents were seen to run the command all the same. An event where a block would make the agent go
on working (`Stop`) or comes too late is never blocked. Imports `json` and nothing else: hooks start through here.
"""

from __future__ import annotations

import json

REASON = 2000
"""Characters of a reason; Claude Code cuts its hooks' output at 10,000."""


class Answer:
    """What the hook process gives its agent: standard output, exit code, and a text for standard error."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, stdout: bytes, code: int = 0, stderr: str = "") -> None:
        self.stdout = stdout
        self.code = code
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"Answer({self.stdout!r}, {self.code}, {self.stderr!r})"


_CURSOR_PERMISSION = frozenset(
    {"beforeShellExecution", "beforeMCPExecution", "beforeReadFile", "beforeTabFileRead", "preToolUse", "subagentStart"}
)
_CURSOR_CONTINUE = frozenset({"beforeSubmitPrompt", "sessionStart"})

ADVISORY: dict[str, frozenset[str]] = {
    "cursor": frozenset(
        {
            "sessionEnd", "postToolUse", "postToolUseFailure", "afterShellExecution", "afterMCPExecution",
            "afterFileEdit", "afterTabFileEdit", "subagentStop", "afterAgentResponse", "afterAgentThought",
            "preCompact", "stop", "workspaceOpen",
        }
    ),
    "claude-code": frozenset(
        {
            "SessionStart", "PostToolUse", "PostToolUseFailure", "Stop", "SubagentStop", "SessionEnd", "Setup",
            "InstructionsLoaded", "MessageDisplay", "PermissionDenied", "Notification", "SubagentStart",
            "TaskCompleted", "StopFailure", "TeammateIdle", "CwdChanged", "DirectoryAdded", "FileChanged",
            "WorktreeRemove", "PostCompact",
        }
    ),
    "codex": frozenset(
        {
            "SessionStart", "PostToolUse", "PreCompact", "PostCompact", "SubagentStart", "SubagentStop", "Stop",
            "StopFailure", "agent-turn-complete",
        }
    ),
    "gemini": frozenset(
        {"AfterAgent", "BeforeToolSelection", "SessionStart", "SessionEnd", "Notification", "PreCompress"}
    ),
    "copilot": frozenset(
        {
            "sessionStart", "sessionEnd", "userPromptSubmitted", "postToolUse", "postToolUseFailure", "agentStop",
            "subagentStart", "subagentStop", "errorOccurred", "preCompact", "notification", "SessionStart",
            "SessionEnd", "UserPromptSubmit", "PostToolUse", "PostToolUseFailure", "Stop", "SubagentStart",
            "SubagentStop", "ErrorOccurred", "PreCompact", "Notification",
        }
    ),
    "opencode": frozenset(
        {
            "tool.execute.after", "session.created", "session.updated", "session.idle", "session.error",
            "session.deleted", "session.compacted", "message", "file.edited", "shell.env",
        }
    ),
}  # fmt: skip
"""Events of each agent that a hook cannot stop, or that a block would turn into the opposite."""

_SHORT = {("claude-code", "SessionEnd"): 1.2}
"""Seconds for an event whose agent gives its hooks less: all of Claude Code's SessionEnd hooks share 1.5 s."""


def can_block(agent: str, event: str) -> bool:
    """Whether a deny stops something. An event that is not known counts as one that can be blocked."""
    return event not in ADVISORY.get(agent, ())


def patience(agent: str, event: str) -> float:
    """Seconds that an event may take although nothing waits for its answer."""
    return _SHORT.get((agent, event), 2.0)


def answer(agent: str, event: str, decision: str, reason: str = "") -> Answer:
    """The answer of `agent`'s own form. Whatever `decision` is but `allow` is a deny; `event` may be empty: unknown."""
    if decision == "allow":
        return _ALLOW.get(agent, _allow_nothing)(event)
    why = _clean(reason) or "the gateway refused it"
    if not can_block(agent, event):
        allowed = _ALLOW.get(agent, _allow_nothing)(event)
        return Answer(allowed.stdout, 0, f"refused, but {event or 'this event'} cannot be stopped: {why}")
    return _DENY.get(agent, _deny_by_code)(event, why)


def _clean(text: str) -> str:
    """A reason as one printable line: agents show it in terminals, and it may quote what someone else wrote."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text[: 4 * REASON].split()))[:REASON]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _allow_nothing(event: str) -> Answer:
    return Answer(b"{}")


def _deny_by_code(event: str, reason: str) -> Answer:
    return Answer(b"", 2, reason)


def _cursor_allow(event: str) -> Answer:
    if event in _CURSOR_CONTINUE:
        return Answer(_json({"continue": True}))
    if event in ADVISORY["cursor"]:
        return Answer(b"{}")
    return Answer(_json({"permission": "allow"}))


def _cursor_deny(event: str, reason: str) -> Answer:
    if event in _CURSOR_CONTINUE:
        return Answer(_json({"continue": False, "user_message": reason}))
    if event not in _CURSOR_PERMISSION:
        return _deny_by_code(event, reason)
    out = {"permission": "deny", "user_message": reason}
    if event in ("preToolUse", "subagentStart"):
        # The form of older versions beside the newer one: which of the two is read depends on Cursor's version.
        out |= {"decision": "deny", "reason": reason}
    if event in ("preToolUse", "beforeShellExecution", "beforeMCPExecution"):
        out["agent_message"] = reason
    return Answer(_json(out))


def _pre_tool_use(reason: str) -> Answer:
    return Answer(
        _json(
            {
                "hookSpecificOutput": {
                    "hookEventName": "PreToolUse",
                    "permissionDecision": "deny",
                    "permissionDecisionReason": reason,
                }
            }
        )
    )


def _claude_deny(event: str, reason: str) -> Answer:
    if event == "PreToolUse":
        return _pre_tool_use(reason)
    if event == "PermissionRequest":
        decision = {"behavior": "deny", "message": reason}
        return Answer(_json({"hookSpecificOutput": {"hookEventName": event, "decision": decision}}))
    if event == "UserPromptSubmit":
        return Answer(_json({"decision": "block", "reason": reason}))
    return _deny_by_code(event, reason)


def _gemini_allow(event: str) -> Answer:
    return Answer(b"{}" if event in ADVISORY["gemini"] else _json({"decision": "allow"}))


def _gemini_deny(event: str, reason: str) -> Answer:
    return Answer(_json({"decision": "deny", "reason": reason}))


def _copilot_deny(event: str, reason: str) -> Answer:
    if event in ("permissionRequest", "PermissionRequest"):
        return Answer(_json({"behavior": "deny", "message": reason}))
    out = _json({"permissionDecision": "deny", "permissionDecisionReason": reason})
    # Exit 2 denies too; beside it, JSON is read where it is documented. The documented form stays alone.
    return Answer(out) if event == "preToolUse" else Answer(out, 2, reason)


def _opencode_allow(event: str) -> Answer:
    return Answer(_json({"decision": "allow"}))


def _opencode_deny(event: str, reason: str) -> Answer:
    return Answer(_json({"decision": "deny", "reason": reason}))


_ALLOW = {"cursor": _cursor_allow, "gemini": _gemini_allow, "opencode": _opencode_allow}
_DENY = {
    "cursor": _cursor_deny,
    "claude-code": _claude_deny,
    "codex": _claude_deny,
    "gemini": _gemini_deny,
    "copilot": _copilot_deny,
    "opencode": _opencode_deny,
}
