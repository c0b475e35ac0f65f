"""Settings: precedence of sources, and that a mistake is an error which names the nearest setting."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from narrows import settings
from narrows.core.errors import ConfigError
from narrows.settings import Settings, default_data_dir, describe, load


def test_defaults(tmp_path: Path) -> None:
    found = load(environ={"HOME": str(tmp_path)})
    assert found.data == tmp_path / ".local/share/narrows"
    assert (found.listen_host, found.gateway_port, found.api_port) == ("127.0.0.1", 8470, 8471)
    assert found.durability == "strict"


def test_data_dir_per_platform() -> None:
    env = {"HOME": "/h", "XDG_DATA_HOME": "/x"}
    assert default_data_dir(env, "linux") == Path("/x/narrows")
    assert default_data_dir({"HOME": "/h", "XDG_DATA_HOME": "rel"}, "linux") == Path("/h/.local/share/narrows")
    assert default_data_dir(env, "darwin") == Path("/h/Library/Application Support/narrows")


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "narrows.toml").write_text('workers = 2\ngateway_port = 1000\ndurability = "buffered"\n')
    env = {"NARROWS_DATA": str(tmp_path), "NARROWS_GATEWAY_PORT": "2000", "NARROWS_API_PORT": "2001"}
    found = load(environ=env, overrides={"api_port": 3001, "workers": None})
    assert (found.workers, found.gateway_port, found.api_port) == (2, 2000, 3001)
    assert found.durability == "buffered"


def test_config_flag_beats_variable(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('workers = 2\ndata = "d"')
    (tmp_path / "b.toml").write_text("workers = 3")
    env = {"NARROWS_CONFIG": str(tmp_path / "b.toml"), "HOME": str(tmp_path)}
    assert load(environ=env).workers == 3
    found = load(config=tmp_path / "a.toml", environ=env)
    assert found.workers == 2
    assert found.data == tmp_path / "d", "a relative path in a file is relative to the file"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"NARROWS_WORKER": "2"}, "NARROWS_WORKERS"),
        ({"NARROWS_workers": "2"}, "NARROWS_WORKERS"),
        ({"NARROWS_GATWAY_PORT": "2"}, "NARROWS_GATEWAY_PORT"),
        ({"NARROWS_SESION": "x"}, "NARROWS_SESSION"),
    ],
)
def test_unknown_variable_names_the_nearest(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={"HOME": "/nonexistent", **environ})
    assert named in caught.value.hint
    assert next(iter(environ)) in caught.value.what


def test_unknown_key_in_file(tmp_path: Path) -> None:
    (tmp_path / "narrows.toml").write_text("idle_timeout = 2")
    with pytest.raises(ConfigError) as caught:
        load(environ={"NARROWS_DATA": str(tmp_path)})
    assert "idle_timeout_s" in caught.value.hint
    with pytest.raises(ConfigError):
        load(environ={"HOME": "/nonexistent"}, overrides={"port": 1})


@pytest.mark.parametrize(
    "text",
    [
        "workers = 0",
        'workers = "2"',
        "workers = true",
        "gateway_port = 65536",
        "gateway_port = -1",
        'durability = "eventual"',
        "durability = 1",
        'log_origin = "a\\nb"',
        "session_ttl_s = 59",
        "data = 1",
        "[workers]",
        "workers = ",
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(config=path, environ={"HOME": "/nonexistent"})
    assert "c.toml" in str(caught.value)


def test_wrong_variable_is_refused() -> None:
    with pytest.raises(ConfigError, match="NARROWS_WORKERS"):
        load(environ={"HOME": "/nonexistent", "NARROWS_WORKERS": "many"})


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be read"):
        load(config=tmp_path / "none.toml", environ={})


def test_file_in_data_dir_cannot_move_it(tmp_path: Path) -> None:
    (tmp_path / "narrows.toml").write_text('data = "/elsewhere"')
    with pytest.raises(ConfigError, match="wrong place"):
        load(environ={"NARROWS_DATA": str(tmp_path)})


def test_construction_checks_too() -> None:
    with pytest.raises(ConfigError):
        Settings(workers=0)


def test_json_round_trip(tmp_path: Path) -> None:
    before = Settings(data=tmp_path, workers=3, log_origin="example.org/log")
    assert Settings.from_json(before.to_json()) == before
    assert settings.with_ports(before, 1, 2).gateway_port == 1
    with pytest.raises(ConfigError):
        Settings.from_json('{"nope": 1}')
    with pytest.raises(ConfigError):
        Settings.from_json("[]")


def test_every_setting_is_described() -> None:
    rows = list(describe())
    assert len(rows) == len({row.env for row in rows}) > 20
    for row in rows:
        assert row.doc.endswith("."), row.name
        assert row.env == "NARROWS_" + row.name.upper()


def test_import_is_light() -> None:
    """No heavy module comes with it: commands that agents start often read settings too."""
    code = (
        "import sys; import narrows.settings; "
        "bad = {'pydantic','typer','rich','asyncio','ssl','tomllib','fastapi','botocore'} & set(sys.modules);"
        "assert not bad, bad"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - started < 2
