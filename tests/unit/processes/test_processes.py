"""The list of a process and those above it: what the kernel says, bounded, whatever happens to them meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from narrows import processes


def child(*argv: str, **options: object) -> subprocess.Popen[bytes]:
    """A process that waits on its standard input."""
    code = "import sys; print(1, flush=True); sys.stdin.read()"
    made = subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )  # type: ignore[call-overload]
    assert made.stdout is not None and made.stdout.readline()
    return made  # type: ignore[no-any-return]


def end(made: subprocess.Popen[bytes]) -> None:
    made.communicate(timeout=10)


def test_a_process_is_told_with_those_above_it(tmp_path: os.PathLike[str]) -> None:
    made = child("an argument", "", "ä\n", cwd=tmp_path)
    try:
        tree = processes.tree(made.pid)
        first, parent = tree[0], tree[1]
        assert first["pid"] == made.pid and first["ppid"] == parent["pid"] == os.getpid()
        assert first["argv"][0] == sys.executable and first["argv"][-3:] == ["an argument", "", "ä\n"]
        assert first["cwd"] == str(tmp_path) and first["exe"] == os.readlink("/proc/self/exe")
        assert first["start"] >= parent["start"] > 0
        assert [one["ppid"] for one in tree[:-1]] == [one["pid"] for one in tree[1:]]
    finally:
        end(made)


def test_bytes_that_are_no_text_are_told_apart() -> None:
    made = child(os.fsdecode(b"\xff\xfe"))
    try:
        assert processes.tree(made.pid)[0]["argv"][-1] == r"\xff\xfe"
    finally:
        end(made)


def test_arguments_are_cut_where_they_are_too_long_together() -> None:
    made = child(*["x" * 1000] * 60)
    try:
        tree = processes.tree(made.pid)
        argv = tree[0]["argv"]
        assert argv[-1] == processes.CUT and sum(len(part) + 1 for part in argv[:-1]) <= processes.ARGV + 1
        assert tree[1]["argv"] == [processes.CUT], "nothing is left for the parent"
    finally:
        end(made)


def test_a_process_that_is_gone_or_is_another_now_has_no_list() -> None:
    made = child()
    start = processes.stat(made.pid)[0]
    assert processes.tree(made.pid, start)[0]["pid"] == made.pid
    assert processes.tree(made.pid, start + 1) == [], "the pid was used again"
    assert processes.peer(f"pid:{made.pid}:{start}")[0]["pid"] == made.pid
    assert made.stdin is not None
    made.stdin.close()
    os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)
    assert processes.stat(made.pid) == (0, 0), "a zombie did what it did"
    assert processes.tree(made.pid) == []
    made.stdin = None
    end(made)
    assert processes.tree(made.pid) == [] and processes.peer(f"pid:{made.pid}:{start}") == []


@pytest.mark.parametrize("text", ["local", "127.0.0.1:80", "pid:", "pid:x:1", "pid:1", "pid:1:0", "pid:-1:5", ""])
def test_other_clients_are_no_processes(text: str) -> None:
    assert processes.peer(text) == []


def test_the_list_ends_at_narrows_run() -> None:
    assert processes.runs_session(["/x/python", "/x/bin/narrows", "run", "--", "claude"])
    assert processes.runs_session(["python3", "-P", "-m", "narrows.cli.main", "run"])
    assert not processes.runs_session(["/x/python", "/x/bin/narrows", "hook", "run"])
    assert not processes.runs_session(["run", "narrows"]) and not processes.runs_session([])


def test_depth_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stat", lambda pid: (5, pid + 1))
    monkeypatch.setattr(processes, "_argv", lambda pid, left: ([], left))
    assert len(processes.tree(10)) == processes.DEPTH


def test_a_parent_that_began_after_its_child_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stat", lambda pid: {10: (5, 9), 9: (6, 1)}.get(pid, (0, 0)))
    monkeypatch.setattr(processes, "_argv", lambda pid, left: ([], left))
    assert [one["pid"] for one in processes.tree(10)] == [10]


def test_a_process_that_changes_while_it_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = iter([(5, 9), (7, 9)])
    monkeypatch.setattr(processes, "stat", lambda pid: next(starts))
    monkeypatch.setattr(processes, "_argv", lambda pid, left: ([], left))
    assert processes.tree(10) == []
