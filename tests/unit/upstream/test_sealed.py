"""The encrypted store: what is sealed opens as it was, under its own name only, and nothing on disk can be changed."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narrows import ownerfile
from narrows.core.errors import ConfigError, CredentialError, NotFound
from narrows.core.values import ApiKey, Connection, CredentialSource
from narrows.upstream import sealed_keys
from narrows.upstream.sealed import MAX_SECRET, SealedStore
from narrows.upstream.sources import Sources
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

KEY = b"sk-live-the-key-itself-0123456789abcdef"
LLM = Connection("m", "llm", provider="anthropic")


def no_chain(profile: str) -> Credentials:
    raise AssertionError("a file's master asks no AWS")


def new(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "credentials", Vault(), no_chain)


def put(store: SealedStore, tmp_path: Path, name: str, secret: bytes = KEY) -> None:
    store.put(name, secret, 1_700_000_000_000_000_000, tmp_path / "keys")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SealedStore, Path]:
    """A store with one credential `one`, and its file."""
    home = tmp_path_factory.mktemp("sealed")
    store = new(home)
    put(store, home, "one")
    return store, home / "credentials" / "one.json"


def test_a_secret_comes_back_and_rests_nowhere_in_clear(tmp_path: Path) -> None:
    store = new(tmp_path)
    put(store, tmp_path, "one")
    put(
        store,
        tmp_path,
        "two",
        b'{"aws_access_key_id": "AKIAEXAMPLE000000000", "aws_secret_access_key": "s3cr3t/+aaaa"}',
    )
    assert store.secret("one") == KEY
    assert [(e.name, e.version) for e in store.entries()] == [("one", 1), ("two", 1)]
    assert KEY.decode() not in repr(store.entries()) + repr(store)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert KEY not in path.read_bytes() and b"s3cr3t" not in path.read_bytes()
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700


def test_it_gives_what_the_connections_kind_needs(tmp_path: Path) -> None:
    sources = Sources({}, sealed=tmp_path / "credentials")
    put(sources.sealed, tmp_path, "key")
    put(sources.sealed, tmp_path, "fields", b'{"prod": "sk-prod-00000000", "dev": "sk-dev-000000000"}')
    put(sources.sealed, tmp_path, "aws", b'{"AccessKeyId": "AKIAEXAMPLE000000000", "SecretAccessKey": "abc/+def"}')

    def load(name: str, connection: Connection = LLM, field: str = "") -> Any:
        return sources.sealed.load(CredentialSource("sealed", secret_name=name, field=field), connection)

    assert load("key").credentials == ApiKey(KEY.decode())
    assert load("fields", field="dev").credentials == ApiKey("sk-dev-000000000")
    assert load("aws", Connection("a")).credentials == Credentials("AKIAEXAMPLE000000000", "abc/+def", None)
    before = load("key")
    assert sources.sealed.load(CredentialSource("sealed", secret_name="key"), LLM, before) is before
    put(sources.sealed, tmp_path, "key", b"sk-another-key-00000000")
    after = sources.sealed.load(CredentialSource("sealed", secret_name="key"), LLM, before)
    assert after.credentials == ApiKey("sk-another-key-00000000")

    for name, connection, step in (
        ("none", LLM, "secret"),
        ("key", Connection("a"), "shape"),
        ("fields", LLM, "shape"),
        ("../x", LLM, "secret"),
        ("master", LLM, "secret"),
    ):
        with pytest.raises(CredentialError) as caught:
            load(name, connection)
        assert getattr(caught.value, "step", "") == step and KEY.decode() not in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bit_that_is_flipped_anywhere_is_refused(sealed: tuple[SealedStore, Path], data: st.DataObject) -> None:
    store, path = sealed
    raw = path.read_bytes()
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(changed)
        with pytest.raises(CredentialError) as caught:
            store.secret("one")
        assert KEY.decode() not in str(caught.value)
    finally:
        path.write_bytes(raw)
    assert store.secret("one") == KEY


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_can_be_cut_off_put_in_or_appended(sealed: tuple[SealedStore, Path], data: st.DataObject) -> None:
    store, path = sealed
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    more = data.draw(st.binary(max_size=3))
    cut = data.draw(st.integers(0, 5))
    changed = raw[:at] + more + raw[at + cut :]
    try:
        path.write_bytes(changed)
        if changed == raw:
            assert store.secret("one") == KEY
        else:
            with pytest.raises(CredentialError):
                store.secret("one")
    finally:
        path.write_bytes(raw)


def test_names_and_versions_cannot_be_swapped(tmp_path: Path) -> None:
    store = new(tmp_path)
    put(store, tmp_path, "one")
    put(store, tmp_path, "two", b"another secret")
    folder = tmp_path / "credentials"
    one, two = (folder / "one.json").read_bytes(), (folder / "two.json").read_bytes()
    (folder / "two.json").write_bytes(one)
    with pytest.raises(CredentialError, match="refused"):
        store.secret("two")
    # Renamed inside too: the check, the data key and the secret are all bound to the name.
    (folder / "two.json").write_bytes(one.replace(b'"name":"one"', b'"name":"two"'))
    with pytest.raises(CredentialError, match="refused"):
        store.secret("two")
    # A part of one in the other.
    for name in (b'"wrapped":"', b'"sealed":"', b'"nonce":"'):
        begin, end = (
            (text.index(name) for text in (one, two)),
            (text.index(b'"', text.index(name) + len(name)) for text in (one, two)),
        )
        (a, b), (c, d) = tuple(begin), tuple(end)
        (folder / "two.json").write_bytes(two[:b] + one[a:c] + two[d:])
        with pytest.raises(CredentialError, match="refused"):
            store.secret("two")
    (folder / "two.json").write_bytes(two)
    assert store.secret("two") == b"another secret"


def test_a_version_follows_the_last_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    store = new(tmp_path)
    put(store, tmp_path, "one")
    put(store, tmp_path, "one", b"the second")
    assert store.entries()[0].version == 2 and store.secret("one") == b"the second"
    store.remove("one")
    assert store.entries() == []
    with pytest.raises(NotFound):
        store.remove("one")
    for wrong in (b"", b"x" * (MAX_SECRET + 1)):
        with pytest.raises(ConfigError):
            put(store, tmp_path, "one", wrong)
    put(store, tmp_path, "one", b"x" * MAX_SECRET)
    assert len(store.secret("one")) == MAX_SECRET


def test_the_wrong_master_key_opens_nothing(tmp_path: Path) -> None:
    store = new(tmp_path)
    put(store, tmp_path, "one")
    (key,) = (tmp_path / "keys").iterdir()
    good = key.read_bytes()
    key.write_bytes(os.urandom(32))
    with pytest.raises(CredentialError, match="another key"):
        store.secret("one")
    key.write_bytes(good)
    key.chmod(0o640)
    with pytest.raises(CredentialError, match="0640"):
        store.secret("one")
    key.unlink()
    with pytest.raises(CredentialError, match="no master key"):
        store.secret("one")
    assert [e.name for e in store.entries()] == ["one"], "the list needs no key"


def test_a_rotation_that_is_cut_off_anywhere_leaves_all_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new(tmp_path)
    secrets = {f"s{i}": f"secret {i} ".encode() * 3 for i in range(4)}
    for name, secret in secrets.items():
        put(store, tmp_path, name, secret)
    real = ownerfile.replace
    for cut in range(6):
        master = sealed_keys.make_file_master(tmp_path / "keys")
        left = cut

        def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(path, data, mode=mode)

        with monkeypatch.context() as patch:
            patch.setattr("narrows.ownerfile.replace", replace)
            if cut < 5:
                with pytest.raises(KeyboardInterrupt):
                    store.rotate(master)
            else:
                assert store.rotate(master) == 4
        assert {name: new(tmp_path).secret(name) for name in secrets} == secrets, cut
        put(store, tmp_path, "s0", secrets["s0"])  # in between, changes go on
        store.rotate(master)
        assert {e.master for e in store.entries()} == {f"file {master['id']}"}
        assert store.used_files() == {tmp_path / master["path"]}


def test_readers_are_never_without_while_keys_rotate(tmp_path: Path) -> None:
    store = new(tmp_path)
    put(store, tmp_path, "one")
    done = threading.Event()
    wrong: list[BaseException] = []

    def read() -> None:
        reader = new(tmp_path)
        try:
            while not done.is_set():
                assert reader.secret("one") == KEY
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(40):
            master = sealed_keys.make_file_master(tmp_path / "keys")
            store.rotate(master)
            for path in (tmp_path / "keys").glob("*.key"):
                if path not in store.used_files():
                    path.unlink()
    finally:
        done.set()
        thread.join()
    assert wrong == []


def test_a_moved_data_directory_still_opens(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    put(new(tmp_path / "a"), tmp_path / "a", "one")
    (tmp_path / "a").rename(tmp_path / "b")
    assert new(tmp_path / "b").secret("one") == KEY
