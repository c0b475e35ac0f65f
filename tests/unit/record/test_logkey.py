"""The signing key's file: made once, owner-only, never shown, never silently replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from narrows.core.errors import ConfigError
from narrows.record.log.note import Verifier
from narrows.record.logkey import default_origin, open_key


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = open_key(tmp_path, "narrows/here")
    assert open_key(tmp_path).skey == key.skey
    assert (tmp_path / "keys/log.key").stat().st_mode & 0o777 == 0o600
    assert Verifier.parse((tmp_path / "keys/log.pub").read_text()) == key.verifier


def test_a_key_that_others_can_read_or_of_another_origin_is_refused(tmp_path: Path) -> None:
    key = open_key(tmp_path, "narrows/here")
    with pytest.raises(ConfigError, match="another origin"):
        open_key(tmp_path, "narrows/there")
    (tmp_path / "keys/log.key").chmod(0o644)
    with pytest.raises(ConfigError) as error:
        open_key(tmp_path)
    assert key.skey.rsplit("+", 1)[1] not in str(error.value)


def test_a_lost_key_is_not_replaced_where_there_is_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/checkpoint").write_text("x")
    with pytest.raises(ConfigError, match="gone"):
        open_key(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path)
    path = tmp_path / "keys/log.key"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ConfigError, match="cannot be used"):
        open_key(tmp_path)


def test_an_origin_is_a_name_that_a_key_may_have() -> None:
    assert default_origin("My Host+1") == "narrows/my-host-1"
    assert default_origin("---") == "narrows/gateway"
