"""Rules about conversations: what a model was asked, answered and called, and what an agent reports of it.

Each rule takes what is known and an effect, and yields links to its causes. Its docstring says exactly what a link of
it claims, and what not. Rules about AWS calls and processes are in `effects`.
"""

from __future__ import annotations

from collections.abc import Iterator

from narrows.core.values import Item
from narrows.provenance.known import MAX_SAME, Known, digest
from narrows.provenance.model import Evidence, Exchange, Link, node_of
from narrows.provenance.texts import SHELLS

_OBSERVED = ("<returncode>", "<output>", "<result>", "observation:", "your last command", "exit code", '{"returncode"')
"""How programs that run a model's code blocks begin what they tell it of the outcome."""


_PARTS = frozenset({"command", "code", "file_edit", "file_read", "subagent"})
"""What is read out of a tool call beside it."""


def same_exchange(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """What a model answers came of what it was asked in the same exchange.

    Proven: both are the bytes of one request and its answer. It says that the model was asked this when it answered so,
    and nothing of why. The newest prompt of the request comes first, then the results it brought. What is read out of a
    tool call (its command, its edits) came of that call.
    """
    item = x.items[n]
    if item.id and item.type in _PARTS and (x.is_event or item.said_by == "response"):
        for at, other in enumerate(x.items):
            if other.type == "tool_call" and other.id == item.id and other.said_by == item.said_by:
                why = "it is a part of the call"
                yield Link(node_of(x.id, n), node_of(x.id, at), "same exchange", Evidence.PROVEN, why)
                return
    if not x.is_model or item.said_by != "response":
        return
    asked = [at for at, item in enumerate(x.items) if item.said_by == "request"]
    best = [at for at in reversed(asked) if x.items[at].type == "prompt"]
    best += [at for at in asked if x.items[at].type == "tool_result"]
    causes = [node_of(x.id, at) for at in best] or [x.id]
    for cause in causes:
        yield Link(node_of(x.id, n), cause, "same exchange", Evidence.PROVEN, "the answer is this very request's")


def tool_result(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """A result of a tool came of the call that bears the same id.

    Reported: the agent gives the id. It says that the agent took this for that call's result, not that it is.
    """
    item = x.items[n]
    if item.type != "tool_result" or not item.id:
        return
    for table, said in ((known.calls, "the model's call"), (known.reports, "the agent's report of the call")):
        nodes = [node for node in table.get(item.id, ()) if known.before(node, x)]
        for node in nodes:
            why = f"the result bears the id of {said}, {item.id}"
            yield Link(node_of(x.id, n), node, "tool result", Evidence.REPORTED, why)
        if nodes:  # the agent's report of the call is no other cause
            return


def reported_call(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """What an agent reports of a tool came of the model's call that bears the same id.

    Reported: the agent gives the id. It says that the agent acts on that call, not that it does what was called for.
    """
    item = x.items[n]
    if not x.is_event or not item.id:
        return
    for node in known.calls.get(item.id, ()):
        if known.before(node, x):
            why = f"the agent's report bears the id of the model's call, {item.id}"
            yield Link(node_of(x.id, n), node, "reported call", Evidence.REPORTED, why)
    if item.type in ("file_edit", "file_read", "tool_result"):
        for node in known.reports.get(item.id, ()):
            if known.before(node, x):
                why = f"both of the agent's reports bear the id {item.id}"
                yield Link(node_of(x.id, n), node, "reported call", Evidence.REPORTED, why)


def reported_turn(known: Known, x: Exchange, n: int | None) -> Iterator[Link]:
    """What an agent reports came of the prompt of its turn; without turns, of the last prompt in its session.

    Reported: the agent gives the turn's or its session's id. Where only the session is named, the order is what the
    gateway received: the link says that no later prompt was reported before.
    """
    if not x.is_event or (n is not None and x.items[n].type == "prompt"):
        return
    effect, turn, session = node_of(x.id, n), x.ref("turn"), x.ref("agent_session")
    if turn:
        for y in known.refs.get(("turn", turn), ()):
            if known.rank[y.id] < known.rank[x.id]:
                for at in _prompts(y):
                    why = f"the agent names the same turn, {turn}"
                    yield Link(effect, node_of(y.id, at), "turn", Evidence.REPORTED, why)
    if session and (last := _last(known, session, x)):
        why = f"it is the last prompt before in the agent's session {session}"
        yield Link(effect, last, "agent session", Evidence.REPORTED, why)


def _prompts(x: Exchange) -> list[int]:
    return [n for n, item in enumerate(x.items) if item.type == "prompt"]


def _last(known: Known, session: str, x: Exchange) -> str:
    """The last prompt that the agent reported of a session before `x`."""
    held = known.prompts.get(session, ())
    low, high = 0, len(held)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if known.before(held[middle], x) else (low, middle)
    return held[low - 1] if low else ""


def reported_prompt(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """A prompt on the wire came of the prompt that the agent reports of the same turn, or with the same text.

    Reported: the agent gives the turn's or session's id, and the report's text is in what was sent. Another text in the
    same turn is no link: agents put words of their own into the same place.
    """
    item = x.items[n]
    if not x.is_model or item.type != "prompt":
        return
    effect, turn, session = node_of(x.id, n), x.ref("turn"), x.ref("agent_session")
    found: list[tuple[str, str]] = []
    if turn:
        found += [
            (node_of(y.id, at), f"the agent reports it for the same turn, {turn}")
            for y in known.refs.get(("turn", turn), ())
            if y.is_event
            for at in _prompts(y)
        ]
    if session and (last := _last(known, session, x)):
        found.append((last, f"the agent reports it as the last prompt of its session {session}"))
    for node, why in found:
        told = known.item(node)
        if told is not None and told.text.strip() and told.text.strip() in item.text and known.before(node, x):
            yield Link(effect, node, "reported prompt", Evidence.REPORTED, why)


def subagent(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """A prompt came of the tool call that starts a subagent with exactly this text.

    Inferred: by the text alone. Two calls with the same text cannot be told apart by it.
    """
    item = x.items[n]
    if item.type != "prompt" or not item.text.strip():
        return
    calls: dict[str, str] = {}
    for node in known.subagents.get(digest(item.text), ()):
        starts = known.item(node)
        if starts is not None and known.before(node, x):
            calls.setdefault(starts.id or node, node)
    score = (0.9 if len(item.text.strip()) >= 20 else 0.6) / max(len(calls), 1)
    for node in calls.values():
        why = "a call started a subagent with exactly this text"
        yield Link(node_of(x.id, n), node, "subagent", Evidence.INFERRED, why, score)


def continued(known: Known, x: Exchange) -> Iterator[Link]:
    """A model call came of the one before it in its conversation.

    Reported where the request names the answer that it goes on from, or the agent names its session: then it is the
    call before in that session. Inferred where it is the last of the same model and connection with fewer messages. It
    says that the conversation went on, not what made it.
    """
    if not x.is_model:
        return
    for kind, previous in x.refs:
        if kind == "previous":
            for y in known.refs.get(("message", previous), ()):
                if known.rank[y.id] < known.rank[x.id]:
                    why = f"the request goes on from the answer {previous[:80]}"
                    yield Link(x.id, answer_of(y), "conversation", Evidence.REPORTED, why)
    session = x.ref("agent_session")
    if session:
        among = [y for y in known.preceding(x, known.asked.get(session, ()))
                 if 0 < y.ended_ns <= x.started_ns and y.messages < (x.messages or y.messages + 1)]  # fmt: skip
        exactly = [y for y in among[:MAX_SAME] if x.messages and x.messages - y.messages == 2]
        for y in (exactly or among)[:1]:
            why = f"it is the model call before in the agent's session {session}"
            yield Link(x.id, answer_of(y), "conversation", Evidence.REPORTED, why)
        return
    for y in known.preceding(x, known.models):
        same = (y.model, y.connection, y.service) == (x.model, x.connection, x.service)
        if same and 0 < y.ended_ns <= x.started_ns and 0 < y.messages < x.messages and not y.ref("agent_session"):
            exact = x.messages - y.messages == 2
            why = f"its request has {x.messages} messages, the one before {y.messages}"
            yield Link(x.id, answer_of(y), "conversation", Evidence.INFERRED, why, 0.8 if exact else 0.5)
            break


def observed(known: Known, x: Exchange, n: int) -> Iterator[Link]:
    """A text in a prompt's place came of the code that the answer before it gave to be run.

    For programs that run a model's code blocks and tell it the outcome as if a person had said it. As sure as that the
    conversation went on; made only where the text begins as such programs begin, and the answer holds shell code.
    """
    item = x.items[n]
    if not x.is_model or item.type != "prompt" or not item.text.lstrip()[:200].lower().startswith(_OBSERVED):
        return
    for link in continued(known, x):
        y = known.exchange(link.cause)
        code = [at for at, one in enumerate(y.items) if one.said_by == "response" and _runs(one)]
        if code:
            why = f"it reads as the outcome of the code in the answer before: {link.why}"
            yield Link(node_of(x.id, n), node_of(y.id, code[-1]), "observation", link.evidence, why, link.score)


def _runs(item: Item) -> bool:
    return item.type == "command" or (item.type == "code" and item.name.lower() in SHELLS)


def answer_of(x: Exchange) -> str:
    """The node that stands for what a model call led to: its last tool call or answer, else the whole exchange."""
    for wanted in ("tool_call", "answer", "code"):
        for n in reversed(range(len(x.items))):
            if x.items[n].type == wanted and x.items[n].said_by == "response":
                return node_of(x.id, n)
    return x.id
