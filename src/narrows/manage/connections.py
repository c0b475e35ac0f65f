"""Connections: register, change, remove, show, test. Every change is an ADMIN record before it takes
effect.

Every answer with one connection carries its ETag. A change or removal with `If-Match` takes effect only while the
connection still is as that tag says, so that two administrators do not overwrite each other (RFC 9110 section
13.1.1). A creation with `Idempotency-Key` can be sent again when its answer was lost: it makes one connection and
gets the first answer again, for a day.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core.errors import ConfigError, NotFound, Refusal
from narrows.core.values import Connection, Principal
from narrows.directory import connection_to_json
from narrows.manage.common import Caller, Dependencies, Granted, record_admin
from narrows.manage.control import ControlStore, Creation
from narrows.manage.errors import ConflictError, PreconditionError
from narrows.manage.responses import JsonResponse
from narrows.manage.roles import Grant
from narrows.manage.schema import CONNECTION_NAME, ConnectionModel, etag
from narrows.manage.sessions import check_granted

router = APIRouter(tags=["connections"])

Name = Annotated[str, Path(pattern=CONNECTION_NAME)]
IfMatch = Annotated[str, Header(alias="If-Match", max_length=1024)]
IdempotencyKey = Annotated[str, Header(alias="Idempotency-Key", pattern=r"^([!-~]{1,255})?$")]


@router.get("/connections")
def list_connections(deps: Dependencies, granted: Granted) -> Response:
    """The connections that the caller may see, in the order of registration."""
    seen = (c for c in deps.store.connections() if _seen(granted, c))
    return JsonResponse({"items": [connection_to_json(c) for c in seen]})


@router.post("/connections", status_code=201)
async def add_connection(
    body: ConnectionModel, deps: Dependencies, caller: Caller, idempotency_key: IdempotencyKey = ""
) -> Response:
    """Register a connection."""
    connection = body.value()
    creation = _creation(caller, idempotency_key, connection)
    if creation is not None and (again := await run_in_threadpool(_made, deps.store, creation)) is not None:
        return again
    known = await run_in_threadpool(deps.store.connections)
    if any(c.name == connection.name for c in known):
        raise ConflictError(
            f"The connection {connection.name!r} was not added",
            "a connection of that name is registered",
            "change it, or remove it first",
        )
    await record_admin(deps, caller, "connection.add", connection=connection_to_json(connection))
    try:
        added = await run_in_threadpool(deps.store.add_connection, connection, creation)
    except ConflictError:
        # The same creation, sent twice at once, was the first of the two.
        if creation is None or (again := await run_in_threadpool(_made, deps.store, creation)) is None:
            raise
        return again
    return _one(added, 201)


@router.get("/connections/{name}")
def show_connection(name: Name, deps: Dependencies, granted: Granted) -> Response:
    """One connection. It names where its credential comes from; the credential itself is nowhere in it."""
    connection = deps.store.connection(name)
    if not _seen(granted, connection):
        # As for one that is not there: names are not to be guessed.
        raise NotFound(f"There is no connection {name!r}", "no such name is registered for you")
    return _one(connection)


@router.put("/connections/{name}")
async def change_connection(
    name: Name, body: ConnectionModel, deps: Dependencies, caller: Caller, if_match: IfMatch = ""
) -> Response:
    """Replace a connection whole."""
    if body.name != name:
        raise ConfigError(
            "The connection was not changed",
            f"the body names {body.name!r}, the path {name!r}",
            "a connection keeps its name: remove it and add another",
        )
    before = await run_in_threadpool(deps.store.connection, name)
    _matches(before, if_match)
    after = body.value()
    await record_admin(
        deps,
        caller,
        "connection.change",
        connection=connection_to_json(after),
        before=connection_to_json(before),
    )
    expected = before if if_match else None
    return _one(await run_in_threadpool(deps.store.replace_connection, after, expected))


@router.delete("/connections/{name}", status_code=204)
async def remove_connection(name: Name, deps: Dependencies, caller: Caller, if_match: IfMatch = "") -> Response:
    """Remove a connection; its leases stop working within a second."""
    before = await run_in_threadpool(deps.store.connection, name)
    _matches(before, if_match)
    await record_admin(deps, caller, "connection.remove", before=connection_to_json(before))
    await run_in_threadpool(deps.store.remove_connection, name, before if if_match else None)
    return Response(status_code=204)


@router.post("/connections/{name}/test")
async def test_connection(name: Name, deps: Dependencies, caller: Caller) -> Response:
    """Use the connection's own credential once, harmlessly, and say whose it is."""
    connection = await run_in_threadpool(deps.store.connection, name)
    await record_admin(deps, caller, "connection.test", connection=connection.name)
    return JsonResponse(await deps.test_connection(connection))


def _seen(granted: Grant, connection: Connection) -> bool:
    """Whoever sees the sessions of all sees all connections; others those that they may use."""
    if granted.scope is None:
        return True
    try:
        check_granted(granted, connection)
    except Refusal:
        return False
    return True


def _one(connection: Connection, status: int = 200, *, replayed: bool = False) -> Response:
    told = connection_to_json(connection)
    headers = {"ETag": etag(told)}
    if status == 201:
        headers["Location"] = f"/api/v1/connections/{connection.name}"
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JsonResponse(told, status, headers)


def _matches(connection: Connection, if_match: str) -> None:
    """Whether one of the header's tags is the connection's; `*` is of any that exists. Raises PreconditionError."""
    if not if_match or if_match.strip() == "*":
        return
    now = etag(connection_to_json(connection))
    if now not in re.findall(r'(?<!/)"[^"]*"', if_match):  # strong comparison: a weak tag matches nothing
        raise PreconditionError(
            f"The connection {connection.name!r} was not changed",
            "someone else changed it since you looked",
            "look at it again, and decide again",
        )


def _creation(caller: Principal, key: str, connection: Connection) -> Creation | None:
    if not key:
        return None
    asked = json.dumps(connection_to_json(connection), sort_keys=True).encode()
    return Creation(f"{caller.issuer}\0{caller.name}", key, hashlib.sha256(asked).digest())


def _made(store: ControlStore, creation: Creation) -> Response | None:
    """The answer of the first such creation, None if there was none. Raises ConfigError where it was of another."""
    first = store.creation(creation.caller, creation.key)
    if first is None:
        return None
    if not hmac.compare_digest(first.request, creation.request):
        raise ConfigError(
            "The connection was not added",
            "its Idempotency-Key was used for another creation",
            "a new creation needs a new key",
        )
    return _one(ConnectionModel.model_validate_json(first.answer).value(), 201, replayed=True)
