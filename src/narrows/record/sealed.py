"""Sealed records from disk: how an index catches up, or is rebuilt from the objects and the log alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from narrows.core.errors import NotFound, ProofError
from narrows.record.log.frame import Kind
from narrows.record.log.leaf import Sealed, facts, parse_spans
from narrows.record.log.note import parse_checkpoint, parse_note
from narrows.record.log.tiles import WIDTH
from narrows.record.reader import iter_record
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import CHECKPOINT, STATE, read_entries, read_places


def sealed_size(data: Path) -> int:
    """How many leaves are committed; 0 where there is no log. Raises ProofError."""
    store = FileStore(data)
    try:
        return int(json.loads(store.read(STATE))["size"])
    except NotFound:
        pass  # a copy of the log without the sealer's own file: what was published counts
    except (ValueError, KeyError, TypeError) as bad:
        raise ProofError("The sealer's state cannot be read", "log/sealer.json is damaged") from bad
    try:
        return parse_checkpoint(parse_note(store.read(CHECKPOINT).decode("utf-8", "replace")).text).size
    except NotFound:
        return 0


def iter_sealed(data: Path, after_leaf: int = -1) -> Iterator[Sealed]:
    """Every sealed record with a leaf index above `after_leaf`, in order; heads leaves are passed over.

    Facts are read from the frames; where those are gone (erased or deleted) `erased` is True and the facts are
    empty. Raises ProofError for a damaged log or part.
    """
    store = FileStore(data)
    size = sealed_size(data)
    index = after_leaf + 1
    while index < size:
        bundle = index // WIDTH
        width = min(WIDTH, size - bundle * WIDTH)
        entries, places = read_entries(store, bundle, width), read_places(store, bundle, width)
        for row in range(index - bundle * WIDTH, width):
            sealed = _sealed(data, bundle * WIDTH + row, entries[row], places[row])
            if sealed is not None:
                yield sealed
        index = (bundle + 1) * WIDTH


def _sealed(data: Path, index: int, entry: bytes, place: bytes) -> Sealed | None:
    try:
        leaf: dict[str, Any] = json.loads(entry)
        if leaf["type"] == "heads":
            return None
        own = place.startswith(b"{")
        spans = () if own else parse_spans(place.decode("ascii"))
        sealed = Sealed.of_leaf(leaf, index, spans, facts(place) if own else {})
    except (ValueError, KeyError, TypeError) as bad:
        raise ProofError("A leaf cannot be read", f"leaf {index}") from bad
    try:
        for frame in iter_record(data, sealed.place):
            told = facts(frame.meta)
            if frame.kind == Kind.RESPONSE:
                sealed.response_facts.update(told)
            elif frame.kind == Kind.SENT:
                sealed.sent_facts.update(told)
            elif told and not sealed.request_facts:
                sealed.request_facts = told
    except NotFound:
        sealed.erased = True
        sealed.request_facts, sealed.response_facts, sealed.sent_facts = {}, {}, {}
    return sealed
