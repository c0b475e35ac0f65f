"""Leases: good exactly as issued, for their time and their connection, and nothing else is."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ConfigError, Refusal
from narrows.core.values import Agent, Lease, Principal
from narrows.identity import lease as module
from narrows.identity.lease import LeaseIssuer, load_or_create

KEY = bytes(range(32))
NOW = 1_800_000_000
SESSION = bytes(range(16))
ALICE = Principal("alice@example.com", "user", "https://idp.example.com", ("dev", "ops"))
AGENT = Agent("claude-code", "2.1.197")


def issue(issuer: LeaseIssuer, connection: str = "prod", expires: int = NOW + 3600) -> Lease:
    return issuer.issue(
        session=SESSION, connection=connection, principal=ALICE, agent=AGENT, expires=expires, now_s=NOW
    )


def refused(issuer: LeaseIssuer, key_id: str, token: bytes, now: int = NOW, connection: str = "") -> Refusal:
    with pytest.raises(Refusal) as caught:
        issuer.check(key_id, token, now, connection=connection)
    return caught.value


def test_a_lease_is_read_back_whole_by_any_node_with_the_key() -> None:
    made = issue(LeaseIssuer(KEY))
    read = LeaseIssuer(KEY).check(made.access_key_id, made.session_token.encode(), NOW)
    assert read == made
    assert (read.session, read.connection, read.principal, read.agent) == (SESSION, "prod", ALICE, AGENT)


def test_a_second_check_gives_the_same_lease_without_work() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    first = issuer.check(made.access_key_id, made.session_token.encode(), NOW)
    assert issuer.check(made.access_key_id, made.session_token.encode(), NOW) is first


def test_sdks_accept_the_key_pair() -> None:
    made = issue(LeaseIssuer(KEY))
    assert re.fullmatch(r"\w{16,128}", made.access_key_id)  # the pattern of accessKeyIdType in the STS model
    assert re.fullmatch(r"NRWL[A-Z2-7]{16}", made.access_key_id)
    assert len(made.secret_access_key) >= 40
    for text in (made.secret_access_key, made.session_token):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", text)  # survives ini files, shells and header fields


def test_two_leases_of_a_session_differ_in_everything() -> None:
    issuer = LeaseIssuer(KEY)
    one, two = issue(issuer), issue(issuer)
    assert one.access_key_id != two.access_key_id
    assert one.secret_access_key != two.secret_access_key
    assert one.session_token != two.session_token


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_change_of_any_byte_is_refused(data: st.DataObject) -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    token = made.session_token.encode()
    if data.draw(st.booleans(), label="cached"):
        issuer.check(made.access_key_id, token, NOW)
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != token[at]))
    changed = token[:at] + bytes([byte]) + token[at + 1 :]
    assert refused(issuer, made.access_key_id, changed).code in ("lease_invalid", "lease_foreign")


def test_every_last_character_but_one_is_refused() -> None:
    """32 bytes leave two bits of the last base64 character unused: other spellings must not pass."""
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    token = made.session_token.encode()
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        if byte != token[-1]:
            assert refused(issuer, made.access_key_id, token[:-1] + bytes([byte])).code == "lease_invalid"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.text(max_size=30), st.booleans())
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes, key_id: str, ours: bool) -> None:
    token = b"nrw1." + garbage if ours else garbage
    assert refused(LeaseIssuer(KEY), key_id, token).code in ("lease_invalid", "lease_foreign")


def test_a_cut_or_longer_token_is_refused() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    token = made.session_token.encode()
    for length in range(1, len(token)):
        refused(issuer, made.access_key_id, token[:length])
    refused(issuer, made.access_key_id, token + b"A")
    refused(issuer, made.access_key_id, token + b"=")
    assert refused(issuer, made.access_key_id, b"nrw1." + b"A" * 9000).code == "lease_invalid"


@pytest.mark.parametrize("warm", [False, True])
def test_expiry_is_checked_every_time(warm: bool) -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer, expires=NOW + 10)
    token = made.session_token.encode()
    if warm:
        issuer.check(made.access_key_id, token, NOW + 9)
    refusal = refused(issuer, made.access_key_id, token, NOW + 10)
    assert (refusal.code, refusal.aws_code) == ("lease_expired", "ExpiredToken")
    assert issuer.check(made.access_key_id, token, NOW + 9) == made


def test_a_lease_opens_no_other_connection() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer, "dev")
    token = made.session_token.encode()
    assert issuer.check(made.access_key_id, token, NOW, connection="dev") == made
    refusal = refused(issuer, made.access_key_id, token, connection="prod")
    assert refusal.code == "lease_other_connection"
    assert "'dev'" in str(refusal) and "'prod'" in str(refusal)


@pytest.mark.parametrize("warm", [False, True])
def test_key_id_of_one_lease_with_token_of_another_is_refused(warm: bool) -> None:
    issuer = LeaseIssuer(KEY)
    one, two = issue(issuer), issue(issuer)
    if warm:
        issuer.check(one.access_key_id, one.session_token.encode(), NOW)
        issuer.check(two.access_key_id, two.session_token.encode(), NOW)
    assert refused(issuer, one.access_key_id, two.session_token.encode()).code == "lease_invalid"


def test_another_gateways_lease_is_refused() -> None:
    made = issue(LeaseIssuer(bytes(32)))
    assert refused(LeaseIssuer(KEY), made.access_key_id, made.session_token.encode()).code == "lease_invalid"


@pytest.mark.parametrize("token", [b"", b"IQoJb3JpZ2luX2VjEJ//////////wEaCXVzLWVhc3QtMSJHMEUCIQ"])
def test_a_real_aws_key_is_foreign_and_the_hint_says_what_to_do(token: bytes) -> None:
    refusal = refused(LeaseIssuer(KEY), "ASIAIOSFODNN7EXAMPLE", token)
    assert refusal.code == "lease_foreign"
    assert "narrows run" in refusal.hint and "narrows lease" in refusal.hint
    assert "IQoJ" not in str(refusal) and "ASIA" not in str(refusal)


def test_our_key_without_its_token_says_which_variable_is_missing() -> None:
    issuer = LeaseIssuer(KEY)
    refusal = refused(issuer, issue(issuer).access_key_id, b"")
    assert refusal.code == "lease_invalid"
    assert "AWS_SESSION_TOKEN" in refusal.hint


def test_a_proxy_token_opens_the_proxy_and_nothing_else() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    token = issuer.proxy_token(session=SESSION, principal=ALICE, agent=AGENT, expires=NOW + 5, now_s=NOW)
    lease = issuer.check_proxy_token(token.encode(), NOW)
    assert (lease.session, lease.connection, lease.principal, lease.agent) == (SESSION, "*", ALICE, AGENT)
    assert lease.secret_access_key == ""
    assert refused(issuer, made.access_key_id, token.encode()).code == "lease_invalid"
    for wrong, now, code in (
        (made.session_token.encode(), NOW, "lease_invalid"),
        (token.encode()[:-1], NOW, "lease_invalid"),
        (token.encode(), NOW + 5, "lease_expired"),
        (b"hunter2", NOW, "lease_foreign"),
        (b"", NOW, "lease_invalid"),
    ):
        with pytest.raises(Refusal) as caught:
            issuer.check_proxy_token(wrong, now)
        assert (caught.value.code, caught.value.status) == (code, 407)


def test_a_sessions_token_lists_its_connections() -> None:
    issuer = LeaseIssuer(KEY)
    token = issuer.proxy_token(
        session=SESSION, principal=ALICE, agent=AGENT, expires=NOW + 5, now_s=NOW, connections=("prod", "claude")
    )
    assert issuer.check_proxy_token(token.encode(), NOW).connections == ("prod", "claude")


def api_key(issuer: LeaseIssuer, connection: str = "claude", expires: int = NOW + 3600) -> Lease:
    return issuer.api_key(
        session=SESSION, connection=connection, principal=ALICE, agent=AGENT, expires=expires, now_s=NOW
    )


def key_refused(issuer: LeaseIssuer, key: bytes, now: int = NOW, connection: str = "") -> tuple[str, int]:
    with pytest.raises(Refusal) as caught:
        issuer.check_api_key(key, now, connection=connection)
    assert key.decode("latin-1") not in str(caught.value) or not key
    return caught.value.code, caught.value.status


def test_an_api_key_is_read_back_whole_and_fits_where_keys_stand() -> None:
    made = api_key(LeaseIssuer(KEY))
    issuer = LeaseIssuer(KEY)
    read = issuer.check_api_key(made.session_token.encode(), NOW, connection="claude")
    assert read == made
    assert issuer.check_api_key(made.session_token.encode(), NOW) is read
    assert (read.session, read.connection, read.principal, read.agent) == (SESSION, "claude", ALICE, AGENT)
    assert re.fullmatch(r"NRWL[A-Z2-7]{16}", read.access_key_id)
    assert read.secret_access_key == ""
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", read.session_token)  # in a header, a query, a shell, JSON
    assert read.session_token not in repr(read)


@pytest.mark.parametrize("warm", [False, True])
def test_an_api_key_works_for_its_time_its_connection_and_unchanged(warm: bool) -> None:
    issuer = LeaseIssuer(KEY)
    made = api_key(issuer, expires=NOW + 10)
    key = made.session_token.encode()
    if warm:
        issuer.check_api_key(key, NOW)
    assert key_refused(issuer, key, NOW + 10) == ("lease_expired", 401)
    assert key_refused(issuer, key, connection="other") == ("lease_other_connection", 403)
    for at in range(0, len(key), 7):
        assert key_refused(issuer, key[:at] + b"~" + key[at + 1 :])[1] == 401
    assert key_refused(LeaseIssuer(bytes(32)), key) == ("lease_invalid", 401)
    assert issuer.check_api_key(key, NOW + 9) == made


def test_each_kind_of_token_is_good_for_its_own_use_only() -> None:
    issuer = LeaseIssuer(KEY)
    pair, key = issue(issuer, "claude"), api_key(issuer)
    session = issuer.proxy_token(session=SESSION, principal=ALICE, agent=AGENT, expires=NOW + 5, now_s=NOW)
    issuer.check(pair.access_key_id, pair.session_token.encode(), NOW)
    issuer.check_api_key(key.session_token.encode(), NOW)
    assert key_refused(issuer, pair.session_token.encode()) == ("lease_invalid", 401)
    assert key_refused(issuer, session.encode()) == ("lease_invalid", 401)
    assert refused(issuer, key.access_key_id, key.session_token.encode()).code == "lease_invalid"
    with pytest.raises(Refusal) as caught:
        issuer.check_proxy_token(key.session_token.encode(), NOW)
    assert caught.value.code == "lease_invalid"


def test_a_real_api_key_is_foreign() -> None:
    assert key_refused(LeaseIssuer(KEY), b"sk-ant-api03-0123456789abcdef") == ("lease_foreign", 401)
    assert key_refused(LeaseIssuer(KEY), b"") == ("lease_foreign", 401)


def test_the_keys_cache_is_bounded_and_keeps_what_is_used() -> None:
    issuer = LeaseIssuer(KEY, cache_size=8)
    used = api_key(issuer).session_token.encode()
    kept = issuer.check_api_key(used, NOW)
    for _ in range(50):
        issuer.check_api_key(api_key(issuer).session_token.encode(), NOW)
        assert issuer.check_api_key(used, NOW) is kept
        assert len(issuer._young_keys) + len(issuer._old_keys) <= 8


def test_no_lease_is_issued_for_every_connection_at_once() -> None:
    for connection in ("*", ""):
        with pytest.raises(ValueError, match="one named connection"):
            issue(LeaseIssuer(KEY), connection)


def test_a_principal_with_too_many_groups_is_told_so_when_the_lease_is_issued() -> None:
    crowd = Principal("bob", groups=tuple(f"group-{n:04}-of-the-directory" for n in range(400)))
    with pytest.raises(Refusal) as caught:
        LeaseIssuer(KEY).issue(session=SESSION, connection="prod", principal=crowd, agent=AGENT, expires=NOW)
    assert caught.value.code == "lease_too_large"


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    issuer = LeaseIssuer(KEY, cache_size=8)
    used = issue(issuer)
    kept = issuer.check(used.access_key_id, used.session_token.encode(), NOW)
    for _ in range(50):
        other = issue(issuer)
        issuer.check(other.access_key_id, other.session_token.encode(), NOW)
        assert issuer.check(used.access_key_id, used.session_token.encode(), NOW) is kept
        assert len(issuer._young) + len(issuer._old) <= 8


def test_no_secret_shows_in_a_repr_or_a_refusal() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    shown = repr(made) + repr(issuer) + repr(vars(issuer).keys())
    token = made.session_token
    shown += str(refused(issuer, made.access_key_id, token.encode()[:-1] + b"!"))
    shown += str(refused(issuer, made.access_key_id, token.encode(), NOW + 9999))
    for secret in (made.secret_access_key, token, token.split(".")[1], KEY.hex()):
        assert secret not in shown


def test_a_known_token_is_checked_in_about_a_microsecond() -> None:
    issuer = LeaseIssuer(KEY)
    made = issue(issuer)
    key_id, tokens = made.access_key_id, [bytes(bytearray(made.session_token.encode())) for _ in range(2000)]
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        for token in tokens:
            issuer.check(key_id, token, NOW)
        best = min(best, (time.perf_counter() - started) / len(tokens))
    assert best < 10e-6  # measured 0.2 us; the margin is for a loaded machine


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "keys" / "lease.key"
    key = load_or_create(path)
    assert len(key) == 32 and key != load_or_create(tmp_path / "other.key")
    assert load_or_create(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["lease.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "lease.key"
    path.write_bytes(bytes(32))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}"):
        load_or_create(path)


@pytest.mark.parametrize("length", [0, 31, 33, 4096])
def test_a_key_of_another_length_is_refused_and_left_alone(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lease.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        load_or_create(path)
    assert path.read_bytes() == bytes(length)
    if length < 100:
        with pytest.raises(ConfigError):
            LeaseIssuer(bytes(length))


def test_a_token_of_another_version_under_our_key_is_refused_not_an_accident() -> None:
    issuer = LeaseIssuer(KEY)
    for payload in (b"", b"e30", b"bnVsbA", b"AAAA", b"!"):
        token = module._sealed(issuer._token_key, payload)
        assert refused(issuer, "NRWLAAAAAAAAAAAAAAAA", token).code == "lease_invalid"
