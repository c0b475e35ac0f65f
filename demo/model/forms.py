"""What every API's form of an answer has to provide, and what they share."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from demo.model.script import Asked, Tool, Turn

CREATED = 1_790_000_000


@dataclass
class Saying:
    """A turn on its way out: its calls resolved against the tools that the request offers, its ids made.

    `calls` are (id, tool, input). `asks` are the bytes of the request, from which its tokens are guessed.
    """

    asked: Asked
    turn: Turn
    asks: int
    id: str = ""
    calls: list[tuple[str, Tool, Any]] = field(default_factory=list)

    def resolve(self, prefix: str, message: str) -> None:
        """Name the answer and its calls with the API's own prefixes."""
        self.id = message + secrets.token_hex(12)
        if self.asked.tools:
            for call in self.turn.calls:
                tool, given = call.resolved(self.asked.tools)
                self.calls.append((call.id or prefix + secrets.token_hex(12), tool, given))

    @property
    def tokens(self) -> tuple[int, int]:
        """A guess at the tokens that came in and go out; never zero."""
        spoken = len(self.turn.pieces()) + sum(len(compact(given)) for _, _, given in self.calls) // 4
        return max(1, self.asks // 4), max(1, spoken)


class Form(Protocol):
    """One API's form."""

    call_prefix: str
    message_prefix: str

    def read(self, path: str, body: Any, spoken: int) -> Asked:
        """What the request carries. `spoken` are the turns of the answer that it says to go on from."""
        ...

    def whole(self, saying: Saying) -> Any:
        """The answer as one JSON value."""
        ...

    def events(self, saying: Saying) -> Iterator[tuple[str, Any]]:
        """The answer as a stream: event names (empty where the API has none) and their JSON, or a str as it is."""
        ...

    def error(self, status: int, message: str) -> Any:
        """An error's body."""
        ...

    def stream_error(self, message: str) -> tuple[str, Any]:
        """An error in the middle of a stream."""
        ...


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def halves(text: str) -> list[str]:
    """A text in up to two parts, as a stream cuts a tool's input."""
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def events_of(form: Form, saying: Saying) -> Iterator[tuple[str, Any]]:
    """The events of a stream; where the script says so, its last one gives way to an error."""
    if not saying.turn.stream_error:
        yield from form.events(saying)
        return
    held: deque[tuple[str, Any]] = deque()
    for event in form.events(saying):
        held.append(event)
        if len(held) > 2:
            yield held.popleft()
    yield form.stream_error(saying.turn.stream_error)
