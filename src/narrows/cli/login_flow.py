"""Getting an ID token from the organisation's sign-in: authorization code with PKCE, or the device flow.

RFC 8252 (native apps): the browser comes back to a port of this machine that is open for this one answer. RFC 7636
(PKCE, S256), RFC 9207 (`iss` in the answer), RFC 8628 (device flow). The client is a public one, without a secret.
What the issuer says is shown escaped, as is everything from elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from narrows.cli.render import safe
from narrows.core.errors import NarrowsError
from narrows.identity.jwks import discover, endpoint
from narrows.identity.oidc_fetch import Fetcher

WAIT_S = 300.0
"""How long a browser may take."""
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LEAST_INTERVAL_S, MOST_INTERVAL_S = 1.0, 60.0


class SignInError(NarrowsError):
    """The sign-in did not give an identity."""

    code = "sign_in"


class Issuer:
    """One issuer as a public client of it sees it."""

    def __init__(self, issuer: str, client_id: str, scopes: list[str], fetcher: Fetcher | None = None) -> None:
        """Asks the issuer where its parts are. Raises UpstreamError."""
        self.issuer = issuer
        self.client_id = client_id
        self.scope = " ".join(scopes)
        self._fetch = fetcher or Fetcher()
        self._document = discover(issuer, self._fetch.get)

    @property
    def has_device_flow(self) -> bool:
        """Whether it knows the device flow."""
        return "device_authorization_endpoint" in self._document

    def by_browser(self, open_url: Callable[[str], object]) -> tuple[str, str]:
        """Authorization code with PKCE through a browser; returns the ID token and the nonce that it must carry.

        `open_url` shows a page, in a thread of its own. Raises SignInError, UpstreamError.
        """
        verifier, state, nonce = (secrets.token_urlsafe(48) for _ in range(3))
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with _Callback(state) as callback:
            query = {
                "response_type": "code",
                "client_id": self.client_id,
                "redirect_uri": callback.url,
                "scope": self.scope,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            where = endpoint(self._document, "authorization_endpoint", self.issuer)
            page = where + ("&" if urlsplit(where).query else "?") + urlencode(query)
            _say("Sign in in the browser; if none opens, go to:")
            _say(f"  {safe(page)}")
            # Beside us: some browsers return only when they are closed, and their answer is waited for here.
            threading.Thread(target=open_url, args=(page,), daemon=True).start()
            answer = callback.wait(WAIT_S)
            redirect = callback.url
        if answer.get("iss", self.issuer) != self.issuer:
            raise SignInError("The sign-in was refused", "the answer is of another issuer", "try again")
        if "error" in answer or "code" not in answer:
            raise _no(answer)
        form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": redirect}
        return self._id_token(self._ask("token_endpoint", form | {"code_verifier": verifier})), nonce

    def by_device(self, pause: Callable[[float], None] = time.sleep) -> tuple[str, str]:
        """The device flow: the page is opened on another machine. Returns the ID token; it carries no nonce.

        Raises SignInError, UpstreamError.
        """
        begun = self._ask("device_authorization_endpoint", {"scope": self.scope})
        if "error" in begun or not all(isinstance(begun.get(name), str) for name in ("device_code", "user_code")):
            raise _no(begun)
        _say(f"Go to {safe(str(begun.get('verification_uri')))} and enter the code {safe(begun['user_code'])}")
        if isinstance(begun.get("verification_uri_complete"), str):
            _say(f"  or to {safe(begun['verification_uri_complete'])}")
        interval = min(max(_number(begun.get("interval"), 5.0), LEAST_INTERVAL_S), MOST_INTERVAL_S)
        deadline = time.monotonic() + min(_number(begun.get("expires_in"), WAIT_S), 3600.0)
        while time.monotonic() < deadline:
            pause(interval)
            answer = self._ask("token_endpoint", {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"]})
            error = answer.get("error")
            if error == "slow_down":
                interval = min(interval + 5, MOST_INTERVAL_S)
            elif error != "authorization_pending":
                return self._id_token(answer), ""
        raise SignInError("The sign-in was not finished", "the code's time is over", "try again")

    def _ask(self, name: str, form: Mapping[str, str]) -> dict[str, Any]:
        where = endpoint(self._document, name, self.issuer)
        status, raw = self._fetch.post(where, {**form, "client_id": self.client_id})
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SignInError("The sign-in failed", f"the issuer answered with HTTP status {status} and no JSON")
        return found

    def _id_token(self, answer: Mapping[str, Any]) -> str:
        if "error" in answer:
            raise _no(answer)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInError("The sign-in failed", "the issuer gave no ID token", "the scopes must have `openid`")
        return token


class _Callback:
    """A port of this machine's loopback, open for one answer. What has not our state is answered and forgotten."""

    def __init__(self, state: str) -> None:
        self._found: dict[str, str] = {}
        found = self._found

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                given = {name: values[0] for name, values in parse_qs(parts.query, max_num_fields=32).items()}
                ours = hmac.compare_digest(given.get("state", "").encode("utf-8", "replace"), state.encode())
                good = parts.path == "/callback" and ours
                if good:
                    found.update(given)
                text = b"Narrows has what it needs. You may close this page.\n" if good else b"There is nothing here.\n"
                self.send_response(200 if good else 404)
                for name, value in (("Content-Type", "text/plain"), ("Content-Length", str(len(text)))):
                    self.send_header(name, value)
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Nothing: the line would hold the code."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/callback"

    def __enter__(self) -> _Callback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, seconds: float) -> dict[str, str]:
        """The answer. Raises SignInError if none comes."""
        deadline = time.monotonic() + seconds
        while not self._found:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SignInError(
                    "The sign-in was not finished", f"no answer in {seconds:g} s", "try again, or with --device"
                )
            self._server.timeout = left
            self._server.handle_request()
        return self._found


def open_browser(url: str) -> None:
    """Show a page in the user's browser, if there is one: the page's address is printed in any case."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(url)


def has_browser() -> bool:
    """Whether there is a browser that could be opened."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else default


def _no(answer: Mapping[str, Any]) -> SignInError:
    why = str(answer.get("error_description") or answer.get("error") or "the issuer's answer is not one")[:300]
    return SignInError("The sign-in was refused", why, "try again, or ask who runs the issuer")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
