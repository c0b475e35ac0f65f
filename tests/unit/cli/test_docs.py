"""The documentation names every command, option, field and setting, and no setting that there is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from narrows.cli.app import command
from narrows.core.values import Connection, CredentialSource, Outcome
from narrows.record.index.query import FIELDS
from narrows.record.index.rows import ExchangeRow, SessionRow
from narrows.record.verify_report import Finding, Report
from narrows.settings import RESERVED, describe

DOCS = Path(__file__).parents[3] / "docs"
CLI = (DOCS / "cli.md").read_text()
OPERATING = (DOCS / "operating.md").read_text()
EVERYWHERE = {"--help", "-h", "--data", "--config"}


def _commands(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, sub in found.commands.items():
        if hasattr(sub, "commands"):
            yield from _commands(sub, (*path, name))
        else:
            yield (*path, name), sub


COMMANDS = dict(_commands(command()))


def _section(path: tuple[str, ...]) -> str:
    """The text under the heading that names a command; one heading may name several of a group."""
    for part in re.split(r"^### ", CLI, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
        names = re.findall(r"`([^`]+)`", heading)
        words = names[0].split()
        assert words[0] == "narrows"
        given = [words[1:]] + [words[1:-1][:1] + name.split() for name in names[1:]]
        if any(tuple(one[: len(path)]) == path for one in given):
            return text
    pytest.fail(f"docs/cli.md has no heading for narrows {' '.join(path)}")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_documented(path: tuple[str, ...]) -> None:
    text = _section(path)
    for param in COMMANDS[path].params:
        for option in param.opts:
            if option.startswith("--") and option not in EVERYWHERE:
                assert re.search(rf"{option}\b", text), f"{option} of narrows {' '.join(path)}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_help_text_and_common_options(path: tuple[str, ...]) -> None:
    found = COMMANDS[path]
    assert found.help and found.help.strip().endswith(".")
    options = {option for param in found.params for option in param.opts}
    assert "--data" in options
    assert "--config" in options or path in (("aws-credentials",), ("hook",))
    for param in found.params:
        assert getattr(param, "help", None), param.name


def test_the_contract_is_kept() -> None:
    names = {" ".join(path) for path in COMMANDS}
    assert {
        "up", "run", "lease", "whoami", "aws-credentials", "connection add", "connection list", "connection show",
        "connection remove", "connection test", "sessions", "show", "tail", "search", "verify", "session kill",
        "doctor",
    } <= names  # fmt: skip


@pytest.mark.parametrize("kind", [ExchangeRow, SessionRow, Connection, CredentialSource, Finding, Report])
def test_every_json_field_is_documented(kind: Any) -> None:
    for item in fields(kind):
        if kind is ExchangeRow and item.name in ("location", "text"):
            continue  # not shown
        assert f"`{item.name}`" in CLI, f"{kind.__name__}.{item.name}"


def test_every_outcome_and_query_field_is_documented() -> None:
    for outcome in Outcome:
        assert f"`{outcome.value}`" in CLI
    queries = CLI[CLI.index("## Queries") :]
    for name in FIELDS:
        assert f"`{name}`" in queries


def test_the_table_of_settings_is_the_schema() -> None:
    rows = re.findall(r"^\| (`[a-z_]+` \| .*) \|$", OPERATING, flags=re.MULTILINE)
    table = [tuple(cell.strip("` ") for cell in row.split(" | ")) for row in rows if "NARROWS_" in row]
    assert table == [(one.name, one.type, one.default, one.doc, one.env) for one in describe()]


def test_every_reserved_variable_is_documented() -> None:
    for name in RESERVED:
        assert f"`{name}`" in OPERATING
