"""The shape of a head: its field names in order, shared by all heads that look alike.

One client sends the same fields in the same order with every call of a kind. What follows from the names alone
(where a field stands, which are signed, which go on) is therefore worked out once per shape and found again by it.
Values never become part of a shape. The number of shapes, and of what is kept with one, is bounded: a client that
makes up names only makes its own requests slower.
"""

from __future__ import annotations

from typing import Any, Final

Headers = list[tuple[bytes, bytes]]

_MAX_SHAPES: Final = 1024
_MAX_PLANS: Final = 64
_MAX_PLANS_OF_ALL: Final = 4096
_MAX_NAMES: Final = 64
_MAX_NAME: Final = 64
"""Heads with more names, or a longer one, are not kept: clients make them up, programs do not."""


class Shape:
    """`names` in order; `index` of each name's first place; `distinct` when no name comes twice.

    `plans` is for what others derive from the names, each under a key of its own; `remember` bounds it.
    """

    __slots__ = ("distinct", "index", "names", "plans")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        index: dict[bytes, int] = {}
        for i, name in enumerate(names):
            index.setdefault(name, i)
        self.index = index
        self.distinct = len(index) == len(names)
        self.plans: dict[Any, Any] = {}

    def remember(self, key: Any, plan: Any) -> None:
        """Keep what was worked out for `key`."""
        global _plans
        if len(self.plans) >= _MAX_PLANS:
            self.plans.clear()
        if _plans >= _MAX_PLANS_OF_ALL:
            for shape in _shapes.values():
                shape.plans.clear()
            _shapes.clear()
            _plans = 0
        _plans += 1
        self.plans[key] = plan


_shapes: dict[tuple[bytes, ...], Shape] = {}
_plans = 0


def of(headers: Headers) -> Shape:
    """The shape of a list of (lower-case name, value)."""
    names = tuple([header[0] for header in headers])
    shape = _shapes.get(names)
    if shape is None:
        shape = Shape(names)
        if len(names) > _MAX_NAMES or len(max(names, key=len, default=b"")) > _MAX_NAME:
            return shape
        if len(_shapes) >= _MAX_SHAPES:
            _shapes.clear()
        _shapes[names] = shape
    return shape
