"""`narrows hook AGENT`: gives one report of an agent's hook to the gateway and prints the agent's own form of answer.

The payload on standard input goes to the gateway as it is; its decision comes back in the form that the agent reads
(`session.agents.answers`). A hook always answers, within its time-out, and never with a traceback. While the gateway
cannot be reached it allows and says so on standard error, or, with --fail-closed, denies whatever can be denied. What
the gateway itself refuses (a killed session) is a deny either way.

Exit codes are the agent's: 0 the answer is on standard output, 2 blocked where that is the agent's form, 1 the command
itself was wrong (2 with --fail-closed). Starts fast: nothing is imported here that is not needed.
"""

from __future__ import annotations

import os
import signal
import time

from narrows.cli import agent_sessions, hook_http
from narrows.cli.hook_report import MAX_PAYLOAD, Report
from narrows.cli.process import HEADER, ancestors, header
from narrows.core.errors import ConfigError, NarrowsError
from narrows.session.agents import answers, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType
    from typing import Any

USAGE = (
    "usage: narrows hook AGENT [--connection NAME]... [--event NAME] [--fail-closed] [--data DIR] [--timeout SECONDS]"
)
TIMEOUT_S = 5.0
ENDS = frozenset({"sessionEnd", "SessionEnd", "session.deleted"})
"""Events after which a session that a hook opened is closed."""
MAX_CLOSED = 8
"""Sessions of agents that died without a word which one hook closes when it opens its own."""


class _TimeUpError(Exception):
    """The hook's time is up."""


class Options:
    """The command's options."""

    __slots__ = ("agent", "connections", "data", "event", "fail_closed", "timeout_s")

    def __init__(self) -> None:
        self.agent = ""
        self.connections: list[str] = []
        self.event = ""
        self.data = ""
        self.fail_closed = False
        self.timeout_s = TIMEOUT_S


def parse(arguments: Sequence[str]) -> Options:
    """The options. Raises ConfigError."""
    found = Options()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, joined, value = word.partition("=")
        if word == "--fail-closed":
            found.fail_closed = True
        elif not word.startswith("-") and not found.agent:
            agent_sessions.folder("", word)
            found.agent = word
        elif name in ("--connection", "--event", "--data", "--timeout") and (joined or rest):
            value = value if joined else rest.pop(0)
            if name == "--connection":
                found.connections.append(value)
            elif name == "--timeout":
                found.timeout_s = _seconds(value)
            else:
                setattr(found, name[2:], value)
        else:
            raise ConfigError("The command was not understood", f"at {word!r}", USAGE)
    if not found.agent:
        raise ConfigError("The command was not understood", "no agent is named", USAGE)
    return found


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 600:
        raise ConfigError("The command was not understood", "--timeout is not 0.05 to 600 seconds", USAGE)
    return seconds


def main(arguments: Sequence[str]) -> int:
    """Answer one hook; returns the exit code. Never raises."""
    try:
        options = parse(arguments)
    except ConfigError as error:
        _say(str(error))
        return 2 if "--fail-closed" in arguments else 1
    report = Report(options.event)
    work = Work(options, report)
    try:
        decision, reason = _bounded(work)
        told = answers.answer(options.agent, report.event, decision, reason)
    except _TimeUpError:
        told = _without(options, report, f"there was no answer within {options.timeout_s:g} s")
    code = _print(told)
    work.finish()
    return code


def _bounded(work: Work) -> tuple[str, str]:
    """Decision and reason, with every failure turned into one of them. Raises _TimeUpError."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
    signal.setitimer(signal.ITIMER_REAL, work.options.timeout_s)
    try:
        work.report.read(work.options.agent)
        return work.ask()
    except NarrowsError as error:
        return work.failed(str(error))
    except OSError as error:
        return work.failed(error.strerror or type(error).__name__)
    except Exception as error:  # told, and answered in the agent's form: it can read nothing else
        if isinstance(error, _TimeUpError):
            raise
        return work.failed(f"the hook itself failed ({type(error).__name__})")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TimeUpError


def _without(options: Options, report: Report, why: str) -> answers.Answer:
    """The answer without the gateway's."""
    decision, reason = _failure(options, report, why)
    return answers.answer(options.agent, report.event, decision, reason)


def _failure(options: Options, report: Report, why: str) -> tuple[str, str]:
    if options.fail_closed and answers.can_block(options.agent, report.event):
        return "deny", f"Narrows could not record this, and this hook fails closed: {why}"
    _say(f"{report.event} is not on record: {why}")
    return "allow", ""


def _say(text: str) -> None:
    """One line on standard error."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))[:2000]
    _write(2, f"narrows: {line}\n".encode("utf-8", "replace"))


def _print(told: answers.Answer) -> int:
    if told.stderr:
        _say(told.stderr)
    if told.stdout and not _write(1, told.stdout + b"\n"):
        return 2 if told.code else 1
    return told.code


def _write(fd: int, data: bytes) -> bool:
    """Write all; False if nobody reads any more, who then needs no answer either."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        return False
    return True


class Work:
    """Finds the session and asks the gateway."""

    def __init__(self, options: Options, report: Report) -> None:
        self.options = options
        self.report = report
        self._own: agent_sessions.Record | None = None
        self._local: Mapping[str, Any] | None = None
        self._tree: list[dict[str, Any]] | None = None
        self._data = ""

    def failed(self, why: str) -> tuple[str, str]:
        """The decision where the gateway's is not to be had."""
        return _failure(self.options, self.report, why)

    def ask(self) -> tuple[str, str]:
        """The gateway's decision and its reason. Raises NarrowsError, OSError."""
        agent, event = self.options.agent, self.report.event
        if not answers.can_block(agent, event):
            signal.setitimer(signal.ITIMER_REAL, min(self.options.timeout_s, answers.patience(agent, event)))
        token, gateway = os.environ.get("NARROWS_TOKEN", ""), os.environ.get("NARROWS_GATEWAY", "")
        if token and gateway:
            status, raw = self._send(gateway, token)
        else:
            status, raw = self._send_own()
        value = names.parse(raw)
        fields = value if isinstance(value, dict) else {}
        if status in (401, 403):
            return "deny", _text(fields) or "the gateway does not know this session"
        decision = fields.get("decision")
        if status != 200 or not isinstance(decision, str):
            return self.failed(_text(fields) or f"the gateway answered with HTTP status {status}")
        if decision == "allow" and self.report.cut:
            return self._not_whole()
        return decision, str(fields.get("reason") or "")

    def _not_whole(self) -> tuple[str, str]:
        size = self.report.cut
        return self.failed(f"its payload of {size} bytes is longer than {MAX_PAYLOAD}; its beginning and hash are")

    def _send(self, gateway: str, token: str) -> tuple[int, bytes]:
        path = f"/_narrows/events/{self.options.agent}"
        headers = [(HEADER, header(self.tree()))]
        if self.options.event:
            headers.append(("X-Narrows-Event", self.report.event))
        status, raw = hook_http.post(gateway, path, token, self.report.payload, tuple(headers), near=True)
        if status == 401:  # a local name is nobody's property: this may be another gateway
            status, raw = hook_http.post(gateway, path, token, self.report.payload, tuple(headers))
        return status, raw

    def _send_own(self) -> tuple[int, bytes]:
        """Send in the session of this agent, opened now if there is none, once more if it ended meanwhile."""
        record = self._session()
        status, raw = self._send(self._gateway(), record.token)
        if status not in (401, 403) or self._killed(record):
            return status, raw
        agent_sessions.forget(record, self.data())
        record = self._session()
        return self._send(self._gateway(), record.token)

    def _session(self) -> agent_sessions.Record:
        """This agent's session, kept or new."""
        agent, key, data = self.options.agent, self._key(), self.data()
        record = agent_sessions.load(agent, key, data)
        if record is None:
            with agent_sessions.Lock(agent, key, data):
                record = agent_sessions.load(agent, key, data) or self._adopted(key) or self._open(key)
        else:
            self._same_processes(record)
        self._own = record
        return record

    def _adopted(self, key: str) -> agent_sessions.Record | None:
        """The session that these processes opened before the agent's own id was known: for a key, before any hook."""
        found = agent_sessions.find(self.options.agent, _pairs(self._mine()), self.data())
        if found is None or not found.agent_session.startswith("process ") or found.agent_session == key:
            return None
        before = found.agent_session
        found.agent_session = key
        agent_sessions.store(found, self.data())
        found.agent_session = before
        agent_sessions.forget(found, self.data())
        found.agent_session = key
        return found

    def _key(self) -> str:
        """The agent's own session id; without one, its process."""
        if self.report.session:
            return self.report.session
        mine = self._mine()
        return f"process {mine[-1]['pid']}:{mine[-1]['start']}" if mine else "process"

    def _mine(self) -> list[Mapping[str, Any]]:
        from narrows.cli.hook_process import up_to_agent

        return up_to_agent(self.options.agent, self.tree()[1:])

    def _same_processes(self, record: agent_sessions.Record) -> None:
        """A conversation that goes on in another process, or a gateway that moved: commands find it by the record."""
        pairs = _pairs(self._mine())
        other = bool(pairs) and pairs[-1] not in record.process
        if other or record.gateway != self._gateway():
            record.process = (pairs if other else []) + record.process
            record.gateway = self._gateway()
            agent_sessions.store(record, self.data())

    def _open(self, key: str) -> agent_sessions.Record:
        from narrows.cli.hook_open import close_dead, open_session

        mine = self._mine()
        close_dead(self.options.agent, self.data(), self.local(), MAX_CLOSED)
        return open_session(
            self.local(),
            agent=self.options.agent,
            version=self.report.version,
            connections=self.options.connections,
            cwd=self.report.cwd,
            key=key,
            tree=mine,
            data=self.data(),
        )

    def _killed(self, record: agent_sessions.Record) -> bool:
        """Whether someone ended the session on purpose: then no other takes its place."""
        from narrows.cli.hook_open import state_of

        return state_of(self.local(), record.session) == "killed"

    def finish(self) -> None:
        """After the answer: close the session that a hook opened, if its agent said that it is over."""
        if self._own is None or self.report.event not in ENDS:
            return
        from narrows.cli.hook_open import close

        left = min(self.options.timeout_s, answers.patience(self.options.agent, self.report.event))
        try:
            signal.setitimer(signal.ITIMER_REAL, max(0.3, left - time.perf_counter() + _START))
            close(self.local(), self._own, self.data())
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (NarrowsError, OSError, _TimeUpError) as error:
            _say(f"the session {self._own.session} was not closed: {error or 'there was no answer in time'}")

    def tree(self) -> list[dict[str, Any]]:
        """This process and those above it, nearest first."""
        if self._tree is None:
            self._tree = ancestors()
        return self._tree

    def data(self) -> str:
        """The data directory."""
        if not self._data:
            self._data = self.options.data or os.environ.get("NARROWS_DATA", "")
            if not self._data:
                from narrows.settings import load

                self._data = str(load().data)
            self._data = os.path.expanduser(self._data)  # noqa: PTH111
        return self._data

    def local(self) -> Mapping[str, Any]:
        """What `run/local.json` says. Raises NoAnswerError if no gateway runs."""
        if self._local is None:
            raw = agent_sessions.owner_only(f"{self.data()}/run/local.json")
            value = names.parse(raw) if raw is not None else None
            if not isinstance(value, dict) or not {"api", "gateway", "token"} <= value.keys():
                raise hook_http.NoAnswerError(
                    "The gateway could not be reached", f"none runs on {self.data()}", "start it: narrows up --detach"
                )
            self._local = value
        return self._local

    def _gateway(self) -> str:
        return str(self.local()["gateway"])


_START = time.perf_counter()


def _pairs(tree: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    return [(int(one["pid"]), int(one["start"])) for one in tree]


def _text(fields: Mapping[str, Any]) -> str:
    """The reason in a refusal, whatever its form."""
    told = fields.get("error")
    fields = told if isinstance(told, dict) else fields
    parts = [fields.get(name) for name in ("reason", "title", "what", "message", "detail", "why")]
    return ": ".join(dict.fromkeys(part for part in parts if isinstance(part, str) and part))
