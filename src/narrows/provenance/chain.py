"""The chain from an effect up to its prompt, and everything that a prompt caused.

Every node has at most one cause on the chain: the strongest of its links; the others are told beside it. A link whose
rule says only that bytes are the same leads on where no other is known. `same_bytes` has the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from narrows.provenance import effects, rules
from narrows.provenance.known import Known
from narrows.provenance.model import (
    MAX_ALTERNATIVES,
    MAX_NODES,
    MAX_STEPS,
    Chain,
    Exchange,
    Link,
    Step,
    node_of,
    parts_of,
)

_QUIET = frozenset({"system", "context", "thinking"})
"""Types of items that cause nothing by themselves."""


@dataclass(slots=True)
class Caused:
    """A node below another: `depth` 1 is directly caused. In the order of time within its cause."""

    node: str
    depth: int
    link: Link


@dataclass(slots=True)
class Tree:
    """Everything that some nodes caused. `roots` are those nodes; `cut` says that there is more."""

    roots: list[str] = field(default_factory=list)
    nodes: list[Caused] = field(default_factory=list)
    cut: bool = False
    notes: list[str] = field(default_factory=list)


class Provenance:
    """The links between the exchanges of one session. Not thread-safe; made for one question or a few."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self.known = Known(exchanges)
        self._links: dict[str, list[Link]] = {}

    def links(self, node: str) -> list[Link]:
        """Every known link from a node to its causes, the strongest first. Raises KeyError for an unknown node."""
        held = self._links.get(node)
        if held is None:
            found: dict[tuple[str, str], Link] = {}
            for link in self._causes(node):
                found.setdefault((link.cause, link.rule), link)
            held = sorted(found.values(), key=self._order)
            self._links[node] = held
        return held

    def _order(self, link: Link) -> tuple[object, ...]:
        weak = link.rule == "same bytes"
        if link.rule == "lease":  # it is as good as what it leads to: a process that nothing is known of explains less
            further = self.links(link.cause)
            return weak, max(link.strength, further[0].strength if further else (2, 0.0)), link.strength
        return weak, link.strength, link.strength

    def _causes(self, node: str) -> Iterable[Link]:
        exchange, n = parts_of(node)
        known, x = self.known, self.known.by_id[exchange]
        if n is not None and n >= len(x.items):
            raise KeyError(node)
        if n is not None and x.is_model:
            yield from self._causes_of_model_item(x, n)
        elif n is not None and x.is_event:
            yield from rules.same_exchange(known, x, n)
            yield from rules.reported_call(known, x, n)
            yield from rules.subagent(known, x, n)
            yield from rules.reported_turn(known, x, n)
        elif x.minted:
            yield from effects.process(known, x)
        elif x.is_event:
            main = self.main(x)
            if main != x.id:
                yield from (_moved(link, x.id) for link in self.links(main))
            else:
                yield from rules.reported_turn(known, x, None)
        elif x.kind == "llm.message":
            yield from rules.continued(known, x)
        elif x.kind != "agent.event":
            yield from self._causes_of_call(x)

    def _causes_of_model_item(self, x: Exchange, n: int) -> Iterable[Link]:
        known, item = self.known, x.items[n]
        if item.said_by == "response":
            yield from rules.same_exchange(known, x, n)
            return
        if item.type == "prompt":
            found = [*rules.reported_prompt(known, x, n), *rules.observed(known, x, n), *rules.subagent(known, x, n)]
            yield from found or self._nested(x, n)
        elif item.type == "tool_result":
            found = list(rules.tool_result(known, x, n))
            yield from found
            if not found:
                yield from (_moved(link, node_of(x.id, n)) for link in rules.continued(known, x))

    def _nested(self, x: Exchange, n: int) -> Iterable[Link]:
        """A prompt that a program asks over an AWS call: it came of that program, if a command started it."""
        for link in effects.lease(self.known, x) if x.kind == "aws.call" else ():
            if any(further.evidence.rank < 2 for further in self.links(link.cause)):
                yield _moved(link, node_of(x.id, n))

    def _causes_of_call(self, x: Exchange) -> Iterable[Link]:
        found = [*effects.lease(self.known, x), *effects.trace(self.known, x)]
        if x.is_model:
            found += rules.continued(self.known, x)
        yield from found or effects.nearest(self.known, x)
        yield from effects.same_bytes(self.known, x)

    def main(self, x: Exchange) -> str:
        """The node that an exchange stands for: a prompt, what is called, what is answered; else the exchange."""
        if x.is_model or x.is_event:
            for wanted in ("prompt", "tool_call", "command", "file_edit", "subagent", "tool_result"):
                for n, item in enumerate(x.items):
                    if item.type == wanted and (item.said_by == "request" or not x.is_model):
                        return node_of(x.id, n)
        return x.id

    def start(self, node: str) -> str:
        """Where a question about a node begins. Raises KeyError, ValueError."""
        exchange, n = parts_of(node)
        x = self.known.by_id[exchange]
        if n is not None:
            if n >= len(x.items):
                raise KeyError(node)
            return node
        if x.is_model:
            # What came of a model call is its answer.
            return next((node_of(x.id, n) for n, i in enumerate(x.items) if i.said_by == "response"), self.main(x))
        return self.main(x) if x.is_event else x.id

    def up(self, node: str) -> Chain:
        """The chain of a node. Raises KeyError for one that is not known, ValueError for what is no node."""
        chain = Chain(notes=list(self.known.notes))
        at, seen = self.start(node), set[str]()
        while at not in seen and len(chain.steps) < MAX_STEPS:
            seen.add(at)
            found = self.links(at)
            bytes_same = tuple(link for link in found if link.rule == "same bytes")
            others = tuple(link for link in found[1:] if link not in bytes_same)[:MAX_ALTERNATIVES]
            chain.steps.append(Step(at, found[0] if found else None, others, bytes_same[:MAX_ALTERNATIVES]))
            if not found:
                break
            at = found[0].cause
        self._only_others(chain)
        item = self.known.item(chain.steps[-1].node)
        chain.reached = chain.steps[-1].link is None and item is not None and item.type == "prompt"
        self._note_budget(chain.notes)
        return chain

    def down(self, node: str, most: int = 1000) -> Tree:
        """Everything whose chain leads through a node, at most `most` nodes. Raises as `up`."""
        exchange, n = parts_of(node)
        x = self.known.by_id[exchange]
        tree = Tree(notes=list(self.known.notes))
        tree.roots = [self.start(node)] if n is not None else self._roots(x)
        children: dict[str, list[Link]] = {}
        for effect in self._effects():
            if found := self.links(effect):
                children.setdefault(found[0].cause, []).append(found[0])
        waiting = [(link, 1) for root in reversed(tree.roots) for link in reversed(children.get(root, ()))]
        seen = set(tree.roots)
        while waiting:
            link, depth = waiting.pop()
            if link.effect in seen:
                continue
            if len(tree.nodes) >= most:
                tree.cut = True
                break
            seen.add(link.effect)
            tree.nodes.append(Caused(link.effect, depth, link))
            waiting += [(below, depth + 1) for below in reversed(children.get(link.effect, ()))]
        self._note_budget(tree.notes)
        return tree

    def _roots(self, x: Exchange) -> list[str]:
        """The nodes of an exchange that others can come of."""
        prompts = [node_of(x.id, n) for n, item in enumerate(x.items) if item.type == "prompt"]
        said = [node_of(x.id, n) for n, item in enumerate(x.items) if item.type not in _QUIET]
        return prompts or [x.id, *said]

    def _effects(self) -> Iterable[str]:
        """Every node that may be an effect, in the order of time, a bounded number."""
        left = MAX_NODES
        for x in self.known.ordered:
            left -= len(x.items) + 1
            if left < 0:
                return
            said = [node_of(x.id, n) for n, item in enumerate(x.items) if item.type not in _QUIET]
            if not (x.is_model or x.is_event) or not said or x.kind == "aws.call":
                yield x.id
            if x.is_model or x.is_event:
                yield from said

    def _only_others(self, chain: Chain) -> None:
        """Leave out what is no alternative: links to what the chain leads through anyway.

        Another call of the same answer is one: it has an id of its own.
        """
        through: dict[str, set[str]] = {}
        for step in chain.steps:
            through.setdefault(parts_of(step.node)[0], set()).add(self._item_id(step.node))
        for at, step in enumerate(chain.steps):
            others = tuple(
                link
                for link in step.alternatives
                if not (held := through.get(parts_of(link.cause)[0]))
                or ((told := self._item_id(link.cause)) and told not in held)
            )
            chain.steps[at] = replace(step, alternatives=others)

    def _item_id(self, node: str) -> str:
        item = self.known.item(node)
        return item.id if item is not None else ""

    def _note_budget(self, notes: list[str]) -> None:
        if self.known.budget.spent:
            notes.append("the session's commands are too many and too long to compare them all")


def _moved(link: Link, effect: str) -> Link:
    """The same link, of another node of the effect's exchange."""
    return replace(link, effect=effect)
