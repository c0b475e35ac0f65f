"""What a source gives, the shape that it must have, and how a failure says at which step it happened.

Guarantee: no error here quotes what was looked at, because that is a secret or may be one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from narrows.core.errors import CredentialError
from narrows.core.values import ApiKey, Connection
from narrows.wire.sigv4 import Credentials

_LEASE_KEY = re.compile(r"NRWL[A-Z2-7]{16}")
_API_KEY = re.compile(r"[!-~]{8,4096}")
"""An API key: what can stand in a header, and is long enough to be masked wherever a target repeats it."""

Step = Literal["source", "secret", "shape"]
"""Where loading a credential failed: its source was not reached or let nobody in, it has no such secret, or what it
has is no credential of the kind that the connection needs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Credentials as a source gave them. `expires_ns` is ns since the Unix epoch, None where none is known.

    `stamp` tells one state of a credentials file from the next. `lease` is Vault's id of a lease that can be renewed.
    """

    credentials: Credentials | ApiKey
    expires_ns: int | None = None
    stamp: tuple[int, ...] = field(default=(), repr=False)
    lease: str = field(default="", repr=False)


class SourceFailed(CredentialError):
    """A credential could not be loaded; `step` is where."""

    def __init__(self, what: str, why: str = "", hint: str = "", *, step: Step = "source") -> None:
        super().__init__(what, why, hint)
        self.step: Step = step


def parse(raw: str, connection: Connection, field_name: str, what: str, where: str) -> Credentials | ApiKey:
    """The credential in a secret's text, as the connection's kind needs it. Raises SourceFailed.

    An API key stands alone, or in the field `field_name` of a JSON object. AWS credentials are a JSON object.
    """
    if connection.kind == "llm" and not field_name:
        return checked_key(raw.strip(), what, where)
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SourceFailed(
            what,
            f"what stands {where} is not a JSON object",
            'for AWS: {"aws_access_key_id": ..., "aws_secret_access_key": ...}; for an API key that stands alone, name '
            "no field",
            step="shape",
        )
    if connection.kind == "llm":
        return key_of(found, field_name, what, where)
    return aws_of(found, what, where)


def key_of(found: dict[str, Any], field_name: str, what: str, where: str) -> ApiKey:
    """The API key in one field of a secret. Raises SourceFailed."""
    if not field_name and len(found) != 1:
        raise SourceFailed(
            what, f"what stands {where} has {len(found)} fields", "name the one that is the key: field", step="shape"
        )
    value = found.get(field_name) if field_name else next(iter(found.values()))
    if not isinstance(value, str):
        names = ", ".join(sorted(str(name)[:64] for name in found)[:8])
        raise SourceFailed(
            what, f"what stands {where} has no text in the field {field_name}", f"its fields: {names}", step="shape"
        )
    return checked_key(value.strip(), what, where)


_AWS_NAMES = {
    "key id": ("awsaccesskeyid", "accesskeyid", "accesskey"),
    "secret": ("awssecretaccesskey", "secretaccesskey", "secretkey"),
    "token": ("awssessiontoken", "sessiontoken", "securitytoken"),
}
"""Spellings in use, without case and underscores: AWS' files, its APIs, and Vault's AWS engine (`access_key`)."""


def aws_of(found: dict[str, Any], what: str, where: str) -> Credentials:
    """AWS credentials in the fields of a secret. Raises SourceFailed."""
    plain = {re.sub(r"[_\s-]", "", str(name)).lower(): value for name, value in found.items()}
    values = {kind: next((plain[n] for n in names if plain.get(n)), "") for kind, names in _AWS_NAMES.items()}
    if not all(isinstance(value, str) for value in values.values()) or not values["key id"] or not values["secret"]:
        raise SourceFailed(
            what,
            f"what stands {where} has no aws_access_key_id with aws_secret_access_key",
            "a secret for an aws connection has both, and aws_session_token where there is one",
            step="shape",
        )
    return checked(values["key id"].strip(), values["secret"].strip(), values["token"].strip(), where)


def checked_key(key: str, what: str, where: str) -> ApiKey:
    """An API key that can stand in a header, and is not a lease of a gateway. Raises SourceFailed."""
    if key.startswith("nrw1."):
        raise SourceFailed(
            what,
            f"what stands {where} is a lease of a gateway, which works at that gateway only",
            "start the gateway outside of `narrows run`, or name a source with a real key",
            step="shape",
        )
    if not key:
        raise SourceFailed(what, f"nothing stands {where}", "put the key there, and nothing else", step="secret")
    if not _API_KEY.fullmatch(key):
        raise SourceFailed(
            what,
            f"what stands {where} is not a key: one line of visible characters",
            "put the key there, alone",
            step="shape",
        )
    return ApiKey(key)


def checked(key_id: str, secret: str, token: str, where: str) -> Credentials:
    """AWS credentials that can stand in a header, and are not a lease of a gateway. Raises SourceFailed."""
    if _LEASE_KEY.fullmatch(key_id):
        raise SourceFailed(
            "no upstream credentials",
            f"{where} holds a lease of a gateway, which works at that gateway only",
            "start the gateway outside of `narrows run`, or name a source with real credentials",
            step="shape",
        )
    for name, value in (("access key id", key_id), ("secret", secret), ("session token", token)):
        if value and not re.fullmatch(r"[!-~]+", value):
            raise SourceFailed(
                "no upstream credentials", f"the {name} in {where} has characters that none has", step="shape"
            )
    return Credentials(key_id, secret, token or None)
