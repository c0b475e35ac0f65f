"""With an owner, nothing of anybody else's sessions is there: not in lists, not by id, not in an error."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.values import Principal
from narrows.record.index.sqlite import AmbiguousIdError, Batch, SessionChange, SqliteIndex

from .conftest import ALICE, BOB, NOW, row

NIL_ROW = 9


def _open(name: str, issuer: str = "https://i", kind: str = "user") -> dict[str, Any]:
    return {"principal": name, "principal_kind": kind, "issuer": issuer}


AL, BO = Principal("alice", "user", "https://i"), Principal("bob", "user", "https://i")


@pytest.fixture
def shared(index: SqliteIndex) -> SqliteIndex:
    rows = [row(1, text="common"), row(2, text="common", session=BOB, principal="bob"), row(NIL_ROW, session=ids.NIL)]
    opened = [SessionChange(ALICE, True, NOW, 0, _open("alice")), SessionChange(BOB, True, NOW, 0, _open("bob"))]
    index.insert(Batch(NIL_ROW, rows, opened))
    return index


@pytest.mark.parametrize(
    "query", ["", "common", "service:s3", "user:alice OR user:bob", "NOT user:alice", "user:*", "a OR common"]
)
def test_lists_hold_own_rows_only(shared: SqliteIndex, query: str) -> None:
    for owner, session in ((AL, ALICE), (BO, BOB)):
        for order in ("asc", "desc"):
            page = shared.exchanges(query, order=order, now_ns=NOW, owner=owner)
            assert {one.session for one in page.items} <= {session}
        after = shared.exchanges_after(-1, query, now_ns=NOW, owner=owner)
        assert {one.session for one in after.items} <= {session}
        assert {one.id for one in shared.sessions(query, now_ns=NOW, owner=owner).items} <= {session}
    assert len(shared.exchanges(now_ns=NOW).items) == 3
    assert len(shared.exchanges(now_ns=NOW, owner=AL).items) == 1


def test_others_ids_and_prefixes_are_not_there(shared: SqliteIndex) -> None:
    bobs = ids.text(row(2).id)
    for name in (bobs, bobs[:34]):
        with pytest.raises(NotFound):
            shared.exchange(name, owner=AL)
    assert shared.exchange(bobs, owner=BO).id == row(2).id
    for name in (ids.text(BOB), ids.text(BOB)[:30]):
        with pytest.raises(NotFound):
            shared.session(name, owner=AL)
    with pytest.raises(NotFound):
        shared.exchanges(session=ids.text(BOB)[:30], now_ns=NOW, owner=AL)
    assert shared.exchanges(session=ids.text(BOB), now_ns=NOW, owner=AL).items == []
    assert shared.stories(ids.text(BOB), owner=AL).items == [] and shared.stories(ids.text(BOB), owner=BO).items


def test_a_prefix_that_is_ambiguous_among_all_is_not_among_own(shared: SqliteIndex) -> None:
    both = ids.text(ALICE)[:8]
    with pytest.raises(AmbiguousIdError):
        shared.session(both)
    assert shared.session(both, owner=AL).id == ALICE


@pytest.mark.parametrize(
    "other",
    [
        Principal("alice", "user", "https://j"),
        Principal("alice", "service", "https://i"),
        Principal("ALICE", "user", "https://i"),
    ],
)
def test_an_owner_is_name_kind_and_issuer_to_the_letter(shared: SqliteIndex, other: Principal) -> None:
    assert (
        shared.exchanges(now_ns=NOW, owner=other).items == [] and shared.sessions(now_ns=NOW, owner=other).items == []
    )
