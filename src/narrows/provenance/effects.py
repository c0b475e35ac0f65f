"""Rules about AWS calls, leases, processes and contents. As in `rules`, each docstring says what its links claim."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from narrows.core.values import Item
from narrows.provenance.known import Command, Known
from narrows.provenance.model import Evidence, Exchange, Link, node_of
from narrows.provenance.texts import fit, partly_in, whole_in

LATE_NS = 3_600 * 1_000_000_000
"""How long after its result a command may still be running, in the background."""
NEAR_NS = 60 * 1_000_000_000
MAX_FITTING = 32
_WRITTEN = ("content", "new_string", "file_text", "new")
"""Where a tool call's input holds a file's new content."""


def lease(known: Known, x: Exchange) -> Iterator[Link]:
    """A call came of the process that its lease was minted for.

    Proven where the kernel named that process to the gateway: the lease went to it, and this call bears it. Whoever the
    process handed the lease on to could use it too. Reported where the client named the process.
    """
    minted = known.leases.get(x.lease) if x.lease and not x.minted else None
    if minted is not None and known.rank[minted.id] < known.rank[x.id]:
        named = "the kernel named" if minted.kernel else "its client named"
        why = f"its lease {x.lease} was minted for a process that {named}"
        evidence = Evidence.PROVEN if minted.kernel else Evidence.REPORTED
        yield Link(x.id, minted.id, "lease", evidence, why)


def trace(known: Known, x: Exchange) -> Iterator[Link]:
    """A call came of what bears the same span, or names a tool call as its application.

    Reported: the client sends the identifiers. A span that several reports share is the session's, and no link.
    """
    for kind, value in x.refs:
        if kind == "app":
            for node in (*known.calls.get(value, ()), *known.reports.get(value, ())):
                if known.before(node, x):
                    why = f"the call names the tool call {value} as its application"
                    yield Link(x.id, node, "application", Evidence.REPORTED, why)
        elif kind == "span":
            among = [y for y in known.refs.get((kind, value), ()) if y.is_model or y.is_event or y.service == "otlp"]
            if len(among) == 1:
                yield from _of_span(known, x, among[0], value)


def _of_span(known: Known, x: Exchange, y: Exchange, span: str) -> Iterator[Link]:
    why = f"both bear the trace context's span {span}"
    if y.service != "otlp":
        if known.rank[y.id] < known.rank[x.id]:
            called = [n for n, item in enumerate(y.items) if item.type in ("tool_call", "command")]
            yield Link(x.id, node_of(y.id, called[0] if called else None), "trace", Evidence.REPORTED, why)
        return
    for item in y.items:  # a batch of spans comes after what it tells of: what counts is the call that it names
        data = item.data if isinstance(item.data, dict) else {}
        if item.id and span in (data.get("span"), data.get("span_id"), data.get("spanId")):
            for node in (*known.calls.get(item.id, ()), *known.reports.get(item.id, ())):
                if known.before(node, x):
                    yield Link(x.id, node, "trace", Evidence.REPORTED, f"{why}, which names the tool call {item.id}")


def process(known: Known, x: Exchange) -> Iterator[Link]:
    """A minted lease came of the tool call whose command a process of its tree runs.

    Reported where the command's whole text stands in the arguments of such a process and the lease was minted between
    the answer that called for it and the request that carries its result (where a WebSocket carried both: before it
    ended); the last such call, if it is the only one that was surely running. Otherwise inferred: a part of the text, a
    command whose result had been told already (it may run in the background), several equal commands at once, or time
    alone.
    """
    if not x.minted:
        return
    running, late = _running(known, x)
    whole = [(command, where) for command in running if (where := whole_in(command.text, x.processes, known.budget))]
    sure = [found for found in whole if found[0].until_ns] or whole[:1]
    # One call is often reported twice, with its id and without (the text alone): it counts once.
    calls = len({command.id for command, _ in sure if command.id}) or min(len(sure), 1)
    for command, where in sure:
        why = f"the command and the lease's process tree: {where}"
        if calls == 1:
            yield Link(x.id, command.node, "process tree", Evidence.REPORTED, f"{why}, while the call ran")
        else:
            why += f"; {calls} equal calls ran then"
            yield Link(x.id, command.node, "process tree", Evidence.INFERRED, why, round(0.9 / calls, 3))
    for command, where in whole:
        if command.id and (command, where) not in sure:
            why = f"the command and the lease's process tree: {where}; an equal call before"
            yield Link(x.id, command.node, "process tree", Evidence.INFERRED, why, 0.4)
    if not whole:
        yield from _partly(known, x, running, late)


def _partly(known: Known, x: Exchange, running: list[Command], late: list[Command]) -> Iterator[Link]:
    for command in late:
        if where := whole_in(command.text, x.processes, known.budget):
            why = f"the command and the lease's process tree: {where}; its result had been told before"
            yield Link(x.id, command.node, "process tree", Evidence.INFERRED, why, 0.7)
    alone = len({command.id or command.text for command in running}) == 1
    for command in running:
        score, where = partly_in(command.text, x.processes, known.budget)
        if score:
            why = f"the command and the lease's process tree: {where}, while the call ran"
            yield Link(x.id, command.node, "process tree", Evidence.INFERRED, why, score)
        else:
            why = f"the call {'alone ' if alone else ''}ran when the lease was minted; nothing else joins them"
            yield Link(x.id, command.node, "time", Evidence.INFERRED, why, 0.3 if alone else 0.1)


def _running(known: Known, x: Exchange) -> tuple[list[Command], list[Command]]:
    """The commands that ran when `x` began, and those whose result had been told by then: the latest first."""
    at_ns = x.started_ns
    running: list[Command] = []
    late: list[Command] = []
    for command in known.commands_before(at_ns):
        if not known.before(command.node, x):
            continue
        if not command.until_ns or command.until_ns >= at_ns:
            running.append(command)
        elif at_ns - command.until_ns <= LATE_NS:
            late.append(command)
        if len(running) >= MAX_FITTING:
            break
    return running, late[:MAX_FITTING]


def nearest(known: Known, x: Exchange) -> Iterator[Link]:
    """A call that nothing identifies came of the command that fits it best, by time and text.

    Inferred always. The score adds up: the command ran when the call began (0.3) or had ended at most a minute before
    (0.1), its text holds the operation (0.3) and the service (0.05) as the AWS CLI or an SDK spells them, and what the
    call acts on (0.2).
    """
    running, late = _running(known, x)
    for command in [*running, *late]:
        score, when = 0.3, "it ran when the call began"
        if command.until_ns and command.until_ns < x.started_ns:
            if x.started_ns - command.until_ns > NEAR_NS:
                continue
            score, when = 0.1, "it had ended less than a minute before the call"
        elif not command.until_ns and x.started_ns - command.since_ns > LATE_NS:
            score, when = 0.05, "it is not known when it ended"
        more, what = fit(command.text, x.service, x.operation, x.names, known.budget)
        why = f"{when}; {what}" if what else f"{when}; its text does not name the call"
        yield Link(x.id, command.node, "time and text", Evidence.INFERRED, why, round(score + more, 3))


def same_bytes(known: Known, x: Exchange) -> Iterator[Link]:
    """What a call carries has the same bytes as what was written before: a file's edit, or an answer's code.

    Proven: the SHA-256 digests are equal, the gateway has computed both. It says that the bytes are the same, and no
    more: not that these were copied from there.
    """
    for kind, value in x.refs:
        if kind != "file":
            continue
        for y in known.refs.get((kind, value), ()):
            if known.rank[y.id] < known.rank[x.id] and (y.is_model or y.is_event):
                why = f"the bytes are the same: SHA-256 {value[:16]}..."
                yield Link(x.id, _written(y, value), "same bytes", Evidence.PROVEN, why)


def _written(x: Exchange, wanted: str) -> str:
    """The item whose content has that digest; the exchange where that cannot be said."""
    for n, item in enumerate(x.items):
        for text in _contents(item):  # a file's last line end is often not in what a model writes
            if wanted in (_digest(text), _digest(text + "\n"), _digest(text.removesuffix("\n"))):
                return node_of(x.id, n)
    edits = [n for n, item in enumerate(x.items) if item.type in ("file_edit", "code")]
    return node_of(x.id, edits[0]) if len(edits) == 1 else x.id


def _contents(item: Item) -> list[str]:
    if item.type not in ("file_edit", "code", "tool_call"):
        return []
    found = [item.text] if item.text else []
    if isinstance(item.data, dict):
        found += [item.data[key] for key in _WRITTEN if isinstance(item.data.get(key), str)]
    return found


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
