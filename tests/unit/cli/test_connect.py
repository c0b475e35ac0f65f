"""`narrows connect`: files of real agents' shapes are written, shown, changed by others in between, and given back."""

from __future__ import annotations

import json
import os
import shlex
import stat
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narrows.cli import connect, connect_files
from narrows.cli.connect_files import Keeper, look, write
from narrows.cli.connect_paths import AGENTS, Scope, Where, aws_config, place
from narrows.cli.connect_plans import CLAUDE_BLOCKING, CURSOR, CURSOR_BLOCKING, Order, Target, plan
from narrows.cli.main import main
from narrows.core.errors import ConfigError
from narrows.session.agents import answers

NARROWS = "/opt/narrows/bin/narrows"
PROD = {"name": "prod", "kind": "aws", "region": "eu-west-1", "provider": "", "fail_closed": False}
CLAUDE = {"name": "claude", "kind": "llm", "region": "", "provider": "anthropic", "fail_closed": False}
GPT = {**CLAUDE, "name": "gpt", "provider": "openai"}
GROQ = {**GPT, "name": "groq", "provider": "openai-compatible", "endpoint": "https://api.example/openai/v1"}
STRICT = {**PROD, "name": "strict", "fail_closed": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's empty home, with a project in it as the current directory."""
    found = tmp_path / "home"
    (found / "work" / ".git").mkdir(parents=True)
    (found / "work" / "deep").mkdir()
    monkeypatch.setenv("HOME", str(found))
    for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(found / "work" / "deep")
    monkeypatch.setattr(connect, "program", lambda: NARROWS)
    return found


@pytest.fixture
def rows(api: Any) -> Any:
    """The gateway knows five connections."""
    for row in (PROD, CLAUDE, GPT, GROQ, STRICT):
        api.answers[f"GET /connections/{row['name']}"] = (200, row)
    return api


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and directory below, with mode and content."""
    return {
        str(path.relative_to(root)): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


def commands(value: Any) -> list[str]:
    """Every command line in a settings value."""
    if isinstance(value, dict):
        own = [value[key] for key in ("command", "bash") if isinstance(value.get(key), str)]
        return own + [one for inner in value.values() for one in commands(inner)]
    return [one for inner in value for one in commands(inner)] if isinstance(value, list) else []


CURSOR_MINE = '{\n  "version": 1,\n  "hooks": {\n    "stop": [{ "command": "./mine.sh" }]\n  }\n}\n'


def test_cursor_is_shown_written_left_alone_and_given_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    path.write_text(CURSOR_MINE)
    path.chmod(0o600)
    before = tree(home)

    assert main(["connect", "cursor", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"--- {path}\n+++ {path}\n@@")
    assert "+  " in shown and "\x1b" not in shown
    assert [line for line in shown.splitlines() if line.startswith("-")][1:] == [
        '-    "stop": [{ "command": "./mine.sh" }]'
    ]
    assert tree(home) == before and not (home.parent / "data").exists()

    assert main(["connect", "cursor", "--yes"]) == 0
    found = json.loads(path.read_text())
    assert set(found["hooks"]) == set(CURSOR) and len(CURSOR) == 20
    assert found["hooks"]["stop"][0] == {"command": "./mine.sh"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    entry = found["hooks"]["preToolUse"][0]
    data = str(home.parent / "data")
    assert entry == {"command": f"{NARROWS} hook cursor --data {data}", "type": "command", "timeout": 30}
    written = tree(home)

    capsys.readouterr()
    assert main(["connect", "cursor", "--yes"]) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert tree(home) == written

    assert main(["connect", "cursor", "--undo", "--yes"]) == 0
    assert tree(home) == before
    assert not list((home.parent / "data" / "connect").iterdir())
    capsys.readouterr()
    assert main(["connect", "cursor", "--undo", "--yes"]) == 0
    assert capsys.readouterr().out == "cursor: there is nothing to undo for the user\n"


def test_what_was_there_is_kept_where_only_its_owner_reads(home: Path) -> None:
    assert main(["connect", "cursor", "--yes"]) == 0
    data = home.parent / "data"
    (kept,) = (data / "connect").iterdir()
    assert [stat.S_IMODE(one.stat().st_mode) for one in (data, kept.parent, kept)] == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("agent", ["cursor", "claude-code", "codex", "gemini", "copilot", "opencode"])
@pytest.mark.parametrize("scope", ["--user", "--project"])
def test_files_and_directories_that_were_made_are_gone_again(home: Path, agent: str, scope: str) -> None:
    before = tree(home)
    assert main(["connect", agent, scope, "--yes"]) == 0
    assert tree(home) != before
    assert main(["connect", agent, scope, "--undo", "--yes"]) == 0
    assert tree(home) == before


@pytest.mark.parametrize("agent", ["cursor", "claude-code", "codex", "gemini", "copilot", "opencode"])
@pytest.mark.parametrize("scope", ["--user", "--project"])
def test_no_token_and_no_key_is_written(home: Path, rows: Any, agent: str, scope: str) -> None:
    model = {"claude-code": "claude", "codex": "gpt", "copilot": "gpt", "opencode": "claude"}.get(agent)
    names = ["--connection", "prod"] + (["--connection", model] if model else [])
    assert main(["connect", agent, scope, *names, "--yes"]) == 0
    for _, content in tree(home).values():
        assert b"t" * 43 not in content
        assert b"Bearer" not in content and b"nrw1" not in content
    if scope == "--project":
        assert all(name.startswith(("work", ".aws")) for name in tree(home))


def test_claude_code_gets_model_hooks_and_profile(home: Path, rows: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "claude-code", "--connection", "claude", "--connection", "prod", "--yes"]) == 0
    found = json.loads((home / ".claude" / "settings.json").read_text())
    data = f"--data {home.parent / 'data'}"
    assert found["env"] == {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8470/llm/claude",
        "CLAUDE_CODE_PROPAGATE_TRACEPARENT": "1",
        "AWS_PROFILE": "narrows-prod-claude-code",
    }
    assert found["apiKeyHelper"] == (
        f"{NARROWS} api-key --agent claude-code --connection claude --connection prod {data}"
    )
    hook = f"{NARROWS} hook claude-code --connection claude --connection prod {data}"
    assert found["hooks"]["PreToolUse"] == [{"hooks": [{"type": "command", "command": hook, "timeout": 30}]}]
    assert (home / ".aws" / "config").read_text() == (
        "[profile narrows-prod-claude-code]\n"
        f"credential_process = {NARROWS} aws-credentials --agent claude-code --connection prod {data}\n"
        "endpoint_url = http://127.0.0.1:8470\n"
        "region = eu-west-1\n"
    )
    assert "its hooks report" in capsys.readouterr().out


def test_codex_gets_a_provider_whose_key_is_a_command(
    home: Path, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".codex" / "config.toml"
    path.parent.mkdir()
    mine = '# mine\nmodel = "gpt-5"  # big\nmodel_provider = "corp"\n\n[tui]\nx = 1\n'
    path.write_text(mine)
    assert main(["connect", "codex", "--connection", "gpt", "--yes"]) == 0
    found = tomllib.loads(path.read_text())
    assert found["model"] == "gpt-5" and found["model_provider"] == "narrows" and found["tui"] == {"x": 1}
    assert found["model_providers"]["narrows"] == {
        "name": "Narrows",
        "base_url": "http://127.0.0.1:8470/llm/gpt/v1",
        "wire_api": "responses",
        "supports_websockets": False,
        "auth": {
            "command": NARROWS,
            "args": ["api-key", "--agent", "codex", "--connection", "gpt", "--data", str(home.parent / "data")],
            "timeout_ms": 10000,
            "refresh_interval_ms": 300000,
        },
    }
    assert "# mine\n" in path.read_text() and "# big" in path.read_text()
    assert set(json.loads((home / ".codex" / "hooks.json").read_text())) == {"hooks"}  # Codex refuses other keys
    out = capsys.readouterr().out
    assert "skips these hooks, without a word, until you have reviewed" in out and "`/hooks`" in out
    assert main(["connect", "codex", "--undo", "--yes"]) == 0
    assert path.read_text() == mine


def test_hooks_fail_closed_exactly_where_a_connection_says_so(home: Path, rows: Any) -> None:
    assert main(["connect", "cursor", "--connection", "strict", "--yes"]) == 0
    hooks = json.loads((home / ".cursor" / "hooks.json").read_text())["hooks"]
    closed = {event for event, (entry,) in hooks.items() if entry.get("failClosed")}
    assert closed == set(CURSOR_BLOCKING) == {event for event in CURSOR if answers.can_block("cursor", event)}
    assert all("--fail-closed" in one for one in commands(hooks))

    assert main(["connect", "cursor", "--connection", "prod", "--yes"]) == 0
    text = (home / ".cursor" / "hooks.json").read_text()
    assert "ailClosed" not in text and "--fail-closed" not in text and "strict" not in text

    assert main(["connect", "claude-code", "--connection", "strict", "--yes"]) == 0
    hooks = json.loads((home / ".claude" / "settings.json").read_text())["hooks"]
    gates = {event for event, one in hooks.items() if commands(one)[0].endswith("|| exit 2")}
    assert gates == set(CLAUDE_BLOCKING)
    assert all(answers.can_block("claude-code", event) for event in gates)


def test_copilot_is_told_the_event_that_its_payload_does_not_name(home: Path) -> None:
    assert main(["connect", "copilot", "--yes"]) == 0
    found = json.loads((home / ".copilot" / "hooks" / "narrows.json").read_text())
    for event, (entry,) in found["hooks"].items():
        words = shlex.split(entry["bash"])
        assert words[:5] == [NARROWS, "hook", "copilot", "--event", event]
        assert entry["timeoutSec"] == 30


def test_gemini_waits_in_milliseconds_and_its_stream_is_not_hooked(home: Path) -> None:
    assert main(["connect", "gemini", "--project", "--yes"]) == 0
    hooks = json.loads((home / "work" / ".gemini" / "settings.json").read_text())["hooks"]
    assert hooks["BeforeTool"][0]["hooks"][0]["timeout"] == 30000
    assert "AfterModel" not in hooks


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["cursor", "--connection", "claude"], "Cursor calls models from its own servers"),
        (["claude-code", "--connection", "gpt"], "does not speak the API of gpt"),
        (["claude-code", "--connection", "claude", "--connection", "gpt"], "are both llm connections"),
        (["copilot", "--machine"], "no settings of that kind for a machine"),
        (["cursor", "--user", "--project"], "three places"),
        (["cursor", "--undo", "--connection", "prod"], "takes everything back"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_is_written(
    home: Path, rows: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    before = tree(home)
    assert main(["connect", *arguments, "--yes"]) == 2
    assert why in capsys.readouterr().err
    assert tree(home) == before


def test_a_connection_that_is_not_there_is_said(home: Path, rows: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "cursor", "--connection", "none", "--yes"]) == 1
    assert "There is no such thing" in capsys.readouterr().err


def test_opencode_gets_its_plugin_and_provider(home: Path, rows: Any) -> None:
    names = ["--connection", "claude", "--connection", "strict"]
    assert main(["connect", "opencode", *names, "--yes"]) == 0
    folder = home / ".config" / "opencode"
    text = (folder / "plugin" / "narrows.js").read_text()
    hook = ["hook", "opencode", "--fail-closed", *names, "--data", str(home.parent / "data")]
    assert f"const HOOK = {json.dumps([NARROWS, *hook])}\n" in text
    assert 'const ENVIRONMENT = {"AWS_PROFILE": "narrows-strict-opencode"}\n' in text
    found = json.loads((folder / "opencode.json").read_text())
    assert found == {"provider": {"anthropic": {"options": {"baseURL": "http://127.0.0.1:8470/llm/claude/v1"}}}}


def test_opencode_gets_another_host_as_a_provider_of_its_own(home: Path, rows: Any) -> None:
    assert main(["connect", "opencode", "--project", "--connection", "groq", "--yes"]) == 0
    found = json.loads((home / "work" / "opencode.json").read_text())["provider"]["narrows"]
    assert found["options"] == {"baseURL": "http://127.0.0.1:8470/llm/groq/v1", "apiKey": "{env:OPENAI_API_KEY}"}


def test_other_options_are_as_if_the_first_run_had_not_been(home: Path, rows: Any) -> None:
    path = home / ".claude" / "settings.json"
    path.parent.mkdir()
    mine = b'{"apiKeyHelper": "mine.sh"}'
    path.write_bytes(mine)
    assert main(["connect", "claude-code", "--connection", "claude", "--connection", "prod", "--yes"]) == 0
    assert main(["connect", "claude-code", "--yes"]) == 0
    found = json.loads(path.read_text())
    assert found["apiKeyHelper"] == "mine.sh" and "env" not in found
    assert not (home / ".aws").exists()
    assert main(["connect", "claude-code", "--undo", "--yes"]) == 0
    assert path.read_bytes() == mine


def test_a_change_of_the_users_outlives_us(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    path.write_text(CURSOR_MINE)
    assert main(["connect", "cursor", "--yes"]) == 0
    found = json.loads(path.read_text())
    found["hooks"]["stop"].append({"command": "./later.sh"})
    path.write_text(json.dumps(found))
    assert main(["connect", "cursor", "--yes"]) == 0  # all of ours is still there
    assert json.loads(path.read_text()) == found
    capsys.readouterr()
    assert main(["connect", "cursor", "--undo", "--yes"]) == 0
    assert json.loads(path.read_text()) == {
        "version": 1,
        "hooks": {"stop": [{"command": "./mine.sh"}, {"command": "./later.sh"}]},
    }


def test_a_file_that_the_user_deleted_stays_deleted(home: Path) -> None:
    before = tree(home)
    assert main(["connect", "gemini", "--yes"]) == 0
    (home / ".gemini" / "settings.json").unlink()
    (home / ".gemini").rmdir()
    assert main(["connect", "gemini", "--undo", "--yes"]) == 0
    assert tree(home) == before


def test_two_agents_share_the_aws_config_and_leave_it_in_any_order(home: Path, rows: Any) -> None:
    path = home / ".aws" / "config"
    path.parent.mkdir()
    path.write_text("[default]\nregion = us-east-1\n")
    before = path.read_bytes()
    for first, second in (("cursor", "gemini"), ("gemini", "cursor")):
        assert main(["connect", "cursor", "--connection", "prod", "--yes"]) == 0
        assert main(["connect", "gemini", "--connection", "prod", "--yes"]) == 0
        text = path.read_text()
        assert "[profile narrows-prod]" in text and "[profile narrows-prod-gemini]" in text
        assert main(["connect", first, "--undo", "--yes"]) == 0
        assert main(["connect", second, "--undo", "--yes"]) == 0
        assert path.read_bytes() == before


def test_a_link_is_followed_and_said_and_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = home / "dotfiles" / "claude.json"
    real.parent.mkdir()
    real.write_text("{}\n")
    path = home / ".claude" / "settings.json"
    path.parent.mkdir()
    path.symlink_to(real)
    assert main(["connect", "claude-code", "--yes"]) == 0
    assert f"{path} leads to {real}: that file changes" in capsys.readouterr().out
    assert path.is_symlink() and "PreToolUse" in real.read_text()
    assert main(["connect", "claude-code", "--undo", "--yes"]) == 0
    assert path.is_symlink() and real.read_text() == "{}\n"


def test_a_repository_does_not_lead_us_out_of_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "elsewhere").mkdir()
    (home / "work" / ".cursor").symlink_to(home / "elsewhere")
    assert main(["connect", "cursor", "--project", "--yes"]) == 2
    assert "leads out of the project" in capsys.readouterr().err
    assert not list((home / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text('{"hooks": ['), "not JSON"),
        (lambda path: path.write_bytes(b'{"a": "\xff"}'), "not UTF-8"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to(path.parent / "gone"), "which is not there"),
        (lambda path: path.symlink_to(path), "not changed"),
        (lambda path: path.write_bytes(b" " * (connect_files.MAX_FILE + 1)), "longer than"),
        (lambda path: path.write_text('{"version": 7}'), "only 1 is understood"),
    ],
)
def test_what_is_no_settings_file_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], make: Any, why: str
) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    make(path)
    before = tree(home)
    assert main(["connect", "cursor", "--yes"]) == 2
    err = capsys.readouterr().err
    assert why in err and str(path) in err
    assert tree(home) == before


def test_a_read_only_file_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o444)
    assert main(["connect", "cursor", "--yes"]) == 2
    assert "it is read-only (mode 0444)" in capsys.readouterr().err
    assert path.read_text() == "{}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".cursor").mkdir(mode=0o500)
    assert main(["connect", "cursor", "--yes"]) == 2
    assert "was not changed" in capsys.readouterr().err


def test_a_terminal_is_not_steered_by_a_hostile_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    path.write_text('{"a": "\u202e\u2028\x7f"}')
    assert main(["connect", "cursor", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "\u202e" not in out and "\\u202e\\u2028\\x7f" in out


def test_nobody_is_asked_where_nobody_is(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    before = tree(home)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert main(["connect", "cursor"]) == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "n\n"))
    assert main(["connect", "cursor"]) == 1
    assert tree(home) == before
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "Yes\n"))
    assert main(["connect", "cursor"]) == 0
    assert tree(home) != before


def test_what_was_agreed_to_is_what_is_written(home: Path, monkeypatch: Any, capsys: Any) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    path.write_text("{}")

    def meanwhile() -> str:
        path.write_text('{"hooks": {}}')
        return "y\n"

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=meanwhile))
    assert main(["connect", "cursor"]) == 2
    assert "changed in the meantime" in capsys.readouterr().err
    assert path.read_text() == '{"hooks": {}}'
    assert main(["connect", "cursor", "--undo", "--yes"]) == 0
    assert path.read_text() == '{"hooks": {}}'


def test_without_a_home_nothing_is_guessed(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert main(["connect", "cursor", "--yes"]) == 2
    assert "no home directory is known" in capsys.readouterr().err


def test_json_says_what_happened(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "codex", "--json", "--yes"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["agent"], found["scope"], found["written"]) == ("codex", "user", True)
    (file,) = found["files"]
    assert file["action"] == "create" and file["path"] == file["target"] == str(home / ".codex" / "hooks.json")
    assert file["diff"].startswith("--- /dev/null\n") and file["left"] == []
    assert any("/hooks" in note for note in found["notes"])
    assert main(["connect", "codex", "--undo", "--json", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["action"] == "delete"


def test_damaged_notes_are_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "cursor", "--yes"]) == 0
    (kept,) = (home.parent / "data" / "connect").iterdir()
    kept.write_text('{"files": [{}]}')
    assert main(["connect", "cursor", "--undo", "--yes"]) == 2
    assert "it is damaged" in capsys.readouterr().err


# -- property: whatever settings a user has, undo gives them back byte for byte ---------------------------------------

keys = (
    st.sampled_from(["hooks", "PreToolUse", "env", "ANTHROPIC_BASE_URL", "apiKeyHelper", "permissions", "é"])
    | st.text()
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(keys, inner)
)
layouts = st.tuples(
    st.sampled_from([None, 0, 2, "\t"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\n", " "])
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys, plain), layouts, st.sampled_from([0o600, 0o644, 0o640]))
def test_undo_gives_any_settings_back_byte_for_byte(
    home: Path, rows: Any, value: dict[str, Any], layout: Any, mode: int
) -> None:
    indent, newline, end = layout
    text = (json.dumps(value, indent=indent, ensure_ascii=False) + end).replace("\n", newline)
    path = home / ".claude" / "settings.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
    before = tree(home)
    code = main(["connect", "claude-code", "--connection", "claude", "--connection", "prod", "--yes"])
    if code == 2:  # it has something else where hooks or variables belong
        assert tree(home) == before
        return
    assert code == 0
    assert tree(home) != before
    for key, one in value.items():
        if key not in ("hooks", "env", "apiKeyHelper"):
            assert json.loads(path.read_text())[key] == one
    assert main(["connect", "claude-code", "--undo", "--yes"]) == 0
    assert tree(home) == before


# -- places -----------------------------------------------------------------------------------------------------------


def where(platform: str, **environ: str) -> Where:
    """A person and a project on a platform."""
    return Where(platform, Path("/home/me"), Path("/src/app"), environ)


@pytest.mark.parametrize(
    ("agent", "scope", "file", "linux", "mac"),
    [
        ("cursor", "user", "hooks", "/home/me/.cursor/hooks.json", ""),
        ("cursor", "project", "hooks", "/src/app/.cursor/hooks.json", ""),
        ("cursor", "machine", "hooks", "/etc/cursor/hooks.json", "/Library/Application Support/Cursor/hooks.json"),
        ("claude-code", "user", "settings", "/home/me/.claude/settings.json", ""),
        ("claude-code", "project", "settings", "/src/app/.claude/settings.local.json", ""),
        (
            "claude-code", "machine", "settings", "/etc/claude-code/managed-settings.json",
            "/Library/Application Support/ClaudeCode/managed-settings.json",
        ),
        ("codex", "user", "config", "/home/me/.codex/config.toml", ""),
        ("codex", "project", "hooks", "/src/app/.codex/hooks.json", ""),
        ("codex", "machine", "hooks", "/etc/codex/hooks.json", ""),
        ("gemini", "user", "settings", "/home/me/.gemini/settings.json", ""),
        (
            "gemini", "machine", "settings", "/etc/gemini-cli/settings.json",
            "/Library/Application Support/GeminiCli/settings.json",
        ),
        ("copilot", "user", "hooks", "/home/me/.copilot/hooks/narrows.json", ""),
        ("copilot", "project", "hooks", "/src/app/.github/hooks/narrows.json", ""),
        ("opencode", "user", "config", "/home/me/.config/opencode/opencode.json", ""),
        ("opencode", "project", "plugin", "/src/app/.opencode/plugin/narrows.js", ""),
    ],
)  # fmt: skip
def test_places_by_platform(agent: str, scope: Scope, file: str, linux: str, mac: str) -> None:
    assert str(place(agent, scope, file, where("linux"))) == linux
    assert str(place(agent, scope, file, where("darwin"))) == (mac or linux)


def test_variables_move_the_users_own_places_only() -> None:
    moved = where("linux", CODEX_HOME="/c", CLAUDE_CONFIG_DIR="/d", XDG_CONFIG_HOME="relative", AWS_CONFIG_FILE="/a/b")
    assert place("codex", "user", "config", moved) == Path("/c/config.toml")
    assert place("claude-code", "user", "settings", moved) == Path("/d/settings.json")
    assert place("opencode", "user", "config", moved) == Path("/home/me/.config/opencode/opencode.json")
    assert place("codex", "project", "hooks", moved) == Path("/src/app/.codex/hooks.json")
    assert aws_config(moved) == Path("/a/b") and aws_config(where("darwin")) == Path("/home/me/.aws/config")
    with pytest.raises(ConfigError, match="Nothing was changed"):
        place("cursor", "user", "hooks", where("win32"))


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("scope", ["user", "project"])
def test_every_agent_has_a_plan_and_paths_with_spaces_are_quoted(agent: str, scope: Scope) -> None:
    order = Order(
        agent, scope, where("darwin"), "/Applications/My Tools/narrows", "http://127.0.0.1:8470",
        (Target("prod", "aws"),), data="/Users/me/Library/Application Support/other", plugin=connect._plugin(),
    )  # fmt: skip
    made = plan(order)
    for one in made.files:
        for edit in one.edits:
            for line in commands(edit.value):
                assert shlex.split(line)[0] == "/Applications/My Tools/narrows"
            if one.form == "ini":
                process = edit.value.splitlines()[0].partition(" = ")[2]
                assert shlex.split(process)[-2:] == ["--data", "/Users/me/Library/Application Support/other"]


def test_an_https_gateway_needs_its_ca_named() -> None:
    order = Order("claude-code", "user", where("linux"), NARROWS, "https://gw:8470",
                  (Target("claude", "llm", "anthropic"), Target("prod", "aws")), ca="/d/ca.pem")  # fmt: skip
    texts = json.dumps([edit.value for one in plan(order).files for edit in one.edits])
    assert "ca_bundle = /d/ca.pem" in texts and '"/d/ca.pem"' in texts


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    found = look(path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write(found, "{...}")
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"] and path.read_text() == "{}"


def test_notes_of_projects_are_apart(tmp_path: Path) -> None:
    paths = {Keeper(tmp_path, "cursor", "project", Path(root)).path for root in ("/a", "/b")}
    assert len(paths) == 2
