"""`narrows run` over a fake API: what the command sees, what passes through, and what is told to the gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from narrows.cli.main import main
from narrows.cli.run import agent_of, as_text

SESSION = "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
SHOW = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


@pytest.fixture
def gateway(api: Any) -> Any:
    lease = {
        "connection": "prod", "kind": "aws", "region": "eu-west-1", "access_key_id": "NRWLX",
        "secret_access_key": "s", "session_token": "t", "expires": 1,
    }  # fmt: skip
    api.answers["GET /connections"] = (200, {"items": [{"name": "prod"}]})
    api.answers["POST /sessions"] = (
        201,
        {
            "id": SESSION, "expires": 1, "gateway_url": "http://127.0.0.1:8470",
            "proxy_url": "http://narrows:proxy-password@127.0.0.1:8470", "ca_pem": "OURS", "leases": [lease],
            "token": "session-token",
        },
    )  # fmt: skip
    api.answers[f"POST /sessions/{SESSION}/close"] = (200, {"id": SESSION, "state": "closed"})
    return api


def _closed(gateway: Any) -> list[Any]:
    return [body["exit_code"] for body in gateway.bodies(f"POST /sessions/{SESSION}/close")]


def test_the_command_gets_leases_and_its_exit_code_comes_back(
    gateway: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real-secret")
    script = SHOW + "; print(open(os.environ['AWS_CA_BUNDLE']).read()[:4]); sys.exit(7)"
    code = main(["run", "--", sys.executable, "-c", script, str(tmp_path / "env")])
    assert code == 7
    env = json.loads((tmp_path / "env").read_text())
    assert "AWS_ACCESS_KEY_ID" not in env, "every process gets a lease of its own"
    assert env["NARROWS_SESSION"] == SESSION and env["NARROWS_TOKEN"] == "session-token"
    assert "real-secret" not in json.dumps(env)
    assert "tttttttt" not in json.dumps(env), "the management token is not the command's"
    assert not Path(env["AWS_CONFIG_FILE"]).parent.exists(), "leases are gone from the disk"
    (opened,) = gateway.bodies("POST /sessions")
    assert opened["connections"] == ["prod"]
    assert opened["agent"]["name"] == Path(sys.executable).name
    assert opened["command"][-1] == str(tmp_path / "env")
    assert opened["cwd"] == str(Path.cwd())
    assert _closed(gateway) == [7]
    said = capfd.readouterr()
    assert said.out == "OURS\n", "standard output is the command's alone"
    assert f"narrows show {SESSION}" in said.err
    assert "proxy-password" not in said.err


def test_options_reach_the_api_and_stop_at_the_command(gateway: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHOW, str(tmp_path / "env"), "--json", "--agent", "x"]
    assert main(["run", "--connection", "b", "--connection", "a", "--agent", "me", "--ttl", "60", *command]) == 0
    (opened,) = gateway.bodies("POST /sessions")
    assert opened["connections"] == ["b", "a"]
    assert opened["agent"]["name"] == "me"
    assert opened["ttl_s"] == 60
    assert opened["command"] == command


def test_one_way_may_be_off_but_not_both(gateway: Any, tmp_path: Path) -> None:
    command = ["--", sys.executable, "-c", SHOW, str(tmp_path / "env")]
    assert main(["run", "--no-endpoint", *command]) == 0
    assert "AWS_ENDPOINT_URL" not in json.loads((tmp_path / "env").read_text())
    assert main(["run", "--no-proxy", *command]) == 0
    assert "HTTPS_PROXY" not in json.loads((tmp_path / "env").read_text())
    assert main(["run", "--no-proxy", "--no-endpoint", *command]) == 2
    assert len(gateway.bodies("POST /sessions")) == 2


def test_one_lease_for_all_processes_if_asked_for(gateway: Any, tmp_path: Path) -> None:
    assert main(["run", "--env-keys", "--", sys.executable, "-c", SHOW, str(tmp_path / "env")]) == 0
    assert json.loads((tmp_path / "env").read_text())["AWS_ACCESS_KEY_ID"] == "NRWLX"


def _llm(name: str, provider: str) -> dict[str, str]:
    return {"name": name, "kind": "llm", "provider": provider}


@pytest.mark.parametrize(
    ("registered", "taken"),
    [
        ([{"name": "prod", "kind": "aws"}, _llm("claude", "anthropic"), _llm("gpt", "openai"), _llm("g", "gemini")],
         ["prod", "claude", "gpt", "g"]),
        ([_llm("claude", "anthropic"), {"name": "web", "kind": "http"}], ["claude"]),
        ([{"name": "web", "kind": "http"}], ["web"]),
        ([_llm("gpt", "openai"), _llm("groq", "openai-compatible")], "--connection: gpt, groq"),
        ([{"name": "prod", "kind": "aws"}, _llm("b", "anthropic"), _llm("a", "anthropic")], "--connection: a, b"),
        ([{"name": "x", "kind": "http"}, {"name": "y", "kind": "http"}], "--connection: x, y"),
    ],
)  # fmt: skip
def test_connections_that_do_not_compete_are_all_taken(
    gateway: Any, capfd: pytest.CaptureFixture[str], registered: list[dict[str, str]], taken: list[str] | str
) -> None:
    gateway.answers["GET /connections"] = (200, {"items": registered})
    if isinstance(taken, str):
        assert main(["run", "--", "true"]) == 2
        assert taken in capfd.readouterr().err
    else:
        assert main(["run", "--", "true"]) == 0
        assert gateway.bodies("POST /sessions")[0]["connections"] == taken


def test_which_connection(gateway: Any, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.answers["GET /connections"] = (200, {"items": [{"name": "b"}, {"name": "a"}]})
    assert main(["run", "--", "true"]) == 2
    assert "--connection: a, b" in capfd.readouterr().err
    gateway.answers["GET /connections"] = (200, {"items": []})
    assert main(["run", "--", "true"]) == 2
    assert "connection add" in capfd.readouterr().err
    assert gateway.bodies("POST /sessions") == []


@pytest.mark.parametrize(("command", "code"), [("/nonexistent/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run(gateway: Any, command: str, code: int) -> None:
    assert main(["run", "--", command]) == code
    assert _closed(gateway) == [code], "the session does not stay open"


def test_a_command_ended_by_a_signal(gateway: Any) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert main(["run", "--", sys.executable, "-c", script]) == 128 + 9
    assert _closed(gateway) == [-9]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_reach_the_command(gateway: Any, number: signal.Signals) -> None:
    """Sent to `narrows run` alone, as a supervisor of it would; without a terminal."""
    script = (
        f"import signal, sys; signal.signal({int(number)}, lambda *a: sys.exit(42));"
        "print('ready', flush=True); signal.pause()"
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "narrows.cli.main", "run", "--", sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(number)
    assert run.wait() == 42
    run.stdout.close()
    assert _closed(gateway) == [42]


def test_ctrl_c_reaches_the_command_once(gateway: Any) -> None:
    """On a terminal its driver signals the whole group: the command must not see a second one from us."""
    pty = pytest.importorskip("pty")
    script = (
        "import signal, sys, time\n"
        "hits = []\n"
        "signal.signal(signal.SIGINT, lambda *a: hits.append(1))\n"
        "print('ready', flush=True)\n"
        "while not hits: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "print('hits', len(hits), flush=True)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "narrows.cli.main", "run", "--", sys.executable, "-c", script])
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"hits" not in seen or not seen.endswith(b"\n"):
        seen += os.read(terminal, 1024)
    assert b"hits 1" in seen
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert _closed(gateway) == [0]


def test_a_session_that_cannot_be_closed_is_said(gateway: Any, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.answers[f"POST /sessions/{SESSION}/close"] = (503, {"title": "Broken", "code": "recorder_failed"})
    assert main(["run", "--", "true"]) == 0
    assert "was not closed: Broken" in capfd.readouterr().err


def test_no_gateway_can_be_started(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_text("in the way")
    assert main(["run", "--", "true"]) == 3
    assert "not started" in capfd.readouterr().err


def test_agent_names() -> None:
    assert agent_of(["/usr/bin/cursor-agent", "x"]) == "cursor"
    assert agent_of(["claude"]) == "claude-code"
    assert agent_of(["./deploy.sh"]) == "deploy.sh"
    assert agent_of(["./a\x1b[31m"]) == "a\\x1b[31m"
    assert as_text("a\udcffb") == "a\\xffb", "an argument that is not UTF-8 can be recorded"
