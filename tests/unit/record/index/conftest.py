"""A small index with known content, and a maker of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narrows.core import ids
from narrows.record.index.rows import ExchangeRow
from narrows.record.index.sqlite import SqliteIndex

NOW = 1_795_600_000_000_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def key(number: int, wall_ns: int = NOW) -> bytes:
    """A UUIDv7 that is the same every time."""
    return ids.uuid7(wall_ns, number.to_bytes(10, "big"))


ALICE, BOB = key(1001), key(1002, NOW + SECOND)


def row(number: int, started_ns: int | None = None, **more: Any) -> ExchangeRow:
    """Exchange `number`, started that many seconds after NOW unless said otherwise."""
    started = NOW + number * SECOND if started_ns is None else started_ns
    known: dict[str, Any] = {
        "session": ALICE,
        "leaf_index": number,
        "kind": "aws.call",
        "principal": "alice",
        "agent": "claude-code",
        "service": "s3",
        "operation": "GetObject",
        "action": "s3:GetObject",
        "access_level": "Read",
        "status": 200,
        "outcome": "complete",
        "decision": "allow",
        "started_ns": started,
        "ended_ns": started + 5_000_000,
        "location": f"place {number}",
    }
    return ExchangeRow(key(number, started), **(known | more))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteIndex]:
    made = SqliteIndex(tmp_path / "index.db")
    yield made
    made.close()
