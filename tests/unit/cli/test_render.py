"""What is recorded cannot steer the terminal that shows it, and tables fit."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.cli.render import (
    Column,
    duration,
    fitting,
    instant,
    print_table,
    printable_json,
    safe,
    safe_bytes,
    short_ids,
    size,
    when,
    width_of,
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\x0db"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x00\x08\x7f", "\\x00\\x08\\x7f"),
        ("user\u202eadmin\u202c", "user\\u202eadmin\\u202c"),
        ("\u2066\u2067\u2068\u2069", "\\u2066\\u2067\\u2068\\u2069"),
        ("\u200bzero\u200f", "\\u200bzero\\u200f"),
        ("\U000e0041", "\\U000e0041"),
        ("Grüße, 世界, 🙂, עברית", "Grüße, 世界, 🙂, עברית"),
    ],
)
def test_safe(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_nothing_that_steers_survives(text: str) -> None:
    for shown, allowed in ((safe(text), ""), (safe(text, lines=True), "\n\t")):
        for char in shown:
            if char in allowed:
                continue
            assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or ord(char) > 0xFFFF, ascii(char)
            assert unicodedata.bidirectional(char) not in (
                "LRE",
                "RLE",
                "LRO",
                "RLO",
                "PDF",
                "LRI",
                "RLI",
                "FSI",
                "PDI",
            )
    assert safe(safe(text)) == safe(text)
    shown = printable_json({"t": text})
    assert shown.isascii() and shown.isprintable()
    assert json.loads(shown) == {"t": text}


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_bytes_never_fail(raw: bytes) -> None:
    assert "\x1b" not in safe_bytes(raw)
    assert "\r" not in safe_bytes(raw)


def test_bytes() -> None:
    assert safe_bytes(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n\xff\x1b[m") == "HTTP/1.1 200 OK\nA: b\n\n\\xff\\x1b[m"


def _column(name: str, **kw: Any) -> Column:
    return Column(name, lambda row: str(row[name]), **kw)


COLUMNS = [
    _column("ID"),
    _column("WHO", priority=1),
    _column("WHAT", priority=2, minimum=10),
    _column("N", priority=3),
]


def test_narrow_terminal_drops_by_priority() -> None:
    rows = [["0193a1b2c3d4-", "alice", "s3 DeleteObject", "1"]]
    assert list(fitting(COLUMNS, rows, 80)) == [0, 1, 2, 3]
    assert list(fitting(COLUMNS, rows, 32)) == [0, 1, 2]
    assert fitting(COLUMNS, rows, 32)[2] == 10, "shrinks before it is dropped"
    assert list(fitting(COLUMNS, rows, 20)) == [0, 1]
    assert fitting(COLUMNS, rows, 5) == {0: 13}, "what names the row is never dropped or cut"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_table_fits_and_escapes(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    row = {
        "ID": "0193a1b2c3d4",
        "WHO": "al\x1b[31mice",
        "WHAT": "[bold]DeleteObject[/bold] 世界" * 3,
        "N": "7",
    }
    print_table(COLUMNS, [row], out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "0193a1b2c3d4" in text
    assert all(width_of(line) <= width for line in text.splitlines())
    if width == 200:
        assert "[bold]DeleteObject[/bold]" in text, "recorded text is not markup"


def test_short_ids() -> None:
    a = "0193a1b2-c3d4-7000-8000-000000000001"
    b = "0193a1b2-c3d4-7000-8000-000000000002"
    c = "0193ffff-c3d4-7000-8000-000000000002"
    short = short_ids([a, b, c, a])
    assert short[c] == "0193ffff-c3d4"
    assert short[a] == a and short[b] == b
    d = a[:14] + "8" + a[15:]
    assert short_ids([a, d]) == {a: a[:15], d: d[:15]}, "a prefix never ends in a hyphen"
    assert short_ids([]) == {}


def test_figures() -> None:
    assert [size(n) for n in (None, 0, 812, 4200, 64 << 20, 5 << 40)] == [
        "",
        "0 B",
        "812 B",
        "4.1 KB",
        "64 MB",
        "5 TB",
    ]
    assert duration(310_000) == "0.31 ms"
    assert duration(42_000_000) == "42 ms"
    assert duration(1_300_000_000) == "1.3 s"
    assert duration(125_000_000_000) == "2 m 05 s"
    assert duration(None) == ""
    assert instant(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert instant(0) == when(None) == ""
    assert "2023-11-1" in when(1_700_000_000_000_000_000)
