"""When the sealer may remove a chain's last segment: only after a read that began when the writer was known dead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.sealed_world import World, ident

from narrows.record.sealer import Sealer
from narrows.record.sealing_wal import RECOVERED


def test_what_a_writer_wrote_between_the_read_and_its_death_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sealer met the end; then the writer wrote on, was killed and recovered, all while the sealer committed."""
    world = World(tmp_path)
    writer = world.writer()
    session = ident(1)
    writer.open(session)
    before = writer.call(session, 1)
    late: list[bytes] = []
    commit = Sealer._commit

    def slow_commit(self: Sealer, *given: object) -> None:
        commit(self, *given)  # type: ignore[arg-type]
        if not late:
            late.append(writer.call(session, 2))
            (writer.directory / RECOVERED).write_text(json.dumps({"writer": writer.name}))

    monkeypatch.setattr(Sealer, "_commit", slow_commit)
    with world.sealer() as sealer:
        sealer.drain()
        sealer.drain()
    sealed = {record.place.exchange for record in world.sealed}
    assert {before, *late} <= sealed
    assert world.verify().ok
    assert not list(writer.directory.glob("*.seg"))  # sealed whole, hence removed
