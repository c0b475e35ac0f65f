"""One request on its way through the path, and what a protocol's handler must provide for it.

A handler is pure: it reads a `Call`, answers with values or a Refusal, and never touches a socket or a clock. The
path asks its handlers in order whose request this is; "not mine" is not "bad".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from narrows.core.errors import Refusal
from narrows.core.ids import NIL
from narrows.core.values import Connection, Decision, Lease
from narrows.wire.http1 import RequestHead


@dataclass(slots=True)
class Call:
    """What is known of a request so far; filled from top to bottom as the path goes.

    `form` is `proxy` (the true host is known: `true_host`, `true_port`) or `endpoint`. `body` is the whole decoded
    body once the path has gathered it, else None; of one that is too long to be held only `body_sha256` is known.
    `proxy_lease` is the session whose tunnel it came through, in proxy form. `auth` and `meaning` belong to the
    handler that set them. `client` is `address:port`, or `pid:PID:START` where the kernel named the process at the
    other end of a local socket.

    `recorded_body`, if a handler set it, stands in the record instead of `body`: of the same length, with what must
    not rest in clear masked. It counts only for a body that was gathered whole.
    """

    head: RequestHead
    scheme: str
    form: str
    client: str
    true_host: str = ""
    true_port: int = 0
    now_s: float = 0.0
    body: bytes | None = None
    body_sha256: str = ""
    recorded_body: bytes | None = None
    kind: str = "http.request"
    session: bytes = NIL
    lease: Lease | None = None
    proxy_lease: Lease | None = None
    connection: Connection | None = None
    auth: Any = None
    meaning: Any = None
    decision: Decision | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class BodyPipe(Protocol):
    """What happens to a request's body between the client and the target: checked, sometimes re-signed.

    Both methods raise Refusal when the body is not what its head declared. The path holds the last bytes back
    until `finish` has returned, so a body that fails never becomes a whole request at the target.
    """

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Take decoded body bytes; return what to send on."""
        ...

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """The body is whole: return the last bytes to send."""
        ...


class PassBody:
    """A body that goes on as it came."""

    __slots__ = ()

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Return `data`."""
        return data

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> bytes:
        """Nothing is left over."""
        return b""


@dataclass(slots=True)
class Outbound:
    """The request as it will go upstream.

    `recorded_head` is `head` with upstream secrets masked. `chunked` says that the body goes with HTTP chunks.
    `credentials` are the handler's, from which it tells what must not reach the client.
    """

    scheme: str
    host: str
    port: int
    head: bytes = field(repr=False)
    recorded_head: bytes
    chunked: bool
    pipe: BodyPipe
    credentials: Any = field(default=None, repr=False)


@dataclass(slots=True)
class Reply:
    """What a handler answers itself. `recorded`, if it is set, stands in the record instead of `body`: of the same
    length, with secrets masked."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = field(repr=False)
    recorded: bytes | None = None


class Handler(Protocol):
    """A protocol's part in the path.

    `needs_credentials` says whether the connection's upstream credential is fetched before `outbound`. Where `answers`
    is true the handler is an `Answering` one: its requests have no target. Where `upgrades` is, its requests may
    become WebSocket connections (RFC 6455); of all others an upgrade is refused.
    """

    needs_credentials: bool
    answers: bool
    upgrades: bool

    def claims(self, call: Call) -> bool:
        """Is this request this handler's? Sets `kind` and what it parsed of the caller's proof. Raises Refusal."""
        ...

    def identify(self, call: Call) -> None:
        """Find the lease and the connection. Raises Refusal."""
        ...

    def needs_body(self, call: Call) -> bool:
        """Must the whole body be read before the caller is verified and the call understood?"""
        ...

    def decode(self, call: Call) -> None:
        """Verify the caller's proof, understand the call, fill the facts. Raises Refusal."""
        ...

    def outbound(self, call: Call, credentials: Any, amz_date: str) -> Outbound:
        """Build what goes upstream. Raises Refusal."""
        ...

    def secrets(self, out: Outbound) -> tuple[bytes, ...]:
        """Byte strings that must not reach the client should the target repeat them in an error."""
        ...

    def elsewhere(self, call: Call, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Did the target say that this belongs to another region or host, now known? Then build `outbound` anew."""
        ...

    def refusal(self, call: Call, refusal: Refusal, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The refusal in a form that the caller's client understands: status, headers, body."""
        ...


class Answering(Handler, Protocol):
    """A handler that answers its requests itself, on record before the answer leaves; nothing goes upstream."""

    def body_limit(self, call: Call) -> int:
        """Longest body that such a request may have, decoded, bytes."""
        ...

    def mask(self, raw: bytes) -> bytes:
        """Bytes of a body as they may rest, of the same length: for one that never became whole or was refused."""
        ...

    def answer(self, call: Call, request_id: str) -> Reply:
        """The answer to a request that was allowed; `request_id` is the exchange's id. Raises Refusal."""
        ...
