"""Describes a recorded report of an agent: hook events of six agents, OTLP batches, and leases minted for processes.

Never raises on hostile bytes. What is not understood stays as it came: an unknown event, or an unknown agent's, is a
`notice` with the payload's text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narrows.core.values import Described, StoredExchange
from narrows.session.agents import claude_code, codex, copilot, cursor, gemini, lease, names, opencode, otlp
from narrows.session.agents.told import Told, clean, scalars, shown
from narrows.session.http.messages import Message, read_request, read_response

SEARCH = 64 << 10
"""Characters of search text."""
RAW = 64 << 10
"""Characters of a payload that is shown as it came."""

_AGENTS: dict[str, Callable[[Told], bool]] = {
    "cursor": cursor.describe,
    "claude-code": claude_code.describe,
    "codex": codex.describe,
    "gemini": gemini.describe,
    "copilot": copilot.describe,
    "opencode": opencode.describe,
}


class AgentDescriber:
    """Implements `core.ports.Describe` for exchanges of kind `agent.event`."""

    def __call__(self, exchange: StoredExchange) -> Described:
        """Describe one exchange."""
        out = Described()
        facts = exchange.request_facts
        request = read_request(exchange.request)
        response = read_response(exchange.response, request.method, cut=exchange.response_truncated)
        if not exchange.response:
            response.problems.clear()  # no answer is an outcome of the exchange, not a decoding problem
        status = exchange.response_facts.get("status")
        out.status = response.status or (status if isinstance(status, int) else 0)
        out.service = _fact(facts, "service") or _agent_of(request.target)
        out.operation = _fact(facts, "operation")
        cut = exchange.request_truncated or not request.whole
        _OTHERS.get(out.service, _hook)(out, request, response, facts, cut)
        out.problems = [clean(problem) for problem in (request.problems + response.problems + out.problems)[:20]]
        out.text = _search_text(out)
        return out


def _fact(facts: dict[str, object], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _agent_of(target: bytes) -> str:
    """The agent in a request's path, where the facts do not say it."""
    word = target.partition(b"?")[0].removeprefix(b"/_narrows/events/")
    return word.decode("latin-1") if word.replace(b"-", b"").isalnum() else ""


def _hook(out: Described, request: Message, response: Message, facts: dict[str, object], cut: bool) -> None:
    value = names.parse(request.body)
    out.agent = out.service
    hint = request.header(b"x-narrows-event")
    out.operation = out.operation or names.name_of(out.service, value, hint)
    told = Told(out.operation, value if isinstance(value, dict) else {}, out)
    _verdict(out, response)
    if not isinstance(value, dict):
        told.problem(
            f"only the first {len(request.body)} bytes of the payload were read" if cut
            else "the payload is not a JSON object"
        )  # fmt: skip
        told.notice(_raw(request.body))
        return
    out.parameters = scalars(value)
    whole = value.get("narrows_cut")
    if isinstance(whole, dict):
        told.problem(f"a payload of {whole.get('bytes')} bytes came: too long to be recorded, see its SHA-256")
        told.ref("agent_session", names.session_of(value))
        told.notice(shown(whole.get("first")), data={"bytes": whole.get("bytes"), "sha256": whole.get("sha256")})
        return
    describe = _AGENTS.get(out.service)
    if describe is None:
        told.ref("agent_session", names.session_of(value))
    if describe is None or not describe(told):
        told.notice(_raw(request.body))
    if not out.items:
        told.notice(_raw(request.body))


def _verdict(out: Described, response: Message) -> None:
    """A deny is the exchange's error: its reason is what the agent was told."""
    value = names.parse(response.body) if response.body else None
    if not isinstance(value, dict):
        return
    if value.get("decision") not in (None, "allow"):
        out.error_code = clean(shown(value["decision"])[:64])
        out.error_message = clean(shown(value.get("reason"))[:2000])
    elif response.status >= 400:
        told = value.get("error")
        value = told if isinstance(told, dict) else value
        out.error_code = clean(shown(value.get("code"))[:64])
        out.error_message = clean(shown(value.get("what") or value.get("title") or value.get("message"))[:2000])


def _otlp(out: Described, request: Message, response: Message, facts: dict[str, object], cut: bool) -> None:
    signal = out.operation or request.target.partition(b"?")[0].rpartition(b"/")[2].decode("latin-1")
    out.operation = signal
    told = Told(signal, {}, out)
    if cut:
        told.problem(f"only the first {len(request.body)} bytes of the batch were read")
    otlp.describe(told, request.body, request.header(b"content-type"))


def _lease(out: Described, request: Message, response: Message, facts: dict[str, object], cut: bool) -> None:
    out.operation = out.operation or "lease.issued"
    lease.describe(Told(out.operation, {}, out), request, response, facts)


_OTHERS: dict[str, Callable[[Described, Message, Message, dict[str, object], bool], None]] = {
    "otlp": _otlp,
    "narrows": _lease,
}


def _raw(body: bytes) -> str:
    """A payload's beginning as text; bytes that are not UTF-8 show as `\\xNN`."""
    return body[: RAW * 2].decode("utf-8", "backslashreplace")[:RAW]


def _search_text(out: Described) -> str:
    """What the items say, within bounds."""
    parts: list[str] = []
    room = SEARCH
    said: list[Any] = [part for item in out.items for part in (item.name, item.text)]
    for text in [*said, out.error_message]:
        if room <= 0:
            break
        if text:
            parts.append(text[:room])
            room -= len(text) + 1
    return "\n".join(parts)
