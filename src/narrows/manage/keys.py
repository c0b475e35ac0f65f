"""Keys of services: shown once, stored as hashes, bounded by role, groups, connections and time."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core.errors import Refusal
from narrows.core.issuers import Role, role_names, same_principal
from narrows.core.values import Principal
from narrows.manage.common import Caller, Dependencies, record_admin
from narrows.manage.deps import Deps
from narrows.manage.responses import JsonResponse
from narrows.manage.schema import CONNECTION_NAME
from narrows.manage.sessions import end_session
from narrows.manage.tokens import KEY_ISSUER, TokenStore

router = APIRouter(tags=["keys"])

MAX_DAYS = 366

Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class KeyRequest(BaseModel):
    """Makes a key. It is a `user` if no role is named, and for all connections that its groups allow."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    roles: tuple[Role, ...] = Field(default=("user",), min_length=1, max_length=5)
    groups: tuple[Word, ...] = Field(default=(), max_length=64)
    connections: tuple[Annotated[str, Field(pattern=CONNECTION_NAME)], ...] | None = Field(default=None, max_length=64)
    days: int = Field(default=90, ge=1, le=MAX_DAYS)


def _store(deps: Deps) -> TokenStore:
    if deps.tokens is None:
        raise Refusal("There are no keys", "this gateway has no store of tokens", code="no_issuer", status=400)
    return deps.tokens


@router.get("/keys")
def list_keys(deps: Dependencies) -> Response:
    """The keys that work: whose, for what, how long. What they are is nowhere."""
    return JsonResponse({"items": _store(deps).keys()})


@router.post("/keys", status_code=201)
async def create_key(body: KeyRequest, deps: Dependencies, caller: Caller) -> Response:
    """Make a key. This answer is the only time that it is shown."""
    store = _store(deps)
    if "owner" in body.roles:
        raise Refusal("No key was made", "the owner's role is not given to keys", "take admin", code="role_denied")
    for name in body.connections or ():
        await run_in_threadpool(deps.store.connection, name)
    roles = frozenset(body.roles)
    expires = store.now_s + body.days * 86_400
    about: dict[str, Any] = {"roles": role_names(roles), "groups": list(body.groups), "expires": expires}
    bounds = list(body.connections) if body.connections is not None else None
    await record_admin(deps, caller, "key.create", key=body.name, connections=bounds, **about)
    made = await run_in_threadpool(store.create_key, body.name, roles, body.groups, body.connections, expires)
    return JsonResponse({"id": made.id, "name": body.name, "key": made.access, "connections": bounds, **about}, 201)


@router.delete("/keys/{key}", status_code=204)
async def revoke_key(key: str, deps: Dependencies, caller: Caller) -> Response:
    """Take a key back, by its id or name: it works no more, and the sessions that were opened with it are killed."""
    store = _store(deps)
    found = await run_in_threadpool(store.key, key)
    await record_admin(deps, caller, "key.revoke", key=found["name"])
    await run_in_threadpool(store.end_key, found["id"])
    service = Principal(found["name"], "service", KEY_ISSUER)
    for session in await run_in_threadpool(deps.store.sessions, "open", 100_000):
        if same_principal(session.principal, service):
            await end_session(deps, session.id, "killed", "its key was revoked", by=caller)
    return Response(status_code=204)
