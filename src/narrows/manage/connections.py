"""Connections: register, change, remove, show, test. Every change is an ADMIN record before it takes
effect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from narrows.core.errors import ConfigError
from narrows.directory import connection_to_json
from narrows.manage.common import Caller, Dependencies, record_admin
from narrows.manage.errors import ConflictError
from narrows.manage.responses import JsonResponse
from narrows.manage.schema import CONNECTION_NAME, ConnectionModel

router = APIRouter(tags=["connections"])

Name = Annotated[str, Path(pattern=CONNECTION_NAME)]


@router.get("/connections")
def list_connections(deps: Dependencies) -> Response:
    """All connections, in the order of registration."""
    return JsonResponse({"items": [connection_to_json(c) for c in deps.store.connections()]})


@router.post("/connections", status_code=201)
async def add_connection(body: ConnectionModel, deps: Dependencies, caller: Caller) -> Response:
    """Register a connection."""
    connection = body.value()
    known = await run_in_threadpool(deps.store.connections)
    if any(c.name == connection.name for c in known):
        raise ConflictError(
            f"The connection {connection.name!r} was not added",
            "a connection of that name is registered",
            "change it, or remove it first",
        )
    await record_admin(deps, caller, "connection.add", connection=connection_to_json(connection))
    added = await run_in_threadpool(deps.store.add_connection, connection)
    return JsonResponse(connection_to_json(added), 201, {"Location": f"/api/v1/connections/{added.name}"})


@router.get("/connections/{name}")
def show_connection(name: Name, deps: Dependencies) -> Response:
    """One connection. It names where its credential comes from; the credential itself is nowhere in it."""
    return JsonResponse(connection_to_json(deps.store.connection(name)))


@router.put("/connections/{name}")
async def change_connection(name: Name, body: ConnectionModel, deps: Dependencies, caller: Caller) -> Response:
    """Replace a connection whole."""
    if body.name != name:
        raise ConfigError(
            "The connection was not changed",
            f"the body names {body.name!r}, the path {name!r}",
            "a connection keeps its name: remove it and add another",
        )
    before = await run_in_threadpool(deps.store.connection, name)
    after = body.value()
    await record_admin(
        deps,
        caller,
        "connection.change",
        connection=connection_to_json(after),
        before=connection_to_json(before),
    )
    changed = await run_in_threadpool(deps.store.replace_connection, after)
    return JsonResponse(connection_to_json(changed))


@router.delete("/connections/{name}", status_code=204)
async def remove_connection(name: Name, deps: Dependencies, caller: Caller) -> Response:
    """Remove a connection; its leases stop working within a second."""
    before = await run_in_threadpool(deps.store.connection, name)
    await record_admin(deps, caller, "connection.remove", before=connection_to_json(before))
    await run_in_threadpool(deps.store.remove_connection, name)
    return Response(status_code=204)


@router.post("/connections/{name}/test")
async def test_connection(name: Name, deps: Dependencies, caller: Caller) -> Response:
    """Use the connection's own credential once, harmlessly, and say whose it is."""
    connection = await run_in_threadpool(deps.store.connection, name)
    await record_admin(deps, caller, "connection.test", connection=connection.name)
    return JsonResponse(await deps.test_connection(connection))
