"""Which chains' directories a start removes: those that are of no use to anyone any more, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from narrows.cli import prepare


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare.directories(tmp_path / "data")
    return tmp_path / "data"


def chain(data: Path, name: str, *files: str) -> Path:
    folder = data / "wal" / name
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    return folder


def sealer(data: Path, *writers: str) -> None:
    (data / "log" / "sealer.json").write_text(json.dumps({"writers": {name: {} for name in writers}}))


def test_an_emptied_chain_goes_once_the_sealer_has_let_go_of_it(data: Path) -> None:
    """The sealer finds the mark of recovery first: without it a chain that ended well would look stolen."""
    folder = chain(data, "worker-0-a", "lock", "recovered.json")
    sealer(data, "worker-0-a")
    prepare.recover(data)
    assert folder.exists()
    sealer(data)
    prepare.recover(data)
    assert not folder.exists()


@pytest.mark.parametrize("more", ["00000003.seg", "torn-7.bin"])
def test_a_chain_that_still_holds_something_stays(data: Path, more: str) -> None:
    folder = chain(data, "worker-0-a", "lock", "recovered.json", more)
    sealer(data)
    prepare.recover(data)
    assert folder.exists()


@pytest.mark.parametrize("state", [None, "", "{}", "[1]"])
def test_nothing_goes_while_the_sealer_cannot_be_asked(data: Path, state: str | None) -> None:
    folder = chain(data, "worker-0-a", "lock", "recovered.json")
    if state is not None:
        (data / "log" / "sealer.json").write_text(state)
    prepare.recover(data)
    assert folder.exists()
