"""Where agents keep their settings and hooks: a pure function of platform, home, project and environment.

Places are those of the agents' own documentation. macOS and Linux; elsewhere nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from narrows.core.errors import ConfigError

Scope = Literal["user", "project", "machine"]
AGENTS = ("cursor", "claude-code", "codex", "gemini", "copilot", "opencode")

_MAC = Path("/Library/Application Support")


@dataclass(frozen=True, slots=True)
class Where:
    """The machine and the person that settings are for. `root` is the project's directory."""

    platform: str
    home: Path
    root: Path
    environ: Mapping[str, str]

    def variable(self, name: str, default: Path) -> Path:
        """The directory that a variable names, if it is an absolute path; else the default."""
        given = Path(self.environ.get(name, ""))
        return given if given.is_absolute() else default


def place(agent: str, scope: Scope, file: str, where: Where) -> Path:
    """The path of one of an agent's files: `hooks`, `settings`, `config` or `plugin`. Raises ConfigError."""
    if where.platform not in ("linux", "darwin"):
        raise ConfigError(
            "Nothing was changed", f"where agents keep their settings on {where.platform} is not known here"
        )
    found = {"user": _user, "project": _project, "machine": _machine}[scope](where).get((agent, file))
    if found is None:
        raise ConfigError(
            "Nothing was changed",
            f"{agent} has no settings of that kind for a {scope}",
            "leave the option out, or use --user",
        )
    return found


def aws_config(where: Where) -> Path:
    """The AWS config file of the user (AWS SDKs and Tools Reference Guide, "Location of the shared files")."""
    return where.variable("AWS_CONFIG_FILE", where.home / ".aws" / "config")


def _user(where: Where) -> dict[tuple[str, str], Path]:
    home = where.home
    claude = where.variable("CLAUDE_CONFIG_DIR", home / ".claude")
    codex = where.variable("CODEX_HOME", home / ".codex")
    opencode = where.variable("XDG_CONFIG_HOME", home / ".config") / "opencode"
    return {
        ("cursor", "hooks"): home / ".cursor" / "hooks.json",
        ("claude-code", "settings"): claude / "settings.json",
        ("codex", "hooks"): codex / "hooks.json",
        ("codex", "config"): codex / "config.toml",
        ("gemini", "settings"): home / ".gemini" / "settings.json",
        ("copilot", "hooks"): home / ".copilot" / "hooks" / "narrows.json",
        ("opencode", "config"): opencode / "opencode.json",
        ("opencode", "plugin"): opencode / "plugin" / "narrows.js",
    }


def _project(where: Where) -> dict[tuple[str, str], Path]:
    root = where.root
    return {
        ("cursor", "hooks"): root / ".cursor" / "hooks.json",
        # The file for one person's settings: what is written holds paths of this machine.
        ("claude-code", "settings"): root / ".claude" / "settings.local.json",
        ("codex", "hooks"): root / ".codex" / "hooks.json",
        ("gemini", "settings"): root / ".gemini" / "settings.json",
        ("copilot", "hooks"): root / ".github" / "hooks" / "narrows.json",
        ("opencode", "config"): root / "opencode.json",
        ("opencode", "plugin"): root / ".opencode" / "plugin" / "narrows.js",
    }


def _machine(where: Where) -> dict[tuple[str, str], Path]:
    mac = where.platform == "darwin"
    etc = Path("/etc")
    return {
        ("cursor", "hooks"): (_MAC / "Cursor" if mac else etc / "cursor") / "hooks.json",
        ("claude-code", "settings"): (_MAC / "ClaudeCode" if mac else etc / "claude-code") / "managed-settings.json",
        ("codex", "hooks"): etc / "codex" / "hooks.json",
        ("codex", "config"): etc / "codex" / "config.toml",
        ("gemini", "settings"): (_MAC / "GeminiCli" if mac else etc / "gemini-cli") / "settings.json",
    }
