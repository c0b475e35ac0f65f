"""The query language of `narrows search`, `narrows sessions` and the API: Lucene's, over the fields below.

| field | matches | example |
|---|---|---|
| `service` `operation` `action` | what the call was | `operation:Delete*`, `action:s3:GetObject` |
| `level` | IAM access level | `level:Write` |
| `user` `agent` | principal, agent program | `user:alice` |
| `session` | a session's id or its beginning | `session:0193` |
| `connection` `region` `account` | where it went | `account:123456789012` |
| `model` | the language model that was asked | `model:claude-*` |
| `tool` | a tool that a model or agent calls there | `tool:Bash` |
| `finding` | what was detected there; `finding:*` is anything | `finding:aws-access-key` |
| `host` `method` `kind` | of the request | `host:*.s3.amazonaws.com` |
| `resource` | any ARN of the call that contains this; with wildcards, the whole ARN | `resource:customer-exports` |
| `status` | HTTP status | `status:404`, `status:5*`, `status:[400 TO 599]` |
| `error` | error code; `error:*` is any | `error:AccessDenied*` |
| `outcome` `decision` | how it ended, what was decided | `outcome:refused`, `decision:deny` |
| `request_id` `invocation` | ids of the service and of the SDK's retries | `request_id:4442587FB7D0A2F9` |
| `bytes` | bytes in both directions together; KB, MB, GB are powers of 1024 | `bytes:>1000000`, `bytes:>=64MB` |
| `after` `before` | start: s, m, h, d, w ago, or a date or time (UTC) | `after:2h`, `before:2026-11-24T10:00` |

Values ignore ASCII case. `*` stands for any characters, `?` for one, `field:*` for any value but none; a backslash
takes a character as it is. Values with spaces or colons go in quotes; wildcards work there too. Ranges are
`[1 TO 5]` with and `{1 TO 5}` without the bounds, `*` for an open one. Groups: `service:(s3 OR dynamodb)`.
`AND`, `OR`, `NOT`, `-` and parentheses combine; a space is AND and binds loosest: `a OR b c` is `(a OR b) AND c`.
Words and quoted phrases without a field search the full text of both directions (words of letters and digits,
accents and case ignored); `expor*` searches words that begin so, with 3 letters or more before the star.

`parse` gives a tree of the nodes below or raises QueryError, whatever text it is given. Nothing here makes SQL.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from luqum import parser as _parser  # type: ignore[import-untyped]
from luqum import tree
from luqum.exceptions import ParseError  # type: ignore[import-untyped]

from narrows.core.errors import NarrowsError

MAX_QUERY = 4096
"""Longest query, in bytes of UTF-8."""
MAX_DEPTH = 24
MAX_TERMS = 64
MIN_PREFIX = 3
"""Shorter beginnings name so many words that going through them takes seconds."""

TEXT_FIELDS = {
    "service": "service",
    "operation": "operation",
    "action": "action",
    "level": "access_level",
    "user": "principal",
    "agent": "agent",
    "connection": "connection",
    "region": "region",
    "account": "account",
    "error": "error_code",
    "outcome": "outcome",
    "decision": "decision",
    "method": "method",
    "host": "host",
    "kind": "kind",
    "request_id": "request_id",
    "invocation": "invocation_id",
}
"""Fields that match text, and their columns."""
NUMBER_FIELDS = {"status": "status", "bytes": "bytes"}
REF_FIELDS = ("model", "tool", "finding")
"""Fields that match what the index knows as identifiers."""
FIELDS = tuple(sorted([*TEXT_FIELDS, *NUMBER_FIELDS, *REF_FIELDS, "session", "resource", "after", "before"]))

_MAX_INT = 2**63 - 1
_UNITS_NS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_lock = threading.Lock()


class QueryError(NarrowsError):
    """The query cannot be understood, or is over a limit. `position` is where, counted from 0; -1 if nowhere."""

    code = "query_error"

    def __init__(self, why: str, hint: str = "", *, position: int = -1) -> None:
        if position >= 0:
            why += f", at position {position}"
        super().__init__("The query was not understood", why, hint)
        self.position = position


@dataclass(frozen=True, slots=True)
class Pattern:
    """Pieces of literal text between wildcards: `literals` and `wilds` alternate, literals first and last."""

    literals: tuple[str, ...]
    wilds: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """No wildcard in it."""
        return not self.wilds

    @property
    def any(self) -> bool:
        """It is `*` alone."""
        return bool(self.wilds) and not any(self.literals) and set(self.wilds) == {"*"}

    def like(self) -> str:
        """As an operand of SQL's LIKE with ESCAPE '\\'."""
        escaped = [re.sub(r"([\\%_])", r"\\\1", literal) for literal in self.literals]
        out = escaped[0]
        for wild, literal in zip(self.wilds, escaped[1:], strict=True):
            out += ("%" if wild == "*" else "_") + literal
        return out


@dataclass(frozen=True, slots=True)
class Everything:
    """Matches all."""


@dataclass(frozen=True, slots=True)
class Match:
    """A text column against a pattern."""

    column: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Between:
    """An integer column within bounds, both included. Column `n` is the time an exchange started, in ns."""

    column: str
    low: int = -_MAX_INT
    high: int = _MAX_INT


@dataclass(frozen=True, slots=True)
class InSession:
    """Sessions from one id to another, both included: what a prefix stands for."""

    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class OwnedBy:
    """In a session of this principal. Not part of the language: it bounds what a caller may see."""

    name: str
    kind: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Resource:
    """Any ARN of the exchange against a pattern."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Ref:
    """Any identifier of one kind that the exchange is found by, against a pattern."""

    kind: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Text:
    """A phrase in the full text; with `prefix`, its last word may go on."""

    phrase: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of them at least."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Not that."""

    node: Node


Node = Everything | Match | Between | InSession | OwnedBy | Resource | Ref | Text | And | Or | Not


def parse(query: str, now_ns: int) -> Node:
    """The tree of a query; `now_ns` (since the Unix epoch) is what `after:2h` counts from. Raises QueryError."""
    try:
        size = len(query.encode())
    except UnicodeEncodeError as error:
        raise QueryError("it holds characters that are no text", position=error.start) from error
    if size > MAX_QUERY:
        raise QueryError(f"it has {size} bytes, the limit is {MAX_QUERY}", "search for less at a time")
    if "\0" in query:
        raise QueryError("it holds a NUL character", position=query.index("\0"))
    if not query.strip():
        return Everything()
    _check_nesting(query)
    return _Builder(now_ns).node(_tree(query), 0)


def _check_nesting(query: str) -> None:
    """Bound the parser's own work before it starts: nested parentheses outside of quotes."""
    depth = 0
    for match in re.finditer(r'\\.|"(?:[^\\"]|\\.)*"|[()]', query, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise QueryError(f"it is nested deeper than {MAX_DEPTH}", position=match.start())


def _tree(query: str) -> Any:
    # luqum's lexer keeps state from one parse to the next: a copy for each, and one at a time.
    try:
        with _lock:
            return _parser.parser.parse(query, lexer=_parser.lexer.clone())
    except ParseError as error:
        found = re.search(r"at position (\d+)", str(error))
        if found is None:
            raise QueryError(
                "it ends too early", "is a quote, a bracket or a value missing?", position=len(query)
            ) from error
        position = int(found.group(1))
        near = query[position : position + 16]
        raise QueryError(
            f"{near!r} does not fit there",
            "put values with special characters in double quotes",
            position=position,
        ) from error
    except (ValueError, ArithmeticError, AttributeError, TypeError, AssertionError, RecursionError) as error:
        # What luqum raises for operators that it half understands, as in `a~1..2`.
        raise QueryError("an operator in it is malformed", "quote what is meant as text: ~ ^ / [ ] { }") from error


class _Builder:
    """Turns luqum's tree into ours."""

    def __init__(self, now_ns: int) -> None:
        self._now = now_ns
        self._terms = 0

    def node(self, item: Any, depth: int, field: str = "") -> Node:
        """The node of `item`; inside `field:(...)`, `field` is that field."""
        if depth > MAX_DEPTH:
            raise QueryError(f"it is nested deeper than {MAX_DEPTH}", position=_position(item))
        if isinstance(item, (tree.AndOperation, tree.UnknownOperation)):
            nodes = [self.node(part, depth + 1, field) for part in item.operands]
            return And(tuple(flat for node in nodes for flat in (node.nodes if isinstance(node, And) else [node])))
        if isinstance(item, tree.OrOperation):
            return Or(tuple(self.node(part, depth + 1, field) for part in item.operands))
        if isinstance(item, (tree.Group, tree.FieldGroup)):
            return self.node(item.expr, depth + 1, field)
        if isinstance(item, (tree.Not, tree.Prohibit)):
            return Not(self.node(item.a, depth + 1, field))
        if isinstance(item, tree.Plus):
            return self.node(item.a, depth + 1, field)
        if isinstance(item, tree.SearchField) and not field:
            return self._search(item, depth)
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise QueryError(f"it has more than {MAX_TERMS} terms", position=_position(item))
        return self._value(field, item) if field else self._words(item)

    def _search(self, item: Any, depth: int) -> Node:
        if item.name not in FIELDS:
            near = difflib.get_close_matches(item.name, FIELDS, 1, 0.5)
            meant = f"did you mean {near[0]}? " if near else ""
            raise QueryError(
                f"there is no field {item.name[:40]!r}",
                f"{meant}fields: {', '.join(FIELDS)}; to search for the text, quote it",
                position=_position(item),
            )
        return self.node(item.expr, depth + 1, item.name)

    def _words(self, item: Any) -> Node:
        """A word or phrase of the full text."""
        if isinstance(item, tree.Phrase):
            return _text(_unescaped(item.value[1:-1]), False, item)
        if not isinstance(item, tree.Word):
            raise _unsupported(item)
        pattern = _pattern(item.value)
        if pattern.any:
            return Everything()
        *inner, last = pattern.literals
        if pattern.exact:
            return _text(last, False, item)
        if pattern.wilds == ("*",) and not last:
            return _text(inner[0], True, item)
        raise QueryError("a wildcard in a word of the full text may only be a * at its end", position=_position(item))

    def _value(self, field: str, item: Any) -> Node:
        """One value of a field."""
        if field in NUMBER_FIELDS:
            return _number(field, item)
        value, position = _plain(item), _position(item)
        if field in ("after", "before"):
            at = _instant(value, self._now, position)
            return Between("n", low=at) if field == "after" else Between("n", high=at - 1)
        if field == "session":
            return InSession(*id_range(value.rstrip("*"), position))
        pattern = _pattern(value)
        if field in REF_FIELDS:
            return Ref(field, pattern)
        return Resource(pattern) if field == "resource" else Match(TEXT_FIELDS[field], pattern)


def _position(item: Any) -> int:
    return item.pos if isinstance(item.pos, int) else -1


def _unsupported(item: Any) -> QueryError:
    names = {"Regex": "regular expressions (/.../)", "Fuzzy": "~", "Proximity": "~", "Boost": "^"}
    name = type(item).__name__
    what = names.get(name, "a range or comparison without a field that has numbers")
    return QueryError(
        f"{what} cannot be used there", "quote it to search for the text itself", position=_position(item)
    )


def _plain(item: Any) -> str:
    """The text of a field's value, its escapes still in it. `s3:GetObject` comes as a field within a field."""
    if isinstance(item, tree.SearchField):
        return f"{item.name}:{_plain(item.expr)}"
    if isinstance(item, tree.Phrase):
        return str(item.value[1:-1])
    if isinstance(item, tree.Word):
        return str(item.value)
    raise _unsupported(item)


def _pieces(value: str) -> Iterator[tuple[bool, str]]:
    """(is a wildcard, character) with the escapes resolved."""
    characters = iter(value)
    for character in characters:
        if character == "\\":
            yield False, next(characters, "\\")
        else:
            yield character in "*?", character


def _unescaped(value: str) -> str:
    return "".join(character for _, character in _pieces(value))


def _pattern(value: str) -> Pattern:
    literals: list[str] = [""]
    wilds: list[str] = []
    for wild, character in _pieces(value):
        if not wild:
            literals[-1] += character
        elif wilds and character == "*" == wilds[-1] and not literals[-1]:
            continue  # a run of stars is one: LIKE would try every way to share the text among them
        else:
            wilds.append(character)
            literals.append("")
    if wilds.count("*") > 8:
        raise QueryError("a value may hold 8 * at most")
    return Pattern(tuple(literals), tuple(wilds))


def _text(phrase: str, prefix: bool, item: Any) -> Text:
    if not any(character.isalnum() for character in phrase):
        raise QueryError("there is no letter or digit to search for in the full text", position=_position(item))
    if prefix and len(phrase) < MIN_PREFIX:
        raise QueryError(f"a word of the full text needs {MIN_PREFIX} letters before its *", position=_position(item))
    return Text(phrase, prefix)


def _integer(field: str, value: str, position: int) -> int:
    found = re.fullmatch(r"(\d{1,18})(|B|KB|MB|GB)", value, re.IGNORECASE | re.ASCII)
    if found is None or (found.group(2) and field != "bytes"):
        raise QueryError(f"{field} takes a number, not {value[:40]!r}", position=position)
    return min(int(found.group(1)) * _SIZES[found.group(2).upper()], _MAX_INT)


def _number(field: str, item: Any) -> Between:
    position = _position(item)
    column = NUMBER_FIELDS[field]
    if isinstance(item, tree.Range):
        low, high = _plain(item.low), _plain(item.high)
        least = -_MAX_INT if low == "*" else _integer(field, low, position) + (not item.include_low)
        most = _MAX_INT if high == "*" else _integer(field, high, position) - (not item.include_high)
        return Between(column, least, most)
    if isinstance(item, tree.From):
        return Between(column, low=_integer(field, _plain(item.a), position) + (not item.include))
    if isinstance(item, tree.To):
        return Between(column, high=_integer(field, _plain(item.a), position) - (not item.include))
    value = _plain(item)
    if value == "*":
        return Between(column, low=1)
    hundreds = re.fullmatch(r"([1-9])(\*|xx)", value, re.ASCII)
    if hundreds and field == "status":
        return Between(column, int(hundreds.group(1)) * 100, int(hundreds.group(1)) * 100 + 99)
    exact = _integer(field, value, position)
    return Between(column, exact, exact)


def _instant(value: str, now_ns: int, position: int) -> int:
    ago = re.fullmatch(r"(\d{1,9})([smhdw])", value, re.ASCII)
    if ago:
        return max(-_MAX_INT, now_ns - int(ago.group(1)) * _UNITS_NS[ago.group(2)] * 1_000_000_000)
    try:
        moment = datetime.fromisoformat(_unescaped(value))
    except ValueError as error:
        raise QueryError(
            f"{value[:40]!r} is no time",
            "as in 2h, 30d, 2026-11-24, 2026-11-24T10:00; quote one with a zone",
            position=position,
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except OverflowError as error:
        raise QueryError("that time is out of range", position=position) from error
    nanos = (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return max(-_MAX_INT, min(nanos, _MAX_INT))


def id_range(prefix: str, position: int = -1) -> tuple[bytes, bytes]:
    """The lowest and highest 16-byte id that begin with `prefix` (hexadecimal, hyphens anywhere)."""
    digits = prefix.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise QueryError(f"{prefix[:40]!r} is not an id or the beginning of one", position=position)
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
