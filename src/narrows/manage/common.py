"""What the resources share: the dependencies, the caller, ids, and the record of what an administrator
does."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.issuers import same_principal
from narrows.core.values import Principal
from narrows.manage.control import Session
from narrows.manage.deps import Deps as _Deps
from narrows.manage.roles import Grant
from narrows.record.log.frame import Kind


def _deps(request: Request) -> _Deps:
    return cast(_Deps, request.app.state.deps)


def _caller(request: Request) -> Principal:
    return cast(Principal, request.state.principal)


def _granted(request: Request) -> Grant:
    return cast(Grant, request.state.grant)


Dependencies = Annotated[_Deps, Depends(_deps)]
Caller = Annotated[Principal, Depends(_caller)]
Granted = Annotated[Grant, Depends(_granted)]
"""What the caller proved: `Granted.scope` bounds what it may see."""

MAX_PAGE = 1000
"""Rows of one page at most."""


async def session_id(deps: _Deps, value: str, granted: Grant) -> bytes:
    """The session that an id or a unique prefix names, if the caller may end it.

    Raises NotFound for one that is not there or not the caller's, which look the same, or the index's error if
    ambiguous.
    """
    owner = None if granted.manages else granted.principal
    try:
        key = ids.parse(value)
    except ValueError:
        key = (await run_in_threadpool(lambda: deps.index.session(value, owner=owner))).id
    own_session(await run_in_threadpool(deps.store.session, key), owner)
    return key


def own_session(session: Session, owner: Principal | None) -> Session:
    """`session` if it is the owner's, or owner is None. Raises NotFound, as for one that is not there."""
    if owner is not None and not same_principal(session.principal, owner):
        raise NotFound(f"There is no session {ids.text(session.id)}", "this gateway did not open it")
    return session


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
