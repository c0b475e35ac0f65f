"""Opening and closing the sessions of agents that were not started by `narrows run`, through the local API."""

from __future__ import annotations

import json
import os
import socket
import time

from narrows.cli import agent_sessions, hook_http
from narrows.cli.agent_sessions import Record
from narrows.core.errors import ConfigError, NarrowsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

PREFIX = "/api/v1"


class ApiRefusedError(NarrowsError):
    """The API answered no."""

    code = "api_error"


def _call(local: Mapping[str, Any], method: str, path: str, body: object = None) -> Any:
    api, token = str(local["api"]), str(local["token"])
    if method == "GET":
        status, raw = hook_http.get(api, PREFIX + path, token)
    else:
        status, raw = hook_http.post(api, PREFIX + path, token, json.dumps(body).encode())
    try:
        value = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        value = None
    if status >= 400 or not isinstance(value, dict):
        told = value if isinstance(value, dict) else {}
        raise ApiRefusedError(
            str(told.get("title") or f"The gateway answered with HTTP status {status}"),
            str(told.get("detail") or ""),
            str(told.get("hint") or ""),
        )
    return value


def open_session(
    local: Mapping[str, Any],
    *,
    agent: str,
    version: str,
    connections: Sequence[str],
    cwd: str,
    key: str,
    tree: Sequence[Mapping[str, Any]],
    data: str,
) -> Record:
    """Open a session for the agent whose own session is `key`, and keep it. `tree` ends with the agent's process.

    Raises NarrowsError, OSError.
    """
    top = tree[-1] if tree else {}
    opened = _call(
        local,
        "POST",
        "/sessions",
        {
            "agent": {"name": agent, "version": version},
            "command": [str(part)[:4096] for part in list(top.get("argv") or ())[:256]],
            "cwd": cwd or _cwd(),
            "host": socket.gethostname(),
            "pid": int(top.get("pid") or os.getppid()),
            "connections": list(connections) or _only_connection(local),
        },
    )
    record = Record(
        agent=agent,
        session=str(opened["id"]),
        token=_token(opened),
        gateway=str(local["gateway"]),
        agent_session=key,
        process=[(int(one["pid"]), int(one["start"])) for one in tree],
        opened=time.time(),
        expires=int(opened["expires"]),
    )
    agent_sessions.store(record, data)
    return record


def _cwd() -> str:
    try:
        return os.fsencode(os.getcwd()).decode("utf-8", "backslashreplace")  # noqa: PTH109
    except FileNotFoundError:
        return ""  # it was removed under the agent: no reason to stop it


def _token(opened: Mapping[str, Any]) -> str:
    """The session's token: told, or the password of the proxy's URL."""
    told = opened.get("token")
    if isinstance(told, str) and told:
        return told
    from urllib.parse import unquote, urlsplit

    token = unquote(urlsplit(str(opened.get("proxy_url") or "")).password or "")
    if not token:
        raise ApiRefusedError("The gateway's answer was refused", "it opened a session and gave no token for it")
    return token


def _only_connection(local: Mapping[str, Any]) -> list[str]:
    """The connection where none was named: the only one there is, as for `narrows run`. Raises ConfigError."""
    items = _call(local, "GET", "/connections").get("items") or []
    found = [str(item["name"]) for item in items]
    if len(found) == 1:
        return found
    if not found:
        raise ConfigError("No session was opened", "no connection is registered", "add one: narrows connection add")
    raise ConfigError(
        "No session was opened", "several connections are registered and none was named", "name them: --connection"
    )


def state_of(local: Mapping[str, Any], session: str) -> str:
    """`open`, `closed`, `expired` or `killed`; empty if the gateway does not know it. Raises NoAnswerError."""
    try:
        return str(_call(local, "GET", f"/sessions/{session}").get("state") or "")
    except ApiRefusedError:
        return ""


def close(local: Mapping[str, Any], record: Record, data: str) -> None:
    """Close a session and forget it. One that ended already is as good. Raises NarrowsError, OSError."""
    if state_of(local, record.session) == "open":
        _call(local, "POST", f"/sessions/{record.session}/close", {"exit_code": None})
    agent_sessions.forget(record, data)


def close_dead(agent: str, data: str, local: Mapping[str, Any], most: int) -> None:
    """Close sessions of the agent whose processes are all gone: it was killed, or has no event for its end."""
    from narrows.cli.hook_process import alive

    closed = 0
    for record in agent_sessions.records(agent, data):
        if closed < most and record.process and not any(alive(pid, start) for pid, start in record.process):
            close(local, record, data)
            closed += 1
