"""The kept sessions of agents: who finds which, and what is not believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from narrows.cli import agent_sessions
from narrows.cli.agent_sessions import Record, find, load, safe_id, store
from narrows.cli.hook_process import up_to_agent
from narrows.core.errors import ConfigError

LATER = int(time.time()) + 3600


def record(
    name: str, *process: tuple[int, int], opened: float = 1.0, agent: str = "cursor", expires: int = LATER
) -> Record:
    return Record(agent, f"session-{name}", f"token-{name}", "http://127.0.0.1:1", name, list(process), opened, expires)


def test_the_nearest_shared_process_wins_then_the_newest(tmp_path: Path) -> None:
    editor, helper, other = (100, 5), (200, 6), (300, 7)
    store(record("window", editor), tmp_path)
    store(record("older", helper, editor, opened=1.0), tmp_path)
    store(record("newer", helper, editor, opened=2.0), tmp_path)
    command = [(900, 90), (800, 80), helper, editor, (1, 1)]
    found = find("cursor", command, tmp_path)
    assert found is not None and (found.session, found.token) == ("session-newer", "token-newer")
    found = find("cursor", [{"pid": 901, "start": 91}, {"pid": 100, "start": 5}], tmp_path)
    assert found is not None and found.session == "session-newer", "all three share the editor"
    assert find("cursor", [other, (1, 1)], tmp_path) is None
    assert find("codex", command, tmp_path) is None
    assert find("", command, tmp_path) is not None, "any agent's"


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    store(record("a", (100, 5)), tmp_path)
    assert find("cursor", [(100, 6)], tmp_path) is None


def test_process_one_is_nobodys(tmp_path: Path) -> None:
    store(record("a", (100, 5), (1, 1)), tmp_path)
    assert find("cursor", [(1, 1)], tmp_path) is None


def test_what_is_expired_goes_away(tmp_path: Path) -> None:
    store(record("a", (100, 5), expires=int(time.time()) - 1), tmp_path)
    assert load("cursor", "a", tmp_path) is None
    assert find("cursor", [(100, 5)], tmp_path) is None
    assert agent_sessions.records("cursor", tmp_path) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o622])
def test_a_file_that_others_can_use_is_not_believed(tmp_path: Path, mode: int) -> None:
    store(record("a", (100, 5)), tmp_path)
    (path,) = (tmp_path / "run" / "agents" / "cursor").glob("*.json")
    path.chmod(mode)
    assert load("cursor", "a", tmp_path) is None and find("cursor", [(100, 5)], tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"session": 1}', b"[" * 60_000, b'{"process": [[1]]}'])
def test_a_damaged_file_is_no_session(tmp_path: Path, content: bytes) -> None:
    store(record("a", (100, 5)), tmp_path)
    (path,) = (tmp_path / "run" / "agents" / "cursor").glob("*.json")
    path.write_bytes(content)
    assert load("cursor", "a", tmp_path) is None and find("cursor", [(100, 5)], tmp_path) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store(record("a", (100, 5)), tmp_path)
    (path,) = (tmp_path / "run" / "agents" / "cursor").glob("*.json")
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError):
        load("cursor", "a", tmp_path)


HOSTILE = ["../../../etc/passwd", "a/b", ".", "..", "", "x" * 5000, "x" * 5001, "ä", "\ud800", "a\0b", "=41", "A"]


def test_ids_are_safe_and_stay_different(tmp_path: Path) -> None:
    names = [safe_id(one) for one in HOSTILE]
    assert len(set(names)) == len(HOSTILE)
    for one, name in zip(HOSTILE, names, strict=True):
        assert "/" not in name and "\0" not in name and not name.startswith(".") and len(name) <= 120
        store(record("a", (1000, len(one))), tmp_path)
    with pytest.raises(ConfigError):
        agent_sessions.folder(tmp_path, "../x")


def test_forget_leaves_a_session_that_took_its_place(tmp_path: Path) -> None:
    old = record("a", (100, 5))
    new = Record("cursor", "other", "t", "g", "a", [(100, 5)], 3.0, LATER)
    store(new, tmp_path)
    agent_sessions.forget(old, tmp_path)
    assert load("cursor", "a", tmp_path) is not None
    agent_sessions.forget(new, tmp_path)
    assert load("cursor", "a", tmp_path) is None
    agent_sessions.forget(new, tmp_path)


def test_the_lock_lets_the_next_in_and_leaves_nothing(tmp_path: Path) -> None:
    with agent_sessions.Lock("cursor", "a", tmp_path):
        pass
    with agent_sessions.Lock("cursor", "a", tmp_path):
        pass
    assert os.listdir(tmp_path / "run" / "agents" / "cursor") == []


# -- which process is the agent ----------------------------------------------------------------------------------------


def process(pid: int, *argv: str, exe: str = "") -> dict[str, object]:
    return {"pid": pid, "start": pid * 10, "ppid": pid - 1, "argv": list(argv), "cwd": "/", "exe": exe}


def pids(agent: str, *tree: dict[str, object]) -> list[object]:
    return [one["pid"] for one in up_to_agent(agent, tree)]


def test_the_login_shell_is_not_the_agents() -> None:
    shell, init = process(20, "-zsh"), process(1, "/sbin/init")
    assert pids("claude-code", process(50, "sh", "-c", "narrows hook"), process(40, "claude"), shell, init) == [50, 40]
    node = process(41, "node", "/usr/lib/node_modules/@openai/codex/bin/codex.js")
    assert pids("codex", process(42, "/opt/codex/codex"), node, shell, init) == [42, 41]
    gemini = process(40, "node", "/usr/lib/node_modules/@google/gemini-cli/dist/index.js")
    assert pids("gemini", process(50, "bash"), gemini, shell) == [50, 40]


def test_an_editors_helper_belongs_to_the_editor() -> None:
    helper = process(60, "/usr/share/cursor/cursor --type=utility", exe="/usr/share/cursor/cursor")
    main = process(50, "/usr/share/cursor/cursor", exe="/usr/share/cursor/cursor")
    assert pids("cursor", process(70, "/bin/sh", "-c", "x"), helper, main, process(20, "bash")) == [70, 60, 50]


def test_an_agent_inside_another_keeps_its_own() -> None:
    inner, outer = process(60, "claude"), process(40, "claude")
    assert pids("claude-code", inner, process(50, "bash"), outer, process(20, "zsh")) == [60]


def test_an_agent_that_is_not_known_by_name() -> None:
    assert pids("mine", process(50, "/bin/sh"), process(40, "python3.12", "agent.py"), process(20, "bash")) == [50, 40]
    assert pids("mine", process(1, "init")) == []
