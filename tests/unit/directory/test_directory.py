"""The directory file: what a worker may rely on while the control process changes, breaks or loses it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter_ns

import pytest

from narrows.core.errors import ConfigError
from narrows.core.values import Connection, CredentialSource, Durability
from narrows.directory import FileDirectory, connection_from_json, connection_to_json, write

PROD = Connection(
    "prod",
    hosts=("*.amazonaws.com", "sts.example.net"),
    credential=CredentialSource("assume_role", role_arn="arn:aws:iam::123456789012:role/x"),
    durability=Durability.BUFFERED,
    groups=("dev",),
    allow_private=True,
)
S3 = Connection("s3only", hosts=("*.s3.amazonaws.com",))
TWIN = Connection("twin", hosts=("*.amazonaws.com",))
SESSION = bytes(range(16))


def test_a_connection_survives_the_file_unchanged() -> None:
    assert connection_from_json(json.loads(json.dumps(connection_to_json(PROD)))) == PROD


@pytest.mark.parametrize(
    "change",
    [
        {"allow_privat": True},
        {"allow_private": "false"},
        {"durability": "none"},
        {"credential": {"secret": "x"}},
    ],
)
def test_a_connection_that_says_something_unknown_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        connection_from_json(connection_to_json(PROD) | change)


def test_a_missing_file_refuses_everything(tmp_path: Path) -> None:
    directory = FileDirectory(tmp_path / "directory.json")
    assert directory.connection("prod") is None
    assert directory.by_host("s3.amazonaws.com") is None
    assert directory.session_ended(SESSION) == "unavailable"
    assert "could not be read" in directory.problem


def test_a_connection_works_at_once_after_its_publication(tmp_path: Path) -> None:
    """A lease may be used before the next regular look at the file."""
    path = tmp_path / "directory.json"
    write(path, 1, [S3], {})
    directory = FileDirectory(path)
    assert directory.connection("prod") is None and directory.by_host("ec2.amazonaws.com") is None
    write(path, 2, [S3, PROD], {})
    assert directory.connection("prod") == PROD
    write(path, 3, [S3, PROD, Connection("web", hosts=("example.org",))], {})
    found = directory.by_host("example.org")
    assert found is not None and found.name == "web"


def test_look_ups_after_a_publication(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    write(path, 3, [PROD, S3, TWIN], {SESSION: "killed"})
    directory = FileDirectory(path)
    assert directory.version == 3 and not directory.problem
    assert directory.connection("prod") == PROD
    assert directory.connection("other") is None
    assert directory.session_ended(SESSION) == "killed"
    assert directory.session_ended(bytes(16)) == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["directory.json"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("sts.example.net", "prod"),
        ("dynamodb.eu-west-1.amazonaws.com", "prod"),
        ("bucket.s3.amazonaws.com", "s3only"),
        ("a.b.s3.amazonaws.com", "s3only"),
        ("amazonaws.com", None),
        ("notamazonaws.com", None),
        ("amazonaws.com.evil.net", None),
        ("x.sts.example.net", None),
        ("", None),
        ("..", None),
    ],
)
def test_hosts_match_exactly_then_by_the_longest_suffix(tmp_path: Path, host: str, name: str | None) -> None:
    write(tmp_path / "d.json", 1, [PROD, S3, TWIN], {})
    directory = FileDirectory(tmp_path / "d.json")
    for _ in range(2):  # the second answer comes from the cache
        found = directory.by_host(host)
        assert (found.name if found else None) == name


def test_every_claimant_of_a_host_is_known(tmp_path: Path) -> None:
    write(tmp_path / "d.json", 1, [PROD, S3, TWIN], {})
    directory = FileDirectory(tmp_path / "d.json")
    assert [c.name for c in directory.claimants("ec2.us-east-1.amazonaws.com")] == ["prod", "twin"]


def test_a_refresh_takes_the_new_state(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    write(path, 1, [PROD], {})
    directory = FileDirectory(path)
    assert directory.by_host("bucket.s3.amazonaws.com") == PROD
    assert directory.refresh() is False
    write(path, 2, [S3], {SESSION: "closed"})
    assert directory.refresh() is True
    assert directory.by_host("bucket.s3.amazonaws.com") == S3
    assert directory.session_ended(SESSION) == "closed"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"version":1}', b'{"version":1,"connections":[],"ended":{"zz":"killed"}}']
)
def test_a_malformed_file_keeps_the_last_good_state_and_says_so(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "directory.json"
    write(path, 1, [PROD], {SESSION: "killed"})
    directory = FileDirectory(path)
    path.write_bytes(body)
    assert directory.refresh() is False
    assert directory.problem
    assert directory.connection("prod") == PROD and directory.session_ended(SESSION) == "killed"
    write(path, 2, [S3], {})
    assert directory.refresh() is True and not directory.problem


def test_a_file_that_vanishes_keeps_the_last_good_state(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    write(path, 1, [PROD], {})
    directory = FileDirectory(path)
    path.unlink()
    assert directory.refresh() is False and directory.connection("prod") == PROD and directory.problem


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    write(path, 1, [PROD], {})
    os.chmod(path, 0o666)
    directory = FileDirectory(path)
    assert directory.connection("prod") is None and "write" in directory.problem


def test_the_cache_of_hosts_is_bounded_and_fast(tmp_path: Path) -> None:
    write(tmp_path / "d.json", 1, [PROD, S3], {})
    directory = FileDirectory(tmp_path / "d.json")
    for number in range(20_000):
        directory.by_host(f"h{number}.amazonaws.com")
    state = directory._state
    assert state is not None and len(state.cache) <= 4096
    best = 10**9
    for _ in range(20):
        begin = perf_counter_ns()
        for _ in range(1000):
            directory.by_host("bucket.s3.amazonaws.com")
        best = min(best, perf_counter_ns() - begin)
    assert best / 1000 < 2000, "nanoseconds a look-up; about 150 on an idle machine"
    print(best / 1000)
