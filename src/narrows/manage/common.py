"""What the resources share: the dependencies, the caller, ids, and the record of what an administrator
does."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.values import Principal
from narrows.manage.deps import Deps as _Deps
from narrows.record.log.frame import Kind


def _deps(request: Request) -> _Deps:
    return cast(_Deps, request.app.state.deps)


def _caller(request: Request) -> Principal:
    return cast(Principal, request.state.principal)


Dependencies = Annotated[_Deps, Depends(_deps)]
Caller = Annotated[Principal, Depends(_caller)]

MAX_PAGE = 1000
"""Rows of one page at most."""


async def session_id(deps: _Deps, value: str) -> bytes:
    """The session that an id or a unique prefix names. Raises NotFound, or the index's error if ambiguous."""
    try:
        return ids.parse(value)
    except ValueError:
        row = await run_in_threadpool(deps.index.session, value)
        return row.id


def full_id(value: str) -> bytes:
    """The 16 bytes of a whole session id. Raises NotFound."""
    try:
        return ids.parse(value)
    except ValueError as error:
        raise NotFound(f"There is no session {value[:64]!r}", "that is not a session id") from error


async def record_admin(deps: _Deps, caller: Principal, action: str, session: bytes = ids.NIL, **about: Any) -> None:
    """Put an ADMIN frame on stable storage: who does what. Raises RecorderFailed; then nothing may be
    done."""
    meta = {"action": action, "by": caller.name, "by_kind": caller.kind, "issuer": caller.issuer, **about}
    await deps.record(Kind.ADMIN, session, meta)
