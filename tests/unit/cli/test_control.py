"""The control process's background work: failures are told and tried again, idle sessions are found."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from narrows.cli import loops
from narrows.cli.control import describer, idle_sessions
from narrows.cli.loops import Indexing, Sealing
from narrows.clock import SystemClock
from narrows.core.errors import NotFound, ProofError, RecorderFailed
from narrows.core.values import StoredExchange
from narrows.record.indexer import Indexer
from narrows.record.log.note import SigningKey
from narrows.record.sealer import Progress
from narrows.settings import Settings

SECOND = 1_000_000_000


class FakeSealer:
    """Does what `script` says, step after step; then has nothing to do."""

    opened = 0
    closed = 0
    steps: int = 0
    script: list[Any] = []  # noqa: RUF012
    idle = threading.Event()
    published = False

    def __init__(self, *_: object) -> None:
        FakeSealer.opened += 1

    def __enter__(self) -> FakeSealer:
        return self

    def __exit__(self, *_: object) -> None:
        FakeSealer.closed += 1

    def step(self, *, publish: bool = False) -> Progress:
        FakeSealer.steps += 1
        FakeSealer.published = publish
        if FakeSealer.script:
            what = FakeSealer.script.pop(0)
            if isinstance(what, Exception):
                raise what
            return cast(Progress, what)
        FakeSealer.idle.set()
        return Progress()


@pytest.fixture
def sealing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[Any]], Sealing]:
    monkeypatch.setattr(loops, "Sealer", FakeSealer)
    monkeypatch.setattr(loops, "RETRY_S", 0.01)
    monkeypatch.setattr(loops, "PROOF_RETRY_S", 0.01)
    FakeSealer.opened = FakeSealer.closed = FakeSealer.steps = 0
    FakeSealer.idle.clear()

    def make(script: list[Any]) -> Sealing:
        FakeSealer.script = script
        return Sealing(tmp_path, SigningKey("test", bytes(32)), SystemClock(), 0.01)

    return make


@pytest.mark.parametrize(
    "failure",
    [RecorderFailed("full"), OSError("broken"), ProofError("forked"), RuntimeError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_sealing_goes_on_after_a_failure(sealing: Callable[[list[Any]], Sealing], failure: Exception) -> None:
    thread = sealing([Progress(frames=1, more=True), failure])
    thread.start()
    assert FakeSealer.idle.wait(10)
    thread.stop()
    assert not thread.is_alive()
    assert thread.problem == "", "told only while it lasts"
    assert FakeSealer.opened == FakeSealer.closed == 2, "a failed sealer is closed and opened again"
    assert FakeSealer.published, "a clean stop ends with a checkpoint"


def test_a_lasting_failure_is_told(sealing: Callable[[list[Any]], Sealing]) -> None:
    thread = sealing([RecorderFailed("The disk is full")] * 1000)
    thread.start()
    while not thread.problem:
        assert thread.is_alive()
    assert "The disk is full" in thread.problem
    thread.stop()


def test_sealing_wakes_the_indexer(sealing: Callable[[list[Any]], Sealing]) -> None:
    thread = sealing([Progress(sealed=3)])
    thread.start()
    assert thread.sealed.wait(10)
    thread.stop()


def test_indexing_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "RETRY_S", 0.01)
    script: list[Any] = [5, OSError("broken"), RuntimeError("a bug"), 3, 0]
    done = threading.Event()

    def step() -> int:
        if not script:
            done.set()
            return 0
        what = script.pop(0)
        if isinstance(what, Exception):
            raise what
        return cast(int, what)

    sealed = threading.Event()
    thread = Indexing(cast(Indexer, SimpleNamespace(step=step)), sealed, 0.01)
    thread.start()
    while script:
        sealed.set()
    assert done.wait(10)
    thread.stop()
    assert thread.current and thread.problem == ""


def test_idle_sessions() -> None:
    now = 10_000 * SECOND
    ago = {name: now - seconds * SECOND for name, seconds in (("young", 50), ("old", 5000), ("recent", 99))}
    opened = [(b"a" * 16, "young"), (b"b" * 16, "old"), (b"c" * 16, "old"), (b"d" * 16, "old")]
    store = SimpleNamespace(sessions=lambda state: [SimpleNamespace(id=i, opened_ns=ago[w]) for i, w in opened])
    last = {b"b" * 16: ago["recent"], b"c" * 16: ago["old"]}

    def session(text: str) -> Any:
        key = bytes.fromhex(text.replace("-", ""))
        if key not in last:
            raise NotFound("not indexed")
        return SimpleNamespace(last_ns=last[key])

    found = idle_sessions(cast(Any, store), cast(Any, SimpleNamespace(session=session)), now, 100)
    assert found == [b"c" * 16, b"d" * 16], "neither the one just opened nor the one that just called"


def test_search_text_is_bounded_by_the_setting(tmp_path: Path) -> None:
    body = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\r\n" + b"word " * 1000
    exchange = StoredExchange(bytes(16), bytes(16), "http.request", request=body)
    cut = describer(Settings(data=tmp_path, index_body_bytes=20))(exchange)
    assert len(cut.text) <= 20
