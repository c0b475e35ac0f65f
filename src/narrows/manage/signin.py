"""Signing in: a token of a configured issuer is exchanged for a token of this API (RFC 8693), renewed, and given back.

The routes but `identity` need no token, as they are how one gets one. So they are limited in number, they say nothing
but what anybody may know, and each answer, yes or no, is on record before it is given. What is refused for being too
much is not looked at; the next record says how much it was.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core import ids
from narrows.core.errors import NarrowsError, Refusal
from narrows.core.issuers import role_names, same_principal
from narrows.core.values import Principal
from narrows.manage.common import Dependencies, Granted, record_admin
from narrows.manage.deps import Deps
from narrows.manage.errors import problem, status_of
from narrows.manage.responses import JsonResponse, ProblemResponse
from narrows.manage.sessions import check_allowed, end_session
from narrows.manage.tokens import Issued, TokenStore
from narrows.record.log.frame import Kind

router = APIRouter(tags=["signin"])

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPES = frozenset(f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("jwt", "id_token", "access_token"))
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name

_NONE = "No token was issued"
MAX_FORM = 64 * 1024
MAX_FIELDS = 32
RATE, BURST = 10.0, 60
"""Requests a second for a token, and how many at once: signing in is rare, trying tokens is not."""

_FIELDS = {"type": "object", "additionalProperties": {"type": "string"}}
_FORM = {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": _FIELDS}}}}


class Limiter:
    """A bucket of `burst` tokens that fills by `rate` a second. Counts what it turned away until it is asked."""

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._rate, self._burst = rate, float(burst)
        self._left, self._at_s = float(burst), 0.0
        self._turned_away = 0

    def take(self, now_s: float) -> bool:
        """Whether one more may pass."""
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._left < 1:
            self._turned_away += 1
            return False
        self._left -= 1
        return True

    def turned_away(self) -> int:
        """How many were turned away since the last time."""
        found, self._turned_away = self._turned_away, 0
        return found


@router.get("/signin")
def how(deps: Dependencies) -> Response:
    """Whom one signs in with: the issuers of people, and the public client that this gateway is to them."""
    people = [one for one in deps.issuers if one.kind == "user"]
    shown = [{"issuer": one.issuer, "client_id": one.client_id, "scopes": list(one.scopes)} for one in people]
    return JsonResponse({"issuers": shown if deps.tokens is not None else []})


@router.get("/identity")
def identity(deps: Dependencies, granted: Granted) -> Response:
    """Who the caller is here: its groups, roles, bounds, and when its token ends (Unix seconds)."""
    who = granted.principal
    return JsonResponse(
        {
            "principal": who.name,
            "kind": who.kind,
            "issuer": who.issuer,
            "groups": list(who.groups),
            "roles": role_names(granted.roles),
            "connections": list(granted.connections) if granted.connections is not None else None,
            "expires": granted.expires,
            "gateway_url": deps.gateway_url,
        }
    )


@router.post("/token", openapi_extra=_FORM)
async def token(request: Request, deps: Dependencies) -> Response:
    """Exchange an issuer's token for one of this API (RFC 8693), or renew a sign-in (`grant_type=refresh_token`).

    The form's fields: `grant_type`, `subject_token` and `subject_token_type` (jwt, id_token or access_token), `nonce`
    if the sign-in had one; or `refresh_token`.
    """
    return await _answer(request, deps, _token)


@router.post("/token/revoke", openapi_extra=_FORM)
async def revoke(request: Request, deps: Dependencies) -> Response:
    """Give back a sign-in (RFC 7009): the form's `token`, and all that belong to its sign-in, work no more."""
    return await _answer(request, deps, _revoke)


async def _answer(request: Request, deps: Deps, act: Any) -> Response:
    limiter: Limiter = request.app.state.token_limiter
    try:
        if not limiter.take(deps.clock.mono_ns() / 1e9):
            raise Refusal(_NONE, "too many ask for one", "try again in a while", code="token_rate", status=429)
        store = deps.tokens
        if store is None:
            raise Refusal(_NONE, "no sign-in is configured", "see docs/identity.md", code="no_issuer", status=400)
        return JsonResponse(await act(await _form(request), deps, store), 200, {"Pragma": "no-cache"})
    except NarrowsError as error:
        status = status_of(error)
        if status != 429:
            meta = {"action": "token.refused", "by": "", "code": error.code, "turned_away": limiter.turned_away()}
            await deps.record(Kind.ADMIN, ids.NIL, meta)
        status = 400 if status == 401 else status  # RFC 6749 section 5.2: 401 is for clients that must prove themselves
        oauth = {400: "invalid_request" if error.code == "token_request" else "invalid_grant", 403: "access_denied"}
        named = {"error": oauth.get(status, "temporarily_unavailable"), "error_description": error.what}
        return ProblemResponse(problem(status, error.what, error.why, error.hint, error.code) | named, status)


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise _wrong("it is not a form")
    body = await request.body()
    if len(body) > MAX_FORM:
        raise _wrong(f"it is longer than {MAX_FORM} bytes")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise _wrong("it is not a form") from error
    if len(dict(pairs)) != len(pairs):
        raise _wrong("it has a field twice")
    return dict(pairs)


def _wrong(why: str) -> Refusal:
    return Refusal("The request for a token was refused", why, "see docs/identity.md", code="token_request", status=400)


async def _token(form: dict[str, str], deps: Deps, store: TokenStore) -> dict[str, Any]:
    grant = form.get("grant_type", "")
    if grant == "refresh_token":
        issued = await run_in_threadpool(store.refresh, form.get("refresh_token", ""), deps.token_ttl_s)
        await record_admin(deps, issued.principal, "token.refresh", token=issued.id)
        return _issued(deps, store, issued)
    if grant != EXCHANGE:
        raise _wrong("its grant_type is neither token exchange nor refresh_token")
    if form.get("subject_token_type") not in TOKEN_TYPES:
        raise _wrong("its subject_token_type is none of jwt, id_token, access_token")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN or "actor_token" in form:
        raise _wrong("only an access token is issued, to the subject itself")
    if deps.verify_identity is None:
        raise _wrong("no issuer is configured")
    verified, issuer = await run_in_threadpool(deps.verify_identity, form.get("subject_token", ""), form.get("nonce"))
    principal = verified.principal
    roles = store.roles.of(principal)
    if not roles:
        raise Refusal(
            f"{principal.name} may not use this gateway", "none of its groups has a role", "see [roles]", code="no_role"
        )
    now = store.now_s
    login_s = now + deps.login_ttl_s if issuer.kind == "user" else None
    ttl_s = deps.token_ttl_s if login_s is None else min(deps.token_ttl_s, deps.login_ttl_s)
    await _end_unreachable(deps, principal)
    about: dict[str, Any] = {"subject": verified.subject, "token_id": verified.token_id, "roles": role_names(roles)}
    await record_admin(deps, principal, "token.issue", groups=list(principal.groups), **about)
    return _issued(deps, store, await run_in_threadpool(store.sign_in, principal, now + ttl_s, login_s))


async def _end_unreachable(deps: Deps, principal: Principal) -> None:
    """Kill the principal's open sessions that have a connection which its groups, as they are now, do not reach to."""
    for session in await run_in_threadpool(deps.store.sessions, "open", 100_000):
        if not same_principal(session.principal, principal) or session.principal.groups == principal.groups:
            continue
        try:
            for name in session.connections:
                check_allowed(principal, await run_in_threadpool(deps.store.connection, name))
        except NarrowsError:
            await end_session(deps, session.id, "killed", "its principal's groups have changed")


def _issued(deps: Deps, store: TokenStore, issued: Issued) -> dict[str, Any]:
    who = issued.principal
    answer: dict[str, Any] = {
        "access_token": issued.access,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": max(0, issued.expires - store.now_s),
        "principal": who.name,
        "issuer": who.issuer,
        "groups": list(who.groups),
        "roles": role_names(store.roles.of(who)),
    }
    return answer | ({"refresh_token": issued.refresh} if issued.refresh else {})


async def _revoke(form: dict[str, str], deps: Deps, store: TokenStore) -> dict[str, Any]:
    who = await run_in_threadpool(store.revoke, form.get("token", ""))
    if who is not None:
        await record_admin(deps, who, "token.revoke")
    # RFC 7009 section 2.2: a token that is not known is as good as revoked.
    return {"revoked": True}
