"""What provenance is about: exchanges, nodes, and the links between them.

A node is an exchange (its id) or one item of it (`ID#n`, n counted from 0 in the exchange's items). A link says that
`effect` came of `cause`, by which rule, and how sure that is:

- `proven`: bytes or ids that the gateway itself made or saw: both in one exchange, a lease that was minted for a
  process which the kernel named, equal SHA-256 of contents;
- `reported`: the agent or the client says so, by identifiers, or by a command whose whole text stands in the arguments
  of a process of the lease's tree within the time of the tool call;
- `inferred`: by time and text only; `score` from 0 to 1 says how well they fit, `why` says what does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from narrows.core.values import Item

MAX_EXCHANGES = 10_000
"""Of a session; those after it are not looked at, which the answer says."""
MAX_NODES = 200_000
MAX_STEPS = 10_000
MAX_ALTERNATIVES = 8


class Evidence(StrEnum):
    """How sure a link is; see the module."""

    PROVEN = "proven"
    REPORTED = "reported"
    INFERRED = "inferred"

    @property
    def rank(self) -> int:
        """0 is the strongest."""
        return ("proven", "reported", "inferred").index(self.value)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the tree that a lease was minted for. `start` is in the clock ticks of its kernel."""

    pid: int
    argv: tuple[str, ...]
    cwd: str = ""
    start: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of the session, as far as the rules need it. Times are ns since the Unix epoch.

    `answered_ns` is when the answer's first byte came (the start where that is unknown). `lease` is the lease that it
    showed, or for a minted one (`minted`) that lease; `processes` is the tree that it was minted for, nearest first,
    and `kernel` says that the kernel named it, not the client. `names` are what its parameters and resources are
    called, for matching with a command's text. `messages` counts those of a model call's request.
    """

    id: str
    kind: str = ""
    service: str = ""
    operation: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    answered_ns: int = 0
    items: tuple[Item, ...] = ()
    refs: tuple[tuple[str, str], ...] = ()
    connection: str = ""
    agent: str = ""
    agent_version: str = ""
    model: str = ""
    lease: str = ""
    processes: tuple[Process, ...] = ()
    kernel: bool = False
    names: tuple[str, ...] = ()
    messages: int = 0
    about: Any = None
    """Whatever the caller wants back with it; the rules do not look at it."""

    @property
    def is_model(self) -> bool:
        """A call of a language model, also of Bedrock's, which is an AWS call too."""
        return self.kind == "llm.message" or (self.kind == "aws.call" and bool(self.model and self.items))

    @property
    def is_event(self) -> bool:
        """A report of an agent."""
        return self.kind == "agent.event" and self.service not in ("narrows", "otlp")

    @property
    def minted(self) -> bool:
        """A lease that was minted for a process."""
        return self.kind == "agent.event" and self.service == "narrows" and self.operation == "lease.issued"

    def ref(self, kind: str) -> str:
        """The first identifier of a kind, or an empty string."""
        return next((value for name, value in self.refs if name == kind), "")


@dataclass(frozen=True, slots=True)
class Link:
    """`effect` came of `cause`; both are nodes. `score` is 1 unless the link is inferred."""

    effect: str
    cause: str
    rule: str
    evidence: Evidence
    why: str
    score: float = 1.0

    @property
    def strength(self) -> tuple[int, float]:
        """For sorting: the strongest first."""
        return self.evidence.rank, -self.score


@dataclass(frozen=True, slots=True)
class Step:
    """A node on the way from an effect to its prompt, and the link to the next; none at the end.

    `alternatives` are weaker or equal links to other causes; `same_bytes` are links to where the content that it
    carries was written.
    """

    node: str
    link: Link | None = None
    alternatives: tuple[Link, ...] = ()
    same_bytes: tuple[Link, ...] = ()


@dataclass(slots=True)
class Chain:
    """The way up. `reached` is True where it ends at a prompt that nothing known caused."""

    steps: list[Step] = field(default_factory=list)
    reached: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def weakest(self) -> Link | None:
        """The least sure link of it."""
        return max((step.link for step in self.steps if step.link), key=lambda link: link.strength, default=None)


def node_of(exchange: str, item: int | None = None) -> str:
    """The name of a node."""
    return exchange if item is None else f"{exchange}#{item}"


def parts_of(node: str) -> tuple[str, int | None]:
    """The exchange and the item that a node names. Raises ValueError."""
    exchange, mark, number = node.partition("#")
    if not mark:
        return exchange, None
    if not (number.isascii() and number.isdecimal() and len(number) <= 6):
        raise ValueError(node)
    return exchange, int(number)
