"""The log's head: handed to whoever asks, so that someone else holds old heads (P5)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from narrows.manage.common import Dependencies
from narrows.manage.responses import JsonResponse

router = APIRouter(tags=["log"])


@router.get("/log/checkpoint")
def checkpoint(deps: Dependencies) -> Response:
    """The newest signed checkpoint (C2SP signed-note), byte for byte as published."""
    return PlainTextResponse(deps.log.checkpoint())


@router.get("/log/status")
def status(deps: Dependencies) -> Response:
    """How many leaves the log has, when it was last signed, and how far the sealer and the index are
    behind."""
    return JsonResponse(deps.log.status() | {"indexed": deps.index.cursor()})
