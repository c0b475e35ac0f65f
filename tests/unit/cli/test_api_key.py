"""`narrows api-key` prints a lease of the agent's own session, or of one that it opens for it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import agent_sessions, api_key
from narrows.cli.main import main
from narrows.cli.process import ancestors

LEASE = {"connection": "claude", "kind": "llm", "api_key": "nrw" + "1.key", "expires": 1}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key, "PATIENCE_S", {})


def lease(api: Any, session: str) -> None:
    """The gateway gives leases to this session only."""

    def give(query: dict[str, str], body: Any) -> tuple[int, Any]:
        return (201, LEASE) if body["session"] == session else (404, {"title": "No such session", "code": "not_found"})

    api.answers["POST /leases"] = give


def test_the_session_of_narrows_run_is_taken(api: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NARROWS_SESSION", "s-run")
    lease(api, "s-run")
    assert main(["api-key", "--agent", "claude-code", "--connection", "claude"]) == 0
    assert capsys.readouterr().out == "nrw1.key\n"
    assert api.bodies("POST /leases") == [{"session": "s-run", "connection": "claude"}]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the process tree is read from /proc")
def test_the_session_of_the_agents_hooks_is_found_by_its_process(api: Any, capsys: Any) -> None:
    parent = ancestors(os.getppid())[0]
    record = agent_sessions.Record(
        "claude-code", "s-hook", "token", "http://gw", "agent's own id", [(parent["pid"], parent["start"])],
        time.time(), int(time.time()) + 60,
    )  # fmt: skip
    agent_sessions.store(record, api.data)
    lease(api, "s-hook")
    assert main(["api-key", "--agent", "claude-code", "--connection", "claude"]) == 0
    assert capsys.readouterr().out == "nrw1.key\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the process tree is read from /proc")
def test_one_session_is_opened_and_found_again(api: Any, capsys: Any) -> None:
    api.answers["POST /sessions"] = (
        201, {"id": "s-new", "token": "t", "expires": int(time.time()) + 60, "leases": []},
    )  # fmt: skip
    lease(api, "s-new")
    for _ in range(2):
        assert main(["api-key", "--agent", "codex", "--connection", "gpt", "--connection", "prod"]) == 0
        assert capsys.readouterr().out == "nrw1.key\n"
    (opened,) = api.bodies("POST /sessions")
    assert opened["agent"]["name"] == "codex" and opened["connections"] == ["gpt", "prod"]


def test_without_a_session_and_an_agent_it_says_so(api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["api-key", "--connection", "claude"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "no session is named" in err


def test_a_connection_of_another_kind_has_no_key(api: Any, monkeypatch: Any, capsys: Any) -> None:
    api.answers["POST /leases"] = (201, {"kind": "aws", "access_key_id": "x"})
    assert main(["api-key", "--session", "s", "--connection", "prod"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "is of kind aws" in err


def test_no_gateway_is_exit_code_3_and_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["api-key", "--session", "s", "--connection", "claude"]) == 3
    assert capsys.readouterr().out == ""


def test_waiting_ends_with_what_is_found() -> None:
    answers = iter([None, None, "found"])
    assert api_key.waited(lambda: next(answers), 5) == "found"
    assert api_key.waited(lambda: None, 0) is None
