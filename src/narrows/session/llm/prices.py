"""What a model call cost, by the price table beside this module.

A cost is given only where every price that it needs is in the table: an unknown model, a service tier with other prices
or a tool that is charged by the call makes it unknown (None), never a guess. Costs are list prices in USD.

A row of `prices.json` names models as patterns (`*` and `?`), matched against the model's name without provider prefix,
date and version marks; of several that match, the longest wins.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from narrows.session.llm.loose import num

_PREFIX = re.compile(r"^(?:[a-z0-9.:/_-]*/)?(?:(?:us-gov|us|eu|apac|ap|jp|au|ca|global)\.)?(?:[a-z0-9]+\.(?=[a-z]))?")
_SUFFIX = re.compile(
    r"(?:\[1m\])?(?:-v\d+(?::\d+)?(?::\d+k)?)?(?:[-@](?:20\d{6}|20\d\d-\d\d-\d\d|latest|\d{3}))?(?:\[1m\])?$"
)


def cost(provider: str, model: str, usage: dict[str, Any]) -> float | None:
    """USD of one call, or None where it is not known.

    `usage` has `input` (not from the cache), `output`, `cache_read` and `cache_write` tokens, and may have
    `cache_write_1h`: how many of the last ones were written for an hour.
    """
    row = price(provider, model)
    tokens = {name: num(usage.get(name)) for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h")}
    if row is None or tokens["input"] is None or tokens["output"] is None:
        return None
    counts = {name: count or 0 for name, count in tokens.items()}
    hour = min(counts.pop("cache_write_1h"), counts["cache_write"])
    counts["cache_write"] -= hour
    long = row.get("long")
    if long and counts["input"] + counts["cache_read"] + counts["cache_write"] + hour > long["above"]:
        row = long
    total = 0.0
    for name, count in (*counts.items(), ("cache_write_1h", hour)):
        if count:
            rate = row.get(name)
            if rate is None:
                return None
            total += count * rate
    return round(total / 1_000_000, 9)


def price(provider: str, model: str) -> dict[str, Any] | None:
    """The row of the table for a model of a provider, or None."""
    name = plain(model)
    rows = _rows(provider)
    found = [(len(pattern), row) for pattern, row in rows if fnmatchcase(name, pattern)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def plain(model: str) -> str:
    """A model's name as the table has it: lower case, without prefixes, date and version.

    `us.anthropic.claude-sonnet-4-5-20250929-v1:0` and `models/claude-sonnet-4-5` become `claude-sonnet-4-5`.
    """
    name = _PREFIX.sub("", model[:200].lower(), count=1)
    for _ in range(2):
        name = _SUFFIX.sub("", name, count=1)
    return name


@cache
def _rows(provider: str) -> list[tuple[str, dict[str, Any]]]:
    table = _table()["providers"].get(provider)
    return [(pattern, row) for row in table["prices"] for pattern in row["models"]] if table else []


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(files("narrows.session.llm").joinpath("prices.json").read_bytes())
    return table
