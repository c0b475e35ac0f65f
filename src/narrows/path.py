"""The data path, top to bottom: accept, identify, decode, decide, open, pump, close.

One `Gateway` per worker, one `serve` task per client connection, one `Exchange` per request. Everything that can
refuse raises; `Exchange.run` turns whatever was raised into an answer and into the closing record (the ways out are
in `transfer.exchange`), so that no way out of an exchange skips the record.

The order that P1 rests on, in `strict`:
    request bytes appended -> durable -> last byte of the request goes upstream
    response bytes appended -> durable -> last byte of the response goes to the client
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from narrows.core import ids
from narrows.core.errors import NarrowsError, ProtocolError, RecorderFailed, Refusal, UpstreamError
from narrows.core.ports import Clock, Directory, Recorder
from narrows.core.values import Connection, Durability, Effect, Outcome
from narrows.listen.connection import ClientConnection, ClientGone
from narrows.listen.tunnel import Tunnels
from narrows.policy import builtin
from narrows.session.call import Answering, Handler, Outbound
from narrows.transfer.answer import Answer
from narrows.transfer.body import INLINE, Together, take_body, take_limited, take_ready
from narrows.transfer.exchange import ExchangeState
from narrows.transfer.refusals import check_form, check_upgrade, from_error, render_reply
from narrows.transfer.upgrade import Switched, asking
from narrows.transfer.upload import Upload
from narrows.upstream.credentials import CredentialProvider
from narrows.upstream.http import Origin, Pool, UpstreamConnection
from narrows.wire import scrub
from narrows.wire.http1 import NO_BODY, SWITCHING, RequestHead, ResponseHead

LOOKED_THROUGH = frozenset({"agent.event", "llm.message"})
"""Kinds of calls whose handlers look through bodies for credentials."""

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that may be sent again when a pooled connection turns out dead before any answer (RFC 9110 9.2.2)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of the path, in seconds."""

    head_s: float = 15.0
    idle_s: float = 300.0
    body_stall_s: float = 300.0
    answer_s: float = 960.0


@dataclass(slots=True)
class Gateway:
    """A worker's collaborators, and the loop over one client's requests."""

    handlers: Sequence[Handler]
    directory: Directory
    tunnels: Tunnels
    credentials: CredentialProvider
    pool: Pool
    recorder: Recorder
    clock: Clock
    executor: Executor
    limits: Limits
    loop: asyncio.AbstractEventLoop
    spool: Path | None = None
    """Where bodies lie that must be whole before they may pass and are too long for memory."""
    together: Together = field(default_factory=Together)
    """What those in memory hold, all together."""
    _date: tuple[int, str] = (0, "")

    async def serve(self, client: ClientConnection) -> None:
        """Serve one client connection until it ends. Never raises but for cancellation of the worker."""
        client.deadline = self.loop.time() + self.limits.head_s
        try:
            while True:
                try:
                    head = await client.next_head()
                except ProtocolError as error:
                    await Exchange(self, client, None).refuse_bytes(error)
                    break
                if head is None:
                    break
                client.idle = False
                client.deadline = 0.0
                if head.method == b"CONNECT":
                    keep = await self._connect(client, head)
                else:
                    keep = await Exchange(self, client, head).run()
                if not keep or client.last:
                    break
                client.idle = True
                client.deadline = self.loop.time() + self.limits.idle_s
        except ClientGone:
            client.abort()
        finally:
            client.close()

    async def _connect(self, client: ClientConnection, head: RequestHead) -> bool:
        """CONNECT: decide by the host, then speak TLS with the client in that host's name."""
        exchange = Exchange(self, client, head)
        await client.next()  # the End of a request that has no body
        try:
            if client.tunnel:
                raise Refusal(
                    "A tunnel inside a tunnel is not passed", "the host was named by the first", code="nested_connect"
                )
            lease = self.tunnels.who(head, self.clock.wall_ns() // 1_000_000_000)
            exchange.of_session(lease)
            tunnel = self.tunnels.check(head, lease)
            await self.tunnels.enter(client, tunnel, self.loop)
        except Refusal as refusal:
            return await exchange.refuse_safely(refusal)
        except ProtocolError as error:
            return await exchange.refuse_safely(from_error(error, error.code, error.status, "InvalidRequest"))
        client.idle = True
        client.deadline = self.loop.time() + self.limits.head_s
        return True

    def check_live(self, session: bytes, *, begun: bool = True) -> None:
        """Raise Refusal if the session was ended meanwhile. What has `begun` may finish, unless it was killed."""
        ended = self.directory.session_ended(session)
        if ended and (ended == "killed" or not begun):
            raise Refusal(
                f"The session is {ended}",
                "it was ended while this call was under way",
                "start a new one with `narrows run`",
                code="session_ended",
                aws_code="ExpiredToken",
            )

    def amz_date(self) -> str:
        """Now, as `YYYYMMDDTHHMMSSZ`; made once a second."""
        second = self.clock.wall_ns() // 1_000_000_000
        if self._date[0] != second:
            self._date = (second, datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ"))
        return self._date[1]


class Exchange(ExchangeState):
    """One request and its answer, with the record of both: the way through."""

    __slots__ = ()

    async def run(self) -> bool:
        """Take the request through the path. True when the client's connection may carry another.

        Whatever happens, the exchange that was opened on record is closed on record, once.
        """
        try:
            try:
                return await self._through()
            except UpstreamError as error:
                failure = self.upload.failure if self.upload is not None else None
                if failure is None:
                    return await self._upstream_failed(error)
                return await self._refused(failure)
            except (NarrowsError, ClientGone) as error:
                return await self._refused(error)
        except RecorderFailed as error:
            return self._unrecorded(error)
        except (ClientGone, asyncio.CancelledError) as gone:
            self._client_gone()
            if isinstance(gone, asyncio.CancelledError) and not self.client.closed:
                raise
            return False
        except Exception as error:  # noqa: BLE001 - fail closed: whatever it was, both sides end and it is on record
            return await self._failed(error)
        finally:
            self._finish()

    async def _through(self) -> bool:
        assert self.body is not None
        take_ready(self.client, self.body)
        if self._identify():
            await self._take_whole()
        handler = await self._understood() if self._takes_long() else self._understand()
        self._decide()
        if handler.answers:
            return await self._answer()
        if not self._open_now():
            await self._open()
        return await self._pump()

    def _identify(self) -> bool:
        """Whose request is this? Finds handler, lease and connection. True where the body must be waited for first."""
        call = self.call
        assert call is not None and self.body is not None
        check_form(call.head)
        for handler in self.gateway.handlers:
            if handler.claims(call):
                self.handler = handler
                break
        else:
            raise Refusal(
                "The request carries no lease",
                "it is not signed, or not in a way that any connection understands",
                "run the command through `narrows run`",
                code="no_credentials",
                aws_code="MissingAuthenticationToken",
            )
        if call.head.upgrade:
            self.switching = check_upgrade(call.head, handler)
        handler.identify(call)
        assert call.connection is not None
        self.strict = call.connection.durability is Durability.STRICT
        return not self.body.done and handler.needs_body(call)

    async def _take_whole(self) -> None:
        """Wait for the whole body: the caller's proof covers it, or the handler must see it."""
        call, handler, body = self.call, self.handler, self.body
        assert call is not None and handler is not None and body is not None
        self._continue()
        if handler.answers:
            limit = cast(Answering, handler).body_limit(call)
            await take_limited(self.client, call.head, body, self.gateway, limit)
        else:
            await take_body(self.client, call.head, body, self.gateway)
        self.gateway.check_live(call.session, begun=False)
        self.ready_ns = self.gateway.clock.mono_ns()

    def _takes_long(self) -> bool:
        """Whether the body is to be looked through for credentials, and is long or packed."""
        call, body = self.call, self.body
        assert call is not None and body is not None
        if call.kind not in LOOKED_THROUGH or not body.done or not body.size:
            return False
        return body.size > INLINE or call.head.get(b"content-encoding") is not None

    async def _understood(self) -> Handler:
        """As `_understand`, beside the loop: a text may be made to be slow to look through."""
        gateway = self.gateway
        handler = await gateway.loop.run_in_executor(gateway.executor, self._understand)
        assert self.call is not None
        gateway.check_live(self.call.session, begun=False)
        return handler

    def _understand(self) -> Handler:
        """Check the caller's proof, and find out what the call means."""
        call, handler, body = self.call, self.handler, self.body
        assert call is not None and handler is not None and body is not None
        if body.spool is not None:
            call.body_sha256 = body.spool.digest
        elif body.done:
            call.body = body.payload()
        handler.decode(call)
        return handler

    def _decide(self) -> None:
        """May it pass? The answer opens the record; only then may anything act."""
        call = self.call
        assert call is not None and call.connection is not None
        meaning = call.meaning
        assert call.lease is not None
        decision = builtin.decide(
            call.connection,
            call.lease.principal,
            call.kind,
            call.facts.get("service", ""),
            call.facts.get("operation", ""),
            issues_credentials=bool(getattr(meaning, "issues_credentials", False)),
        )
        call.decision = decision
        self._open_record()
        if decision.effect is not Effect.ALLOW:
            raise Refusal(
                "The call is denied",
                decision.reason,
                "the connection would have to allow it; ask whoever runs this gateway",
                code="policy_denied",
            )

    def _open_now(self) -> bool:
        """As `_open`, where credentials and a connection are at hand: nothing to wait for, so nothing that waits."""
        call, handler, gateway = self.call, self.handler, self.gateway
        assert call is not None and handler is not None and call.lease is not None and call.connection is not None
        credentials = None
        if handler.needs_credentials:
            credentials = gateway.credentials.cached(call.lease, call.connection)
            if credentials is None:
                return False
        if self.switching:
            return False
        out = handler.outbound(call, credentials, gateway.amz_date())
        conn = gateway.pool.take(Origin(out.scheme, out.host, out.port, call.connection.name))
        if conn is None:
            return False
        self.out = out
        self._opened(out, conn)
        return True

    async def _open(self, *, fresh: bool = False) -> None:
        """Get credentials and a connection, and build what goes upstream."""
        call, handler, gateway = self.call, self.handler, self.gateway
        assert call is not None and handler is not None and call.lease is not None and call.connection is not None
        credentials = None
        if handler.needs_credentials:
            credentials = gateway.credentials.cached(call.lease, call.connection)
            if credentials is None:
                credentials = await gateway.credentials.get(call.lease, call.connection)
        out = handler.outbound(call, credentials, gateway.amz_date())
        if self.switching:
            out = asking(out, call.head)
        self.out = out
        await self._dial(out, call.connection, fresh=fresh)

    async def _dial(self, out: Outbound, connection: Connection, *, fresh: bool) -> None:
        origin = Origin(out.scheme, out.host, out.port, connection.name)
        conn = None if fresh else self.gateway.pool.take(origin)
        if conn is None:
            conn = await self.gateway.pool.acquire(origin, connection, fresh=fresh)
        self._opened(out, conn)

    def _opened(self, out: Outbound, conn: UpstreamConnection) -> None:
        """Put on record what will go up, and to where."""
        self.conn = conn
        facts = {"host": out.host, "port": out.port, "tls": out.scheme == "https", "address": conn.address}
        if self.again_because:
            facts["again_because"] = self.again_because
        self.record.sent(out.recorded_head, facts)

    async def _pump(self) -> bool:
        """Send the request, relay the answer. True when the client's connection may carry another request."""
        while True:
            head = await self._send()
            call, handler, body = self.call, self.handler, self.body
            assert call is not None and handler is not None and body is not None
            if not (300 <= head.status < 500 and body.done and self.upload is None and self.retries < 2):
                break
            if not handler.elsewhere(call, head.status, head.headers):
                break
            await self._again(f"the target answered {head.status}: the bucket is in another region")
        if head.status == 101:
            return await self._switch(head)
        if self.switching:
            self.record.request(b"", end=True)  # the target stays with HTTP: this was all
        return await self._relay(head)

    async def _answer(self) -> bool:
        """The handler is the target: its answer goes on record, then to the client."""
        call, request = self.call, self.head
        assert call is not None and request is not None
        reply = cast(Answering, self.handler).answer(call, ids.text(self.record.id))
        self.first_ns = self.last_ns = self.gateway.clock.mono_ns()
        keep = request.keep_alive and not self.client.ended and not self.client.last
        head = render_reply(reply.status, reply.headers, keep=keep)
        recorded = reply.body if reply.recorded is None else reply.recorded
        self.record.close(head + recorded, Outcome.COMPLETE, self._times({"status": reply.status}))
        if self.strict:
            await self.gateway.recorder.durable(self.record.last)
        self.client.write(head + reply.body)
        return keep

    async def _send(self) -> ResponseHead:
        """Send the request, and wait for the head of its answer."""
        body, head = self.body, self.head
        assert body is not None and head is not None
        while True:
            conn, out = self.conn, self.out
            assert conn is not None and out is not None
            conn.begin(SWITCHING if self.switching else head.method)
            pooled = conn.used
            conn.used = True
            conn.deadline = self.gateway.loop.time() + self.gateway.limits.answer_s
            try:
                if body.done and body.spool is None:
                    # Here and not in a function of its own: each that can wait costs as much as a frame on record.
                    if body.size > INLINE:
                        data = await body.through(out, self.gateway.loop, self.gateway.executor)
                    else:
                        data = body.through_now(out)
                    self.ready_ns = self.ready_ns or self.record.started_ns
                    if self.strict:
                        await self.gateway.recorder.durable(self.record.last)
                    self._write_whole(conn, out.head + data if data else out.head)
                    if conn.write_paused:
                        await conn.drain()
                else:
                    self._continue()
                    source = body.spool or self.client
                    self.upload = Upload(source, conn, out, body, self.record, self.gateway, self.strict)
                    self.upload.start()
                answer = await self._first(conn)
            except UpstreamError as error:
                late = error.status == 504  # alive, as far as anyone knows, and possibly at work on it
                if late or conn.answered or not pooled or head.method not in SAFE or head.framing != NO_BODY:
                    raise
                await self._again("the pooled connection was closed before any answer", fresh=True)
                continue
            return answer

    def _write_whole(self, conn: UpstreamConnection, data: bytes) -> None:
        """Send head and body in one piece, unless the session was ended meanwhile. Raises Refusal."""
        self.gateway.check_live(self.record.session)
        conn.write(data)
        self.sent_ns = self.gateway.clock.mono_ns()

    async def _first(self, conn: UpstreamConnection) -> ResponseHead:
        """The head of the final answer; informational ones go to the client as they come."""
        while True:
            event = conn.poll() or await conn.next()
            self._check_upload()
            assert isinstance(event, ResponseHead)
            if event.status >= 200 or event.status == 101:
                self.first_ns = self.gateway.clock.mono_ns()
                if self.upload is None or self.upload.done:
                    conn.deadline = 0.0
                return event
            if event.status != 100 and self.head is not None and self.head.minor == 1:
                assert self.handler is not None and self.out is not None
                secrets = self.handler.secrets(self.out)
                self.record.response(scrub.secrets(scrub.head(event.raw, event.lines, event.shape), secrets))
                self.client.write(scrub.secrets(event.raw, secrets))
                if self.client.write_paused:
                    self.client.deadline = self.gateway.loop.time() + self.gateway.limits.body_stall_s
                    await self.client.drain()
                    self.client.deadline = 0.0

    async def _switch(self, head: ResponseHead) -> bool:
        """The target agreed to another protocol: pass on what either side sends until one of them ends it."""
        conn, out, handler = self.conn, self.out, self.handler
        assert conn is not None and out is not None and handler is not None
        self.switched = True
        switched = Switched(self.client, conn, self.record, self.gateway, self.strict)
        facts = await switched.run(head, handler.secrets(out))
        self.last_ns = self.gateway.clock.mono_ns()
        self.record.request(b"", end=True)
        self.record.close(b"", Outcome.COMPLETE, self._times({"status": 101, **facts}))
        return False

    def _check_upload(self) -> None:
        """Raise what is wrong with the request's body, where it came to light after the target began to answer."""
        if self.upload is not None and self.upload.failure is not None:
            raise UpstreamError("The upload failed", phase="request")

    async def _again(self, why: str, *, fresh: bool = False) -> None:
        """Send the same request once more, signed anew: to where it belongs, or because the connection was dead."""
        self.retries += 1
        self.again_because = why
        if self.conn is not None:
            self.gateway.pool.release(self.conn, reusable=False)
            self.conn = None
        await self._open(fresh=fresh)

    async def _relay(self, head: ResponseHead) -> bool:
        """Pass the answer to the client as it comes, its end only once it is on record."""
        conn, request, out, handler = self.conn, self.head, self.out, self.handler
        assert conn is not None and request is not None and out is not None and handler is not None
        whole_upload = self.upload is None or self.upload.done
        keep = request.keep_alive and whole_upload and not self.client.ended and not self.client.last
        secrets = handler.secrets(out)
        answer = Answer(self.client, conn, request, head, self.record, self.gateway, secrets, keep)
        self.answer = answer
        if not answer.at_hand():
            await answer.until_end()
        self.last_ns = self.gateway.clock.mono_ns()
        upload = self.upload
        if upload is not None:
            await upload.settle()
            self._check_upload()
        raw, last = answer.ending()
        self.record.close(raw, Outcome.COMPLETE, self._times({"status": head.status}))
        if self.strict:
            await self.gateway.recorder.durable(self.record.last)
        self.client.write(last)
        whole = upload is None or upload.done
        self.gateway.pool.release(conn, reusable=whole and head.keep_alive and answer.delimited)
        self.conn = None
        if not whole:
            await self._hang_up()
        return answer.keep
