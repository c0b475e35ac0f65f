"""The supervisor over small stand-in children: starts, restarts, stops, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path

import pytest

from narrows.cli import supervisor as module
from narrows.cli.child import Child, receive
from narrows.cli.supervisor import Process, StartError, Supervisor
from narrows.core.errors import ConfigError
from narrows.settings import Settings

SERVE = """
import os, signal, sys
from narrows.cli.child import receive
child = receive()
open(sys.argv[1], "a").write(f"{child.writer} {os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
child.ready()
os.read(0, 1)
open(sys.argv[1], "a").write("orphaned\\n")
"""
STUBBORN = SERVE.replace("lambda *a: sys.exit(0)", "signal.SIG_IGN")


def _process(tmp_path: Path, name: str, script: str, index: int = 0) -> Process:
    child = Child(Settings(data=tmp_path), writer="", index=index)
    return Process(name, name, [sys.executable, "-c", script, str(tmp_path / name)], child)


def _supervisor(processes: list[Process]) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    numbers = count()
    return Supervisor(processes, lambda: None, lambda base: f"{base}-{next(numbers)}", said.append), said


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_all_serve_then_a_clean_stop(tmp_path: Path) -> None:
    processes = [_process(tmp_path, "control", SERVE, -1), _process(tmp_path, "worker", SERVE)]
    watched, said = _supervisor(processes)
    seen: list[bool] = []

    def ready() -> None:
        seen.extend(process.ready for process in processes)
        _stop()

    before = signal.getsignal(signal.SIGTERM)
    assert watched.run(ready) == 0
    assert seen == [True, True]
    assert said == []
    assert not any(process.running for process in processes)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "orphaned" not in (tmp_path / "worker").read_text()


def test_a_dead_child_is_recovered_before_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    worker = _process(tmp_path, "worker", SERVE)
    worker.delay = 0.01
    order: list[str] = []

    def recover() -> None:
        order.append(f"recovered, started {len((tmp_path / 'worker').read_text().splitlines())}")

    def say(text: str) -> None:
        order.append(text.split(" as process")[0])
        if "restarted" in text:
            _stop()

    numbers = count()
    watched = Supervisor([worker], recover, lambda base: f"{base}-{next(numbers)}", say)

    def ready() -> None:
        assert worker.popen is not None
        os.kill(worker.popen.pid, signal.SIGKILL)

    # The replacement is stopped before it installs its handler, perhaps: either end is a stop.
    assert watched.run(ready) == 0
    assert order == ["worker was ended by signal 9", "recovered, started 1", "worker restarted"]
    assert watched.processes[0].child.writer == "worker-1", "a new start never goes on in an old chain"


def test_what_cannot_be_recovered_is_not_replaced(tmp_path: Path) -> None:
    worker = _process(tmp_path, "worker", SERVE)
    worker.delay = 0.01
    said: list[str] = []

    def recover() -> None:
        raise ConfigError("Not recovered", "the disk is full")

    def say(text: str) -> None:
        said.append(text)
        if "not restarted" in text:
            _stop()

    watched = Supervisor([worker], recover, lambda base: base, say)
    watched.run(lambda: os.kill(worker.popen.pid if worker.popen else 0, signal.SIGKILL))
    assert said[-1] == "worker was not restarted: Not recovered: the disk is full"
    assert (tmp_path / "worker").read_text().count("\n") == 1


def test_delay_doubles_to_its_limit(tmp_path: Path) -> None:
    worker = _process(tmp_path, "worker", SERVE)
    watched, _ = _supervisor([worker])
    delays = []
    for _ in range(8):
        delays.append(worker.delay)
        watched._put_off(worker)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_child_that_never_serves_stops_the_start(tmp_path: Path) -> None:
    fine = _process(tmp_path, "control", SERVE, -1)
    broken = _process(tmp_path, "worker", "import sys; sys.exit(7)")
    watched, said = _supervisor([fine, broken])
    with pytest.raises(StartError) as caught:
        watched.run(lambda: pytest.fail("not ready"))
    assert "worker" in caught.value.why
    assert said == ["worker ended with exit code 7"]
    assert not fine.running, "nothing is left running"


def test_a_late_child_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_S", 0.3)
    watched, _ = _supervisor([_process(tmp_path, "worker", "import os; os.read(0, 1 << 20); os.read(0, 1)")])
    with pytest.raises(StartError, match="did not start"):
        watched.run(lambda: pytest.fail("not ready"))


def test_a_stubborn_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.2)
    watched, said = _supervisor([_process(tmp_path, "worker", STUBBORN)])
    assert watched.run(_stop) == 1
    assert "killed" in said[0]


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    watched, said = _supervisor([_process(tmp_path, "worker", STUBBORN)])

    def twice() -> None:
        _stop()
        _stop()

    started = watched.clock()
    assert watched.run(twice) == 1
    assert watched.clock() - started < module.DRAIN_S
    assert "killed" in said[0]


def test_children_end_with_their_supervisor(tmp_path: Path) -> None:
    """The lifeline: its end is seen by the child, whatever ended the supervisor."""
    read, write = os.pipe()
    child = Child(Settings(data=tmp_path), writer="w-1", index=3, token="secret-token")
    os.write(write, child.to_line())
    assert receive(read) == child
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert "secret-token" not in repr(child)


@pytest.mark.parametrize("line", [b"", b"{}\n", b"[]\n", b"not json\n", b'{"settings": {}, "other": 1}\n'])
def test_a_child_started_by_hand_says_so(line: bytes) -> None:
    read, write = os.pipe()
    os.write(write, line)
    os.close(write)
    with pytest.raises(ConfigError, match="narrows up"):
        receive(read)
    os.close(read)
