"""The SQLite index: what goes in comes out, by every way of asking; against a model that reads every row."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from narrows.core import ids
from narrows.core.errors import ConfigError, NotFound
from narrows.record.index import query as q
from narrows.record.index import sqlite as module
from narrows.record.index.query import QueryError
from narrows.record.index.rows import MAX_PARAMETERS, MAX_TEXT, ExchangeRow
from narrows.record.index.sqlite import AmbiguousIdError, Batch, SessionChange, SqliteIndex

from .conftest import ALICE, BOB, HOUR, NOW, SECOND, key, row

OPEN = {
    "principal": "alice",
    "principal_kind": "user",
    "issuer": "local",
    "groups": ["dev"],
    "agent": "claude-code",
    "agent_version": "2",
    "command": ["aws", "s3", "ls"],
    "cwd": "/src",
    "host": "laptop",
    "pid": 7,
    "connections": ["prod"],
    "expires": 99,
}


def found(index: SqliteIndex, query: str, **more: Any) -> list[int]:
    """Leaf numbers of what a query finds, in the order given."""
    return [r.leaf_index for r in index.exchanges(query, now_ns=NOW + 24 * HOUR, **more).items]


def test_a_row_comes_back_as_it_went_in(index: SqliteIndex) -> None:
    full = row(
        1,
        connection="prod",
        resources=[{"arn": "arn:aws:s3:::customer-exports/2026.csv", "exact": True}],
        protocol="rest-xml",
        region="eu-west-1",
        account="123456789012",
        error_code="NoSuchKey",
        error_message="The key is not there",
        request_id="4442587FB7D0A2F9",
        invocation_id="f9b6",
        attempt=2,
        reason="lease ok",
        durability="strict",
        first_byte_ns=3,
        last_byte_ns=5,
        gateway_ns=2,
        bytes_in=10,
        bytes_out=2**40,
        host="s3.amazonaws.com",
        method="GET",
        target="/customer-exports/2026.csv?x=*",
        parameters={"Bucket": "customer-exports", "n": 1.5, "deep": [None, True]},
        events=[{"type": "chunk"}],
        facts={"client": "127.0.0.1:5"},
        problems=["the body is gzip of garbage"],
        location={"a": [1, 2]},
    )
    index.insert(Batch(1, [full]))
    assert index.exchange(ids.text(full.id)) == full
    listed = index.exchanges(now_ns=NOW).items[0]
    assert listed.events == [] and listed.parameters == full.parameters


def test_inserting_again_changes_nothing(index: SqliteIndex) -> None:
    batch = Batch(2, [row(1), row(2)], [SessionChange(ALICE, True, NOW, 0, OPEN)])
    assert index.insert(batch) == 2
    before = index.session(ids.text(ALICE))
    assert index.insert(batch) == 0 and index.insert(Batch(1, [row(1, bytes_in=5)])) == 0
    assert index.session(ids.text(ALICE)) == before and before.exchanges == 2
    assert index.cursor() == 2, "the cursor never goes back"
    assert found(index, "") == [2, 1]


def test_one_batch_and_many_add_up_to_the_same(index: SqliteIndex, tmp_path: Path) -> None:
    chance = random.Random(4711)
    rows = [
        row(
            n,
            NOW + chance.randrange(10),  # several in one nanosecond, and not in order
            session=chance.choice((ALICE, BOB)),
            service=chance.choice(("s3", "S3", "ec2", "")),
            access_level=chance.choice(("Read", "Write", "")),
            outcome=chance.choice(("complete", "refused", "upstream_cut")),
            status=chance.choice((200, 403)),
            bytes_in=chance.randrange(10**6),
            bytes_out=chance.randrange(2**51),
            resources=[{"arn": f"arn:aws:s3:::{chance.choice('aAbB')}"} for _ in range(3)],
        )
        for n in range(40)
    ]
    for one in rows:
        one.id = key(one.leaf_index)
    other = SqliteIndex(tmp_path / "other.db")
    rows.sort(key=lambda one: one.started_ns)  # what is not known of a session is taken from the first that comes
    assert sum(other.insert(Batch(one.leaf_index, [one])) for one in rows) == 40
    assert index.insert(Batch(39, [*rows, *rows[:5]])) == 40
    assert index.insert(Batch(39, rows)) == 0
    assert index.sessions(now_ns=NOW) == other.sessions(now_ns=NOW)
    with index._read() as db, other._read() as singles:
        for table in ("facets", "session_counts"):
            read = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
            assert db.execute(read).fetchall() == singles.execute(read).fetchall()
    for query in ('resource:"arn:aws:s3:::a"', "service:s3", "arn"):
        assert sorted(found(index, query)) == sorted(found(other, query)) != []
    other.close()


def test_a_batch_that_fails_leaves_nothing(index: SqliteIndex) -> None:
    bad = row(2)
    bad.session = None  # type: ignore[assignment]
    with pytest.raises(sqlite3.IntegrityError):
        index.insert(Batch(2, [row(1), bad]))
    assert index.cursor() == -1 and found(index, "") == [] and index.sessions(now_ns=NOW).items == []
    index.insert(Batch(1, [row(1)]))
    assert found(index, "") == [1]


def test_rebuild_empties_it(index: SqliteIndex) -> None:
    index.insert(Batch(1, [row(1, text="hello")], [SessionChange(ALICE, True, NOW, 0, OPEN)]))
    index.rebuild()
    assert index.cursor() == -1 and found(index, "hello") == [] and index.sessions(now_ns=NOW).items == []
    index.insert(Batch(1, [row(1, text="hello")]))
    assert found(index, "hello") == [1]


def test_exchanges_of_the_same_nanosecond_are_all_there(index: SqliteIndex) -> None:
    rows = [row(n, NOW) for n in range(5)]
    for n, one in enumerate(rows):
        one.id, one.leaf_index = key(n), n
    index.insert(Batch(5, rows))
    assert sorted(found(index, "")) == [0, 1, 2, 3, 4]
    assert {r.started_ns for r in index.exchanges(now_ns=NOW).items} == {NOW}


def test_hostile_and_oversized_values_are_kept_within_bounds(index: SqliteIndex) -> None:
    wild = row(
        1,
        service="s\0\ud8003",
        target="/" + "x" * 100_000,
        parameters={"k": "v" * (MAX_PARAMETERS + 1), "\ud800": b"\xff"},
        text="first " + "w" * MAX_TEXT + " beyond",
        facts={"x": "y" * 100_000},
        events=[{"e": "z" * 100_000}],
        resources=[{"arn": f"arn:aws:s3:::b/{n}"} for n in range(500)],
        bytes_in=2**70,
        status=-(2**70),
    )
    index.insert(Batch(1, [wild, row(2)]))
    got = index.exchange(ids.text(wild.id))
    assert got.parameters_truncated and len(str(got.parameters)) <= MAX_PARAMETERS
    assert len(got.target) <= 16384 and len(got.resources) == 200 and got.facts == {} and got.events == []
    assert len(got.problems) == 2 and got.service == "s ?3"
    assert found(index, "first") == [1] and found(index, "beyond") == []
    assert found(index, "status:200") == [2]


@pytest.mark.parametrize("length", [MAX_PARAMETERS - 8, MAX_PARAMETERS - 7])
def test_parameters_at_the_limit_are_whole_and_one_over_it_are_cut(index: SqliteIndex, length: int) -> None:
    one = row(1, parameters={"k": "v" * length})
    index.insert(Batch(1, [one]))
    assert index.exchange(ids.text(one.id)).parameters_truncated is (length == MAX_PARAMETERS - 7)
    assert index.exchanges(now_ns=NOW).items[0].parameters is None, "listings leave large ones out"


def test_the_example_of_the_documentation(index: SqliteIndex) -> None:
    target = {"text": "DELETE /customer-exports/a", "operation": "DeleteObject", "action": "s3:DeleteObject"}
    index.insert(
        Batch(
            9,
            [
                row(1, NOW - HOUR, **target),
                row(2, NOW - 3 * HOUR, **target),
                row(3, NOW - HOUR + 1, **(target | {"principal": "bob"})),
                row(4, NOW - HOUR + 2, **(target | {"operation": "GetObject"})),
                row(5, NOW - HOUR + 3, **(target | {"text": "customer and exports"})),
                row(6, NOW - HOUR + 4, **(target | {"service": "dynamodb"})),
                row(7, NOW - HOUR + 5, operation="DeleteObjects", parameters={"Bucket": "customer-exports"}),
            ],
        )
    )
    query = 'service:s3 AND operation:Delete* AND user:alice AND after:2h "customer-exports"'
    page = index.exchanges(query, now_ns=NOW)
    assert [r.leaf_index for r in page.items] == [7, 1] and page.next == ""


@pytest.mark.parametrize(
    ("query", "leaves"),
    [
        ("operation:getobject", [1]),
        ("operation:GET*", [1]),
        ("operation:*Bucket", [2]),
        ("operation:*", [2, 1]),
        ("error:*", [2]),
        ("account:*", []),
        ("account:* OR status:404", [2]),
        ("NOT account:*", [3, 2, 1]),
        ("NOT error:*", [3, 1]),
        ("-user:alice", [3]),
        ("status:[400 TO 599]", [2]),
        ("status:4*", [2]),
        ("status:0", [3]),
        ("bytes:>100", [1]),
        ("bytes:<=100", [3, 2]),
        ("resource:customer-exports", [1]),
        ('resource:"arn:aws:s3:::customer-exports/*"', [1]),
        ('resource:"arn:aws:s3:::customer*"', [2, 1]),
        ('resource:"arn:aws:s3:::customer"', [2, 1]),
        ("resource:nowhere", []),
        (r"resource:cust_mer", []),
        ("NOT resource:exports", [3, 2]),
        ("kind:http.request", [3]),
        ("outcome:refused decision:deny", [3]),
        ("request_id:ab12", [1]),
        ("invocation:inv-1", [2]),
        ("host:example.com", [3]),
        ("(service:s3 AND status:404) OR kind:http.request", [3, 2]),
        ("status:404 OR quarterly", [2, 1]),
        ("NOT quarterly", [3, 2]),
        ("QUARTERLY figures", [1]),
        ('"quarterly figures"', [1]),
        ('"figures quarterly"', []),
        ("quart*", [1]),
        ("caf*", [1]),
        ("user:alice quart*", [1]),
        ("user:alice NOT (quart* OR x)", [2]),
        ("cafe", [1]),
        ("quarterly OR deletebucket", [2, 1]),
        ('"customer-exports"', [1]),
        ("DeleteBucket", [2]),
        ("login", [3]),
        ("AccessDenied", [2]),
        ('service:"s3\' OR 1=1 --"', []),
        ('"\\" OR text:*"', []),
        ("after:2035-01-01", []),
        ("session:" + ALICE.hex()[:13], [2, 1]),
        ("session:" + ids.text(BOB), [3]),
    ],
)
def test_queries(index: SqliteIndex, query: str, leaves: list[int]) -> None:
    index.insert(
        Batch(
            3,
            [
                row(
                    1,
                    text="The quarterly figures of the café",
                    bytes_in=60,
                    bytes_out=60,
                    request_id="AB12",
                    resources=[{"arn": "arn:aws:s3:::customer-exports/q1.csv"}, {"arn": "arn:aws:s3:::customer"}],
                ),
                row(
                    2,
                    operation="DeleteBucket",
                    status=404,
                    error_code="AccessDenied",
                    invocation_id="inv-1",
                    resources=[{"arn": "arn:aws:s3:::customer"}],
                ),
                row(
                    3,
                    session=BOB,
                    principal="bob",
                    kind="http.request",
                    service="",
                    operation="",
                    action="",
                    host="example.com",
                    method="GET",
                    target="/login?x=1",
                    status=0,
                    outcome="refused",
                    decision="deny",
                ),
            ],
        )
    )
    assert found(index, query) == leaves
    assert found(index, query, order="asc") == leaves[::-1]
    followed = index.exchanges_after(-1, query, now_ns=NOW + HOUR).items
    assert [r.leaf_index for r in followed] == leaves[::-1]
    sessions = {r.id for r in index.sessions(query, now_ns=NOW + HOUR).items}
    assert sessions == {BOB if leaf == 3 else ALICE for leaf in leaves}


def test_pages_are_whole_and_do_not_shift(index: SqliteIndex) -> None:
    index.insert(Batch(9, [row(n) for n in range(10)]))
    seen: list[int] = []
    cursor = ""
    while True:
        page = index.exchanges("service:s3", limit=3, cursor=cursor, now_ns=NOW)
        seen += [r.leaf_index for r in page.items]
        index.insert(Batch(100, [row(100 + len(seen))]))  # newer ones, meanwhile
        cursor = page.next
        if not cursor:
            break
    assert seen == list(range(9, -1, -1))
    page = index.exchanges(limit=4, order="asc", now_ns=NOW)
    assert [r.leaf_index for r in page.items] == [0, 1, 2, 3]
    page = index.exchanges(limit=4, order="asc", cursor=page.next, now_ns=NOW)
    assert [r.leaf_index for r in page.items] == [4, 5, 6, 7]


@pytest.mark.parametrize("cursor", ["x", "-1", "1" * 30, "1.5", "١"])
def test_a_cursor_that_we_did_not_give_is_refused(index: SqliteIndex, cursor: str) -> None:
    with pytest.raises(QueryError):
        index.exchanges(cursor=cursor, now_ns=NOW)
    with pytest.raises(QueryError):
        index.sessions(cursor=f"{cursor}.zz", now_ns=NOW)


def test_a_follower_misses_none_that_was_sealed_late(index: SqliteIndex) -> None:
    index.insert(Batch(1, [row(1)]))
    late = row(0)
    late.leaf_index = 2  # started before the first, sealed after it
    index.insert(Batch(2, [late]))
    assert [r.leaf_index for r in index.exchanges_after(1, now_ns=NOW).items] == [2]
    page = index.exchanges_after(-1, limit=1, session=ids.text(ALICE), now_ns=NOW)
    assert [r.leaf_index for r in page.items] == [1] and page.next == "1"


def test_ids_by_prefix(index: SqliteIndex) -> None:
    one, two = row(1), row(2)
    one.id, two.id = bytes.fromhex("0193aa" + "00" * 13), bytes.fromhex("0193ab" + "00" * 13)
    index.insert(Batch(2, [one, two]))
    assert index.exchange("0193-ab").leaf_index == 2 and index.exchange("0193AA").leaf_index == 1
    with pytest.raises(AmbiguousIdError) as error:
        index.exchange("0193")
    assert ids.text(one.id) in error.value.why and ids.text(two.id) in error.value.why
    for wrong in ("0194", "", "xyz", "0193aa" + "00" * 14, "'"):
        with pytest.raises(NotFound):
            index.exchange(wrong)
    assert found(index, "", session=ids.text(ALICE)[:9]) == [2, 1]
    with pytest.raises(NotFound):
        index.exchanges(session="ffff", now_ns=NOW)
    assert found(index, "", session=ids.text(BOB)) == [], "a whole id may be of a session not indexed yet"


def test_a_session_adds_up_its_exchanges(index: SqliteIndex) -> None:
    index.insert(
        Batch(
            7,
            [
                row(1, bytes_in=10, bytes_out=100),
                row(2, bytes_in=1, access_level="Write", status=404),
                row(3, service="dynamodb", access_level="Write", outcome="upstream_cut"),
                row(4, service="dynamodb", status=403, outcome="refused"),
                row(5, session=BOB),
            ],
            [SessionChange(ALICE, True, NOW - SECOND, 0, OPEN)],
        )
    )
    got = index.session(ids.text(ALICE))
    assert (got.exchanges, got.errors, got.refused) == (4, 2, 1)
    assert (got.bytes_in, got.bytes_out) == (11, 100)
    assert got.first_ns == NOW + SECOND and got.last_ns == NOW + 4 * SECOND + 5_000_000
    assert got.services == ["dynamodb", "s3"] and got.levels == {"Read": 2, "Write": 2}
    assert (got.principal, got.agent, got.agent_version, got.command) == ("alice", "claude-code", "2", OPEN["command"])
    assert (got.cwd, got.host, got.pid, got.connections, got.groups) == ("/src", "laptop", 7, ["prod"], ["dev"])
    assert (got.state, got.opened_ns, got.closed_ns, got.expires, got.leaf_index) == ("open", NOW - SECOND, 0, 99, 0)
    assert index.session(ids.text(BOB)).state == "unknown", "its opening was not seen (yet)"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_a_session_may_become_known_in_any_order(index: SqliteIndex, order: tuple[int, ...]) -> None:
    opened = Batch(0, [], [SessionChange(ALICE, True, NOW, 0, OPEN)])
    call = Batch(1, [row(1)])
    closed = Batch(2, [], [SessionChange(ALICE, False, NOW + HOUR, 2, {"why": "killed", "exit_code": 3})])
    for at in order:
        index.insert((opened, call, closed)[at])
    got = index.session(ids.text(ALICE))
    assert (got.state, got.exit_code, got.opened_ns, got.closed_ns) == ("killed", 3, NOW, NOW + HOUR)
    assert got.principal == "alice" and got.exchanges == 1 and got.leaf_index == 0


def test_sessions_are_listed_newest_first_in_pages(index: SqliteIndex) -> None:
    keys = [key(2000 + n, NOW + n * SECOND) for n in range(5)]
    changes = [SessionChange(k, True, NOW + (n // 2) * SECOND, n, OPEN) for n, k in enumerate(keys)]
    index.insert(Batch(9, [row(1, session=ids.NIL)], changes))
    seen: list[bytes] = []
    cursor = ""
    while True:
        page = index.sessions(limit=2, cursor=cursor, now_ns=NOW)
        seen += [r.id for r in page.items]
        cursor = page.next
        if not cursor:
            break
    assert seen == keys[::-1], "and exchanges of nobody make no session"


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    SqliteIndex(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="schema 99"):
        SqliteIndex(path)


def test_it_survives_being_closed_and_opened(tmp_path: Path) -> None:
    index = SqliteIndex(tmp_path / "index.db")
    index.insert(Batch(4, [row(1, text="hello")]))
    index.close()
    index = SqliteIndex(tmp_path / "index.db")
    assert index.cursor() == 4 and found(index, "hello") == [1]
    index.close()


def test_a_query_that_takes_too_long_is_stopped(index: SqliteIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.insert(Batch(1, [row(n, target="x" * 5000, host="ab" * 500) for n in range(200)]))
    monkeypatch.setattr(module, "_BUDGET_S", -1.0)
    with pytest.raises(QueryError, match="took longer"):
        for _ in range(50):
            index.exchanges("host:*a*b*a*b*a*b*c*", now_ns=NOW)
    monkeypatch.undo()
    assert len(found(index, "")) == 50, "the connection is good again"


def test_reading_while_writing(index: SqliteIndex) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                page = index.exchanges("service:s3 hello", limit=500, now_ns=NOW)
                assert len(page.items) % 10 == 0, "a batch is seen whole or not at all"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(0, 200, 10):
        index.insert(Batch(n, [row(n + i, text="hello") for i in range(10)]))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


# Against a model: the same query as a function over rows.

Check = Callable[[ExchangeRow], bool]
SERVICES, OPERATIONS, USERS = ("s3", "dynamodb", ""), ("GetObject", "DeleteObject", "DeleteTable"), ("alice", "bob")
WORDS = ("red", "green", "blue")


def _atoms() -> st.SearchStrategy[tuple[str, Check]]:
    def field(name: str, column: str, values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, Check]]:
        return st.sampled_from([v for v in values if v]).map(
            lambda v: (f"{name}:{v}", lambda r: getattr(r, column) == v)
        )

    def status(bounds: tuple[int, int]) -> tuple[str, Check]:
        low, high = bounds
        return f"status:[{low} TO {high}]", lambda r: low <= r.status <= high

    return st.one_of(
        field("service", "service", SERVICES),
        field("operation", "operation", OPERATIONS),
        field("user", "principal", USERS),
        st.just(("operation:Del*", lambda r: r.operation.startswith("Del"))),
        st.just(("service:*", lambda r: r.service != "")),
        st.just(("operation:*t", lambda r: r.operation.endswith("t"))),
        st.sampled_from([(200, 200), (400, 599), (0, 403)]).map(status),
        st.sampled_from(WORDS).map(lambda w: (w, lambda r: w in r.text.split())),
        st.just(("blu*", lambda r: "blue" in r.text.split())),
        st.just(("after:30s", lambda r: r.started_ns >= NOW + 70 * SECOND)),
        st.just(("bytes:>50", lambda r: r.bytes_in > 50)),
        st.just(("resource:bucket-1", lambda r: r.resources[0]["arn"].endswith("bucket-1"))),
        st.just((f"session:{ids.text(BOB)}", lambda r: r.session == BOB)),
    )


def _join(word: str, test: Callable[[list[bool]], bool]) -> Callable[[list[tuple[str, Check]]], tuple[str, Check]]:
    def made(parts: list[tuple[str, Check]]) -> tuple[str, Check]:
        return word.join(f"({text})" for text, _ in parts), lambda r: test([check(r) for _, check in parts])

    return made


QUERIES: st.SearchStrategy[tuple[str, Check]] = st.recursive(
    _atoms(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(_join(" AND ", all)),
        st.lists(inner, min_size=2, max_size=3).map(_join(" OR ", any)),
        st.lists(inner, min_size=2, max_size=3).map(_join(" ", all)),
        inner.map(lambda part: (f"NOT ({part[0]})", lambda r: not part[1](r))),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[SqliteIndex, list[ExchangeRow]]:
    chance = random.Random(7)
    rows = [
        row(
            n,
            session=chance.choice((ALICE, BOB)),
            principal=chance.choice(USERS),
            service=chance.choice(SERVICES),
            operation=chance.choice(OPERATIONS),
            status=chance.choice((200, 200, 403, 404, 500)),
            text=" ".join(chance.sample(WORDS, chance.randint(0, 3))),
            bytes_in=chance.randint(0, 100),
            resources=[{"arn": f"arn:aws:s3:::bucket-{n % 3}"}],
        )
        for n in range(100)
    ]
    index = SqliteIndex(tmp_path_factory.mktemp("model") / "index.db")
    index.insert(Batch(99, rows))
    return index, rows


@settings(max_examples=100, deadline=None)
@given(QUERIES, st.sampled_from(["asc", "desc"]), st.integers(1, 120))
def test_every_plan_finds_what_reading_every_row_finds(
    model: tuple[SqliteIndex, list[ExchangeRow]], query: tuple[str, Check], order: str, limit: int
) -> None:
    index, rows = model
    text, check = query
    expected = [r.leaf_index for r in rows if check(r)]
    if order == "desc":
        expected.reverse()
    page = index.exchanges(text, limit=limit, order=order, now_ns=NOW + 100 * SECOND)
    assert [r.leaf_index for r in page.items] == expected[:limit]
    assert bool(page.next) == (len(expected) > limit)
    sessions = {r.id for r in index.sessions(text, now_ns=NOW + 100 * SECOND).items}
    assert sessions == {r.session for r in rows if check(r)}


SYNTAX = st.sampled_from(
    [
        *(f"{name}:" for name in q.FIELDS),
        *"()[]{}\"*?\\~^/+-:<>= %_'",
        "AND ",
        "OR ",
        "NOT ",
        "TO ",
        "2h",
        "404",
        "a",
        "é",
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(SYNTAX, max_size=20).map("".join)))
@example("NEAR(a b)")
@example('text:"a"')
@example("{text}:a")
@example('"a" "b* OR')
@example("²")
def test_no_text_breaks_the_sql(model: tuple[SqliteIndex, list[ExchangeRow]], query: str) -> None:
    index, _ = model
    for ask in (index.exchanges, index.sessions):
        try:
            ask(query, now_ns=NOW)
        except QueryError as error:
            assert error.why
