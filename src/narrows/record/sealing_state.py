"""What the sealer has committed: `log/sealer.json`, replaced whole after everything that it names is durable.

It is the one point of commitment. Bytes of parts, bundles and tiles beyond what it names were never published and
are cut away at the next start; a checkpoint is published only after the state that contains it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from narrows.core.errors import ProofError
from narrows.record.log.leaf import canonical
from narrows.record.log.merkle import EMPTY_ROOT

VERSION = 1


@dataclass(slots=True)
class WriterState:
    """How far a writer's chain was taken in. `seq` is its last frame taken, -1 for none; `position` its reader's."""

    position: dict[str, Any] | None = None
    seq: int = -1
    running: str = ""
    heads_seq: int = -1
    """Up to where a heads leaf commits to the chain."""
    closed: bool = False
    """Its WRITER_CLOSE frame was taken."""
    broken: str = ""
    """Why its chain could not be followed further; it is not read again, and its segments stay."""


@dataclass(slots=True)
class PartState:
    """A growing part: raw bytes taken, file size, when it last grew (Unix ns), whether it gets no more frames."""

    session: str
    part: int
    raw: int = 0
    size: int = 0
    touched_ns: int = 0
    closing: bool = False
    """The session was closed: final as soon as none of its exchanges is open."""
    done: bool = False
    literal: int = -1
    """Raw bytes that are no copies; -1: none is."""


@dataclass(slots=True)
class State:
    """Everything the sealer needs to go on after a crash as if there had been none."""

    size: int = 0
    root: str = EMPTY_ROOT.hex()
    checkpoint: str = ""
    """The signed checkpoint that is, or is about to be, published."""
    checkpoint_size: int = 0
    writers: dict[str, WriterState] = field(default_factory=dict)
    parts: list[PartState] = field(default_factory=list)
    open: dict[str, list[list[int]]] = field(default_factory=dict)
    """Open exchanges, `<session>/<exchange>/<writer>`: their spans."""
    unfinished: list[str] = field(default_factory=list)
    """Dead writers whose exchanges end unfinished as soon as every segment has been read to its end."""

    def encode(self) -> bytes:
        """As stored."""
        return canonical({"v": VERSION, **asdict(self)})

    @classmethod
    def decode(cls, raw: bytes) -> State:
        """Read the stored form. Raises ProofError."""
        try:
            value = json.loads(raw)
            if value.pop("v") != VERSION:
                raise ValueError("another version")
            value["writers"] = {name: WriterState(**row) for name, row in value["writers"].items()}
            value["parts"] = [PartState(**row) for row in value["parts"]]
            return cls(**value)
        except (ValueError, TypeError, KeyError, AttributeError) as bad:
            raise ProofError(
                "The sealer's state cannot be read",
                "log/sealer.json is damaged",
                "Restore it together with the rest of log/; nothing is sealed until then.",
            ) from bad
