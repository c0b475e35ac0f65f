"""The SQLite index with a million exchanges in it: how long it takes to fill, and to answer.

Rows are made here and go in through the index's own `insert`, in batches as the indexer writes them; queries go
through the same call that the API makes. The figure is the 95th percentile over all queries.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from narrows.core import ids
from narrows.record.index.rows import ExchangeRow
from narrows.record.index.sqlite import BATCH, Batch, SqliteIndex

ROWS = 1_000_000
SESSIONS = 2_000
NOW_NS = 1_795_600_000_000_000_000
SPAN_NS = 30 * 86400 * 1_000_000_000
"""The rows lie in the thirty days before NOW_NS."""
TIMES = 20
"""How often each query is asked."""

CALLS = (
    ("s3", "GetObject", "Read"),
    ("s3", "PutObject", "Write"),
    ("s3", "DeleteObject", "Write"),
    ("dynamodb", "GetItem", "Read"),
    ("dynamodb", "PutItem", "Write"),
    ("ec2", "DescribeInstances", "List"),
    ("lambda", "Invoke", "Write"),
    ("iam", "CreateRole", "Permissions management"),
)
WORDS = ("customer", "export", "invoice", "report", "backup", "archive", "model", "training", "order", "payment")

QUERIES = (
    "",
    "service:s3 AND operation:Delete*",
    'service:s3 AND operation:Delete* AND after:2h "customer-exports"',
    "user:user-17 AND after:24h",
    "level:Write AND service:dynamodb AND after:7d",
    "status:403",
    "error:AccessDenied AND service:iam",
    "customer invoice",
    '"payment-7123"',
    "operation:CreateRole AND user:user-3",
)


def measure(here: Path, rows: int = ROWS) -> dict[str, Any]:
    """Fill an index under `here` and ask it; times in the JSON object that is returned."""
    path = here / "index-bench.db"
    index = SqliteIndex(path)
    try:
        began = time.perf_counter()
        for batch in _batches(rows):
            index.insert(batch)
            if batch.cursor % 100_000 >= 100_000 - BATCH:
                print(f"  index: {batch.cursor + 1} exchanges", file=sys.stderr, flush=True)
        filled = time.perf_counter() - began
        took: dict[str, list[float]] = {query: [] for query in QUERIES}
        for _ in range(TIMES):
            for query, times in took.items():
                began = time.perf_counter()
                index.exchanges(query, limit=50, now_ns=NOW_NS)
                times.append((time.perf_counter() - began) * 1000)
    finally:
        index.close()
    every = sorted(value for times in took.values() for value in times)
    return {
        "rows": rows,
        "fill_s": round(filled, 1),
        "rows_per_s": round(rows / filled),
        "size_mb": round(path.stat().st_size / 2**20, 1),
        "p95_ms": round(every[int(len(every) * 0.95)], 2),
        "queries_p50_ms": {query: round(statistics.median(times), 2) for query, times in took.items()},
    }


def _batches(rows: int) -> Iterator[Batch]:
    chance = random.Random(4711)
    sessions = [ids.uuid7(NOW_NS - SPAN_NS, chance.randbytes(10)) for _ in range(SESSIONS)]
    for first in range(0, rows, BATCH):
        last = min(first + BATCH, rows)
        batch = Batch(last - 1)
        batch.exchanges.extend(_row(number, rows, sessions, chance) for number in range(first, last))
        yield batch


def _row(number: int, rows: int, sessions: list[bytes], chance: random.Random) -> ExchangeRow:
    started = NOW_NS - SPAN_NS + SPAN_NS * number // rows
    service, operation, level = chance.choice(CALLS)
    name = f"{chance.choice(WORDS)}-{chance.choice(WORDS)}s/{chance.choice(WORDS)}-{chance.randrange(10_000)}"
    denied = chance.random() < 0.01
    who = chance.randrange(len(sessions))
    return ExchangeRow(
        ids.uuid7(started, chance.randbytes(10)),
        sessions[who],
        leaf_index=number,
        kind="aws.call",
        connection="prod",
        principal=f"user-{who % 200}",
        agent="claude-code",
        service=service,
        operation=operation,
        action=f"{service}:{operation}",
        access_level=level,
        resources=[{"arn": f"arn:aws:{service}:::{name}", "exact": False}],
        region="eu-west-1",
        status=403 if denied else 200,
        error_code="AccessDenied" if denied else "",
        outcome="complete",
        decision="allow",
        started_ns=started,
        ended_ns=started + 5_000_000,
        method="POST",
        parameters={"Name": name},
        location=f"{number}",
        text=f"{name} " + " ".join(chance.choices(WORDS, k=12)),
    )
