"""The log's signing key on disk: `keys/log.key` (one line, owner-only) and `keys/log.pub` (the key that verifies).

The key's name is the log's origin: both are chosen once, at the first start, and stay. Whoever verifies needs
`log.pub` and should have it from somewhere else than the machine that is in doubt.
"""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path

from narrows import ownerfile
from narrows.core.errors import ConfigError, ProofError
from narrows.record.log.note import SigningKey

PRIVATE = "keys/log.key"
PUBLIC = "keys/log.pub"


def default_origin(host: str = "") -> str:
    """`narrows/<host name>`, as a key's name may be spelled; `host` empty: this machine's."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", host or socket.gethostname()).strip("-.").lower()
    return f"narrows/{name or 'gateway'}"


def open_key(data: Path, origin: str = "") -> SigningKey:
    """The log's key; made at the first start, under `origin` or the default one.

    Raises ConfigError when the file is readable by others, damaged, or of another origin than the one asked for.
    """
    path = data / PRIVATE
    try:
        raw = ownerfile.read(path, limit=4096)
    except FileNotFoundError:
        if (data / "log/checkpoint").exists():
            raise ConfigError(
                "The log's signing key is gone",
                f"{path} is missing, but there is a log",
                "Restore it; a new key would be a new log.",
            ) from None
        made = SigningKey(origin or default_origin(), secrets.token_bytes(32))
        ownerfile.create(path, f"{made.skey}\n".encode())
        raw = ownerfile.read(path, limit=4096)
    try:
        key = SigningKey.parse(raw.decode("ascii", "replace"))
    except ProofError as bad:
        raise ConfigError("The log's signing key cannot be used", f"{path}: {bad.what}", "Restore it.") from bad
    if origin and key.name != origin:
        raise ConfigError(
            "The log has another origin",
            f"{path} is of {key.name}, the settings say {origin}",
            "A log keeps its origin; set it back.",
        )
    public = f"{key.verifier.vkey}\n".encode()
    if not (data / PUBLIC).exists() or (data / PUBLIC).read_bytes() != public:
        ownerfile.replace(data / PUBLIC, public)
    return key
