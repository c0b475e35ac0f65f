"""The gate before every route: who may talk to the API at all.

Refused before any route sees the request: a Host that is not ours (a web page that re-binds its own name to
127.0.0.1 still sends that name), a browser's Origin that is not ours, a body over the limit, and any path
but the two health probes without the right bearer token. Applies to paths that do not exist too, so that
nothing can be learnt without a token and no route can forget to ask for it.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from narrows.core.values import Principal
from narrows.manage.deps import Deps
from narrows.manage.errors import problem
from narrows.manage.responses import ProblemResponse

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request body; the largest honest one is a session's command line."""


class LocalOwner:
    """Verifies the token of `run/local.json`, which only the owner of the data directory can read."""

    def __init__(self, token: str, principal: Principal) -> None:
        if len(token) < 32:
            raise ValueError("the local token must have 32 characters or more")
        self._token = token.encode()
        self._principal = principal

    def __call__(self, token: str) -> Principal | None:
        """The owner if the token is the right one. The time taken does not depend on where the two differ."""
        return self._principal if hmac.compare_digest(token.encode("utf-8", "replace"), self._token) else None


class Guard:
    """ASGI middleware; must be the outermost."""

    def __init__(self, app: ASGIApp, deps: Deps) -> None:
        self._app = app
        self._deps = deps
        self._hosts = LOCAL_HOSTS | deps.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with `request.state.principal` set."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, _limited(receive), _marked(send))

    def _refusal(self, scope: Scope) -> Response | None:
        request = Request(scope)
        foreign = self._foreign(request)
        if foreign:
            body = problem(403, "The request was refused", foreign, "", "foreign_request")
            return ProblemResponse(body, 403)
        length = request.headers.get("content-length", "")
        if length and (not length.isdecimal() or len(length) > 12 or int(length) > MAX_BODY):
            return _too_large()
        if request.url.path in OPEN_PATHS:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        principal = self._deps.verify_token(token.strip()) if scheme.lower() == "bearer" and token else None
        if principal is None:
            body = problem(
                401,
                "The request was refused",
                "it carries no valid token",
                "the local command line reads it from run/local.json in the data directory",
                "unauthorized",
            )
            return ProblemResponse(body, 401, {"WWW-Authenticate": "Bearer"})
        scope.setdefault("state", {})["principal"] = principal
        return None

    def _foreign(self, request: Request) -> str:
        """Why the request does not come from us, or an empty string."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or _hostname(hosts[0]) not in self._hosts:
            return "its Host is not a name of this API"
        origins = request.headers.getlist("origin")
        if not origins:
            return ""
        if len(origins) > 1:
            return "it carries two Origins"
        ours = {f"http://{hosts[0]}", f"https://{hosts[0]}"} | self._deps.origins
        return "" if origins[0] in ours else "its Origin is not this API's"


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _too_large() -> Response:
    what, why = "The request was refused", f"its body may have {MAX_BODY} bytes at most"
    return ProblemResponse(problem(413, what, why, "", "body_too_large"), 413)


class BodyTooLarge(HTTPException):
    """A body without a length went over the limit while it was read."""

    def __init__(self) -> None:
        super().__init__(413, f"its body may have {MAX_BODY} bytes at most")


def _limited(receive: Receive) -> Receive:
    seen = 0

    async def wrapped() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise BodyTooLarge()
        return message

    return wrapped


def _marked(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            # Leases and recordings must rest in no cache; nothing here is to be guessed at or framed.
            message["headers"] = [
                *message["headers"],
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await send(message)

    return wrapped
