"""The file form of connections, and the plan from what is registered to what a file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.cli.apply import plan
from narrows.cli.apply_file import MAX_FILE, dump, read
from narrows.cli.connection_source import stored
from narrows.core.errors import ConfigError

FILE = Path("connections.yaml")
GOOD = """
# comments stay welcome
connections:
  - name: prod
    account: 012345678901
    credential: {kind: assume_role, role_arn: "arn:aws:iam::123456789012:role/agents", duration_s: 900}
    groups: [on, "no", 7]
    allow_private: false
    ca_file:
  - {name: claude, kind: llm, provider: anthropic, credential: {kind: sealed, secret_name: key}}
"""


def rows(text: str) -> list[dict[str, Any]]:
    return read(FILE, text.encode())


def test_values_are_what_is_written() -> None:
    prod, claude = rows(GOOD)
    assert prod["account"] == "012345678901" and list(prod["groups"]) == ["on", "no", "7"]
    assert prod["credential"]["duration_s"] == 900 and prod["ca_file"] == ""
    assert claude["hosts"] == ("api.anthropic.com",) or claude["hosts"] == ["api.anthropic.com"]
    assert rows("connections: []") == rows("connections:") == []


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("connections:\n  - name: a\n    regoin: x\n", "3:5", "unknown field 'regoin': did you mean region?"),
        ("connections:\n- name: a\n  credential:\n    kind: vault\n    adress: x", "5:5", "did you mean address?"),
        ("connections:\n  - name: a\n  - kind: aws\n    name: a\n", "3:5", "stands in line 2 already"),
        ("connections:\n  - name: a\n    name: b\n", "3:5", "the field 'name' stands twice"),
        ("connections:\n  - name: a\n    allow_private: yes\n", "3:5", "allow_private"),
        ("connections:\n  - name: a\n    hosts: [b.example, 'http://x']\n", "3:5", "hosts"),
        ("connections:\n  - kind: aws\n", "2:5", "name"),
        ("connections:\n  - name: a\n    kind: ssh\n", "3:5", "not served"),
        ("connections:\n  - name: a\n    credential: {kind: sealed}\n", "3:5", "secret_name"),
        ("connections:\n  - x\n", "2:5", "a connection is a mapping"),
        ("connections: 5\n", "1:14", "is a list"),
        ("conections: []\n", "1:1", "unknown field"),
        ("- name: a\n", "1:1", "a list of them"),
        ("connections:\n  - name: [a\n", "3:1", "not YAML"),
        ("connections:\n  - &a {name: a}\n  - *a\n", "3:5", "a reference to an anchor"),
        ("connections:\n  - name: !!python/name:os.system a\n", "2:11", "a tag"),
        ("connections:\n  - name: a\n    <<: {kind: aws}\n", "3:5", "plain text"),
        ("connections: []\n---\nconnections: []\n", "2:1", "not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(text: str, place: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rows(text)
    said = str(caught.value)
    assert why in said and f":{place} " in said, said


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"a: \x00", b"[" * 100_000, b" " * (MAX_FILE + 1)])
def test_what_is_no_file_of_ours_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError):
        read(FILE, raw)


def test_a_value_that_could_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        rows("connections:\n  - name: a\n    endpoint: https://me:hunter2-hunter2@host\n")
    assert "hunter2" not in str(caught.value)


def test_anchors_do_not_multiply() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    with pytest.raises(ConfigError, match="anchor"):
        rows(bomb + "connections: []\n")
    nested = "connections:\n  - name: a\n    hosts: &a [x]\n    groups: " + "[" * 500 + "]" * 500
    with pytest.raises(ConfigError):
        rows(nested)


def test_what_was_exported_reads_as_the_same() -> None:
    before = rows(GOOD)
    text = dump(before)
    assert rows(text) == before
    assert "hosts" not in text and "durability" not in text, "what would be so anyway is left out"
    assert yaml.safe_load(text)["connections"][1]["name"] == "claude"


NAMES = st.lists(st.sampled_from("abcdef"), unique=True)
REGIONS = st.sampled_from(["", "eu-west-1", "us-east-1"])


@settings(max_examples=100, deadline=None)
@given(NAMES, NAMES, st.data(), st.booleans())
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(
    wanted: list[str], registered: list[str], data: st.DataObject, prune: bool
) -> None:
    def made(names: list[str]) -> list[dict[str, Any]]:
        lines = "".join(f"- {{name: {n}, region: '{data.draw(REGIONS)}'}}\n" for n in names)
        return rows(f"connections:\n{lines}" if names else "connections: []")

    want, have = made(wanted), made(registered)
    steps, others = plan(want, have, prune=prune)
    state = {row["name"]: row for row in have}
    for step in steps:
        if step.action == "remove":
            assert prune and step.etag
            del state[step.name]
        else:
            assert step.body is not None and bool(step.etag) == (step.name in state) and step.fields
            state[step.name] = step.body
    assert plan(want, list(state.values()), prune=prune)[0] == []
    assert set(state) == set(wanted) | (set() if prune else set(registered))
    assert set(others) == (set() if prune else set(registered) - set(wanted))


def test_the_options_of_a_store() -> None:
    assert stored("key", "", [], "", "") == {"kind": "sealed", "secret_name": "key"}
    vault = ["kind=vault", "address=https://v", "secret_name=a/b", "auth_file=/run/t"]
    assert stored("", "", vault, "", "") == dict(pair.split("=") for pair in vault)
    assert stored("", "n", [], "eu-west-1", "arn:x") == {
        "kind": "assume_role", "base": "secrets_manager", "secret_name": "n", "region": "eu-west-1",
    }  # fmt: skip
    assert stored("", "", [], "eu-west-1", "arn:x") == {}
    for wrong in (
        ("a", "b", []),
        ("a", "", ["kind=vault"]),
        ("", "", ["kind=chain"]),
        ("", "", ["field=x"]),
        ("", "", ["nothing"]),
        ("a", "", ["field=x", "field=y"]),
    ):
        with pytest.raises(ConfigError):
            stored(wrong[0], wrong[1], wrong[2], "", "")
