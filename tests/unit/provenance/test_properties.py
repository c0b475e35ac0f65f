"""Whatever a session holds: chains end, nothing is claimed that is not known, and no size of it stops the answer."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.values import Item
from narrows.provenance.chain import Provenance
from narrows.provenance.model import Evidence, Exchange, Link, Process, parts_of
from narrows.provenance.timeline import timeline

from .conversations import SECOND, T0

IDS = st.sampled_from(["", "a", "b"])
TEXTS = st.sampled_from(["", "aws s3 ls", "aws s3 ls | cat", "do it", "<output>", "x" * 300])
REFS = st.lists(
    st.tuples(
        st.sampled_from(
            ["tool_call", "agent_session", "turn", "message", "previous", "span", "trace", "app", "file", "lease"]
        ),
        st.sampled_from(["a", "b"]),
    ),
    max_size=4,
)
ITEMS = st.lists(
    st.builds(
        Item,
        st.sampled_from(
            [
                "system",
                "prompt",
                "answer",
                "code",
                "tool_call",
                "tool_result",
                "command",
                "subagent",
                "file_edit",
                "process",
                "hostile",
            ]
        ),
        TEXTS,
        IDS,
        st.sampled_from(["", "bash", "Bash"]),
        st.one_of(st.none(), TEXTS, st.builds(lambda text: {"command": text, "prompt": text}, TEXTS)),
        st.booleans(),
        st.sampled_from(["request", "response"]),
    ),
    max_size=5,
)
PROCESSES = st.lists(
    st.builds(
        lambda words: Process(1, tuple(words)), st.lists(st.sampled_from(["sh", "-c", "aws", "s3", "ls", "aws s3 ls"]))
    ),
    max_size=3,
)
KINDS = st.sampled_from(
    [
        ("llm.message", "anthropic", "messages"),
        ("agent.event", "cursor", "preToolUse"),
        ("aws.call", "s3", "ListBuckets"),
        ("agent.event", "narrows", "lease.issued"),
        ("agent.event", "otlp", "traces"),
        ("aws.call", "bedrock-runtime", "Converse"),
        ("", "", ""),
    ]
)


@st.composite
def sessions(draw: st.DrawFn) -> list[Exchange]:
    """Exchanges that share few identifiers and few moments."""
    found = []
    for n in range(draw(st.integers(1, 8))):
        kind, service, operation = draw(KINDS)
        start = T0 + draw(st.integers(0, 4)) * SECOND
        found.append(
            Exchange(
                f"x{n}",
                kind,
                service,
                operation,
                start,
                start + draw(st.integers(-1, 2)) * SECOND,
                start,
                tuple(draw(ITEMS)),
                tuple(draw(REFS)),
                "prod",
                "agent",
                "",
                draw(st.sampled_from(["", "m"])),
                draw(st.sampled_from(["", "L1", "L2"])),
                tuple(draw(PROCESSES)),
                draw(st.booleans()),
                ("ls",),
                draw(st.integers(0, 3)),
            )
        )
    return found


def _every_link(known: Provenance) -> list[Link]:
    nodes = [node for x in known.known.ordered for node in (x.id, *(f"{x.id}#{n}" for n in range(len(x.items))))]
    return [link for node in nodes for link in known.links(node)]


def _holds(known: Provenance, link: Link) -> bool:
    """What must be so for a link to be proven, said once more and from the exchanges alone."""
    exchanges = known.known.by_id
    effect, item = parts_of(link.effect)
    cause, other = parts_of(link.cause)
    x, y = exchanges[effect], exchanges[cause]
    if link.rule == "same exchange":
        if x is not y or item is None:
            return False
        part = other is not None and x.items[other].type == "tool_call" and x.items[other].id == x.items[item].id != ""
        answered = x.is_model and x.items[item].said_by == "response"
        return part or (answered and (other is None or x.items[other].said_by == "request"))
    if link.rule == "lease":
        issued = (y.kind, y.service, y.operation) == ("agent.event", "narrows", "lease.issued")
        return issued and y.kernel and y.lease == x.lease != "" and y.started_ns <= x.started_ns
    if link.rule == "same bytes":
        return bool({v for k, v in x.refs if k == "file"} & {v for k, v in y.refs if k == "file"})
    return False


@settings(max_examples=300, deadline=None)
@given(sessions())
def test_proven_is_only_what_its_rule_demands(talk: list[Exchange]) -> None:
    known = Provenance(talk)
    for link in _every_link(known):
        assert link.evidence is not Evidence.PROVEN or _holds(known, link), link
        assert 0 < link.score <= 1 and (link.score < 1 or link.evidence is not Evidence.INFERRED)
        assert link.why and link.rule
        x, y = known.known.exchange(link.effect), known.known.exchange(link.cause)
        assert x is y or known.known.rank[y.id] < known.known.rank[x.id]


@settings(max_examples=200, deadline=None)
@given(sessions(), st.data())
def test_chains_end_and_what_is_below_leads_back(talk: list[Exchange], data: st.DataObject) -> None:
    known = Provenance(talk)
    x = data.draw(st.sampled_from(talk))
    chain = known.up(x.id)
    nodes = [step.node for step in chain.steps]
    assert len(nodes) == len(set(nodes))
    tree = known.down(x.id)
    below = [caused.node for caused in tree.nodes]
    assert len(below) == len(set(below)) and not tree.cut
    for caused in tree.nodes:
        assert known.links(caused.node)[0] == caused.link
        assert caused.link.cause in {*tree.roots, *below}


@settings(max_examples=100, deadline=None)
@given(sessions())
def test_a_timeline_has_everything_once_in_order(talk: list[Exchange]) -> None:
    entries = timeline(talk)
    nodes = [entry.node for entry in entries]
    assert len(nodes) == len(set(nodes)) and {parts_of(node)[0] for node in nodes} == {x.id for x in talk}
    assert [e.time_ns for e in entries] == sorted(e.time_ns for e in entries)
    first = set[str]()
    for entry in entries:
        assert not entry.same_as or entry.same_as in first
        first.add(entry.node)


def _large(count: int, **hostile: Any) -> list[Exchange]:
    """Turns of a model call, a report, a lease and calls; with `hostile`, all share their identifiers and texts."""
    same = bool(hostile)
    talk: list[Exchange] = []
    for n in range(count // 5):
        at = T0 + n * 5 * SECOND
        tool, lease = ("t", "L") if same else (f"t{n}", f"L{n}")
        command = hostile.get("command") or f"aws s3api put-object --bucket b --key {n}"
        asked = Item("prompt", "go") if n % 20 == 0 else Item("tool_result", "ok", "t" if same else f"t{n - 1}")
        refs = (("agent_session", "s"), ("message", tool), ("file", "f" if same else f"{n}"))
        talk += [
            Exchange(
                f"{n:08}m",
                "llm.message",
                "anthropic",
                "messages",
                at,
                at + SECOND,
                at,
                model="m",
                messages=2 * n + 1,
                items=(asked, Item("tool_call", "", tool, "Bash", {"command": command}, said_by="response")),
                refs=refs,
            ),
            Exchange(
                f"{n:08}h",
                "agent.event",
                "claude-code",
                "PreToolUse",
                at + SECOND,
                at + SECOND,
                at + SECOND,
                items=(Item("command", command, tool),),
                refs=refs,
            ),
            Exchange(
                f"{n:08}l",
                "agent.event",
                "narrows",
                "lease.issued",
                at + 2 * SECOND,
                at + 2 * SECOND,
                lease=lease,
                kernel=True,
                processes=(Process(n, ("sh", "-c", hostile.get("argument", command))),) * hostile.get("tree", 1),
            ),
            Exchange(
                f"{n:08}c", "aws.call", "s3", "PutObject", at + 3 * SECOND, at + 3 * SECOND, lease=lease, refs=refs
            ),
            Exchange(f"{n:08}d", "aws.call", "s3", "PutObject", at + 3 * SECOND, at + 3 * SECOND),
        ]
    return talk


def test_ten_thousand_exchanges_are_answered_in_a_few_seconds() -> None:
    began = time.process_time()
    known = Provenance(_large(10_000))
    chain = known.up("00001999c")
    assert chain.reached and len(chain.steps) == 2 + 1 + 2 * 20 and chain.weakest is not None
    assert chain.weakest.evidence is Evidence.REPORTED
    took_up = time.process_time() - began
    tree = known.down("00000000m", 100_000)
    assert len(tree.nodes) > 100
    took = time.process_time() - began
    assert took_up < 4 and took < 15, (took_up, took)
    assert len(timeline(_large(10_000))) >= 10_000


def test_a_hostile_session_costs_no_more() -> None:
    long = "a" * 16_000
    talk = _large(10_000, command=long, argument="a" * 15_999 + "b" + "a" * 16_000, tree=30)
    began = time.process_time()
    known = Provenance(talk)
    known.up("00001999c")
    known.down("00000000m")
    took = time.process_time() - began
    assert took < 20, took
    assert len(known.up("00001999c").steps) <= 10_000


def test_what_is_beyond_the_limit_is_said() -> None:
    talk = [Exchange(f"{n:06}", "aws.call", "s3", "GetObject", T0 + n) for n in range(10_001)]
    assert "only the first 10000 of 10001" in Provenance(talk).up("000000").notes[0]
