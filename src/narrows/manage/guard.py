"""The gate before every route: who may talk to the API at all, and to which route by its roles.

Refused before any route sees the request: a Host that is not ours (a web page that re-binds its own name to
127.0.0.1 still sends that name), a browser's Origin that is not ours, a body over the limit, any path but the
public ones without a good bearer token, and any route that the table of `roles` does not give the caller. Applies
to paths that do not exist too, so that nothing can be learnt without a token and no route can forget to ask for it.
That a role was refused is on record.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from narrows.core import ids
from narrows.core.errors import RecorderFailed
from narrows.core.values import Principal
from narrows.manage.deps import Deps
from narrows.manage.errors import problem
from narrows.manage.responses import ProblemResponse
from narrows.manage.roles import Grant, Verdict, judge, public
from narrows.record.log.frame import Kind

log = logging.getLogger(__name__)

RECORD_WAIT_S = 0.5
"""How long a refusal waits for its record before it is answered regardless."""
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
        refused = self._refusal(scope) or await self._by_role(scope)
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
        if public(scope["method"], scope["path"]):
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self._grant(token.strip()) if scheme.lower() == "bearer" and token else None
        if grant is None:
            body = problem(
                401,
                "The request was refused",
                "it carries no valid token",
                "sign in with `narrows login`; the local owner's is in run/local.json in the data directory",
                "unauthorized",
            )
            return ProblemResponse(body, 401, {"WWW-Authenticate": "Bearer"})
        scope.setdefault("state", {}).update(principal=grant.principal, grant=grant)
        return None

    def _grant(self, token: str) -> Grant | None:
        owner = self._deps.verify_token(token)
        if owner is not None:
            return Grant(owner, frozenset({"owner"}))
        return self._deps.tokens.find(token) if self._deps.tokens is not None else None

    async def _by_role(self, scope: Scope) -> Response | None:
        """The table's refusal of an identified caller, or None."""
        grant: Grant | None = scope.get("state", {}).get("grant")
        method, path = scope["method"], scope["path"]
        verdict = judge(method, path, grant.roles if grant is not None else frozenset())
        if verdict is Verdict.ALLOWED or verdict is Verdict.PUBLIC:
            return None
        if verdict is Verdict.NO_ROUTE:
            return ProblemResponse(problem(404, "There is no such resource", "Not Found", "", "not_found"), 404)
        if verdict is Verdict.NO_METHOD or grant is None:
            body = problem(405, "This resource has no such method", "Method Not Allowed", "", "method_not_allowed")
            return ProblemResponse(body, 405)
        await self._note_refusal(grant, method, path)
        why = f"{grant.principal.name} has {grant.described()}"
        hint = "ask for a group that has the role; `narrows whoami` shows yours"
        return ProblemResponse(problem(403, "Your role does not allow that", why, hint, "role_denied"), 403)

    async def _note_refusal(self, grant: Grant, method: str, path: str) -> None:
        who = grant.principal
        meta = {"action": "refused", "by": who.name, "by_kind": who.kind, "issuer": who.issuer, "code": "role_denied"}
        try:
            async with asyncio.timeout(RECORD_WAIT_S):
                await self._deps.record(Kind.ADMIN, ids.NIL, {**meta, "method": method, "path": path[:256]})
        except (RecorderFailed, TimeoutError) as error:
            log.error("a refusal of %s %s is not on the record: %s", method, path[:256], error)

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
