"""Requests under `/_narrows/`, which the gateway answers itself: agents' events, leases for processes, OTLP batches.

They take the same path as everything else (identify, decode, decide, record, answer), with a session's own token as
the caller's proof:

    POST /_narrows/events/AGENT                  a hook's payload, verbatim      {"decision", "reason", "exchange"}
    POST /_narrows/leases                        {"connection": NAME}            a lease for the process that asks
    POST /_narrows/otlp/v1/{traces,logs,metrics} OTLP/HTTP, JSON or protobuf     as the protocol has it

`/_narrows/` is no path of an AWS service: a bucket's name cannot begin with `_`.

Guarantees: what is recorded of bodies is masked (`masking`), also of those that were refused; a lease is on record
before it leaves, without its secret; the facts say which processes asked (`process`, nearest first) and how that is
known (`process_from`): `kernel` where the kernel named the process at the other end of a local socket and the
gateway looked itself, `client` where the caller says so.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

import orjson

from narrows.core.errors import Refusal
from narrows.core.values import Agent, Connection, Durability, Finding, Lease, Principal
from narrows.session.agents import names
from narrows.session.call import Call, Outbound, Reply
from narrows.session.events import masking
from narrows.session.events.process import read_header

PREFIX = b"/_narrows/"

OWN = Connection("narrows", kind="http", durability=Durability.STRICT)
"""Stands for the gateway itself, where a request is for no registered connection."""

MAX_EVENT = 16 * 1024 * 1024
MAX_OTLP = 16 * 1024 * 1024
MAX_LEASE = 64 * 1024
MAX_UNPACKED = 16 * 1024 * 1024
"""Longest body of each kind, and what a packed one may unpack to, bytes."""

SIGNALS = ("traces", "logs", "metrics")

_AGENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_OURS = frozenset({"narrows", "otlp"})
"""No agents: what is recorded of leases and batches bears these names, and an event must not look like one."""
_JSON = (b"Content-Type", b"application/json")


class Verdict(NamedTuple):
    """What an agent is told about what it reports: `allow` or `deny`, and why."""

    decision: str
    reason: str


def allow(call: Call, payload: object) -> Verdict:
    """Every event is allowed: nothing has been said against any."""
    return Verdict("allow", "")


class Connections(Protocol):
    """The part of the directory that this handler needs."""

    def connection(self, name: str) -> Connection | None:
        """The registered connection of that name."""
        ...

    def session_ended(self, session: bytes) -> str:
        """Why a session's tokens no longer work, or an empty string."""
        ...


class Leases(Protocol):
    """The part of identity that this handler needs."""

    def check_proxy_token(self, token: bytes, now_s: int) -> Lease:
        """The session whose own token it is. Raises Refusal."""
        ...

    def issue(
        self, *, session: bytes, connection: str, principal: Principal, agent: Agent, expires: int,
        now_s: int | None = None,
    ) -> Lease:  # fmt: skip
        """A new lease. Raises Refusal."""
        ...


class Asked(NamedTuple):
    """What a request is: `kind` is `events`, `leases` or `otlp`, `name` the agent or the signal."""

    kind: str
    name: str
    payload: object
    lease: Lease | None = None
    protobuf: bool = False


class EventsHandler:
    """Implements `narrows.session.call.Answering`. What is injected may be called for every request, in the loop.

    `event_name` names an event by agent, payload and what the header X-Narrows-Event says; `decide` answers it;
    `mask` gives what may rest of bytes, in the same length, and `scan` says what of them is a finding: looked for here,
    since what is masked is found by nobody later. `processes` gives the list for a client that the kernel named, or
    nothing.
    """

    kind = "agent.event"
    needs_credentials = False
    upgrades = False
    answers = True

    def __init__(
        self,
        connections: Connections,
        leases: Leases,
        *,
        event_name: Callable[[str, object, str], str] = names.name_of,
        decide: Callable[[Call, object], Verdict] = allow,
        mask: Callable[[bytes], bytes] = masking.mask,
        scan: Callable[[bytes], Sequence[Finding]] = lambda body: (),
        processes: Callable[[str], Sequence[dict[str, Any]]] = lambda client: (),
    ) -> None:
        self._connections = connections
        self._leases = leases
        self._event_name = event_name
        self._decide = decide
        self._mask = mask
        self._scan = scan
        self._processes = processes

    # -- who --------------------------------------------------------------------------------------------------

    def claims(self, call: Call) -> bool:
        """True for the gateway's own paths, asked of the gateway itself."""
        if call.form != "endpoint" or not call.head.target.startswith(PREFIX):
            return False
        call.kind = self.kind
        call.auth = _route(call.head.target)
        return True

    def identify(self, call: Call) -> None:
        """The session is that of the bearer token (RFC 6750 section 2.1). Raises Refusal: 401, 404, 405."""
        scheme, _, token = (call.head.get(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Refusal(
                "The request carries no token",
                "it needs `Authorization: Bearer` with the session's token",
                "run the command through `narrows run`, which sets NARROWS_TOKEN",
                code="session_token_missing",
                status=401,
            )
        try:
            lease = self._leases.check_proxy_token(token.strip(), int(call.now_s))
        except Refusal as refusal:
            refusal.status = 401  # not a proxy's 407
            raise
        call.lease = lease
        call.session = lease.session
        ended = self._connections.session_ended(lease.session)
        if ended:
            raise Refusal(
                f"The session is {ended}", "its token stopped working with it", "start a new one with `narrows run`",
                code="session_ended",
            )  # fmt: skip
        if not call.auth[0]:
            raise Refusal(
                "There is nothing at this path", "", "docs/agents.md lists the paths under /_narrows/",
                code="not_found", status=404,
            )  # fmt: skip
        if call.head.method != b"POST":
            raise Refusal("Only POST is taken here", code="method_not_allowed", status=405)
        call.connection = OWN

    def needs_body(self, call: Call) -> bool:
        """Always: a request is understood and answered as a whole."""
        return True

    def body_limit(self, call: Call) -> int:
        """As `MAX_EVENT`, `MAX_OTLP`, `MAX_LEASE` say."""
        return {"leases": MAX_LEASE, "otlp": MAX_OTLP}.get(call.auth[0], MAX_EVENT)

    # -- what -------------------------------------------------------------------------------------------------

    def decode(self, call: Call) -> None:
        """Understand the request, mask what is recorded of it, fill the facts. Raises Refusal."""
        kind, name = call.auth
        body = call.body or b""
        limit = self.body_limit(call)
        if len(body) > limit:
            raise Refusal(
                "The body is too long", f"the most is {limit} bytes here", "send less at a time",
                code="body_too_long", status=413,
            )  # fmt: skip
        facts = call.facts
        facts["service"] = name if kind == "events" else "otlp" if kind == "otlp" else "narrows"
        call.recorded_body = self._mask(body)  # also of what is refused below
        self._who_asks(call)
        if kind == "otlp":
            call.meaning = self._otlp(call, name, body)
            return
        self._note_findings(call, body)
        if call.head.get(b"content-encoding") not in (None, b"identity"):
            raise _encoded()
        payload = _json(body)
        if kind == "leases":
            call.meaning = self._lease(call, payload)
            return
        hint = (call.head.get(b"x-narrows-event") or b"").decode("latin-1")
        facts["operation"] = self._event_name(name, payload, hint)
        call.meaning = Asked(kind, name, payload)

    def _who_asks(self, call: Call) -> None:
        """The processes that ask: by the kernel's word if there is one, else by the caller's."""
        facts = call.facts
        tree = self._processes(call.client)
        source = "kernel"
        if not tree:
            tree, source = read_header(call.head.get(b"x-narrows-process")), "client"
        if tree:
            facts["process"] = _masked(tree, self._mask)
            facts["process_from"] = source

    def _note_findings(self, call: Call, body: bytes) -> None:
        found = self._scan(body)
        if found:
            call.facts["findings"] = [asdict(one) for one in found]

    def _otlp(self, call: Call, signal: str, body: bytes) -> Asked:
        """A batch (OTLP/HTTP): JSON or protobuf, packed or not. It is kept as it is; nothing of it is needed here."""
        media = (call.head.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        coding = (call.head.get(b"content-encoding") or b"").strip().lower()
        if coding in (b"", b"identity"):
            plain = body
        elif coding == b"gzip":
            plain = _unpacked(body)
            call.recorded_body = masking.mask_gzip(body, plain, self._mask(plain))
        else:
            raise _encoded()
        self._note_findings(call, plain)
        if media == b"application/json":
            _json(plain)
        elif media != b"application/x-protobuf":
            raise Refusal(
                "The batch was not understood", "its Content-Type is neither JSON nor protobuf",
                "set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf or http/json",
                code="media_type", status=415,
            )  # fmt: skip
        call.facts["operation"] = signal
        return Asked("otlp", signal, {}, protobuf=media == b"application/x-protobuf")

    def _lease(self, call: Call, payload: object) -> Asked:
        """Issue a lease of the session for one of its AWS connections; it ends with the session."""
        own = call.lease
        assert own is not None
        call.facts["operation"] = "lease.issued"
        name = (payload.get("connection") or "") if isinstance(payload, dict) else None
        if not isinstance(name, str):
            raise _malformed("its body is not an object whose `connection` is a text")
        usable = [found for found in map(self._connections.connection, own.connections)
                  if found is not None and found.kind == "aws" and name in ("", found.name)]  # fmt: skip
        if not usable:
            raise Refusal(
                "No lease was issued",
                f"the session has no AWS connection {name!r}" if name else "the session has no AWS connection",
                "name it when the session is opened: narrows run --connection",
                code="not_in_session",
            )
        connection = usable[0]
        call.connection = replace(connection, durability=Durability.STRICT)  # no lease without its record
        principal = own.principal
        if connection.groups and not set(connection.groups) & set(principal.groups):
            raise Refusal(
                f"{principal.name} may not use the connection {connection.name!r}",
                f"it is for the groups {', '.join(connection.groups)}",
                "ask for one of these groups, or change the connection",
                code="not_in_group",
            )
        lease = self._leases.issue(
            session=own.session, connection=connection.name, principal=principal, agent=own.agent,
            expires=own.expires, now_s=int(call.now_s),
        )  # fmt: skip
        call.facts["lease"] = lease.access_key_id
        return Asked("leases", connection.region, payload, lease)

    def mask(self, raw: bytes) -> bytes:
        """As injected."""
        return self._mask(raw)

    # -- the answer -------------------------------------------------------------------------------------------

    def answer(self, call: Call, request_id: str) -> Reply:
        """What was asked for."""
        asked: Asked = call.meaning
        if asked.kind == "otlp":
            # An empty Export...ServiceResponse: all was taken.
            return _reply(b"" if asked.protobuf else b"{}", request_id, protobuf=asked.protobuf)
        if asked.lease is not None:
            return _lease_reply(asked.lease, asked.name, request_id)
        verdict = self._decide(call, asked.payload)
        told = {"decision": verdict.decision, "reason": verdict.reason, "exchange": request_id}
        return _reply(orjson.dumps(told), request_id)

    def refusal(self, call: Call, refusal: Refusal, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The refusal as JSON."""
        told = {"what": refusal.what, "why": refusal.why, "hint": refusal.hint, "code": refusal.code}
        body = orjson.dumps({"error": told, "exchange": request_id})
        headers = [_JSON, (b"X-Narrows-Exchange", request_id.encode()), (b"Content-Length", b"%d" % len(body))]
        if refusal.status == 401:
            headers.append((b"WWW-Authenticate", b'Bearer realm="narrows"'))
        if refusal.status == 405:
            headers.append((b"Allow", b"POST"))
        return refusal.status, headers, b"" if call.head.method == b"HEAD" else body

    # -- nothing goes upstream ----------------------------------------------------------------------------------

    def outbound(self, call: Call, credentials: Any, amz_date: str) -> Outbound:
        """Never called: there is no target."""
        raise NotImplementedError

    def secrets(self, out: Outbound) -> tuple[bytes, ...]:
        """None."""
        return ()

    def elsewhere(self, call: Call, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Never."""
        return False


def _masked(tree: Sequence[dict[str, Any]], mask: Callable[[bytes], bytes]) -> Any:
    """The processes as they may rest. What is masked may reach over a quote of JSON: then no command line is told."""
    try:
        return orjson.loads(mask(orjson.dumps(tree)))
    except orjson.JSONDecodeError:
        bare = [{**one, "argv": ["*" * 8] if one.get("argv") else []} for one in tree]
        return [{**one, "cwd": "", "exe": ""} for one in bare]


def _route(target: bytes) -> tuple[str, str]:
    """Kind and name of a path; empty for one that is not there."""
    parts = target[len(PREFIX) :].decode("latin-1").split("/")
    if len(parts) == 2 and parts[0] == "events" and _AGENT.fullmatch(parts[1]) and parts[1] not in _OURS:
        return "events", parts[1]
    if parts == ["leases"]:
        return "leases", ""
    if len(parts) == 3 and parts[:2] == ["otlp", "v1"] and parts[2] in SIGNALS:
        return "otlp", parts[2]
    return "", ""


def _json(body: bytes) -> object:
    """The body's JSON; also with half of a surrogate pair, which JavaScript writes where it cuts an emoji in two."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = names.parse(body)
        if found is not None:
            return found
        raise _malformed(f"its body is not JSON: {error.msg} at character {error.pos}") from error


def _malformed(why: str) -> Refusal:
    return Refusal("The request was not understood", why, code="malformed_json", status=400)


def _encoded() -> Refusal:
    return Refusal(
        "The request was not understood", "its Content-Encoding is not taken here", "send it unpacked",
        code="encoding_refused", status=415,
    )  # fmt: skip


def _unpacked(body: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, MAX_UNPACKED)
    except zlib.error:
        plain = b""
    if not unpack.eof or unpack.unused_data:
        why = f"it is not one whole gzip of at most {MAX_UNPACKED} bytes"
        raise Refusal("The batch was not understood", why, code="malformed_gzip", status=400)
    return plain


def _reply(body: bytes, request_id: str, *, protobuf: bool = False, recorded: bytes | None = None) -> Reply:
    headers = [
        (b"Content-Type", b"application/x-protobuf") if protobuf else _JSON,
        (b"X-Narrows-Exchange", request_id.encode()),
        (b"Content-Length", b"%d" % len(body)),
    ]
    return Reply(200, headers, body, recorded)


def _lease_reply(lease: Lease, region: str, request_id: str) -> Reply:
    """The lease, and for the record the same with its secret and its token masked."""
    told = {
        "connection": lease.connection,
        "kind": "aws",
        "region": region,
        "access_key_id": lease.access_key_id,
        "secret_access_key": lease.secret_access_key,
        "session_token": lease.session_token,
        "expires": lease.expires,
    }
    shown = {**told, **{name: "*" * len(str(told[name])) for name in ("secret_access_key", "session_token")}}
    return _reply(orjson.dumps(told), request_id, recorded=orjson.dumps(shown))
