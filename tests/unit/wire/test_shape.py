"""Shapes: shared by heads with the same names, bounded, and never holding a value."""

from __future__ import annotations

import pytest

from narrows.wire import shape


def test_heads_with_the_same_names_share_one_shape() -> None:
    first = shape.of([(b"host", b"a"), (b"x-amz-date", b"1")])
    second = shape.of([(b"host", b"b"), (b"x-amz-date", b"2")])
    assert first is second
    assert first.index == {b"host": 0, b"x-amz-date": 1}
    assert first.distinct


def test_order_and_repetition_make_another_shape() -> None:
    straight = shape.of([(b"a", b""), (b"b", b"")])
    assert shape.of([(b"b", b""), (b"a", b"")]) is not straight
    doubled = shape.of([(b"a", b"1"), (b"b", b""), (b"a", b"2")])
    assert not doubled.distinct
    assert doubled.index[b"a"] == 0


def test_made_up_names_do_not_fill_memory() -> None:
    for i in range(5000):
        shape.of([(b"x-%d" % i, b"v")])
    assert len(shape._shapes) <= 1024
    one = shape.of([(b"host", b"a")])
    for i in range(500):
        one.remember(("signed", (b"%d" % i,)), i)
    assert len(one.plans) <= 64


def test_plans_of_all_shapes_together_are_bounded() -> None:
    for i in range(200):
        one = shape.of([(b"x-%d" % i, b"v")])
        for j in range(60):
            one.remember(("signed", (b"%d" % j,)), j)
    assert sum(len(one.plans) for one in shape._shapes.values()) <= 4096


@pytest.mark.parametrize("names", [[b"x-%d" % i for i in range(65)], [b"x" * 65]])
def test_heads_that_no_program_sends_are_not_kept(names: list[bytes]) -> None:
    made = shape.of([(name, b"v") for name in names])
    assert made.names == tuple(names)
    assert made.names not in shape._shapes


def test_no_value_stays_in_a_shape() -> None:
    made = shape.of([(b"authorization", b"secret-value"), (b"host", b"h")])
    assert b"secret-value" not in repr((made.names, made.index, made.plans)).encode()
