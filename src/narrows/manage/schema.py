"""What the management API accepts: one schema for the API, the command line and the file form.

`ConnectionModel` equals `core.values.Connection` field for field and is the one place where a connection is
validated. Unknown fields are refused, so that a misspelt `allow_privat` cannot pass for a setting.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from narrows.core.errors import ConfigError
from narrows.core.providers import PROVIDERS
from narrows.core.values import Connection, Durability, SourceKind
from narrows.directory import connection_from_json, connection_to_json
from narrows.manage import stores
from narrows.manage.stores import MOUNT, vault_address

AWS_HOSTS = ("*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws", "*.on.aws")
"""Where AWS's own endpoints live: the commercial, China, dual-stack and function-URL domains."""

CONNECTION_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}")
_ABSOLUTE = re.compile(r"/[^\x00-\x1f]{0,1023}")

Line = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line of text without control bytes: it is shown on terminals."""
ConnectionName = Annotated[str, Field(pattern=CONNECTION_NAME)]


def _url(value: str, what: str) -> str:
    """An origin, with a path at most. Userinfo is refused because a password there would be a secret in
    clear."""
    if not value:
        return value
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError(f"{what} is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise ValueError(f"{what} must be http://HOST[:PORT] or https://HOST[:PORT]")
    if "@" in parts.netloc or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\\]", value):
        raise ValueError(f"{what} must hold no user, password, query, fragment or space")
    return value


def _host(value: str) -> str:
    """A host name in lower case, an IP address, or `*.` and a suffix of two labels or more."""
    host = value.strip().lower().rstrip(".")
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        labels = host.removeprefix("*.").split(".")
    wild = host.startswith("*.")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a host is a name without scheme, port or path, or `*.` and a suffix")
    if wild and len(labels) < 2:
        raise ValueError("a suffix needs two labels or more: `*.com` would claim half the world")
    return host


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CredentialModel(_Strict):
    """Where the upstream credential comes from: names and paths, never a secret."""

    kind: SourceKind = "chain"
    path: str = ""
    profile: Line = ""
    prefix: str = Field(default="", pattern=r"^([A-Z_][A-Z0-9_]{0,63})?$")
    variable: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,127})?$")
    role_arn: str = ""
    external_id: str = Field(default="", max_length=1224, pattern=r"^[A-Za-z0-9_+=,.@:/-]*$")
    base: Literal["chain", "file", "environment", "secrets_manager", "vault", "sealed"] = "chain"
    duration_s: int = Field(default=3600, ge=900, le=43200)
    """Seconds an assumed role lives; STS allows 900 to 43200 (AssumeRole, DurationSeconds)."""
    sts_endpoint: str = ""
    secret_name: str = Field(default="", max_length=2048, pattern=r"^[A-Za-z0-9/_+=.@:!-]*$")
    field: str = Field(default="", max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")
    region: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$")
    source_endpoint: str = ""
    source_ca_file: str = ""
    address: str = ""
    namespace: str = Field(default="", max_length=512, pattern=r"^[A-Za-z0-9/_.-]*$")
    auth: Literal["token", "approle", "kubernetes"] = "token"
    auth_mount: str = Field(default="", max_length=256, pattern=MOUNT)
    auth_file: str = ""
    role: str = Field(default="", max_length=256, pattern=r"^[A-Za-z0-9_.-]*$")
    engine: Literal["kv2", "kv1", "aws"] = "kv2"
    mount: str = Field(default="", max_length=256, pattern=MOUNT)

    @field_validator("sts_endpoint", "source_endpoint")
    @classmethod
    def _urls(cls, value: str) -> str:
        return _url(value, "it")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return vault_address(value)

    @field_validator("auth_file", "source_ca_file")
    @classmethod
    def _files(cls, value: str) -> str:
        if value and not _ABSOLUTE.fullmatch(value):
            raise ValueError("it must be an absolute path")
        return value

    @model_validator(mode="after")
    def _complete(self) -> CredentialModel:
        source = self.base if self.kind == "assume_role" else self.kind
        if self.variable and (self.kind != "environment" or self.prefix):
            raise ValueError("variable names one API key: it goes with kind environment, and without a prefix")
        if self.kind == "assume_role" and not _ROLE.fullmatch(self.role_arn):
            raise ValueError("assume_role needs role_arn, as in arn:aws:iam::123456789012:role/NAME")
        if self.kind not in ("assume_role", "secrets_manager") and (self.role_arn or self.external_id):
            raise ValueError("role_arn and external_id belong to the kinds assume_role and secrets_manager")
        if source == "file" and not _ABSOLUTE.fullmatch(self.path):
            raise ValueError("a credential file needs an absolute path")
        if source == "environment" and not (self.prefix or self.variable):
            raise ValueError("kind environment needs the prefix of the gateway's variables, or for an API key variable")
        stores.check(self, source)
        return self


SERVED = ("aws", "llm", "http")
"""Kinds that the gateway carries. The others have their names already, and are refused until they are served."""


def _provider_hosts(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The host of an llm connection's provider, or of its endpoint where that has a name that others know too."""
    known = PROVIDERS.get(str(raw.get("provider", "")))
    if known is not None and known.host:
        return (known.host,)
    try:
        host = _host(urlsplit(str(raw.get("endpoint", ""))).hostname or "")
    except ValueError:
        return ()  # what is wrong with the endpoint is said where it is checked
    return (host,) if "." in host and not _is_address(host) else ()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class ConnectionModel(_Strict):
    """A connection as the API takes and gives it; see `core.values.Connection` for what each field means."""

    name: ConnectionName
    kind: Literal["aws", "llm", "mcp", "http", "postgres", "mysql", "ssh"] = "aws"
    endpoint: str = ""
    hosts: tuple[str, ...] = Field(default=(), max_length=64)
    region: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$")
    account: str = Field(default="", pattern=r"^([0-9]{12})?$")
    credential: CredentialModel = CredentialModel()
    durability: Durability = Durability.STRICT
    groups: tuple[Line, ...] = Field(default=(), max_length=64)
    allow_private: bool = Field(default=False, strict=True)
    allow_credential_issue: bool = Field(default=False, strict=True)
    ca_file: str = ""
    provider: Literal["", "anthropic", "openai", "gemini", "openai-compatible"] = ""
    on_secret: Literal["record", "block"] = "record"  # noqa: S105 - not a secret
    fail_closed: bool = Field(default=False, strict=True)

    @field_validator("kind")
    @classmethod
    def _served(cls, value: str) -> str:
        if value not in SERVED:
            raise ValueError(f"connections of kind {value} are not served by this version, only {', '.join(SERVED)}")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> ConnectionModel:
        if self.kind == "http" and not self.hosts:
            raise ValueError("an http connection needs the hosts that it is for")
        if self.kind == "llm":
            self._model_api()
        elif self.provider or self.on_secret != "record":  # noqa: S105 - not a secret
            raise ValueError("provider and on_secret belong to connections of kind llm")
        elif self.credential.variable:
            raise ValueError("a credential that is one variable, an API key, belongs to connections of kind llm")
        elif self.credential.field:
            raise ValueError("field names one API key in a secret, so it belongs to connections of kind llm")
        return self

    def _model_api(self) -> None:
        if not self.provider:
            *some, last = PROVIDERS
            raise ValueError(f"an llm connection needs a provider: {', '.join(some)} or {last}")
        if not PROVIDERS[self.provider].host and not self.endpoint:
            raise ValueError(f"the provider {self.provider} needs an endpoint")
        source = self.credential
        if source.kind in ("chain", "assume_role") or (source.kind == "environment" and not source.variable):
            raise ValueError(
                "an llm connection needs its API key: credential kind file with path, environment with variable, "
                "secrets_manager, vault or sealed"
            )
        if source.kind == "vault" and source.engine == "aws":
            raise ValueError("the engine aws gives AWS credentials; an API key is in kv2 or kv1")
        if source.kind in ("file", "environment") and (source.profile or source.prefix or source.sts_endpoint):
            raise ValueError("profile, prefix and sts_endpoint belong to connections of kind aws")
        if self.region or self.account or self.allow_credential_issue:
            raise ValueError("region, account and allow_credential_issue belong to connections of kind aws")

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        return _url(value, "endpoint")

    @field_validator("ca_file")
    @classmethod
    def _ca_file(cls, value: str) -> str:
        if value and not _ABSOLUTE.fullmatch(value):
            raise ValueError("ca_file must be an absolute path")
        return value

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_host(host) for host in value))

    @model_validator(mode="before")
    @classmethod
    def _default_hosts(cls, raw: Any) -> Any:
        """An AWS connection that names no hosts claims all of AWS's, an llm one those of its provider or endpoint."""
        if not isinstance(raw, Mapping) or raw.get("hosts"):
            return raw
        kind = raw.get("kind", "aws")
        if kind == "aws":
            return {**raw, "hosts": AWS_HOSTS}
        return {**raw, "hosts": _provider_hosts(raw)} if kind == "llm" else raw

    def value(self) -> Connection:
        """The connection as the rest of the program knows it."""
        return connection_from_json(self.model_dump())

    @classmethod
    def of(cls, connection: Connection) -> ConnectionModel:
        """The model of a connection. Raises pydantic's ValidationError."""
        return cls.model_validate(connection_to_json(connection))


def validated(raw: Mapping[str, Any] | Connection) -> Connection:
    """A valid connection from JSON-like values or from a value. Raises ConfigError that names the field."""
    try:
        model = ConnectionModel.of(raw) if isinstance(raw, Connection) else ConnectionModel.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            "The connection is not valid", explain(error.errors(include_input=False, include_url=False))
        ) from error
    return model.value()


def etag(connection: Mapping[str, Any]) -> str:
    """The strong entity tag of a connection as the API gives it: two that are equal have the same, no others."""
    told = json.dumps(connection, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'


def explain(errors: Any) -> str:
    """Validation errors as one line: where and what, without the offending value, which could be a secret."""
    parts = []
    for error in list(errors)[:5]:
        where = ".".join(str(part) for part in error["loc"] if part != "body")
        message = str(error["msg"]).removeprefix("Value error, ")
        parts.append(f"{where}: {message}" if where else message)
    return "; ".join(parts)


class AgentModel(_Strict):
    """The client program that a session runs."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
    version: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class SessionRequest(_Strict):
    """Opens a session. `ttl_s` is its longest life in seconds; its leases end with it."""

    agent: AgentModel
    command: tuple[Annotated[str, Field(max_length=131072)], ...] = Field(default=(), max_length=4096)
    cwd: Annotated[str, Field(max_length=4096)] = ""
    host: Line = ""
    pid: int = Field(default=0, ge=0)
    connections: tuple[ConnectionName, ...] = Field(min_length=1, max_length=32)
    ttl_s: int | None = Field(default=None, ge=1, le=7 * 86400)


class CloseRequest(_Strict):
    """Closes a session: its command ended with `exit_code` (negative: by that signal)."""

    exit_code: int | None = None


class LeaseRequest(_Strict):
    """Asks for a fresh lease of an open session."""

    session: Annotated[str, Field(min_length=1, max_length=64)]
    connection: ConnectionName
