"""`narrows verify`: does the record prove itself? Needs the public key and the data directory, no server.

`verify_all` recomputes the whole tree from the entry bundles and compares it with the tiles and the signed
checkpoint; rebuilds every leaf from the frames in the parts and compares it with the log; links every writer's frames
again across all sessions and compares the running hashes with the log's heads leaves; and follows the unsealed
segments on from there. Every chain must reach the frame that a GAP record, its WRITER_CLOSE or recovery's mark names
as its end. So it finds, and names: a changed, cut, added, swapped, re-ordered or removed frame, record, block, part,
session, leaf, bundle, tile or checkpoint; and frames that vanished between a crash and the sealing. With an older
checkpoint (`since`) it finds a log that was rolled back or rewritten; with a witness's key it requires its cosignature.

What it cannot find: the holder of the private key who rewrites everything consistently, unless an older checkpoint or
a witness's cosignature is given; frames that vanish before the sealer (a second behind) first saw them and before
recovery named the end of their chain (a chain that nobody names the end of is a note); damage to the last unsealed
frame, which looks like a torn write; and whether what was recorded is what happened: only that it was not changed
since. Frames newer than the last checkpoint are chained, not signed.

It may run beside a sealer: what was recorded after it began is then counted, not verified.

Records that an `erasure` leaf covers may be gone: that proves too.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import NIL, text
from narrows.record.log.merkle import inclusion_proof, leaf_hash, verify_inclusion
from narrows.record.log.note import Checkpoint, Verifier, open_checkpoint, parse_checkpoint, parse_note
from narrows.record.log.proof import LeafProof
from narrows.record.log.tiles import WIDTH, subtree_reader
from narrows.record.partfile import SESSIONS
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import CHECKPOINT, LOCK, read_entries, read_tile
from narrows.record.tail import SegmentReader
from narrows.record.verify_chains import WAL, Chains, check_chains
from narrows.record.verify_log import Leaves, PlacesCheck, check_log, read_checkpoint, read_leaf
from narrows.record.verify_parts import SessionCheck
from narrows.record.verify_report import Finding, Report, Tell

__all__ = ["Finding", "Report", "prove_leaf", "verify_all", "verify_session"]

MAX_DELETED = 20
"""Missing records of one session that are named one by one; the rest are counted."""


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


def verify_all(
    data: Path,
    vkey: str,
    *,
    since: str | None = None,
    witnesses: Sequence[str] = (),
    progress: Tell = _silent,
) -> Report:
    """Verify everything under `data`. Raises ProofError only when a key or `since` itself cannot be read."""
    report = Report()
    key = Verifier.parse(vkey)
    store = FileStore(data)
    older = open_checkpoint(since, [key]) if since is not None else None
    checkpoint = read_checkpoint(store, [key], [Verifier.parse(w) for w in witnesses], report)
    report.checkpoint_size = checkpoint.size
    leaves = check_log(store, checkpoint, older, report, progress)
    with tempfile.TemporaryDirectory(prefix="narrows-verify-") as directory:
        chains = Chains(Path(directory))
        chains.live = _sealer_runs(data)
        progress("segments", 0, 0)
        chains.ends.take_marks(store)
        _follow_segments(data, store, chains, report)
        places = PlacesCheck(store, checkpoint.size, report)
        places.check_others(leaves)
        check = SessionCheck(store, leaves, places, chains, report)
        sessions = check.sessions()
        for number, session in enumerate(sessions):
            progress("sessions", number, len(sessions))
            check.check(session)
        lawful = _missing(leaves, set(sessions), report)
        check_chains(chains, leaves, lawful, report)
    return report


def _missing(leaves: Leaves, present: set[str], report: Report) -> dict[str, list[tuple[int, int]]]:
    """Leaves whose frames were not found: findings, unless an erasure leaf covers them. Returns what those cover."""
    lawful: dict[str, list[tuple[int, int]]] = {}
    told: dict[str, int] = {}
    for (writer, first), row in leaves.rows.items():
        if leaves.erased.get(row.session, -1) > row.index:
            lawful.setdefault(writer, []).append((first, row.last_seq))
            continue
        count = told[row.session] = told.get(row.session, 0) + 1
        if row.session in present and count <= MAX_DELETED:
            report.found("missing_record", f"The frames of a {row.type} are gone", session=row.session, leaf=row.index)
        elif row.session not in present and count == 1:
            report.found(
                "session_deleted",
                "A session was deleted" if row.session != text(NIL) else "The records of no session were deleted",
                session=row.session,
                file=f"{SESSIONS}/{row.session}",
                leaf=row.index,
            )
    for session, count in told.items():
        if session in present and count > MAX_DELETED:
            report.found("missing_record", f"The frames of {count} records are gone in all", session=session)
    return lawful


def _sealer_runs(data: Path) -> bool:
    """Whether a process holds the sealer's lock now."""
    try:
        fd = os.open(data / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _follow_segments(data: Path, store: FileStore, chains: Chains, report: Report) -> None:
    """Read every writer's segments into the chains.

    Before the parts: what the sealer moves from there to here meanwhile is then seen twice, never missed. Where it
    removes segments under the reader, reading begins again.
    """
    for writer in store.list("wal"):
        if writer.startswith("."):
            continue
        directory = data / "wal" / writer
        while True:
            before = store.list(f"wal/{writer}")
            try:
                _read_segments(directory, writer, chains)
                break
            except (ProofError, FileNotFoundError) as bad:
                if store.list(f"wal/{writer}") == before:
                    report.found("segment", str(bad), file=f"wal/{writer}")
                    break


def _read_segments(directory: Path, writer: str, chains: Chains) -> None:
    with SegmentReader(directory) as reader:
        while frames := reader.read():
            for frame in frames:
                chains.add(writer, frame, WAL, 0, 0)
            chains.segment_ends[writer] = frames[-1].seq


def verify_session(data: Path, vkey: str, session: bytes) -> Report:
    """Verify one session: signature, an inclusion proof for each of its leaves, and its frames against them.

    Reads all entry bundles to find the leaves, but other sessions' parts not at all: chains across sessions and a
    rewritten log are for `verify_all`. Raises ProofError for a key that cannot be read, NotFound for a session that
    neither the log nor the objects know.
    """
    report = Report()
    key = Verifier.parse(vkey)
    store = FileStore(data)
    checkpoint = read_checkpoint(store, [key], [], report)
    report.checkpoint_size = checkpoint.size
    name = text(session)
    leaves = _leaves_of(store, checkpoint, name, report)
    check = SessionCheck(store, leaves, PlacesCheck(store, checkpoint.size, report), None, report)
    present = name in store.list(SESSIONS)
    if not present and not leaves.rows:
        raise NotFound("No such session", name)
    if present:
        check.check(name)
    _missing(leaves, {name} if present else set(), report)
    return report


def _leaves_of(store: FileStore, checkpoint: Checkpoint, session: str, report: Report) -> Leaves:
    leaves = Leaves()
    mark = f'"session":"{session}"'.encode()
    get = subtree_reader(checkpoint.size, lambda level, index, width: read_tile(store, level, index, width))
    for bundle in range((checkpoint.size + WIDTH - 1) // WIDTH):
        try:
            entries = read_entries(store, bundle, min(WIDTH, checkpoint.size - bundle * WIDTH))
        except (NotFound, ProofError) as bad:
            report.found("entries", f"Leaves from {bundle * WIDTH} on cannot be read: {bad}", leaf=bundle * WIDTH)
            continue
        for row, entry in enumerate(entries):
            if mark not in entry:
                continue
            index = bundle * WIDTH + row
            report.leaves += 1
            read_leaf(leaves, index, entry, report)
            try:
                proof = inclusion_proof(index, checkpoint.size, get)
                verify_inclusion(index, checkpoint.size, leaf_hash(entry), proof, checkpoint.root)
            except (ProofError, NotFound) as bad:
                report.found("inclusion", str(bad), session=session, leaf=index)
    return leaves


def prove_leaf(data: Path, index: int) -> tuple[bytes, LeafProof]:
    """A leaf and its offline proof to the published checkpoint. Raises ProofError, NotFound.

    Nothing is verified here: the receiver does, with `LeafProof.verify`.
    """
    store = FileStore(data)
    note = store.read(CHECKPOINT).decode("utf-8", "replace")
    checkpoint = parse_checkpoint(parse_note(note).text)
    if index >= checkpoint.size:
        raise NotFound("The leaf is not in a published checkpoint yet", f"leaf {index} of {checkpoint.size}")
    bundle, row = divmod(index, WIDTH)
    entry = read_entries(store, bundle, row + 1)[row]
    get = subtree_reader(checkpoint.size, lambda level, number, width: read_tile(store, level, number, width))
    return entry, LeafProof(index, tuple(inclusion_proof(index, checkpoint.size, get)), note)
