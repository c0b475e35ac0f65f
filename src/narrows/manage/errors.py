"""Errors of the management side, and how each error of Narrows is told over HTTP.

RFC 9457 problem details: `type`, `title` (what happened), `detail` (why), `status`, and our own `hint` and
`code`.
"""

from __future__ import annotations

from typing import Any

from narrows.core.errors import (
    ConfigError,
    CredentialError,
    NarrowsError,
    NotFound,
    ProtocolError,
    RecorderFailed,
    Refusal,
    UpstreamError,
)


class ConflictError(NarrowsError):
    """The thing is already there, or its state does not allow what was asked."""

    code = "conflict"


class PreconditionError(NarrowsError):
    """The thing is no longer as the caller saw it (If-Match, RFC 9110 section 13.1.1)."""

    code = "precondition_failed"


class UnauthorizedError(NarrowsError):
    """No token, or not the right one."""

    code = "unauthorized"


_STATUS: tuple[tuple[type[NarrowsError], int], ...] = (
    (NotFound, 404),
    (ConflictError, 409),
    (PreconditionError, 412),
    (UnauthorizedError, 401),
    (ConfigError, 422),
    (CredentialError, 502),
    (RecorderFailed, 503),
)

_STATUS_BY_CODE = {"query_error": 400, "ambiguous_id": 409}
"""Errors of the index, which this layer knows by their stable code."""


def status_of(error: NarrowsError) -> int:
    """The HTTP status that tells of an error."""
    if isinstance(error, (Refusal, UpstreamError, ProtocolError)):
        return error.status
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return _STATUS_BY_CODE.get(error.code, 500)


def problem(status: int, what: str, why: str = "", hint: str = "", code: str = "error") -> dict[str, Any]:
    """The problem details of one error."""
    return {
        "type": f"urn:narrows:error:{code}",
        "title": what,
        "detail": why,
        "hint": hint,
        "code": code,
        "status": status,
    }
