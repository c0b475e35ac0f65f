"""The rules that hold without any policy written: what P3 and P4 ask for by themselves.

A rule that does not know what a call means refuses it. Each rule has an id, which the decision names.
"""

from __future__ import annotations

from narrows.core.values import Connection, Decision, Effect, Principal

VERSION = "builtin-1"

ALLOW_LEASED = "builtin/leased-connection"
"""A verified lease for a connection may use that connection."""

NO_CREDENTIAL_ISSUE = "builtin/no-credential-issue"
"""An answer must not hold a credential that works outside the gateway (P3)."""

NO_UNKNOWN_OPERATION = "builtin/no-unknown-operation"
"""A call whose meaning is unknown does not pass (P4)."""

_ALLOWED = Decision(Effect.ALLOW, "the lease is for this connection", (ALLOW_LEASED,), VERSION)


NAMED_HOST = "builtin/named-host"
"""A session may use the hosts that an `http` connection names, within the connection's groups."""

_NAMED = Decision(Effect.ALLOW, "the connection names this host", (NAMED_HOST,), VERSION)


OWN_SESSION = "builtin/own-session"
"""A session may report what happens in it, and lease the connections that it was opened for."""

_OWN = Decision(Effect.ALLOW, "the session speaks for itself", (OWN_SESSION,), VERSION)


def decide(
    connection: Connection,
    principal: Principal,
    kind: str,
    service: str,
    operation: str,
    *,
    issues_credentials: bool,
) -> Decision:
    """Decide on one exchange whose caller has been verified, and which has been understood as far as its kind is."""
    if connection.groups and not set(connection.groups) & set(principal.groups):
        return Decision(
            Effect.DENY, f"connection {connection.name} is for other groups than the caller's", (ALLOW_LEASED,), VERSION
        )
    if kind == "http.request":
        return _NAMED
    if kind == "agent.event":
        return _OWN
    if issues_credentials and not connection.allow_credential_issue:
        return Decision(
            Effect.DENY,
            f"{service}:{operation} answers with credentials that would work outside the gateway",
            (NO_CREDENTIAL_ISSUE,),
            VERSION,
        )
    if not service:
        return Decision(Effect.DENY, "the service of this call is unknown", (NO_UNKNOWN_OPERATION,), VERSION)
    return _ALLOWED
