"""Credential sources: what they read and ask for, that none stands in for another, and that none tells a secret."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core import ids
from narrows.core.errors import CredentialError
from narrows.core.values import Agent, ApiKey, Connection, CredentialSource, Lease, Principal
from narrows.upstream.sources import (
    BaseRejected,
    Loaded,
    Sources,
    assume_role_request,
    session_name,
    source_identity,
)
from narrows.wire.sigv4 import Credentials

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN"
SESSION = bytes(range(16))
ROLE = "arn:aws:iam::123456789012:role/agents"


CLAUDE = Agent("claude-code", "2.1")


def lease(name: str = "alice@example.com", agent: Agent = CLAUDE) -> Lease:
    return Lease(SESSION, "prod", Principal(name), agent, 2_000_000_000, "NRWLA", "s", "t")


def role(endpoint: str = "", **kwargs: object) -> CredentialSource:
    return CredentialSource("assume_role", role_arn=ROLE, base="environment", sts_endpoint=endpoint, **kwargs)  # type: ignore[arg-type]


def aws(loaded: Loaded) -> Credentials:
    assert isinstance(loaded.credentials, Credentials)
    return loaded.credentials


def failure(sources: Sources, source: CredentialSource) -> str:
    with pytest.raises(CredentialError) as caught:
        sources.load(source)
    assert caught.value.why
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # no traceback prints it
    return str(caught.value)


# Environment


def test_environment_variables_with_a_prefix() -> None:
    environ = {
        "PROD_AWS_ACCESS_KEY_ID": "AKIAPROD",
        "PROD_AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other-token",
    }
    sources = Sources(environ)
    assert sources.load(CredentialSource("environment", prefix="PROD_")).credentials == Credentials("AKIAPROD", SECRET)
    assert aws(sources.load(CredentialSource("environment"))).session_token == "other-token"


def test_a_missing_variable_is_named_and_no_other_taken_instead() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "PROD_AWS_ACCESS_KEY_ID": "AKIAPROD"}
    text = failure(Sources(environ), CredentialSource("environment", prefix="PROD_"))
    assert "PROD_AWS_SECRET_ACCESS_KEY" in text and "PROD_AWS_ACCESS_KEY_ID" not in text


def test_a_lease_is_no_upstream_credential() -> None:
    """A gateway started inside `narrows run` finds its user's lease in the environment."""
    environ = {"AWS_ACCESS_KEY_ID": "NRWLABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    text = failure(Sources(environ), CredentialSource("environment"))
    assert "lease" in text and SECRET not in text


@pytest.mark.parametrize("bad", ["abc\r\nx-evil: 1", "a b", "\x00", "schlüssel"])
def test_a_credential_that_would_break_a_header_is_refused(bad: str) -> None:
    text = failure(
        Sources({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": bad}),
        CredentialSource("environment"),
    )
    assert "session token" in text and bad not in text


# File


def write(path: Path, text: str, mode: int = 0o600) -> CredentialSource:
    path.write_text(text)
    path.chmod(mode)
    return CredentialSource("file", path=str(path))


FILE = f"""# made by hand
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key={SECRET}

[prod]
aws_access_key_id = AKIAPROD
aws_secret_access_key = {SECRET}%(no)s
aws_session_token = {TOKEN}
[process]
credential_process = /bin/false
"""


def test_a_shared_credentials_file(tmp_path: Path) -> None:
    source = write(tmp_path / "credentials", FILE)
    assert Sources().load(source).credentials == Credentials("AKIADEFAULT", SECRET)
    prod = CredentialSource("file", path=source.path, profile="prod")
    assert Sources().load(prod).credentials == Credentials("AKIAPROD", SECRET + "%(no)s", TOKEN)


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    source = write(path, FILE)
    first = Sources().load(source)
    assert Sources().load(source, first) is first
    path.write_text(FILE.replace("AKIADEFAULT", "AKIADEFAUL2"))  # the same length
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))
    assert aws(Sources().load(source, first)).access_key_id == "AKIADEFAUL2"


def test_a_file_that_was_opened_to_others_is_refused_even_if_unchanged(tmp_path: Path) -> None:
    source = write(tmp_path / "credentials", FILE)
    first = Sources().load(source)
    (tmp_path / "credentials").chmod(0o644)
    with pytest.raises(CredentialError, match="0644"):
        Sources().load(source, first)


@pytest.mark.parametrize(
    ("text", "profile", "says"),
    [
        (FILE, "absent", "no profile absent"),
        (FILE, "process", "aws_access_key_id"),
        ("", "", "no profile default"),
        (f"aws_secret_access_key = {SECRET}\n", "", "line 1"),
        (f"[default]\n{SECRET}\n", "", "ParsingError"),
        (f"[default\naws_secret_access_key = {SECRET}\n", "", "AWS' format"),
    ],
)
def test_a_file_that_does_not_serve_says_why_without_quoting_it(
    tmp_path: Path, text: str, profile: str, says: str
) -> None:
    write(tmp_path / "credentials", text)
    shown = failure(Sources(), CredentialSource("file", path=str(tmp_path / "credentials"), profile=profile))
    assert says in shown and SECRET not in shown and str(tmp_path) in shown


def test_a_missing_or_binary_file_is_a_credential_error(tmp_path: Path) -> None:
    assert "No such file" in failure(Sources(), CredentialSource("file", path=str(tmp_path / "none")))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    failure(Sources(), CredentialSource("file", path=str(tmp_path / "binary")))


# Chain


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without AWS settings; returns its config file."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path / "config"


def test_the_chain_of_the_gateways_environment(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert Sources().load(CredentialSource()) == Loaded(Credentials("AKIACHAIN", SECRET))


def test_an_empty_chain_and_a_missing_profile_are_errors(bare: Path) -> None:
    assert "none of environment" in failure(Sources(), CredentialSource())
    assert "ProfileNotFound" in failure(Sources(), CredentialSource(profile="absent"))


def credential_process(config: Path, script: str) -> CredentialSource:
    program = config.with_name("process.sh")
    program.write_text(f"#!/bin/sh\necho run >> {config.with_name('runs')}\n{script}\n")
    program.chmod(0o700)
    config.write_text(f"[profile p]\ncredential_process = {program}\n")
    return CredentialSource(profile="p")


def test_expiring_credentials_of_the_chain_are_kept_by_botocore_until_they_are_due(bare: Path) -> None:
    at = int(time.time()) + 7200
    answer = {
        "Version": 1,
        "AccessKeyId": "ASIAPROCESS",
        "SecretAccessKey": SECRET,
        "SessionToken": TOKEN,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
    }
    source = credential_process(bare, f"echo '{json.dumps(answer)}'")
    sources = Sources()
    for _ in range(2):
        assert sources.load(source) == Loaded(Credentials("ASIAPROCESS", SECRET, TOKEN), at * 1_000_000_000)
    assert bare.with_name("runs").read_text() == "run\n"


@pytest.mark.parametrize(
    "script", [f"echo {SECRET} >&2; exit 1", f"echo {SECRET}", f'echo \'{{"Version": 2, "x": "{SECRET}"}}\'']
)
def test_what_a_failing_process_prints_is_not_repeated(bare: Path, script: str) -> None:
    sources, source = Sources(), credential_process(bare, script)
    assert SECRET not in failure(sources, source)
    failure(sources, source)
    assert bare.with_name("runs").read_text() == "run\nrun\n"


# AssumeRole


def test_cloudtrail_will_name_the_principal_and_the_session() -> None:
    request = assume_role_request(role(external_id="x-17", duration_s=900), lease())
    assert request == {
        "RoleArn": ROLE,
        "RoleSessionName": "narrows-alice@example.com",
        "SourceIdentity": "alice@example.com",
        "DurationSeconds": 900,
        "ExternalId": "x-17",
        "Tags": [
            {"Key": "narrows:session", "Value": ids.text(SESSION)},
            {"Key": "narrows:agent", "Value": "claude-code/2.1"},
            {"Key": "narrows:principal", "Value": "alice@example.com"},
        ],
        "TransitiveTagKeys": ["narrows:session", "narrows:agent", "narrows:principal"],
    }
    assert "ExternalId" not in assume_role_request(role(), lease())


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_principal_and_agent_make_a_request_that_sts_takes(name: str, agent: str) -> None:
    request = assume_role_request(role(), lease(name, Agent(agent, agent)))
    for field in ("RoleSessionName", "SourceIdentity"):
        assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", request[field])
    for tag in request["Tags"]:
        assert len(tag["Value"]) <= 256 and not re.search(r"[\x00-\x1f\x7f<>\"'&;]", tag["Value"])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_two_principals_stay_two_in_cloudtrail(one: str, two: str) -> None:
    if one != two:
        assert session_name(one) != session_name(two)
        assert source_identity(one) != source_identity(two)


def test_long_and_short_names_fit() -> None:
    assert len(session_name("x" * 200)) == 64
    assert session_name("x" * 199 + "a") != session_name("x" * 199 + "b")
    assert source_identity("ab") == "ab"
    assert 2 <= len(source_identity("a")) <= 64 and 2 <= len(source_identity("")) <= 64


@pytest.mark.parametrize("seconds", [0, 899, 43201])
def test_a_duration_that_sts_refuses_is_refused_here(seconds: int) -> None:
    with pytest.raises(CredentialError, match="duration"):
        assume_role_request(role(duration_s=seconds), lease())


class FakeSts(ThreadingHTTPServer):
    """Answers AssumeRole as it is told to, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeStsHandler)
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.body = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, seconds: int = 3600) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.status, self.body = (
            200,
            (
                '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
                f"<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
                f"<SessionToken>{TOKEN}</SessionToken><Expiration>{at}</Expiration>"
                "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
            ),
        )

    def refuse(self, code: str, message: str, status: int = 403) -> None:
        self.status, self.body = (
            status,
            (
                '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
                f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
            ),
        )


class FakeStsHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, FakeSts)
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        server.asked.append({name: values[0] for name, values in form.items()})
        server.headers.append({name.lower(): value for name, value in self.headers.items()})
        raw = server.body.encode()
        self.send_response(server.status)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def sts() -> Iterator[FakeSts]:
    server = FakeSts()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


BASE = Credentials("AKIABASE", "base-secret-value", "base-token-value")


def assume(sts: FakeSts, sources: Sources | None = None, **kwargs: object) -> Loaded:
    connection = Connection("prod", region="eu-west-1", credential=role(sts.url, **kwargs))
    return (sources or Sources()).assume_role(connection.credential, connection, lease(), BASE)


def test_the_request_arrives_as_it_should(bare: Path, sts: FakeSts) -> None:
    sts.answer(3600)
    loaded = assume(sts, external_id="x-17", duration_s=1800)
    assert loaded.credentials == Credentials("ASIAROLE", SECRET, TOKEN)
    assert loaded.expires_ns is not None and abs(loaded.expires_ns / 1e9 - time.time() - 3600) < 60
    (asked,) = sts.asked
    assert asked["Action"] == "AssumeRole" and asked["RoleArn"] == ROLE
    assert asked["RoleSessionName"] == "narrows-alice@example.com"
    assert asked["SourceIdentity"] == "alice@example.com"
    assert (asked["DurationSeconds"], asked["ExternalId"]) == ("1800", "x-17")
    assert (asked["Tags.member.1.Key"], asked["Tags.member.1.Value"]) == ("narrows:session", ids.text(SESSION))
    assert asked["TransitiveTagKeys.member.3"] == "narrows:principal"
    (headers,) = sts.headers
    assert "Credential=AKIABASE/" in headers["authorization"]
    assert "/eu-west-1/sts/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "base-token-value"


def test_the_gateways_own_environment_does_not_bend_the_call(
    bare: Path, sts: FakeSts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent")
    sts.answer()
    assert aws(assume(sts)).access_key_id == "ASIAROLE"


def test_a_client_is_kept_until_the_base_credentials_change(bare: Path, sts: FakeSts) -> None:
    sts.answer()
    sources = Sources()
    connection = Connection("prod", credential=role(sts.url))
    made = sources._sts(connection.credential, connection, BASE)
    assert sources._sts(connection.credential, connection, BASE) is made
    other = Credentials("AKIAOTHER", "s")
    assert sources._sts(connection.credential, connection, other) is not made
    sources.assume_role(connection.credential, connection, lease(), other)
    assert "Credential=AKIAOTHER/" in sts.headers[-1]["authorization"]


def refused(sts: FakeSts) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        assume(sts)
    assert caught.value.__context__ is None  # nothing that a traceback could print
    return caught.value


def test_access_denied_says_what_the_trust_policy_needs(bare: Path, sts: FakeSts) -> None:
    sts.refuse("AccessDenied", "User: arn:aws:iam::1:user/gw is not authorized to perform: sts:TagSession")
    error = refused(sts)
    assert "not authorized to perform: sts:TagSession" in error.why
    assert "sts:SetSourceIdentity" in error.hint and not isinstance(error, BaseRejected)


def test_an_error_that_quotes_the_request_is_not_repeated(bare: Path, sts: FakeSts) -> None:
    quoted = f"The Canonical String should have been x-amz-security-token:{BASE.session_token}"
    sts.refuse("SignatureDoesNotMatch", quoted)
    error = refused(sts)
    assert isinstance(error, BaseRejected) and str(BASE.session_token) not in str(error)
    sts.refuse("ValidationError", f"{quoted}\x1b[31m {BASE.secret_access_key}".replace("\x1b", "&#x9b;"), 400)
    error = refused(sts)
    for secret in (str(BASE.session_token), BASE.secret_access_key, "\x9b"):
        assert secret not in str(error)


def test_an_unreachable_or_nonsense_sts_is_a_credential_error(bare: Path, sts: FakeSts) -> None:
    sts.body = "<html>captive portal</html>"
    assert "STS could not be asked" in str(refused(sts))
    source = role("http://127.0.0.1:9")
    with pytest.raises(CredentialError, match="EndpointConnectionError"):
        Sources().assume_role(source, Connection("prod", credential=source), lease(), BASE)


def test_moto_takes_the_request_as_aws_would(bare: Path) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        source = role(f"http://{host}:{port}", external_id="x-17")
        loaded = Sources().assume_role(source, Connection("prod", credential=source), lease(), BASE)
    finally:
        server.stop()
    assert aws(loaded).access_key_id.startswith("ASIA") and aws(loaded).session_token


# API keys

KEY = "sk-ant-api03-a-real-key_0123456789"


def key_file(tmp_path: Path, text: str, mode: int = 0o600) -> CredentialSource:
    path = tmp_path / "model.key"
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return CredentialSource("file", path=str(path))


def key_failure(sources: Sources, source: CredentialSource) -> str:
    with pytest.raises(CredentialError) as caught:
        sources.api_key(source)
    assert caught.value.why and caught.value.hint
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


def test_an_api_key_from_a_file_and_from_a_variable(tmp_path: Path) -> None:
    found = Sources({}).api_key(key_file(tmp_path, f"{KEY}\n"))
    assert found.credentials == ApiKey(KEY) and found.expires_ns is None
    variable = CredentialSource("environment", variable="MODEL_KEY")
    assert Sources({"MODEL_KEY": KEY}).api_key(variable).credentials == ApiKey(KEY)
    assert KEY not in repr(found) and KEY not in f"{found.credentials}"


def test_a_key_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    sources, source = Sources({}), key_file(tmp_path, KEY)
    first = sources.api_key(source)
    assert sources.api_key(source, first) is first
    key_file(tmp_path, KEY + "-2")
    assert sources.api_key(source, first).credentials == ApiKey(KEY + "-2")
    Path(source.path).chmod(0o644)
    assert "0644" in key_failure(sources, source)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing stands"),
        ("nrw1.abc.def", "a lease of a gateway"),
        (f"KEY={KEY}\nOTHER={KEY}", "one line"),
        ("short", "one line"),
        ("k" * 5000, "one line"),
        ("schl\u00fcssel-mit-umlaut", "one line"),
    ],
)
def test_what_is_no_key_is_refused_without_quoting_it(tmp_path: Path, text: str, says: str) -> None:
    variable = CredentialSource("environment", variable="MODEL_KEY")
    for shown in (
        key_failure(Sources({}), key_file(tmp_path, text)),
        key_failure(Sources({"MODEL_KEY": text}), variable),
    ):
        assert says in shown
        assert not text or text not in shown


def test_a_key_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    assert "MODEL_KEY" in key_failure(Sources({}), CredentialSource("environment", variable="MODEL_KEY"))
    assert "No such file" in key_failure(Sources({}), CredentialSource("file", path=str(tmp_path / "none")))
    assert "not a source of API keys" in str(_raised(CredentialSource("chain")))


def _raised(source: CredentialSource) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        Sources({}).api_key(source)
    return caught.value
