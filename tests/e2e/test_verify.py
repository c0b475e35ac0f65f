"""`sessions`, `show`, `tail`, `search` and `verify` over what was really recorded, and over what was changed after."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.gateway import UPSTREAM_SECRET, Gateway, find_in, gateway, lease_secrets, until

pytestmark = pytest.mark.slow

SOME_CALLS = """
import boto3
s3 = boto3.client("s3")
s3.list_buckets()
boto3.client("dynamodb").list_tables()
boto3.client("sts").get_caller_identity()
"""


def some_calls(narrows: Gateway) -> str:
    """A session with three calls, indexed and ended; its id."""
    ran = narrows.run([sys.executable, "-c", SOME_CALLS])
    assert ran.code == 0, ran.err
    narrows.calls(ran.session, 3)
    return ran.session


def test_listings_as_json(narrows: Gateway) -> None:
    session = some_calls(narrows)
    until("the session's end is indexed", lambda: narrows.get(f"/sessions/{session}")["closed_ns"])
    listed = narrows.rows("sessions", "--limit", "5")
    (mine,) = [row for row in listed if row["id"] == session]
    assert mine["state"] == "closed" and mine["exit_code"] == 0 and mine["exchanges"] == 3
    assert sorted(mine["services"]) == ["dynamodb", "s3", "sts"] and mine["principal"]
    assert mine["command"][0] == sys.executable
    found = narrows.rows("search", "service:s3", "--session", session)
    assert [row["operation"] for row in found] == ["ListBuckets"]
    assert narrows.rows("search", "service:nothing", "--session", session) == []
    followed = narrows.rows("tail", session)
    assert [row["operation"] for row in followed] == ["ListBuckets", "ListTables", "GetCallerIdentity"]
    shown = json.loads(narrows.narrows("show", found[0]["id"], "--json").stdout)
    assert shown["id"] == found[0]["id"] and shown["action"] == "s3:ListAllMyBuckets"
    text = narrows.narrows("show", session).stdout
    assert "GetCallerIdentity" in text


def test_what_runs_proves(narrows: Gateway, tmp_path: Path) -> None:
    """While the gateway runs: the whole log, one session, and growth since an earlier checkpoint."""
    older = tmp_path / "older"
    session = some_calls(narrows)
    older.write_text((narrows.data / "log" / "checkpoint").read_text())
    some_calls(narrows)
    every = narrows.verify("--all")
    assert every["exit"] == 0 and every["ok"] and not every["findings"] and every["exchanges"] >= 6
    one = narrows.verify(session)
    assert one["exit"] == 0 and one["exchanges"] == 3 and one["sessions"] == 1
    since = narrows.verify("--since", str(older))
    assert since["exit"] == 0, since["findings"]
    forged = tmp_path / "forged"
    lines = older.read_text().split("\n")
    lines[2] = "A" * 43 + "="
    forged.write_text("\n".join(lines))
    assert narrows.narrows("verify", "--since", str(forged), check=False).returncode == 1


@pytest.fixture(scope="module")
def stopped(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """A gateway of its own that recorded two sessions and was stopped."""
    with gateway(tmp_path_factory.mktemp("stopped")) as own:
        own.connect("demo", moto)
        some_calls(own)
        (own.home / "older").write_text((own.data / "log" / "checkpoint").read_text())
        some_calls(own)
    return own


@pytest.fixture
def copied(stopped: Gateway, tmp_path: Path) -> Gateway:
    """Its data, to be changed."""
    copy = Gateway(tmp_path)
    shutil.copytree(stopped.data, copy.data)
    return copy


def parts(narrows: Gateway) -> list[Path]:
    """The files that hold the recordings of sessions."""
    return sorted(path for path in narrows.data.glob("objects/sessions/*/*") if path.stat().st_size)


def test_a_stopped_gateway_proves(stopped: Gateway) -> None:
    report = stopped.verify("--all", "--since", str(stopped.home / "older"))
    assert report["exit"] == 0, report["findings"]
    assert report["exchanges"] == 6 and report["unsealed_frames"] == 0


def test_one_bit_in_a_part(copied: Gateway) -> None:
    sessions = {path.parent.name for path in parts(copied)}
    path = max(parts(copied), key=lambda part: part.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    report = copied.verify("--all")
    assert report["exit"] == 1 and not report["ok"]
    assert any(path.name in json.dumps(finding) for finding in report["findings"]), report["findings"]
    assert any(path.parent.name in json.dumps(finding) for finding in report["findings"])
    assert copied.verify(path.parent.name)["exit"] == 1
    text = copied.narrows("verify", "--all", check=False)
    assert text.returncode == 1 and "NOT PROVEN" in text.stdout and path.name in text.stdout
    others = sessions - {path.parent.name, "00000000-0000-0000-0000-000000000000"}
    assert others and all(copied.verify(other)["exit"] == 0 for other in others)


def test_a_whole_session_is_gone(copied: Gateway) -> None:
    gone = max(parts(copied), key=lambda part: part.stat().st_size).parent
    shutil.rmtree(gone)
    report = copied.verify("--all")
    assert report["exit"] == 1 and any(gone.name in json.dumps(finding) for finding in report["findings"])


def test_the_log_is_rolled_back(copied: Gateway, stopped: Gateway) -> None:
    """An old checkpoint put back in place of the new one, shown to someone who holds the new one."""
    newest = copied.home / "newest"
    newest.write_text((copied.data / "log" / "checkpoint").read_text())
    (copied.data / "log" / "checkpoint").write_text((stopped.home / "older").read_text())
    assert copied.verify("--since", str(newest))["exit"] == 1


def test_someone_elses_key(copied: Gateway) -> None:
    """A public key that did not sign proves nothing."""
    key = (copied.data / "keys" / "log.pub").read_text().strip()
    name, _, rest = key.partition("+")
    other = copied.home / "other.pub"
    from narrows.record.log.note import SigningKey

    other.write_text(SigningKey(name, bytes(32)).verifier.vkey)
    assert rest and copied.narrows("verify", "--all", "--key", str(other), check=False).returncode == 1


def test_no_secret_rests_anywhere(narrows: Gateway) -> None:
    """Last of the session-wide gateway's tests: every secret that any of them was given, in every file, unpacked."""
    some_calls(narrows)
    local = json.loads((narrows.data / "run" / "local.json").read_text())
    needles = lease_secrets(narrows.all_told())
    needles |= {
        # Its key id is a name, and on record where it signed a URL.
        "upstream secret": UPSTREAM_SECRET.encode(),
        "API token": local["token"].encode(),
        "lease key": (narrows.data / "keys" / "lease.key").read_bytes(),
        "log key": (narrows.data / "keys" / "log.key").read_bytes(),
    }
    found = find_in(narrows.data, needles)
    # Where they belong: owner-only files.
    assert found.pop("API token") == ["run/local.json"]
    assert found.pop("lease key") == ["keys/lease.key"] and found.pop("log key") == ["keys/log.key"]
    assert found == {}
    for path in narrows.data.rglob("*"):
        if path.is_file() and path.name not in ("ca.pem", "log.pub"):
            assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path
