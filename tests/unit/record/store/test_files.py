"""The directory store: atomic, owner-only, inside its root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from narrows.core.errors import NotFound, RecorderFailed
from narrows.record.store.files import FileStore


def test_what_is_written_is_read_listed_and_removed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("a/b/one", b"1")
    store.write_many({"a/b/two": b"22", "c/three": b"333"})
    assert store.list("a/b") == ["one", "two"]
    assert (store.read("c/three"), store.size("a/b/two")) == (b"333", 2)
    assert (tmp_path / "a/b/one").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    store.remove("a/b/one")
    store.remove("a/b/one")
    assert not store.exists("a/b/one")
    assert store.list("nowhere") == []
    for call in (store.read, store.size):
        with pytest.raises(NotFound):
            call("a/b/one")


def test_append_overwrites_what_an_interrupted_one_left(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.append("f", 0, b"abc")
    store.append("f", 3, b"half of a longer piece")
    store.append("f", 3, b"def")
    assert store.read("f") == b"abcdef"
    with pytest.raises(RecorderFailed, match="shorter"):
        store.append("f", 7, b"x")
    store.truncate("f", 2)
    assert store.read("f") == b"ab"
    with pytest.raises(RecorderFailed, match="shorter"):
        store.truncate("f", 3)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "a/.", "", "a\n", "a\0b"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        FileStore(tmp_path).path(name)


def test_a_failed_write_leaves_the_old_content_and_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    store.write("f", b"old")

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecorderFailed, match="No space left"):
        store.write("f", b"new")
    monkeypatch.undo()
    assert store.read("f") == b"old"
