"""`narrows doctor`: looks at what a gateway needs, and says what to do about what is wrong."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import typer

from narrows.cli import local
from narrows.cli.client import Client
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client_of, settings
from narrows.cli.local import UnreachableError
from narrows.cli.render import emit_json, paint, safe, size
from narrows.core.errors import NarrowsError
from narrows.settings import Settings

LOW_BYTES = 5 * 1024**3
FULL_BYTES = 256 * 1024**2
"""Free space below which the recorder is about to stop, and with it the gateway (P2)."""

State = Literal["ok", "warning", "failed", "unreachable"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    found: str
    hint: str = ""


def doctor(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Check the data directory, the disk, the ports, the API and the recorder."""
    checks = list(examine(settings(data, config)))
    colour = {"ok": "green", "warning": "yellow", "failed": "red", "unreachable": "red"}
    for check in checks:
        if json:
            emit_json({"check": check.name, "state": check.state, "found": check.found, "hint": check.hint})
            continue
        print(f"{paint(f'{check.state:12}', colour[check.state])}{check.name + ':':18}{safe(check.found)}")
        if check.hint:
            print(f"{'':30}{safe(check.hint)}")
    states = {check.state for check in checks}
    raise typer.Exit(1 if "failed" in states else 3 if "unreachable" in states else 0)


def examine(found: Settings) -> Iterator[Check]:
    """All checks, the cheap and basic first."""
    if not found.data.is_dir():
        yield Check("data directory", "unreachable", f"{found.data} is not there", "`narrows up` makes it")
        return
    yield from _permissions(found.data)
    yield _disk(found.data)
    yield from _identity(found)
    if not (pid := local.holder(found.data)):
        yield Check("gateway", "unreachable", "none runs on this data directory", "narrows up --detach")
        yield from _free_ports(found)
        return
    yield Check("gateway", "ok", f"process {pid}")
    try:
        api = client_of(found.data, timeout_s=5)
    except NarrowsError as error:
        yield Check("local file", "unreachable", str(error))
        return
    yield _port("gateway port", api.local.gateway)
    yield from _answers(api)


def _permissions(data: Path) -> Iterator[Check]:
    wrong = []
    for path in (data, data / "keys", data / "run", *(data / "keys").glob("*.key"), local.path_of(data)):
        if not path.exists():
            continue
        status = path.stat()
        if status.st_uid != os.geteuid():
            wrong.append(f"{path} is owned by user {status.st_uid}")
        elif stat.S_IMODE(status.st_mode) & 0o077:
            wrong.append(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}")
    if wrong:
        yield Check("permissions", "failed", "; ".join(wrong), "only you may reach these: chmod go= them")
    else:
        yield Check("permissions", "ok", f"{data} is yours alone")


def _disk(data: Path) -> Check:
    free = shutil.disk_usage(data).free
    if free < FULL_BYTES:
        hint = "the gateway refuses all calls when it cannot record: make room"
        return Check("disk space", "failed", f"{size(free)} free", hint)
    if free < LOW_BYTES:
        return Check("disk space", "warning", f"{size(free)} free", "recordings grow with traffic: make room")
    return Check("disk space", "ok", f"{size(free)} free")


def _identity(found: Settings) -> Iterator[Check]:
    """The issuers whose word is taken, and whether their keys can be had from here."""
    if not found.oidc:
        return
    from narrows.identity.jwks import discover, endpoint, parse
    from narrows.identity.oidc_fetch import Fetcher

    for one in found.oidc:
        who = f"{one.kind} {one.client_id or one.audience}"
        fetch = Fetcher(one.ca_file, total_s=5).get
        try:
            keys = parse(fetch(endpoint(discover(one.issuer, fetch), "jwks_uri", one.issuer)))
        except NarrowsError as error:
            yield Check("issuer", "warning", f"{one.issuer} ({who}): {error}", "nobody can sign in with it until then")
        else:
            yield Check("issuer", "ok", f"{one.issuer} ({who}), {len(keys)} keys")
    told = "; ".join(f"{role}: {', '.join(groups)}" for role, groups in found.roles.groups)
    yield Check("roles", "ok", told or "everybody who signs in is a user, nobody more")


def _free_ports(found: Settings) -> Iterator[Check]:
    for name, port in (("gateway port", found.gateway_port), ("API port", found.api_port)):
        if not port:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((found.listen_host, port))
            except OSError as error:
                setting = "NARROWS_GATEWAY_PORT" if name == "gateway port" else "NARROWS_API_PORT"
                yield Check(name, "failed", f"{port}: {error.strerror}", f"set {setting} to another (0: any)")
            else:
                yield Check(name, "ok", f"{port} is free")


def _port(name: str, url: str) -> Check:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=3).close()
    except OSError as error:
        return Check(name, "failed", f"{url}: {error}", "its log is run/narrows.log in the data directory")
    return Check(name, "ok", url)


def _answers(api: Client) -> Iterator[Check]:
    try:
        status = api.get("/log/status")
    except UnreachableError as error:
        yield Check("API", "unreachable", str(error))
        return
    except NarrowsError as error:
        yield Check("API", "failed", str(error))
        return
    yield Check("API", "ok", api.local.api)
    try:
        api.probe("/readyz")
    except NarrowsError as error:
        yield Check("recorder", "failed", str(error), "free the disk, then restart the gateway")
    else:
        yield Check("recorder", "ok", "records")
    lag, behind = (
        int(status.get("lag") or 0),
        int(status.get("size") or 0) - 1 - int(status.get("indexed", -1)),
    )
    found = f"{status.get('size')} leaves, {lag} frames not sealed, {max(behind, 0)} leaves not indexed"
    yield Check("log", "ok" if lag < 100_000 and behind < 100_000 else "warning", found)
