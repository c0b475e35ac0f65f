"""Leases: a fresh one for an open session, as `narrows lease` asks for it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core import ids
from narrows.core.errors import Refusal
from narrows.core.issuers import same_principal
from narrows.manage.common import Caller, Dependencies, Granted, full_id, own_session
from narrows.manage.responses import JsonResponse
from narrows.manage.schema import LeaseRequest
from narrows.manage.sessions import check_granted, issue, lease_json

router = APIRouter(tags=["leases"])


@router.post("/leases", status_code=201)
async def issue_lease(body: LeaseRequest, deps: Dependencies, caller: Caller, granted: Granted) -> Response:
    """Issue a lease for one of the session's connections; it ends with the session."""
    session = await run_in_threadpool(deps.store.session, full_id(body.session))
    now_s = deps.clock.wall_ns() // 1_000_000_000
    own_session(session, granted.scope)
    if not same_principal(session.principal, caller):
        raise Refusal("No lease was issued", "the session is another principal's", code="not_your_session")
    if session.state != "open" or session.expires_s <= now_s:
        state = session.state if session.state != "open" else "expired"
        raise Refusal(
            "No lease was issued",
            f"the session {ids.text(session.id)} is {state}",
            "open a new one: narrows run",
            code="session_ended",
        )
    if body.connection not in session.connections:
        raise Refusal(
            "No lease was issued",
            f"the session was not opened for the connection {body.connection!r}",
            "name it when the session is opened: narrows run --connection",
            code="not_in_session",
        )
    connection = await run_in_threadpool(deps.store.connection, body.connection)
    check_granted(granted, connection)
    lease = await run_in_threadpool(issue, deps, session, connection)
    await run_in_threadpool(deps.store.note_leases, [lease])
    return JsonResponse(lease_json(lease, connection, deps.gateway_url), 201)
