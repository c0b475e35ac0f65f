"""`narrows credential`: a secret goes in by standard input or a prompt, and comes out nowhere."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from narrows.cli.main import main
from narrows.upstream.sources import Sources

SECRET = "sk-live-typed-in-by-someone-0123456789"


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["credential", *arguments])
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err
    return code, told.out + told.err


def given(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("text", [SECRET, SECRET + "\n", SECRET + "\r\n"])
def test_set_list_remove(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    given(monkeypatch, text.encode())
    code, said = ran(capsys, "set", "key", "--json")
    assert code == 0 and json.loads(said)["version"] == 1
    assert Sources({}, sealed=data / "credentials").sealed.secret("key") == SECRET.encode()
    assert data.stat().st_mode & 0o777 == 0o700, "the data directory is as `narrows up` wants it"
    assert "key" in ran(capsys, "list")[1]
    assert ran(capsys, "rotate-key")[0] == 0
    assert len(list((data / "keys").glob("credentials-*"))) == 1
    assert ran(capsys, "remove", "key") == (0, "credential key removed\n")
    assert ran(capsys, "remove", "key")[0] == 1


def test_a_terminal_is_asked_without_echo(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: SECRET)
    assert ran(capsys, "set", "key")[0] == 0
    assert Sources({}, sealed=data / "credentials").sealed.secret("key") == SECRET.encode()


@pytest.mark.parametrize("text", [b"", b"\n", b"x" * 70_000])
def test_nothing_and_too_much_are_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    given(monkeypatch, text)
    assert ran(capsys, "set", "key")[0] != 0
    assert not (data / "credentials" / "key.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "UPPER"),
        ("set", "../x"),
        ("set", "master"),
        ("rotate-key", "--kms-key", "k"),
        ("rotate-key", "--kms-key", "k", "--transit-key", "t"),
        ("rotate-key", "--transit-key", "t"),
        ("rotate-key", "--transit-key", "t", "--vault", "http://vault.example"),
        ("rotate-key", "--key-file", "/nowhere/key"),
    ],
)
def test_wrong_use_changes_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    given(monkeypatch, SECRET.encode())
    code, said = ran(capsys, *arguments)
    assert code != 0 and said
    assert not list(data.glob("credentials/*.json"))
