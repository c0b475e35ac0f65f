"""An issuer's keys: what is kept, when the issuer is asked, and how long they are believed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from narrows.core.errors import ConfigError, Refusal, UpstreamError
from narrows.core.issuers import Issuer
from narrows.identity.jwks import FRESH_S, RETRY_S, USABLE_S, KeySource, discover, endpoint, parse
from narrows.identity.oidc_fetch import MAX_BYTES, Fetcher
from narrows.identity.oidc_verifier import Verifier

ISSUER = "https://login.example.com"
OLD, NEW = ECKey.generate_key("P-256", {"kid": "old"}), ECKey.generate_key("P-256", {"kid": "new"})


class World:
    """An issuer and a clock."""

    def __init__(self) -> None:
        self.keys: list[Any] = [OLD]
        self.now = 1000.0
        self.asked = 0
        self.broken = False
        self.document: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}

    def fetch(self, url: str) -> bytes:
        if self.broken:
            self.asked += 1
            raise UpstreamError("The issuer could not be asked", phase="dial")
        if url.endswith("openid-configuration"):
            self.asked += 1
            return json.dumps(self.document).encode()
        assert url == f"{ISSUER}/keys"
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()


def test_keys_are_asked_for_once_and_again_when_old() -> None:
    world = World()
    source = KeySource(ISSUER, world.fetch, lambda: world.now)
    for _ in range(5):
        assert source.keys("old", "ES256").find("old", "ES256")
    assert world.asked == 1
    world.now += FRESH_S + 1
    source.keys("old", "ES256")
    assert world.asked == 2


def test_a_new_key_is_found_at_once_and_unknown_ones_do_not_make_us_ask_on() -> None:
    world = World()
    source = KeySource(ISSUER, world.fetch, lambda: world.now)
    source.keys("old", "ES256")
    world.keys, world.now = [NEW], world.now + RETRY_S
    assert source.keys("new", "ES256").find("new", "ES256") and world.asked == 2
    assert source.keys("old", "ES256").find("old", "ES256") is None, "taken back by the issuer"
    for _ in range(100):
        source.keys("made up", "ES256")
    assert world.asked == 2
    world.now += RETRY_S
    source.keys("made up", "ES256")
    assert world.asked == 3


def test_keys_are_believed_for_a_while_when_the_issuer_is_away_and_not_longer() -> None:
    world = World()
    source = KeySource(ISSUER, world.fetch, lambda: world.now)
    source.keys("old", "ES256")
    world.broken, world.now = True, world.now + USABLE_S
    assert source.keys("old", "ES256").find("old", "ES256")
    world.now += 1
    with pytest.raises(UpstreamError):
        source.keys("old", "ES256")
    world.broken, world.now = False, world.now + RETRY_S
    assert source.keys("old", "ES256")


def test_only_public_keys_for_asymmetric_signatures_are_kept() -> None:
    good = OLD.as_dict(private=False)
    rsa = RSAKey.generate_key(2048, {"kid": "r"})
    short = {"kty": "RSA", "kid": "s", "e": "AQAB", "n": "x" * 171}
    others: list[Any] = [
        OctKey.generate_key(256, {"kid": "o"}).as_dict(private=True), {**good, "use": "enc"}, {**good, "kty": "MLDSA"},
        OLD.as_dict(private=True), short, {**good, "x": "!!"}, {**good, "key_ops": ["encrypt"]}, "x", None,
        {**good, "alg": "HS256"}, {**good, "crv": ["P-256"]}, {"kty": "RSA", "n": 5},
        {"kty": "RSA", "n": "é", "e": "AQAB"},
    ]  # fmt: skip
    kept = parse(json.dumps({"keys": [*others, good, rsa.as_dict(private=False)]}).encode())
    assert len(kept) == 2 and kept.find("old", "ES256") and kept.find("r", "PS256")
    assert kept.find("old", "RS256") is None and kept.find("r", "ES256") is None
    with pytest.raises(UpstreamError):
        parse(json.dumps({"keys": others}).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"keys": {}}', b"[" * 100_000, b"\xff", b'{"keys": []}'])
def test_what_is_no_key_set(raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        parse(raw)


def test_discovery_is_the_issuers_own_and_leads_nowhere_else() -> None:
    world = World()
    for wrong in (f"{ISSUER}/", "https://evil.example", None):
        world.document["issuer"] = wrong
        with pytest.raises(UpstreamError):
            discover(ISSUER, world.fetch)
    here = ("http://127.0.0.1/keys", "https://127.0.0.1/k", "file:///etc/passwd")
    for url in ("http://login.example.com/keys", *here, "", 5):
        with pytest.raises(UpstreamError):
            endpoint({"jwks_uri": url}, "jwks_uri", ISSUER)
    assert endpoint({"jwks_uri": "http://127.0.0.1:1/k"}, "jwks_uri", "http://127.0.0.1:1")


def test_the_verifier_chooses_the_issuer_and_asks_for_no_keys_in_vain() -> None:
    world = World()
    ci = Issuer(ISSUER, audience="gw", kind="workload", subjects=("job",), groups=("ci",))
    verifier = Verifier([Issuer(ISSUER, client_id="c"), ci], lambda _: world.fetch, lambda: 50.0, lambda: world.now)

    def token(**claims: Any) -> str:
        body = json.dumps({"iss": ISSUER, "aud": "gw", "sub": "job", "exp": 100} | claims)
        return jws.serialize_compact({"alg": "ES256", "kid": "old"}, body, OLD)

    with pytest.raises(Refusal) as caught:
        verifier(token(iss="https://other.example"))
    assert caught.value.code == "token_not_ours" and world.asked == 0
    with pytest.raises(Refusal) as caught:
        verifier(jws.serialize_compact({"alg": "HS256"}, json.dumps({"iss": ISSUER}), OctKey.generate_key(256)))
    assert caught.value.code == "token_algorithm" and world.asked == 0
    found, table = verifier(token())
    assert table is ci and found.principal.groups == ("ci",)
    assert verifier(token(aud="c"))[0].principal.kind == "user"
    with pytest.raises(Refusal) as caught:
        verifier(token(sub="other"))
    assert caught.value.code == "token_conditions"


def _served(answer: Callable[[BaseHTTPRequestHandler], None]) -> tuple[HTTPServer, str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


def _huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        handler.wfile.write(b"x" * (MAX_BYTES + 1))
    except OSError:
        return  # it was cut off, as it should be


def _moved(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/")
    handler.end_headers()


def _slow(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.rfile.read(1)  # until the other end has enough of waiting


@pytest.mark.parametrize("answer", [_huge, _moved, _slow])
def test_an_answer_is_bounded_in_size_and_time_and_leads_nowhere(answer: Any) -> None:
    server, url = _served(answer)
    try:
        with pytest.raises(UpstreamError):
            Fetcher(total_s=0.3).get(url)
    finally:
        server.shutdown()
        server.server_close()


def test_nothing_is_sent_without_tls_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("it was dialled"))
    for url in ("http://login.example.com/", "ftp://127.0.0.1/", "https://u:p@x.example/", "http://127.0.0.1.evil/"):
        with pytest.raises(ConfigError):
            Fetcher().get(url)
