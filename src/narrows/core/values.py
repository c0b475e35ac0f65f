"""The nouns of Narrows: principal, agent, connection, lease, decision, and what an exchange came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified identity. `issuer` says who vouched for it (`local` for the embedded owner)."""

    name: str
    kind: Literal["user", "service"] = "user"
    issuer: str = "local"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """The client program that acts for a principal."""

    name: str
    version: str = ""


class Durability(StrEnum):
    """When bytes count as recorded (P1)."""

    STRICT = "strict"
    """fsynced before the last byte goes on."""
    BUFFERED = "buffered"
    """written at once, fsynced within 50 ms."""


SourceKind = Literal["chain", "file", "assume_role", "environment", "secrets_manager", "vault", "sealed"]


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where a connection's upstream credential comes from. Holds names and paths, never a secret.

    kind `chain`: the environment's own AWS chain (optionally `profile`).
    kind `file`: an AWS shared credentials file at `path`, `profile` in it.
    kind `assume_role`: `role_arn` assumed per session, from `base` (`chain` or `file`), with `external_id`.
    kind `environment`: AWS variables of the gateway's own environment whose names start with `prefix`.

    kind `secrets_manager`: the secret `secret_name` (name or ARN) of AWS Secrets Manager in `region`, read with the AWS
    chain (`profile`) or with `role_arn` assumed from it; `source_endpoint` names another endpoint.
    kind `vault`: from the Vault at `address` (`namespace`), signed in by `auth`: `token` (a file that holds one),
    `approle` (`role` is the role id, the file holds the secret id) or `kubernetes` (`role` is the role's name, the
    file holds the JWT), from `auth_file`, at `auth_mount`. `engine` says how `secret_name` is read at `mount`: a path
    of KV version 2 or 1, or a role of the AWS secrets engine, whose credentials are leases and end.
    kind `sealed`: the credential `secret_name` of the gateway's own encrypted store.

    For connections of kind `llm` the credential is one API key: `file` (the key alone at `path`, owner-only),
    `environment` (the gateway's own variable `variable`), `secrets_manager`, `vault` (`kv2` or `kv1`) or `sealed`.
    `field` names the value in a secret that has several. `source_ca_file` has the CA certificates of the store.
    """

    kind: SourceKind = "chain"
    path: str = ""
    profile: str = ""
    prefix: str = ""
    variable: str = ""
    role_arn: str = ""
    external_id: str = ""
    base: Literal["chain", "file", "environment", "secrets_manager", "vault", "sealed"] = "chain"
    duration_s: int = 3600
    sts_endpoint: str = ""
    secret_name: str = ""
    field: str = ""
    region: str = ""
    source_endpoint: str = ""
    source_ca_file: str = ""
    address: str = ""
    namespace: str = ""
    auth: Literal["token", "approle", "kubernetes"] = "token"
    auth_mount: str = ""
    auth_file: str = ""
    role: str = ""
    engine: Literal["kv2", "kv1", "aws"] = "kv2"
    mount: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ApiKey:
    """The upstream credential of an `llm` connection. Shown by no repr."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A registered target. The same schema serves the command line, the API and the file form.

    `endpoint` empty means the real service (for `aws`: the host that the service's model names). `hosts` are the
    host names (exact, or `*.suffix`) that the forward proxy sends to this connection. `allow_private` lets the
    gateway dial loopback, link-local and private addresses for this connection: off unless it says exactly that.
    `allow_credential_issue` lets operations pass whose answers hold credentials that work outside the gateway.

    `provider` is whose API an `llm` connection speaks; `endpoint` empty means that provider's own. `on_secret` says
    what happens to a request in whose body a credential is found: it passes and is a finding, or it is refused.
    `fail_closed` makes an agent's hooks answer `deny` while the gateway cannot be reached.
    """

    name: str
    kind: Literal["aws", "llm", "mcp", "http", "postgres", "mysql", "ssh"] = "aws"
    endpoint: str = ""
    hosts: tuple[str, ...] = ()
    region: str = ""
    account: str = ""
    credential: CredentialSource = field(default_factory=CredentialSource)
    durability: Durability = Durability.STRICT
    groups: tuple[str, ...] = ()
    allow_private: bool = False
    allow_credential_issue: bool = False
    ca_file: str = ""
    provider: Literal["", "anthropic", "openai", "gemini", "openai-compatible"] = ""
    on_secret: Literal["record", "block"] = "record"  # noqa: S105 - not a secret
    fail_closed: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A credential issued to one session for one connection; works only at the gateway.

    `session` is 16 bytes, `expires` Unix seconds. The repr names the lease without its secret. An API key is a lease
    whose `session_token` is the key and whose `secret_access_key` is empty. `connections` are all connections that
    the session was opened for, where the lease is the session's own token (its connection is `*`).
    """

    session: bytes
    connection: str
    principal: Principal
    agent: Agent
    expires: int
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    connections: tuple[str, ...] = ()


class Effect(StrEnum):
    """What a decision says."""

    ALLOW = "allow"
    DENY = "deny"
    HOLD = "hold"
    REDACT = "redact"


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow, deny, hold or redact, with the reason and the ids of the policies that said so (P4)."""

    effect: Effect
    reason: str
    policies: tuple[str, ...] = ()
    policy_version: str = ""


class Outcome(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    REFUSED = "refused"
    CLIENT_GONE = "client_gone"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_CUT = "upstream_cut"
    PROTOCOL_ERROR = "protocol_error"
    INTERNAL = "internal"
    UNFINISHED = "unfinished"
    """The process died while the exchange ran; said by recovery, never by the path."""


@dataclass(slots=True)
class StoredExchange:
    """One exchange as read back from frames. Bodies may be cut to what the reader asked for (`*_truncated`).

    `request` and `response` are the wire bytes as recorded (heads scrubbed by rule, bodies verbatim).
    `request_facts` and `response_facts` are the JSON objects that the path wrote beside the bytes.
    """

    id: bytes
    session: bytes
    kind: str
    request: bytes = b""
    response: bytes = b""
    sent: bytes = b""
    request_truncated: bool = False
    response_truncated: bool = False
    request_length: int = 0
    response_length: int = 0
    request_facts: dict[str, object] = field(default_factory=dict)
    response_facts: dict[str, object] = field(default_factory=dict)
    started_ns: int = 0
    ended_ns: int = 0
    leaf_index: int = -1


@dataclass(slots=True)
class Resource:
    """A resource that a call touches. `exact` is False where the ARN is a best effort."""

    arn: str
    exact: bool = False


@dataclass(slots=True)
class Item:
    """One thing that an exchange says, in the order in which it is said.

    `type`: `system`, `prompt` (what a person or program asked), `context` (what the agent put in by itself),
    `thinking`, `answer`, `code`, `tool_call`, `tool_result`, `command`, `file_edit`, `file_read`, `process`,
    `subagent`, `notice`. `id` joins a tool's call to its result and to the agent's own report of it. `name` is the
    tool, a code block's language, or a file's path. `data` is the tool's input or whatever else is structured, in
    JSON's types. `error` says that a result reports failure. `said_by` is `request` or `response`.
    """

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    data: Any = None
    error: bool = False
    said_by: Literal["request", "response"] = "request"


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret or personal datum that was detected. Never holds the value.

    `kind` is the detector's name (`aws-access-key`), `where` a part of the exchange (`prompt`, `answer`, `tool_result`,
    `code`, `payload`), `offset` and `length` characters (or bytes) within that part, `count` how often it was met.
    """

    kind: str
    where: str
    offset: int = 0
    length: int = 0
    count: int = 1


@dataclass(slots=True)
class Described:
    """What an exchange meant: the fields that are indexed, shown and searched. Empty means unknown."""

    service: str = ""
    operation: str = ""
    action: str = ""
    access_level: str = ""
    protocol: str = ""
    region: str = ""
    account: str = ""
    resources: list[Resource] = field(default_factory=list)
    parameters: dict[str, object] = field(default_factory=dict)
    status: int = 0
    error_code: str = ""
    error_message: str = ""
    request_id: str = ""
    invocation_id: str = ""
    attempt: int = 0
    events: list[dict[str, object]] = field(default_factory=list)
    text: str = ""
    """Decoded text of both directions for full-text search, bounded by the reader."""
    problems: list[str] = field(default_factory=list)
    """What could not be decoded, and why."""
    items: list[Item] = field(default_factory=list)
    """What is new in this exchange: of a history that is sent again, only what came after the last answer in it."""
    refs: list[tuple[str, str]] = field(default_factory=list)
    """Identifiers that join exchanges: (kind, value). Kinds: `tool_call`, `agent_session`, `turn`, `message`,
    `previous`, `lease`, `trace`, `span`, `app`, `process`, `file` (SHA-256 in hex), `request`."""
    agent: str = ""
    agent_version: str = ""
    """The client program as it names itself on the wire, where the session does not know better."""
    model: str = ""
    """The language model that answered, or was asked."""
    llm: dict[str, Any] = field(default_factory=dict)
    """Of a model call: `provider`, `api`, `stream`, `stop_reason`, `messages` (count), `tools` (names), `usage`
    (`input`, `output`, `cache_read`, `cache_write`, `reasoning` tokens, null where unknown), `cost_usd` (null)."""
    findings: list[Finding] = field(default_factory=list)
