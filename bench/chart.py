"""The plot of the report: bars on a logarithmic axis, written as SVG by hand. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, BAR = 760, 190, 110, 26, 15
LOWEST, HIGHEST = 0.003, 3.0
TICKS = (0.01, 0.1, 1.0)
_LIGHT = {
    "page": "#ffffff",
    "ours": "#1f6f8b",
    "theirs": "#a9b4bd",
    "mark": "#33393d",
    "text": "#1c2226",
    "grid": "#d8dde1",
}
_DARK = {
    "page": "#14191d",
    "ours": "#4fb0cf",
    "theirs": "#5f6b75",
    "mark": "#e3e8ec",
    "text": "#e3e8ec",
    "grid": "#333c43",
}


def _rules(colours: dict[str, str]) -> str:
    return "".join(f".{name}{{{'stroke' if name in ('mark', 'grid') else 'fill'}:{c}}}" for name, c in colours.items())


_STYLE = f"{_rules(_LIGHT)}@media (prefers-color-scheme: dark){{{_rules(_DARK)}}}"


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
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" class="page"/>',
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
            out.append(f'<line x1="{x}" y1="{y - 4}" x2="{x}" y2="{bottom - 4}" class="grid"/>')
            out.append(_text(x, y - 7, f"{tick:g}", size=11, anchor="middle"))
        for bar in panel.bars:
            out += _bar(bar, y)
            y += ROW
    return "\n".join([*out, "</svg>", ""])


def _bar(bar: Bar, y: int) -> list[str]:
    end, low, high = _x(bar.value), _x(bar.low), _x(bar.high)
    middle = y + BAR / 2
    kind = "ours" if bar.ours else "theirs"
    return [
        _text(LEFT - 10, y + 12, bar.name, anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" class="{kind}"/>',
        f'<line x1="{low}" y1="{middle}" x2="{high}" y2="{middle}" class="mark" stroke-width="2"/>',
        _text(max(end, high) + 8, y + 12, f"{bar.value:.3g}"),
    ]


def _x(value: float) -> float:
    span = math.log(HIGHEST / LOWEST)
    part = math.log(min(max(value, LOWEST), HIGHEST) / LOWEST) / span
    return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", size: int = 13) -> str:
    return (
        f'<text x="{x}" y="{y}" class="text" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
