"""The commands that ask the API, over a fake one: what they send, what they print, how they exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import sessions
from narrows.cli.main import main

S1 = "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
E1 = "0193a1b2-c3d5-7e5f-8a9b-0c1d2e3f4a01"
HOSTILE = "\x1b]0;owned\x07\u202e"


def _exchange(**more: Any) -> dict[str, Any]:
    return {
        "id": E1, "session": S1, "leaf_index": 3, "kind": "aws.call", "connection": "prod", "principal": "alice",
        "agent": "cursor", "service": "s3", "operation": "DeleteObject", "action": "s3:DeleteObject",
        "access_level": "Write", "resources": [{"arn": "arn:aws:s3:::bucket/key", "exact": True}], "region": "",
        "account": "", "status": 403, "error_code": "AccessDenied", "error_message": HOSTILE, "request_id": "R1",
        "invocation_id": "i", "attempt": 2, "outcome": "complete", "decision": "allow", "reason": "default",
        "durability": "strict", "started_ns": 1_700_000_000_000_000_000, "ended_ns": 1_700_000_000_050_000_000,
        "first_byte_ns": 20_000_000, "last_byte_ns": 50_000_000, "gateway_ns": 300_000, "bytes_in": 10,
        "bytes_out": 2048, "host": "s3.amazonaws.com", "method": "DELETE", "target": "/bucket/key",
        "parameters": {"Key": HOSTILE}, "parameters_truncated": False, "events": [], "problems": [], **more,
    }  # fmt: skip


def _session(**more: Any) -> dict[str, Any]:
    return {
        "id": S1, "principal": "alice", "principal_kind": "user", "agent": "cursor", "agent_version": "1",
        "command": ["cursor-agent", HOSTILE], "cwd": "/w", "host": "h", "pid": 7, "connections": ["prod"],
        "state": "closed", "exit_code": 0, "opened_ns": 1_700_000_000_000_000_000, "closed_ns": 0, "leaf_index": 1,
        "exchanges": 1, "errors": 1, "refused": 0, "services": ["s3"], **more,
    }  # fmt: skip


@pytest.fixture
def gateway(api: Any) -> Any:
    api.answers["GET /sessions"] = (200, {"items": [_session()], "next": ""})
    api.answers[f"GET /sessions/{S1}"] = (200, _session())
    api.answers["GET /sessions/0193"] = (200, _session())
    api.answers["GET /exchanges"] = (200, {"items": [_exchange()], "next": ""})
    api.answers[f"GET /exchanges/{E1}"] = (200, _exchange())
    api.answers[f"GET /exchanges/{E1}/check"] = (200, {"ok": True, "differences": []})
    raw = {
        "request": b"DELETE /bucket/key HTTP/1.1\r\nHost: s3\r\n\r\n",
        "response": b"HTTP/1.1 403 Forbidden\r\nX: \x1b[2J\r\n\r\n" + b"body \x1b[31m" + b"x" * 5000,
        "sent": b"",
    }
    api.answers[f"GET /exchanges/{E1}/raw"] = lambda query, body: (200, raw[query["direction"]])
    return api


def test_sessions(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "agent:cursor", "AND", "service:s3"]) == 0
    out = capsys.readouterr().out
    assert S1[:13] in out and "alice" in out
    assert "\x1b" not in out and "\u202e" not in out
    assert gateway.asked[-1][1]["q"] == "agent:cursor AND service:s3"
    assert main(["sessions", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [S1]
    assert lines[0].isascii() and lines[0].isprintable()


def test_search(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "service:s3", "--session", "0193", "--limit", "5"]) == 0
    assert "s3 DeleteObject" in capsys.readouterr().out
    key, query, _ = gateway.asked[-1]
    assert (key, query["session"], query["limit"]) == ("GET /exchanges", S1, "5")
    gateway.answers["GET /exchanges"] = (400, {"title": "The query is wrong", "code": "query_error"})
    assert main(["search", "(("]) == 2
    assert "The query is wrong" in capsys.readouterr().err


def test_show_session(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "0193"]) == 0
    out = capsys.readouterr().out
    assert S1 in out and "s3 DeleteObject" in out and "AccessDenied" in out
    assert "\x1b" not in out and "\u202e" not in out
    assert main(["show", S1, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["id"] == S1 and shown["calls"][0]["id"] == E1
    assert main(["show", S1, "--raw", "request"]) == 2


def test_show_exchange_in_full(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", E1, "--preview", "100"]) == 0
    out = capsys.readouterr().out
    for part in (E1, S1, "alice", "s3:DeleteObject", "arn:aws:s3:::bucket/key", "allow: default", "attempt 2",
                 "2023-11-14T22:13:20.000000000Z", "DELETE /bucket/key HTTP/1.1", "403 Forbidden", "cut after 100",
                 "\\x1b[31m"):  # fmt: skip
        assert part in out, part
    assert "\x1b" not in out and "\u202e" not in out and "\x07" not in out
    assert main(["show", E1, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["leaf_index"] == 3


def test_show_raw_is_exact(gateway: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["show", E1, "--raw", "response"]) == 0
    assert capfdbinary.readouterr().out == gateway.answers[f"GET /exchanges/{E1}/raw"]({"direction": "response"}, 0)[1]


def test_raw_bytes_do_not_steer_a_terminal(gateway: Any) -> None:
    pty = pytest.importorskip("pty")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "narrows.cli.main", "show", E1, "--raw", "response"])
    seen = b""
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"403 Forbidden" in seen and b"\\x1b[2J" in seen and b"\x1b[" not in seen


def test_show_unknown_and_ambiguous(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "ffff"]) == 1
    assert "no session or exchange" in capsys.readouterr().err
    gateway.answers["GET /exchanges/0193"] = (200, _exchange())
    assert main(["show", "0193"]) == 2
    assert "more than one" in capsys.readouterr().err
    gateway.answers["GET /exchanges/01"] = (409, {"title": "Ambiguous", "code": "ambiguous_id"})
    assert main(["show", "01"]) == 2


def test_tail_misses_none_and_ends_with_its_session(
    gateway: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "POLL_S", 0.0)
    ids = [E1[:-1] + str(n) for n in range(5)]
    late = [_exchange(id=ids[3], leaf_index=4), _exchange(id=ids[4], leaf_index=5)]
    states = iter(["closed", "open", "open"] + ["closed"] * 20)

    def exchanges(query: dict[str, str], body: Any) -> Any:
        if "after" not in query:  # the newest first, also one sealed after the cursor was asked
            rows = [_exchange(id=ids[3], leaf_index=4), _exchange(id=ids[1], leaf_index=2)]
            return 200, {"items": rows, "next": ""}
        left = [row for row in late if row["leaf_index"] > int(query["after"])]
        return 200, {"items": left[:1], "next": ""}

    gateway.answers["GET /log/status"] = (200, {"size": 4, "indexed": 3})
    gateway.answers["GET /exchanges"] = exchanges
    gateway.answers[f"GET /sessions/{S1}"] = lambda query, body: (200, _session(state=next(states)))
    assert main(["tail", S1, "--json"]) == 0
    told = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert told == [ids[1], ids[3], ids[4]]
    states = iter(["closed"] * 20)
    assert main(["tail", S1]) == 0
    out = capsys.readouterr().out
    assert "s3 DeleteObject" in out and "\x1b" not in out


def test_connection_add_builds_the_credential_source(gateway: Any, tmp_path: Path) -> None:
    gateway.answers["POST /connections"] = lambda query, body: (201, body)

    def added(*options: str) -> Any:
        assert main(["connection", "add", "aws", "prod", *options]) == 0
        return gateway.bodies("POST /connections")[-1]

    assert added()["credential"] == {"kind": "chain"}
    assert added()["durability"] == "strict"
    body = added("--role-arn", "arn:aws:iam::123456789012:role/r", "--external-id", "x", "--profile", "p")
    assert body["credential"] == {
        "kind": "assume_role", "base": "chain", "role_arn": "arn:aws:iam::123456789012:role/r", "external_id": "x",
        "profile": "p",
    }  # fmt: skip
    body = added("--credentials-file", "creds", "--endpoint", "http://127.0.0.1:5000", "--allow-private")
    assert body["credential"] == {"kind": "file", "path": str(Path("creds").absolute())}
    assert (body["endpoint"], body["allow_private"], body["allow_credential_issue"]) == (
        "http://127.0.0.1:5000", True, False,
    )  # fmt: skip
    body = added("--env-prefix", "UP_", "--host", "a.example", "--host", "*.b.example", "--durability", "buffered")
    assert body["credential"] == {"kind": "environment", "prefix": "UP_"}
    assert body["hosts"] == ["a.example", "*.b.example"] and body["durability"] == "buffered"
    before = len(gateway.asked)
    assert main(["connection", "add", "aws", "x", "--external-id", "y"]) == 2
    assert main(["connection", "add", "aws", "x", "--env-prefix", "A", "--credentials-file", "b"]) == 2
    assert main(["connection", "add", "nope", "x"]) == 2
    assert len(gateway.asked) == before


def test_connection_default_durability_is_a_setting(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.answers["POST /connections"] = lambda query, body: (201, body)
    monkeypatch.setenv("NARROWS_DURABILITY", "buffered")
    assert main(["connection", "add", "aws", "prod"]) == 0
    assert gateway.bodies("POST /connections")[0]["durability"] == "buffered"


def test_connection_list_show_remove_test(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "name": "prod", "kind": "aws", "endpoint": "", "hosts": ["*.amazonaws.com"], "region": "eu-west-1",
        "account": "", "credential": {"kind": "chain", "profile": "p"}, "durability": "strict", "groups": [],
        "allow_private": False, "allow_credential_issue": False, "ca_file": "",
    }  # fmt: skip
    gateway.answers["GET /connections"] = (200, {"items": [row]})
    gateway.answers["GET /connections/prod"] = (200, row)
    gateway.answers["DELETE /connections/prod"] = (204, None)
    gateway.answers["POST /connections/prod/test"] = (200, {"account": "123456789012", "arn": "arn:x"})
    assert main(["connection", "list"]) == 0
    assert "chain p" in capsys.readouterr().out
    assert main(["connection", "show", "prod", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == row
    assert main(["connection", "show", "prod"]) == 0
    assert "credential.profile" in capsys.readouterr().out
    assert main(["connection", "test", "prod"]) == 0
    assert "123456789012" in capsys.readouterr().out
    assert main(["connection", "remove", "prod"]) == 0
    assert main(["connection", "show", "other"]) == 1


def test_session_kill(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /sessions/0193/kill"] = (200, {"id": S1, "state": "killed"})
    assert main(["session", "kill", "0193"]) == 0
    assert f"session {S1} is killed" in capsys.readouterr().out


LEASE = {
    "connection": "prod", "kind": "aws", "region": "eu-west-1", "access_key_id": "NRWLX", "secret_access_key": "s'1",
    "session_token": "t", "expires": 1_700_000_000,
}  # fmt: skip


def test_connection_add_of_a_model_api_names_its_provider_and_its_keys_source(gateway: Any, tmp_path: Path) -> None:
    gateway.answers["POST /connections"] = (201, {"name": "m"})

    def added(*options: str) -> dict[str, Any]:
        assert main(["connection", "add", "llm", "m", *options]) == 0
        return dict(gateway.bodies("POST /connections")[-1])

    key = tmp_path / "key"
    body = added("--provider", "anthropic", "--api-key-file", str(key), "--on-secret", "block", "--fail-closed")
    assert body["kind"] == "llm" and body["provider"] == "anthropic"
    assert body["credential"] == {"kind": "file", "path": str(key)}
    assert body["on_secret"] == "block" and body["fail_closed"] is True
    body = added("--provider", "openai-compatible", "--endpoint", "https://x.example", "--api-key-env", "KEY")
    assert body["credential"] == {"kind": "environment", "variable": "KEY"}
    assert body["on_secret"] == "record" and body["fail_closed"] is False
    # What contradicts is for the gateway to refuse, with all that was said.
    assert added("--api-key-env", "KEY", "--profile", "p")["credential"]["profile"] == "p"
    for wrong in (["--api-key-env", "K", "--api-key-file", "f"], ["--api-key-env", "K", "--credentials-file", "f"]):
        assert main(["connection", "add", "llm", "m", *wrong]) == 2


def test_lease_of_a_model_api(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lease = {
        "connection": "m", "kind": "llm", "provider": "anthropic", "api_key": "nrw1.k", "access_key_id": "NRWLM",
        "base_url": "http://127.0.0.1:1/llm/m", "expires": 1,
    }  # fmt: skip
    gateway.answers["POST /leases"] = (201, lease)
    assert main(["lease", "m", "--session", S1]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:1/llm/m" in printed
    assert "export ANTHROPIC_AUTH_TOKEN=nrw1.k" in printed and f"export NARROWS_SESSION={S1}" in printed
    assert not any("AWS" in line for line in printed)
    assert main(["lease", "m", "--session", S1, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["api_key"] == "nrw1.k"


def test_lease(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /leases"] = (201, LEASE)
    gateway.answers["POST /sessions"] = (201, {"id": S1, "leases": [LEASE]})
    assert main(["lease", "prod", "--session", S1]) == 0
    out = capsys.readouterr().out
    assert "export AWS_SECRET_ACCESS_KEY='s'\"'\"'1'" in out, "quoted for the shell"
    assert gateway.bodies("POST /leases") == [{"session": S1, "connection": "prod"}]
    assert main(["lease", "prod", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["session"] == S1
    assert gateway.bodies("POST /sessions")[0]["connections"] == ["prod"]


def test_aws_credentials(gateway: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.answers["POST /leases"] = (201, LEASE)
    monkeypatch.setenv("NARROWS_SESSION", S1)
    assert main(["aws-credentials"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "Version": 1, "AccessKeyId": "NRWLX", "SecretAccessKey": "s'1", "SessionToken": "t",
        "Expiration": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert gateway.bodies("POST /leases")[-1] == {"session": S1, "connection": "prod"}
    assert main(["aws-credentials", "--connection=dev"]) == 0
    assert gateway.bodies("POST /leases")[-1]["connection"] == "dev"
    capsys.readouterr()
    assert main(["aws-credentials", "--nope"]) == 2
    monkeypatch.delenv("NARROWS_SESSION")
    assert main(["aws-credentials"]) == 2
    assert capsys.readouterr().out == "", "a failure prints nothing that an SDK could take for a credential"


def test_aws_credentials_imports_little(gateway: Any) -> None:
    gateway.answers["POST /leases"] = (201, LEASE)
    code = (
        "import sys; from narrows.cli.main import main; assert main(['aws-credentials', '--session', 'x', "
        "'--connection', 'prod']) == 0; bad = {'typer', 'rich', 'pydantic', 'asyncio', 'botocore', 'tomllib', "
        "'cryptography', 'narrows.settings', 'subprocess'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(done.stdout)["AccessKeyId"] == "NRWLX"


def test_whoami(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "principal": "al", "kind": "user", "issuer": "local", "groups": ["owner"], "roles": ["owner"],
        "connections": None, "expires": None, "gateway_url": "http://127.0.0.1:1",
    }  # fmt: skip
    gateway.answers["GET /identity"] = (200, told)
    assert main(["whoami", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["issuer"] == "local" and shown["principal"] == "al" and shown["roles"] == ["owner"]
    gateway.answers["GET /identity"] = (200, told | {"expires": 1_800_000_000})
    assert main(["whoami"]) == 0 and "2027-01-15T08:00:00" in capsys.readouterr().out
    gateway.answers["GET /identity"] = (401, {"title": "The request was refused", "code": "unauthorized"})
    assert main(["whoami"]) == 1


def test_doctor(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["GET /log/status"] = (200, {"size": 4, "lag": 0, "indexed": 3})
    gateway.answers["GET /readyz"] = (200, {"status": "ready"})
    assert main(["doctor", "--json"]) in (0, 1)  # the gateway's own port is not served here
    rows = {row["check"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["permissions"]["state"] == "ok" and rows["recorder"]["state"] == "ok" and rows["API"]["state"] == "ok"
    gateway.data.chmod(0o755)
    gateway.answers["GET /readyz"] = (503, {"title": "Not ready", "detail": "disk full", "code": "not_ready"})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "mode 0755" in out and "disk full" in out


def test_without_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["sessions"], ["show", "x"], ["tail"], ["search", "x"], ["connection", "list"], ["whoami"],
                    ["down"], ["session", "kill", "x"], ["lease", "x"], ["doctor"]):  # fmt: skip
        assert main(command) == 3, command
    shown = capsys.readouterr()
    assert "could not be reached" in shown.err and "narrows up" in shown.err


def test_wrong_use(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["nonsense"]) == 2
    assert main(["show"]) == 2
    assert main(["sessions", "--nope"]) == 2
    monkeypatch.setenv("NARROWS_WORKER", "1")
    assert main(["sessions"]) == 2
    err = capsys.readouterr().err
    assert "why:" in err and "next: did you mean NARROWS_WORKERS?" in err
    monkeypatch.delenv("NARROWS_WORKER")
    assert main(["--version"]) == 0


def test_a_reader_that_leaves_is_no_error(gateway: Any) -> None:
    gateway.answers["GET /sessions"] = (200, {"items": [_session()] * 400, "next": ""})
    command = f"{sys.executable} -m narrows.cli.main sessions --limit 400 --json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True)
    assert done.returncode == 0 and done.stderr == b""
