"""kill -9 of the gateway's processes under load, a full disk, a stop under load: nothing that happened is missing.

The origin keeps a ledger. In `strict` durability every id in it must be in the record, every answer that a client
got must be there in full, what was cut must be marked, and all of it must prove.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.gateway import Gateway, all_frames, gateway, running, until
from tests.load import Load, Origin, id_of, load, origin

from narrows.record.log.frame import Flag, Frame, Kind
from narrows.record.log.leaf import facts
from narrows.record.sealed import iter_sealed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEEP = bool(os.environ.get("NARROWS_TEST_DEEP"))

QUICK = """
import sys
from narrows.cli import supervisor
# Deaths one after another are the point here: the pause that grows with them is not.
supervisor.STEADY_S = 0.0
supervisor.FIRST_DELAY_S = supervisor.LAST_DELAY_S = 0.02
sys.argv = ["narrows", "up", "--detach"]
from narrows.cli.main import main
sys.exit(main())
"""


@dataclass(slots=True)
class Recorded:
    """What is on record of the load: by exchange, and the gaps."""

    ids: dict[bytes, str] = field(default_factory=dict)
    answers: dict[bytes, bytes] = field(default_factory=dict)
    outcomes: dict[bytes, str] = field(default_factory=dict)
    gaps: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def of(cls, data: Path) -> Recorded:
        """Read it back from the parts, and what is not sealed from the segments."""
        found = cls()
        for frame in all_frames(data):
            found.take(frame)
        return found

    def take(self, frame: Frame) -> None:
        """One frame."""
        if frame.kind == Kind.REQUEST and (ident := id_of(frame.data)):
            self.ids[frame.exchange] = ident
        elif frame.kind == Kind.RESPONSE:
            self.answers[frame.exchange] = frame.data
            if frame.flags & Flag.FINAL:
                self.outcomes[frame.exchange] = str(facts(frame.meta)["outcome"])
        elif frame.kind == Kind.GAP:
            self.gaps.append(facts(frame.meta))


@contextmanager
def quick(home: Path, **env: str) -> Iterator[Gateway]:
    """A gateway that restarts its processes without growing pauses."""
    own = Gateway(home, env)
    subprocess.run([sys.executable, "-c", QUICK], env=own.environ(), check=True, timeout=60, capture_output=True)
    try:
        yield own
    finally:
        own.end()


def check(own: Gateway, server: Origin, calls: Load) -> Recorded:
    """The whole of the promise, on a gateway that was stopped."""
    recorded = Recorded.of(own.data)
    by_id = {ident: exchange for exchange, ident in recorded.ids.items()}
    missing = [ident for ident in server.ledger if ident not in by_id]
    assert not missing, f"{len(missing)} of {len(server.ledger)} actions are not on record: {missing[:3]}"
    assert len(set(server.ledger)) == len(server.ledger), "a write was sent twice"
    for call in calls.answered():
        exchange = by_id[call.ident]
        assert recorded.outcomes.get(exchange) == "complete", call
        assert recorded.answers[exchange].endswith(call.body), call
    sealed = [leaf for leaf in iter_sealed(own.data) if leaf.place.exchange in recorded.ids]
    assert {leaf.place.exchange for leaf in sealed} == set(recorded.ids)
    unfinished = {leaf.place.exchange for leaf in sealed if leaf.outcome == "unfinished"}
    assert unfinished == set(recorded.ids) - set(recorded.outcomes)
    told = {str(item["exchange"]) for gap in recorded.gaps for item in gap.get("unfinished", [])}  # type: ignore[attr-defined]
    assert len(told) >= len(unfinished)
    report = own.verify("--all")
    assert report["exit"] == 0, report["findings"]
    assert report["unsealed_frames"] == 0 and report["open_exchanges"] == 0
    return recorded


def serving(own: Gateway, killed: set[int]) -> list[int]:
    """Workers that have recorded something of the load, by process id."""
    found = []
    for name, pid in own.processes().items():
        chains = sorted(own.data.glob(f"wal/{name.replace(' ', '-')}-*"))
        if pid in killed or not chains or (chains[-1] / "recovered.json").exists():
            continue
        first = sorted(chains[-1].glob("*.seg"))
        if name != "control" and first and _written(first[0]):
            found.append(pid)
    return found


def _written(segment: Path) -> bool:
    """Whether more than its opening frame is in a segment, whose file may be longer than what is written."""
    with segment.open("rb") as file:
        return file.read(4096).count(b"NRF1") > 2


def kill_workers(own: Gateway, server: Origin, times: int, seed: int) -> None:
    """kill -9 a serving worker again and again, each time some calls after it is known to serve."""
    chance = random.Random(seed)
    killed: set[int] = set()
    for _ in range(times):
        there = until("a worker serves", lambda: serving(own, killed))
        after = len(server.ledger) + chance.randrange(0, 12)
        until("the load goes on", lambda after=after: len(server.ledger) > after)  # type: ignore[misc]
        time.sleep(chance.random() * 0.002)  # not always right after an answer
        pid = chance.choice(there)
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("times", "seed"),
    [(40, 1), *(pytest.param(200, seed, marks=pytest.mark.deep) for seed in range(2, 6) if DEEP)],
)
def test_kill_a_worker_at_random_moments(tmp_path: Path, times: int, seed: int) -> None:
    with origin() as server, quick(tmp_path, NARROWS_WORKERS="2") as own:
        own.connect("origin", server.url)
        with load(own, connections=6) as calls:
            kill_workers(own, server, times, seed)
            after = len(server.ledger)
            until("the load goes on after the last kill", lambda: len(server.ledger) > after + 20)
        own.down()
        recorded = check(own, server, calls)
        # The kills came while calls ran: some were cut, and that is told.
        assert recorded.gaps and len(recorded.outcomes) < len(recorded.ids)
        broke = [call for call in calls.calls if call.broke]
        assert broke and all(not call.status for call in broke)


def test_kill_the_control_process(tmp_path: Path) -> None:
    """Traffic goes on without it; sealing goes on after it, three times over."""
    with origin() as server, quick(tmp_path) as own:
        own.connect("origin", server.url)
        with load(own) as calls:
            for _ in range(3):
                old = own.kill("control")
                before = len(server.ledger)
                until("the load goes on without it", lambda b=before: len(server.ledger) > b + 50)  # type: ignore[misc]
                until("another is there", lambda o=old: own.processes().get("control", o) != o)  # type: ignore[misc]

                def size() -> int:
                    with closing(own.client()) as api:
                        return int(api.get("/log/status")["size"])

                sealed = size()
                until("sealing goes on", lambda s=sealed: size() > s)  # type: ignore[misc]
        assert {call.status for call in calls.calls} == {200}, "a call was touched"
        own.down()
        recorded = check(own, server, calls)
        assert set(recorded.outcomes.values()) == {"complete"}


def test_kill_the_supervisor(tmp_path: Path) -> None:
    """Its children notice and end; the next start recovers, and goes on with the same log."""
    with origin() as server, gateway(tmp_path) as own:
        own.connect("origin", server.url)
        with load(own) as calls:
            until("the load runs", lambda: len(server.ledger) > 50)
            children = own.processes()
            os.kill(own.supervisor(), signal.SIGKILL)
            until("its children end", lambda: not any(map(running, children.values())), 25)
        assert calls.one().broke  # nothing listens any more
        checkpoint = (own.data / "log" / "checkpoint").read_text()
        (own.home / "older").write_text(checkpoint)
        own.up()
        with load(own) as more:
            until("the load runs again", lambda: len(more.answered()) > 20)
        own.down()
        calls.calls += more.calls
        check(own, server, calls)
        assert own.verify("--since", str(own.home / "older"))["exit"] == 0


def test_a_stop_under_load_cuts_nothing(tmp_path: Path) -> None:
    """SIGTERM: what has begun ends well, on the wire and in the record."""
    with origin(delay_s=0.05) as server, gateway(tmp_path, NARROWS_WORKERS="2") as own:
        own.connect("origin", server.url)
        with load(own, connections=8) as calls:
            until("the load runs", lambda: len(server.ledger) > 50)
            own.down()
        answered = {call.ident for call in calls.answered()}
        assert [ident for ident in server.ledger if ident not in answered] == []
        recorded = check(own, server, calls)
        assert set(recorded.outcomes) == set(recorded.ids)
        assert set(recorded.outcomes.values()) == {"complete"}


@contextmanager
def small_disk(where: Path, size: str) -> Iterator[Path]:
    """A file system that is soon full; skips where none can be mounted."""
    where.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(where)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """Nothing passes any more, and every client is told; with room again and a restart, all goes on and proves."""
    with (
        small_disk(tmp_path / "disk", "64m") as disk,
        origin() as server,
        gateway(disk, NARROWS_SEGMENT_BYTES=str(1024 * 1024)) as own,
    ):
        own.connect("origin", server.url)
        with load(own) as calls:
            until("the load runs", lambda: len(server.ledger) > 20)
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(65536)):
                        pass
                except OSError:
                    pass
            until("calls are refused", lambda: any(call.status == 503 for call in list(calls.calls)))
            refused = calls.one()
            passed = len(server.ledger)
            for _ in range(10):
                assert calls.one().status == 503
            assert len(server.ledger) == passed, "an action passed that could not be recorded"
        assert refused.status == 503 and b"ServiceUnavailableException" in refused.body, refused
        assert b"Narrows: " in refused.body and b"record" in refused.body, refused
        others = [call for call in calls.calls if call.status not in (200, 503) and not call.broke]
        assert not others, others[:2]
        assert "nothing passes any more" in own.log()
        filler.unlink()
        own.narrows("down", check=False)
        own.up()
        with load(own) as more:
            until("the load runs again", lambda: len(more.answered()) > 20)
        own.down()
        calls.calls += more.calls
        assert check(own, server, calls).gaps, "what the full disk cut is not told"
