"""Claude Code, Codex and opencode, as they are, through `narrows run`: from an AWS call back to the prompt.

Only `make test-agents` runs them, and installs them first from `agents/package-lock.json` into a cache outside the
tree. Each gets a home of its own, and its model is a script.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.gateway import BIN, Ran, until
from tests.kit.model import Call, Turn
from tests.kit.stories import Stage, Why, aws, caused, in_order, run, timeline

pytestmark = [pytest.mark.slow, pytest.mark.agents, pytest.mark.timeout(900)]

HERE = Path(__file__).parent / "agents"
PROMPT = "Make a bucket for the exports."


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with the agents' programs, installed at first; skipped where they were not asked for."""
    if os.environ.get("NARROWS_TEST_AGENTS") != "install":
        pytest.skip("a gigabyte of agents is asked for by `make test-agents` only")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "narrows-tests" / f"agents-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        if not shutil.which("npm"):
            pytest.fail("npm is not installed: Node 18 or newer has it")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        # Not `npm ci`: it wants an entry for every platform, and the lock file has those of Linux.
        _do(folder, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
        # Of all scripts, the two that put the program for this platform in its place.
        _do(folder / "node_modules" / "@anthropic-ai" / "claude-code", "node", "install.cjs")
        _do(folder / "node_modules" / "opencode-ai", "node", "postinstall.mjs")
        (folder / "installed").touch()
    return folder / "node_modules" / ".bin"


def _do(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@dataclass(frozen=True)
class Case:
    """One agent: its command but for the program's folder, and what the record says of it."""

    name: str
    connection: str
    command: tuple[str, ...]
    agent: str
    prompt: str = PROMPT

    @property
    def model(self) -> str:
        """The model that it asks, and its bucket's name."""
        return f"agents-{self.name}"


CASES = (
    Case(
        "claude", "claude",
        ("claude", "-p", PROMPT, "--model", "MODEL", "--output-format", "json", "--allowedTools", "Bash"),
        "claude-code",
    ),
    Case(
        "codex", "gpt",
        ("codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox",
         "-m", "MODEL", PROMPT),
        "codex",
    ),
    Case(
        "codex-http", "gpt",
        ("codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox",
         "-c", "model_provider=gw", "-c", "model_providers.gw={name='gw',base_url='BASE',env_key='OPENAI_API_KEY',"
         "wire_api='responses'}", "-m", "MODEL", PROMPT),
        "codex",
    ),
    # opencode puts quotation marks around an argument with spaces before it sends it.
    Case("opencode", "claude", ("opencode", "run", "-m", "anthropic/MODEL", PROMPT), "opencode", f'"{PROMPT}"'),
)  # fmt: skip


def start(on: Stage, case: Case, programs: Path, home: Path) -> Ran:
    """Run the agent in a session, in an empty folder and with a home of its own."""
    config = {"autoupdate": False, "share": "disabled", "provider": {"anthropic": {"models": {case.model: {}}}}}
    own = {
        "HOME": str(home), "TERM": "dumb", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1",
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
    }  # fmt: skip
    own |= {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "STATE")}
    gateway = json.loads((on.narrows.data / "run" / "local.json").read_text())["gateway"]
    # Codex runs commands in a login shell, whose PATH is what the user's own profile says.
    (home / ".profile").write_text(f"export PATH={BIN}:$PATH\n")
    command = [str(programs / case.command[0]), *(part.replace("MODEL", case.model) for part in case.command[1:])]
    command = [part.replace("BASE", f"{gateway}/llm/{case.connection}/v1") for part in command]
    return run(on.narrows, command, "--connection", "demo", "--connection", case.connection, env=own, seconds=400)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_why_leads_to_the_prompt(
    on: Stage, programs: Path, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    command = f"aws s3 mb s3://{case.model}"
    on.stories.add(case.model, Turn("First the bucket.", (Call(shell=command),)), Turn("The bucket is there."))
    ran = start(on, case, programs, tmp_path)
    print(ran.out, ran.err)
    assert ran.code == 0 and "The bucket is there." in ran.out
    until("the last answer", lambda: any("is there" in text for _, text in timeline(on.narrows, ran.session)))
    (call,) = aws(on.narrows, ran.session, "CreateBucket")
    why = Why(on.narrows, call["id"])
    why.reaches(case.prompt, command)
    asked = why.steps[-1]
    assert (asked["agent"], asked["model"]) == (case.agent, case.model) and asked["agent_version"], asked
    assert call["id"] in caused(on.narrows, asked["node"])
    in_order(
        timeline(on.narrows, ran.session),
        ("prompt", case.prompt), ("answer", "First the bucket."), ("tool_call", command), ("process", ""),
        ("call", "CreateBucket"), ("answer", "The bucket is there."),
    )  # fmt: skip
    print(on.narrows.narrows("show", ran.session).stdout, on.narrows.narrows("why", call["id"]).stdout)
