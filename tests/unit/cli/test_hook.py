"""The real `narrows hook` process against a small server: what it sends and prints, and what it does without one."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import agent_sessions, local

HOOKS = Path(__file__).parents[2] / "fixtures" / "hooks"
OWNER = "o" * 43
ALLOW = {"decision": "allow", "reason": "", "exchange": "e1"}


@dataclass
class Asked:
    """A request as the server got it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Stands for the gateway and its API. `event` gives status and JSON for an event."""

    data: Path
    event: Callable[[str], tuple[int, Any]] = lambda token: (200, ALLOW)
    asked: list[Asked] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    opened: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, one: Asked, method: str) -> tuple[int, Any]:
        token = one.headers.get("Authorization", "").removeprefix("Bearer ")
        if one.path.startswith("/_narrows/events/"):
            return self.event(token)
        if token != OWNER:
            return 401, {"title": "no token"}
        if (method, one.path) == ("POST", "/api/v1/sessions"):
            with self.lock:
                self.opened += 1
                name = f"s{self.opened}"
            self.states[name] = "open"
            return 201, {"id": name, "token": f"token-{name}", "expires": int(time.time()) + 60, "leases": []}
        if one.path == "/api/v1/connections":
            return 200, {"items": [{"name": "only"}], "next": None}
        name = one.path.split("/")[4]
        if one.path.endswith("/close"):
            self.states[name] = "closed"
        return (200, {"id": name, "state": self.states[name]}) if name in self.states else (404, {"title": "none"})

    def events(self) -> list[Asked]:
        return [one for one in self.asked if one.path.startswith("/_narrows/events/")]

    def hook(
        self, *arguments: str, payload: bytes = b"{}", direct: bool = True, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the hook as an agent does; `direct`: in a session of `narrows run`."""
        given = {"NARROWS_TOKEN": "tok", "NARROWS_GATEWAY": self.url} if direct else {}
        return run_hook(*arguments, payload=payload, NARROWS_DATA=str(self.data), **given, **env)


def run_hook(*arguments: str, payload: bytes = b"{}", **env: str) -> subprocess.CompletedProcess[bytes]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NARROWS_")}
    command = [sys.executable, "-m", "narrows.cli.main", "hook", *arguments]
    return subprocess.run(command, input=payload, capture_output=True, env=clean | env, timeout=30, check=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            one = Asked(self.path, dict(self.headers.items()), body)
            found.asked.append(one)
            status, value = found.answer(one, self.command)
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    found.url = f"http://127.0.0.1:{httpd.server_port}"
    (tmp_path / "run").mkdir(mode=0o700)
    local.write(tmp_path, api=found.url, gateway=found.url, token=OWNER, pid=1)
    yield found
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def fixture(agent: str, name: str) -> bytes:
    return (HOOKS / agent / f"{name}.json").read_bytes()


# -- what goes to the gateway, and comes back --------------------------------------------------------------------------


def test_the_payload_goes_as_it_is(server: Server) -> None:
    payload = fixture("cursor", "preToolUse")
    done = server.hook("cursor", payload=payload)
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"permission":"allow"}\n', b"")
    (one,) = server.asked
    assert one.path == "/_narrows/events/cursor" and one.body == payload
    assert one.headers["Authorization"] == "Bearer tok" and one.headers["Content-Type"] == "application/json"
    assert "X-Narrows-Process" in one.headers and "X-Narrows-Event" not in one.headers


def test_bytes_that_are_no_json_go_as_they_are(server: Server) -> None:
    payload = b'\xff\xfe{"hook_event_name":\x00 "\xed\xa0\x80" ' + b"[" * 5000
    assert server.hook("cursor", payload=payload).returncode == 0
    assert server.asked[0].body == payload
    assert server.hook("claude-code", payload=b"").stdout == b"{}\n"


def test_copilot_is_told_its_event(server: Server) -> None:
    server.event = lambda token: (200, {"decision": "deny", "reason": "no purge"})
    done = server.hook("copilot", "--event", "permissionRequest", payload=fixture("copilot", "permissionRequest"))
    assert json.loads(done.stdout) == {"behavior": "deny", "message": "no purge"}
    assert server.asked[0].headers["X-Narrows-Event"] == "permissionRequest"


@pytest.mark.parametrize(
    ("agent", "event", "said", "code"),
    [
        ("cursor", "beforeShellExecution",
         {"permission": "deny", "user_message": "no", "agent_message": "no"}, 0),
        ("cursor", "preToolUse",
         {"permission": "deny", "user_message": "no", "decision": "deny", "reason": "no", "agent_message": "no"}, 0),
        ("cursor", "beforeSubmitPrompt", {"continue": False, "user_message": "no"}, 0),
        ("claude-code", "PreToolUse",
         {"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "deny",
                                 "permissionDecisionReason": "no"}}, 0),
        ("claude-code", "UserPromptSubmit", {"decision": "block", "reason": "no"}, 0),
        ("claude-code", "ConfigChange", None, 2),
        ("codex", "PermissionRequest",
         {"hookSpecificOutput": {"hookEventName": "PermissionRequest",
                                 "decision": {"behavior": "deny", "message": "no"}}}, 0),
        ("gemini", "BeforeTool", {"decision": "deny", "reason": "no"}, 0),
        ("copilot", "preToolUse", {"permissionDecision": "deny", "permissionDecisionReason": "no"}, 0),
        ("opencode", "tool.execute.before", {"decision": "deny", "reason": "no"}, 0),
    ],
)  # fmt: skip
def test_a_deny_in_the_agents_own_form(
    server: Server, agent: str, event: str, said: dict[str, Any] | None, code: int
) -> None:
    server.event = lambda token: (200, {"decision": "deny", "reason": "no"})
    done = server.hook(agent, payload=fixture(agent, event))
    assert done.returncode == code
    assert (json.loads(done.stdout) if said else done.stdout) == (said or b"")
    assert said or b"no" in done.stderr


def test_a_reason_cannot_write_to_the_terminal(server: Server) -> None:
    server.event = lambda token: (200, {"decision": "deny", "reason": "\x1b]0;owned\x07 a\r\nb \ud800"})
    done = server.hook("claude-code", payload=b'{"hook_event_name":"ConfigChange"}')
    assert done.returncode == 2 and done.stderr.decode().removesuffix("\n").isprintable()
    told = server.hook("cursor", payload=b'{"hook_event_name":"preToolUse"}').stdout
    assert "\x1b" not in json.loads(told)["user_message"]


def test_an_event_that_cannot_be_stopped_goes_on(server: Server) -> None:
    server.event = lambda token: (200, {"decision": "deny", "reason": "too late"})
    done = server.hook("claude-code", payload=fixture("claude-code", "Stop"))
    assert (done.returncode, done.stdout) == (0, b"{}\n") and b"too late" in done.stderr


def test_what_is_too_long_is_told_and_not_sent(server: Server) -> None:
    payload = b'{"hook_event_name":"preToolUse","conversation_id":"c1","tool_input":"' + b"a" * (17 << 20) + b'"}'
    done = server.hook("cursor", payload=payload)
    sent = json.loads(server.asked[0].body)
    assert sent["narrows_cut"]["bytes"] == len(payload) and len(server.asked[0].body) < 200_000
    assert (sent["hook_event_name"], sent["conversation_id"]) == ("preToolUse", "c1")
    assert done.stdout == b'{"permission":"allow"}\n' and b"longer than" in done.stderr
    closed = server.hook("cursor", "--fail-closed", payload=payload)
    assert json.loads(closed.stdout)["permission"] == "deny"


# -- without a gateway -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "event", "allowed", "denied"),
    [
        ("cursor", "beforeMCPExecution", {"permission": "allow"}, "permission"),
        ("claude-code", "PreToolUse", {}, "hookSpecificOutput"),
        ("codex", "PreToolUse", {}, "hookSpecificOutput"),
        ("gemini", "BeforeTool", {"decision": "allow"}, "decision"),
        ("copilot", "preToolUse", {}, "permissionDecision"),
        ("opencode", "tool.execute.before", {"decision": "allow"}, "decision"),
    ],
)
def test_unreachable_both_ways(tmp_path: Path, agent: str, event: str, allowed: dict[str, Any], denied: str) -> None:
    payload = fixture(agent, event)
    for env in ({}, {"NARROWS_TOKEN": "t", "NARROWS_GATEWAY": f"http://127.0.0.1:{unused_port()}"}):
        done = run_hook(agent, "--data", str(tmp_path), payload=payload, **env)
        assert (done.returncode, json.loads(done.stdout)) == (0, allowed)
        assert b"not on record" in done.stderr and b"Traceback" not in done.stderr
        done = run_hook(agent, "--data", str(tmp_path), "--fail-closed", payload=payload, **env)
        assert done.returncode == 0 and denied in json.loads(done.stdout) and b"fails closed" in done.stdout
        assert json.loads(done.stdout) != allowed


def test_unreachable_and_closed_with_an_event_that_cannot_be_stopped(tmp_path: Path) -> None:
    done = run_hook("cursor", "--data", str(tmp_path), "--fail-closed", payload=fixture("cursor", "afterFileEdit"))
    assert (done.returncode, done.stdout) == (0, b"{}\n") and b"not on record" in done.stderr


def test_garbage_with_a_closed_hook_is_blocked(tmp_path: Path) -> None:
    done = run_hook("claude-code", "--data", str(tmp_path), "--fail-closed", payload=b"\xff garbage")
    assert (done.returncode, done.stdout) == (2, b"") and b"fails closed" in done.stderr


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("closed", [False, True])
def test_a_gateway_that_hangs(tmp_path: Path, closed: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        gateway = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = ["cursor", "--timeout", "0.4", *(["--fail-closed"] if closed else [])]
        begun = time.monotonic()
        done = run_hook(*options, payload=fixture("cursor", "preToolUse"), NARROWS_TOKEN="t", NARROWS_GATEWAY=gateway)
    assert time.monotonic() - begun < 3
    assert json.loads(done.stdout)["permission"] == ("deny" if closed else "allow")
    assert b"no answer within 0.4 s" in (done.stdout if closed else done.stderr)


def test_an_agent_that_never_closes_its_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "narrows.cli.main", "hook", "gemini", "--timeout", "0.3", "--fail-closed"]
    command += ["--data", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        out = process.stdout.read()
        process.stdin.close()
        assert json.loads(out)["decision"] == "deny"


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}", b"", b"HTTP/1.1 200 OK\r\n\r\nnot json"],
)
def test_something_else_listens_there(tmp_path: Path, answer: bytes) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def serve() -> None:
            for _ in range(2):
                stream, _ = other.accept()
                with stream:
                    stream.recv(65536)
                    stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        env = {"NARROWS_TOKEN": "t", "NARROWS_GATEWAY": f"http://127.0.0.1:{other.getsockname()[1]}"}
        payload = fixture("cursor", "preToolUse")
        assert run_hook("cursor", payload=payload, **env).stdout == b'{"permission":"allow"}\n'
        closed = run_hook("cursor", "--fail-closed", payload=payload, **env)
        thread.join()
    assert json.loads(closed.stdout)["permission"] == "deny" and b"Traceback" not in closed.stderr


@pytest.mark.parametrize("words", [[], ["../x"], ["cursor", "--nothing"], ["cursor", "--timeout", "soon"]])
def test_wrong_use_is_an_error_that_does_not_block(words: list[str]) -> None:
    done = run_hook(*words)
    assert (done.returncode, done.stdout) == (1, b"") and done.stderr.startswith(b"narrows: ")
    assert run_hook(*words, "--fail-closed").returncode == 2


# -- the session -------------------------------------------------------------------------------------------------------


def test_a_session_is_opened_once_and_closed_at_the_end(server: Server) -> None:
    for name in ("sessionStart", "preToolUse"):
        assert server.hook("cursor", payload=fixture("cursor", name), direct=False).returncode == 0
    opens = [json.loads(one.body) for one in server.asked if one.path == "/api/v1/sessions"]
    assert len(opens) == 1
    assert opens[0]["agent"] == {"name": "cursor", "version": "3.21.16"} and opens[0]["connections"] == ["only"]
    assert opens[0]["cwd"] == "/home/ana/shop" and opens[0]["pid"] == os.getpid()
    assert {one.headers["Authorization"] for one in server.events()} == {"Bearer token-s1"}
    (kept,) = (server.data / "run" / "agents" / "cursor").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700

    done = server.hook("cursor", payload=fixture("cursor", "sessionEnd"), direct=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert server.events()[-1].headers["Authorization"] == "Bearer token-s1", "the end itself is in the session"
    assert server.states == {"s1": "closed"} and not kept.exists()


def test_a_session_of_narrows_run_is_not_closed_by_a_hook(server: Server) -> None:
    server.hook("cursor", payload=fixture("cursor", "sessionEnd"))
    assert [one.path for one in server.asked] == ["/_narrows/events/cursor"]


def test_connections_are_named(server: Server) -> None:
    server.hook("codex", "--connection", "a", "--connection=b", payload=fixture("codex", "Stop"), direct=False)
    assert json.loads(server.asked[0].body)["connections"] == ["a", "b"]


def test_hooks_that_start_at_once_open_one_session(server: Server) -> None:
    payload = fixture("claude-code", "PreToolUse")
    with ThreadPoolExecutor(6) as pool:
        every = list(pool.map(lambda _: server.hook("claude-code", payload=payload, direct=False), range(6)))
    assert [done.returncode for done in every] == [0] * 6 and [done.stderr for done in every] == [b""] * 6
    assert server.opened == 1
    assert {one.headers["Authorization"] for one in server.events()} == {"Bearer token-s1"}
    assert not list((server.data / "run" / "agents" / "claude-code").glob(".*")), "no lock is left behind"


def test_a_session_that_expired_is_replaced_and_a_killed_one_is_not(server: Server) -> None:
    payload = fixture("gemini", "BeforeTool")
    server.hook("gemini", payload=payload, direct=False)
    server.event = lambda token: (
        (200, ALLOW) if token != "token-s1" else (403, {"error": {"code": "session_ended", "what": "It is expired"}})
    )
    server.states["s1"] = "expired"
    assert json.loads(server.hook("gemini", payload=payload, direct=False).stdout) == {"decision": "allow"}
    assert server.events()[-1].headers["Authorization"] == "Bearer token-s2"

    server.event = lambda token: (403, {"error": {"code": "session_ended", "what": "The session is killed", "why": ""}})
    server.states["s2"] = "killed"
    for _ in range(2):
        done = server.hook("gemini", payload=payload, direct=False)
        assert json.loads(done.stdout) == {"decision": "deny", "reason": "The session is killed"}
    assert server.opened == 2


def test_the_session_of_an_agent_that_died_is_closed_by_the_next(server: Server) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as gone:
        from narrows.cli.process import ancestors

        start = int(ancestors(gone.pid)[0]["start"])
        assert gone.stdin is not None
        gone.stdin.close()
    server.states["s9"] = "open"
    record = agent_sessions.Record(
        "codex", "s9", "t", server.url, "old", [(gone.pid, start)], 1.0, int(time.time()) + 60
    )
    agent_sessions.store(record, server.data)
    server.hook("codex", payload=fixture("codex", "PreToolUse"), direct=False)
    assert server.states["s9"] == "closed" and agent_sessions.load("codex", "old", server.data) is None


def test_several_connections_and_none_named(server: Server) -> None:
    real = server.answer
    server.answer = lambda one, method: (  # type: ignore[method-assign]
        (200, {"items": [{"name": "a"}, {"name": "b"}]}) if one.path == "/api/v1/connections" else real(one, method)
    )
    done = server.hook("gemini", payload=fixture("gemini", "BeforeTool"), direct=False)
    assert done.stdout == b'{"decision":"allow"}\n' and b"--connection" in done.stderr


def test_a_token_never_shows(server: Server) -> None:
    done = server.hook("cursor", payload=fixture("cursor", "preToolUse"), direct=False)
    assert b"token-s1" not in done.stdout + done.stderr and OWNER.encode() not in done.stdout + done.stderr
    record = agent_sessions.load("cursor", "668320d2-2fd8-4888-b33c-2a466fec86e7", server.data)
    assert record is not None and "token-s1" not in repr(record)


# -- how it starts -----------------------------------------------------------------------------------------------------


def test_it_imports_almost_nothing(tmp_path: Path) -> None:
    """Start time cannot be asserted on a shared machine; what would spoil it can."""
    code = (
        "import sys; sys.argv = ['narrows', 'hook', 'cursor', '--data', sys.argv[1]]\n"
        "from narrows.cli.main import main; main()\n"
        "heavy = {'asyncio', 'ssl', 'http', 'http.client', 'urllib.request', 'typing', 'pathlib', 'dataclasses',\n"
        "         'logging', 'subprocess', 'inspect', 'hashlib', 'typer', 'rich', 'orjson', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], input=b"{}", capture_output=True, check=True, timeout=30
    )
    assert done.stderr.splitlines()[-1] == b"[]"


def test_a_session_that_was_opened_for_a_key_becomes_the_conversations(server: Server) -> None:
    from narrows.cli.process import ancestors

    me = ancestors(os.getpid())[0]
    pair = (int(me["pid"]), int(me["start"]))
    early = agent_sessions.Record(
        "codex",
        "s0",
        "token-s0",
        server.url,
        f"process {pair[0]}:{pair[1]}",
        [pair],
        time.time(),
        int(time.time()) + 60,
    )
    agent_sessions.store(early, str(server.data))
    server.hook("codex", payload=fixture("codex", "PreToolUse"), direct=False)
    assert server.opened == 0
    assert server.events()[-1].headers["Authorization"] == "Bearer token-s0"
    (kept,) = agent_sessions.records("codex", str(server.data))
    assert kept.session == "s0" and not kept.agent_session.startswith("process ")
