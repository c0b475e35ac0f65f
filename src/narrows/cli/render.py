"""How recorded and other text reaches a terminal.

Everything that an agent, a client or a server could have written goes through `safe`: a recording may hold
escape sequences that repaint the screen, retitle the window or answer into the shell, and direction overrides
that make text read backwards (CVE-2021-42574). `rich` is imported only when a table is really printed.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TextIO

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
"""C0 (but tab and line feed) and C1 controls, DEL, line and paragraph separators, direction controls,
characters without a glyph, lone surrogates, tags: none of them may reach a terminal from a recording."""


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: object, *, lines: bool = False) -> str:
    """`text` with every character escaped that could steer a terminal or deceive its reader.

    Tab and line feed are escaped too unless `lines`. Printable text of any script is unchanged. Idempotent on
    its own output. The result can be printed by any means but not parsed back: a backslash stays one.
    """
    escaped = _UNSAFE.sub(_escape, str(text))
    return escaped if lines else escaped.replace("\n", "\\n").replace("\t", "\\t")


def safe_bytes(raw: bytes, *, lines: bool = True) -> str:
    """Bytes as `safe` text: UTF-8 where it is, `\\xNN` where it is not. CRLF shows as a line end."""
    text = raw.decode("utf-8", "backslashreplace")
    return safe(text.replace("\r\n", "\n") if lines else text, lines=lines)


def printable_json(value: object, *, indent: int | None = None) -> str:
    """JSON in plain ASCII: `\\u` escapes keep every control and direction character away from the terminal.

    DEL is the one ASCII control that JSON leaves alone, and is escaped here too.
    """
    return json.dumps(value, indent=indent, ensure_ascii=True).replace("\x7f", "\\u007f")


def emit_json(value: object, stream: TextIO | None = None) -> None:
    """Print one object on one line: NDJSON when called for each of many."""
    out = stream or sys.stdout
    out.write(printable_json(value) + "\n")


def width_of(text: str) -> int:
    """Terminal columns that `text` takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int) -> str:
    """`text` in at most `width` terminal columns, with an ellipsis where it was cut. Escape it first."""
    if width_of(text) <= width:
        return text
    kept, taken = [], 1
    for character in text:
        taken += width_of(character)
        if taken > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def colours(stream: TextIO) -> bool:
    """Whether to colour: only a terminal, and not when `NO_COLOR` is set (no-color.org) or `TERM` is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style (`bold`, `dim`, `red`, `green`, `yellow`), or plain where colours are off."""
    if not colours(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def terminal_width(stream: TextIO | None = None) -> int:
    """Columns of the terminal; 200 where the output is not one, so that nothing is dropped in a pipe."""
    out = stream or sys.stdout
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    if not out.isatty():
        return 200
    return os.get_terminal_size(out.fileno()).columns or 80


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. `priority` 0 is always shown; the highest are dropped first when it is narrow.

    `minimum` is the least width that is still of use; `text` takes the row and gives unescaped text.
    """

    title: str
    text: Callable[[Mapping[str, Any]], str]
    priority: int = 0
    minimum: int = 4
    right: bool = False
    style: Callable[[Mapping[str, Any]], str] | None = None


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """Which columns fit `width`, and how wide each is.

    Every column wants its longest cell. When that is too much, the least important shrink first, down to
    `minimum`; when that is still too much, they are dropped in the same order. Priority 0 stays whole.
    """
    wanted = [max([width_of(column.title), *(width_of(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    least = [
        wanted[i] if column.priority == 0 else min(wanted[i], max(column.minimum, width_of(column.title)))
        for i, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while sum(least[i] for i in kept) + 2 * (len(kept) - 1) > width:
        droppable = [i for i in kept if columns[i].priority > 0]
        if not droppable:
            break
        kept.remove(max(droppable, key=lambda i: (columns[i].priority, i)))
    room = width - sum(least[i] for i in kept) - 2 * (len(kept) - 1)
    widths = {i: least[i] for i in kept}
    for i in sorted(kept, key=lambda i: (columns[i].priority, i)):
        extra = min(max(room, 0), wanted[i] - least[i])
        widths[i] += extra
        room -= extra
    return widths


def print_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print rows as a table that fits the terminal. Cells are escaped here."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = stream or sys.stdout
    width = terminal_width(out)
    cells = [[safe(column.text(row)) for column in columns] for row in rows]
    kept = fitting(columns, cells, width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    for i, taken in kept.items():
        justify: Literal["left", "right"] = "right" if columns[i].right else "left"
        table.add_column(columns[i].title, justify=justify, no_wrap=True, overflow="ellipsis", width=taken)
    for row, line in zip(rows, cells, strict=True):
        shown = []
        for i in kept:
            style = columns[i].style
            shown.append(Text(line[i], style=style(row) if style else ""))
        table.add_row(*shown)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        no_color=not colours(out),
        force_terminal=colours(out),
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    out.writelines(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def short_ids(ids: Sequence[str], least: int = 13) -> dict[str, str]:
    """Each id's shortest prefix that is unique among `ids`: at least `least` characters, no `-` at its end.

    13 characters of a UUIDv7 hold its whole millisecond time stamp.
    """
    distinct = sorted(set(ids))
    short: dict[str, str] = {}
    for i, one in enumerate(distinct):
        length = least
        for other in (distinct[i - 1] if i else "", distinct[i + 1] if i + 1 < len(distinct) else ""):
            common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
            length = max(length, common + 1)
        while length < len(one) and one[length - 1] == "-":
            length += 1
        short[one] = one[:length]
    return short


def when(wall_ns: int | None, *, now: datetime | None = None) -> str:
    """A time for people, in local time: the clock today, with the date otherwise. Empty for none."""
    if not wall_ns:
        return ""
    moment = _local(wall_ns)
    today = (now or datetime.now(UTC)).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def clocks(times: Iterable[int]) -> Callable[[int | None], str]:
    """How to tell several times: by the clock alone where they are of one day, as `when` tells them otherwise."""
    moments = {_local(at).date() for at in times if at}
    if len(moments) > 1:
        return when
    return lambda at: _local(at).strftime("%H:%M:%S") if at else ""


def _local(wall_ns: int) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall_ns // 1000)).astimezone()


def instant(wall_ns: int | None) -> str:
    """A time without doubt: RFC 3339 in UTC with nanoseconds. Empty for none."""
    if not wall_ns:
        return ""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def size(count: int | None) -> str:
    """Bytes for people: `0 B`, `812 B`, `4.1 KB`, `64 MB` (powers of 1024). Empty for unknown."""
    if count is None or count < 0:
        return ""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{int(value)} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TB"


def duration(ns: int | None) -> str:
    """A duration for people: `0.31 ms`, `42 ms`, `1.3 s`, `2 m 05 s`. Empty for unknown."""
    if ns is None or ns < 0:
        return ""
    millis = ns / 1e6
    if millis < 999.5:
        return f"{millis:.2f} ms" if millis < 10 else f"{millis:.0f} ms"
    seconds = ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"
