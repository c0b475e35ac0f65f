"""Recorder, recovery and sealer together: what the one writes the other seals, also after a kill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.recording import CLOCK, EXCHANGE, SESSION, put, recording
from tests.sealed_world import World, ident

from narrows.record.log.frame import Flag, Kind
from narrows.record.recovery import recover_into


def test_recorded_live_sealed_and_removed(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def record() -> None:
        async with recording(tmp_path / "wal") as recorder:
            put(recorder, meta=b'{"kind":"aws.call"}', flags=Flag.BEGIN)
            last = recorder.append(
                Kind.RESPONSE, Flag.END | Flag.FINAL, SESSION, EXCHANGE, b'{"outcome":"complete"}', b""
            )
            await recorder.durable(last)
            world.seal()  # while the writer lives: its segment ends in reserved space
            assert [s.outcome for s in world.sealed if s.type == "exchange"] == ["complete"]
            assert world.verify().ok
            await recorder.durable(put(recorder, exchange=ident(5), flags=Flag.BEGIN))

    asyncio.run(record())
    world.seal()
    assert [s.outcome for s in world.sealed if s.type == "exchange"] == ["complete", "unfinished"]
    assert not list((tmp_path / "wal").glob("*/*.seg"))
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]


def test_a_writer_that_was_killed_with_a_torn_tail(tmp_path: Path) -> None:
    world = World(tmp_path)
    dead = world.writer("dead")
    dead.call(ident(1), 1)
    dead.begin(ident(1), ident(2))
    world.seal()
    path = dead.directory / "00000000.seg"
    path.write_bytes(path.read_bytes() + b"NRF1 torn")

    async def recover() -> None:
        async with recording(tmp_path / "wal", "next") as recorder:
            report = await recover_into(tmp_path / "wal", CLOCK, recorder)
            assert [found.writer for found in report.writers] == ["dead"]

    asyncio.run(recover())
    world.seal()
    outcomes = {s.exchange: s.outcome for s in world.sealed if s.type == "exchange"}
    assert outcomes[ident(2)] == "unfinished"
    whys = [str(s.request_facts["why"]) for s in world.sealed if s.type == "gap"]
    assert whys == ["torn tail", "unfinished"]
    assert sorted(p.suffix for p in dead.directory.iterdir()) == ["", ".bin", ".json"]
    assert json.loads((dead.directory / "recovered.json").read_text())["torn_bytes"] == 9
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]
