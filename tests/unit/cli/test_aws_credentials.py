"""Whose lease `narrows aws-credentials` prints, and what it says when there is none."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import agent_sessions, aws_credentials
from narrows.cli.main import main

LEASE = {
    "connection": "prod", "kind": "aws", "region": "", "access_key_id": "NRWLX", "secret_access_key": "s",
    "session_token": "t", "expires": 1_700_000_000,
}  # fmt: skip
OURS = {"Version": 1, "AccessKeyId": "NRWLX", "SecretAccessKey": "s", "SessionToken": "t",
        "Expiration": "2023-11-14T22:13:20Z"}  # fmt: skip


class FakeGateway:
    """Answers every request with `status` and `told`; keeps what it was asked."""

    def __init__(self, status: int = 200, told: Any = LEASE, name: str = "") -> None:
        self.status, self.told = status, told
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self._socket = socket.socket(socket.AF_UNIX if name else socket.AF_INET)
        self._socket.bind(name or ("127.0.0.1", 0))
        self._socket.listen()
        if not name:
            self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                made, _ = self._socket.accept()
            except OSError:
                return
            with made, made.makefile("rb") as file:
                line = file.readline().decode()
                headers = {}
                while field := file.readline().decode().strip():
                    name, _, value = field.partition(": ")
                    headers[name.lower()] = value
                body = json.loads(file.read(int(headers["content-length"])))
                self.asked.append((line.split()[1], headers, body))
                raw = self.told if isinstance(self.told, bytes) else json.dumps(self.told).encode()
                made.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (self.status, len(raw)) + raw)

    def stop(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    found = FakeGateway()
    monkeypatch.setenv("NARROWS_TOKEN", "nrw1.a.b")
    monkeypatch.setenv("NARROWS_GATEWAY", found.url)
    monkeypatch.setenv("NARROWS_SESSION", "s1")
    yield found
    found.stop()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_sessions_own_token_is_enough(there: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aws-credentials", "--connection", "prod"]) == 0
    assert printed(capsys) == OURS
    path, headers, body = there.asked[0]
    assert (path, body, headers["authorization"]) == ("/_narrows/leases", {"connection": "prod"}, "Bearer nrw1.a.b")
    value = headers["x-narrows-process"]
    tree = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    assert tree[0]["argv"][0] and tree[0]["ppid"] == tree[1]["pid"]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_the_local_socket_is_asked_first_and_one_that_knows_us_not_is_left(
    there: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    near = FakeGateway(name=f"\0narrows-{there.port}-0")
    try:
        assert main(["aws-credentials"]) == 0
        assert printed(capsys) == OURS and len(near.asked) == 1 and not there.asked
        near.status, near.told = 401, {"error": {"what": "w", "why": "", "hint": "", "code": "lease_foreign"}}
        assert main(["aws-credentials"]) == 0
        assert printed(capsys) == OURS and len(there.asked) == 1
    finally:
        near.stop()


@pytest.mark.parametrize(
    ("status", "told", "code", "text"),
    [
        (403, {"error": {"what": "No!", "why": "because", "hint": "h", "code": "not_in_session"}}, 1, "because"),
        (401, {"error": {"what": "No!", "why": "ended", "hint": "h", "code": "session_ended"}}, 1, "ended"),
        (500, b"<html>", 1, "HTTP status 500"),
        (200, b"[]", 1, "HTTP status 200"),
        (200, b"not json", 1, "HTTP status 200"),
    ],
)
def test_a_refusal_is_told_and_nothing_is_printed(
    there: FakeGateway, capsys: pytest.CaptureFixture[str], status: int, told: Any, code: int, text: str
) -> None:
    there.status, there.told = status, told
    assert main(["aws-credentials"]) == code
    out, err = capsys.readouterr()
    assert out == "" and text in err and "nrw1.a.b" not in err


def test_a_gateway_that_is_gone_is_unreachable(there: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    there.stop()
    assert main(["aws-credentials"]) == 3
    assert capsys.readouterr().out == ""


def test_another_session_is_asked_of_the_owner(
    there: FakeGateway, api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["POST /leases"] = (201, LEASE)
    assert main(["aws-credentials", "--session", "s2", "--connection", "prod"]) == 0
    assert printed(capsys) == OURS
    assert api.bodies("POST /leases") == [{"session": "s2", "connection": "prod"}] and not there.asked
    assert main(["aws-credentials", "--session", "s1", "--connection", "prod"]) == 0
    assert len(there.asked) == 1, "its own session needs no owner"


def test_an_agents_session_is_found_by_the_processes(
    there: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NARROWS_TOKEN", "NARROWS_GATEWAY", "NARROWS_SESSION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path))
    assert main(["aws-credentials", "--agent", "cursor"]) == 2
    assert "no session of cursor" in capsys.readouterr().err
    parent = aws_credentials._tree()[0]
    pair = (parent["pid"], parent["start"])
    made = agent_sessions.Record("cursor", "s9", "nrw1.agent.x", there.url, "c1", [pair], 1.0, 4_000_000_000)
    agent_sessions.store(made, tmp_path)
    assert main(["aws-credentials", "--agent", "cursor"]) == 0
    assert printed(capsys) == OURS
    assert there.asked[0][1]["authorization"] == "Bearer nrw1.agent.x"


def test_without_any_session_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aws-credentials"]) == 2
    assert "narrows run" in capsys.readouterr().err
