"""Model APIs in the path: one lease in four places, the real key in its place, and refusals that SDKs understand."""

from __future__ import annotations

import gzip
import json

import pytest
from tests.kit import World, scenario
from tests.kit.origin import Conn, Received
from tests.kit.world import OTHER_SESSION, REAL_KEY, SESSION

from narrows.core.errors import CredentialError
from narrows.core.values import Agent, Connection, CredentialSource, Durability, Finding, Lease, Principal
from narrows.session.llm.handler import LlmHandler

HOSTS = {
    "anthropic": "api.anthropic.com",
    "openai": "api.openai.com",
    "gemini": "generativelanguage.googleapis.com",
    "openai-compatible": "models.example.com",
}
UPSTREAM = {
    "anthropic": f"x-api-key: {REAL_KEY}",
    "openai": f"Authorization: Bearer {REAL_KEY}",
    "gemini": f"x-goog-api-key: {REAL_KEY}",
    "openai-compatible": f"Authorization: Bearer {REAL_KEY}",
}


def register(w: World, provider: str = "anthropic", **options: object) -> Connection:
    """The connection `model`, which leads to the origin."""
    values: dict[str, object] = {
        "kind": "llm",
        "provider": provider,
        "endpoint": f"http://127.0.0.1:{w.origin.port}",
        "hosts": (HOSTS[provider],),
        "allow_private": True,
        "durability": Durability.STRICT,
        "credential": CredentialSource("file", path="/etc/narrows/model.key"),
    }
    made = Connection("model", **(values | options))  # type: ignore[arg-type]
    w.publish(w.connection(), None, made)
    w.directory.refresh()
    return made


def lease_of(w: World, session: bytes = SESSION, connection: str = "model", expires_s: int = 3600) -> Lease:
    return w.leases.api_key(
        session=session, connection=connection, principal=Principal("alice", groups=("dev",)),
        agent=Agent("tester", "1"), expires=w.now_s + expires_s,
    )  # fmt: skip


def post(path: str, *fields: str, host: str = "gw", body: bytes = b"{}") -> bytes:
    """A request with these header lines, in this order."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def lines_of(received: Received) -> list[str]:
    return bytes(received.raw).partition(b"\r\n\r\n")[0].decode().split("\r\n")


PLACES = (
    "x-api-key: {}", "Authorization: Bearer {}", "authorization: bearer {}", "X-Goog-Api-Key: {}", "api-key: {}",
)  # fmt: skip


@pytest.mark.parametrize("provider", list(HOSTS))
@pytest.mark.parametrize("place", PLACES)
@scenario()
async def test_the_real_key_goes_up_in_the_providers_header_at_the_leases_place(
    w: World, provider: str, place: str
) -> None:
    register(w, provider)
    key = lease_of(w)
    client = await w.client()
    own = ["User-Agent: sdk/1", place.format(key.session_token), "anthropic-version: 2023-06-01",
           "anthropic-beta: a,b", "X-Odd:   spaced  "]  # fmt: skip
    got = await client.ask(post("/llm/model/v1/messages?beta=true", *own, body=b'{"a": 1 }'), b"POST")
    assert got.status == 200
    seen = w.origin.ledger[0]
    sent = lines_of(seen)
    assert sent[0] == "POST /v1/messages?beta=true HTTP/1.1"
    assert sent[1] == f"Host: 127.0.0.1:{w.origin.port}"
    assert sent[2] == own[0] and [line.lower() for line in sent[3:4]] == [UPSTREAM[provider].lower()]
    assert sent[4:] == [*own[2:], "Content-Length: 9"]
    assert bytes(seen.body) == b'{"a": 1 }'
    assert key.session_token.encode() not in bytes(seen.raw)
    found = await w.only()
    assert found.facts["kind"] == "llm.message" and found.facts["connection"] == "model"
    assert (found.facts["service"], found.facts["operation"]) == (provider, "messages")
    assert found.facts["protocol"] == "anthropic-messages"
    assert found.facts["principal"] == "alice" and found.facts["lease"] == key.access_key_id
    assert not w.leaks(key.session_token.encode(), *w.secrets())


@scenario()
async def test_a_key_in_the_query_is_taken_out_of_what_goes_up_and_masked_on_record(w: World) -> None:
    register(w, "gemini")
    key = lease_of(w).session_token
    client = await w.client()
    for query, left in ((f"alt=sse&key={key}&x=1", "?alt=sse&x=1"), (f"key={key}", ""), (f"%6bey={key}", "")):
        got = await client.ask(post(f"/llm/model/v1beta/models/g:streamGenerateContent?{query}"), b"POST")
        assert got.status == 200, got.body
        sent = lines_of(w.origin.ledger[-1])
        assert sent[0] == f"POST /v1beta/models/g:streamGenerateContent{left} HTTP/1.1"
        assert sent[-1] == UPSTREAM["gemini"]
    found = await w.ended(3)
    assert {one.facts["operation"] for one in found} == {"streamGenerateContent"}
    assert {one.facts["protocol"] for one in found} == {"gemini"}
    assert not w.leaks(key.encode(), *w.secrets())


@scenario()
async def test_the_same_key_in_two_places_goes_up_once(w: World) -> None:
    register(w)
    key = lease_of(w).session_token
    client = await w.client()
    both = [f"Authorization: Bearer {key}", "X-Mid: 1", f"X-Api-Key: {key}"]
    assert (await client.ask(post("/llm/model/v1/messages", *both), b"POST")).status == 200
    assert lines_of(w.origin.ledger[0])[2:4] == [f"X-Api-Key: {REAL_KEY}", "X-Mid: 1"]
    assert b"Bearer" not in bytes(w.origin.ledger[0].raw)


@scenario()
async def test_a_real_key_beside_the_lease_is_refused(w: World) -> None:
    register(w)
    client = await w.client()
    both = [f"x-api-key: {lease_of(w).session_token}", "Authorization: Bearer sk-ant-oat01-real-token-of-a-user"]
    got = await client.ask(post("/llm/model/v1/messages", *both), b"POST")
    assert got.status == 401 and b"[lease_foreign]" in got.body
    two = [f"x-api-key: {lease_of(w).session_token}", f"Authorization: Bearer {lease_of(w).session_token}"]
    got = await client.ask(post("/llm/model/v1/messages", *two), b"POST")
    assert got.status == 401 and b"[lease_invalid]" in got.body
    assert not w.origin.ledger
    assert not w.leaks(b"sk-ant-oat01-real-token-of-a-user")


@scenario()
async def test_the_proxy_form(w: World) -> None:
    register(w)
    key = lease_of(w)
    client = await w.tunnel("api.anthropic.com")
    got = await client.ask(post("/v1/messages", f"x-api-key: {key.session_token}", host="api.anthropic.com"), b"POST")
    assert got.status == 200
    assert UPSTREAM["anthropic"] in lines_of(w.origin.ledger[0])
    found = await w.only()
    assert found.facts["form"] == "proxy" and found.facts["host"] == "api.anthropic.com"
    assert not w.leaks(key.session_token.encode(), *w.secrets())


@scenario()
async def test_a_tunnel_alone_is_no_key(w: World) -> None:
    register(w)
    client = await w.tunnel("api.anthropic.com")
    got = await client.ask(post("/v1/messages", host="api.anthropic.com"), b"POST")
    assert got.status == 401 and b"[no_credentials]" in got.body and b"tunnel" in got.body
    found = await w.only()
    assert found.session == SESSION and found.outcome["code"] == "no_credentials"


@scenario()
async def test_a_lease_works_in_its_own_sessions_tunnel_only(w: World) -> None:
    register(w)
    other = lease_of(w, OTHER_SESSION)
    client = await w.tunnel("api.anthropic.com")
    got = await client.ask(post("/v1/messages", f"x-api-key: {other.session_token}", host="api.anthropic.com"), b"POST")
    assert got.status == 403 and b"[lease_other_session]" in got.body
    assert not w.origin.ledger
    assert (await w.only()).outcome["code"] == "lease_other_session"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/messages", "anthropic"), ("/v1/messages/count_tokens", "anthropic"), ("/v1/chat/completions", "openai"),
        ("/v1/responses", "openai"), ("/v1beta/models/g:generateContent", "gemini"), ("/v1/models", "anthropic"),
    ],
)  # fmt: skip
@scenario()
async def test_a_real_key_is_refused_in_the_form_that_its_sdk_reads(w: World, path: str, form: str) -> None:
    register(w)
    client = await w.client()
    real = "sk-ant-api03-a-real-key-0123456789"
    got = await client.ask(post(f"/llm/model{path}", f"x-api-key: {real}"), b"POST")
    assert got.status == 401
    body = json.loads(got.body)
    error = body["error"]
    if form == "anthropic":
        assert body["type"] == "error" and error["type"] == "authentication_error"
    elif form == "openai":
        assert error["code"] == "lease_foreign" and error["param"] is None
    else:
        assert error["code"] == 401 and error["status"] == "UNAUTHENTICATED"
    assert "[lease_foreign]" in error["message"] and "narrows run" in error["message"]
    found = await w.only()
    assert found.outcome["code"] == "lease_foreign"
    assert not w.leaks(real.encode())


@scenario()
async def test_leases_end_with_their_session_their_time_and_their_connection(w: World) -> None:
    made = register(w)
    client = await w.client()

    async def refused(key: Lease, name: str = "model") -> tuple[int, str]:
        got = await client.ask(post(f"/llm/{name}/v1/messages", f"x-api-key: {key.session_token}"), b"POST")
        return got.status, json.loads(got.body)["error"]["message"].rpartition("[")[2][:-1]

    assert await refused(lease_of(w, expires_s=-1)) == (401, "lease_expired")
    assert await refused(lease_of(w, connection="other")) == (403, "lease_other_connection")
    assert await refused(lease_of(w), "other") == (403, "lease_other_connection")
    assert await refused(lease_of(w, connection="gone"), "gone") == (403, "connection_gone")
    assert await refused(lease_of(w, connection="demo"), "demo") == (403, "connection_gone")
    w.publish(w.connection(), {SESSION: "killed"}, made)
    w.directory.refresh()
    assert await refused(lease_of(w)) == (401, "session_ended")
    assert not w.origin.ledger


@scenario()
async def test_an_aws_lease_is_no_api_key_and_an_api_key_no_aws_lease(w: World) -> None:
    register(w)
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {w.lease.session_token}"), b"POST")
    assert got.status == 401 and b"[lease_invalid]" in got.body
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {w.proxy_token}"), b"POST")
    assert got.status == 401 and b"[lease_invalid]" in got.body


@scenario()
async def test_a_bucket_may_be_called_llm(w: World) -> None:
    register(w)
    client = await w.client()
    got = await client.ask(w.signer.request(target=b"/llm/model/v1/messages", method=b"GET"), b"GET")
    assert got.status == 200
    assert (await w.only()).facts["kind"] == "aws.call"


@pytest.mark.parametrize(
    ("provider", "base", "asked", "sent"),
    [
        ("anthropic", "/base", "/v1/messages", "/base/v1/messages"),
        ("anthropic", "/v1", "/v1/messages", "/v1/messages"),
        ("openai-compatible", "/api/v1", "/v1/chat/completions", "/api/v1/chat/completions"),
        ("openai-compatible", "/api/v1", "/chat/completions", "/api/v1/chat/completions"),
        ("openai-compatible", "/base/", "/chat/completions?a=/v1", "/base/chat/completions?a=/v1"),
        ("openai", "", "", "/"),
        ("openai", "", "?x=1", "/?x=1"),
    ],
)
@scenario()
async def test_the_base_path_of_an_endpoint_is_put_in_front(
    w: World, provider: str, base: str, asked: str, sent: str
) -> None:
    register(w, provider, endpoint=f"http://127.0.0.1:{w.origin.port}{base}")
    client = await w.client()
    got = await client.ask(post(f"/llm/model{asked}", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert got.status == 200, got.body
    assert lines_of(w.origin.ledger[0])[0] == f"POST {sent} HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    [
        "/../x",
        "/v1/%2e%2E/x",
        "/v1/./x",
        "/..",
        "/..%2fx",
        "/v1/%2E%2e%5Cx",
        "/..;/x",
        "/a%2f..%2F..%2fx",
        "/%252e%252e/x",
    ],
)
@scenario()
async def test_a_path_does_not_leave_the_connections_own(w: World, path: str) -> None:
    register(w, endpoint=f"http://127.0.0.1:{w.origin.port}/base")
    client = await w.client()
    got = await client.ask(post(f"/llm/model{path}", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert got.status == 400 and b"[path_not_plain]" in got.body
    assert not w.origin.ledger


@scenario()
async def test_fields_of_this_hop_stay_here(w: World) -> None:
    register(w)
    client = await w.client()
    own = [f"x-api-key: {lease_of(w).session_token}", "Connection: keep-alive, X-Hop", "X-Hop: 1", "TE: trailers",
           "Accept: */*", "Cookie: a=very-private-cookie"]  # fmt: skip
    assert (await client.ask(post("/llm/model/v1/messages", *own), b"POST")).status == 200
    sent = lines_of(w.origin.ledger[0])
    assert sent[2:] == [UPSTREAM["anthropic"], "Accept: */*", "Cookie: a=very-private-cookie", "Content-Length: 2"]
    await w.only()
    assert not w.leaks(b"very-private-cookie", *w.secrets())


@scenario()
async def test_a_body_in_chunks_goes_on_in_chunks_without_waiting_for_its_end(w: World) -> None:
    register(w)
    client = await w.client()
    head = f"POST /llm/model/v1/messages HTTP/1.1\r\nHost: gw\r\nx-api-key: {lease_of(w).session_token}\r\n"
    got = await client.ask(
        head.encode() + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n', b"POST"
    )
    assert got.status == 200
    assert bytes(w.origin.ledger[0].body) == b'{"a":1}'
    assert "Transfer-Encoding: chunked" in lines_of(w.origin.ledger[0])


@scenario()
async def test_probes_without_a_key_are_answered_without_a_body(w: World) -> None:
    register(w)
    client = await w.client()
    for path in ("/llm/model", "/llm/model/"):
        got = await client.ask(f"HEAD {path} HTTP/1.1\r\nHost: gw\r\n\r\n".encode(), b"HEAD")
        assert got.status == 401 and got.body == b""
    request = f"HEAD /llm/model/ HTTP/1.1\r\nHost: gw\r\nx-api-key: {lease_of(w).session_token}\r\n\r\n"
    assert (await client.ask(request.encode(), b"HEAD")).status == 200
    assert lines_of(w.origin.ledger[0])[0] == "HEAD / HTTP/1.1"


async def _repeats_the_key(conn: Conn, received: Received) -> None:
    await conn.body(received)
    body = json.dumps({"error": {"message": f"bad key {REAL_KEY} for you", "kept": "exact wording"}}).encode()
    head = f"HTTP/1.1 401 Unauthorized\r\nx-echo: {REAL_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    await conn.write(head.encode() + body)


@scenario(script=_repeats_the_key)
async def test_an_error_that_repeats_the_key_is_masked(w: World) -> None:
    register(w)
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert got.status == 401
    assert json.loads(got.body)["error"] == {"message": f"bad key {'*' * len(REAL_KEY)} for you",
                                             "kept": "exact wording"}  # fmt: skip
    await w.only()
    assert not w.leaks(*w.secrets())


@scenario()
async def test_a_source_that_fails_refuses_with_its_reason(w: World) -> None:
    register(w)
    w.credentials.failure = CredentialError("no API key from /etc/k", "No such file", "check the path")
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert got.status == 503
    assert json.loads(got.body)["error"]["type"] == "api_error" and b"No such file" in got.body


# -- secrets in what goes up ------------------------------------------------------------------------------------------


def _scan(body: bytes) -> list[Finding]:
    return [Finding("aws-access-key", "prompt")] if b"AKIA" in body else []


def _blocking(w: World, *, scan: bool = True) -> None:
    register(w, on_secret="block")
    handlers = list(w.gateway.handlers)
    handlers[1] = LlmHandler(w.leases, w.directory, scan=_scan if scan else None)
    w.gateway.handlers = handlers


@pytest.mark.parametrize("coding", ["", "gzip"])
@scenario()
async def test_a_secret_does_not_reach_the_provider_where_it_is_blocked(w: World, coding: str) -> None:
    _blocking(w)
    client = await w.client()

    def request(text: bytes) -> bytes:
        fields = [f"x-api-key: {lease_of(w).session_token}"]
        if coding:
            return post("/llm/model/v1/messages", *fields, f"Content-Encoding: {coding}", body=gzip.compress(text))
        return post("/llm/model/v1/messages", *fields, body=text)

    got = await client.ask(request(b'{"messages": ["my key is AKIAIOSFODNN7EXAMPLE"]}'), b"POST")
    assert got.status == 400
    error = json.loads(got.body)["error"]
    assert error["type"] == "invalid_request_error" and "aws-access-key" in error["message"]
    assert "[secret_found]" in error["message"] and "AKIA" not in error["message"]
    got = await client.ask(request(rb'{"messages": [{"x": "AK\u0049AIOSFODNN7EXAMPLE"}]}'), b"POST")
    assert got.status == 400 and b"[secret_found]" in got.body, "escapes hide nothing"
    assert not w.origin.ledger
    assert (await client.ask(request(rb'{"messages": ["noth\u0069ng"], "n": [1, null]}'), b"POST")).status == 200
    assert len(w.origin.ledger) == 1


HALF = rb'"AK\u0049AIOSFODNN7EXAMPLE"'
UNUSUAL = {
    "no pair": rb'{"a": "\ud800", "b": ' + HALF + b"}",
    "a comma more": b"[" + HALF + b",]",
    "not a number": b"[NaN, " + HALF + b"]",
    "lines": b"{}\n[" + HALF + b"]",
    "a file": b"--b\r\nContent-Disposition: form-data\r\n\r\n" + HALF + b"\r\n--b--",
    "no UTF-8": b'["\xff", ' + HALF + b"]",
    "deep": b"[" * 3000 + HALF + b"]" * 3000,
    "in a text": json.dumps([json.dumps([HALF.decode()])]).encode(),
    "UTF-16": json.dumps(["AKIAIOSFODNN7EXAMPLE"]).encode("utf-16"),
    "UTF-32": json.dumps(["AKIAIOSFODNN7EXAMPLE"]).encode("utf-32-le"),
}


@pytest.mark.parametrize("body", list(UNUSUAL.values()), ids=list(UNUSUAL))
@scenario()
async def test_a_body_that_is_no_plain_json_hides_no_secret_either(w: World, body: bytes) -> None:
    _blocking(w)
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/files", f"x-api-key: {lease_of(w).session_token}", body=body), b"POST")
    assert got.status == 400 and b"[secret_found]" in got.body
    assert not w.origin.ledger


@scenario()
async def test_what_cannot_be_looked_through_is_refused_where_secrets_are_blocked(w: World) -> None:
    _blocking(w)
    client = await w.client()
    key = f"x-api-key: {lease_of(w).session_token}"
    for body in (b"not gzip at all", gzip.compress(b"x" * 100)[:-20]):
        got = await client.ask(post("/llm/model/v1/messages", key, "Content-Encoding: gzip", body=body), b"POST")
        if got.status == 200:  # what was cut short still unpacks to all that a reader of it would see
            continue
        assert got.status == 400 and b"[secret_unchecked]" in got.body
    got = await client.ask(post("/llm/model/v1/messages", key, "Content-Encoding: secret", body=b"x"), b"POST")
    assert got.status == 400 and b"[secret_unchecked]" in got.body
    got = await client.ask(post("/llm/model/v1/messages", key, body=b"x" * (4 * 1024 * 1024 + 1)), b"POST")
    assert got.status == 413 and b"[body_too_long]" in got.body
    assert json.loads(got.body)["error"]["type"] == "request_too_large"


@scenario()
async def test_without_a_detector_a_connection_that_blocks_passes_nothing(w: World) -> None:
    _blocking(w, scan=False)
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert got.status == 400 and b"[secret_unchecked]" in got.body
    assert not w.origin.ledger


@pytest.mark.parametrize(("path", "blocks"), [("/v1/realtime", False), ("/v1/responses", True)])
@scenario()
async def test_a_websocket_passes_for_responses_only_and_not_where_secrets_are_blocked(
    w: World, path: str, blocks: bool
) -> None:
    register(w, "openai", on_secret="block" if blocks else "record")
    client = await w.client()
    request = (
        f"GET /llm/model{path} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {lease_of(w).session_token}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    got = await client.ask(request.encode(), b"GET")
    assert got.status == 501 and json.loads(got.body)["error"]["code"] == "upgrade_refused"
    assert not w.origin.ledger


async def _agrees(conn: Conn, received: Received) -> None:
    await conn.body(received)
    await conn.write(
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
        b"\x81\x02hi"
    )
    conn.close()


@pytest.mark.parametrize("form", ["endpoint", "proxy"])
@scenario(script=_agrees)
async def test_the_responses_api_becomes_a_websocket_with_the_real_key(w: World, form: str) -> None:
    register(w, "openai")
    key = lease_of(w).session_token
    client = await (w.tunnel("api.openai.com") if form == "proxy" else w.client())
    client.received.clear()
    path, host = ("/v1/responses", "api.openai.com") if form == "proxy" else ("/llm/model/v1/responses", "gw")
    client.send(
        (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Extensions: permessage-deflate\r\nOpenAI-Beta: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        ).encode()
    )
    while await client.read():
        pass
    assert bytes(client.received).startswith(b"HTTP/1.1 101 ") and bytes(client.received).endswith(b"\x81\x02hi")
    sent = lines_of(w.origin.ledger[0])
    assert sent[0] == "GET /v1/responses HTTP/1.1"
    assert UPSTREAM["openai"] in sent and "Upgrade: websocket" in sent and "Connection: Upgrade" in sent
    assert "Sec-WebSocket-Extensions: permessage-deflate" in sent and "OpenAI-Beta: x" in sent
    (found,) = await w.ended(1)
    assert (found.facts["operation"], found.facts["protocol"]) == ("responses", "openai-responses")
    assert not w.leaks(key.encode(), *w.secrets())


@pytest.mark.parametrize("status", [200, 304])
@scenario()
async def test_the_real_key_comes_back_in_no_head_and_no_trailer(w: World, status: int) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        key = REAL_KEY.encode()
        await conn.write(b"HTTP/1.1 103 Early Hints\r\nLink: <" + key + b">\r\n\r\n")
        await conn.write(b"HTTP/1.1 %d Yes\r\nX-Key: " % status + key + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        if status == 200:
            await conn.write(b"2\r\n{}\r\n0\r\nX-Trailer: " + key + b"\r\n\r\n")

    register(w)
    w.origin.script = script
    client = await w.client()
    client.send(post("/llm/model/v1/messages", f"x-api-key: {lease_of(w).session_token}"))
    while f"HTTP/1.1 {status}".encode() not in client.received or not client.received.endswith(b"\r\n\r\n"):
        assert await client.read()
    assert b"X-Key: ***" in client.received and b"Link: <***" in client.received
    assert (b"X-Trailer: ***" in client.received) == (status == 200)
    await w.only()
    assert not w.leaks(*w.secrets())


@scenario()
async def test_the_real_key_rests_in_no_chunk_of_an_error(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        head = b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n"
        await conn.write(head + b'2;as="' + REAL_KEY.encode() + b'"\r\n{}\r\n0\r\n\r\n')

    register(w)
    w.origin.script = script
    client = await w.client()
    got = await client.ask(post("/llm/model/v1/messages", f"x-api-key: {lease_of(w).session_token}"), b"POST")
    assert (got.status, got.body) == (400, b"{}")
    await w.only()
    assert not w.leaks(*w.secrets())
