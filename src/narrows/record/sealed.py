"""Sealed records from disk: how an index catches up, or is rebuilt from the objects and the log alone.

`iter_stored` reads each record's frames once, for its facts and its bytes alike.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import orjson

from narrows.core.errors import NotFound, ProofError
from narrows.core.values import StoredExchange
from narrows.record.bulk import BulkReader
from narrows.record.log.leaf import Sealed, facts, parse_spans
from narrows.record.log.note import parse_checkpoint, parse_note
from narrows.record.log.tiles import WIDTH
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
    for sealed, _ in iter_stored(data, after_leaf, 0):
        yield sealed


def iter_stored(
    data: Path, after_leaf: int, max_body: int | None
) -> Generator[tuple[Sealed, StoredExchange | None], None, None]:
    """`iter_sealed`, each record with what was stored of it: at most `max_body` bytes of each direction.

    None where the frames are gone, or where the record has none. Raises ProofError for a damaged log or part.
    """
    store = FileStore(data)
    size = sealed_size(data)
    index = after_leaf + 1
    with BulkReader(data) as reader:
        while index < size:
            bundle = index // WIDTH
            width = min(WIDTH, size - bundle * WIDTH)
            entries, places = read_entries(store, bundle, width), read_places(store, bundle, width)
            for row in range(index - bundle * WIDTH, width):
                sealed = _of_leaf(bundle * WIDTH + row, entries[row], places[row])
                if sealed is not None:
                    yield sealed, _read(reader, sealed, max_body)
            index = (bundle + 1) * WIDTH


def _of_leaf(index: int, entry: bytes, place: bytes) -> Sealed | None:
    try:
        leaf = _parsed(entry)
        if leaf["type"] == "heads":
            return None
        own = place.startswith(b"{")
        spans = () if own else parse_spans(place.decode("ascii"))
        return Sealed.of_leaf(leaf, index, spans, facts(place) if own else {})
    except (ValueError, KeyError, TypeError) as bad:
        raise ProofError("A leaf cannot be read", f"leaf {index}") from bad


def _parsed(entry: bytes) -> Any:
    try:
        return orjson.loads(entry)
    except orjson.JSONDecodeError:
        return json.loads(entry)  # canonical JSON may hold what orjson refuses: half a surrogate pair, a great number


def _read(reader: BulkReader, sealed: Sealed, max_body: int | None) -> StoredExchange | None:
    if not sealed.place.spans:
        return None
    try:
        read = reader.read(sealed.place, max_body)
    except NotFound:
        sealed.erased = True
        return None
    stored = read.stored()
    sealed.request_facts, sealed.response_facts = stored.request_facts, stored.response_facts
    sealed.sent_facts = read.sent_facts
    return stored
