"""Owner-only files: never half there, never overwritten, never read when others may read them too."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from narrows import ownerfile
from narrows.core.errors import ConfigError


def test_of_many_that_start_together_one_wins_and_all_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    contents = [bytes([n]) * 4096 for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda content: ownerfile.create(path, content), contents))
    assert made.count(True) == 1
    assert ownerfile.read(path) == contents[made.index(True)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077 if mode == 0o644 else 0)
    try:
        ownerfile.create(tmp_path / "made", b"x", mode=mode)
        ownerfile.replace(tmp_path / "replaced", b"x", mode=mode)
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("made", "replaced")} == {mode}


def test_replace_leaves_the_new_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    ownerfile.replace(path, b"old")
    ownerfile.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(ConfigError):
            ownerfile.read(path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigError):
        ownerfile.replace(tmp_path / "directory", b"x")


def test_the_limit_holds(tmp_path: Path) -> None:
    ownerfile.create(tmp_path / "f", b"12345")
    assert ownerfile.read(tmp_path / "f", limit=5) == b"12345"
    with pytest.raises(ConfigError):
        ownerfile.read(tmp_path / "f", limit=4)


def test_another_users_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ownerfile.create(tmp_path / "f", b"x")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to user"):
        ownerfile.read(tmp_path / "f")


def test_a_missing_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ownerfile.read(tmp_path / "none")
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(ConfigError, match="could not make"):
        ownerfile.create(tmp_path / "f" / "below", b"x")
