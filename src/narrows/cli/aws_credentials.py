"""`narrows aws-credentials`: speaks AWS's `credential_process`, and starts fast.

Prints one JSON object with a lease, as described in "Sourcing credentials with an external process" (AWS SDKs and
Tools Reference Guide). SDKs run it at start and again before the lease expires. Every run gets a lease of its own,
which the record binds to the processes that asked for it: a call that is made with it then comes from that command.

Whose lease, in this order:

1. the session in `NARROWS_TOKEN`, asked at `NARROWS_GATEWAY`: what `narrows run` sets;
2. with `--agent`, the session that the hooks of that agent opened, found by the processes above this one;
3. the session in `--session` or `NARROWS_SESSION`, asked of the management API with the owner's token. Where another
   session is named than the one of `NARROWS_TOKEN`, this is the only way.

Nothing is imported here that is not needed to ask the local gateway.
"""

from __future__ import annotations

import os
import sys
import time

from narrows.core.errors import ConfigError, NarrowsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

USAGE = "usage: narrows aws-credentials [--connection NAME] [--agent NAME] [--session ID] [--data DIR]"

TIMEOUT_S = 10.0

FIELDS = ("access_key_id", "secret_access_key", "session_token", "expires")
"""What a lease has of what SDKs ask for."""


class NoLeaseError(NarrowsError):
    """The gateway refused. `code` is its reason's stable name."""

    def __init__(self, what: str, why: str, hint: str, code: str) -> None:
        super().__init__(what, why, hint)
        self.code = code


def main(arguments: Sequence[str]) -> int:
    """Print a lease; returns 0. Raises NarrowsError."""
    options = parse(arguments)
    environ = os.environ
    session = options["session"] or environ.get("NARROWS_SESSION", "")
    token = environ.get("NARROWS_TOKEN", "")
    if token and options["session"] not in ("", environ.get("NARROWS_SESSION", "")):
        token = ""
    gateway = environ.get("NARROWS_GATEWAY", "")
    tree = _tree()
    if not token and not options["session"] and options["agent"]:
        token, gateway = _of_agent(options["agent"], tree, options["data"])
    if token:
        lease = from_gateway(gateway or _local_gateway(options["data"]), token, options["connection"], tree)
    elif session:
        lease = from_owner(session, options["connection"], options["data"])
    else:
        raise ConfigError(
            "No lease was issued",
            "no session is named: neither NARROWS_TOKEN nor --agent, --session or NARROWS_SESSION",
            "run the command through `narrows run`",
        )
    _print(lease)
    return 0


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """The options by name, empty where not given. Raises ConfigError."""
    options = {"connection": "", "agent": "", "session": "", "data": ""}
    rest = list(arguments)
    while rest:
        name, joined, value = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in options or not (joined or rest):
            raise ConfigError("The command was not understood", f"at {name!r}", USAGE)
        options[name[2:]] = value if joined else rest.pop(0)
    return options


def from_gateway(gateway: str, token: str, connection: str, tree: list[dict[str, Any]]) -> dict[str, Any]:
    """A lease for this process, from the gateway itself: first where the kernel tells it who asks, then by TCP.

    Raises NoLeaseError; UnreachableError.
    """
    import json
    import socket

    from narrows.cli import hook_http
    from narrows.cli.process import HEADER, header

    body = json.dumps({"connection": connection}).encode()
    headers = ((HEADER, header(tree)),) if tree else ()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        status, raw = hook_http.post(gateway, "/_narrows/leases", token, body, headers, near=True)
        if status == 401:  # a local name is nobody's property: this may be another gateway
            status, raw = hook_http.post(gateway, "/_narrows/leases", token, body, headers)
    except hook_http.NoAnswerError as error:
        from narrows.cli.local import UnreachableError

        hint = error.hint or "start it with `narrows up --detach`, and the command anew through `narrows run`"
        raise UnreachableError(error.what, error.why, hint) from error
    finally:
        socket.setdefaulttimeout(before)
    try:
        found = json.loads(raw)
        if status == 200:
            return {name: found[name] for name in FIELDS}
        error_ = found["error"]
        raise NoLeaseError(str(error_["what"]), str(error_["why"]), str(error_["hint"]), str(error_["code"]))
    except (ValueError, KeyError, TypeError) as error:
        why = f"the gateway answered with HTTP status {status}"
        raise NoLeaseError("No lease was issued", why, "see `narrows doctor`", "http_error") from error


def from_owner(session: str, connection: str, data: str) -> dict[str, Any]:
    """A lease from the management API, by the owner's token. Without a connection: the session's first one."""
    from pathlib import Path

    from narrows.cli.client import Client, segment

    client = Client.of(Path(_data_dir(data)), timeout_s=TIMEOUT_S)
    try:
        if not connection:
            names = client.get(f"/sessions/{segment(session)}").get("connections") or []
            if not names:
                raise ConfigError("No lease was issued", "the session has no connection", "name one: --connection")
            connection = str(names[0])
        return dict(client.post("/leases", {"session": session, "connection": connection}))
    finally:
        client.close()


def _print(lease: dict[str, Any]) -> None:
    import json

    out = {
        "Version": 1,
        "AccessKeyId": lease["access_key_id"],
        "SecretAccessKey": lease["secret_access_key"],
        "SessionToken": lease["session_token"],
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(lease["expires"]))),
    }
    sys.stdout.write(json.dumps(out) + "\n")
    sys.stdout.flush()


def _tree() -> list[dict[str, Any]]:
    from narrows.cli.process import ancestors

    return ancestors()


def _of_agent(agent: str, tree: list[dict[str, Any]], data: str) -> tuple[str, str]:
    """Token and gateway of the session that the agent's hooks opened. Raises ConfigError."""
    from narrows.cli import agent_sessions

    found = agent_sessions.find(agent, tree, _data_dir(data))
    if found is None:
        raise ConfigError(
            "No lease was issued",
            f"no session of {agent} is known among the processes that this command runs under",
            f"`narrows connect {agent}` writes the hooks that open one, or use `narrows run`",
        )
    return found.token, found.gateway


def _local_gateway(data: str) -> str:
    from pathlib import Path

    from narrows.cli import local

    return local.read(Path(_data_dir(data))).gateway


def _data_dir(given: str) -> str:
    where = given or os.environ.get("NARROWS_DATA", "")
    if where:
        return os.path.expanduser(where)  # noqa: PTH111 - pathlib costs 8 ms
    from narrows.settings import load

    return str(load().data)
