"""The control store: what survives a restart, and what the data plane sees of each change."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from narrows import directory
from narrows.core.errors import ConfigError, NotFound
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.directory import FileDirectory
from narrows.manage.control import ENDED_KEPT_S, ControlStore, Session
from narrows.manage.errors import ConflictError

OWNER = Principal("alice", groups=("dev",))


class Clock:
    now_s = 1_800_000_000

    def wall_ns(self) -> int:
        return self.now_s * 1_000_000_000

    def mono_ns(self) -> int:
        return self.wall_ns()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[ControlStore]:
    opened = ControlStore(tmp_path / "control.db", tmp_path / "directory.json", clock)
    yield opened
    opened.close()


def session(number: int, clock: Clock, ttl: int = 3600) -> Session:
    return Session(
        bytes(15) + bytes([number]),
        OWNER,
        Agent("claude-code", "2.1"),
        ("aws", "s3", "ls"),
        "/src",
        "laptop",
        4711,
        ("prod",),
        clock.wall_ns(),
        clock.now_s + ttl,
    )


def test_a_new_store_publishes_an_empty_directory(store: ControlStore, tmp_path: Path) -> None:
    seen = FileDirectory(tmp_path / "directory.json")
    assert not seen.problem and seen.connections() == () and seen.session_ended(bytes(16)) == ""
    assert (tmp_path / "control.db").stat().st_mode & 0o777 == 0o600


def test_connections_come_and_go_in_the_store_and_in_the_directory(store: ControlStore, tmp_path: Path) -> None:
    seen = FileDirectory(tmp_path / "directory.json")
    added = [store.add_connection(Connection(name)) for name in ("zeta", "alpha")]
    assert seen.refresh() and list(seen.connections()) == added == store.connections()
    assert added[0].hosts, "the defaults are filled in"

    changed = store.replace_connection(Connection("zeta", region="eu-west-1"))
    assert seen.refresh() and seen.connection("zeta") == changed
    assert [c.name for c in store.connections()] == ["zeta", "alpha"], "a change keeps the order"

    store.remove_connection("zeta")
    assert seen.refresh() and seen.connection("zeta") is None and seen.connection("alpha") is not None
    with pytest.raises(NotFound):
        store.connection("zeta")


def test_wrong_changes_are_refused_and_change_nothing(store: ControlStore, tmp_path: Path) -> None:
    store.add_connection(Connection("prod"))
    seen = FileDirectory(tmp_path / "directory.json")
    with pytest.raises(ConflictError):
        store.add_connection(Connection("prod", region="eu-west-1"))
    with pytest.raises(NotFound):
        store.replace_connection(Connection("other"))
    with pytest.raises(NotFound):
        store.remove_connection("other")
    with pytest.raises(ConfigError):
        store.add_connection(Connection("Bad Name"))
    seen.refresh()
    assert [c.name for c in seen.connections()] == ["prod"] and store.connection("prod").region == ""


def test_a_change_that_cannot_be_published_is_not_made(store: ControlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(directory, "write", full)
        with pytest.raises(OSError, match="No space"):
            store.add_connection(Connection("prod"))
    assert store.connections() == []
    store.add_connection(Connection("prod"))


def test_everything_survives_a_restart(store: ControlStore, tmp_path: Path, clock: Clock) -> None:
    added = store.add_connection(Connection("prod"))
    opened = session(1, clock)
    store.open_session(opened)
    store.end_session(opened.id, "killed", "killed")
    store.close()
    (tmp_path / "directory.json").unlink()
    again = ControlStore(tmp_path / "control.db", tmp_path / "directory.json", clock)
    seen = FileDirectory(tmp_path / "directory.json")
    assert again.connections() == [added] and seen.connection("prod") == added
    assert seen.session_ended(opened.id) == "killed"
    assert again.session(opened.id).state == "killed"
    again.close()


def test_a_session_is_given_back_as_it_was_opened(store: ControlStore, clock: Clock) -> None:
    opened = session(1, clock)
    store.open_session(opened)
    assert store.session(opened.id) == opened
    assert store.sessions() == [opened]
    with pytest.raises(NotFound):
        store.session(bytes(16))


@pytest.mark.parametrize("state", ["closed", "killed", "expired"])
def test_an_end_is_published_at_once(store: ControlStore, tmp_path: Path, clock: Clock, state: str) -> None:
    opened = session(1, clock)
    store.open_session(opened)
    seen = FileDirectory(tmp_path / "directory.json")
    ended = store.end_session(opened.id, state, "because", 3)
    assert (ended.state, ended.why, ended.exit_code, ended.closed_ns) == (
        state,
        "because",
        3,
        clock.wall_ns(),
    )
    seen.refresh()
    assert seen.session_ended(opened.id) == state


def test_the_first_end_stays_but_a_kill_overrides_a_close(store: ControlStore, clock: Clock) -> None:
    opened = session(1, clock)
    store.open_session(opened)
    store.end_session(opened.id, "closed", "closed", 0)
    assert store.end_session(opened.id, "expired", "expired").state == "closed"
    killed = store.end_session(opened.id, "killed", "killed")
    assert (killed.state, killed.exit_code) == ("killed", 0)
    assert store.end_session(opened.id, "closed", "closed", 1).state == "killed"


def test_an_end_leaves_the_directory_only_after_the_leases_expired(
    store: ControlStore, tmp_path: Path, clock: Clock
) -> None:
    opened = session(1, clock, ttl=100)
    store.open_session(opened)
    store.end_session(opened.id, "killed", "killed")
    seen = FileDirectory(tmp_path / "directory.json")
    clock.now_s += 100 + ENDED_KEPT_S - 1
    store.publish()
    assert seen.refresh() and seen.session_ended(opened.id) == "killed"
    clock.now_s += 1
    store.publish()
    assert seen.refresh() and seen.session_ended(opened.id) == ""


def test_expired_sessions_are_found(store: ControlStore, clock: Clock) -> None:
    for number, ttl in ((1, 10), (2, 20), (3, 30)):
        store.open_session(session(number, clock, ttl))
    store.end_session(session(1, clock).id, "closed", "closed")
    clock.now_s += 20
    assert [s.id[-1] for s in store.expired()] == [2]


def test_no_secret_of_a_lease_is_stored(store: ControlStore, tmp_path: Path, clock: Clock) -> None:
    opened = session(1, clock)
    store.open_session(opened)
    lease = Lease(opened.id, "prod", OWNER, opened.agent, opened.expires_s, "ASIANAME", "s3cr3t-key", "t0ken-long")
    store.note_leases([lease, lease])
    assert [row["access_key_id"] for row in store.leases(opened.id)] == ["ASIANAME"]
    with pytest.raises(sqlite3.IntegrityError):
        store.note_leases([replace(lease, session=bytes(16), access_key_id="ASIAOTHER")])
    for file in tmp_path.iterdir():
        assert b"s3cr3t-key" not in file.read_bytes() and b"t0ken-long" not in file.read_bytes()


def test_a_store_of_a_newer_program_is_refused(store: ControlStore, tmp_path: Path, clock: Clock) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        ControlStore(tmp_path / "control.db", tmp_path / "directory.json", clock)


def test_many_threads_may_use_it(store: ControlStore, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                store.add_connection(Connection(f"c{number}-{step}"))
                store.connections()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(FileDirectory(tmp_path / "directory.json").connections()) == 20
