"""The indexer: sealed records described, and written into the index. One at a time, in the control process.

It keeps its place in the index itself, in the transaction that writes the rows: whatever is interrupted is done
again, and nothing is left out. An exchange that cannot be described is indexed all the same, with what its facts say
and the reason in `problems`; a leaf or record that cannot be read at all leaves a row of kind `damaged`.

`gap` and `erasure` records are rows of that kind, of no session; openings and closings fill the sessions; other
records (`admin`, `writer_open`, `writer_close`) are passed over: the log has them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from narrows.core import ids
from narrows.core.errors import NarrowsError, ProofError
from narrows.core.ports import Describe
from narrows.core.values import Described, Item, StoredExchange
from narrows.record import sealed
from narrows.record.index.rows import ExchangeRow
from narrows.record.index.sqlite import BATCH, Batch, SessionChange, SqliteIndex
from narrows.record.index.store import pack
from narrows.record.log.leaf import Sealed

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024
"""Bytes of each direction that are decoded for the index."""
BATCH_BYTES = 16 * 1024 * 1024
"""Recorded bytes of one batch, about: what is decoded at once stays in memory until it is written."""

_SHOWN = frozenset(
    {
        "kind",
        "connection",
        "principal",
        "agent",
        "agent_version",
        "service",
        "operation",
        "action",
        "access_level",
        "protocol",
        "region",
        "decision",
        "reason",
        "durability",
        "host",
        "method",
        "target",
        "outcome",
        "status",
        "error",
        "code",
        "first_byte_ns",
        "last_byte_ns",
        "gateway_ns",
        "bytes_in",
        "bytes_out",
    }
)
"""Facts that have a column of their own."""


class Indexer:
    """Brings an index up to date with the log. Not thread-safe; `step` blocks, so call it off the event loop."""

    def __init__(
        self,
        data: Path,
        index: SqliteIndex,
        describe: Describe,
        *,
        iter_stored: Callable[
            [Path, int, int | None], Generator[tuple[Sealed, StoredExchange | None], None, None]
        ] = sealed.iter_stored,
        sealed_size: Callable[[Path], int] = sealed.sealed_size,
    ) -> None:
        self._data = data
        self._index = index
        self._describe = describe
        self._iter_stored = iter_stored
        self._sealed_size = sealed_size

    def step(self) -> int:
        """Index the next batch; returns how many leaves it went on by, 0 when up to date.

        Raises ProofError where the log's own state cannot be read, OSError where files cannot; the next call then
        tries again from the same place.
        """
        begin = self._index.cursor()
        size = self._sealed_size(self._data)
        if begin + 1 >= size:
            return 0
        batch = Batch(begin)
        took = 0
        try:
            with closing(self._iter_stored(self._data, begin, MAX_BODY)) as records:
                for record, stored in records:
                    self._add(batch, record, stored)
                    batch.cursor = record.leaf_index
                    took += record.request_length + record.response_length
                    if len(batch.exchanges) + len(batch.sessions) >= BATCH or took >= BATCH_BYTES:
                        break
                    if record.leaf_index >= begin + 4 * BATCH:
                        break
                else:
                    # What is left of the log up to the size read before are leaves that are no records.
                    batch.cursor = max(batch.cursor, size - 1)
        except ProofError as error:
            if batch.cursor == begin:
                self._add_damaged(batch, error)
            # Otherwise the records before it are written first, and the next step begins at the damaged one.
        self._index.insert(batch)
        return batch.cursor - begin

    def catch_up(self) -> int:
        """Step until up to date; returns how many leaves that were."""
        done = 0
        while took := self.step():
            done += took
        return done

    def _add(self, batch: Batch, record: Sealed, stored: StoredExchange | None) -> None:
        add_record(batch, record, stored, self._describe)

    def _add_damaged(self, batch: Batch, error: ProofError) -> None:
        """A row that says what is missing, so that a damaged record is not a silent hole; then go on behind it."""
        batch.cursor += 1
        log.error("Leaf %d or the next could not be indexed: %s", batch.cursor, error)
        batch.exchanges.append(
            ExchangeRow(
                _own_id(batch.cursor),
                ids.NIL,
                batch.cursor,
                "damaged",
                problems=[f"leaf {batch.cursor} or the next could not be read: {error}"],
            )
        )



def add_record(batch: Batch, record: Sealed, stored: StoredExchange | None, describe: Describe) -> None:
    """Add to a batch what the index holds of one sealed record. The one way from the recording to the index."""
    if record.type == "exchange":
        batch.exchanges.append(_exchange(record, stored, describe))
    elif record.type in ("session_open", "session_close"):
        opened = record.type == "session_open"
        batch.sessions.append(
            SessionChange(record.session, opened, record.opened_ns, record.leaf_index, dict(record.request_facts))
        )
    elif record.type in ("gap", "erasure"):
        batch.exchanges.append(_notice(record))


def _exchange(record: Sealed, stored: StoredExchange | None, describe: Describe) -> ExchangeRow:
    row = _from_facts(record)
    if stored is None:
        gone = "its bytes are gone: erased, or deleted by retention"
        row.problems.append(gone if record.erased else "the log does not say where its bytes are")
        return row
    stored.kind = row.kind
    stored.leaf_index = record.leaf_index
    stored.started_ns, stored.ended_ns = record.opened_ns, record.closed_ns
    try:
        _describe_into(row, describe(stored))
    except NarrowsError as error:
        row.problems.append(f"it could not be described: {error}")
    except Exception as error:  # hostile bytes may find a bug: the exchange must be found all the same
        log.exception("Exchange %s could not be described", ids.text(row.id))
        row.problems.append(f"it could not be described: {type(error).__name__}")
    return row


def _own_id(leaf_index: int) -> bytes:
    """An id for a row that is of no exchange: version 0, so that it can be no UUIDv7."""
    return leaf_index.to_bytes(16, "big")


def _str(facts: dict[str, object], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _int(facts: dict[str, object], name: str, default: int = 0) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _from_facts(record: Sealed) -> ExchangeRow:
    """What is known of an exchange without decoding a byte of it."""
    asked, told = record.request_facts, record.response_facts
    rest: dict[str, Any] = {name: value for name, value in {**asked, **told}.items() if name not in _SHOWN}
    if record.sent_facts:
        rest["sent"] = record.sent_facts
    return ExchangeRow(
        record.exchange,
        record.session,
        record.leaf_index,
        kind=_str(asked, "kind") or record.kind,
        connection=_str(asked, "connection"),
        principal=_str(asked, "principal"),
        agent=_str(asked, "agent"),
        agent_version=_str(asked, "agent_version"),
        service=_str(asked, "service"),
        operation=_str(asked, "operation"),
        action=_str(asked, "action"),
        access_level=_str(asked, "access_level"),
        protocol=_str(asked, "protocol"),
        region=_str(asked, "region"),
        status=_int(told, "status"),
        error_code=_str(told, "code"),
        error_message=_str(told, "error"),
        outcome=_str(told, "outcome") or record.outcome,
        decision=_str(asked, "decision"),
        reason=_str(asked, "reason"),
        durability=_str(asked, "durability"),
        started_ns=record.opened_ns,
        ended_ns=record.closed_ns,
        first_byte_ns=_int(told, "first_byte_ns"),
        last_byte_ns=_int(told, "last_byte_ns"),
        gateway_ns=_int(told, "gateway_ns"),
        bytes_in=_int(told, "bytes_in", record.request_length),
        bytes_out=_int(told, "bytes_out", record.response_length),
        host=_str(asked, "host"),
        method=_str(asked, "method"),
        target=_str(asked, "target"),
        facts=rest,
        location=str(record.place),
        refs=_refs(asked),
    )


def _refs(facts: dict[str, object]) -> list[tuple[str, str]]:
    """The identifiers that the path itself put on record: the lease that was shown."""
    lease = _str(facts, "lease")
    return [("lease", lease)] if lease else []


def _describe_into(row: ExchangeRow, known: Described) -> None:
    """Add what the bytes mean. Where the description is silent, the facts stand."""
    for name in ("service", "operation", "action", "access_level", "protocol", "region", "account", "request_id"):
        value = getattr(known, name)
        if value:
            setattr(row, name, value)
    row.invocation_id = known.invocation_id
    row.attempt = known.attempt
    row.status = known.status or row.status
    row.error_code = known.error_code or row.error_code
    row.error_message = known.error_message or row.error_message
    row.resources = [{"arn": resource.arn, "exact": resource.exact} for resource in known.resources]
    row.parameters = known.parameters
    row.events = known.events
    row.text = known.text
    row.problems += known.problems
    row.agent = row.agent or known.agent
    if row.agent == known.agent:
        row.agent_version = row.agent_version or known.agent_version
    row.model = known.model
    if known.refs:
        row.refs = list(dict.fromkeys([*row.refs, *((str(kind), str(value)) for kind, value in known.refs)]))
    if known.items:
        row.items = [_item(item) for item in known.items]
    if known.findings:
        row.findings = [asdict(finding) for finding in known.findings]
    if known.llm:
        _add_llm(row, known.llm)


def _item(item: Item) -> dict[str, Any]:
    """An item as JSON's types, without what is empty."""
    found: dict[str, Any] = {"type": item.type, "said_by": item.said_by}
    for name in ("text", "id", "name"):
        if value := getattr(item, name):
            found[name] = value
    if item.data is not None:
        found["data"] = item.data
    if item.error:
        found["error"] = True
    return found


def _add_llm(row: ExchangeRow, llm: dict[str, Any]) -> None:
    row.llm = llm
    usage = llm.get("usage")
    if isinstance(usage, dict):
        row.tokens_in, row.tokens_out = _count(usage.get("input")), _count(usage.get("output"))
    cost = llm.get("cost_usd")
    row.cost_usd = float(cost) if isinstance(cost, (int, float)) and 0 <= cost < 1e12 else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else None


def _notice(record: Sealed) -> ExchangeRow:
    """A row for a record of no exchange: what it says is in its facts and in the full text."""
    facts = dict(record.request_facts)
    about = {"session": ids.text(record.session), "exchange": ids.text(record.exchange), "writer": record.writer}
    return ExchangeRow(
        _own_id(record.leaf_index),
        ids.NIL,
        record.leaf_index,
        record.type,
        reason=_str(facts, "why"),
        started_ns=record.opened_ns,
        ended_ns=record.closed_ns,
        facts={**about, **facts},
        text=pack(facts),
        location=str(record.place),
    )
