"""A changed index is found: every column of every row, rows that are missing or too many, sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kit.why import SESSION, Why, describe, recorded

from narrows.core import ids
from narrows.record.index.check import check_index, check_row
from narrows.record.index.sqlite import SqliteIndex


@pytest.fixture
def why(tmp_path: Path) -> Iterator[Why]:
    with recorded(tmp_path / "data") as made:
        yield made


def _change(why: Why, statement: str, *values: object) -> None:
    db = sqlite3.connect(why.data / "index.db")
    with db:
        assert db.execute(statement, values).rowcount > 0
    db.close()


def _found(why: Why) -> list[tuple[str, str]]:
    return [(one.what, one.field) for one in check_index(why.data, why.index, describe)]


def _shown(why: Why, name: str) -> list[str]:
    return [one.field for one in check_row(why.data, why.index.exchange(why.ids[name]), describe)]


def test_an_index_as_it_was_made_is_the_recording(why: Why) -> None:
    assert _found(why) == []
    assert all(_shown(why, name) == [] for name in why.ids)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "http.request"),
        ("service", "ec2"),
        ("operation", "GetObject"),
        ("action", "s3:GetObject"),
        ("access_level", "Read"),
        ("principal", "bob"),
        ("agent", "cursor"),
        ("connection", "test"),
        ("status", 403),
        ("outcome", "refused"),
        ("decision", "deny"),
        ("started_ns", 5),
        ("ended_ns", 5),
        ("target", "/other"),
        ("host", "evil"),
        ("model", "x"),
        ("session", bytes(16)),
        ("tokens_in", 7),
        ("cost_usd", 0.5),
        ("bytes_in", 9),
    ],
)
def test_a_changed_column_is_found(why: Why, column: str, value: object) -> None:
    _change(why, f"UPDATE exchanges SET {column} = ? WHERE operation = 'DeleteObject'", value)
    assert (why.ids["call"], column) in _found(why)
    assert column in _shown(why, "call")


@pytest.mark.parametrize(
    "column",
    ["reason", "error_message", "resources", "parameters", "facts", "items", "refs", "llm", "findings", "location"],
)
def test_a_changed_detail_is_found(why: Why, column: str) -> None:
    forged = {
        "facts": '{"lease":"NRWL2"}',
        "parameters": '{"Key":"other"}',
        "llm": '{"a":1}',
        "refs": '[["lease","x"]]',
        "resources": '[{"arn":"x","exact":true}]',
        "items": '[{"type":"prompt"}]',
        "findings": '[{"kind":"x"}]',
        "location": f'"{ids.text(SESSION)}/{why.ids["stray"]}/0:0+1"',
    }
    row = "(SELECT n FROM exchanges WHERE operation = 'DeleteObject')"
    _change(why, f"UPDATE details SET {column} = ? WHERE n = {row}", forged.get(column, "forged"))
    assert (why.ids["call"], column) in _found(why)
    assert column in _shown(why, "call")


def test_a_row_under_another_id_is_found(why: Why) -> None:
    _change(why, "UPDATE exchanges SET id = ? WHERE operation = 'DeleteObject'", b"\1" * 16)
    assert _found(why) == [(why.ids["call"], "id")]
    row = why.index.exchange(ids.text(b"\1" * 16))
    assert [one.field for one in check_row(why.data, row, describe)] == ["id"]


def test_a_row_at_another_place_of_the_log_is_found(why: Why) -> None:
    _change(why, "UPDATE exchanges SET leaf_index = 999 WHERE operation = 'DeleteObject'")
    assert _shown(why, "call") == ["leaf_index"]
    _change(why, "UPDATE exchanges SET leaf_index = 0 WHERE operation = 'DeleteObject'")
    assert _shown(why, "call"), "the record there is another"


def test_missing_and_added_rows_are_found(why: Why) -> None:
    _change(why, "DELETE FROM exchanges WHERE operation = 'DeleteObject'")
    assert (why.ids["call"], "id") in _found(why) and ("index.db", "exchanges") in _found(why)


def test_an_added_row_is_found(why: Why) -> None:
    columns = ", ".join(
        name
        for name, hidden in why.index._writer.execute("SELECT name, hidden FROM pragma_table_xinfo('exchanges')")
        if not hidden and name not in ("n", "id")
    )
    _change(
        why,
        f"INSERT INTO exchanges (n, id, {columns}) SELECT n + 1, ?, {columns} FROM exchanges "
        "WHERE operation = 'DeleteObject'",
        b"\7" * 16,
    )
    assert _found(why) == [("index.db", "exchanges")]


@pytest.mark.parametrize(("column", "value"), [("exchanges", 1), ("state", "killed"), ("body", '{"principal":"bob"}')])
def test_a_changed_session_is_found(why: Why, column: str, value: object) -> None:
    _change(why, f"UPDATE sessions SET {column} = ?", value)
    assert ids.text(SESSION) in {what for what, _ in _found(why)}


def test_looking_changes_nothing(why: Why) -> None:
    before = (why.data / "index.db").read_bytes()
    other = SqliteIndex(why.data / "index.db", write=False)
    assert list(check_index(why.data, other, describe)) == []
    with pytest.raises(sqlite3.OperationalError):
        other.rebuild()
    other.close()
    assert (why.data / "index.db").read_bytes() == before
