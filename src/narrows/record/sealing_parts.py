"""Growing parts: frames of a session into blocks, blocks into its open part, open parts into final ones.

What a part holds already is named, not stored again (`narrows.record.log.dedupe`), when a block grows and once more,
over the whole part, when it becomes final: a sealer that was started again begins with no memory of what it wrote.
"""

from __future__ import annotations

import zstandard

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import parse, text
from narrows.record.log.dedupe import Chooser, Dedupe, Region
from narrows.record.log.frame import HEADER_SIZE, Frame
from narrows.record.log.part import OPEN_BLOCK, PART_DEDUPED, PART_RAW, Run, compressor
from narrows.record.partfile import SESSIONS, part_name
from narrows.record.sealing_blocks import FinalPart, make_block, unfinished
from narrows.record.sealing_state import PartState
from narrows.record.store.files import FileStore

IDLE_NS = 15 * 60 * 1_000_000_000
"""A part that has not grown for this long becomes final."""
TEXT_HELD = 64 << 20
"""Bytes of text that all growing parts keep together to find it again; those that grew least lately forget first."""


class GrowingPart:
    """A part that takes frames. Holds at most one block raw, and the compressed blocks of one step."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_chooser",
        "_regions",
        "_runs",
        "_writer",
        "_zstd",
        "dedupe",
        "pending",
        "pending_size",
        "session",
        "state",
    )

    def __init__(self, session: bytes, state: PartState, zstd: zstandard.ZstdCompressor) -> None:
        self.session = session
        self.state = state
        self._zstd = zstd
        self.dedupe = Dedupe(state.raw if state.literal < 0 else state.literal)
        self._chooser = Chooser()
        self._regions: list[Region] = []
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._runs: list[Run] = []
        self._writer = ""
        self.pending: list[bytes] = []
        self.pending_size = 0

    @property
    def name(self) -> str:
        """Its file."""
        return part_name(self.session, self.state.part, final=False)

    def add(self, writer: str, frame: Frame) -> int:
        """Take a frame; returns its raw offset in the part."""
        offset = self.state.raw
        seq = frame.seq
        runs = self._runs
        if runs and runs[-1][0] == writer:
            _, first, _, count = runs[-1]
            runs[-1] = (writer, first, seq, count + 1)
        else:
            runs.append((writer, seq, seq, 1))
        start = self._buffered
        if self._chooser.looks(frame.raw):
            self._regions.append(Region(start + HEADER_SIZE, start + frame.size, start + HEADER_SIZE))
        self._buffer.append(frame.raw)
        self._buffered = start + frame.size
        self.state.raw = offset + frame.size
        if self._buffered >= OPEN_BLOCK:
            self.close_block()
        return offset

    def close_block(self) -> None:
        """Compress what is buffered; it waits for `write`."""
        if not self._buffer:
            return
        raw = b"".join(self._buffer)
        at = self.state.raw - len(raw)
        place = self.state.size + self.pending_size, at
        encoded, _ = make_block(place, raw, self._runs, self._regions, self.dedupe, self._zstd)
        self.state.literal = self.dedupe.literal
        self.pending.append(encoded)
        self.pending_size += len(encoded)
        self._buffer, self._buffered, self._runs, self._regions = [], 0, [], []

    @property
    def full(self) -> bool:
        """Whether it takes no more frames."""
        fresh = self.dedupe.literal + self._buffered
        return fresh >= PART_RAW or self.state.raw >= PART_DEDUPED

    def write(self, store: FileStore, now_ns: int) -> None:
        """Append the blocks to the file; durable on return."""
        self.close_block()
        if not self.pending:
            return
        store.append(self.name, self.state.size, b"".join(self.pending))
        self.state.size += self.pending_size
        self.state.touched_ns = now_ns
        self.pending, self.pending_size = [], 0


class Parts:
    """All growing parts. A session has at most one that takes frames, and perhaps some that wait to be final."""

    def __init__(self, store: FileStore, states: list[PartState]) -> None:
        """Go on from committed states; bytes beyond them are cut away."""
        self._store = store
        self._zstd = compressor()  # one for all: its tables are a megabyte, and sessions may be many
        self._growing: dict[bytes, GrowingPart] = {}
        self._all: list[GrowingPart] = []
        self._fresh: set[int] = set()
        self._making: tuple[GrowingPart, FinalPart] | None = None
        self.stuck: dict[tuple[str, int], str] = {}
        """Parts that could not be made final, and why. They stay as they are; tried again at the next start."""
        for state in states:
            session = parse(state.session)
            part = GrowingPart(session, state, self._zstd)
            self._all.append(part)
            try:
                if store.size(part.name) < state.size:
                    raise NotFound("A part is shorter than was committed", f"{part.name}, {state.size} bytes")
            except NotFound as gone:
                # Somebody took or cut it. It gets no more frames; that must not stop the other sessions.
                self.stuck[state.session, state.part] = str(gone)
                state.done = True
                continue
            store.truncate(part.name, state.size)
            for name in (part_name(session, state.part, final=True), unfinished(session, state.part)):
                store.remove(name)
            if not state.done:
                self._growing[session] = part

    def states(self) -> list[PartState]:
        """What to commit."""
        return [part.state for part in self._all]

    def take(self, session: bytes) -> GrowingPart:
        """The part that takes this session's next frame."""
        part = self._growing.get(session)
        if part is not None:
            if not part.full:
                return part
            part.state.done = True
            part.dedupe.forget()
        part = GrowingPart(session, PartState(text(session), self._next_number(session)), self._zstd)
        self._growing[session] = part
        self._all.append(part)
        self._fresh.add(id(part))
        return part

    def _next_number(self, session: bytes) -> int:
        names = self._store.list(f"{SESSIONS}/{text(session)}")
        taken = [int(name[:-5]) for name in names if name.endswith(".part") and name[:-5].isdigit()]
        taken += [part.state.part for part in self._all if part.session == session]
        return max(taken, default=-1) + 1

    def close_session(self, session: bytes) -> None:
        """The session was closed: its part becomes final once none of its exchanges is open."""
        part = self._growing.get(session)
        if part is not None:
            part.state.closing = True

    def write(self, now_ns: int) -> None:
        """Append every block that waits; durable on return."""
        for part in self._all:
            part.write(self._store, now_ns)
        held = sum(part.dedupe.held for part in self._all)
        for part in sorted(self._all, key=lambda part: part.state.touched_ns) if held > TEXT_HELD else ():
            held -= part.dedupe.held
            part.dedupe.forget()
            if held <= TEXT_HELD // 2:
                break

    def committed(self) -> None:
        """The state with these parts is durable: they may now become final."""
        self._fresh.clear()

    def ripe(self, now_ns: int, busy: set[bytes]) -> GrowingPart | None:
        """One committed part that should become final: under way, full, closed with no exchange open, or idle."""
        if self._making is not None:
            return self._making[0]
        for part in self._all:
            state = part.state
            if id(part) in self._fresh or (state.session, state.part) in self.stuck:
                continue
            closed = state.closing and part.session not in busy
            if state.done or closed or now_ns - state.touched_ns >= IDLE_NS:
                return part
        return None

    def finish(self, part: GrowingPart) -> bool:
        """Go on writing the final file beside the growing one; True when it is there.

        It counts when the state without this part is durable. From the first call on the part takes no more frames.
        Raises ProofError, NotFound.
        """
        if self._making is None:
            part.state.done = True
            if self._growing.get(part.session) is part:
                del self._growing[part.session]
            part.dedupe.forget()
            self._making = part, FinalPart(self._store, part.session, part.state.part)
        whole = False
        try:
            whole = self._making[1].step()
        except (ProofError, NotFound):
            self._making = None
            self._store.remove(unfinished(part.session, part.state.part))
            raise
        if whole:
            self._making = None
            self._all.remove(part)
        return whole
