"""What a session's exchanges hold, found by identifier and by time: made once, asked by every rule.

Lists behind an identifier are bounded (`MAX_SAME`), so that a session whose every exchange bears the same ones costs
no more than another. Everything is in the order of time; `rank` is an exchange's place in it, and no cause has a higher
rank than its effect: so no chain can loop.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from narrows.core.values import Item
from narrows.provenance.model import MAX_EXCHANGES, MAX_NODES, Exchange, node_of
from narrows.provenance.texts import Budget, command_of

MAX_SAME = 16
MAX_BACK = 256
"""How many commands before a moment are looked at."""
_BEFORE = frozenset({"tool_call", "command"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a model or agent said it runs. `until_ns` is when its result was told, 0 where that is not known.

    `node` is the item that says it: the tool call, where the command is only read out of it.
    """

    text: str
    node: str
    id: str
    since_ns: int
    until_ns: int


class Known:
    """See the module. `notes` says what was left out."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        ordered = sorted(exchanges, key=lambda x: (x.started_ns, x.id))
        self.notes: list[str] = []
        self.budget = Budget()
        if len(ordered) > MAX_EXCHANGES:
            self.notes.append(f"only the first {MAX_EXCHANGES} of {len(ordered)} exchanges were looked at")
            ordered = ordered[:MAX_EXCHANGES]
        self.ordered = ordered
        self.by_id = {x.id: x for x in ordered}
        self.rank = {x.id: at for at, x in enumerate(ordered)}
        self.calls: dict[str, list[str]] = {}
        """Tool call id -> the items of models' answers that call it."""
        self.reports: dict[str, list[str]] = {}
        """Tool call id -> the agents' reports of the call, before it ran where the agent says so."""
        self.results: dict[str, list[str]] = {}
        """Tool call id -> the items that carry its result, to the model or to us."""
        self.refs: dict[tuple[str, str], list[Exchange]] = {}
        self.leases: dict[str, Exchange] = {}
        self.prompts: dict[str, list[str]] = {}
        """Agent session -> the agent's reports of prompts in it, in order."""
        self.asked: dict[str, list[Exchange]] = {}
        """Agent session -> the model calls in it, in order."""
        self.models: list[Exchange] = []
        self.subagents: dict[bytes, list[str]] = {}
        """Digest of a text -> the items that start a subagent with it."""
        self._nodes = 0
        for x in ordered:
            self._take(x)
        self.commands = self._commands()
        self._since = [command.since_ns for command in self.commands]

    def _take(self, x: Exchange) -> None:
        for kind, value in x.refs:
            _add(self.refs, (kind, value), x)
        session = x.ref("agent_session")
        if x.is_model:
            self.models.append(x)
            if session:
                self.asked.setdefault(session, []).append(x)
        if x.minted and x.lease:
            self.leases.setdefault(x.lease, x)
        self._nodes += len(x.items) + 1
        if self._nodes > MAX_NODES:
            if "items" not in "".join(self.notes):
                self.notes.append(f"the items beyond the first {MAX_NODES} were not looked at")
            return
        for n, item in enumerate(x.items):
            self._take_item(x, node_of(x.id, n), item, session)

    def _take_item(self, x: Exchange, node: str, item: Item, session: str) -> None:
        if item.type in _BEFORE and item.id:
            _add_once(self.calls if x.is_model and item.said_by == "response" else self.reports, item.id, node)
        elif item.type == "tool_result" and item.id:
            _add(self.results, item.id, node)
        elif item.type == "prompt" and x.is_event:
            self.prompts.setdefault(session, []).append(node)
        text = item.text if item.type == "subagent" else ""
        if item.type in ("tool_call", "subagent") and isinstance(item.data, dict):
            text = text or str(item.data.get("prompt") or "")
        if text:
            _add(self.subagents, digest(text), node)

    def _commands(self) -> list[Command]:
        found: list[Command] = []
        left = MAX_NODES
        for x in self.ordered:
            if not (x.is_model or x.is_event) or left < 0:
                continue
            left -= len(x.items)
            if not x.operation.lower().startswith(("after", "post")):
                found += self._commands_of(x)
        found.sort(key=lambda command: command.since_ns)
        return found

    def _commands_of(self, x: Exchange) -> Iterator[Command]:
        """The commands of one exchange, each once, though a tool call and what was read out of it both say it."""
        called = {item.id: n for n, item in reversed(list(enumerate(x.items))) if item.type == "tool_call"}
        told = any(item.type == "command" for item in x.items)
        said: set[tuple[str, str]] = set()
        for n, item in enumerate(x.items):
            if x.is_model and (item.said_by != "response" or (called and item.id not in called)):
                continue
            if item.type == "code" and told:
                continue
            text = command_of(item)
            if text and (item.id, text) not in said:
                said.add((item.id, text))
                node = node_of(x.id, called.get(item.id, n))
                yield Command(text, node, item.id, x.answered_ns or x.started_ns, self._until(x, item))

    def _until(self, x: Exchange, item: Item) -> int:
        """When the result of a command was told, at the latest; 0 if it never was, or cannot be known.

        A WebSocket carries a call and its result in one exchange: then all that is known is when that ended.
        """
        if item.id:
            tellers = [self.exchange(node) for node in self.results.get(item.id, ())]
            told = [y.ended_ns if y.id == x.id else y.started_ns for y in tellers]
            return min((at for at in told if at >= x.started_ns), default=0)
        if x.is_model:
            after = self.following(x)
            return after.started_ns if after else 0
        return 0

    def following(self, x: Exchange) -> Exchange | None:
        """The model call after this one: of its agent's session, else of its connection."""
        session = x.ref("agent_session")
        among: Sequence[Exchange] = self.asked.get(session, ()) if session else self.models
        at = bisect_right(among, (x.ended_ns, x.id), key=lambda y: (y.started_ns, y.id))
        for y in among[at : at + MAX_SAME]:
            if y.connection == x.connection and y.id != x.id:
                return y
        return None

    def preceding(self, x: Exchange, among: Sequence[Exchange]) -> Iterator[Exchange]:
        """Those of `among` (in order) that began before `x`, the nearest first, a bounded number."""
        at = bisect_left(among, self.rank[x.id], key=lambda y: self.rank[y.id])
        return reversed(among[max(0, at - MAX_BACK) : at])

    def commands_before(self, at_ns: int) -> Iterator[Command]:
        """Commands that had been said by then, the latest first, a bounded number."""
        at = bisect_right(self._since, at_ns)
        return reversed(self.commands[max(0, at - MAX_BACK) : at])

    def exchange(self, node: str) -> Exchange:
        """The exchange of a node that is known."""
        return self.by_id[node.partition("#")[0]]

    def item(self, node: str) -> Item | None:
        """The item of a node; None where the node is a whole exchange."""
        exchange, mark, n = node.partition("#")
        return self.by_id[exchange].items[int(n)] if mark else None

    def before(self, node: str, x: Exchange) -> bool:
        """Whether a node's exchange came before `x`."""
        return self.rank[node.partition("#")[0]] < self.rank[x.id]


def _add_once(table: dict[str, list[str]], key: str, node: str) -> None:
    """Add a node unless its exchange has one there already: the command of a call is a part of it."""
    held = table.get(key, ())
    if not any(other.partition("#")[0] == node.partition("#")[0] for other in held):
        _add(table, key, node)


def _add(table: dict[object, list[object]] | dict, key: object, value: object) -> None:  # type: ignore[type-arg]
    held = table.setdefault(key, [])
    if len(held) < MAX_SAME:
        held.append(value)


def digest(text: str) -> bytes:
    """What equal texts have in common, white space at their ends aside."""
    return sha256(text.strip().encode("utf-8", "surrogatepass")).digest()
