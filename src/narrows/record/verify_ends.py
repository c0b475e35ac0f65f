"""Where writers' chains ended, by what others say of them: verification compares it with the frames that are there.

Heads leaves commit to what was sealed. What a writer had written beyond them is named elsewhere: by the GAP record
that recovery makes of a crashed writer (`after_seq`, `running`), by its WRITER_CLOSE, and by the `recovered.json` that
recovery leaves beside its segments. Frames that vanished between the one and the other are found only so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from narrows.core.errors import NotFound
from narrows.record.log.frame import Frame, Kind
from narrows.record.store.files import FileStore

MAX_SEQ = 1 << 33
"""A frame with a higher number than this cannot be genuine, and would make a monstrous file."""
MARK = "recovered.json"


@dataclass(frozen=True, slots=True)
class End:
    """A writer's chain had reached frame `seq`, with that running hash (empty: not said).

    `by` says who tells it, for people; `teller` and `told_seq` are the frame that does (-1: no frame).
    """

    seq: int
    running: bytes
    by: str
    teller: str = ""
    told_seq: int = -1


@dataclass(slots=True)
class Ends:
    """Everything that was said of chains' ends, by writer and sequence number."""

    named: dict[str, dict[int, End]] = field(default_factory=dict)

    def take(self, writer: str, frame: Frame) -> None:
        """Note what a frame of `writer` says of an end, if it says anything that can be understood."""
        if frame.kind == Kind.WRITER_CLOSE:
            self._name(writer, End(frame.seq, frame.running, "its WRITER_CLOSE", writer, frame.seq))
        elif frame.kind == Kind.GAP:
            by = f"a GAP in frame {frame.seq} of writer {writer}"
            self._facts(frame.meta, by, writer, frame.seq)

    def close_leaf(self, writer: str, seq: int, index: int) -> None:
        """The log has a WRITER_CLOSE with that number."""
        self._name(writer, End(seq, b"", f"its WRITER_CLOSE, leaf {index}"))

    def take_marks(self, store: FileStore) -> None:
        """Read recovery's marks. One that cannot be understood says nothing: it is no part of the record."""
        for writer in store.list("wal"):
            try:
                raw = store.read(f"wal/{writer}/{MARK}")
            except NotFound:
                continue
            self._facts(raw, f"wal/{writer}/{MARK}", "", -1)

    def _facts(self, raw: bytes, by: str, teller: str, told_seq: int) -> None:
        try:
            told = json.loads(raw)
            writer, seq, running = told["writer"], told["after_seq"], bytes.fromhex(told.get("running", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if isinstance(writer, str) and type(seq) is int and -1 <= seq < MAX_SEQ:
            self._name(writer, End(seq, running, by, teller, told_seq))

    def _name(self, writer: str, end: End) -> None:
        # The first that says it stands: recovery says the same again after a crash of its own.
        self.named.setdefault(writer, {}).setdefault(end.seq, end)
