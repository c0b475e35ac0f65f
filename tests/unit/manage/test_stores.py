"""Credentials in secret stores: which fields go together, and what is refused before it can be tried."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.core.errors import ConfigError
from narrows.manage.schema import validated
from narrows.manage.stores import vault_address

VAULT = {
    "kind": "vault",
    "address": "https://vault.example:8200",
    "auth_file": "/run/token",
    "secret_name": "agents/key",
}
SM = {"kind": "secrets_manager", "secret_name": "agents/key", "region": "eu-west-1"}
SEALED = {"kind": "sealed", "secret_name": "key"}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:agents/key-AbCdEf"
ROLE = {"kind": "assume_role", "role_arn": "arn:aws:iam::123456789012:role/agents"}


def made(kind: str, credential: dict[str, Any]) -> Any:
    more = {"provider": "anthropic"} if kind == "llm" else {}
    return validated({"name": "a", "kind": kind, "credential": credential, **more}).credential


@pytest.mark.parametrize(
    ("kind", "credential"),
    [
        ("aws", VAULT),
        ("aws", VAULT | {"engine": "aws", "secret_name": "agents"}),
        ("aws", VAULT | {"auth": "approle", "role": "0f-1a", "auth_mount": "teams/approle", "namespace": "a/b"}),
        ("aws", VAULT | ROLE | {"base": "vault"}),
        ("llm", VAULT | {"field": "key", "engine": "kv1", "mount": "old"}),
        ("aws", SM),
        ("aws", SM | {"role_arn": ROLE["role_arn"], "external_id": "x"}),
        ("aws", SM | ROLE | {"base": "secrets_manager", "profile": "p"}),
        ("llm", {"kind": "secrets_manager", "secret_name": ARN, "field": "a key"}),
        ("llm", SEALED | {"field": "prod"}),
        ("aws", SEALED | ROLE | {"base": "sealed"}),
    ],
)
def test_what_belongs_together_is_taken(kind: str, credential: dict[str, Any]) -> None:
    found = made(kind, credential)
    assert {name: getattr(found, name) for name in credential} == credential


@pytest.mark.parametrize(
    ("kind", "credential", "why"),
    [
        ("aws", {"kind": "vault", "address": "https://v", "auth_file": "/t"}, "secret_name"),
        ("aws", VAULT | {"address": ""}, "needs address"),
        ("aws", VAULT | {"auth_file": "run/token"}, "absolute"),
        ("aws", VAULT | {"address": "http://vault.example"}, "https"),
        ("aws", VAULT | {"address": "https://me:pw@vault.example"}, "no user"),
        ("aws", VAULT | {"auth": "approle"}, "need role"),
        ("aws", VAULT | {"role": "x"}, "belong to auth"),
        ("aws", VAULT | {"secret_name": "../sys/health"}, "path below the mount"),
        ("aws", VAULT | {"secret_name": "a/../../sys"}, "path below the mount"),
        ("aws", VAULT | {"secret_name": "a?b"}, "secret_name"),
        ("aws", VAULT | {"mount": "../sys"}, "mount"),
        ("aws", VAULT | {"region": "eu-west-1"}, "region does not belong"),
        ("aws", VAULT | {"profile": "p"}, "profile"),
        ("aws", VAULT | {"engine": "aws", "secret_name": "a/b"}, "name of a role"),
        ("aws", VAULT | {"field": "key"}, "kind llm"),
        ("llm", VAULT | {"engine": "aws", "secret_name": "agents"}, "API key"),
        ("aws", SM | {"region": ""}, "needs region"),
        ("aws", SM | {"address": "https://v"}, "address does not belong"),
        ("aws", SM | {"external_id": "x"}, "external_id"),
        ("aws", SEALED | {"secret_name": "Not/this"}, "sealed credential's name"),
        ("aws", SEALED | {"engine": "kv1"}, "belong to kind vault"),
        ("aws", SEALED | {"role_arn": ROLE["role_arn"]}, "belong to the kinds"),
        ("aws", {"kind": "chain", "secret_name": "x"}, "does not belong to kind chain"),
        ("llm", {"kind": "chain"}, "needs its API key"),
        ("llm", SEALED | ROLE | {"base": "sealed"}, "needs its API key"),
    ],
)
def test_what_does_not_is_refused_with_the_reason(kind: str, credential: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(kind, credential)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8200", "http://localhost:8200/", "http://[::1]", "https://v.example"]
)
def test_plain_http_is_for_this_machine(address: str) -> None:
    assert vault_address(address) == address.rstrip("/")


@pytest.mark.parametrize(
    "address",
    [
        "ftp://v",
        "https://",
        "https://v/ui",
        "https://v?x",
        "http://127.0.0.1.example",
        "https://v:x",
        "v",
        "http://10.0.0.1",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        vault_address(address)
