"""The facts of a request: what stands beside its bytes in the opening frame, and is indexed and searched."""

from __future__ import annotations

from typing import Any

from narrows.session.call import Call
from narrows.wire import scrub


def facts_of(call: Call, *, strict: bool) -> dict[str, Any]:
    """Everything that is known of `call` by now, in JSON's types: who, what, where to, and the decision.

    Fills and returns `call.facts`; secret-bearing query parameters of the target are masked.
    """
    facts = call.facts
    facts["kind"] = call.kind
    facts["client"] = call.client
    facts["form"] = call.form
    facts["scheme"] = call.scheme
    facts["host"] = call.true_host or (call.head.get(b"host") or b"").decode("latin-1")
    facts["method"] = call.head.method.decode("latin-1")
    facts["target"] = scrub.target(call.head.target).decode("latin-1")
    if call.connection is not None:
        facts["connection"] = call.connection.name
    elif call.lease is not None:
        facts["connection"] = call.lease.connection
    lease = call.lease or call.proxy_lease
    if lease is not None:
        principal = lease.principal
        facts["principal"] = principal.name
        facts["principal_kind"] = principal.kind
        facts["issuer"] = principal.issuer
        facts["groups"] = principal.groups
        facts["agent"] = lease.agent.name
        facts["agent_version"] = lease.agent.version
        if lease.access_key_id:
            facts["lease"] = lease.access_key_id
    decision = call.decision
    if decision is not None:
        facts["decision"] = decision.effect.value
        facts["reason"] = decision.reason
        facts["policies"] = decision.policies
        facts["policy_version"] = decision.policy_version
    facts["durability"] = "strict" if strict else "buffered"
    return facts
