"""The environment of a command started by `narrows run` holds leases and nothing that works elsewhere."""

from __future__ import annotations

import configparser
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narrows.cli import childenv
from narrows.cli.childenv import CA_VARIABLES, Folder, build, cleaned, no_proxy, profiles, traceparent, trust_bundle
from narrows.core.errors import ConfigError

SESSION = "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
SECRET = "the-real-secret-of-this-user"


def _lease(name: str, region: str = "") -> dict[str, Any]:
    return {
        "connection": name,
        "kind": "aws",
        "region": region,
        "access_key_id": f"NRWL{name}",
        "secret_access_key": f"secret-{name}",
        "session_token": f"token-{name}",
        "expires": 2_000_000_000,
    }


OPENED: dict[str, Any] = {
    "id": SESSION,
    "gateway_url": "http://127.0.0.1:8470",
    "proxy_url": "http://narrows:pw@127.0.0.1:8470",
    "token": "session-token",
    "ca_pem": "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----",
    "leases": [_lease("prod", "eu-west-1"), _lease("dev")],
}
REAL = dict.fromkeys(
    """
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE
    AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN AWS_ROLE_SESSION_NAME AWS_CONTAINER_CREDENTIALS_FULL_URI
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_AUTHORIZATION_TOKEN AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
    AWS_BEARER_TOKEN_BEDROCK AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_IGNORE_CONFIGURED_ENDPOINT_URLS
    AWS_SHARED_CREDENTIALS_FILE AWS_CREDENTIAL_FILE AWS_CONFIG_FILE AWS_CREDENTIAL_EXPIRATION
    AWS_EC2_METADATA_SERVICE_ENDPOINT AWS_LOGIN_CACHE_DIRECTORY AWS_SOMETHING_INVENTED_NEXT_YEAR aws_access_key_id
    BOTO_CONFIG NARROWS_TOKEN NARROWS_API NARROWS_CONFIG NARROWS_CHILD
    """.split(),  # noqa: SIM905
    SECRET,
)


@pytest.fixture
def folder() -> Iterator[Folder]:
    made = Folder()
    yield made
    made.remove()


def test_no_real_credential_gets_through(folder: Folder, tmp_path: Path) -> None:
    env = build({**REAL, "PATH": "/bin", "HOME": "/h"}, OPENED, folder, data=tmp_path, span=bytes(8))
    assert SECRET not in " ".join(env.values())
    assert env["PATH"] == "/bin"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & set(env)
    assert env["AWS_REGION"] == env["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert env["AWS_EC2_METADATA_DISABLED"] == "true"
    assert env["NARROWS_SESSION"] == SESSION
    known = {name for name in env if name.startswith("NARROWS_")}
    assert known == {"NARROWS_SESSION", "NARROWS_DATA", "NARROWS_TOKEN", "NARROWS_GATEWAY"}
    assert env["NARROWS_TOKEN"] == "session-token", "the session's own, not the management API's"
    assert env["NARROWS_GATEWAY"] == OPENED["gateway_url"]


def test_the_first_lease_in_variables_if_asked_for(folder: Folder, tmp_path: Path) -> None:
    env = build(REAL, OPENED, folder, data=tmp_path, span=bytes(8), env_keys=True)
    assert env["AWS_ACCESS_KEY_ID"] == "NRWLprod"
    assert env["AWS_SECRET_ACCESS_KEY"] == "secret-prod"
    assert env["AWS_SESSION_TOKEN"] == "token-prod"


def test_harmless_settings_stay() -> None:
    kept = {"AWS_PAGER": "", "AWS_DEFAULT_OUTPUT": "json", "AWS_REGION": "us-east-2", "AWS_MAX_ATTEMPTS": "5"}
    env = cleaned(kept)
    assert {name: env[name] for name in kept} == kept


def test_both_ways_in(folder: Folder, tmp_path: Path) -> None:
    env = build({"NO_PROXY": "intra.example, *", "all_proxy": "socks"}, OPENED, folder, data=tmp_path, span=bytes(8))
    assert env["AWS_ENDPOINT_URL"] == OPENED["gateway_url"]
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        assert env[name] == OPENED["proxy_url"]
    assert env["NO_PROXY"] == env["no_proxy"] == "localhost,127.0.0.1,::1,intra.example"
    assert "all_proxy" not in env
    for name in CA_VARIABLES:
        assert env[name] == str(folder.bundle)


def test_one_way_off(folder: Folder, tmp_path: Path) -> None:
    env = build({}, OPENED, folder, data=tmp_path, span=bytes(8), endpoint=False)
    assert "AWS_ENDPOINT_URL" not in env and "HTTPS_PROXY" in env
    env = build({}, OPENED, folder, data=tmp_path, span=bytes(8), proxy=False)
    assert "AWS_ENDPOINT_URL" in env and "HTTPS_PROXY" not in env and "NO_PROXY" not in env


def test_trace_id_is_the_session() -> None:
    assert traceparent(SESSION, bytes.fromhex("00f067aa0ba902b7")) == (
        "00-0193a1b2c3d47e5f8a9b0c1d2e3f4a5b-00f067aa0ba902b7-01"
    )


def test_no_proxy_keeps_order_and_drops_the_wildcard() -> None:
    assert no_proxy("") == "localhost,127.0.0.1,::1"
    assert no_proxy("a,,localhost, b,*") == "localhost,127.0.0.1,::1,a,b"
    assert no_proxy("a", "http://gw.example:8470") == "localhost,127.0.0.1,::1,gw.example,a"
    assert no_proxy("", "http://127.0.0.1:8470") == "localhost,127.0.0.1,::1"


def test_profiles_read_back() -> None:
    others = [{"connection": "other", "kind": "http"}, {"connection": "m", "kind": "llm", "access_key_id": "NRWLM"}]
    credentials, config = profiles([*OPENED["leases"], *others], env_keys=True)
    read = configparser.RawConfigParser()
    read.read_string(credentials)
    assert read.sections() == ["default", "prod", "dev"]
    assert read["default"]["aws_access_key_id"] == read["prod"]["aws_access_key_id"] == "NRWLprod"
    assert read["dev"]["aws_session_token"] == "token-dev"
    read = configparser.RawConfigParser()
    read.read_string(config)
    assert read.sections() == ["default", "profile prod", "profile dev"]
    assert read["profile prod"]["region"] == "eu-west-1"
    assert "region" not in read["profile dev"]
    assert "credential_process" not in config


def test_each_process_gets_a_lease_of_its_own() -> None:
    credentials, config = profiles(OPENED["leases"])
    assert credentials == ""
    read = configparser.RawConfigParser()
    read.read_string(config)
    assert read.sections() == ["default", "profile prod", "profile dev"]
    for section, name in (("default", "prod"), ("profile prod", "prod"), ("profile dev", "dev")):
        command = shlex.split(read[section]["credential_process"])
        assert command[-3:] == ["aws-credentials", "--connection", name]
        assert Path(command[0]).is_absolute() and Path(command[0]).is_file()


def test_the_program_is_found_wherever_the_agent_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the installed script the interpreter is told not to look into the working directory."""
    bare = tmp_path / "with space" / "python"
    monkeypatch.setattr(sys, "executable", str(bare))
    assert shlex.split(childenv.credential_command("x")) == [
        str(bare), "-P", "-m", "narrows.cli.main", "aws-credentials", "--connection", "x",
    ]  # fmt: skip


def test_a_connection_called_default() -> None:
    read = configparser.RawConfigParser()
    read.read_string(profiles([_lease("default")], env_keys=True)[0])
    assert read.sections() == ["default"]


def test_a_lease_cannot_write_its_own_profile() -> None:
    lease = _lease("prod") | {"session_token": "x\n[profile y]\ncredential_process = evil"}
    with pytest.raises(ConfigError):
        profiles([lease], env_keys=True)
    with pytest.raises(ConfigError):
        profiles([lease])


def test_folder_is_private_and_goes(folder: Folder) -> None:
    folder.fill(OPENED["leases"], "bundle")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    for path in (folder.credentials, folder.config, folder.bundle):
        assert path.stat().st_mode & 0o777 == 0o600
    (folder.path / "more").mkdir()
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def test_bundle_holds_ours_the_systems_and_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots, own = tmp_path / "roots.pem", tmp_path / "own.pem"
    roots.write_text("SYSTEM\n")
    own.write_text("COMPANY")
    monkeypatch.setattr(childenv, "_system_roots", lambda: roots)
    text = trust_bundle("OURS\n", {"SSL_CERT_FILE": str(own), "REQUESTS_CA_BUNDLE": "/nonexistent", "X": "y"})
    assert text == "OURS\nCOMPANY\nSYSTEM\n"


def test_system_roots_are_found() -> None:
    found = childenv._system_roots()
    assert found is None or "BEGIN CERTIFICATE" in found.read_text()


@pytest.mark.parametrize("env_keys", [False, True])
def test_boto_reads_leases_only(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_keys: bool
) -> None:
    """The real client: whichever profile it is asked for, it finds the lease; without one, the first."""
    botocore_session = pytest.importorskip("botocore.session")
    program = tmp_path / "it's here" / "narrows"
    program.parent.mkdir()
    pair = '{"Version": 1, "AccessKeyId": "NRWL%s", "SecretAccessKey": "s", "SessionToken": "t"}'
    program.write_text(f"#!/bin/sh\nprintf '{pair}' \"$3\"\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    folder.fill(OPENED["leases"], "", env_keys=env_keys)
    env = build({**REAL, **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}}, OPENED, folder,
                data=tmp_path, span=bytes(8), env_keys=env_keys)  # fmt: skip
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert botocore_session.Session().get_credentials().access_key == "NRWLprod"
    dev = botocore_session.Session(profile="dev")
    assert dev.get_credentials().access_key == "NRWLdev"
    assert botocore_session.Session(profile="prod").get_config_variable("region") == "eu-west-1"
