"""Exchanges: search, show, and the exact recorded bytes of one direction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from narrows.core import ids
from narrows.manage.common import MAX_PAGE, Caller, Dependencies, Granted, record_admin
from narrows.manage.responses import JsonResponse

router = APIRouter(tags=["exchanges"])

Direction = Literal["request", "response", "sent"]


@router.get("/exchanges")
def list_exchanges(
    deps: Dependencies,
    granted: Granted,
    q: Annotated[str, Query(max_length=4096)] = "",
    session: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str, Query(max_length=256)] = "",
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[int | None, Query(ge=-1, le=2**62)] = None,
) -> Response:
    """Exchanges that match, by the time they started.

    With `after=LEAF` instead: those sealed after that leaf, in the order of the log. A follower that asks
    on with the last `leaf_index` it saw misses none, also those that started early and ended late.
    """
    now = deps.clock.wall_ns()
    if after is not None:
        page = deps.index.exchanges_after(after, q, session, limit, now_ns=now, owner=granted.scope)
    else:
        page = deps.index.exchanges(q, session, limit, cursor, order, now_ns=now, owner=granted.scope)
    return JsonResponse({"items": [row.json() for row in page.items], "next": page.next})


@router.get("/exchanges/{exchange}")
def show_exchange(exchange: str, deps: Dependencies, granted: Granted) -> Response:
    """One exchange, by its id or a prefix that no other has."""
    return JsonResponse(deps.index.exchange(exchange, owner=granted.scope).json())


@router.get("/exchanges/{exchange}/check")
def check_exchange(exchange: str, deps: Dependencies, granted: Granted) -> Response:
    """Whether the index says of an exchange what the recording says: `differences` are empty if it does.

    What an exchange is shown as comes from the index, which proves nothing; this reads the recording again.
    """
    row = deps.index.exchange(exchange, owner=granted.scope)
    found = deps.check_row(row)
    return JsonResponse({"exchange": ids.text(row.id), "ok": not found, "differences": found})


@router.get("/exchanges/{exchange}/raw")
async def raw(
    exchange: str, direction: Direction, deps: Dependencies, caller: Caller, granted: Granted
) -> Response:
    """The exact recorded bytes of one direction. That they were read is on the record before the first
    byte."""
    row = await run_in_threadpool(lambda: deps.index.exchange(exchange, owner=granted.scope))
    name = ids.text(row.id)
    await record_admin(deps, caller, "exchange.read", row.session, exchange=name, direction=direction)
    pieces = deps.iter_raw(row.location, direction)
    # The first piece is read here, so that a recording that cannot be read is an error and not an empty
    # answer.
    first = await run_in_threadpool(_first, pieces)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{direction}"'}
    return StreamingResponse(chain((first,), pieces), media_type="application/octet-stream", headers=headers)


def _first(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")
