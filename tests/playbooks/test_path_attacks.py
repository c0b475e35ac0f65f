"""What a clever holder of a lease tries: one call understood and another one forwarded, an end that does not end."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from tests.kit import REAL, SESSION, Conn, Received, World, scenario

from narrows.core.values import Connection
from narrows.wire import aws_chunked, canonical, sigv4

NAMED_GZIP = b"\x1f\x8b\x08\x08\0\0\0\0\0\xffx&Action=AssumeRole&Version=2011-06-15&x=\0" + gzip.compress(b"x=1")[10:]
"""A gzip whose file name, in the clear, is a form of its own."""

FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")


# -- the same bytes, two readings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [b"one.LOCALHOST", b"One.s3.eu-west-1.amazonaws.COM", b"one.Localhost:80"])
@scenario()
async def test_the_bucket_of_a_host_in_capitals_is_the_one_that_is_acted_on(w: World, host: bytes) -> None:
    client = await w.client()
    await client.ask(w.signer.request(b"DELETE", b"/two", host=host), b"DELETE")
    found = await w.only()
    if found.outcome["outcome"] == "refused":
        assert not w.origin.ledger
        return
    assert found.facts["operation"] == "DeleteObject"
    assert w.origin.ledger[0].head.target == b"/one/two"


@pytest.mark.parametrize("target", [b"//two/key", b"//two", b"//"])
@scenario()
async def test_a_key_without_a_bucket_is_refused(w: World, target: bytes) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(b"DELETE", target), b"DELETE")
    assert answer.status == 400, (await w.only()).facts
    assert not w.origin.ledger


@pytest.mark.parametrize("target", [b"/bucket/key?versionId=a&versionId=", b"/bucket/key?versionId=&versionId=a"])
@scenario()
async def test_a_parameter_that_stands_twice_is_refused(w: World, target: bytes) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(target=target))
    assert answer.status == 400
    assert not w.origin.ledger


@scenario()
async def test_a_control_request_in_disguise_is_refused(w: World) -> None:
    host = "123456789012.s3-control.eu-west-1.amazonaws.com"
    client = await w.tunnel(host)
    request = w.signer.request(b"PUT", b"/%7620180820/accesspoint/x", b"<a/>", host=host.encode())
    answer = await client.ask(request, b"PUT")
    assert answer.status == 400, (await w.only()).facts
    assert not w.origin.ledger


@pytest.mark.parametrize(
    ("extra", "body"),
    [
        ([FORM, (b"content-encoding", b"gzip")], gzip.compress(b"Action=AssumeRole&Version=2011-06-15")),
        ([FORM, (b"content-encoding", b"gzip")], NAMED_GZIP),
        (
            [(b"content-type", b"application/x-www-form-urlencoded; charset=utf-16le")],
            "Action=AssumeRole&Version=2011-06-15".encode("utf-16le"),
        ),
        (
            [(b"content-type", b"application/x-www-form-urlencoded; charset=IBM037")],
            "Action=AssumeRole&Version=2011-06-15".encode("cp037"),
        ),
        ([(b"content-type", b"text/plain")], b"Action=AssumeRole&Version=2011-06-15"),
        ([FORM, (b"Content-Type", b"text/plain")], b"Action=AssumeRole&Version=2011-06-15"),
        ([FORM, (b"smithy-protocol", b"rpc-v2-cbor")], b"Action=AssumeRole&Version=2011-06-15"),
        ([FORM], b"x=1;Action=AssumeRole"),
        ([FORM], b"x=1&%41%43tion"),
        ([FORM], b"x=1&%41ction=AssumeRole"),
        ([FORM], b"+Action=AssumeRole"),
        ([FORM], b"\nAction=AssumeRole"),
        ([FORM], b"Action%00=AssumeRole"),
    ],
)
@scenario()
async def test_a_form_that_hides_its_action_is_refused(w: World, extra: list[tuple[bytes, bytes]], body: bytes) -> None:
    client = await w.client()
    target = b"/?Action=GetCallerIdentity&Version=2011-06-15"
    request = w.signer.request(b"POST", target, body, service="sts", extra=[], unsigned=extra)
    answer = await client.ask(request, b"POST")
    assert answer.status >= 400, (await w.only()).facts
    assert not w.origin.ledger


@scenario()
async def test_a_form_in_signed_chunks_is_refused(w: World) -> None:
    pieces = (b"x=1&Act", b"ion=AssumeRole&RoleArn=arn")
    extra = [(b"x-amz-decoded-content-length", b"%d" % sum(map(len, pieces)))]
    kind = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    target = b"/?Action=GetCallerIdentity&Version=2011-06-15"
    head, seed = w.signer.head(b"POST", target, service="sts", payload_hash=kind, extra=extra, unsigned=[FORM])
    amz = canonical.amz_date(w.now_s)
    chain = sigv4.ChunkSigner(w.signer.key("sts"), f"{amz[:8]}/eu-west-1/sts/aws4_request", amz, seed)
    body = b"".join(bytes(aws_chunked.Encoder(chain, False, len(piece)).feed(piece)) for piece in pieces)
    body += aws_chunked.Encoder(chain, False, 1).finish([])
    client = await w.client()
    client.send(head[:-2] + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await client.response(b"POST")
    assert answer.status == 400, w.origin.ledger
    assert not w.origin.ledger


@pytest.mark.parametrize("target", [b"/2015-03-31/functions/f;x/invocations", b"/2015-03-31/functions/..;/invocations"])
@scenario()
async def test_parameters_in_the_path_are_refused(w: World, target: bytes) -> None:
    client = await w.client()
    answer = await client.ask(w.signer.request(b"POST", target, b"{}", service="lambda"), b"POST")
    assert answer.status == 400
    assert not w.origin.ledger


@pytest.mark.parametrize(
    ("service", "target", "extra"),
    [
        ("ses", b"/v2/email/identities/a?Action=ListIdentities&Version=2010-12-01", []),
        ("monitoring", b"/service/GraniteServiceVersion20100801/operation/GetMetricData", [FORM]),
        ("monitoring", b"/service/GraniteServiceVersion20100801/operation/GetMetricData", []),
        (
            "monitoring",
            b"/service/GraniteServiceVersion20100801/operation/GetMetricData?Action=PutMetricData&Version=2010-08-01",
            [(b"smithy-protocol", b"rpc-v2-cbor"), (b"content-type", b"application/cbor")],
        ),
        ("sqs", b"/?Action=ListQueues&Version=2012-11-05", [(b"smithy-protocol", b"rpc-v2-cbor")]),
    ],
)
@scenario()
async def test_signs_of_two_protocols_are_refused(
    w: World, service: str, target: bytes, extra: list[tuple[bytes, bytes]]
) -> None:
    client = await w.client()
    method, body = (b"DELETE", b"") if service == "ses" else (b"POST", b"x=1")
    answer = await client.ask(w.signer.request(method, target, body, service=service, unsigned=extra), method)
    assert answer.status >= 400, (await w.only()).facts
    assert not w.origin.ledger


# -- ends that must end --------------------------------------------------------------------------------------------


@scenario()
async def test_a_killed_session_does_not_finish_an_upload(w: World) -> None:
    client = await w.client()
    request = w.signer.request(b"PUT", body=b"x" * 1000)
    client.send(request[:-10])
    while not w.origin.connections:
        await asyncio.sleep(0.01)
    w.publish(w.connection(), {SESSION: "killed"})
    w.directory.refresh()
    client.send(request[-10:])
    answer = await client.response(b"PUT")
    assert answer.status >= 400
    assert not any(seen.whole for seen in w.origin.ledger)
    assert (await w.only()).outcome["code"] == "session_ended"


@scenario()
async def test_a_tunnel_does_not_outlive_its_token(w: World) -> None:
    http = Connection("web", kind="http", endpoint=w.connection().endpoint, hosts=("web.example",), allow_private=True)
    w.publish(w.connection(), None, http)
    w.directory.refresh()
    client = await w.tunnel("web.example")
    request = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n"
    assert (await client.ask(request)).status == 200
    real = w.clock.wall_ns
    w.gateway.clock = type("Later", (), {"wall_ns": lambda _: real() + 7200 * 10**9, "mono_ns": w.clock.mono_ns})()
    answer = await client.ask(request)
    assert answer.status == 403
    assert len(w.origin.ledger) == 1


@scenario()
async def test_a_session_that_ends_while_a_body_is_awaited_passes_nothing(w: World) -> None:
    client = await w.client()
    request = w.signer.dynamodb(b"DeleteTable", b'{"TableName": "orders"}')
    client.send(request[:-5])
    while not w.listener.connections:
        await asyncio.sleep(0.01)
    w.publish(w.connection(), {SESSION: "expired"})
    w.directory.refresh()
    client.send(request[-5:])
    assert (await client.response(b"POST")).status >= 400
    assert not w.origin.ledger


@scenario()
async def test_an_answer_to_a_killed_session_is_cut_and_on_record(w: World) -> None:
    killed = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 100_000)
        await killed.wait()
        await conn.write(b"b" * 900_000)

    w.origin.script = script
    client = await w.client()
    client.send(w.signer.request())
    while len(client.received) < 50_000:
        assert await client.read()
    w.publish(w.connection(), {SESSION: "killed"})
    w.directory.refresh()
    killed.set()
    await client.rest()
    assert len(client.received) < 900_000
    found = (await w.ended())[0]
    assert found.outcome["code"] == "session_ended"
    assert found.response.count(b"b") > 0


# -- memory --------------------------------------------------------------------------------------------------------


@scenario()
async def test_what_a_client_makes_up_is_not_kept(w: World) -> None:
    from tests.kit.world import models

    group, s3 = models().group("dynamodb"), models().group("s3")
    assert group is not None and s3 is not None
    client = await w.client()
    for n in range(20):
        extra = [(b"x-amz-target", b"DynamoDB_20120810.ListTables"), (b"content-type", b"a/%d;" % n + b"x" * 10_000)]
        request = w.signer.request(b"POST", b"/", b"{}", service="dynamodb", extra=extra)
        assert (await client.ask(request, b"POST")).status == 200
        assert (await client.ask(w.signer.request(target=b"/bucket/key?x-%d" % n + b"x" * 10_000))).status == 200
    assert all(len(key[1]) < 100 for key in group.memo)
    assert s3.s3 is not None
    assert not any("xxxx" in repr(key) for key in s3.s3._memo)


@scenario()
async def test_bodies_that_are_held_are_bounded_together(w: World) -> None:
    request = w.signer.dynamodb(b"PutItem", b'{"TableName": "' + b"x" * 300_000 + b'"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("narrows.transfer.body.MAX_TOGETHER", 1_000_000)
        clients = [await w.client() for _ in range(20)]
        for client in clients:
            client.send(request[:-10])
            await client.writer.drain()
        while w.gateway.together.held < 900_000:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert w.gateway.together.held < 1_000_000 + 20 * 64 * 1024
        for client in clients:
            client.send(request[-10:])
        for client in clients:
            assert (await client.response(b"POST")).status == 200
    for seen in w.origin.ledger:
        seen.verify(REAL, w.now_s)
    await w.ended(20)
    assert w.gateway.together.held == 0
