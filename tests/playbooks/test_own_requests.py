"""What the gateway answers itself: agents' events, leases for processes, OTLP batches; on record like everything."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import threading
from typing import Any

import pytest
from tests.kit import OTHER_SESSION, SESSION, Client, Response, Signer, World, scenario

from narrows import processes
from narrows.core.values import Agent, Connection, Durability, Principal
from narrows.redact.detect import detector
from narrows.session.events.handler import EventsHandler
from narrows.tasks import spawn
from narrows.wire.sigv4 import Credentials

HOOK = {"hook_event_name": "preToolUse", "conversation_id": "c1", "tool_name": "Shell"}


def post(
    w: World, path: str, body: bytes, *extra: str, token: str | None = None, media: str = "application/json"
) -> bytes:
    lines = [
        f"POST /_narrows/{path} HTTP/1.1",
        f"Host: 127.0.0.1:{w.port}",
        f"Authorization: Bearer {w.proxy_token if token is None else token}",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def ask(client: Client, request: bytes) -> Response:
    return await client.ask(request, b"POST")


def tree_header(tree: list[dict[str, Any]]) -> str:
    return "X-Narrows-Process: " + base64.urlsafe_b64encode(json.dumps(tree).encode()).rstrip(b"=").decode()


FORGED = [{"pid": 1, "start": 1, "ppid": 0, "argv": ["aws", "s3", "ls"], "cwd": "/", "exe": "/usr/bin/aws"}]


@scenario()
async def test_an_event_is_recorded_allowed_and_answered(w: World) -> None:
    client = await w.client()
    body = json.dumps(HOOK).encode()
    answer = await ask(client, post(w, "events/cursor", body))
    told = json.loads(answer.body)
    found = await w.only()
    assert (answer.status, told["decision"], told["reason"]) == (200, "allow", "")
    assert told["exchange"].replace("-", "") == found.id.hex()
    assert found.session == SESSION
    facts = found.facts
    assert (facts["kind"], facts["service"], facts["operation"]) == ("agent.event", "cursor", "preToolUse")
    assert (facts["connection"], facts["durability"], facts["decision"]) == ("narrows", "strict", "allow")
    assert facts["policies"] == ["builtin/own-session"]
    assert found.request.endswith(body) and found.response.endswith(answer.body)
    assert found.outcome["upstream_request_sent"] is False and not found.sent
    again = await ask(client, post(w, "events/somebody", b'{"x": 1}', "X-Narrows-Event: odd"))
    assert again.status == 200, "the connection carries on, and unknown agents report as well"
    assert (await w.recorded())[1].facts["operation"] == "odd"
    assert not w.leaks(*w.secrets())


@scenario()
async def test_an_answer_leaves_only_when_it_is_durable(w: World) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    client.send(post(w, "leases", b'{"connection": "demo"}'))
    await w.recorder.asked()
    reading = spawn(client.response(b"POST"), name="reading")
    await asyncio.sleep(0.02)
    assert not client.received
    assert b"NRWL" in (await w.recorded())[0].response, "what is waited for is the record of the lease"
    w.recorder.gate.set()
    assert (await reading).status == 200


@scenario()
async def test_a_recorder_that_fails_lets_no_lease_leave(w: World) -> None:
    client = await w.client()
    w.recorder.fail_at = 1
    answer = await ask(client, post(w, "leases", b"{}"))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "recorder_failed")
    assert b"secret_access_key" not in client.received


@scenario()
async def test_a_lease_is_for_the_process_that_asks_and_works(w: World) -> None:
    client = await w.local()
    answer = await ask(client, post(w, "leases", b'{"connection": "demo"}'))
    lease = json.loads(answer.body)
    assert (lease["connection"], lease["kind"], lease["expires"]) == ("demo", "aws", w.now_s + 3600)
    found = await w.only()
    facts = found.facts
    assert (facts["service"], facts["operation"], facts["connection"]) == ("narrows", "lease.issued", "demo")
    assert facts["lease"] == lease["access_key_id"]
    assert facts["process_from"] == "kernel" and facts["process"][0]["pid"] == os.getpid()
    assert facts["process"] == processes.tree(os.getpid())
    assert facts["client"] == f"pid:{os.getpid()}:{processes.stat(os.getpid())[0]}"
    assert len(found.response) == len(answer.raw) and b'"secret_access_key":"***' in found.response
    assert lease["access_key_id"].encode() in found.response
    secrets = (lease["secret_access_key"].encode(), lease["session_token"].encode())
    client.writer.transport.abort()
    w.clients.remove(client)  # it was meant to get them
    assert not w.leaks(*secrets)
    signer = Signer(Credentials(lease["access_key_id"], lease["secret_access_key"], lease["session_token"]), w.now_s)
    call = await (await w.client()).ask(signer.request())
    assert call.status == 200
    assert (await w.recorded())[1].facts["lease"] == lease["access_key_id"], "the call and the lease are joined"


@scenario()
async def test_the_only_aws_connection_is_meant_where_none_is_named(w: World) -> None:
    answer = await ask(await w.client(), post(w, "leases", b"{}"))
    assert json.loads(answer.body)["connection"] == "demo"


@scenario(connection={"durability": Durability.BUFFERED})
async def test_a_lease_is_recorded_strictly_whatever_its_connection_says(w: World) -> None:
    client = await w.client()
    w.recorder.gate.clear()
    client.send(post(w, "leases", b"{}"))
    await w.recorder.asked()
    w.recorder.gate.set()
    await client.response(b"POST")
    assert (await w.only()).facts["durability"] == "strict"


@scenario()
async def test_a_process_tree_that_the_caller_says_is_marked_so(w: World) -> None:
    await ask(await w.client(), post(w, "leases", b"{}", tree_header(FORGED)))
    found = await w.only()
    assert (found.facts["process_from"], found.facts["process"]) == ("client", FORGED)
    assert b"X-Narrows-Process: ****" in found.request


@scenario()
async def test_the_kernels_word_stands_above_the_callers(w: World) -> None:
    await ask(await w.local(), post(w, "events/codex", b"{}", tree_header(FORGED)))
    facts = (await w.only()).facts
    assert facts["process_from"] == "kernel" and facts["process"][0]["pid"] == os.getpid()


@scenario()
async def test_secrets_on_command_lines_are_masked(w: World) -> None:
    tree = [{**FORGED[0], "argv": ["env", f"NARROWS_TOKEN={w.proxy_token}", "x"]}]
    await ask(await w.client(), post(w, "events/codex", b"{}", tree_header(tree)))
    assert (await w.only()).facts["process"][0]["argv"][1] == "NARROWS_TOKEN=" + "*" * len(w.proxy_token)
    assert not w.leaks(*w.secrets())


@pytest.mark.parametrize("value", ["!!!", "bnVsbA", base64.urlsafe_b64encode(b'[{"pid":-1}]').decode(), "W10=W10="])
@scenario()
async def test_a_process_header_of_another_form_is_refused(w: World, value: str) -> None:
    answer = await ask(await w.client(), post(w, "events/codex", b"{}", "X-Narrows-Process: " + value))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "process_malformed")


# -- who may ask ---------------------------------------------------------------------------------------------------


@scenario()
async def test_a_wrong_token_is_refused_in_json_and_its_body_is_masked(w: World) -> None:
    client = await w.client()
    body = json.dumps({"text": w.proxy_token}).encode()
    wrong = (("nope", "lease_foreign"), (w.lease.session_token, "lease_invalid"), ("", "session_token_missing"))
    for token, code in wrong:
        answer = await ask(client, post(w, "events/cursor", body, token=token))
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (401, code)
        assert set(error) == {"what", "why", "hint", "code"} and error["what"]
        assert answer.get(b"www-authenticate") == b'Bearer realm="narrows"'
    for one in await w.recorded():
        one.check()
        assert one.outcome["outcome"] == "refused"
    assert not w.leaks(*w.secrets())


@scenario()
async def test_an_expired_token_is_refused(w: World) -> None:
    old = w.leases.proxy_token(
        session=SESSION, principal=Principal("alice"), agent=Agent("t"), expires=w.now_s - 1, connections=("demo",)
    )
    answer = await ask(await w.client(), post(w, "leases", b"{}", token=old))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (401, "lease_expired")


@pytest.mark.parametrize("state", ["killed", "closed", "expired"])
@scenario()
async def test_an_ended_session_reports_nothing_and_leases_nothing(w: World, state: str) -> None:
    w.publish(w.connection(), {SESSION: state})
    w.directory.refresh()
    client = await w.client()
    for path in ("events/cursor", "leases", "otlp/v1/traces"):
        answer = await ask(client, post(w, path, b"{}"))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "session_ended")
    assert b"NRWL" not in client.received


@scenario()
async def test_a_session_killed_while_its_body_comes_gets_no_lease(w: World) -> None:
    client = await w.client()
    request = post(w, "leases", b'{"connection": "demo"}')
    client.send(request[:-5])
    while not w.listener.connections or (w.gateway.together.held == 0 and not any(
        c.deadline == 0.0 or not c.idle for c in w.listener.connections
    )):
        await asyncio.sleep(0.005)
    w.publish(w.connection(), {SESSION: "killed"})
    w.directory.refresh()
    client.send(request[-5:])
    answer = await client.response(b"POST")
    assert json.loads(answer.body)["error"]["code"] == "session_ended"
    assert b"NRWL" not in client.received


@scenario()
async def test_only_connections_of_the_session_are_leased(w: World) -> None:
    other = Connection("other", endpoint="http://127.0.0.1:1", allow_private=True)
    closed = Connection("closed", groups=("admins",))
    w.publish(w.connection(), None, other, closed, Connection("web", kind="http"))
    w.directory.refresh()
    token = w.leases.proxy_token(
        session=OTHER_SESSION, principal=Principal("bob", groups=("dev",)), agent=Agent("t"),
        expires=w.now_s + 60, connections=("web", "closed", "gone"),
    )  # fmt: skip
    client = await w.client()
    codes = {"other": "not_in_session", "web": "not_in_session", "gone": "not_in_session", "closed": "not_in_group"}
    for name, code in codes.items():
        answer = await ask(client, post(w, "leases", json.dumps({"connection": name}).encode(), token=token))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, code), name
    assert b"NRWL" not in client.received
    assert all("lease" not in one.facts for one in await w.recorded())


# -- what may be asked ---------------------------------------------------------------------------------------------


@scenario()
async def test_what_is_not_understood_is_refused_and_recorded(w: World) -> None:
    client = await w.client()
    for path, body, status, code in (
        ("events/cursor", b'{"a": ', 400, "malformed_json"),
        ("leases", b"[]", 400, "malformed_json"),
        ("leases", b'{"connection": 5}', 400, "malformed_json"),
        ("otlp/v1/logs", b"{", 400, "malformed_json"),
        ("otlp/v1/profiles", b"{}", 404, "not_found"),
        ("events/", b"{}", 404, "not_found"),
        ("events/a/b", b"{}", 404, "not_found"),
        ("", b"", 404, "not_found"),
    ):
        answer = await ask(client, post(w, path, body))
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code), path
    answer = await client.ask(post(w, "leases", b"").replace(b"POST", b"GET", 1).replace(b"Content-Length: 0\r\n", b""))
    assert (answer.status, answer.get(b"allow")) == (405, b"POST")
    assert (await ask(client, post(w, "events/cursor", b"", "Content-Encoding: br"))).status == 415
    for one in await w.recorded():
        one.check()


@scenario()
async def test_bodies_are_limited(w: World) -> None:
    for path, limit in (("leases", 64 * 1024), ("events/cursor", 16 << 20), ("otlp/v1/traces", 16 << 20)):
        client = await w.client()
        client.send(post(w, path, b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (limit + 1)))
        answer = await client.response(b"POST")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "body_too_long"), path
        text = b'{"t":"' + b"x" * (limit - 8) + b'"}'
        client = await w.client()
        answer = await ask(client, post(w, path, text))
        assert answer.status == 200, "the limit itself is taken"
    client = await w.client()
    head = post(w, "leases", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    client.send(head + b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"10\r\n" + b"y" * 16 + b"\r\n0\r\n\r\n")
    assert (await client.response(b"POST")).status == 413


@scenario()
async def test_a_chunked_body_is_masked_across_its_chunks(w: World) -> None:
    text = json.dumps({"said": w.proxy_token, "end": 1}).encode()
    head = post(w, "events/cursor", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    pieces = [text[at : at + 37] for at in range(0, len(text), 37)]
    body = b"".join(b"%x;e=1\r\n" % len(piece) + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"
    assert (await ask(await w.client(), head + body)).status == 200
    found = await w.only()
    assert len(found.request) == len(head + body)
    recorded = found.request[len(head) :]
    assert recorded.count(b";e=1\r\n") == len(pieces) and b"nrw1" not in recorded
    assert recorded.replace(b"*", b"") != recorded
    assert not w.leaks(*w.secrets())


@scenario()
async def test_an_otlp_batch_is_taken_in_both_forms_packed_or_not(w: World) -> None:
    client = await w.client()
    spans = json.dumps({"resourceSpans": [], "token": w.proxy_token}).encode()
    answer = await ask(client, post(w, "otlp/v1/traces", spans))
    assert (answer.status, answer.body, answer.get(b"content-type")) == (200, b"{}", b"application/json")
    answer = await ask(client, post(w, "otlp/v1/metrics", b"\x0a\x00", media="application/x-protobuf"))
    assert (answer.status, answer.body, answer.get(b"content-type")) == (200, b"", b"application/x-protobuf")
    packed = gzip.compress(spans)
    answer = await ask(client, post(w, "otlp/v1/logs", packed, "Content-Encoding: gzip"))
    assert answer.status == 200
    answer = await ask(client, post(w, "otlp/v1/logs", packed[:-9], "Content-Encoding: gzip"))
    assert json.loads(answer.body)["error"]["code"] == "malformed_gzip"
    assert (await ask(client, post(w, "otlp/v1/logs", b"x", media="text/plain"))).status == 415
    found = await w.recorded()
    assert [one.facts["operation"] for one in found[:3]] == ["traces", "metrics", "logs"]
    assert {one.facts["service"] for one in found} == {"otlp"}
    recorded = found[2].request.partition(b"\r\n\r\n")[2]
    assert len(recorded) == len(packed)
    assert json.loads(gzip.decompress(recorded))["token"] == "*" * len(w.proxy_token)
    assert not w.leaks(*w.secrets())


@scenario()
async def test_the_paths_are_the_gateways_own_only_when_it_is_asked_itself(w: World) -> None:
    client = await w.tunnel()
    answer = await client.ask(w.signer.request(target=b"/_narrows/leases", host=b"s3.eu-west-1.amazonaws.com"))
    assert (answer.status, answer.body) == (200, b"ok"), "inside a tunnel it is the target's"


@scenario()
async def test_expect_is_answered(w: World) -> None:
    client = await w.client()
    request = post(w, "events/cursor", b"{}", "Expect: 100-continue")
    client.send(request[:-2])
    while b"100 Continue" not in client.received:
        assert await client.read()
    client.send(request[-2:])
    while b"allow" not in client.received:
        assert await client.read()


@scenario()
async def test_a_text_that_is_slow_to_look_through_holds_nobody_up(w: World) -> None:
    client, other = await w.client(), await w.client()
    started, let_go = threading.Event(), threading.Event()

    def slow(raw: bytes) -> bytes:
        if len(raw) > 100_000:
            started.set()
            assert let_go.wait(10)
        return raw

    handler = next(one for one in w.gateway.handlers if isinstance(one, EventsHandler))
    handler._mask = slow
    long = spawn(ask(client, post(w, "events/cursor", json.dumps({**HOOK, "x": "y" * 200_000}).encode())), name="long")
    assert await asyncio.to_thread(started.wait, 10)
    assert (await ask(other, post(w, "events/cursor", json.dumps(HOOK).encode()))).status == 200
    assert not long.done()
    let_go.set()
    assert (await long).status == 200


@scenario()
async def test_no_event_looks_like_a_lease_or_a_batch(w: World) -> None:
    client = await w.client()
    for name in ("narrows", "otlp"):
        answer = await ask(client, post(w, f"events/{name}", b"{}", "X-Narrows-Event: lease.issued"))
        assert answer.status == 404
    assert all("service" not in one.facts for one in await w.recorded())


@scenario()
async def test_a_command_line_that_cannot_be_masked_alone_is_masked_whole(w: World) -> None:
    w.gateway.handlers = tuple(
        EventsHandler(w.directory, w.leases, mask=lambda raw: detector().mask(raw)[0])
        if isinstance(one, EventsHandler)
        else one
        for one in w.gateway.handlers
    )
    client = await w.client()
    key = "-----BEGIN PRIVATE" + " KEY-----" + base64.b64encode(os.urandom(120)).decode()
    tree = [{**FORGED[0], "argv": ["openssl", f'echo "{key}"']}]
    answer = await ask(client, post(w, "events/cursor", json.dumps(HOOK).encode(), tree_header(tree)))
    found = await w.only()
    assert (answer.status, found.facts["process"][0]["argv"]) == (200, ["********"])


@scenario()
async def test_a_text_that_was_cut_within_an_emoji_is_an_event_like_any(w: World) -> None:
    body = rb'{"hook_event_name": "preToolUse", "tool_input": {"command": "echo \ud83d"}}'
    answer = await ask(await w.client(), post(w, "events/cursor", body))
    assert json.loads(answer.body)["decision"] == "allow"
    found = await w.only()
    assert found.facts["operation"] == "preToolUse" and found.request.endswith(body)
