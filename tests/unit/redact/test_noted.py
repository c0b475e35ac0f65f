"""Findings that the path noted, read back from an exchange's facts."""

from __future__ import annotations

from narrows.core.values import Finding
from narrows.redact.findings import noted


def test_what_was_noted_comes_back() -> None:
    one = {"kind": "aws-access-key", "where": "payload", "offset": 3, "length": 20, "count": 2}
    assert noted({"findings": [one]}) == [Finding("aws-access-key", "payload", 3, 20, 2)]


def test_anything_else_is_passed_over() -> None:
    bad = [{"kind": 1, "where": "x"}, "x", None, {"kind": "k", "where": "w", "offset": True, "length": 1, "count": 1}]
    assert noted({"findings": bad}) == [] and noted({"findings": "x"}) == [] and noted({}) == []
