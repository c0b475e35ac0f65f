"""Growing parts: frames of a session into blocks, blocks into its open part, open parts into final ones."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import zstandard

from narrows.core.errors import NotFound
from narrows.core.ids import parse, text
from narrows.record.log.frame import Frame
from narrows.record.log.part import (
    FINAL_BLOCK,
    OPEN_BLOCK,
    PART_RAW,
    Block,
    Run,
    compressor,
    encode_block,
    encode_table,
    merge_runs,
)
from narrows.record.reader import SESSIONS, PartFile, part_name
from narrows.record.sealing_state import PartState
from narrows.record.store.files import FileStore

IDLE_NS = 15 * 60 * 1_000_000_000
"""A part that has not grown for this long becomes final."""


class GrowingPart:
    """A part that takes frames. Holds at most one block raw, and the compressed blocks of one step."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_runs",
        "_writer",
        "_zstd",
        "pending",
        "pending_size",
        "session",
        "state",
    )

    def __init__(self, session: bytes, state: PartState, zstd: zstandard.ZstdCompressor) -> None:
        self.session = session
        self.state = state
        self._zstd = zstd
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
        self._buffer.append(frame.raw)
        self._buffered += frame.size
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
        encoded, _ = encode_block(
            self.state.size + self.pending_size, at, raw, sha256(raw).digest(), self._runs, self._zstd
        )
        self.pending.append(encoded)
        self.pending_size += len(encoded)
        self._buffer, self._buffered, self._runs = [], 0, []

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
            store.remove(part_name(session, state.part, final=True))
            if not state.done:
                self._growing[session] = part

    def states(self) -> list[PartState]:
        """What to commit."""
        return [part.state for part in self._all]

    def take(self, session: bytes) -> GrowingPart:
        """The part that takes this session's next frame."""
        part = self._growing.get(session)
        if part is not None:
            if part.state.raw < PART_RAW:
                return part
            part.state.done = True
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

    def committed(self) -> None:
        """The state with these parts is durable: they may now become final."""
        self._fresh.clear()

    def ripe(self, now_ns: int, busy: set[bytes]) -> GrowingPart | None:
        """One committed part that should become final: full, closed with no exchange open, or idle."""
        for part in self._all:
            state = part.state
            if id(part) in self._fresh or (state.session, state.part) in self.stuck:
                continue
            closed = state.closing and part.session not in busy
            if state.done or closed or now_ns - state.touched_ns >= IDLE_NS:
                return part
        return None

    def finish(self, part: GrowingPart) -> None:
        """Write the final file beside the growing one. It counts when the state without this part is durable."""
        final = part_name(part.session, part.state.part, final=True)
        with PartFile.open(self._store.path(part.name)) as source:
            self._store.write_pieces(final, final_pieces(source))
        self._all.remove(part)
        if self._growing.get(part.session) is part:
            del self._growing[part.session]


def final_pieces(source: PartFile) -> Iterator[bytes]:
    """The bytes of a final part: the frames of a growing one in large blocks, then the table."""
    zstd = compressor(final=True)
    blocks: list[Block] = []
    raws: list[bytes] = []
    runs: list[Run] = []
    offset = at = held = 0

    def block() -> bytes:
        nonlocal offset, at, held
        raw = b"".join(raws)
        encoded, made = encode_block(offset, at, raw, sha256(raw).digest(), runs, zstd)
        blocks.append(made)
        offset += len(encoded)
        at += len(raw)
        held = 0
        raws.clear()
        runs.clear()
        return encoded

    for small in source.blocks():
        if raws and held + small.raw > FINAL_BLOCK:
            yield block()
        raws.append(source.read(small))
        held += small.raw
        merge_runs(runs, small.runs)
    if raws:
        yield block()
    yield encode_table(blocks)
