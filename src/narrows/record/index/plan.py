"""From a query's tree to SQL: conditions, and which of them drives.

SQLite picks an index by averages over all values; here the values are very uneven (one operation is half of all
calls, another happened twice). `facets` knows how often each occurs, so the choice is made here: the condition
that is expected to leave the least to read keeps its column bare, all others get a `+` before theirs, which keeps
SQLite from using their index (https://www.sqlite.org/optoverview.html, "Disqualifying WHERE Clause Terms Using
Unary +"). Every value is a bound parameter; SQL text is made of this module's own words and column names only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from narrows.record.index import query as q
from narrows.record.index.schema import FACETS, INDEXED

Estimate = Callable[[q.Match | q.Between | q.InSession | q.Ref], int]
"""How many exchanges a condition matches: on a facet, on the time, on the session, on a tool or finding."""

_ASK = "EXISTS (SELECT 1 FROM words WHERE words MATCH ? AND words.rowid = x.n)"
"""Asks the full text about one exchange. Not for prefixes: each time, all words that begin so are gone through."""
_AMONG = "x.n IN (SELECT rowid FROM words WHERE words MATCH ?)"
"""Asks the full text for all its hits, once."""

_RARE = 3000
"""Up to so many exchanges, asking the full text about each is cheaper than going through all its hits."""


@dataclass(slots=True)
class Sql:
    """A piece of SQL with its parameters."""

    text: str
    values: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """How to find exchanges. `words` non-empty: the full text drives, and `where` filters its hits.

    `rare` is True where few exchanges are expected to be read, whatever the order they come in.
    """

    where: Sql
    words: str = ""
    rare: bool = False


def plan(node: q.Node, total: int, limit: int, estimate: Estimate) -> Plan:
    """Choose the way to the first `limit` matches of `node` among `total` exchanges, in the order of time."""
    parts = list(node.nodes) if isinstance(node, q.And) else [node]
    phrases = [part for part in parts if _words(part)]
    others = [part for part in parts if part not in phrases and not isinstance(part, q.Everything)]
    counts = [_count(part, total, estimate) for part in others]
    if any(_exact(part) and not count for part, count in zip(others, counts, strict=True)):
        return Plan(Sql("0"), rare=True)
    drivers = [at for at, part in enumerate(others) if _drivable(part)]
    best = min(drivers, key=counts.__getitem__, default=-1)
    rare = best >= 0 and counts[best] <= _RARE
    if phrases and not rare:
        return Plan(_all(others, -1), " AND ".join(f"({_words(part)})" for part in phrases))
    asked = [Sql(f"+{_AMONG}" if _has_prefix(part) else _ASK, [_words(part)]) for part in phrases]
    if best < 0:
        return Plan(_all(others, -1, asked))
    # Going back in time until enough are found, against reading all that the best index names (and sorting them).
    window = min([count for part, count in zip(others, counts, strict=True) if _is_time(part)], default=total)
    expected = max(total, 1)
    for part, count in zip(others, counts, strict=True):
        if not _is_time(part):
            expected = max(expected * count // max(total, 1), 1)
    scan = min(window, total * (limit + 1) // expected)
    if counts[best] * 2 > scan:
        return Plan(_all(others, -1, asked), rare=window <= _RARE)
    return Plan(_all(others, best, asked), rare=rare)


def condition(node: q.Node) -> Sql:
    """The whole query as a condition on `x` that leads nowhere: for statements that look at few rows anyway."""
    return _sql(node, "+", few=True)


def _exact(node: q.Node) -> bool:
    """`facets` knows the exact number: none there is none at all."""
    return isinstance(node, (q.Match, q.Between)) and node.column in FACETS


def _is_time(node: q.Node) -> bool:
    return isinstance(node, q.Between) and node.column == "n"


def _words(node: q.Node) -> str:
    """A condition in FTS5's syntax if it is about the full text alone, else an empty string."""
    if isinstance(node, q.Text):
        return _phrase(node)
    if isinstance(node, (q.And, q.Or)):
        pieces = [_words(part) for part in node.nodes]
        if all(pieces):
            return (" AND " if isinstance(node, q.And) else " OR ").join(f"({piece})" for piece in pieces)
    return ""


def _has_prefix(node: q.Node) -> bool:
    if isinstance(node, (q.And, q.Or)):
        return any(_has_prefix(part) for part in node.nodes)
    return isinstance(node, q.Text) and node.prefix


def _count(node: q.Node, total: int, estimate: Estimate) -> int:
    """How many exchanges a condition matches, roughly; `total` where that is not known."""
    if isinstance(node, q.Match):
        if node.column in FACETS:
            return min(estimate(node), total)
        return total // 1000 if node.column in INDEXED and not _open(node.pattern) else total
    if isinstance(node, q.Between) and node.column in ("status", "n"):
        return min(estimate(node), total)
    if isinstance(node, (q.InSession, q.Ref)):
        return min(estimate(node), total)
    if isinstance(node, q.Resource):
        return total // 1000
    if isinstance(node, q.Or):
        return min(sum(_count(part, total, estimate) for part in node.nodes), total)
    return total


def _open(pattern: q.Pattern) -> bool:
    """No index narrows it: it begins with a wildcard, and is not `*` alone."""
    return not pattern.exact and not pattern.any and not pattern.literals[0]


def _drivable(node: q.Node) -> bool:
    """An index can lead through exactly what the condition matches, or a little more."""
    if isinstance(node, q.Match):
        return node.column in INDEXED and not _open(node.pattern)
    if isinstance(node, q.Between):
        return node.column == "status"
    if isinstance(node, q.Or):
        return all(_drivable(part) for part in node.nodes)
    return isinstance(node, (q.InSession, q.Resource, q.Ref))


def _all(nodes: Sequence[q.Node], driver: int, more: Sequence[Sql] = ()) -> Sql:
    pieces = [_sql(node, "" if at == driver else "+") for at, node in enumerate(nodes)]
    pieces += more
    text = " AND ".join(piece.text for piece in pieces) or "1"
    return Sql(text, [value for piece in pieces for value in piece.values])


def _sql(node: q.Node, plus: str, *, few: bool = False) -> Sql:
    """One condition over `x` (exchanges). `plus` is `+` where the column's index is not to be used.

    With `few`, the full text is asked about each row instead of for all its hits beforehand.
    """
    if isinstance(node, q.Everything):
        return Sql("1")
    if isinstance(node, q.Match):
        return match(f"{plus}x.{node.column}", node.pattern)
    if isinstance(node, q.Between):
        # The time is always a bound on the way through the table, unless the way is the caller's own.
        column = "x.n" if node.column == "n" and not few else f"{plus}x.{node.column}"
        return Sql(f"{column} BETWEEN ? AND ?", [node.low, node.high])
    if isinstance(node, q.InSession):
        if node.low == node.high:
            return Sql(f"{plus}x.session = ?", [node.low])
        return Sql(f"{plus}x.session BETWEEN ? AND ?", [node.low, node.high])
    if isinstance(node, q.OwnedBy):
        owned = owned_by("sessions", node)
        return Sql(f"{plus}x.session IN (SELECT id FROM sessions WHERE {owned.text})", owned.values)  # noqa: S608
    if isinstance(node, q.Resource):
        return _resource(node.pattern, plus)
    if isinstance(node, q.Ref):
        found = match("value", node.pattern)
        named = f"SELECT n FROM refs WHERE kind = ? AND {found.text}"  # noqa: S608
        return Sql(f"{plus}x.n IN ({named})", [node.kind, *found.values])
    if isinstance(node, q.Text):
        if few and not node.prefix:
            return Sql(_ASK, [_phrase(node)])
        return Sql(f"{plus}{_AMONG}", [_phrase(node)])
    if isinstance(node, q.Not):
        inner = _sql(node.node, "+", few=few)
        return Sql(f"NOT ({inner.text})", inner.values)
    pieces = [_sql(part, plus, few=few) for part in node.nodes]
    joined = (" AND " if isinstance(node, q.And) else " OR ").join(f"({piece.text})" for piece in pieces)
    return Sql(f"({joined})", [value for piece in pieces for value in piece.values])


def owned_by(table: str, node: q.OwnedBy) -> Sql:
    """A condition on a row of `sessions`: it is of that principal. Names are compared exactly, to the case."""
    parts = [f"json_extract({table}.body, '$.{name}') = ?" for name in ("principal", "principal_kind", "issuer")]
    return Sql(" AND ".join(parts), [node.name, node.kind, node.issuer])


def match(column: str, pattern: q.Pattern) -> Sql:
    """A text column against a pattern. `column` is SQL, the pattern is bound."""
    if pattern.exact:
        return Sql(f"{column} = ?", [pattern.literals[0]])
    if pattern.any:
        # Not `<>`, which no index helps: no text comes before the empty one.
        return Sql(f"{column} > ''")
    like = Sql(rf"{column} LIKE ? ESCAPE '\'", [pattern.like()])
    bounds = _bounds(pattern.literals[0])
    if bounds is None:
        return like
    # LIKE with a bound pattern uses no index; the range that its beginning spans does.
    return Sql(f"({column} >= ? AND {column} < ? AND {like.text})", [*bounds, *like.values])


def _bounds(prefix: str) -> tuple[str, str] | None:
    """The range, under NOCASE, that holds all strings which begin with `prefix`, and perhaps a few more."""
    low = prefix.lower() if prefix.isascii() else ""
    if not low:
        return None
    return low, low[:-1] + chr(ord(low[-1]) + 1)


def _resource(pattern: q.Pattern, plus: str) -> Sql:
    if pattern.exact:
        pattern = q.Pattern(("", *pattern.literals, ""), ("*", "*"))
    arn = match("arn", pattern)
    named = f"SELECT touched.n FROM arns JOIN touched USING (a) WHERE {arn.text}"  # noqa: S608
    return Sql(f"{plus}x.n IN ({named})", arn.values)


def _phrase(node: q.Text) -> str:
    """A phrase in FTS5's syntax: in double quotes nothing but the quote itself has a meaning."""
    quoted = '"' + node.phrase.replace('"', '""') + '"'
    return quoted + " *" if node.prefix else quoted
