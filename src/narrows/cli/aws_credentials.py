"""`narrows aws-credentials`: speaks AWS's `credential_process`, and starts fast.

Prints one JSON object with a lease of the session in `NARROWS_SESSION`, as described in "Sourcing
credentials with an external process" (AWS SDKs and Tools Reference Guide). SDKs run it at start and again
before the lease expires. Nothing is imported here that is not needed to ask the local gateway.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from narrows.core.errors import ConfigError

USAGE = "usage: narrows aws-credentials [--connection NAME] [--session ID] [--data DIR]"


def main(arguments: Sequence[str]) -> int:
    """Print a lease; returns 0. Raises NarrowsError."""
    options = parse(arguments)
    session = options["session"] or os.environ.get("NARROWS_SESSION", "")
    if not session:
        raise ConfigError(
            "No lease was issued",
            "no session is named: neither --session nor NARROWS_SESSION",
            "run the command through `narrows run`",
        )
    answer(session, options["connection"], options["data"])
    return 0


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """The options by name, empty where not given. Raises ConfigError."""
    options = {"connection": "", "session": "", "data": ""}
    rest = list(arguments)
    while rest:
        name, joined, value = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in options or not (joined or rest):
            raise ConfigError("The command was not understood", f"at {name!r}", USAGE)
        options[name[2:]] = value if joined else rest.pop(0)
    return options


def answer(session: str, connection: str, data: str) -> None:
    """Ask the local gateway for a lease and print it. Without a connection: the session's first one."""
    import json

    from narrows.cli.client import Client, segment

    client = Client.of(_data_dir(data), timeout_s=10)
    try:
        if not connection:
            names = client.get(f"/sessions/{segment(session)}").get("connections") or []
            if not names:
                raise ConfigError("No lease was issued", "the session has no connection", "name one: --connection")
            connection = str(names[0])
        lease = client.post("/leases", {"session": session, "connection": connection})
    finally:
        client.close()
    out = {
        "Version": 1,
        "AccessKeyId": lease["access_key_id"],
        "SecretAccessKey": lease["secret_access_key"],
        "SessionToken": lease["session_token"],
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(lease["expires"]))),
    }
    sys.stdout.write(json.dumps(out) + "\n")
    sys.stdout.flush()


def _data_dir(given: str) -> Path:
    where = given or os.environ.get("NARROWS_DATA", "")
    if where:
        return Path(where).expanduser()
    from narrows.settings import load

    return load().data
