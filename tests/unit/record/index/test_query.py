"""The query language: what is understood, and how the rest is told."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from narrows.record.index import query as q
from narrows.record.index.query import Between, InSession, Match, Not, Or, Pattern, QueryError, Resource, Text, parse

NOW = 1_795_600_000_000_000_000
SECOND = 1_000_000_000
ANY = Pattern(("", ""), ("*",))


def exact(column: str, value: str) -> Match:
    return Match(column, Pattern((value,)))


@pytest.mark.parametrize(
    ("query", "node"),
    [
        ("", q.Everything()),
        ("  \n", q.Everything()),
        ("*", q.Everything()),
        ("service:s3", exact("service", "s3")),
        ("user:alice@example.com", exact("principal", "alice@example.com")),
        ('level:"Permissions management"', exact("access_level", "Permissions management")),
        ("operation:Delete*", Match("operation", Pattern(("Delete", ""), ("*",)))),
        ('operation:"D?l*"', Match("operation", Pattern(("D", "l", ""), ("?", "*")))),
        (r"operation:a\*b", exact("operation", "a*b")),
        ("operation:a***b", Match("operation", Pattern(("a", "b"), ("*",)))),
        ("action:s3:GetObject", exact("action", "s3:GetObject")),
        ("host:127.0.0.1:8080", exact("host", "127.0.0.1:8080")),
        ("error:*", Match("error_code", ANY)),
        ("-error:*", Not(Match("error_code", ANY))),
        ("NOT service:s3", Not(exact("service", "s3"))),
        ("+service:s3", exact("service", "s3")),
        ("status:404", Between("status", 404, 404)),
        ("status:5*", Between("status", 500, 599)),
        ("status:4xx", Between("status", 400, 499)),
        ("status:[400 TO 599]", Between("status", 400, 599)),
        ("status:{400 TO 599}", Between("status", 401, 598)),
        ("status:[400 TO *]", Between("status", low=400)),
        ("bytes:>1000000", Between("bytes", low=1_000_001)),
        ("bytes:>=64MB", Between("bytes", low=64 * 1024 * 1024)),
        ("bytes:<2kb", Between("bytes", high=2047)),
        ("after:2h", Between("n", low=NOW - 7200 * SECOND)),
        ("after:999999999w", Between("n", low=-(2**63) + 1)),
        ("before:30d", Between("n", high=NOW - 30 * 86400 * SECOND - 1)),
        ("before:2026-11-24T10:00", Between("n", high=1_795_514_400 * SECOND - 1)),
        ("after:2026-11-24", Between("n", low=1_795_478_400 * SECOND)),
        ('after:"2026-11-24T10:00+02:00"', Between("n", low=1_795_507_200 * SECOND)),
        ("after:2026-11-24T10:00:00Z", Between("n", low=1_795_514_400 * SECOND)),
        ("session:0193-AB", InSession(bytes.fromhex("0193ab" + "00" * 13), bytes.fromhex("0193ab" + "ff" * 13))),
        ('resource:"arn:aws:s3:::b/*"', Resource(Pattern(("arn:aws:s3:::b/", ""), ("*",)))),
        ("hello", Text("hello")),
        ("expor*", Text("expor", prefix=True)),
        ('"customer-exports"', Text("customer-exports")),
        (r'"a \"b\" *"', Text('a "b" *')),
        ("user:(alice OR bob)", Or((exact("principal", "alice"), exact("principal", "bob")))),
        ("action:(s3:Get* OR x)", Or((Match("action", Pattern(("s3:Get", ""), ("*",))), exact("action", "x")))),
        ("a OR b c", q.And((Or((Text("a"), Text("b"))), Text("c")))),
        ("a b OR c", q.And((Text("a"), Or((Text("b"), Text("c")))))),
        ("a AND b OR c", Or((q.And((Text("a"), Text("b"))), Text("c")))),
        ("a AND (b OR c)", q.And((Text("a"), Or((Text("b"), Text("c")))))),
    ],
)
def test_understood(query: str, node: q.Node) -> None:
    assert parse(query, NOW) == node


def test_the_example_of_the_documentation() -> None:
    text = 'service:s3 AND operation:Delete* AND user:alice AND after:2h "customer-exports"'
    assert parse(text, NOW) == q.And(
        (
            exact("service", "s3"),
            Match("operation", Pattern(("Delete", ""), ("*",))),
            exact("principal", "alice"),
            Between("n", low=NOW - 7200 * SECOND),
            Text("customer-exports"),
        )
    )


@pytest.mark.parametrize(
    ("query", "position", "says"),
    [
        ("servce:s3", 0, "did you mean service?"),
        ("  xyzzy:1", 2, "fields: account, action"),
        ("service:s3 AND", 14, "ends too early"),
        ("(service:s3", 11, "ends too early"),
        ("service:s3)", 10, "')'"),
        ('a "b', 2, "does not fit"),
        ("a AND OR b", 6, "'OR b'"),
        ("status:abc", 7, "takes a number"),
        ("status:4MB", 7, "takes a number"),
        ("status:>x", 7, "takes a number"),
        ("after:yesterday", 6, "is no time"),
        ("session:xyz", 8, "is not an id"),
        ("user:>a", 5, "cannot be used"),
        ("/re/", 0, "regular expressions"),
        ("a~2", 0, "~"),
        ("a^2", 0, "^"),
        ("e*f", 0, "wildcard"),
        ("x ab*", 2, "needs 3 letters"),
        ('"--"', 0, "no letter"),
        ("a~1..2", -1, "malformed"),
        ("x" * 4097, -1, "limit is 4096"),
        ("é" * 2049, -1, "limit is 4096"),
        ("(" * 25 + "a" + ")" * 25, 24, "nested"),
        ("NOT " * 40 + "a", -2, "nested"),
        ("a " * 65, 128, "more than 64 terms"),
        ("a\0b", 1, "NUL"),
        ("a\ud800", 1, "no text"),
        ("user:a*b*c*d*e*f*g*h*i*j", -1, "8 *"),
    ],
)
def test_not_understood(query: str, position: int, says: str) -> None:
    with pytest.raises(QueryError) as error:
        parse(query, NOW)
    assert says in str(error.value)
    assert position == -2 or error.value.position == position
    if error.value.position >= 0:
        assert f"at position {error.value.position}" in error.value.why


def test_limits_are_inclusive() -> None:
    parse("x" * 4096, NOW)
    parse("a " * 64, NOW)


def test_every_field_is_documented_and_every_documented_one_is_a_field() -> None:
    assert q.__doc__ is not None
    table = re.findall(r"^\| (`.*?) \|", q.__doc__, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table))) == list(q.FIELDS)


def test_every_example_of_the_table_is_understood() -> None:
    assert q.__doc__ is not None
    for line in q.__doc__.splitlines():
        if line.startswith("| `"):
            for sample in re.findall(r"`([^`]+)`", line.split("|")[3]):
                parse(sample, NOW)


SYNTAX = st.sampled_from(
    [*(f"{name}:" for name in q.FIELDS), *'()[]{}"*?\\~^/+-:<>= ', "AND ", "OR ", "NOT ", "TO ", "2h", "404", "a"]
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(SYNTAX, max_size=24).map("".join)))
@example("a:\\")
@example("(a:(b:")
@example('"\\"')
@example("after:99999999999d")
@example("after:999999999w")
@example("[-a TO -b]")
@example("status:[- TO 5]")
def test_any_text_gives_a_tree_or_a_query_error(query: str) -> None:
    try:
        parse(query, NOW)
    except QueryError as error:
        assert error.why
