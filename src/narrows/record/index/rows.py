"""The rows of the index: what is known of an exchange and of a session without opening the recording.

`items`, `refs`, `llm` and `findings` are those of `core.values.Described`, as JSON's types: what is new in the
exchange, the identifiers that join it to others (kind, value), what a model call says of itself, what was detected.

Times are nanoseconds since the Unix epoch; `first_byte_ns`, `last_byte_ns` and `gateway_ns` are durations
from the start of the exchange, in nanoseconds. An empty string, zero or -1 means unknown; tokens and cost that are
unknown are None.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from narrows.core import ids

MAX_PARAMETERS = 64 * 1024
"""Bytes of a call's parameters (as JSON) that a row keeps; the whole is in the recording."""
MAX_TEXT = 128 * 1024
"""Characters of decoded text of one exchange, both directions together, that full-text search covers; the
rest is reachable by `show`."""

Row = TypeVar("Row")


@dataclass(slots=True)
class Page(Generic[Row]):
    """A page of rows. `next` continues after its last row; empty when there is nothing more."""

    items: list[Row]
    next: str = ""


@dataclass(slots=True)
class ExchangeRow:
    """One exchange. `parameters` is cut to MAX_PARAMETERS, which `parameters_truncated` says."""

    id: bytes
    session: bytes
    leaf_index: int = -1
    kind: str = ""
    connection: str = ""
    principal: str = ""
    agent: str = ""
    agent_version: str = ""
    model: str = ""
    service: str = ""
    operation: str = ""
    action: str = ""
    access_level: str = ""
    resources: list[dict[str, Any]] = field(default_factory=list)
    protocol: str = ""
    region: str = ""
    account: str = ""
    status: int = 0
    error_code: str = ""
    error_message: str = ""
    request_id: str = ""
    invocation_id: str = ""
    attempt: int = 0
    outcome: str = ""
    decision: str = ""
    reason: str = ""
    durability: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    first_byte_ns: int = 0
    last_byte_ns: int = 0
    gateway_ns: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    host: str = ""
    method: str = ""
    target: str = ""
    parameters: Any = None
    parameters_truncated: bool = False
    items: list[dict[str, Any]] = field(default_factory=list)
    refs: list[tuple[str, str]] = field(default_factory=list)
    llm: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    location: Any = None
    text: str = ""

    def json(self) -> dict[str, Any]:
        """What the API shows: everything but the searched text and where the bytes lie."""
        raw = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("text", "location")}
        raw["id"] = ids.text(self.id)
        raw["session"] = ids.text(self.session)
        return raw


@dataclass(slots=True)
class SessionRow:
    """One session with what its exchanges add up to.

    `state` is `open`, `closed`, `idle`, `expired` or `killed`; `levels` counts exchanges by access level.
    """

    id: bytes
    principal: str = ""
    principal_kind: str = ""
    issuer: str = ""
    groups: list[str] = field(default_factory=list)
    agent: str = ""
    agent_version: str = ""
    command: list[str] = field(default_factory=list)
    cwd: str = ""
    host: str = ""
    pid: int = 0
    connections: list[str] = field(default_factory=list)
    state: str = "open"
    exit_code: int | None = None
    opened_ns: int = 0
    closed_ns: int = 0
    expires: int = 0
    leaf_index: int = -1
    exchanges: int = 0
    errors: int = 0
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    first_ns: int = 0
    last_ns: int = 0
    services: list[str] = field(default_factory=list)
    levels: dict[str, int] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """What the API shows."""
        raw = {f.name: getattr(self, f.name) for f in fields(self)}
        raw["id"] = ids.text(self.id)
        return raw
