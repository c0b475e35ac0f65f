"""A real gateway, started, asked, hurt and stopped through the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from narrows.cli import local, prepare
from narrows.cli.client import ApiError, Client
from narrows.cli.main import main
from narrows.core.errors import ConfigError
from narrows.settings import Settings

NARROWS = [sys.executable, "-m", "narrows.cli.main"]


def _run(data: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NARROWS_", "AWS_"))}
    env |= {"NARROWS_DATA": str(data), "NARROWS_GATEWAY_PORT": "0", "NARROWS_API_PORT": "0", **environ}
    return subprocess.run([*NARROWS, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a gateway that runs."""
    path = tmp_path_factory.mktemp("gateway") / "data"
    done = _run(path, "up", "--detach")
    assert done.returncode == 0, done.stderr + (path / "run" / "narrows.log").read_text()
    yield path
    if local.holder(path):
        assert _run(path, "down").returncode == 0
    assert not local.path_of(path).exists()


def test_owner_only(data: Path) -> None:
    for path in (data, *(p for p in data.rglob("*") if p.is_dir() or p.suffix == ".key" or p.name == "local.json")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    found = json.loads(local.path_of(data).read_text())
    assert set(found) == {"api", "gateway", "token", "pid"}
    assert len(found["token"]) >= 43
    log = (data / "run" / "narrows.log").read_text()
    assert found["token"] not in log


def test_token_is_in_no_argument_or_variable(data: Path) -> None:
    token = json.loads(local.path_of(data).read_text())["token"].encode()
    pid = local.holder(data)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    for child in [str(pid), *children]:
        for name in ("cmdline", "environ"):
            assert token not in Path(f"/proc/{child}/{name}").read_bytes()


def test_it_answers(data: Path) -> None:
    assert json.loads(_run(data, "whoami", "--json").stdout)["issuer"] == "local"
    done = _run(data, "doctor", "--json")
    assert done.returncode == 0, done.stdout
    added = _run(data, "connection", "add", "aws", "prod", "--region", "eu-west-1")
    assert added.returncode == 0, added.stderr
    assert _run(data, "connection", "add", "aws", "prod").returncode == 1, "a name is taken once"
    script = "import os; print(os.environ['AWS_ACCESS_KEY_ID'][:4], os.environ['AWS_REGION'])"
    done = _run(data, "run", "--env-keys", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "NRWL eu-west-1\n"), done.stderr


def test_a_session_whose_time_is_over_ends(data: Path) -> None:
    api = Client.of(data)
    agent = {"name": "test", "version": ""}
    opened = api.post("/sessions", {"agent": agent, "connections": ["prod"], "ttl_s": 1})
    deadline = time.monotonic() + 20
    while api.get(f"/sessions/{opened['id']}")["state"] != "expired":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(ApiError) as caught:
        api.post("/leases", {"session": opened["id"], "connection": "prod"})
    assert caught.value.code == "session_ended"
    api.close()


def test_a_second_one_is_refused_and_detach_is_content(data: Path) -> None:
    done = _run(data, "up")
    assert done.returncode == 2
    assert f"process {local.holder(data)}" in done.stderr
    done = _run(data, "up", "--detach")
    assert done.returncode == 0
    assert "already runs" in done.stdout


@pytest.mark.parametrize("setting", ["NARROWS_GATEWAY_PORT", "NARROWS_API_PORT"])
def test_a_taken_port_is_a_clear_error(tmp_path: Path, data: Path, setting: str) -> None:
    """Taken by another gateway, whose workers listen with SO_REUSEPORT, or by anything else."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for arguments in (["up"], ["up", "--detach"]):
            done = _run(tmp_path / "other", *arguments, **{setting: port})
            assert done.returncode == 2, done.stderr
            assert port in done.stderr and setting in done.stderr
    assert not local.holder(tmp_path / "other")


def test_a_killed_worker_is_replaced_and_its_gap_recorded(data: Path) -> None:
    pid = local.holder(data)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    worker = next(c for c in children.read_text().split() if b"worker" in Path(f"/proc/{c}/cmdline").read_bytes())
    before = {path.name for path in (data / "wal").glob("worker-*")}
    os.kill(int(worker), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while len(list((data / "wal").glob("worker-*"))) == len(before) and time.monotonic() < deadline:
        time.sleep(0.05)
    (dead,) = before
    mark = json.loads((data / "wal" / dead / "recovered.json").read_text())
    assert mark["closed"] is False
    assert worker not in children.read_text().split()
    log = (data / "run" / "narrows.log").read_text()
    assert "worker 0 was ended by signal 9" in log and "worker 0 restarted" in log
    gateway = json.loads(local.path_of(data).read_text())["gateway"]
    port = int(gateway.rpartition(":")[2])
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    else:
        pytest.fail("the gateway's port is not served again")


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    assert _run(path, "up", "--detach").returncode == 0
    pid = local.holder(path)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() and _alive(child) for child in children):
        assert time.monotonic() < deadline, "a child outlives its supervisor"
        time.sleep(0.05)
    assert local.holder(path) == 0
    done = _run(path, "sessions")
    assert done.returncode == 3, "a local file left behind is not a gateway"
    assert _run(path, "up", "--detach").returncode == 0
    assert _run(path, "down").returncode == 0
    assert _run(path, "verify").returncode == 0


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_down_leaves_a_record_that_proves(data: Path) -> None:
    assert _run(data, "down").returncode == 0
    done = _run(data, "verify", "--all", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True and report["leaves"] > 0 and report["unsealed_frames"] == 0
    checkpoint = data / "log" / "checkpoint"
    assert _run(data, "verify", "--since", str(checkpoint)).returncode == 0
    assert _run(data, "verify", "--key", (data / "keys" / "log.pub").read_text().strip()).returncode == 0
    session = next(p.name for p in (data / "objects" / "sessions").iterdir() if p.name[14] == "7")
    assert _run(data, "verify", session[:13]).returncode == 0
    assert _run(data, "down").returncode == 3


def test_verify_says_no(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run after the gateway is down: a changed byte in a part is named, and the exit code says so."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    part = max((copy / "objects").rglob("*.*"), key=lambda path: path.stat().st_size)
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    assert main(["verify", "--data", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "NOT PROVEN" in out and part.parent.name in out
    assert main(["verify", "--data", str(tmp_path)]) == 2
    assert main(["verify", "ffffffff", "--data", str(copy)]) == 1


def test_a_data_directory_that_others_reach_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    done = _run(path, "up")
    assert done.returncode == 2
    assert "chmod 700" in done.stderr


def test_keys_are_made_once(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    prepare.directories(settings.data)
    prepare.keys(settings)
    before = {path: path.read_bytes() for path in (settings.data / "keys").iterdir()}
    prepare.keys(settings)
    assert {path: path.read_bytes() for path in (settings.data / "keys").iterdir()} == before
    assert {path.name for path in before} == {"lease.key", "log.key", "log.pub", "ca.key"}
    key = prepare.signing_key(settings)
    assert (settings.data / "keys" / "log.pub").read_text().strip() == key.verifier.vkey


def test_an_origin_does_not_change(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", log_origin="example.org/log")
    prepare.directories(settings.data)
    assert prepare.signing_key(settings).name == "example.org/log"
    assert prepare.signing_key(Settings(data=settings.data)).name == "example.org/log"
    with pytest.raises(ConfigError, match="origin cannot change"):
        prepare.signing_key(Settings(data=settings.data, log_origin="example.org/other"))


def test_a_lost_signing_key_is_not_replaced(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    prepare.directories(settings.data)
    (settings.data / "log" / "checkpoint").write_text("a log that was signed")
    with pytest.raises(ConfigError, match="gone"):
        prepare.signing_key(settings)


@pytest.mark.parametrize("host", ["my-host", "a b+c", "", "-", "ü"])
def test_default_origin_is_a_valid_name(host: str) -> None:
    from narrows.record.log.note import check_name

    origin = prepare.default_origin(host)
    check_name(origin)
    assert origin != prepare.default_origin(host)


def test_urls() -> None:
    assert local.url("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert local.url("::1", 1) == "http://[::1]:1"
    assert local.url("192.0.2.1", 1) == "http://192.0.2.1:1"
