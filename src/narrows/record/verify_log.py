"""Verifying the log's files: checkpoint, entry bundles, tiles, and what each leaf says. Reads in bounded memory,
except for about 300 bytes that are kept for each leaf until its frames were seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import NIL, text
from narrows.record.log.frame import Kind
from narrows.record.log.leaf import canonical, facts_digest
from narrows.record.log.merkle import leaf_hash
from narrows.record.log.note import Checkpoint, Verifier, open_checkpoint, parse_checkpoint, parse_note
from narrows.record.log.tiles import WIDTH, TileTree, entries_path, tile_path, tiles_of
from narrows.record.partfile import SESSIONS
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import CHECKPOINT, LOG, read_entries, read_places, read_tile
from narrows.record.verify_report import Report, Tell

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class LeafRow:
    """What is kept of a leaf: enough to compare it with its frames, and to name it."""

    index: int
    hash: bytes
    session: str
    last_seq: int
    type: str


@dataclass(slots=True)
class Leaves:
    """Leaves by (writer, first sequence number), and what they say of chains and sessions."""

    rows: dict[Key, LeafRow] = field(default_factory=dict)
    heads: dict[str, list[tuple[int, bytes, int]]] = field(default_factory=dict)
    """Per writer: (sequence number, running hash, leaf index), in the log's order."""
    erased: dict[str, int] = field(default_factory=dict)
    """Session: index of its erasure leaf."""
    opened: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    ended_writers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Per writer with a WRITER_CLOSE: its sequence number and the leaf's index."""
    broken_writers: set[str] = field(default_factory=set)
    """Writers whose chain the sealer could not follow."""
    sessions: set[str] = field(default_factory=set)
    own_gaps: list[tuple[int, str]] = field(default_factory=list)
    """The sealer's own gap leaves: index, and the digest of the facts that `log/places` has for them."""

    def head(self, writer: str) -> int:
        """The last sequence number of a writer that the log commits to; -1 for none."""
        heads = self.heads.get(writer)
        return heads[-1][0] if heads else -1


def read_checkpoint(store: FileStore, keys: list[Verifier], witnesses: list[Verifier], report: Report) -> Checkpoint:
    """The log's checkpoint, with findings where it does not verify (then what it claims is still looked at)."""
    empty = Checkpoint(keys[0].name, 0, TileTree().root())
    try:
        note = store.read(CHECKPOINT).decode("utf-8")
        checkpoint = parse_checkpoint(parse_note(note).text)
    except NotFound:
        if store.list(f"{LOG}/tile") or store.list(SESSIONS):
            report.found("no_checkpoint", "There is no checkpoint", file=CHECKPOINT)
        else:
            report.note("nothing", "Nothing was sealed yet", file=CHECKPOINT)
        return empty
    except (ProofError, UnicodeDecodeError) as bad:
        report.found("checkpoint", f"The checkpoint cannot be read: {bad}", file=CHECKPOINT)
        return empty
    try:
        open_checkpoint(note, keys)
        for witness in witnesses:
            parse_note(note).verify([witness])
    except ProofError as bad:
        report.found("checkpoint", f"The checkpoint does not verify: {bad}", file=CHECKPOINT)
    return checkpoint


def check_log(store: FileStore, checkpoint: Checkpoint, since: Checkpoint | None, report: Report, tell: Tell) -> Leaves:
    """Recompute the tree from the entries, compare tiles and root, and read every leaf."""
    leaves = Leaves()
    tree = TileTree()
    if since is not None:
        _check_since(tree, since, checkpoint, report)
    for index, entry in _entries(store, checkpoint.size, report, tell):
        tree.append(leaf_hash(entry))
        read_leaf(leaves, index, entry, report)
        if since is not None and since.size == tree.size:
            _check_since(tree, since, checkpoint, report)
        if tree.size % WIDTH == 0:
            _check_tiles(store, tree, report)
    _check_tiles(store, tree, report)
    _check_strays(store, checkpoint.size, report)
    if tree.size == checkpoint.size and tree.root() != checkpoint.root:
        report.found("root", f"The {tree.size} leaves do not lead to the checkpoint's root", file=CHECKPOINT)
    report.leaves = tree.size
    _check_pairs(leaves, report)
    return leaves


def _entries(store: FileStore, size: int, report: Report, tell: Tell) -> Iterator[tuple[int, bytes]]:
    for bundle in range((size + WIDTH - 1) // WIDTH):
        width = min(WIDTH, size - bundle * WIDTH)
        tell("log", bundle * WIDTH, size)
        try:
            entries = read_entries(store, bundle, width)
        except (NotFound, ProofError) as bad:
            name = f"{LOG}/{entries_path(bundle, width)}"
            report.found("entries", f"Leaves from {bundle * WIDTH} on cannot be read: {bad}", file=name)
            return
        for row, entry in enumerate(entries):
            yield bundle * WIDTH + row, entry


def _check_tiles(store: FileStore, tree: TileTree, report: Report) -> None:
    for (level, index, width), expected in tree.changed().items():
        name = f"{LOG}/{tile_path(level, index, width)}"
        try:
            data = read_tile(store, level, index, width)
        except (NotFound, ProofError) as bad:
            report.found("tile", f"A tile cannot be read: {bad}", file=name)
            continue
        if data == expected:
            continue
        row = next(i for i in range(width) if data[32 * i : 32 * i + 32] != expected[32 * i : 32 * i + 32])
        leaf = index * WIDTH + row if level == 0 else -1
        what = "A leaf and its hash in the tile differ" if level == 0 else "A tile is not made of its leaves"
        report.found("tile", what, file=name, offset=32 * row, leaf=leaf)


def _check_strays(store: FileStore, size: int, report: Report) -> None:
    """Narrower partials than the checkpoint's, where they are still there, must be beginnings of the wider ones."""
    for level, index, width in tiles_of(size):
        full = f"{LOG}/{tile_path(level, index)}"
        for name in store.list(f"{full}.p"):
            if not name.isdigit() or int(name) >= width:
                continue
            try:
                whole = read_tile(store, level, index, width)
            except (NotFound, ProofError):
                continue  # told already
            if store.read(f"{full}.p/{name}") != whole[: 32 * int(name)]:
                report.found("tile", "An older partial tile differs from the wider one", file=f"{full}.p/{name}")


def _check_since(tree: TileTree, since: Checkpoint, now: Checkpoint, report: Report) -> None:
    if since.origin != now.origin:
        report.found("since", f"The older checkpoint is of another log: {since.origin}")
    elif since.size > now.size:
        what = f"The log was rolled back: it had {since.size} leaves, it has {now.size}"
        report.found("rollback", what, file=CHECKPOINT)
    elif since.size == tree.size and since.root != tree.root():
        report.found("rewritten", f"History was rewritten: the first {since.size} leaves are not what they were")


def read_leaf(leaves: Leaves, index: int, entry: bytes, report: Report) -> None:
    """Take one leaf in."""
    try:
        leaf: dict[str, Any] = json.loads(entry)
        if canonical(leaf) != entry or leaf["v"] != 1:
            raise ValueError("not in its canonical form")
        if leaf["type"] == "heads":
            for writer, (seq, running) in leaf["writers"].items():
                leaves.heads.setdefault(writer, []).append((seq, bytes.fromhex(running), index))
            return
        session, type_ = leaf["session"], leaf["type"]
        row = LeafRow(index, leaf_hash(entry), session, leaf["last_seq"], type_)
        key = (leaf["writer"], leaf["first_seq"])
        frames, facts_sha256 = leaf["frames"], leaf["facts_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        report.found("leaf", f"A leaf cannot be read: {bad}", leaf=index)
        return
    leaves.sessions.add(session)
    if not frames:
        what = f"The chain of writer {key[0]} could not be followed from frame {key[1]} when it was sealed"
        report.found("broken_chain", what, leaf=index)
        leaves.own_gaps.append((index, facts_sha256))
        leaves.broken_writers.add(key[0])
        return
    if key in leaves.rows:
        report.found("duplicate", "Two leaves are of one record", session=session, leaf=index)
    leaves.rows[key] = row
    if type_ == "erasure":
        leaves.erased[session] = index
    elif type_ == "gap":
        report.note("gap", "A gap is on the record", session=session, leaf=index)
    elif type_ == "writer_close":
        leaves.ended_writers[key[0]] = (key[1], index)
    elif type_ in ("session_open", "session_close"):
        seen = leaves.opened if type_ == "session_open" else leaves.closed
        if session in seen:
            report.found("session_twice", f"A session has two {type_} leaves", session=session, leaf=index)
        seen[session] = index
    elif type_ == "exchange":
        report.exchanges += 1


def _check_pairs(leaves: Leaves, report: Report) -> None:
    for session, index in leaves.closed.items():
        if session not in leaves.opened:
            report.found("no_open", "A session was closed that was never opened", session=session, leaf=index)
    for session in sorted(leaves.sessions - set(leaves.opened) - set(leaves.closed) - {text(NIL)}):
        report.note("no_open", "A session has records but no opening yet", session=session)


class PlacesCheck:
    """Compares what `log/places` says with where the frames were found."""

    def __init__(self, store: FileStore, size: int, report: Report) -> None:
        self._store = store
        self._size = size
        self._report = report
        self._cache: dict[int, list[bytes] | None] = {}

    def check_others(self, leaves: Leaves) -> None:
        """The lines of leaves that are of no frames."""
        for heads in leaves.heads.values():
            for _, _, index in heads:
                self.check(index, "")
        for index, digest in leaves.own_gaps:
            line = self._line(index)
            if line is not None and facts_digest(Kind.GAP, line) != digest:
                self._report.found("places", "The facts of a gap are not those of its leaf", leaf=index)

    def check(self, index: int, spans: str) -> None:
        """The line of leaf `index` must be `spans`."""
        line = self._line(index)
        if line is not None and line != spans.encode():
            self._report.found("places", "The log's list of places names another place", leaf=index)

    def _line(self, index: int) -> bytes | None:
        bundle, row = divmod(index, WIDTH)
        if bundle not in self._cache:
            if len(self._cache) >= 64:
                self._cache.pop(next(iter(self._cache)))
            width = min(WIDTH, self._size - bundle * WIDTH)
            try:
                self._cache[bundle] = read_places(self._store, bundle, width)
            except (NotFound, ProofError) as bad:
                self._report.found("places", f"Places cannot be read: {bad}", leaf=bundle * WIDTH)
                self._cache[bundle] = None
        lines = self._cache[bundle]
        return None if lines is None else lines[row]
