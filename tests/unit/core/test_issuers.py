"""The settings of identity: what is accepted, and that a mistake lets nobody in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from narrows.core.errors import ConfigError
from narrows.core.issuers import check_url, issuers_from, roles_from
from narrows.core.values import Principal
from narrows.settings import Settings, load

PAGE = Path(__file__).parents[3] / "docs" / "identity.md"
USER = {"issuer": "https://i.example", "client_id": "c"}
JOB = {"issuer": "https://i.example", "kind": "workload", "audience": "gw", "claims": {"repository": "o/r"}}


def test_the_examples_of_the_page_are_good_and_survive_the_way_to_a_child(tmp_path: Path) -> None:
    blocks = PAGE.read_text().split("```toml\n")[1:]
    path = tmp_path / "narrows.toml"
    for block, count in zip(blocks, (1, 3), strict=True):
        path.write_text(block.partition("```")[0])
        found = load(config=path, environ={"HOME": str(tmp_path)})
        assert len(found.oidc) == count
        assert Settings.from_json(found.to_json()) == found
    assert load(config=path, environ={"HOME": str(tmp_path)}).oidc[2].claims


def test_tables_in_variables_are_json(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "NARROWS_OIDC": json.dumps([USER]), "NARROWS_ROLES": '{"admin": ["ops"]}'}
    found = load(environ=env)
    assert found.oidc[0].client_id == "c" and "admin" in found.roles.of(Principal("x", groups=("ops",)))
    for name, value in (("OIDC", "["), ("OIDC", "{}"), ("OIDC", "[1]"), ("ROLES", "[]"), ("ROLES", '{"root": []}')):
        with pytest.raises(ConfigError):
            load(environ={"HOME": str(tmp_path), f"NARROWS_{name}": value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://i.example", "client_id": "c"},
        {"issuer": "https://i.example?x=1", "client_id": "c"},
        {"issuer": "https://u:p@i.example", "client_id": "c"},
        {"issuer": "", "client_id": "c"},
        {"issuer": 5, "client_id": "c"},
        {"client_id": "c"},
        {"issuer": "https://i.example"},
        USER | {"client_secret": "x"},
        USER | {"algorithms": ["none"]},
        USER | {"algorithms": ["HS256"]},
        USER | {"algorithms": []},
        USER | {"skew_s": 301},
        USER | {"skew_s": True},
        USER | {"groups": "dev"},
        USER | {"kind": "robot"},
        {**JOB, "audience": ""},
        {**JOB, "claims": {}},
        {**JOB, "claims": {}, "subjects": ["*"]},
        {**JOB, "subjects": ["repo:o/r", "**"]},
        {**JOB, "claims": {"repository": ""}},
        {**JOB, "claims": {"repository": []}},
        {**JOB, "claims": {"repository": {}}},
        {**JOB, "claims": {"repository": [1]}},
        {**JOB, "claims": {"repository": 1.5}},
    ],
)
def test_a_table_that_is_wrong_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        issuers_from([wrong])


def test_roles_are_known_ones() -> None:
    bad: list[Any] = [{"admins": ["x"]}, {"admin": "x"}, {"admin": [""]}, [], None]
    for wrong in bad:
        with pytest.raises(ConfigError):
            roles_from(wrong)


@pytest.mark.parametrize(
    "url", ["https://x.example", "https://x.example:8443/a", "http://127.0.0.1:1", "http://[::1]/"]
)
def test_secrets_may_go_there(url: str) -> None:
    assert check_url(url, "URL") == url


@pytest.mark.parametrize(
    "url",
    ["http://x.example", "http://127.0.0.1.x.example", "http://localhost@x.example", "ftp://127.0.0.1", "x.example", "",
     "https://", "https://x.example/#a", "https://x y", "http://[::1", "https://x.example\n"],
)  # fmt: skip
def test_secrets_may_not_go_there(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url(url, "URL")
