"""The rules for credentials that lie in a secret store: which fields go with which store.

Raises ValueError whose text goes into a validation error; it quotes no value.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

MOUNT = r"^([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$"
"""Where a Vault engine or sign-in method is mounted."""

SEALED_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PATH = re.compile(r"[A-Za-z0-9_+=@:-][A-Za-z0-9_.+=@:-]*(/[A-Za-z0-9_+=@:-][A-Za-z0-9_.+=@:-]*)*")

_OF_STORE = {
    "secrets_manager": ("secret_name", "field", "region", "source_endpoint", "source_ca_file"),
    "vault": (
        "secret_name", "field", "source_ca_file", "address", "namespace", "auth_mount", "auth_file", "role", "mount",
    ),
    "sealed": ("secret_name", "field"),
}  # fmt: skip
_ALL = tuple(dict.fromkeys(name for names in _OF_STORE.values() for name in names))


def check(model: Any, source: str) -> None:
    """Whether a credential's fields fit its store; `source` is its kind, or the base of an assumed role."""
    allowed = _OF_STORE.get(source, ())
    for name in _ALL:
        if getattr(model, name) and name not in allowed:
            raise ValueError(f"{name} does not belong to kind {source}")
    if source in _OF_STORE and not model.secret_name:
        raise ValueError(f"kind {source} needs secret_name: the name of what it reads")
    if source != "vault" and (model.auth != "token" or model.engine != "kv2"):
        raise ValueError("auth and engine belong to kind vault")
    if source == "secrets_manager":
        _secrets_manager(model)
    elif source == "vault":
        _vault(model)
    elif source == "sealed" and not SEALED_NAME.fullmatch(model.secret_name):
        raise ValueError("a sealed credential's name has lower-case letters, digits and hyphens, at most 63")
    if source in ("vault", "sealed") and (model.profile or model.prefix or model.path):
        raise ValueError(f"profile, prefix and path do not belong to kind {source}")


def _secrets_manager(model: Any) -> None:
    if not model.region and not re.match(
        r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.", model.secret_name
    ):
        raise ValueError("kind secrets_manager needs region, unless secret_name is a whole ARN")
    if model.prefix or model.path:
        raise ValueError("prefix and path do not belong to kind secrets_manager")
    if model.kind == "secrets_manager" and model.external_id and not model.role_arn:
        raise ValueError("external_id belongs to a role_arn")


def _vault(model: Any) -> None:
    if not model.address or not model.auth_file:
        raise ValueError("kind vault needs address, and auth_file: the file with the token, secret id or JWT")
    if model.auth != "token" and not model.role:
        raise ValueError("auth approle and kubernetes need role")
    if model.auth == "token" and (model.role or model.auth_mount):
        raise ValueError("role and auth_mount belong to auth approle and kubernetes")
    if not _PATH.fullmatch(model.secret_name):
        raise ValueError("secret_name is a path below the mount: names divided by /, none of which begins with a dot")
    if model.engine == "aws" and (model.field or "/" in model.secret_name):
        raise ValueError("engine aws takes the name of a role as secret_name, and no field")


def vault_address(value: str) -> str:
    """A Vault's origin. Plain http goes to this machine only: a token in clear on a network is a token lost."""
    if not value:
        return value
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("address is not a URL") from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\\]", value):
        raise ValueError("address must be https://HOST[:PORT]")
    if "@" in parts.netloc or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("address must hold no user, password, path or query")
    if parts.scheme == "http" and not _loopback(host):
        raise ValueError("address must be https, unless it is of this machine")
    return value.rstrip("/")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
