"""`narrows connection test` of a model API: it works, or the text says which step does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.kit.model import ModelServer, Script, served

from narrows.cli.tester import STEPS, ConnectionTester
from narrows.clock import SystemClock
from narrows.core.errors import CredentialError, NarrowsError, Refusal, UpstreamError
from narrows.core.values import Connection, CredentialSource

KEY = "sk-real-key-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with served(Script([]), key=KEY) as server:
        yield server


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.key"
    path.touch(mode=0o600)
    path.write_text(KEY + "\n")
    return path


def connection(model: ModelServer, key_file: Path, provider: str = "anthropic", **more: Any) -> Connection:
    values: dict[str, Any] = {"endpoint": model.url, "allow_private": True} | more
    return Connection(
        "model", kind="llm", provider=provider,  # type: ignore[arg-type]
        credential=CredentialSource("file", path=str(key_file)), **values,
    )  # fmt: skip


def tried(made: Connection) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        tester = ConnectionTester(SystemClock())
        try:
            return await tester(made)
        finally:
            tester.close()

    return asyncio.run(run())


def failure(made: Connection) -> NarrowsError:
    with pytest.raises(NarrowsError) as caught:
        tried(made)
    assert KEY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("provider", "base", "asked"),
    [
        ("anthropic", "", "/v1/models"),
        ("openai", "", "/v1/models"),
        ("openai-compatible", "/v1", "/v1/models"),
        ("openai-compatible", "/v1/", "/v1/models"),
        ("gemini", "", "/v1beta/models"),
    ],
)
def test_it_lists_the_models_with_the_key(
    model: ModelServer, key_file: Path, provider: str, base: str, asked: str
) -> None:
    found = tried(connection(model, key_file, provider, endpoint=model.url + base))
    told = {"provider": provider, "endpoint": model.url + asked, "models": 2, "source": "file"}
    assert found == told | {"steps": list(STEPS)}


def test_a_refused_key_is_told_from_a_target_that_was_not_reached(model: ModelServer, key_file: Path) -> None:
    key_file.write_text("sk-some-other-key-0123456789")
    refused = failure(connection(model, key_file))
    assert isinstance(refused, UpstreamError) and "refused the key" in refused.why
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        made = connection(model, key_file, endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")
        unreached = failure(made)
    assert isinstance(unreached, UpstreamError) and unreached.why.startswith("the address failed")
    assert unreached.why.endswith("[source reachable: yes; secret found: yes; shape right: yes; target accepts: no]")
    with says(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        no_tls = failure(connection(model, key_file, endpoint=f"https://127.0.0.1:{port}"))
    assert no_tls.why.startswith("TLS failed")


def test_a_private_address_needs_the_connections_word(model: ModelServer, key_file: Path) -> None:
    refused = failure(connection(model, key_file, allow_private=False))
    assert isinstance(refused, Refusal) and refused.code == "dial_forbidden"


def test_a_source_that_fails_is_said_and_asked_again_at_once(model: ModelServer, key_file: Path) -> None:
    made = connection(model, key_file)

    async def run() -> None:
        tester = ConnectionTester(SystemClock())
        try:
            key_file.chmod(0o644)
            with pytest.raises(CredentialError, match="0644"):
                await tester(made)
            key_file.chmod(0o600)
            assert (await tester(made))["models"] == 2
        finally:
            tester.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no list of models"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data": 1}', "no list of models"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer failed"),
    ],
)
def test_something_else_than_a_model_api(model: ModelServer, key_file: Path, answer: bytes, why: str) -> None:
    with says(answer) as port:
        assert why in failure(connection(model, key_file, endpoint=f"http://127.0.0.1:{port}")).why


@contextmanager
def says(answer: bytes) -> Iterator[int]:
    """A server on this port that says `answer` to whoever sends something, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(10)
