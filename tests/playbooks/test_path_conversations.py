"""The path as a conversation: what a client sends, what the target sees, what comes back, what is on record."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.kit import REAL, SESSION, Conn, Received, World, scenario

from narrows.wire import aws_chunked, sigv4

# -- one connection, many requests ---------------------------------------------------------------------------------


@scenario()
async def test_requests_follow_one_another_on_one_connection(w: World) -> None:
    client = await w.client()
    for n in range(3):
        answer = await client.ask(w.signer.request(target=b"/bucket/%d" % n))
        assert (answer.status, answer.body) == (200, b"ok")
    assert [seen.head.target for seen in w.origin.ledger] == [b"/bucket/0", b"/bucket/1", b"/bucket/2"]
    assert w.origin.connections == 1
    for seen, found in zip(w.origin.ledger, await w.recorded(), strict=True):
        seen.verify(REAL, w.now_s)
        found.check()
        assert found.session == SESSION
        assert found.facts["operation"] == "GetObject"
        assert found.facts["principal"] == "alice"
        assert found.outcome["outcome"] == "complete"
        assert found.outcome["upstream_request_sent"] is True
    assert not w.leaks(*w.secrets())


@scenario()
async def test_pipelined_requests_are_answered_in_order(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(200, received.head.target)

    w.origin.script = script
    client = await w.client()
    requests = [
        w.signer.request(target=b"/bucket/first"),
        w.signer.request(b"PUT", b"/bucket/second", b"x" * 3000),
        w.signer.request(target=b"/bucket/third"),
    ]
    client.send(b"".join(requests))
    bodies = [(await client.response()).body for _ in requests]
    assert bodies == [b"/bucket/first", b"/bucket/second", b"/bucket/third"]
    found = await w.recorded()
    assert [one.facts["target"] for one in found] == ["/bucket/first", "/bucket/second", "/bucket/third"]
    for one, sent in zip(found, requests, strict=True):
        one.check()
        assert len(one.request) == len(sent)


@scenario()
async def test_the_request_is_recorded_as_it_came_but_for_its_lease(w: World) -> None:
    client = await w.client()
    request = w.signer.request(b"PUT", b"/bucket/key", b"the body", unsigned=[(b"X-Odd", b"  spaced\tout")])
    await client.ask(request)
    found = await w.only()
    assert len(found.request) == len(request)
    assert found.request.endswith(b"the body")
    assert b"X-Odd:   spaced\tout\r\n" in found.request
    assert b"X-Odd:   spaced\tout\r\n" in w.origin.ledger[0].raw
    differing = [i for i in range(len(request)) if request[i] != found.request[i]]
    assert {found.request[i : i + 1] for i in differing} == {b"*"}


# -- bodies --------------------------------------------------------------------------------------------------------


@scenario()
async def test_chunked_both_ways_with_trailers(w: World) -> None:
    answer_body = b"5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\nX-Check: 1\r\n\r\n"

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n" + answer_body)

    w.origin.script = script
    client = await w.client()
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Transfer-Encoding", b"chunked")])
    wire = b"4\r\nwhat\r\n1;x=y\r\n!\r\n0\r\nX-Sum: abc\r\n\r\n"
    client.send(head)
    for at in range(0, len(wire), 5):
        client.send(wire[at : at + 5])
        await asyncio.sleep(0)
    answer = await client.response()
    assert (answer.body, answer.trailers) == (b"helloyou", [(b"x-check", b"1")])
    assert answer.raw.endswith(answer_body), "the answer's framing is the target's own"
    seen = w.origin.ledger[0]
    assert (bytes(seen.body), seen.trailers) == (b"what!", [(b"x-sum", b"abc")])
    found = await w.only()
    assert found.request.endswith(wire)
    assert found.response.endswith(answer_body)


@scenario()
async def test_a_credential_in_a_trailer_is_refused(w: World) -> None:
    client = await w.client()
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Transfer-Encoding", b"chunked")])
    token = w.lease.session_token.encode()
    client.send(head + b"4\r\nwhat\r\n")
    await w.origin.arrived(1)
    client.send(b"0\r\nX-Amz-Security-Token: " + token + b"\r\n\r\n")
    assert (await client.response(b"PUT")).status == 400
    assert not w.origin.ledger[0].whole
    assert not w.leaks(token)


@scenario()
async def test_expect_continue_is_answered_after_the_decision(w: World) -> None:
    client = await w.client()
    body = b"z" * 100
    client.send(w.signer.request(b"PUT", body=body, unsigned=[(b"Expect", b"100-continue")])[: -len(body)])
    head = await client.read()
    assert head == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await w.recorded())[0].facts["decision"] == "allow"
    seen = await w.origin.arrived(1)
    assert seen.head.get(b"expect") is None
    client.send(body)
    assert (await client.response(b"PUT")).status == 200
    assert bytes(seen.body) == body


@scenario()
async def test_expect_continue_of_a_refused_request_gets_the_final_status(w: World) -> None:
    client = await w.client()
    head = w.signer.request(b"PUT", body=b"1234567890", unsigned=[(b"Expect", b"100-continue")])[:-10]
    client.send(head.replace(b"SignedHeaders=host", b"SignedHeaders=most"))
    answer = await client.response(b"PUT")
    assert answer.status in (400, 403)
    assert answer.informational == []
    assert answer.get(b"connection") == b"close"
    assert await client.closed()
    assert not w.origin.ledger


@scenario()
async def test_a_refused_request_whose_body_is_unread_ends_the_connection(w: World) -> None:
    """What is left of its body must never be taken for the next request."""
    client = await w.client()
    smuggled = w.signer.request(target=b"/bucket/smuggled")
    head, _ = w.signer.head(b"PUT", body=b"other", unsigned=[(b"Content-Length", b"%d" % (len(smuggled) + 5))])
    client.send(head.replace(b"x-amz-date: 2", b"x-amz-date: 1"))
    answer = await client.response(b"PUT")
    assert answer.status == 403
    client.send(smuggled + b"12345")
    assert await client.rest() == b""
    assert not w.origin.ledger
    assert len(await w.recorded()) == 1


@scenario()
async def test_an_early_answer_reaches_a_client_that_still_sends(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.answer(403, b"<no/>")
        await conn.gone()

    w.origin.script = script
    client = await w.client()
    size = 20 * 1024 * 1024
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Content-Length", b"%d" % size)])
    client.send(head + bytes(100_000))
    answer = await client.response(b"PUT")
    assert (answer.status, answer.body) == (403, b"<no/>")
    assert answer.get(b"connection") == b"close"
    for _ in range(100):  # a reset would break this
        client.send(bytes(65536))
        await client.writer.drain()
    client.close()
    found = (await w.ended())[0]
    assert found.outcome["outcome"] == "complete"
    assert found.outcome["upstream_request_sent"] is False


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Space:   kept  \r\n\r\n"),
    ],
)
@scenario()
async def test_answers_without_a_body_leave_the_connection_usable(w: World, method: bytes, raw: bytes) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(raw)

    w.origin.script = script
    client = await w.client()
    for _ in range(2):
        answer = await client.ask(w.signer.request(method), method)
        assert answer.raw == raw
    assert w.origin.connections == 1
    assert {one.response for one in await w.recorded()} == {raw}


@scenario()
async def test_a_refused_head_has_no_body(w: World) -> None:
    client = await w.client()
    for _ in range(2):
        answer = await client.ask(w.signer.request(b"HEAD").replace(b"Signature=", b"Signature=x"), b"HEAD")
        assert answer.status >= 400
    assert client.received.endswith(b"\r\n\r\n")


@scenario()
async def test_informational_answers_are_forwarded_and_recorded(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await conn.answer(200, b"done")

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert (answer.informational, answer.body) == ([103], b"done")
    assert (await w.only()).response.startswith(b"HTTP/1.1 103")


@scenario()
async def test_an_answer_that_ends_with_the_connection(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nall of it")
        conn.close()

    w.origin.script = script
    client = await w.client()
    answer = await client.ask(w.signer.request())
    assert answer.body == b"all of it"
    assert answer.get(b"connection") == b"close"
    assert (await w.only()).outcome["outcome"] == "complete"


@scenario()
async def test_a_client_of_http_1_0_gets_no_chunks(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await conn.write(b"3\r\ndef\r\n0\r\n\r\n")

    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request(version=b"HTTP/1.0"))
    raw = await client.rest()
    assert raw.endswith(b"\r\n\r\nabcdef")
    assert b"chunked" not in raw
    assert (await w.only()).response.endswith(b"0\r\n\r\n")


@scenario()
async def test_connection_headers_of_the_target_stay_on_its_side(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"
        )
        conn.close()

    w.origin.script = script
    client = await w.client()
    for _ in range(2):
        answer = await client.ask(w.signer.request())
        assert answer.get(b"connection") is None
        assert answer.get(b"keep-alive") is None
    assert w.origin.connections == 2


@scenario()
async def test_the_client_closes_when_it_says_so(w: World) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(unsigned=[(b"Connection", b"close")]))
    assert answer.get(b"connection") == b"close"
    assert await client.closed()
    assert w.origin.ledger[0].head.get(b"connection") is None, "the hop's header is the hop's"


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [b"x-amz-date", b"X-Amz-Security-Token", b"close, range", b"x-amz-content-sha256"])
@scenario()
async def test_connection_may_not_name_a_header_of_the_call(w: World, named: bytes) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(unsigned=[(b"Range", b"bytes=0-1"), (b"Connection", named)]))
    assert answer.status == 400
    assert b"hop_by_hop_abuse" in answer.body
    assert not w.origin.ledger
    assert (await w.only()).outcome["code"] == "hop_by_hop_abuse"


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: authorization\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X-Folded: a\r\n b\r\n",
        b"Host: second\r\n",
        b"Expect: wonders\r\n",
        b"Bare: a\rb\r\n",
    ],
)
@scenario()
async def test_heads_that_two_readers_take_in_two_ways_are_refused_and_recorded(w: World, lines: bytes) -> None:
    client = await w.client()
    request = w.signer.request()
    client.send(request[:-2] + lines + b"\r\n" + w.signer.request(target=b"/bucket/smuggled"))
    answer = await client.response()
    assert 400 <= answer.status < 600
    assert await client.closed()
    assert not w.origin.ledger
    found = await w.only()
    assert found.outcome["outcome"] == "protocol_error"
    assert found.response == answer.raw
    assert not w.leaks(*w.secrets())


@scenario()
async def test_a_malformed_chunk_is_refused_with_its_head_on_record(w: World) -> None:
    client = await w.client()
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Transfer-Encoding", b"chunked")])
    client.send(head + b"zz\r\n")
    assert (await client.response(b"PUT")).status == 400
    assert await client.closed()
    found = await w.only()
    assert found.facts["target"] == "/bucket/key"
    assert found.outcome["outcome"] == "protocol_error"
    assert not w.origin.ledger


@scenario()
async def test_a_malformed_chunk_later_on_is_refused_once(w: World) -> None:
    client = await w.client()
    head, _ = w.signer.head(b"PUT", payload_hash=b"UNSIGNED-PAYLOAD", unsigned=[(b"Transfer-Encoding", b"chunked")])
    client.send(head + b"3\r\nabc\r\n")
    seen = await w.origin.arrived(1)
    client.send(b"zz\r\n")
    assert (await client.response(b"PUT")).status == 400
    assert await client.rest() == b""
    assert not seen.whole
    assert (await w.only()).outcome["outcome"] == "protocol_error"


@scenario()
async def test_switching_protocols_is_refused(w: World) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(unsigned=[(b"Upgrade", b"websocket"), (b"Connection", b"upgrade")]))
    assert answer.status == 501
    assert b"upgrade_refused" in answer.body
    assert (await w.only()).outcome["code"] == "upgrade_refused"


@scenario()
async def test_an_offer_of_h2c_is_passed_over(w: World) -> None:
    client = await w.client()
    extra = [(b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMA"), (b"Connection", b"Upgrade, HTTP2-Settings")]
    assert (await client.ask(w.signer.request(unsigned=extra))).status == 200
    assert w.origin.ledger[0].head.get(b"http2-settings") is None


@scenario()
async def test_plain_http_through_the_proxy_is_refused(w: World) -> None:
    client = await w.client()
    client.send(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
    answer = await client.response()
    assert answer.status == 403
    assert (await w.only()).outcome["code"] == "plain_http_proxy"


@scenario()
async def test_a_request_without_a_lease_is_refused(w: World) -> None:
    client = await w.client()
    answer = await client.ask(b"GET /bucket/key HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 403
    assert b"MissingAuthenticationToken" in answer.body
    found = await w.only()
    assert found.outcome["code"] == "no_credentials"
    assert found.session == bytes(16)


@scenario(max_head=8192)
async def test_a_head_over_the_limit_is_refused_readably(w: World) -> None:
    client = await w.client()
    client.send(w.signer.request(unsigned=[(b"X-Long", b"y" * 200_000)]))
    assert (await client.response()).status == 431
    client.close()
    assert (await w.only()).outcome["outcome"] == "protocol_error"


# -- CONNECT -------------------------------------------------------------------------------------------------------


@scenario()
async def test_a_call_through_the_tunnel(w: World) -> None:
    client = await w.tunnel()
    host = b"s3.eu-west-1.amazonaws.com"
    for _ in range(2):
        answer = await client.ask(w.signer.request(host=host))
        assert (answer.status, answer.body) == (200, b"ok")
    assert w.origin.ledger[0].verify(REAL, w.now_s) == b""
    found = await w.recorded()
    assert [one.facts["form"] for one in found] == ["proxy", "proxy"]
    assert found[0].facts["host"] == host.decode()
    assert found[0].facts["scheme"] == "https"


@pytest.mark.parametrize(
    ("authority", "token", "status", "code"),
    [
        (b"s3.eu-west-1.amazonaws.com:443", "nrw1.x.y", 407, "lease_invalid"),
        (b"s3.eu-west-1.amazonaws.com:443", "", 407, "lease_invalid"),
        (b"example.com:443", None, 403, "host_unknown"),
        (b"169.254.169.254:443", None, 403, "host_unknown"),
        (b"localhost:443", None, 403, "host_unknown"),
        (b"-x-.amazonaws.com:443", None, 400, "host_invalid"),
        (b"s3.amazonaws.com:0", None, 400, "protocol_error"),
    ],
)
@scenario()
async def test_connect_is_refused_and_recorded(
    w: World, authority: bytes, token: str | None, status: int, code: str
) -> None:
    client = await w.client()
    answer = await client.ask(w.connect_request(authority, token), b"CONNECT")
    assert answer.status == status, answer.body
    assert await client.closed()
    found = await w.only()
    assert found.outcome["code"] == code
    assert found.session == (SESSION if token is None else bytes(16))
    assert not w.leaks(w.proxy_token.encode())


@scenario()
async def test_connect_without_a_token_asks_for_one(w: World) -> None:
    client = await w.client()
    answer = await client.ask(
        b"CONNECT s3.amazonaws.com:443 HTTP/1.1\r\nHost: s3.amazonaws.com:443\r\n\r\n", b"CONNECT"
    )
    assert answer.status == 407
    assert answer.get(b"proxy-authenticate") == b'Basic realm="narrows"'


@scenario(connection={"endpoint": ""})
async def test_connect_to_another_port_is_refused(w: World) -> None:
    client = await w.client()
    answer = await client.ask(w.connect_request(b"s3.amazonaws.com:22"), b"CONNECT")
    assert answer.status == 403
    assert (await w.only()).outcome["code"] == "port_not_allowed"


@scenario()
async def test_bytes_sent_ahead_of_the_tunnel_are_refused(w: World) -> None:
    client = await w.client()
    client.send(w.connect_request(b"s3.amazonaws.com:443") + b"GET / HTTP/1.1\r\n\r\n")
    answer = await client.response(b"CONNECT")
    assert answer.status == 400
    assert await client.closed()
    assert not w.origin.ledger
    (await w.only()).check()


@scenario()
async def test_a_tunnel_inside_a_tunnel_is_refused(w: World) -> None:
    client = await w.tunnel()
    answer = await client.ask(w.connect_request(b"s3.amazonaws.com:443"), b"CONNECT")
    assert answer.status == 403
    assert (await w.only()).outcome["code"] == "nested_connect"


@scenario()
async def test_the_host_header_must_be_the_tunnels(w: World) -> None:
    client = await w.tunnel("s3.eu-west-1.amazonaws.com")
    answer = await client.ask(w.signer.request(host=b"dynamodb.eu-west-1.amazonaws.com"))
    assert answer.status == 421
    assert (await w.only()).outcome["code"] == "misdirected"
    assert not w.origin.ledger


@scenario()
async def test_what_is_refused_inside_a_tunnel_belongs_to_its_session(w: World) -> None:
    client = await w.tunnel()
    answer = await client.ask(b"GET / HTTP/1.1\r\nHost: s3.eu-west-1.amazonaws.com\r\n\r\n")
    assert answer.status == 403
    assert (await w.only()).session == SESSION


@scenario()
async def test_tls_and_plain_endpoints_share_the_port(w: World) -> None:
    plain = await w.client()
    secure = await w.client(tls=True)
    assert (await secure.ask(w.signer.request())).status == 200
    assert (await plain.ask(w.signer.request())).status == 200
    assert [one.facts["scheme"] for one in await w.recorded()] == ["https", "http"]


# -- S3's ways of signing ------------------------------------------------------------------------------------------


def signed_chunks(w: World, pieces: list[bytes], *, trailer: bool = False, tamper: int = -1) -> tuple[bytes, bytes]:
    """A PUT whose chunks are signed: (head, body). `tamper` changes a byte of that chunk after signing."""
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    total = sum(map(len, pieces))
    extra = [(b"x-amz-decoded-content-length", b"%d" % total), (b"content-encoding", b"aws-chunked")]
    trailers = [(b"x-amz-checksum-crc32", b"AAAAAA==")] if trailer else []
    if trailer:
        extra.append((b"x-amz-trailer", b"x-amz-checksum-crc32"))
    head, seed = w.signer.head(b"PUT", payload_hash=kind.encode(), extra=extra)
    amz = head.partition(b"x-amz-date: ")[2][:16].decode()
    scope = f"{amz[:8]}/eu-west-1/s3/aws4_request"
    signer = sigv4.ChunkSigner(w.signer.key("s3"), scope, amz, seed)
    body = b""
    for number, piece in enumerate(pieces):
        encoder = aws_chunked.Encoder(signer, trailer, len(piece))
        chunk = bytes(encoder.feed(piece))
        if number == tamper:
            chunk = chunk[:-3] + bytes([chunk[-3] ^ 1]) + chunk[-2:]
        body += chunk
    body += aws_chunked.Encoder(signer, trailer, 1).finish(trailers)
    framing = b"Content-Length: %d\r\n" % len(body)
    return head[:-2] + framing + b"\r\n", body


@pytest.mark.parametrize("trailer", [False, True])
@scenario()
async def test_signed_chunks_are_verified_and_signed_anew(w: World, trailer: bool) -> None:
    pieces = [bytes([n]) * (30_000 * (n + 1)) for n in range(5)]
    head, body = signed_chunks(w, pieces, trailer=trailer)
    client = await w.client()
    client.send(head)
    for at in range(0, len(body), 70_001):
        client.send(body[at : at + 70_001])
        await client.writer.drain()
    answer = await client.response(b"PUT")
    assert answer.status == 200
    assert w.origin.ledger[0].verify(REAL, w.now_s) == b"".join(pieces)
    assert (await w.only()).request.endswith(body)


@pytest.mark.parametrize("tamper", [0, 1, 2])
@scenario()
async def test_a_tampered_chunk_never_completes_upstream(w: World, tamper: int) -> None:
    head, body = signed_chunks(w, [b"a" * 100_000, b"b" * 100_000, b"c" * 100_000], tamper=tamper)
    client = await w.client()
    client.send(head)
    client.send(body)
    answer = await client.response(b"PUT")
    assert answer.status == 403
    assert b"SignatureDoesNotMatch" in answer.body
    assert not any(seen.whole for seen in w.origin.ledger)
    assert (await w.only()).outcome["outcome"] == "refused"


@pytest.mark.parametrize("size", [10, 1_000_000])
@scenario()
async def test_a_body_that_is_not_the_signed_one_never_completes_upstream(w: World, size: int) -> None:
    client = await w.client()
    request = w.signer.request(b"PUT", body=b"a" * size)
    client.send(request[:-1] + b"b")
    answer = await client.response(b"PUT")
    assert answer.status == 400
    assert b"XAmzContentSHA256Mismatch" in answer.body
    assert not any(seen.whole for seen in w.origin.ledger)
    (await w.only()).check()


@scenario()
async def test_a_presigned_url_is_presigned_anew(w: World) -> None:
    client = await w.client()
    target = w.signer.presigned(target=b"/bucket/a%20key?response-content-type=text%2Fplain")
    answer = await client.ask(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.status == 200, answer.body
    seen = w.origin.ledger[0]
    seen.verify(REAL, w.now_s)
    assert seen.head.target.startswith(b"/bucket/a%20key?response-content-type=text%2Fplain&X-Amz-Algorithm")
    assert not w.leaks(*w.secrets())


@scenario()
async def test_a_presigned_upload_with_a_signed_length(w: World) -> None:
    client = await w.client()
    target = w.signer.presigned(b"PUT", signed=[(b"content-length", b"5")])
    client.send(b"PUT " + target + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
    answer = await client.response(b"PUT")
    assert answer.status == 200, answer.body
    assert w.origin.ledger[0].verify(REAL, w.now_s) == b"hello"


@scenario()
async def test_a_sigv2_url_goes_on_as_sigv4_with_its_amz_headers_signed(w: World) -> None:
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    lease = w.lease
    credentials = botocore.credentials.Credentials(lease.access_key_id, lease.secret_access_key, lease.session_token)
    request = botocore.awsrequest.AWSRequest("PUT", f"http://localhost:{w.port}/bucket/key", {"x-amz-acl": "private"})
    botocore.auth.HmacV1QueryAuth(credentials, expires=300).add_auth(request)
    assert request.url is not None
    target = request.url.partition(f":{w.port}")[2].encode()
    target += b"" if b"x-amz-security-token" in target else b"&x-amz-security-token="
    client = await w.client()
    client.send(b"PUT " + target + b" HTTP/1.1\r\nHost: localhost:%d\r\n" % w.port)
    client.send(
        b"Content-Length: 2\r\n\r\nhi"
        if b"x-amz-acl=" in target
        else b"x-amz-acl: private\r\nContent-Length: 2\r\n\r\nhi"
    )
    answer = await client.response(b"PUT")
    assert answer.status == 200, answer.body
    seen = w.origin.ledger[0]
    assert seen.verify(REAL, w.now_s) == b"hi"
    assert not w.leaks(*w.secrets())


@scenario()
async def test_sigv4a_is_refused_with_what_to_set(w: World) -> None:
    client = await w.client()
    request = w.signer.request().replace(b"AWS4-HMAC-SHA256 Credential", b"AWS4-ECDSA-P256-SHA256 Credential")
    answer = await client.ask(request)
    assert 400 <= answer.status < 500
    assert b"sigv4" in answer.body.lower()
    assert (await w.only()).outcome["outcome"] == "refused"


@scenario()
async def test_a_call_whose_body_is_covered_undeclared(w: World) -> None:
    client = await w.client()
    body = json.dumps({"TableName": "t", "Pad": "x" * 200_000}).encode()
    request = w.signer.dynamodb(b"DescribeTable", body)
    client.send(request[:-100_000])
    await asyncio.sleep(0.01)
    client.send(request[-100_000:])
    answer = await client.response(b"POST")
    assert answer.status == 200, answer.body
    assert w.origin.ledger[0].verify(REAL, w.now_s) == body
    found = await w.only()
    assert found.facts["action"] == "dynamodb:DescribeTable"
    assert found.request.endswith(body)


@scenario()
async def test_a_form_in_chunks_is_understood_whole(w: World) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    head, _ = w.signer.head(
        b"POST", b"/", service="sts", declare=False, body=body,
        extra=[(b"content-type", b"application/x-www-form-urlencoded")], unsigned=[(b"Transfer-Encoding", b"chunked")],
    )  # fmt: skip
    client = await w.client()
    client.send(head + b"7\r\nAction=\r\n")
    await asyncio.sleep(0.01)
    client.send(b"%x\r\n" % (len(body) - 7) + body[7:] + b"\r\n0\r\n\r\n")
    answer = await client.response(b"POST")
    assert answer.status == 200, answer.body
    assert w.origin.ledger[0].verify(REAL, w.now_s) == body
    assert (await w.only()).facts["operation"] == "GetCallerIdentity"


@scenario()
async def test_a_redirect_to_the_buckets_region_is_followed_once(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        if b"/us-west-2/s3/" in (received.head.get(b"authorization") or b""):
            await conn.answer(200, b"there")
        else:
            await conn.answer(301, b"<moved/>", (b"x-amz-bucket-region: us-west-2",))

    w.origin.script = script
    client = await w.client()
    for _ in range(2):
        answer = await client.ask(w.signer.request())
        assert (answer.status, answer.body) == (200, b"there")
    assert len(w.origin.ledger) == 3, "the region is remembered"
    w.origin.ledger[1].verify(REAL, w.now_s)
    found = (await w.recorded())[0]
    found.check()
    assert len(found.sent) == 2
    assert "301" in json.loads(found.sent[1].meta)["again_because"]
