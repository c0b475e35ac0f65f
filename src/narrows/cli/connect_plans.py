"""What each agent needs in its settings, as edits. Pure: no file is read or written here.

Hooks run `narrows hook AGENT`; they are reports, and gates only where a connection says `fail_closed`. No plan holds a
secret: where an agent needs a key, it gets the command that prints a lease.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narrows.cli.connect_edits import Edit, Form
from narrows.cli.connect_paths import Scope, Where, aws_config, place
from narrows.core.errors import ConfigError

CURSOR_BLOCKING = (
    "sessionStart", "beforeSubmitPrompt", "preToolUse", "beforeShellExecution", "beforeMCPExecution", "beforeReadFile",
    "beforeTabFileRead", "subagentStart",
)  # fmt: skip
"""Cursor's hooks that can stop what they tell of."""

CURSOR = (
    *CURSOR_BLOCKING, "postToolUse", "postToolUseFailure", "afterShellExecution", "afterMCPExecution", "afterFileEdit",
    "afterTabFileEdit", "subagentStop", "afterAgentResponse", "afterAgentThought", "preCompact", "stop", "sessionEnd",
)  # fmt: skip

CLAUDE_BLOCKING = ("UserPromptSubmit", "PreToolUse")
"""Claude Code's hooks whose exit code 2 stops what they tell of. For `Stop` it would mean: go on working."""

CLAUDE = (
    "SessionStart", "InstructionsLoaded", *CLAUDE_BLOCKING, "UserPromptExpansion", "PermissionRequest",
    "PermissionDenied", "PostToolUse", "PostToolUseFailure", "PostToolBatch", "Notification", "SubagentStart",
    "SubagentStop", "TaskCreated", "TaskCompleted", "ConfigChange", "CwdChanged", "PreCompact", "PostCompact",
    "Elicitation", "ElicitationResult", "Stop", "StopFailure", "SessionEnd",
)  # fmt: skip
"""Not among them: WorktreeCreate and WorktreeRemove, whose hook does the work instead of telling of it; MessageDisplay,
TeammateIdle, Setup, DirectoryAdded and FileChanged, which say nothing that the others do not."""

CODEX_BLOCKING = ("UserPromptSubmit", "PreToolUse")
CODEX = (
    "SessionStart", *CODEX_BLOCKING, "PermissionRequest", "PostToolUse", "PreCompact", "PostCompact", "SubagentStart",
    "SubagentStop", "Stop",
)  # fmt: skip

GEMINI_BLOCKING = ("BeforeAgent", "BeforeTool")
GEMINI = (
    "SessionStart", *GEMINI_BLOCKING, "BeforeModel", "AfterTool", "AfterAgent", "Notification", "PreCompress",
    "SessionEnd",
)  # fmt: skip
"""Not among them: AfterModel, which runs for each piece of an answer and would slow the stream down; the whole answer
is in AfterAgent."""

COPILOT = (
    "sessionStart", "userPromptSubmitted", "preToolUse", "preMcpToolCall", "permissionRequest", "postToolUse",
    "postToolUseFailure", "subagentStart", "subagentStop", "errorOccurred", "preCompact", "notification", "agentStop",
    "sessionEnd",
)  # fmt: skip

TIMEOUT_S = 30
"""How long an agent waits for a hook before it goes on without it. The hook itself answers much earlier."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a plan needs of a connection."""

    name: str
    kind: str
    provider: str = ""
    region: str = ""
    fail_closed: bool = False
    base: str = ""
    """Of an llm connection: the path below the gateway that its provider's SDKs take as their base URL."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be connected: the agent at a place, with connections, through a program and a gateway.

    `program` is the absolute path of `narrows`; `data` is given to it where it would not find the gateway by itself.
    `plugin` is the text of the opencode plugin, `ca` the gateway's CA, needed only where its URL is https.
    """

    agent: str
    scope: Scope
    where: Where
    program: str
    gateway: str
    targets: tuple[Target, ...] = ()
    data: str = ""
    ca: str = ""
    plugin: str = ""

    @property
    def fail_closed(self) -> bool:
        """Whether any connection says so."""
        return any(one.fail_closed for one in self.targets)

    def command(self, *words: str, connections: Sequence[str] = ()) -> list[str]:
        """A command of ours, with the data directory if it needs one."""
        named = [word for name in connections for word in ("--connection", name)]
        return [self.program, *words, *named, *(["--data", self.data] if self.data else [])]

    def hook(self, event: str = "") -> str:
        """The hook's command line, for a shell. `event` where the payload does not name it."""
        words = ["hook", self.agent, *(["--event", event] if event else [])]
        words += ["--fail-closed"] if self.fail_closed else []
        return shlex.join(self.command(*words, connections=[one.name for one in self.targets]))

    def key(self, model: Target) -> list[str]:
        """The command that prints the model's lease, in the session of the agent's hooks."""
        names = [model.name, *(one.name for one in self.targets if one is not model)]
        return self.command("api-key", "--agent", self.agent, connections=names)

    def model(self, *providers: str) -> Target | None:
        """The llm connection, which must be one, and of a provider that the agent speaks. Raises ConfigError."""
        found = [one for one in self.targets if one.kind == "llm"]
        if len(found) > 1:
            raise ConfigError(
                "Nothing was changed",
                f"{found[0].name} and {found[1].name} are both llm connections",
                f"{self.agent} calls one model API: name one",
            )
        if found and found[0].provider not in providers:
            raise ConfigError(
                "Nothing was changed",
                f"{self.agent} does not speak the API of {found[0].name} ({found[0].provider or 'no provider'})",
                f"name a connection of provider {' or '.join(providers)}",
            )
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The edits of one file."""

    path: Path
    form: Form
    edits: tuple[Edit, ...]


@dataclass(slots=True)
class Plan:
    """The files, and what the user must know or do besides."""

    files: list[FilePlan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(order: Order) -> Plan:
    """The plan for an order. Raises ConfigError where it cannot be had."""
    makers = {
        "cursor": _cursor,
        "claude-code": _claude,
        "codex": _codex,
        "gemini": _gemini,
        "copilot": _copilot,
        "opencode": _opencode,
    }
    made = makers[order.agent](order)
    _aws(order, made)
    if not order.targets:
        made.notes.append(
            "no connection is named: the hooks use the only one that is registered; with none or several they record "
            "nothing"
        )
    return made


def profile(order: Order, target: Target) -> str:
    """The AWS profile of a connection: Cursor's is `narrows-NAME`; other agents' end with the agent's name."""
    return f"narrows-{target.name}" + ("" if order.agent == "cursor" else f"-{order.agent}")


def _aws(order: Order, made: Plan) -> None:
    targets = [one for one in order.targets if one.kind == "aws"]
    if not targets:
        return
    if order.scope == "machine":
        made.notes.append(
            "AWS profiles are each user's own: run this command with --user too, for the connections "
            + ", ".join(one.name for one in targets)
        )
        return
    edits = []
    for one in targets:
        process = shlex.join(order.command("aws-credentials", "--agent", order.agent, connections=[one.name]))
        lines = [f"credential_process = {process}", f"endpoint_url = {order.gateway}"]
        lines += [f"region = {one.region}"] if one.region else []
        lines += [f"ca_bundle = {order.ca}"] if order.gateway.startswith("https:") else []
        name = f"profile {profile(order, one)}"
        edits.append(Edit("text", (name,), "\n".join(lines) + "\n"))
    made.files.append(FilePlan(aws_config(order.where), "ini", tuple(edits)))
    names = ", ".join(profile(order, one) for one in targets)
    if order.agent in ("claude-code", "opencode"):
        made.notes.append(f"commands that {order.agent} runs use the AWS profile {profile(order, targets[0])}")
    else:
        made.notes.append(
            f"AWS commands use the gateway with AWS_PROFILE={profile(order, targets[0])} in the environment that the "
            f"agent is started from, or in its shell's profile (profiles made: {names})"
        )


def _grouped(events: Sequence[str], blocking: Sequence[str], order: Order, entry: dict[str, Any]) -> list[Edit]:
    """Hooks in the shape of Claude Code, which Codex and Gemini share. With `fail_closed`, whatever keeps the hook from
    answering blocks: these agents go on after any exit code but 2."""
    edits = []
    for event in events:
        gate = order.fail_closed and event in blocking
        command = order.hook() + (" || exit 2" if gate else "")
        one = {"type": "command", "command": command, **entry}
        edits.append(Edit("item", ("hooks", event), {"hooks": [one]}))
    return edits


def _cursor(order: Order) -> Plan:
    models = [one.name for one in order.targets if one.kind == "llm"]
    if models:
        raise ConfigError(
            "Nothing was changed",
            f"{models[0]} is an llm connection, and Cursor calls models from its own servers, not from this machine",
            "leave it out: Cursor's prompts, answers and edits are recorded by its hooks",
        )
    edits = [Edit("member", ("version",), 1, only=True)]
    for event in CURSOR:
        entry: dict[str, Any] = {"command": order.hook(), "type": "command", "timeout": TIMEOUT_S}
        if order.fail_closed and event in CURSOR_BLOCKING:
            entry["failClosed"] = True
        edits.append(Edit("item", ("hooks", event), entry))
    made = Plan([FilePlan(place("cursor", order.scope, "hooks", order.where), "json", tuple(edits))])
    if order.scope == "project":
        made.notes.append("Cursor runs a project's hooks only in a workspace that is trusted")
    made.notes.append(
        "if Cursor is set to load Claude Code's hooks too, connecting both reports each tool call twice; "
        "the record joins them by the tool call's id"
    )
    return made


def _claude(order: Order) -> Plan:
    edits = _grouped(CLAUDE, CLAUDE_BLOCKING, order, {"timeout": TIMEOUT_S})
    notes = []
    model = order.model("anthropic")
    environment = {}
    if model is not None:
        environment["ANTHROPIC_BASE_URL"] = order.gateway + model.base
        environment["CLAUDE_CODE_PROPAGATE_TRACEPARENT"] = "1"
        if order.gateway.startswith("https:"):
            environment["NODE_EXTRA_CA_CERTS"] = order.ca
        edits.append(Edit("member", ("apiKeyHelper",), shlex.join(order.key(model))))
        notes.append(
            "ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN in the environment goes before the lease: unset them; "
            "the gateway refuses any key that is not a lease"
        )
    else:
        notes.append("no llm connection is named: model calls are not recorded, hooks report prompts and tools")
    aws = [one for one in order.targets if one.kind == "aws"]
    if aws and order.scope != "machine":
        environment["AWS_PROFILE"] = profile(order, aws[0])
    edits += [Edit("member", ("env", name), text) for name, text in environment.items()]
    if not order.fail_closed:
        notes.append(_open("Claude Code"))
    return Plan([FilePlan(place("claude-code", order.scope, "settings", order.where), "json", tuple(edits))], notes)


def _open(agent: str) -> str:
    return (
        f"{agent} goes on when a hook fails or takes too long: its hooks report. A connection that says `fail_closed` "
        "makes them block"
    )


def _codex(order: Order) -> Plan:
    made = Plan()
    hooks = _grouped(CODEX, CODEX_BLOCKING, order, {"timeout": TIMEOUT_S})
    made.files.append(FilePlan(place("codex", order.scope, "hooks", order.where), "json", tuple(hooks)))
    model = order.model("openai", "openai-compatible")
    if model is not None and order.scope == "project":
        made.notes.append("Codex takes no provider from a project: run this command with --user for the model's calls")
    elif model is not None:
        helper = order.key(model)
        provider = {
            "name": "Narrows",
            "base_url": order.gateway + model.base,
            "wire_api": "responses",
            "supports_websockets": False,
            "auth": {"command": helper[0], "args": helper[1:], "timeout_ms": 10000, "refresh_interval_ms": 300000},
        }
        edits = (
            Edit("member", ("model_provider",), "narrows"),
            Edit("member", ("model_providers", "narrows"), provider),
        )
        made.files.append(FilePlan(place("codex", order.scope, "config", order.where), "toml", edits))
    if order.scope == "machine":
        made.notes.append(
            "hooks of /etc/codex are managed: Codex trusts them. `allow_managed_hooks_only = true` in "
            "/etc/codex/requirements.toml would switch users' own hooks off; that file is not touched"
        )
    else:
        made.notes.append(
            "Codex skips these hooks, without a word, until you have reviewed and trusted them: run `/hooks` in Codex, "
            "and again after each change of them"
        )
    if order.scope == "project":
        made.notes.append("Codex reads a project's hooks only where the project is trusted")
    if not order.fail_closed:
        made.notes.append(_open("Codex"))
    return made


def _gemini(order: Order) -> Plan:
    model = order.model("gemini")
    events = [one for one in GEMINI if model is None or one != "BeforeModel"]
    edits = _grouped(events, GEMINI_BLOCKING, order, {"name": "narrows", "timeout": TIMEOUT_S * 1000})
    notes = []
    if model is not None:
        notes.append(
            "Gemini CLI takes address and key of its model from the environment only: start it as "
            f"`narrows run --connection {model.name} -- gemini`"
        )
    if not order.fail_closed:
        notes.append(_open("Gemini CLI"))
    return Plan([FilePlan(place("gemini", order.scope, "settings", order.where), "json", tuple(edits))], notes)


def _copilot(order: Order) -> Plan:
    model = order.model("openai", "anthropic", "openai-compatible")
    edits = [Edit("member", ("version",), 1, only=True)]
    edits += [
        Edit("item", ("hooks", event), {"type": "command", "bash": order.hook(event), "timeoutSec": TIMEOUT_S})
        for event in COPILOT
    ]
    notes = ["Copilot denies a tool whose hook fails, but goes on when a hook takes too long"]
    if model is not None:
        notes.append(
            "Copilot takes address and key of its model from the environment only: start it as "
            f"`narrows run --connection {model.name} -- copilot`"
        )
    if order.scope == "project":
        notes.append("Copilot reads a repository's hooks only in a folder that is trusted")
    return Plan([FilePlan(place("copilot", order.scope, "hooks", order.where), "json", tuple(edits))], notes)


_OPENCODE = {
    "anthropic": ("anthropic", "/v1", "ANTHROPIC_API_KEY"),
    "openai": ("openai", "", "OPENAI_API_KEY"),
    "gemini": ("google", "/v1beta", "GOOGLE_GENERATIVE_AI_API_KEY"),
}
"""opencode's name of a provider, what its base URL has after that of the provider's SDKs, the variable of its key."""


def filled(order: Order) -> str:
    """opencode's plugin with the hook's command and the environment of its shell. Raises ConfigError."""
    aws = [one for one in order.targets if one.kind == "aws"]
    environment = {"AWS_PROFILE": profile(order, aws[0])} if aws else {}
    text = order.plugin
    for line, new in (
        (_HOOK_LINE, f"const HOOK = {json.dumps(shlex.split(order.hook()))}"),
        (_ENVIRONMENT_LINE, f"const ENVIRONMENT = {json.dumps(environment)}"),
    ):
        if text.count(line) != 1:
            raise ConfigError("Nothing was changed", f"the plugin has no line {line!r}", "install narrows anew")
        text = text.replace(line, new)
    return text


_HOOK_LINE = 'const HOOK = ["narrows", "hook", "opencode"]'
_ENVIRONMENT_LINE = "const ENVIRONMENT = {}"


def _opencode(order: Order) -> Plan:
    made = Plan()
    plugin = place("opencode", order.scope, "plugin", order.where)
    made.files.append(FilePlan(plugin, "whole", (Edit("text", (), filled(order)),)))
    model = order.model("anthropic", "openai", "gemini", "openai-compatible")
    if model is not None:
        path = place("opencode", order.scope, "config", order.where)
        name, suffix, variable = _OPENCODE.get(model.provider, ("narrows", "", "OPENAI_API_KEY"))
        url = order.gateway + model.base + suffix
        if name == "narrows":
            whole = {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Narrows",
                "options": {"baseURL": url, "apiKey": f"{{env:{variable}}}"},
                "models": {},
            }
            edits = (Edit("member", ("provider", name), whole),)
            made.notes.append(f"name the models of {model.name} under provider.narrows.models in {path}")
        else:
            edits = (Edit("member", ("provider", name, "options", "baseURL"), url),)
        made.files.append(FilePlan(path, "json", edits))
        made.notes.append(
            "opencode takes its key from the environment: start it as "
            f"`narrows run --connection {model.name} -- opencode`; a lease in {variable} is a session of its own"
        )
        made.notes.append("a project's opencode.json goes before the user's, and can name another address")
    return made
