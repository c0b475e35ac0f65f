"""One request and its answer as the path holds them: what is known by now, their record, and every way out.

`path.Exchange` adds the way through. Everything that can refuse raises; what was raised ends here, in an answer and
in the closing record, so that no way out of an exchange skips the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows.core import ids
from narrows.core.errors import CredentialError, NarrowsError, ProtocolError, RecorderFailed, Refusal, UpstreamError
from narrows.core.values import Lease, Outcome
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.record.exchange import ExchangeRecord
from narrows.session.call import Call, Handler, Outbound
from narrows.session.facts import facts_of
from narrows.transfer.answer import Answer
from narrows.transfer.body import Body, ask_to_continue, recorded_body
from narrows.transfer.refusals import from_error, render_refusal
from narrows.transfer.upload import Upload
from narrows.upstream.http import UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import RequestHead

if TYPE_CHECKING:
    from narrows.path import Gateway

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 10.0
"""How much more of a refused body is read, and for how long, so that the client gets to read why."""


class ExchangeState:
    """What is known of an exchange by now. `switching`: the request asks, rightly, to go on in another protocol;
    `switched`: the target agreed, and what follows is no HTTP."""

    __slots__ = (
        "again_because", "answer", "body", "call", "client", "conn", "first_ns", "gateway", "handler", "head",
        "last_ns", "out", "ready_ns", "record", "retries", "sent_ns", "strict", "switched", "switching", "upload",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, client: ClientConnection, head: RequestHead | None) -> None:
        self.gateway = gateway
        self.client = client
        self.head = head
        self.record = ExchangeRecord(gateway.recorder, gateway.clock)
        self.handler: Handler | None = None
        self.conn: UpstreamConnection | None = None
        self.out: Outbound | None = None
        self.answer: Answer | None = None
        self.body = Body(gateway.together) if head is not None and head.method != b"CONNECT" else None
        self.upload: Upload | None = None
        self.strict = True
        self.switching = False
        self.switched = False
        self.retries = 0
        self.again_because = ""
        self.ready_ns = self.sent_ns = self.first_ns = self.last_ns = 0
        self.call: Call | None = None
        if head is not None:
            self.call = Call(
                head,
                client.scheme,
                "proxy" if client.tunnel or head.method == b"CONNECT" else "endpoint",
                client.peer,
                client.tunnel,
                client.tunnel_port,
                gateway.clock.wall_ns() / 1e9,
            )
            if client.tunnel_lease is not None:
                self.call.proxy_lease = client.tunnel_lease
                self.call.session = client.tunnel_lease.session  # until its own lease says whose it is

    # -- the record -------------------------------------------------------------------------------------------

    def _open_record(self) -> None:
        """Write the opening frame with all that is known; once."""
        if self.record.opened:
            return
        call, head = self.call, self.head
        if call is None or head is None:
            known = {"kind": "http.request", "client": self.client.peer}
            self.record.open(ids.NIL, known, b"", whole=True, buffered=False)
            return
        body = self.body
        raw = scrub.head(head.raw, head.lines, head.shape)
        whole = (body is None or (body.done and body.spool is None)) and not self.switching
        if body is not None and body.raw:
            raw += recorded_body(body, call, self.handler)
        self.record.open(call.session, facts_of(call, strict=self.strict), raw, whole=whole, buffered=not self.strict)

    def _times(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Durations in ns from the exchange's start; `gateway_ns` is the time that we added."""
        start = self.record.started_ns
        now = self.gateway.clock.mono_ns()
        facts["upstream_request_sent"] = bool(self.sent_ns) or (self.upload is not None and self.upload.done)
        if self.first_ns:
            facts["first_byte_ns"] = self.first_ns - start
            facts["last_byte_ns"] = (self.last_ns or now) - start
            sent = self.sent_ns or (self.upload.sent_ns if self.upload is not None else 0)
            ready = self.ready_ns or (self.upload.ready_ns if self.upload is not None else start)
            if sent:
                facts["gateway_ns"] = max(0, sent - ready) + (now - (self.last_ns or now))
        if self.retries:
            facts["retries"] = self.retries
        return facts

    # -- the ways out -----------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """True once bytes have gone to the client that are the target's: then no refusal can be put in their place."""
        return self.switched or (self.answer is not None and self.answer.started)

    async def _refused(self, error: BaseException) -> bool:
        """Answer what the path, or the upload beside it, raised. Raises it again where there is nobody to answer."""
        if isinstance(error, Refusal):
            return await self.refuse(error)
        if isinstance(error, CredentialError):
            return await self.refuse(from_error(error, "credential_source", 503, "ServiceUnavailable"))
        if isinstance(error, ProtocolError):
            return await self.refuse(
                from_error(error, error.code, error.status, "InvalidRequest"), Outcome.PROTOCOL_ERROR, close=True
            )
        raise error

    async def refuse(self, refusal: Refusal, outcome: Outcome = Outcome.REFUSED, *, close: bool = False) -> bool:
        """Answer with the refusal in the client's own protocol, after it is on record. Raises RecorderFailed."""
        if self.upload is not None:
            self.upload.stop()
        if self.record.closed:
            self.client.abort()
            return False
        if self.begun:
            self._cut(outcome, {"code": refusal.code, "error": str(refusal)})
            return False
        self._drop_upstream()
        body_left = self.body is not None and not self.body.done
        head = self.head
        last = close or body_left or self.client.last
        keep = not last and head is not None and head.keep_alive and head.method != b"CONNECT"
        answer, status = self._refusal_bytes(refusal, keep)
        self._open_record()
        facts = self._times({"status": status, "code": refusal.code, "error": str(refusal)})
        self.record.close(answer, outcome, facts)
        await self.gateway.recorder.durable(self.record.last)
        self.client.write(answer)
        if body_left or head is None:
            await self._hang_up()
        return keep

    async def refuse_safely(self, refusal: Refusal, outcome: Outcome = Outcome.REFUSED) -> bool:
        """As `refuse`, and the connection ends; for outside `run`: all that can go wrong meanwhile ends it too."""
        try:
            await self.refuse(refusal, outcome, close=True)
        except RecorderFailed as error:
            self._unrecorded(error)
        except ClientGone:
            self._client_gone()
        return False

    async def refuse_bytes(self, error: ProtocolError) -> None:
        """The bytes were no HTTP request: say so, and close."""
        refusal = from_error(error, error.code, error.status, "InvalidRequest")
        await self.refuse_safely(refusal, Outcome.PROTOCOL_ERROR)

    def of_session(self, lease: Lease) -> None:
        """Say whose session this exchange belongs to, before its own lease does."""
        if self.call is not None:
            self.call.proxy_lease = lease
            self.call.session = lease.session

    async def _failed(self, error: Exception) -> bool:
        """A fault of ours."""
        self.gateway.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        what = NarrowsError("The gateway failed", type(error).__name__, "see its log; nothing was passed on")
        return await self.refuse_safely(from_error(what, "internal", 500, "InternalError"), Outcome.INTERNAL)

    async def _upstream_failed(self, error: UpstreamError) -> bool:
        code = f"upstream_{error.phase}"
        if self.begun:
            self._cut(Outcome.UPSTREAM_CUT, {"code": code, "error": str(error)})
            return False
        return await self.refuse(from_error(error, code, error.status, "ServiceUnavailable"), Outcome.UPSTREAM_FAILED)

    def _cut(self, outcome: Outcome, facts: dict[str, Any]) -> None:
        """The answer has begun and cannot be completed: it must not look whole. Raises RecorderFailed."""
        self._drop_upstream()
        raw = self.answer.unrecorded() if self.answer is not None else b""
        try:
            self.record.close(raw, outcome, self._times(facts))
        finally:
            self.client.abort()

    def _refusal_bytes(self, refusal: Refusal, keep: bool) -> tuple[bytes, int]:
        handler = self.handler
        if handler is None and self.gateway.handlers:
            handler = self.gateway.handlers[-1]  # nobody knows whose it is: the last one says so
        return render_refusal(self.call, handler, refusal, ids.text(self.record.id), keep=keep)

    async def _hang_up(self) -> None:
        """The last answer is sent and the request's body still comes: let the client read why, then close."""
        head, body = self.head, self.body
        waits = head is not None and head.expect_continue and body is not None and not body.continued
        if not waits:
            await self.client.discard(LINGER_BYTES, LINGER_SECONDS)

    def _unrecorded(self, error: RecorderFailed) -> bool:
        """The recorder is gone: nothing passes, and the client is told why (this answer cannot be on record)."""
        self._drop_upstream()
        if not self.begun:
            answer, _status = self._refusal_bytes(from_error(error, error.code, 503, "ServiceUnavailable"), keep=False)
            self.client.write(answer)
            self.client.close()
        else:
            self.client.abort()
        return False

    def _client_gone(self) -> None:
        """The client went away: the target must not go on working for nobody. A request it cut is on record too."""
        self._drop_upstream()
        if self.record.closed:
            return
        try:
            if self.head is not None:
                self._open_record()
            raw = self.answer.unrecorded() if self.answer is not None else b""
            why = self.client.ended_because or "the client closed the connection"
            if self.record.opened:
                self.record.close(raw, Outcome.CLIENT_GONE, self._times({"error": why}))
        except RecorderFailed:
            return  # said once, when it failed; every exchange that ends after it would say the same

    def _drop_upstream(self) -> None:
        if self.upload is not None:
            self.upload.stop()
        if self.conn is not None:
            self.gateway.pool.release(self.conn, reusable=False)
            self.conn = None

    def _finish(self) -> None:
        """The last thing of every exchange: nothing stays open."""
        self._drop_upstream()
        if self.body is not None:
            self.body.close()
        if self.record.opened and not self.record.closed:
            try:
                self.record.ensure_closed(Outcome.INTERNAL, self._times({}))
            except RecorderFailed:
                return  # as above

    def _continue(self) -> None:
        """Answer `Expect: 100-continue`, now that the decision is made or the body needed to make it."""
        head, body = self.head, self.body
        if head is not None and head.expect_continue and body is not None and not body.continued:
            body.continued = True
            ask_to_continue(self.client)
