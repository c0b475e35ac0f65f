"""Where an AWS call goes, in which form, and what may not come back."""

from __future__ import annotations

import gzip
from urllib.parse import quote

import pytest
from tests.kit import OTHER_SESSION, REAL, Conn, Received, Signer, World, scenario

from narrows.core.values import Agent, Principal
from narrows.session.aws import handler, resign
from narrows.wire.sigv4 import Credentials


async def went(w: World, request: bytes) -> Received:
    """Send one request; what the origin saw of it, its signature verified."""
    client = await w.client()
    answer = await client.ask(request)
    assert answer.status == 200, answer.body
    w.origin.ledger[-1].verify(REAL, w.now_s)
    return w.origin.ledger[-1]


@scenario()
async def test_a_virtual_host_of_the_gateway_becomes_a_path(w: World) -> None:
    for path, seen_path in (
        (b"/a%20key?acl", b"/my-bucket/a%20key?acl"),
        (b"/", b"/my-bucket"),
        (b"/?acl", b"/my-bucket/?acl"),
    ):
        seen = await went(w, w.signer.request(target=path, host=b"my-bucket.localhost:80"))
        assert seen.head.target == seen_path


@scenario()
async def test_keys_with_dots_and_double_slashes_stay_as_they_are(w: World) -> None:
    for target in (b"/bucket/a//b", b"/bucket/../x", b"/bucket/./%2e%2e/", b"/bucket/a+b~c%2Fd"):
        assert (await went(w, w.signer.request(target=target))).head.target == target


@pytest.mark.parametrize("target", [b"//", b"/./", b"/a/../", b"/%2e%2e/", b"/x/%2E"])
@scenario()
async def test_paths_that_read_two_ways_are_refused_outside_s3(w: World, target: bytes) -> None:
    client = await w.client()
    extra = [(b"x-amz-target", b"DynamoDB_20120810.ListTables"), (b"content-type", b"application/x-amz-json-1.0")]
    request = w.signer.request(b"POST", target, b"{}", service="dynamodb", declare=False, extra=extra)
    answer = await client.ask(request)
    assert 400 <= answer.status < 500
    assert not w.origin.ledger


@scenario()
async def test_the_base_path_of_an_endpoint_is_put_in_front(w: World) -> None:
    w.publish(w.connection(endpoint=f"http://127.0.0.1:{w.origin.port}/base/"))
    w.directory.refresh()
    assert (await went(w, w.signer.request(target=b"/bucket/k?acl"))).head.target == b"/base/bucket/k?acl"


@scenario()
async def test_an_endpoint_that_is_an_ipv6_address(w: World) -> None:
    w.publish(w.connection(endpoint=f"http://[::ffff:127.0.0.1]:{w.origin.port}"))
    w.directory.refresh()
    seen = await went(w, w.signer.request())
    assert seen.head.get(b"host") == b"[::ffff:127.0.0.1]:%d" % w.origin.port


@scenario()
async def test_a_lease_without_its_token_is_told_what_is_missing(w: World) -> None:
    client = await w.client()
    token = b"x-amz-security-token: " + w.lease.session_token.encode() + b"\r\n"
    request = w.signer.request().replace(token, b"").replace(b";x-amz-security-token", b"")
    answer = await client.ask(request)
    assert answer.status == 403
    assert b"AWS_SESSION_TOKEN" in answer.body


@scenario()
async def test_real_credentials_do_not_work_here(w: World) -> None:
    client = await w.client()
    request = w.signer.request().replace(w.lease.session_token.encode(), b"FwoGZXIvYXdzEXAMPLE")
    answer = await client.ask(request.replace(w.lease.access_key_id.encode(), b"ASIAEXAMPLEEXAMPLE12"))
    assert answer.status == 403
    assert b"real AWS credentials do not work here" in answer.body
    assert not w.origin.ledger


@pytest.mark.parametrize(
    "region", [b"", b"evil.example", b"us west 2", b"us-west-2/../", b"\xff\xfe", b"US-WEST-2", b"x" * 300]
)
@scenario()
async def test_a_region_that_is_none_is_not_followed(w: World, region: bytes) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        await conn.answer(301, b"", (b"x-amz-bucket-region: " + region,))

    w.origin.script = script
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 301
    assert len(w.origin.ledger) == 1


@scenario()
async def test_a_target_that_sends_us_in_circles_is_left(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        there = b"eu-west-1" if b"/us-west-2/" in (received.head.get(b"authorization") or b"") else b"us-west-2"
        await conn.answer(301, b"", (b"x-amz-bucket-region: " + there,))

    w.origin.script = script
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 301
    assert len(w.origin.ledger) <= 3


def test_every_spelling_of_a_secret_is_looked_for() -> None:
    spellings = resign._spellings(b"a/b+c=")
    assert {
        b"a/b+c=", b"a%2Fb%2Bc%3D", b"a%2fb%2bc%3d", quote("a%2Fb%2Bc%3D").encode(), b"a\\/b+c=", b"61 2f 62 2b 63 3d",
    } <= set(spellings)  # fmt: skip


def _form(w: World, body: bytes, coding: bytes) -> bytes:
    extra = [(b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"), (b"content-encoding", coding)]
    return w.signer.request(b"POST", b"/", body, service="monitoring", declare=False, extra=extra)


@scenario()
async def test_a_compressed_form_is_read_as_what_it_holds(w: World) -> None:
    plain = b"Action=PutMetricData&Version=2010-08-01&Namespace=n"
    client = await w.client()
    packed = gzip.compress(plain)
    assert (await client.ask(_form(w, packed, b"gzip"), b"POST")).status == 200
    assert bytes(w.origin.ledger[0].body) == packed
    assert (await w.only()).facts["operation"] == "PutMetricData"


@pytest.mark.parametrize(
    "body",
    [
        b"Action=PutMetricData",
        gzip.compress(b"Action=PutMetricData") + b"x",
        gzip.compress(b"A" * 100)[:-4],
        b"\x1f\x8b",
    ],
)
@scenario()
async def test_a_form_that_cannot_be_unpacked_is_refused(w: World, body: bytes) -> None:
    client = await w.client()
    answer = await client.ask(_form(w, body, b"gzip"), b"POST")
    assert answer.status == 400
    assert b"form_encoded" in answer.body
    assert not w.origin.ledger


@scenario()
async def test_a_form_that_unpacks_without_end_is_refused(w: World) -> None:
    client = await w.client()
    bomb = gzip.compress(b"Action=PutMetricData&x=" + b"a" * (handler.MAX_FORM + 1))
    answer = await client.ask(_form(w, bomb, b"gzip"), b"POST")
    assert answer.status == 400
    assert not w.origin.ledger


@scenario()
async def test_a_lease_works_in_its_own_sessions_tunnel_only(w: World) -> None:
    other = w.leases.issue(
        session=OTHER_SESSION, connection="demo", principal=Principal("bob"), agent=Agent("a"), expires=w.now_s + 600
    )
    signer = Signer(Credentials(other.access_key_id, other.secret_access_key, other.session_token), w.now_s)
    host = b"s3.eu-west-1.amazonaws.com"
    client = await w.tunnel(host.decode())
    answer = await client.ask(signer.request(host=host))
    assert answer.status == 403 and b"[lease_other_session]" in answer.body
    assert not w.origin.ledger
    found = await w.only()
    assert found.outcome["code"] == "lease_other_session" and found.facts["principal"] == "bob"
    inside = await w.tunnel(host.decode())
    assert (await inside.ask(w.signer.request(host=host))).status == 200
