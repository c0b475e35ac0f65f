"""Sessions: open, close, kill, list, show.

Opening: SESSION_OPEN is on stable storage before a lease leaves. Ending: the directory is published before
the
answer, hence within the workers' polling interval no lease of the session works. Ending never waits for a
recorder
that hangs or failed: revoking is always safe, and the answer then says that the record of it is missing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core import ids
from narrows.core.errors import NarrowsError, NotFound, RecorderFailed, Refusal
from narrows.core.providers import base_path
from narrows.core.values import Agent, Connection, Lease, Principal
from narrows.manage.common import MAX_PAGE, Caller, Dependencies, Granted, own_session, record_admin, session_id
from narrows.manage.control import Session
from narrows.manage.deps import Deps
from narrows.manage.responses import JsonResponse
from narrows.manage.roles import Grant
from narrows.manage.schema import CloseRequest, SessionRequest
from narrows.manage.tokens import KEY_ISSUER
from narrows.record.log.frame import Kind

router = APIRouter(tags=["sessions"])

RECORD_WAIT_S = 0.5
"""How long ending a session waits for its record before it revokes regardless."""


def lease_json(lease: Lease, connection: Connection, gateway_url: str) -> dict[str, Any]:
    """A lease as its holder gets it, once: the only answer of this API that holds a secret."""
    if connection.kind == "llm":
        return {
            "connection": lease.connection,
            "kind": connection.kind,
            "provider": connection.provider,
            "base_url": gateway_url.rstrip("/") + base_path(connection),
            "api_key": lease.session_token,
            "access_key_id": lease.access_key_id,
            "expires": lease.expires,
        }
    return {
        "connection": lease.connection,
        "kind": connection.kind,
        "region": connection.region,
        "access_key_id": lease.access_key_id,
        "secret_access_key": lease.secret_access_key,
        "session_token": lease.session_token,
        "expires": lease.expires,
    }


def check_allowed(principal: Principal, connection: Connection) -> None:
    """Raise Refusal if the connection is for groups of which the principal is in none."""
    if connection.groups and not set(connection.groups) & set(principal.groups):
        raise Refusal(
            f"{principal.name} may not use the connection {connection.name!r}",
            f"it is for the groups {', '.join(connection.groups)}",
            "ask for one of these groups, or change the connection",
            code="not_in_group",
        )


def check_granted(granted: Grant, connection: Connection) -> None:
    """Raise Refusal if the caller's groups, or the token that it came with, do not reach to the connection."""
    check_allowed(granted.principal, connection)
    if granted.connections is not None and connection.name not in granted.connections:
        raise Refusal(
            f"{granted.principal.name} may not use the connection {connection.name!r}",
            f"its key is for {', '.join(granted.connections) or 'no connection'}",
            "make a key that names it: narrows key create --connection",
            code="not_in_key",
        )


def proxy_url(gateway_url: str, token: str) -> str:
    """The gateway as an HTTP proxy, with the session's token as the password."""
    parts = urlsplit(gateway_url)
    return f"{parts.scheme}://narrows:{quote(token, safe='')}@{parts.netloc}"


@router.post("/sessions", status_code=201)
async def open_session(body: SessionRequest, deps: Dependencies, caller: Caller, granted: Granted) -> Response:
    """Open a session and issue its leases."""
    connections = []
    for name in dict.fromkeys(body.connections):
        connection = await run_in_threadpool(deps.store.connection, name)
        check_granted(granted, connection)
        connections.append(connection)
    now = deps.clock.wall_ns()
    expires_s = now // 1_000_000_000 + (body.ttl_s or deps.session_ttl_s)
    if caller.issuer == KEY_ISSUER and granted.expires is not None:
        expires_s = min(expires_s, granted.expires)
    session = Session(
        id=ids.uuid7(now, deps.random(10)),
        principal=caller,
        agent=Agent(body.agent.name, body.agent.version),
        command=body.command,
        cwd=body.cwd,
        host=body.host,
        pid=body.pid,
        connections=tuple(c.name for c in connections),
        opened_ns=now,
        expires_s=expires_s,
    )
    await deps.record(Kind.SESSION_OPEN, session.id, _open_meta(session))
    await run_in_threadpool(deps.store.open_session, session)
    try:
        answer = await run_in_threadpool(_issue, deps, session, connections)
    except NarrowsError:
        # A session without leases is of no use to anyone: its end goes on the record like its beginning.
        await end_session(deps, session.id, "closed", "no lease could be issued")
        raise
    return JsonResponse(answer, 201)


def _open_meta(session: Session) -> dict[str, Any]:
    return {
        "principal": session.principal.name,
        "principal_kind": session.principal.kind,
        "issuer": session.principal.issuer,
        "groups": list(session.principal.groups),
        "agent": session.agent.name,
        "agent_version": session.agent.version,
        "command": list(session.command),
        "cwd": session.cwd,
        "host": session.host,
        "pid": session.pid,
        "connections": list(session.connections),
        "expires": session.expires_s,
    }


def issue(deps: Deps, session: Session, connection: Connection) -> Lease:
    """A lease of an open session for one connection; it ends with the session."""
    make = deps.issuer.api_key if connection.kind == "llm" else deps.issuer.issue
    return make(
        session=session.id,
        connection=connection.name,
        principal=session.principal,
        agent=session.agent,
        expires=session.expires_s,
        now_s=deps.clock.wall_ns() // 1_000_000_000,
    )


def _issue(deps: Deps, session: Session, connections: list[Connection]) -> dict[str, Any]:
    leases = [issue(deps, session, connection) for connection in connections]
    expires = session.expires_s
    token = deps.issuer.proxy_token(
        session=session.id,
        principal=session.principal,
        agent=session.agent,
        expires=expires,
        now_s=deps.clock.wall_ns() // 1_000_000_000,
        connections=session.connections,
    )
    deps.store.note_leases(leases)
    return {
        "id": ids.text(session.id),
        "expires": expires,
        "gateway_url": deps.gateway_url,
        "proxy_url": proxy_url(deps.gateway_url, token),
        "token": token,
        "ca_pem": deps.ca_pem,
        "leases": [lease_json(lease, c, deps.gateway_url) for lease, c in zip(leases, connections, strict=True)],
    }


async def end_session(
    deps: Deps,
    session: bytes,
    state: str,
    why: str,
    exit_code: int | None = None,
    by: Principal | None = None,
) -> Session:
    """Record the end of a session, end it, publish it. Returns it as it is then; the first end stays.

    Raises NotFound; RecorderFailed if the end could not be recorded in RECORD_WAIT_S: it is in force all
    the same.
    """
    current = await run_in_threadpool(deps.store.session, session)
    if current.state != "open" and (state != "killed" or current.state == "killed"):
        return current
    meta: dict[str, Any] = {"why": state, "exit_code": exit_code}
    if why != state:
        meta["detail"] = why
    failure: Exception | None = None
    try:
        async with asyncio.timeout(RECORD_WAIT_S):
            if by is not None:
                meta["by"] = by.name
                await record_admin(deps, by, f"session.{state}", session)
            await deps.record(Kind.SESSION_CLOSE, session, meta)
    except (RecorderFailed, TimeoutError) as error:
        failure = error
    ended = await run_in_threadpool(deps.store.end_session, session, state, why, exit_code)
    if failure is not None:
        raise RecorderFailed(
            "The session was ended, but its end is not on the record",
            str(failure) or f"the recorder did not answer in {RECORD_WAIT_S} s",
            "its leases no longer work; look at the recorder",
        ) from failure
    return ended


async def end_expired(deps: Deps) -> int:
    """End the sessions whose time has run out; returns how many. For the control process's timer."""
    expired = await run_in_threadpool(deps.store.expired)
    for session in expired:
        await end_session(deps, session.id, "expired", "expired")
    return len(expired)


@router.post("/sessions/{session}/close")
async def close(session: str, deps: Dependencies, granted: Granted, body: CloseRequest | None = None) -> Response:
    """Close a session: its command has ended."""
    key = await session_id(deps, session, granted)
    ended = await end_session(deps, key, "closed", "closed", body.exit_code if body else None)
    return JsonResponse(ended.json())


@router.post("/sessions/{session}/kill")
async def kill(session: str, deps: Dependencies, caller: Caller, granted: Granted) -> Response:
    """Kill a session: no lease of it works within a second of the answer."""
    key = await session_id(deps, session, granted)
    ended = await end_session(deps, key, "killed", "killed", by=caller)
    return JsonResponse(ended.json())


@router.get("/sessions")
def list_sessions(
    deps: Dependencies,
    granted: Granted,
    q: Annotated[str, Query(max_length=4096)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Sessions with at least one exchange that matches, or all; the newest first."""
    page = deps.index.sessions(q, limit, cursor, now_ns=deps.clock.wall_ns(), owner=granted.scope)
    return JsonResponse({"items": [_with_state(deps, row.id, row.json()) for row in page.items], "next": page.next})


def _with_state(deps: Deps, session: bytes, shown: dict[str, Any]) -> dict[str, Any]:
    """The index is up to a second behind; whether a session is ended is told from the control store."""
    try:
        control = deps.store.session(session)
    except NotFound:
        return shown
    return shown | {"state": control.state, "exit_code": control.exit_code}


@router.get("/sessions/{session}")
def show_session(session: str, deps: Dependencies, granted: Granted) -> Response:
    """One session: what is recorded of it, its state, and the leases issued (without their secrets)."""
    try:
        row = deps.index.session(session, owner=granted.scope)
    except NotFound:
        # Opened a moment ago: not sealed yet, but known to the control store.
        try:
            control = own_session(deps.store.session(ids.parse(session)), granted.scope)
        except ValueError:
            control = None
        if control is None:
            raise
        return JsonResponse(control.json() | {"leases": deps.store.leases(control.id), "indexed": False})
    shown = _with_state(deps, row.id, row.json())
    return JsonResponse(shown | {"leases": deps.store.leases(row.id), "indexed": True})
