"""The sealer: frames out of the writers' segments into sessions' parts and the log. One process at a time.

`step` is synchronous and does a bounded amount of work. The order in which it makes things durable is its whole
safety; every line of `_commit` relies on the ones before it:

    1. blocks appended to the sessions' parts (and final parts written beside growing ones)
    2. entry bundles, tiles and places
    3. the state (`log/sealer.json`): the point of commitment, with the signed checkpoint in it
    4. the checkpoint published
    5. growing files of final parts, sealed segments and stale partial tiles removed
    6. what was sealed handed to `on_sealed`

A crash before 3 leaves bytes that nothing names: the next start cuts them away and takes the same frames from the
segments again. A crash after 3 loses nothing: the next start publishes the state's checkpoint. So no checkpoint is
ever taken back, no leaf is there twice, and no frame is lost. Whoever consumes `on_sealed` keeps its own cursor and
catches up with `narrows.record.sealed.iter_sealed`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from narrows.core.errors import ConfigError, NotFound, ProofError, RecorderFailed
from narrows.core.ids import parse, text
from narrows.core.ports import Clock
from narrows.record.log.frame import Frame, Kind
from narrows.record.log.gather import Gatherer, Record
from narrows.record.log.leaf import Sealed, Span, canonical, facts, gap_leaf, heads_leaf, spans_text
from narrows.record.log.note import Checkpoint, SigningKey, open_checkpoint, parse_note
from narrows.record.partfile import part_name
from narrows.record.reader import iter_frames
from narrows.record.sealing_log import LogWriter
from narrows.record.sealing_parts import GrowingPart, Parts
from narrows.record.sealing_state import State, WriterState
from narrows.record.sealing_wal import WalSource
from narrows.record.store.files import FileStore
from narrows.record.store.logfiles import CHECKPOINT, LOCK, LOG, STATE

STEP_BYTES = 16 << 20
"""About how many bytes of frames one step takes."""
CHECKPOINT_NS = 1_000_000_000
"""A checkpoint is published at most this often, and at most this long after something new."""
HEADS_A_LEAF = 400


@dataclass(slots=True)
class Progress:
    """What a step did. `more` says that the next one has work at once; `problems` what needs a person."""

    frames: int = 0
    bytes: int = 0
    sealed: int = 0
    size: int = 0
    checkpoint_size: int = 0
    more: bool = False
    problems: list[str] = field(default_factory=list)


class Sealer:
    """Seals the frames of `data`. Takes the lock; use as a context manager or call `close`."""

    def __init__(
        self,
        data: Path,
        origin: str,
        signing_key: SigningKey,
        clock: Clock,
        *,
        on_sealed: Callable[[list[Sealed]], None] | None = None,
        store: FileStore | None = None,
    ) -> None:
        """Open or create the log and bring the files back to what the state commits to.

        Raises ConfigError when another process has the lock or the key is another log's, ProofError when the log
        on disk contradicts the state (going on could fork it), RecorderFailed when the disk fails.
        """
        if signing_key.name != origin:
            raise ConfigError(
                "The signing key is not this log's", f"it is {signing_key.name}, the log {origin}"
            )
        self.data = data
        self._key = signing_key
        self._origin = origin
        self._clock = clock
        self._on_sealed = on_sealed
        self._store = store if store is not None else FileStore(data)
        self._lock = _lock(data / LOCK)
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Sealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Nothing is written: call `drain` first to leave nothing waiting."""
        if self._lock >= 0:
            self._wal.close()
            os.close(self._lock)
            self._lock = -1

    # Opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._state = self._load()
        self._log = LogWriter(self._store, self._state.size)
        if self._log.root().hex() != self._state.root:
            raise ProofError(
                "The log on disk is not the one that was committed",
                f"its {self._state.size} leaves have another root",
                "Run narrows verify --all; restore log/ as a whole.",
            )
        self._check_published()
        self._log.discard({self._state.size, self._state.checkpoint_size})
        self._parts = Parts(self._store, self._state.parts)
        self._gather = Gatherer()
        self._lost: list[str] = []
        self._regather()
        self._wal = WalSource(self._store, self._state.writers)
        self._published_mono: int | None = None
        self._failed = False
        self._sealed: list[Sealed] = []
        self._dead: set[str] = set(self._state.unfinished)

    def _load(self) -> State:
        try:
            return State.decode(self._store.read(STATE))
        except NotFound:
            # The first start writes an empty state before anything else: a log without one has lost it.
            if self._store.exists(CHECKPOINT) or self._store.list(f"{LOG}/tile"):
                raise ProofError(
                    "The sealer's state is missing",
                    "there is a log but no log/sealer.json: going on would fork the log",
                    "Restore log/ as a whole.",
                ) from None
            state = State()
            self._store.write(STATE, state.encode())
            return state

    def _check_published(self) -> None:
        """Never go on behind what was published; publish what was committed and not yet published."""
        if self._store.exists(CHECKPOINT):
            note = self._store.read(CHECKPOINT).decode("utf-8", "replace")
            published = open_checkpoint(note, [self._key.verifier], self._origin)
            committed = self._state.checkpoint and parse_note(self._state.checkpoint).text
            ahead = published.size > self._state.checkpoint_size
            if ahead or (published.size == self._state.checkpoint_size and committed != published.body):
                raise ProofError(
                    "The published checkpoint is not one that was committed",
                    f"it is of {published.size} leaves, the state's of {self._state.checkpoint_size}",
                    "log/ was rolled back in part: restore it as a whole.",
                )
            if published.size == self._state.checkpoint_size:
                return
        if self._state.checkpoint:
            self._store.write(CHECKPOINT, self._state.checkpoint.encode())

    def _regather(self) -> None:
        """Open exchanges again from their frames in the parts: digests cannot be kept in a file half-way."""
        for key, spans in sorted(self._state.open.items()):
            session, exchange, writer = key.split("/")
            ident = parse(exchange)
            try:
                for span in spans:
                    for frame, offset in iter_frames(self.data, parse(session), Span(*span)):
                        if frame.exchange == ident:
                            self._gather.feed(writer, frame, span[0], offset)
            except (NotFound, ProofError) as bad:
                # Its part was damaged or taken. What follows of it is sealed; verification tells the rest.
                self._gather.open.pop(ident, None)
                self._lost.append(f"exchange {exchange}: {bad}")

    # Stepping --------------------------------------------------------------------------------------------------

    def step(self, *, publish: bool = False) -> Progress:
        """Take what waits in the segments, up to a bound; `publish` makes a checkpoint now if anything is new.

        Raises RecorderFailed when the disk fails: the sealer must then be closed and opened again. Problems that
        concern one writer or one part are sealed or reported, and do not stop the others.
        """
        if self._failed:
            raise RecorderFailed("Sealing has stopped", "an earlier step failed", "Open the sealer again.")
        self._failed = True  # until this step has come to its end
        progress = Progress()
        now = self._clock.wall_ns()
        finished = self._finish_one(now, progress)
        self._take(progress, now)
        changed = bool(progress.frames or self._sealed or finished)
        due = self._checkpoint_due(publish)
        if changed or due:
            self._commit(now, finished, due)
        self._wal.remove_sealed()
        sealed, self._sealed = self._sealed, []
        self._failed = False
        progress.sealed = len(sealed)
        progress.size, progress.checkpoint_size = self._state.size, self._state.checkpoint_size
        progress.more = progress.more or finished is not None
        progress.problems += [f"writer {n}: {w.broken}" for n, w in self._state.writers.items() if w.broken]
        progress.problems += self._lost
        progress.problems += [f"part {s}/{p}: {why}" for (s, p), why in self._parts.stuck.items()]
        if sealed and self._on_sealed is not None:
            self._on_sealed(sealed)
        return progress

    def drain(self) -> Progress:
        """Step until nothing waits, then publish. Frames that writers still add meanwhile may be left."""
        while self.step().more:
            pass
        while (progress := self.step(publish=True)).more:
            pass
        return progress

    def _finish_one(self, now: int, progress: Progress) -> GrowingPart | None:
        part = self._parts.ripe(now, {record.session for record in self._gather.open.values()})
        if part is None:
            return None
        try:
            if not self._parts.finish(part):
                progress.more = True
                return None
        except (ProofError, NotFound) as bad:
            self._parts.stuck[part.state.session, part.state.part] = str(bad)
            progress.more = True
            return None
        return part

    def _take(self, progress: Progress, now: int) -> None:
        """Read every writer on, up to the step's bound."""
        writers = self._state.writers
        present = self._wal.present()
        self._dead.update(n for n in present if n in self._wal.ended and self._stopped(n))
        dead = set(self._dead)
        for name in sorted(set(writers) - set(present)):
            self._vanished(name, now)
        share = max(STEP_BYTES // max(1, len(present)), 1 << 20)
        for name in present:
            state = writers.setdefault(name, WriterState())
            if state.broken:
                continue
            try:
                for frames in self._wal.read(name, state, min(share, STEP_BYTES - progress.bytes)):
                    for frame in frames:
                        self._frame(name, frame)
                        progress.bytes += frame.size
                    progress.frames += len(frames)
            except ProofError as bad:
                self._broken(name, state, str(bad), now)
        whole = all(name in self._wal.ended or writers[name].broken for name in present)
        progress.more = progress.more or not whole
        if dead and whole:
            # Known dead before this pass, and the pass met every end: nothing of theirs can follow.
            self._end_unfinished(dead)
        progress.more = progress.more or bool(self._dead) or any(map(self._stopped, self._wal.ended))

    def _stopped(self, name: str) -> bool:
        """Whether a writer that left exchanges open is known to be dead."""
        return bool(self._gather.of_writer(name)) and self._wal.recovered(name)

    def _frame(self, writer: str, frame: Frame) -> None:
        part = self._parts.take(frame.session)
        offset = part.add(writer, frame)
        kind = frame.kind
        record = self._gather.feed(writer, frame, part.state.part, offset)
        if record is None:
            return
        self._seal(record)
        if kind == Kind.SESSION_CLOSE:
            self._parts.close_session(frame.session)
        elif kind == Kind.GAP:
            self._gap(frame)
        elif kind == Kind.WRITER_CLOSE:
            self._state.writers[writer].closed = True
            for left in self._gather.of_writer(writer):
                self._seal(left, unfinished=True)

    def _gap(self, frame: Frame) -> None:
        """Whoever records a gap names the writer that stopped there: none of its exchanges goes on."""
        writer = facts(frame.meta).get("writer")
        if isinstance(writer, str):
            self._dead.add(writer)

    def _end_unfinished(self, dead: set[str]) -> None:
        """Seal what dead writers left open."""
        for name in sorted(dead):
            for record in self._gather.of_writer(name):
                self._seal(record, unfinished=True)
        self._dead -= dead

    def _seal(self, record: Record, *, unfinished: bool = False) -> None:
        leaf, sealed = record.finish(unfinished=unfinished)
        sealed.leaf_index = self._log.add(leaf, spans_text(sealed.place.spans).encode())
        self._sealed.append(sealed)
        if unfinished:
            self._gather.open.pop(record.exchange, None)

    # A chain that cannot be followed ---------------------------------------------------------------------------

    def _broken(self, name: str, state: WriterState, why: str, now: int) -> None:
        """Seal that this writer's chain breaks here, and go on with the others."""
        state.broken = why
        self._wal.forget(name)
        self._own_gap(name, state.seq + 1, why, now)
        self._dead.add(name)

    def _vanished(self, name: str, now: int) -> None:
        """A writer's segments are gone: after its end that is how it should be, else somebody took them."""
        state = self._state.writers[name]
        self._wal.forget(name)
        if state.seq > state.heads_seq:
            return  # it stays until a heads leaf commits to its last frame
        del self._state.writers[name]
        self._dead.add(name)
        if not state.closed and not state.broken and not self._wal.recovered(name):
            self._own_gap(name, state.seq + 1, "its segments were removed before the writer stopped", now)

    def _own_gap(self, writer: str, seq: int, why: str, now: int) -> None:
        leaf, told = gap_leaf(writer, seq, now, why)
        index = self._log.add(canonical(leaf), canonical(told))
        self._sealed.append(Sealed.of_leaf(leaf, index, (), told))

    # Committing ------------------------------------------------------------------------------------------------

    def _checkpoint_due(self, publish: bool) -> bool:
        new = self._log.size > self._state.checkpoint_size or bool(self._moved())
        if not new or publish or self._published_mono is None:
            return new
        return self._clock.mono_ns() - self._published_mono >= CHECKPOINT_NS

    def _moved(self) -> dict[str, tuple[int, bytes]]:
        """Heads of the chains that no heads leaf commits to yet."""
        return {
            name: (state.seq, bytes.fromhex(state.running))
            for name, state in self._state.writers.items()
            if state.seq > state.heads_seq
        }

    def _commit(self, now: int, finished: GrowingPart | None, due: bool) -> None:
        self._parts.write(now)
        if due:
            self._add_heads()
        self._log.flush()
        self._save(due)
        self._parts.committed()
        if due:
            self._store.write(CHECKPOINT, self._state.checkpoint.encode())
            self._published_mono = self._clock.mono_ns()
        self._clean(finished)

    def _add_heads(self) -> None:
        moved = sorted(self._moved().items())
        for start in range(0, len(moved), HEADS_A_LEAF):
            self._log.add(heads_leaf(dict(moved[start : start + HEADS_A_LEAF])), b"")
        for name, (seq, _) in moved:
            self._state.writers[name].heads_seq = seq

    def _save(self, due: bool) -> None:
        state = self._state
        root = self._log.root()
        state.size, state.root = self._log.size, root.hex()
        if due:
            state.checkpoint = self._key.sign(Checkpoint(self._origin, state.size, root).body)
            state.checkpoint_size = state.size
        state.parts = self._parts.states()
        state.open = {
            f"{text(r.session)}/{text(r.exchange)}/{r.writer}": r.spans for r in self._gather.open.values()
        }
        state.unfinished = sorted(self._dead)
        self._store.write(STATE, state.encode())

    def _clean(self, finished: GrowingPart | None) -> None:
        if finished is not None:
            self._store.remove(part_name(finished.session, finished.state.part, final=False))
        self._log.prune({self._state.size, self._state.checkpoint_size})


def _lock(path: Path) -> int:
    """Take the sealer's lock. Raises ConfigError when another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ConfigError(
            "Another process is sealing this data directory",
            str(path),
            "Stop it, or give this one its own --data.",
        ) from error
    return fd
