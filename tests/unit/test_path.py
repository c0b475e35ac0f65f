"""What the path promises: recorded before it acts (P1), nothing partial in silence (P2), no secret anywhere (P3)."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import re
from urllib.parse import quote

import pytest
from tests.kit import OTHER_SESSION, REAL, SESSION, Conn, Received, World, plain, scenario

from narrows.core.errors import CredentialError
from narrows.core.values import Agent, Durability, Principal
from narrows.record.log.frame import Flag, Kind
from narrows.tasks import spawn

TOKEN = (REAL.session_token or "").encode()


async def quiet(w: World) -> None:
    """Let everything that can happen now happen."""
    await w.recorder.asked()
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


# -- P1 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"small", b"x" * 2_000_000])
@scenario()
async def test_nothing_whole_goes_up_before_it_is_durable(w: World, body: bytes) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    client.send(w.signer.request(b"PUT", body=body))
    await quiet(w)
    assert not w.origin.ledger, "not even a head, on which a target may act"
    last = [f for f in (await w.recorded())[0].frames if f.kind == Kind.REQUEST][-1]
    assert last.flags & Flag.END or len(body) > 1_000_000, "what is waited for is the whole request, if it is here"
    w.recorder.gate.set()
    assert (await client.response(b"PUT")).status == 200
    assert bytes(w.origin.ledger[0].body) == body


@scenario()
async def test_a_delete_whose_body_never_comes_does_not_act_before_its_head_is_durable(w: World) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    head, _ = w.signer.head(b"DELETE", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Content-Length", b"5")])
    client.send(head)
    await quiet(w)
    assert not w.origin.ledger
    w.recorder.gate.set()
    assert (await w.origin.arrived(1)).head.method == b"DELETE"


@scenario()
async def test_a_chunked_request_ends_upstream_only_when_durable(w: World) -> None:
    client = await w.client()
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Transfer-Encoding", b"chunked")])
    client.send(head + b"3\r\nabc\r\n")
    seen = await w.origin.arrived(1)
    w.recorder.gate.clear()
    client.send(b"0\r\n\r\n")
    await quiet(w)
    assert not seen.whole
    w.recorder.gate.set()
    assert (await client.response(b"PUT")).status == 200
    assert bytes(seen.body) == b"abc"


@pytest.mark.parametrize("size", [0, 10, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
@scenario()
async def test_no_answer_ends_at_the_client_before_it_is_durable(w: World, size: int, chunked: bool) -> None:
    body = b"y" * size

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        w.recorder.gate.clear()
        if chunked:
            piece = b"%x\r\n" % size + body + b"\r\n" if size else b""
            await conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + piece + b"0\r\n\r\n")
        else:
            await conn.answer(200, body)

    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    await quiet(w)
    answer = spawn(client.response(), name="client")
    await asyncio.sleep(0.02)
    assert not answer.done()
    assert (await w.recorded())[0].outcome["outcome"] == "complete"
    w.recorder.gate.set()
    assert (await answer).body == body


@scenario(connection={"durability": Durability.BUFFERED})
async def test_buffered_does_not_wait_and_says_so(w: World) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    assert (await client.ask(w.signer.request())).status == 200
    found = await w.only()
    assert found.facts["durability"] == "buffered"
    assert all(frame.flags & Flag.BUFFERED for frame in found.frames)


@scenario()
async def test_a_refusal_is_durable_before_it_is_said(w: World) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await quiet(w)
    assert not client.received
    assert (await w.only()).outcome["outcome"] == "refused"
    w.recorder.gate.set()
    assert (await client.response()).status == 403


# -- P2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2])
@scenario(errors=True)
async def test_when_the_recorder_fails_nothing_more_passes(w: World, after: int) -> None:
    """The frames of a call: opening, sent, closing. Whichever cannot be written, the client gets a clear error."""
    client = await w.client()
    w.recorder.fail_at = after
    answer = await client.ask(w.signer.request())
    assert answer.status == 503
    assert b"recorder_failed" in answer.body
    assert await client.closed()
    assert not w.origin.ledger or after == 2, "the request is upstream only once it is on record"
    other = await w.client()
    before = len(w.origin.ledger)
    assert (await other.ask(w.signer.request())).status == 503
    assert len(w.origin.ledger) == before


@scenario(errors=True)
async def test_a_recorder_that_fails_under_an_upload_stops_it(w: World) -> None:
    client = await w.client()
    request = w.signer.request(b"PUT", body=b"a" * 3_000_000)
    client.send(request[:1_000_000])
    seen = await w.origin.arrived(1)
    w.recorder.fail_at = 0
    client.send(request[1_000_000:])
    assert (await client.response(b"PUT")).status == 503
    assert not seen.whole


@scenario(errors=True)
async def test_a_recorder_that_fails_under_an_answer_cuts_it(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await go.wait()
        w.recorder.fail_at = 0
        await conn.write(b"x" * 996)

    go = asyncio.Event()
    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    await client.read()
    go.set()
    assert len(await client.rest()) < 996


@scenario()
async def test_a_failing_credential_source_refuses(w: World) -> None:
    w.credentials.failure = CredentialError("The role could not be assumed", "access denied", "check the trust policy")
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.status == 503
    assert (await w.only()).outcome["code"] == "credential_source"
    w.credentials.failure = None
    assert (await client.ask(w.signer.request())).status == 200, "a refusal does not end the connection"


@scenario(errors=True)
async def test_a_fault_of_ours_is_answered_and_recorded(w: World) -> None:
    w.credentials.failure = ZeroDivisionError()
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.status == 500
    assert (await w.only()).outcome["outcome"] == "internal"
    assert w.errors


# -- who may -------------------------------------------------------------------------------------------------------


@scenario()
async def test_an_ended_session_is_refused_within_a_second(w: World) -> None:
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 200
    w.publish(w.connection(), {SESSION: "killed"})
    w.directory.refresh()  # as the worker does, five times a second
    answer = await client.ask(w.signer.request())
    assert answer.status in (400, 403)
    assert b"ExpiredToken" in answer.body
    assert (await w.recorded())[1].outcome["code"] == "session_ended"
    other = await w.client()
    refused = await other.ask(w.connect_request(b"s3.amazonaws.com:443"), b"CONNECT")
    assert refused.status == 407
    assert len(w.origin.ledger) == 1


@scenario()
async def test_a_lease_opens_its_own_connection_only(w: World) -> None:
    other = dataclasses.replace(w.connection(), name="other", hosts=("*.example.com",))
    w.publish(w.connection(), {}, other)
    w.directory.refresh()
    client = await w.tunnel("s3.example.com")
    answer = await client.ask(w.signer.request(host=b"s3.example.com"))
    assert answer.status == 403
    assert (await w.only()).outcome["code"] == "host_not_in_connection"


@scenario()
async def test_a_lease_of_a_removed_connection_is_refused(w: World) -> None:
    w.publish(dataclasses.replace(w.connection(), name="renamed"))
    w.directory.refresh()
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 403
    assert (await w.only()).outcome["code"] == "connection_gone"


@scenario()
async def test_two_sessions_do_not_mix_on_one_connection(w: World) -> None:
    mine = w.signer.request()
    w.lease = w.leases.issue(
        session=OTHER_SESSION, connection="demo", principal=Principal("bob"), agent=Agent("a"), expires=w.now_s + 600
    )
    client = await w.client()
    await client.ask(mine)
    await client.ask(w.signer.request())
    assert [(one.session, one.facts["principal"]) for one in await w.recorded()] == [
        (SESSION, "alice"),
        (OTHER_SESSION, "bob"),
    ]


@pytest.mark.parametrize("skew", [-1000, 1000])
@scenario()
async def test_a_skewed_clock_is_told_so(w: World, skew: int) -> None:
    signer = dataclasses.replace(w.signer, now_s=w.now_s + skew)
    client = await w.client()
    answer = await client.ask(signer.request())
    assert b"RequestTimeTooSkewed" in answer.body
    assert not w.origin.ledger


@scenario()
async def test_operations_that_hand_out_credentials_are_denied(w: World) -> None:
    body = b"Action=AssumeRole&Version=2011-06-15&RoleArn=x&RoleSessionName=y"
    request = w.signer.request(
        b"POST", b"/", body, service="sts", declare=False,
        extra=[(b"content-type", b"application/x-www-form-urlencoded")],
    )  # fmt: skip
    client = await w.client()
    answer = await client.ask(request)
    assert b"<Code>AccessDenied</Code>" in answer.body
    found = await w.only()
    assert (found.facts["decision"], found.outcome["code"]) == ("deny", "policy_denied")
    assert found.facts["policies"] == ["builtin/no-credential-issue"]
    assert not w.origin.ledger
    w.publish(w.connection(allow_credential_issue=True))
    w.directory.refresh()
    assert (await client.ask(request)).status == 200


@scenario()
async def test_refusals_have_the_shape_of_the_callers_protocol(w: World) -> None:
    client = await w.client()
    request = w.signer.dynamodb().replace(b"Signature=", b"Signature=0")
    answer = await client.ask(request)
    assert json.loads(answer.body)["__type"].endswith("Exception")
    assert answer.get(b"x-amzn-requestid") is not None


# -- P3 ------------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "plain": TOKEN,
    "url": quote(TOKEN, safe="").encode(),
    "lower case url": re.sub(rb"%[0-9A-F]{2}", lambda m: m[0].lower(), quote(TOKEN, safe="").encode()),
    "url twice": quote(quote(TOKEN, safe=""), safe="").encode(),
    "json": TOKEN.replace(b"/", b"\\/"),
    "hexadecimal bytes": TOKEN.hex(" ").encode(),
}


def echo(status: int, value: bytes, framing: str) -> object:
    """A script that says `value` in an answer, framed in one of several ways."""

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        head = received.head
        body = b"<Error>" + value + b"</Error><Auth>" + (head.get(b"authorization") or b"") + b"</Auth>"
        if framing == "length":
            await conn.answer(status, body)
        elif framing == "chunks":
            await conn.write(b"HTTP/1.1 %d No\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
            for at in range(0, len(body), 7):
                piece = body[at : at + 7]
                await conn.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await conn.write(b"0\r\n\r\n")
        elif framing == "gzip":
            await conn.answer(status, gzip.compress(body), (b"Content-Encoding: gzip",))
        elif framing == "head":
            await conn.answer(status, b"see there", (b"Location: https://x/?X-Amz-Security-Token=" + value,))
        elif framing == "cut":
            at = body.index(value) + len(value) - 5
            await conn.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body[:at])
            conn.reset()
        else:
            await conn.write(b"HTTP/1.1 %d No\r\n\r\n" % status + body)
            conn.close()

    return script


@pytest.mark.parametrize("framing", ["length", "chunks", "gzip", "head", "cut", "close"])
@pytest.mark.parametrize("spelling", list(SPELLINGS))
@scenario()
async def test_what_a_target_repeats_in_an_error_reaches_nobody(w: World, spelling: str, framing: str) -> None:
    value = SPELLINGS[spelling]
    w.origin.script = echo(307 if framing == "head" else 403, value, framing)  # type: ignore[assignment]
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.status == {"head": 307, "cut": 502}.get(framing, 403)
    signature = re.search(rb"Signature=([0-9a-f]{64})", w.origin.ledger[0].raw)
    assert signature is not None
    assert not w.leaks(*w.secrets(), value, value[: len(value) // 2], signature[1])
    if framing not in ("head", "cut"):
        assert b"<Error>" + b"*" * len(value) + b"</Error>" in answer.body
    (await w.only()).check()


@scenario()
async def test_a_presigned_redirect_does_not_give_away_our_signature(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(307, b"", (b"Location: https://elsewhere" + received.head.target,))

    w.origin.script = script
    client = await w.client()
    target = w.signer.presigned()
    answer = await client.ask(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 307
    signature = w.origin.ledger[0].head.target.partition(b"X-Amz-Signature=")[2]
    assert not w.leaks(signature, quote(TOKEN, safe="").encode(), TOKEN)


@scenario()
async def test_an_error_in_an_unknown_coding_is_not_passed(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(403, b"\x8b\x02\x80" + TOKEN, (b"Content-Encoding: br",))

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.status == 502
    assert b"content coding" in answer.body
    assert not w.leaks(TOKEN)


@pytest.mark.parametrize("size", [100_000, 5_000_000])
@scenario()
async def test_a_long_error_is_passed_up_to_a_limit(w: World, size: int) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(500, b"e" * size)

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert (answer.status, len(answer.body)) == (500, size) if size < 4_000_000 else answer.status == 502
    assert (await client.ask(w.signer.request())).status in (500, 502), "the connection goes on"


@scenario()
async def test_an_error_without_secrets_passes_as_it_is(w: World) -> None:
    body = gzip.compress(b"<Error>plain</Error>")

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(404, body, (b"Content-Encoding: gzip", b"X-Odd:  kept"))

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.body == body
    assert answer.get(b"content-encoding") == b"gzip"
    assert (await w.only()).response == answer.raw


@scenario()
async def test_a_client_that_leaves_during_an_error_leaves_no_secret_on_record(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 403 No\r\nContent-Length: 9999\r\n\r\n<Error>" + TOKEN + b" " + TOKEN[:30])
        said.set()
        await conn.gone()

    said = asyncio.Event()
    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    await said.wait()
    await asyncio.sleep(0.05)
    client.reset()
    found = (await w.ended())[0]
    assert found.outcome["outcome"] == "client_gone"
    assert b"<Error>****" in found.response
    assert not w.leaks(TOKEN, TOKEN[:20])


@pytest.mark.parametrize(
    "target",
    [
        b"/bucket/key?X-Amz-Security-Token=%b",
        b"/bucket/key?x-amz-security-%%54oken=%b",
        b"/bucket/key?a=b&X%%2DAmz-Security-Token=%b",
    ],
)
@scenario()
async def test_a_lease_in_odd_places_of_a_refused_request_is_scrubbed(w: World, target: bytes) -> None:
    client = await w.client()
    token = w.lease.session_token.encode()
    lines = b"Cookie: a=" + token + b"\r\nX-Amz-Security-Token: " + token + b"\r\nProxy-Authorization: Basic " + token
    answer = await client.ask(b"GET " + target % token + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n\r\n")
    assert answer.status >= 400
    assert not w.leaks(token)
    assert b"***" in (await w.only()).request


@scenario()
async def test_the_clients_proof_does_not_go_upstream(w: World) -> None:
    client = await w.client()
    await client.ask(w.signer.request(unsigned=[(b"Proxy-Authorization", b"Basic " + w.proxy_token.encode())]))
    raw = bytes(w.origin.ledger[0].raw)
    assert w.lease.session_token.encode() not in raw
    assert w.lease.access_key_id.encode() not in raw
    assert w.proxy_token.encode() not in raw


@scenario()
async def test_times_are_told(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await asyncio.sleep(0.05)
        await plain(conn, received)

    w.origin.script = script
    client = await w.client()
    await client.ask(w.signer.request())
    outcome = (await w.only()).outcome
    assert 50_000_000 <= outcome["first_byte_ns"] <= outcome["last_byte_ns"]
    assert 0 < outcome["gateway_ns"] < outcome["first_byte_ns"]
