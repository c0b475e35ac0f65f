"""Places for connections that read far ahead: as many as the budget has."""

from __future__ import annotations

from narrows.wire.ahead import BUDGET, FEW, MANY, ReadAhead


def test_places_are_given_and_taken_back() -> None:
    ahead = ReadAhead(3 * MANY)
    assert [ahead.take() for _ in range(4)] == [True, True, True, False]
    ahead.give_back()
    assert ahead.take() and not ahead.take()
    assert ahead.taken == 3


def test_the_budget_is_what_the_pages_say() -> None:
    assert (FEW, MANY, BUDGET) == (65536, 524288, 268435456)
