"""The management API: an application made of one router per resource, behind one guard.

Errors leave as RFC 9457 problem details whatever their source: ours, FastAPI's validation, an unknown path,
a bug.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from narrows import __version__
from narrows.core.errors import NarrowsError
from narrows.manage import connections, exchanges, health, keys, leases, logs, provenance, sessions, signin
from narrows.manage.deps import Deps
from narrows.manage.errors import problem, status_of
from narrows.manage.guard import Guard
from narrows.manage.responses import JsonResponse, ProblemResponse
from narrows.manage.schema import explain

PREFIX = "/api/v1"


def create_app(deps: Deps) -> FastAPI:
    """The API over `deps`. Holds no state of its own but how many have asked for a token lately."""
    app = FastAPI(
        title="Narrows management API",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        default_response_class=JsonResponse,
    )
    app.state.deps = deps
    app.state.token_limiter = signin.Limiter()
    app.include_router(health.router)
    for resource in (sessions, exchanges, provenance, connections, leases, signin, keys, logs):
        app.include_router(resource.router, prefix=PREFIX)
    app.add_exception_handler(NarrowsError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
    app.add_middleware(Guard, deps=deps)
    return app


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, NarrowsError)
    status = status_of(error)
    return ProblemResponse(problem(status, error.what, error.why, error.hint, error.code), status)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    why = explain(error.errors())
    return ProblemResponse(problem(422, "The request is not valid", why, "", "invalid"), 422)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "There is no such resource", 405: "This resource has no such method"}.get(
        error.status_code, "The request was refused"
    )
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status_code, "http_error")
    body = problem(error.status_code, what, str(error.detail), "", code)
    return ProblemResponse(body, error.status_code, error.headers)


async def _unknown(_: Request, __: Exception) -> Response:
    # The exception itself goes to the server's log; its text may hold anything, so the answer holds none of
    # it.
    what, hint = "The gateway failed to answer", "its log says why"
    return ProblemResponse(problem(500, what, "an unforeseen error", hint, "internal"), 500)
