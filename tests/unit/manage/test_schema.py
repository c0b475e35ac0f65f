"""The connection's schema: what is filled in, and what never gets in."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from narrows.core.errors import ConfigError
from narrows.core.values import Connection, CredentialSource
from narrows.manage.schema import AWS_HOSTS, ConnectionModel, CredentialModel, validated

ROLE = "arn:aws:iam::123456789012:role/agents/deploy"


def test_the_models_have_exactly_the_fields_of_the_values() -> None:
    assert list(ConnectionModel.model_fields) == [f.name for f in fields(Connection)]
    assert list(CredentialModel.model_fields) == [f.name for f in fields(CredentialSource)]


def test_the_defaults_are_those_of_the_values() -> None:
    assert validated({"name": "prod"}) == Connection("prod", hosts=AWS_HOSTS)
    web = Connection("web", kind="http", hosts=("example.com",))
    assert validated({"name": "web", "kind": "http", "hosts": ["example.com"]}) == web


@pytest.mark.parametrize("kind", ["mcp", "postgres", "mysql", "ssh"])
def test_a_kind_that_is_not_served_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="not served by this version"):
        validated({"name": "later", "kind": kind, "hosts": ["example.com"]})


def test_an_http_connection_names_its_hosts() -> None:
    with pytest.raises(ConfigError, match="needs the hosts"):
        validated({"name": "web", "kind": "http"})


KEY_FILE = {"kind": "file", "path": "/etc/narrows/anthropic.key"}
KEY_VARIABLE = {"kind": "environment", "variable": "OPENAI_KEY"}


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({"provider": "anthropic"}, ("api.anthropic.com",)),
        ({"provider": "openai"}, ("api.openai.com",)),
        ({"provider": "gemini"}, ("generativelanguage.googleapis.com",)),
        ({"provider": "openai", "endpoint": "http://127.0.0.1:9"}, ("api.openai.com",)),
        ({"provider": "openai-compatible", "endpoint": "https://Models.Example.com/api/v1"}, ("models.example.com",)),
        ({"provider": "openai-compatible", "endpoint": "http://127.0.0.1:8000"}, ()),
        ({"provider": "openai-compatible", "endpoint": "http://localhost:8000"}, ()),
        ({"provider": "anthropic", "hosts": ["a.example.com"]}, ("a.example.com",)),
    ],
)
def test_a_model_api_claims_its_providers_host(given: dict[str, Any], hosts: tuple[str, ...]) -> None:
    for credential in (KEY_FILE, KEY_VARIABLE):
        made = validated({"name": "model", "kind": "llm", "credential": credential, **given})
        assert made.hosts == hosts
        assert made.credential == CredentialSource(**credential)  # type: ignore[arg-type]
        assert validated(made) == made


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"provider": ""}, "needs a provider: anthropic, openai, gemini or openai-compatible"),
        ({"provider": "openai-compatible"}, "needs an endpoint"),
        ({"provider": "mistral"}, "provider"),
        ({"credential": {"kind": "chain"}}, "needs its API key"),
        ({"credential": {"kind": "environment", "prefix": "X_"}}, "needs its API key"),
        ({"credential": {"kind": "environment", "prefix": "X_", "variable": "KEY"}}, "without a prefix"),
        ({"credential": {**KEY_FILE, "variable": "KEY"}}, "kind environment"),
        ({"credential": {**KEY_FILE, "profile": "x"}}, "kind aws"),
        ({"credential": {**KEY_FILE, "sts_endpoint": "https://sts.example.com"}}, "kind aws"),
        ({"credential": {"kind": "assume_role", "role_arn": ROLE}}, "needs its API key"),
        ({"region": "eu-west-1"}, "kind aws"),
        ({"account": "123456789012"}, "kind aws"),
        ({"allow_credential_issue": True}, "kind aws"),
    ],
)
def test_a_model_api_has_what_it_needs_and_nothing_of_aws(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated({"name": "m", "kind": "llm", "provider": "anthropic", "credential": KEY_FILE, **bad})
    assert why in str(caught.value)


@pytest.mark.parametrize("kind", ["aws", "http"])
@pytest.mark.parametrize("bad", [{"provider": "openai"}, {"on_secret": "block"}, {"credential": KEY_VARIABLE}])
def test_other_kinds_have_nothing_of_a_model_api(kind: str, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="kind llm"):
        validated({"name": "m", "kind": kind, "hosts": ["example.com"], **bad})


def test_hosts_are_lower_case_and_each_once() -> None:
    hosts = ["S3.Amazonaws.com.", "*.Example.NET", "s3.amazonaws.com", "10.0.0.1", "[::1]"]
    assert validated({"name": "a", "hosts": hosts}).hosts == (
        "s3.amazonaws.com",
        "*.example.net",
        "10.0.0.1",
        "::1",
    )


@pytest.mark.parametrize(
    "credential",
    [
        {"kind": "assume_role", "role_arn": ROLE},
        {"kind": "assume_role", "role_arn": ROLE, "base": "file", "path": "/etc/aws", "external_id": "a:b/c"},
        {"kind": "file", "path": "/home/me/.aws/credentials", "profile": "prod"},
        {"kind": "environment", "prefix": "PROD_"},
    ],
)
def test_good_credential_sources(credential: dict[str, Any]) -> None:
    assert validated({"name": "a", "credential": credential}).credential == CredentialSource(**credential)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "Prod"},
        {"name": "-a"},
        {"name": "a" * 64},
        {"name": "a\n"},
        {"name": ""},
        {"name": "../a"},
        {"kind": "ftp"},
        {"endpoint": "ftp://x"},
        {"endpoint": "http://user:pw@x"},
        {"endpoint": "https://x?y=1"},
        {"endpoint": "http://x:99999"},
        {"endpoint": "https://"},
        {"endpoint": "https://a b"},
        {"hosts": ["*"]},
        {"hosts": ["*.com"]},
        {"hosts": ["a.*.com"]},
        {"hosts": ["https://a.com"]},
        {"hosts": ["a.com:443"]},
        {"hosts": [""]},
        {"hosts": ["a..com"]},
        {"hosts": [f"h{n}.com" for n in range(65)]},
        {"region": "eu west"},
        {"account": "12345"},
        {"allow_private": "yes"},
        {"allow_credential_issue": 1},
        {"durability": "maybe"},
        {"ca_file": "relative.pem"},
        {"allow_privat": True},
        {"credential": {"kind": "assume_role"}},
        {"credential": {"kind": "assume_role", "role_arn": "arn:aws:iam::1:user/x"}},
        {"credential": {"kind": "file"}},
        {"credential": {"kind": "file", "path": "~/.aws/credentials"}},
        {"credential": {"kind": "environment"}},
        {"credential": {"kind": "chain", "role_arn": ROLE}},
        {"credential": {"secret_access_key": "x"}},
        {"credential": {"kind": "assume_role", "role_arn": ROLE, "duration_s": 60}},
    ],
)
def test_bad_connections_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        validated({"name": "prod", **bad})


def test_the_error_names_the_field_and_never_the_value() -> None:
    secret = "wJalrXUtnFEMI-not-a-real-one"
    with pytest.raises(ConfigError) as error:
        validated({"name": "prod", "endpoint": f"https://me:{secret}@host", "credential": {"key": secret}})
    assert "endpoint" in error.value.why and "credential.key" in error.value.why
    assert secret not in str(error.value)
