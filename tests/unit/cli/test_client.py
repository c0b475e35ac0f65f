"""The client finds the local gateway, proves itself, and turns every failure into what, why and hint."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import local
from narrows.cli.client import ApiError, Client
from narrows.cli.local import UnreachableError
from narrows.core.errors import ConfigError


def test_answers_come_through(api: Any) -> None:
    api.answers["GET /things"] = lambda query, body: (200, {"query": query})
    api.answers["POST /things"] = lambda query, body: (201, {"body": body})
    api.answers["DELETE /things/a%2Fb"] = (204, None)
    client = Client.of(api.data)
    assert client.get("/things", q="a b&c", none=None, flag=True) == {"query": {"q": "a b&c", "flag": "true"}}
    assert client.post("/things", {"x": "ü"}) == {"body": {"x": "ü"}}
    assert client.delete("/things/a%2Fb") is None
    client.close()


def test_pages_are_followed_to_the_end(api: Any) -> None:
    def page(query: dict[str, str], body: Any) -> Any:
        at = int(query.get("cursor", 0))
        rows = [{"n": n} for n in range(at, min(at + 3, 8))]
        return 200, {"items": rows, "next": str(at + 3) if at + 3 < 8 else ""}

    api.answers["GET /rows"] = page
    client = Client.of(api.data)
    assert [row["n"] for row in client.pages("/rows")] == list(range(8))
    assert [row["n"] for row in client.pages("/rows", most=4)] == [0, 1, 2, 3]
    client.close()


def test_problem_details_become_an_error(api: Any) -> None:
    api.answers["GET /x"] = (409, {"title": "No", "detail": "because", "hint": "do this", "code": "conflict"})
    api.answers["GET /y"] = (502, b"<html>a proxy</html>")
    client = Client.of(api.data)
    with pytest.raises(ApiError) as caught:
        client.get("/x")
    error = caught.value
    assert (error.what, error.why, error.hint, error.code, error.status) == (
        "No", "because", "do this", "conflict", 409,
    )  # fmt: skip
    with pytest.raises(ApiError, match="502"):
        client.get("/y")
    client.close()


def test_an_answer_that_is_not_json(api: Any) -> None:
    api.answers["GET /x"] = (200, b"hello")
    client = Client.of(api.data)
    with pytest.raises(ApiError, match="could not be read"):
        client.get("/x")
    client.close()


def test_no_gateway(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        Client.of(tmp_path)
    assert "narrows up" in caught.value.hint


def test_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "run").mkdir()
    local.write(tmp_path, api=f"http://127.0.0.1:{port}", gateway="", token="x", pid=1)
    with pytest.raises(UnreachableError) as caught:
        Client.of(tmp_path).get("/x")
    assert str(port) in caught.value.why


def test_a_gateway_that_hangs(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        (tmp_path / "run").mkdir()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        local.write(tmp_path, api=url, gateway="", token="x", pid=1)
        with pytest.raises(UnreachableError, match="did not answer"):
            Client.of(tmp_path, timeout_s=0.1).get("/x")


def test_a_kept_connection_that_was_closed_is_opened_again(tmp_path: Path) -> None:
    """The control process restarts: the next call goes through, but only one that is safe to repeat."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            for _ in range(2):
                peer, _ = listening.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        (tmp_path / "run").mkdir()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        local.write(tmp_path, api=url, gateway="", token="x", pid=1)
        client = Client.of(tmp_path)
        assert client.get("/a") == {}
        assert client.get("/b") == {}
        thread.join()
        with pytest.raises(UnreachableError):
            client.post("/c")


def test_an_idle_connection_is_not_used_again(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be sent once only must not meet a connection that the API is about to close."""
    api.answers["POST /x"] = (200, {})
    client = Client.of(api.data)
    client.post("/x")
    first = client._connection
    client.post("/x")
    assert client._connection is first
    monkeypatch.setattr("narrows.cli.client.KEEP_S", -1.0)
    client.post("/x")
    assert client._connection is not first
    client.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_local_file_that_others_reach_is_refused(api: Any, mode: int) -> None:
    local.path_of(api.data).chmod(mode)
    with pytest.raises(ConfigError, match="refused"):
        Client.of(api.data)
    assert api.asked == [], "the token went nowhere"


def test_a_link_is_refused(api: Any, tmp_path: Path) -> None:
    path = local.path_of(api.data)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        Client.of(api.data)


def test_a_damaged_local_file(api: Any) -> None:
    local.path_of(api.data).write_text('{"api": 1}')
    with pytest.raises(ConfigError, match="could not be read"):
        Client.of(api.data)


def test_the_local_file_is_private_and_hides_its_token(api: Any) -> None:
    assert local.path_of(api.data).stat().st_mode & 0o777 == 0o600
    assert "ttt" not in repr(local.read(api.data))


def test_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert local.holder(tmp_path) == 0
    lock, other = local.Lock(tmp_path), local.Lock(tmp_path)
    assert lock.take() and not other.take()
    assert local.holder(tmp_path) == os.getpid()
    lock.release()
    assert local.holder(tmp_path) == 0
    assert other.take()
    other.release()
