"""Customer-defined APIs behind AWS signatures: API Gateway, Lambda function URLs, OpenSearch domains, AppSync.

Their paths are their owners', so there is no model and no operation. They are recognised by their true host only: in
endpoint form nothing tells them from each other, and they are refused.
"""

from __future__ import annotations

import re

from narrows.session.aws.values import Protocol, Target

_SUFFIX = r"(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws|on\.aws)$"
_KINDS: tuple[tuple[re.Pattern[str], str, str, str], ...] = (
    (
        re.compile(r"^[a-z0-9-]+\.execute-api\.[a-z0-9-]+\." + _SUFFIX),
        "execute-api",
        "execute-api:Invoke",
        "Write",
    ),
    (
        re.compile(r"^[a-z0-9]+\.lambda-url\.[a-z0-9-]+\." + _SUFFIX),
        "lambda",
        "lambda:InvokeFunctionUrl",
        "Write",
    ),
    (re.compile(r"^(?:search|vpc)-[a-z0-9-]+\.[a-z0-9-]+\.es\." + _SUFFIX), "es", "es:ESHttp*", "Write"),
    (re.compile(r"^[a-z0-9]+\.[a-z0-9-]+\.aoss\." + _SUFFIX), "aoss", "aoss:APIAccessAll", "Write"),
    (
        re.compile(r"^[a-z0-9]+\.appsync-(?:realtime-)?api\.[a-z0-9-]+\." + _SUFFIX),
        "appsync",
        "appsync:GraphQL",
        "Write",
    ),
)
"""(host, signing name, IAM action, access level)."""


def known(host: str) -> bool:
    """True if a host is one of a customer-defined API."""
    return any(pattern.match(host) for pattern, _, _, _ in _KINDS)


def target(signing_name: str, region: str, host: str) -> Target | None:
    """The Target of a call to a customer-defined API, its operation "", or None if it is none.

    `service` is `execute-api` for all of them; the IAM action tells them apart.
    """
    for pattern, signing, action, level in _KINDS:
        if signing == signing_name and pattern.match(host):
            return Target("execute-api", signing_name, "", Protocol.REST_JSON, action, level, region, "execute-api")
    return None
