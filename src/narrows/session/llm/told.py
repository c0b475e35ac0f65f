"""What a model API was asked and what it told, taken out of HTTP: the input of each API's describer.

A describer is a function `describe(asked, told, out)`: it reads both and fills `out` (`items`, `refs`, `llm`, `model`),
takes unknown fields and events without complaint, raises nothing on hostile input, and says in `out.problems` what it
could not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Told:
    """An answer: `body` is its JSON (None for a stream or where it is none), `events` those of a stream in their order.

    Each event is the parsed JSON of one SSE event, of one WebSocket message, or of one event-stream payload. `names`
    are the event names beside them, empty where there was none. `cut` says that the answer did not come to its end.
    """

    status: int = 0
    body: Any = None
    events: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    streamed: bool = False
    cut: bool = False
