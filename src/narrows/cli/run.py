"""`narrows run`: run a command as a recorded session.

The command's environment holds leases and no real credential (see `childenv`). Its terminal, its signals and
its exit code pass through as if it had been started directly. The session is closed when the command ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from narrows.cli import childenv, context, local, modelenv
from narrows.cli.client import ApiError, Client, segment
from narrows.cli.context import ConfigOption, DataOption, client_of, settings
from narrows.cli.local import UnreachableError
from narrows.cli.render import safe
from narrows.core.errors import ConfigError, NarrowsError
from narrows.settings import Settings

FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT")
"""Signals that go on to the command."""

KNOWN_AGENTS = {
    "cursor-agent": "cursor",
    "claude": "claude-code",
    "codex": "codex",
    "gemini": "gemini-cli",
    "opencode": "opencode",
    "copilot": "copilot-cli",
    "mini": "mini-swe-agent",
}
"""Programs whose agent goes by another name than the command."""

START_TIMEOUT_S = 30


def say(text: str) -> None:
    """One line on standard error: standard output belongs to the command."""
    print(f"narrows: {text}", file=sys.stderr)


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")],
    connection: Annotated[
        list[str] | None,
        typer.Option(
            "--connection",
            metavar="NAME",
            help="Connection to lease; may be repeated. Default: the only AWS one, and one to each model API.",
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Name of the agent; default: from the command."),
    ] = None,
    ttl: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", min=1, help="Longest life of the session.")
    ] = None,
    no_endpoint: Annotated[
        bool, typer.Option("--no-endpoint", help="Set no endpoints or base URLs: calls come through the proxy only.")
    ] = False,
    no_proxy: Annotated[
        bool, typer.Option("--no-proxy", help="Set no proxy: calls come to the endpoints only.")
    ] = False,
    env_keys: Annotated[
        bool,
        typer.Option("--env-keys", help="Put the AWS lease into variables, the same one for every process."),
    ] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Run a command as a recorded session, with leases in its environment instead of keys."""
    if no_endpoint and no_proxy:
        raise ConfigError(
            "The command was not started",
            "--no-endpoint and --no-proxy together leave it no way to the gateway",
            "give one of them at most",
        )
    found = settings(data, config)
    api = gateway(found, config)
    opened = api.post(
        "/sessions",
        {
            "agent": {"name": agent or agent_of(command), "version": ""},
            "command": [as_text(part) for part in command],
            "cwd": as_text(str(Path.cwd())),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "connections": connection or default_connections(api),
            **({"ttl_s": ttl} if ttl is not None else {}),
        },
    )
    code: int | None = None
    try:
        code = _run_in(opened, command, found, endpoint=not no_endpoint, proxy=not no_proxy, env_keys=env_keys)
    finally:
        _close(api, str(opened["id"]), code)
    # A command that a signal ended: what a shell would say of it.
    raise typer.Exit(128 - code if code < 0 else code)


def as_text(argument: str) -> str:
    """An argument or path as text that JSON can hold: bytes that are not UTF-8 show as `\\xNN`."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")


def agent_of(command: Sequence[str]) -> str:
    """The agent's name by its command: what `KNOWN_AGENTS` says, else the program's own name."""
    name = as_text(Path(command[0]).name)
    return safe(KNOWN_AGENTS.get(name, name))[:64] or "unknown"


def default_connections(api: Client) -> list[str]:
    """The connections to lease when none was named: the AWS one and one to each model API, where no two compete.

    Two AWS connections compete, and so do two of one provider, or of OpenAI and another that speaks its API: they would
    set the same variables. `http` connections need no lease. Raises ConfigError.
    """
    found = list(api.pages("/connections"))
    if len(found) == 1:
        return [str(found[0]["name"])]
    groups: dict[str, list[str]] = {}
    for item in found:
        kind = str(item.get("kind", "aws"))
        if kind != "http":
            group = modelenv.slot(str(item.get("provider", ""))) if kind == "llm" else kind
            groups.setdefault(group, []).append(str(item["name"]))
    if not found:
        raise ConfigError(
            "No session was opened",
            "no connection is registered",
            "add one: `narrows connection add aws NAME`",
        )
    names = [name for group in groups.values() for name in group]
    competing = [group for group in groups.values() if len(group) > 1]
    if competing or not names:
        some = sorted(competing[0] if competing else (str(item["name"]) for item in found))
        raise ConfigError(
            "No session was opened",
            f"{len(some)} connections of the same use are registered and none was named",
            f"say which with --connection: {', '.join(some[:8])}",
        )
    return names


def gateway(found: Settings, config: Path | None) -> Client:
    """The client of the gateway that was named, or of the local one, started first if none runs.

    Raises UnreachableError.
    """
    if url := context.remote():
        return context.remote_client(url)
    if not local.holder(found.data):
        say(f"no gateway runs on {found.data}; starting one")
        _start(found, config)
    try:
        return client_of(found.data)
    except UnreachableError:
        if not local.holder(found.data):
            raise
        # Started by someone else a moment ago: the same command waits until it serves.
        _start(found, config)
        return client_of(found.data)


def _start(found: Settings, config: Path | None) -> None:
    arguments = [sys.executable, "-m", "narrows.cli.main", "up", "--detach", "--data", str(found.data)]
    if config is not None:
        arguments += ["--config", str(config.absolute())]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=START_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(
            "The gateway was not started", f"it was not ready within {START_TIMEOUT_S} s", _log_hint(found)
        ) from error
    if done.returncode != 0:
        raise UnreachableError("The gateway was not started", "see the message above", _log_hint(found))


def _log_hint(found: Settings) -> str:
    return f"its log is {found.data / 'run' / 'narrows.log'}"


def _run_in(
    opened: Mapping[str, Any],
    command: Sequence[str],
    found: Settings,
    *,
    endpoint: bool,
    proxy: bool,
    env_keys: bool,
) -> int:
    """Run the command inside the session; return its exit code, negative for the signal that ended it."""
    folder = childenv.Folder()
    try:
        folder.fill(opened["leases"], childenv.trust_bundle(opened["ca_pem"], os.environ), env_keys=env_keys)
        env = childenv.build(
            os.environ,
            opened,
            folder,
            data=found.data,
            span=secrets.token_bytes(8),
            program=Path(command[0]).name,
            env_keys=env_keys,
            endpoint=endpoint,
            proxy=proxy,
        )
        return _spawn(command, env)
    finally:
        folder.remove()


def _spawn(command: Sequence[str], env: dict[str, str]) -> int:
    with _forwarding() as target:
        try:
            child = subprocess.Popen(command, env=env)
        except FileNotFoundError:
            say(f"the command was not found: {safe(command[0])}")
            return 127
        except OSError as error:
            say(f"the command could not be run: {safe(command[0])}: {error.strerror}")
            return 126
        target.append(child)
        return child.wait()


@contextlib.contextmanager
def _forwarding() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Send the signals that reach us on to the child, and keep living until it ends.

    A key of the terminal (Ctrl-C) reaches the child by itself, as it is in the same foreground group: sent
    twice, it would look like an impatient user's second one.
    """
    target: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground():
            return
        for child in target:
            if child.poll() is None:
                child.send_signal(number)

    before = {}
    for name in FORWARDED:
        number = getattr(signal, name)
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup: the command inherits it
        before[number] = signal.signal(number, forward)
    try:
        yield target
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether we are in the foreground group of a terminal, so that its keys signal the child too."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)


def _close(api: Client, session: str, code: int | None) -> None:
    """Close the session and say where to look. A failure is said and does not change the command's exit code:
    the session then ends by its idle time-out."""
    try:
        api.post(f"/sessions/{segment(session)}/close", {"exit_code": code})
    except ApiError as error:
        if error.code != "conflict":  # killed or expired meanwhile: ended is what was wanted
            say(f"the session was not closed: {error}")
    except NarrowsError as error:
        say(f"the session was not closed: {error}")
    say(f"session {session}; see it with `narrows show {session}`")
