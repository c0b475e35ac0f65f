"""The command line's half of a sign-in, against an issuer that may say anything."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest

from narrows.cli.login_flow import Issuer, SignInError
from narrows.core.errors import NarrowsError
from narrows.identity.oidc_fetch import Fetcher

ISSUER = "https://login.example.com"


class Site(Fetcher):
    """The issuer. `answers` are those of its token endpoint, in order; the last stays."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.endpoints = {
            "issuer": ISSUER,
            **{f"{n}_endpoint": f"{ISSUER}/{n}" for n in ("authorization", "token", "device_authorization")},
        }

    def get(self, url: str) -> bytes:
        return json.dumps(self.endpoints).encode()

    def post(self, url: str, form: Any) -> tuple[int, bytes]:
        self.asked.append(dict(form))
        return 200, json.dumps(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]).encode()


class Browser:
    """Comes back with `answers`, one after the other; what it was shown is `query`."""

    def __init__(self, *answers: dict[str, str]) -> None:
        self.answers = answers
        self.query: dict[str, str] = {}
        self.statuses: list[int] = []

    def __call__(self, page: str) -> None:
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}
        for answer in self.answers:
            given = {name: value.replace("STATE", self.query["state"]) for name, value in answer.items()}
            try:
                where = f"{self.query['redirect_uri']}?{urlencode(given)}"
                self.statuses.append(build_opener(ProxyHandler({})).open(where, timeout=10).status)
            except HTTPError as error:
                self.statuses.append(error.code)
                error.close()


GOOD = {"state": "STATE", "code": "c1", "iss": ISSUER}


def test_a_code_with_its_proof_becomes_an_id_token() -> None:
    site, browser = Site({"id_token": "tok"}), Browser({"state": "wrong", "code": "evil"}, {"code": "evil"}, GOOD)
    token, nonce = Issuer(ISSUER, "narrows", ["openid"], site).by_browser(browser)
    assert token == "tok" and nonce == browser.query["nonce"]
    (asked,) = site.asked
    assert asked["code"] == "c1", "what came without our state is not believed"
    challenge = urlsafe_b64encode(sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert browser.query["code_challenge"] == challenge and browser.query["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == browser.query["redirect_uri"] and "client_secret" not in asked
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(5)
    assert browser.statuses == [404, 404, 200]


@pytest.mark.parametrize(
    "answer",
    [
        {"state": "STATE", "code": "c", "iss": "https://evil.example"},
        {"state": "STATE", "error": "access_denied", "error_description": "no"},
        {"state": "STATE"},
    ],
)
def test_what_is_no_answer_to_this_sign_in_ends_it(answer: dict[str, str]) -> None:
    site = Site({"id_token": "tok"})
    with pytest.raises(SignInError):
        Issuer(ISSUER, "narrows", ["openid"], site).by_browser(Browser(answer))
    assert site.asked == [], "the code went nowhere"


def test_the_issuer_leads_to_no_place_without_tls() -> None:
    site = Site({"id_token": "tok"})
    site.endpoints["authorization_endpoint"] = "http://login.example.com/auth"
    with pytest.raises(NarrowsError):
        Issuer(ISSUER, "narrows", ["openid"], site).by_browser(lambda _: pytest.fail("it was opened"))


BEGUN = {"device_code": "d", "user_code": "AB\x1b[2J", "verification_uri": ISSUER, "interval": 2, "expires_in": 600}


def test_the_device_flow_waits_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pending, slow = {"error": "authorization_pending"}, {"error": "slow_down"}
    site, pauses = Site(BEGUN, pending, slow, pending, {"id_token": "tok"}), []  # type: tuple[Site, list[float]]
    assert Issuer(ISSUER, "narrows", ["openid"], site).by_device(pauses.append) == ("tok", "")
    assert pauses == [2, 2, 7, 7]
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("end", [{"error": "access_denied"}, {"error": "expired_token"}, {}, {"id_token": 5}])
def test_the_device_flow_ends_at_a_no(end: dict[str, Any]) -> None:
    with pytest.raises(SignInError):
        Issuer(ISSUER, "narrows", ["openid"], Site(BEGUN, end)).by_device(lambda _: None)
    with pytest.raises(SignInError):
        Issuer(ISSUER, "narrows", ["openid"], Site({"error": "unauthorized_client"})).by_device(lambda _: None)
