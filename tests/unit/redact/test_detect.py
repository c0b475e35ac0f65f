"""The detector: every kind is found where it is, and nowhere else; what was masked is gone, and nothing but that."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import time
import uuid
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.values import Described, Item
from narrows.redact import detect, patterns
from narrows.redact.detect import Detector, Match
from narrows.redact.findings import findings, in_body


def _samples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made_by = _samples()
DETECTOR = detect.detector()
CASES = [(kind, before, secret) for kind, every in made_by.samples().items() for before, secret in every]
IDS = [f"{kind}-{number}" for number, (kind, _, _) in enumerate(CASES)]


def scan(text: str) -> list[tuple[str, str]]:
    """Kinds and secrets found in a text."""
    raw = text.encode()
    return [(one.kind, raw[one.start : one.end].decode()) for one in DETECTOR.scan(raw)]


@pytest.mark.parametrize(("kind", "before", "secret"), CASES, ids=IDS)
def test_a_credential_is_found_exactly(kind: str, before: str, secret: str) -> None:
    assert scan(f"{before}{secret}{made_by.after(before)}") == [(kind, secret)]
    assert scan(f"some text, then {before}{secret}{made_by.after(before)}\nmore") == [(kind, secret)]


def test_every_kind_has_a_sample() -> None:
    assert {one.kind for one in (*patterns.SPECIFIC, *patterns.GENERIC)} == set(made_by.samples())


def test_every_kind_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "agents.md").read_text("utf-8")
    for kind in [*made_by.samples(), "aws-credentials-base64"]:
        assert f"`{kind}`" in page, kind


@pytest.mark.parametrize(("kind", "before", "secret"), CASES, ids=IDS)
def test_a_credential_is_found_within_json_within_json(kind: str, before: str, secret: str) -> None:
    inner = f"{before}{secret}{made_by.after(before)}"
    once = json.dumps({"content": f"first line\n{inner}\nlast"})
    twice = json.dumps({"arguments": once})
    for text in (once, twice):
        found = scan(text)
        assert [one[0] for one in found] == [kind], text
        assert found[0][1].replace("\\", "").replace("n", "") == secret.replace("\\", "").replace("\n", "").replace(
            "n", ""
        )


@pytest.mark.parametrize(
    ("kind", "before", "secret"),
    [one for one in CASES if one[0] not in ("password", "secret", "database-url", "url-password", "authorization",
                                            "private-key", "gcp-service-account", "jwt", "slack-webhook")],
)  # fmt: skip
def test_a_part_of_a_longer_word_is_none(kind: str, before: str, secret: str) -> None:
    if not before.strip(" x"):
        assert kind not in [found for found, _ in scan(f"x{secret} end")]
    assert kind not in [found for found, _ in scan(f"{before}{secret[:12]} end")]
    if kind in ("aws-access-key", "aws-secret-key", "google-api-key", "npm-token", "twilio-key"):  # of one length
        assert kind not in [found for found, _ in scan(f"{before}{secret}2{made_by.after(before)}")]


HASH = hashlib.sha256(b"x").hexdigest()

QUIET = [
    f"sha256:{HASH}",
    f"commit {hashlib.sha1(b'x').hexdigest()}",
    f'"id": "{uuid.UUID(int=2**100)}"',
    f"token: {uuid.UUID(int=2**127 + 12345678901234567890)}",
    f'"NextToken": "{made_by.made(made_by.ALNUM, 80)}"',
    f'"ClientRequestToken": "{made_by.made(made_by.ALNUM, 36)}"',
    f'"next_page_token":"{made_by.made(made_by.ALNUM, 40)}"',
    '"max_tokens": 4096, "input_tokens": 12345678901234567890',
    "password = os.environ['DB_PASSWORD']",
    "password = getpass.getpass()",
    "password: str | None = None",
    'password="${DB_PASSWORD}"',
    'password: "<your password>"',
    '"password": "********"',
    '"password": "changeme-now"',
    "Enter your password: it must have 8 characters",
    'print("password: " + value)',
    "token = self.tokens[index]",
    "secret = client.get_secret_value(SecretId=name)",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-a1B2c3",
    "api_key = settings.openai_api_key",
    "api_key=api_key2, token=session_token_1",
    "postgres://user:password@localhost/db",
    "postgres://user:${PASSWORD}@localhost/db",
    "postgres://localhost:5432/db@x",
    "https://example.com:8443/@scope/package",
    "http://[::1]:80/a:b@c",
    "git@github.com:org/repo.git",
    "-----BEGIN PUBLIC KEY-----\n" + "MIIB" * 30 + "\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\n" + "MIIB" * 30 + "\n-----END CERTIFICATE-----",
    "use ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx as the token",
    "sk-" + "a" * 48,
    "task-" + "proj-" + made_by.made(made_by.ALNUM, 40),
    "eyJ" + "hbGci.eyJ" + "zdWIi.sig",
    "PWD=/home/me/project/node2",
    "cat /etc/passwd > /dev/null",
    'FORCE_CHANGE_PASSWORD = "FORCE_CHANGE_PASSWORD"',
    "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN",
    "socks5h://<username>:<password>@proxy-host",
    "access_key = 'arn'",
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 8).decode(),
]


@pytest.mark.parametrize("text", QUIET)
def test_what_is_no_credential_is_quiet(text: str) -> None:
    assert scan(text) == []
    assert scan(json.dumps({"content": text})) == []


def test_an_example_key_of_the_documentation_is_a_finding_too() -> None:
    assert scan("AK" + "IAIOSFODNN7EXAMPLE") == [("aws-access-key", "AK" + "IAIOSFODNN7EXAMPLE")]


def test_a_specific_kind_goes_before_a_general_one() -> None:
    token = "gh" + "p_" + made_by.made(made_by.ALNUM, 36)
    assert scan(f'"token": "{token}"') == [("github-token", token)]
    assert scan(f"Authorization: Bearer {made_by.jwt()}") == [("jwt", made_by.jwt())]


def test_what_is_turned_down_does_not_hide_what_is_in_it() -> None:
    password = made_by.made(made_by.ALNUM, 12)
    assert scan(f"secret: x password={password} ") == [("password", password)]


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_an_encoded_environment_is_found_at_every_alignment(shift: int) -> None:
    key = "AK" + "IA" + made_by.made("ABCDEFGHJKLMNPQRSTUVWXYZ234567", 16)
    plain = "x" * shift + f"\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY=..."
    run = base64.b64encode(plain.encode()).decode().rstrip("=")
    assert scan(f"data: {run}== end") == [("aws-credentials-base64", run)]
    masked, _ = DETECTOR.mask(f"data: {run}== end".encode())
    assert masked == f"data: {'*' * len(run)}== end".encode()


def test_our_own_leases_are_masked_and_are_no_findings() -> None:
    lease = "nrw" + "1." + made_by.made(made_by.URLSAFE, 90) + "." + made_by.made(made_by.URLSAFE, 43)
    basic = base64.b64encode(f"narrows:{lease}".encode()).decode()
    for one in (lease, basic):
        text = f'{{"note": "{one}"}}'.encode()
        assert DETECTOR.scan(text) == []
        masked, found = DETECTOR.mask(text)
        assert [it.kind for it in found] == ["narrows-lease"]
        assert masked.startswith(b'{"note": "***') and len(masked) == len(text)


@pytest.mark.parametrize(("kind", "before", "secret"), CASES, ids=IDS)
def test_masking_takes_the_secret_and_leaves_the_rest(kind: str, before: str, secret: str) -> None:
    text = f"{before}{secret}{made_by.after(before)}"
    masked, found = DETECTOR.mask(text.encode())
    assert masked.decode() == f"{before}{'*' * len(secret)}{made_by.after(before)}"
    assert [one.kind for one in found] == [kind]


def test_masked_json_is_json() -> None:
    every = [f"{before}{secret}{made_by.after(before)}" for _, before, secret in CASES]
    text = json.dumps({"messages": [{"content": one} for one in every]})
    masked, found = DETECTOR.mask(text.encode())
    assert len(json.loads(masked)["messages"]) == len(every) and len(found) == len(every)


def test_what_holds_nothing_is_the_same_object() -> None:
    data = b"nothing here " * 1000
    assert DETECTOR.mask(data)[0] is data


pieces = st.sampled_from([
    *(f"{before}{secret}{made_by.after(before)}" for _, before, secret in CASES), *(secret for _, _, secret in CASES),
    *QUIET, "nrw1.", "nrw1.a.b", "*", '"', "\\", "\\n", "-----", "password=", "token:", "://", "@", "eyJ", "=", "&sig=",
    "QUtJQ", "sk-", "AKIA", "\0", "\u2028",
]).map(str.encode) | st.binary(max_size=30)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=8), st.integers(0, 3))
def test_any_text_is_masked_to_its_length_and_then_has_nothing_left(parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)[cut:]
    masked, found = DETECTOR.mask(data)
    assert len(masked) == len(data)
    assert DETECTOR.scan(masked) == [] and DETECTOR.mask(masked) == (masked, [])
    changed = {i for i, (a, b) in enumerate(zip(data, masked, strict=True)) if a != b}
    assert changed <= {i for one in found for i in range(one.start, one.end)}
    scanned = DETECTOR.scan(data)
    assert all(one.end <= two.start for one, two in pairwise(scanned))
    assert all(set(masked[one.start : one.end]) == {42} for one in scanned)


def test_what_begins_like_a_lease_does_not_hide_the_key_behind_it() -> None:
    key = next(secret for kind, _, secret in CASES if kind == "private-key").encode()
    masked, found = DETECTOR.mask(b"nrw1." + key)
    assert set(masked) == {42} and [one.kind for one in found] == ["narrows-lease"]


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_any_bytes_are_taken(data: bytes) -> None:
    assert len(DETECTOR.mask(data)[0]) == len(data)


@pytest.mark.parametrize(
    "unit",
    [b"token=", b"password:", b"eyJa.", b"-----BEGIN PRIVATE KEY-----", b"postgres://a:", b"QUtJQ", b"FLSU/", b"AKIA",
     b"secret='", b"a", b"\\", b"nrw1.", b"authorization: bearer ", b"token=\"x", b"=", b"?sig=a&"],
)  # fmt: skip
def test_hostile_text_takes_time_in_proportion_only(unit: bytes) -> None:
    data = unit * (300_000 // len(unit))
    began = time.process_time()
    DETECTOR.mask(data)
    assert time.process_time() - began < 3


def test_lines_of_a_long_text_are_found_wherever_they_are() -> None:
    key = "AK" + "IA" + made_by.made("ABCDEFGHJKLMNPQRSTUVWXYZ234567", 16)
    text = (f"line with {key} in it\n" * 5_000).encode()
    found = DETECTOR.scan(text)
    assert len(found) == 5_000 and found[-1] == Match("aws-access-key", len(text) - 27, len(text) - 7)


# -- findings ---------------------------------------------------------------------------------------------------------


def test_findings_name_kind_and_place_and_never_the_value() -> None:
    token = "gh" + "p_" + made_by.made(made_by.ALNUM, 36)
    described = Described(
        items=[
            Item("prompt", text=f"é use {token}"),
            Item("tool_call", name="Bash", data={"command": f"curl -H {token}"}),
            Item("answer", text=f"{token} and {token}", said_by="response"),
            Item("code", text="print(1)", name="python"),
        ]
    )
    found = findings(described, {"payload": f"again {token} \x00".encode()}, DETECTOR)
    assert [(one.kind, one.where, one.offset, one.length, one.count) for one in found] == [
        ("github-token", "prompt", 6, 40, 1),
        ("github-token", "tool_call", 21, 40, 1),
        ("github-token", "answer", 0, 40, 2),
    ]
    assert token not in repr(found)


def test_what_only_the_payload_has_is_told_of_it() -> None:
    token = "gh" + "p_" + made_by.made(made_by.ALNUM, 36)
    (found,) = findings(Described(items=[Item("prompt", text="hello \ud800")]), {"payload": token.encode()}, DETECTOR)
    assert (found.where, found.offset) == ("payload", 0)
    assert [one.kind for one in in_body(token.encode(), DETECTOR)] == ["github-token"]
    assert in_body(b"nrw1.aaaa.bbbb", DETECTOR) == []


def test_a_detector_is_made_once() -> None:
    assert detect.detector() is detect.detector()
    assert Detector().scan(b"x") == []


SLOW = [b"sk-", b"ghp_", b'password = "', b"secretaccesskey   :", b"Authorization: Bearer ", b"eyJhbGciOiJIUzI1NiJ9."]


@pytest.mark.parametrize("piece", SLOW)
def test_a_text_that_is_made_to_be_slow_is_cut_short_and_its_rest_counts_as_found(piece: bytes) -> None:
    text = piece * (2_000_000 // len(piece))
    found = DETECTOR.scan(text)
    assert (found[-1].kind, found[-1].end) == (detect.UNCHECKED, len(text))
    assert text[: found[-1].start].count(piece[:3]) <= 3 * (detect.TRIES + len(text) // 1024) + 3, "as far as promised"
    masked, _ = DETECTOR.mask(text)
    assert len(masked) == len(text) and DETECTOR.scan(masked) == []


def test_long_base64_is_decoded_in_pieces() -> None:
    key = "AK" + "IA" + made_by.made("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
    for before in (0, 1000, detect.MAX_RUN * 3 // 4 - 10, detect.MAX_RUN):
        packed = base64.b64encode(b"." * before + key.encode() + b"." * 5000)
        assert [one.kind for one in DETECTOR.scan(packed)] == ["aws-credentials-base64"], before
    assert DETECTOR.scan(b"QUtJQ" * 100_000) == []


def test_many_findings_in_one_text_take_no_quadratic_time() -> None:
    keys = " ".join("AK" + "IA" + base64.b32encode(n.to_bytes(10, "big")).decode() for n in range(1000))
    found = findings(Described(items=[Item("prompt", text=f"{keys} " * 3)]), {}, DETECTOR)
    assert len(found) == 200 and all(one.count == 3 for one in found)
