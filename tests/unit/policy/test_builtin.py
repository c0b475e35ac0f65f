"""The rules that hold without a policy."""

from __future__ import annotations

import pytest

from narrows.core.values import Connection, Decision, Effect, Principal
from narrows.policy import builtin

ALICE = Principal("alice", groups=("dev", "ops"))


def decide(
    connection: Connection, *, kind: str = "aws.call", service: str = "s3", issues: bool = False, who: Principal = ALICE
) -> Decision:
    return builtin.decide(connection, who, kind, service, "Operation", issues_credentials=issues)


def test_a_leased_connection_may_be_used() -> None:
    decision = decide(Connection("demo"))
    assert decision.effect is Effect.ALLOW
    assert decision.policies == (builtin.ALLOW_LEASED,)


def test_credentials_are_not_handed_out_unless_the_connection_says_so() -> None:
    decision = decide(Connection("demo"), service="sts", issues=True)
    assert decision.effect is Effect.DENY
    assert "sts:Operation" in decision.reason
    assert decide(Connection("demo", allow_credential_issue=True), service="sts", issues=True).effect is Effect.ALLOW


def test_a_call_of_an_unknown_service_is_denied() -> None:
    assert decide(Connection("demo"), service="").effect is Effect.DENY


@pytest.mark.parametrize(
    ("groups", "effect"),
    [((), Effect.ALLOW), (("ops",), Effect.ALLOW), (("x", "dev"), Effect.ALLOW), (("x",), Effect.DENY)],
)
@pytest.mark.parametrize("kind", ["aws.call", "http.request"])
def test_a_connection_may_be_for_some_groups(groups: tuple[str, ...], effect: Effect, kind: str) -> None:
    assert decide(Connection("demo", groups=groups), kind=kind).effect is effect


def test_a_named_host_may_be_used() -> None:
    assert decide(Connection("web", kind="http"), kind="http.request", service="").policies == (builtin.NAMED_HOST,)


def test_every_decision_says_why_and_by_which_rules() -> None:
    for decision in (
        decide(Connection("demo")),
        decide(Connection("demo"), issues=True),
        decide(Connection("demo"), service=""),
        decide(Connection("demo", groups=("x",))),
    ):
        assert decision.reason
        assert decision.policies
        assert decision.policy_version == builtin.VERSION
