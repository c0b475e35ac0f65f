"""Health probes: the only two paths that ask for no token, and that tell nothing but yes or no."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from narrows.manage.common import Dependencies
from narrows.manage.errors import problem
from narrows.manage.responses import JsonResponse, ProblemResponse

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Response:
    """The control process answers."""
    return JsonResponse({"status": "ok"})


@router.get("/readyz")
def readyz(deps: Dependencies) -> Response:
    """The gateway can record and serve; 503 with the reason if not."""
    why = deps.ready()
    if why:
        return ProblemResponse(problem(503, "The gateway is not ready", why, "", "not_ready"), 503)
    return JsonResponse({"status": "ready"})
