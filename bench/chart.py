"""The plot of the report: bars on a logarithmic axis, written as SVG by hand. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, BAR = 760, 190, 110, 26, 15
LOWEST, HIGHEST = 0.003, 3.0
TICKS = (0.01, 0.1, 1.0)
OURS, THEIRS, MARK, TEXT, GRID = "#1f6f8b", "#a9b4bd", "#33393d", "#1c2226", "#d8dde1"


class Bar(NamedTuple):
    """One bar: the median, and the lowest and highest round. `ours` is drawn in the first colour."""

    name: str
    value: float
    low: float
    high: float
    ours: bool


class Panel(NamedTuple):
    """Bars under one heading."""

    title: str
    bars: Sequence[Bar]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The whole picture. Values outside of the axis are drawn at its end; the number beside a bar is exact."""
    height = 64 + sum(46 + ROW * len(panel.bars) for panel in panels) + 18
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 26, title, weight="600", size=15),
        _text(16, 45, "Logarithmic; the line at the end of a bar spans the rounds.", size=12),
    ]
    y = 64
    for panel in panels:
        y += 20
        out.append(_text(16, y, panel.title, weight="600"))
        y += 26
        bottom = y + ROW * len(panel.bars)
        for tick in TICKS:
            x = _x(tick)
            out.append(f'<line x1="{x}" y1="{y - 4}" x2="{x}" y2="{bottom - 4}" stroke="{GRID}"/>')
            out.append(_text(x, y - 7, f"{tick:g}", size=11, anchor="middle"))
        for bar in panel.bars:
            out += _bar(bar, y)
            y += ROW
    return "\n".join([*out, "</svg>", ""])


def _bar(bar: Bar, y: int) -> list[str]:
    end, low, high = _x(bar.value), _x(bar.low), _x(bar.high)
    middle = y + BAR / 2
    return [
        _text(LEFT - 10, y + 12, bar.name, anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{OURS if bar.ours else THEIRS}"/>',
        f'<line x1="{low}" y1="{middle}" x2="{high}" y2="{middle}" stroke="{MARK}" stroke-width="2"/>',
        _text(max(end, high) + 8, y + 12, f"{bar.value:.3g}"),
    ]


def _x(value: float) -> float:
    span = math.log(HIGHEST / LOWEST)
    part = math.log(min(max(value, LOWEST), HIGHEST) / LOWEST) / span
    return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", size: int = 13) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{TEXT}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
