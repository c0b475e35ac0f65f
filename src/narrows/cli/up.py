"""`narrows up | down`: start and stop the local gateway."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from narrows.cli import local
from narrows.cli.context import ConfigOption, DataOption, settings
from narrows.cli.render import safe
from narrows.core.errors import ConfigError, NarrowsError
from narrows.settings import Settings, with_ports

START_S = 35.0
"""How long `up --detach` waits: a little longer than the supervisor itself."""
STOP_S = 30.0
"""How long `down` waits: a little longer than workers and control process may drain."""


def up(
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Data-plane processes.", show_default=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; go on in the background.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Run gateway and API; prints their URLs."""
    found = settings(data, config, workers=workers)
    if detach:
        raise typer.Exit(_detached(found))
    raise typer.Exit(serve(found, lambda api, gateway: announce(api, gateway, found)))


def down(data: DataOption = None, config: ConfigOption = None) -> None:
    """Stop the local gateway: drains, then stops."""
    found = settings(data, config)
    pid = local.holder(found.data)
    if not pid:
        raise local.not_running(found.data)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while local.holder(found.data) == pid:
        if time.monotonic() > deadline:
            raise NarrowsError(
                "The gateway did not stop",
                f"process {pid} still runs after {STOP_S:g} s",
                f"see {found.data / 'run' / 'narrows.log'}",
            )
        time.sleep(0.05)
    print("stopped")


def announce(api: str, gateway: str, found: Settings, *, already: bool = False) -> None:
    """Tell where the gateway listens, and what to do next."""
    print(f"Narrows {'already runs' if already else 'is up'}.")
    print(f"  gateway  {safe(gateway)}")
    print(f"  API      {safe(api)}")
    print(f"  data     {safe(found.data)}")
    print("Next: narrows connection add aws NAME, then narrows run --connection NAME -- COMMAND", flush=True)


def serve(found: Settings, ready: Callable[[str, str], None]) -> int:
    """Run the gateway in this process until a signal. `ready` gets the URLs of API and gateway.

    Raises ConfigError if one runs already, if a port is taken or if the data directory is not ours alone.
    """
    from narrows.cli import prepare
    from narrows.cli.supervisor import Supervisor, gateway_processes

    os.umask(0o077)
    prepare.directories(found.data)
    lock = local.Lock(found.data)
    if not lock.take():
        raise ConfigError(
            "The gateway was not started",
            f"one runs on {found.data} already (process {local.holder(found.data)})",
            "stop it with `narrows down`, or name another --data",
        )
    try:
        local.path_of(found.data).unlink(missing_ok=True)  # left by one that was killed
        with _ports(found) as (gateway_port, api):
            taken = with_ports(found, gateway_port, api.getsockname()[1])
            prepare.keys(taken)
            prepare.recover(found.data)
            token = secrets.token_urlsafe(32)
            urls = local.url(taken.listen_host, taken.api_port), local.url(taken.listen_host, taken.gateway_port)

            def on_ready() -> None:
                local.write(found.data, api=urls[0], gateway=urls[1], token=token, pid=os.getpid())
                ready(*urls)

            supervisor = Supervisor(
                gateway_processes(taken, api_fd=api.fileno(), token=token),
                recover=lambda: prepare.recover(found.data),
                fresh=prepare.fresh_writer,
                say=lambda text: print(f"narrows: {text}", file=sys.stderr, flush=True),
            )
            try:
                code = supervisor.run(on_ready)
            finally:
                local.path_of(found.data).unlink(missing_ok=True)
            prepare.recover(found.data)  # now, while nobody waits: the next start finds nothing to do
            return code
    finally:
        lock.release()


@contextlib.contextmanager
def _ports(found: Settings) -> Iterator[tuple[int, socket.socket]]:
    """Take both ports before anything starts: (gateway's port number, API's listening socket).

    The gateway's port is held by a socket that never listens, so that it gets no connection; workers bind the
    same port with SO_REUSEPORT. The API's socket listens here, so that calls wait while its process restarts.
    """
    with (
        _bind(found.listen_host, found.gateway_port, "gateway_port", share=True) as gateway,
        _bind(found.listen_host, found.api_port, "api_port", share=False) as api,
    ):
        api.listen(256)
        yield gateway.getsockname()[1], api


def _bind(host: str, port: int, setting: str, *, share: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if share and port:
            # SO_REUSEPORT lets any process of the same user share, also another gateway: ask without it first.
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        bound = socket.socket(family)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((host, port))
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(
            "The gateway was not started",
            f"{host}:{port} could not be taken: {error.strerror or error}",
            f"set NARROWS_{setting.upper()} to another port (0 takes any free one)",
        ) from error
    return bound


def _detached(found: Settings) -> int:
    """Start in the background; return when it is ready. One that runs already is as good."""
    from narrows.cli import prepare

    prepare.directories(found.data)
    if local.holder(found.data):
        return _wait_for_other(found)
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _daemon(found, write)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    if not told:
        raise NarrowsError("The gateway was not started", "its process ended without a word", f"see {_log(found.data)}")
    said = json.loads(told)
    if "error" in said:
        from narrows.cli.main import print_error

        print_error(NarrowsError(*said["error"]))
        return int(said["exit"])
    announce(said["api"], said["gateway"], found)
    return 0


def _wait_for_other(found: Settings) -> int:
    deadline = time.monotonic() + START_S
    while True:
        try:
            running = local.read(found.data)
        except local.UnreachableError:
            if time.monotonic() > deadline or not local.holder(found.data):
                raise
            time.sleep(0.05)
        else:
            announce(running.api, running.gateway, found, already=True)
            return 0


def _log(data: Path) -> Path:
    return data / "run" / "narrows.log"


def _daemon(found: Settings, told: int) -> None:
    """The background side. Never returns: whatever happens, it ends by `os._exit`."""
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        log = os.open(_log(found.data), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(found.data)

        def ready(api: str, gateway: str) -> None:
            os.write(told, json.dumps({"api": api, "gateway": gateway}).encode())
            os.close(told)

        code = serve(found, ready)
    except NarrowsError as error:
        code = _tell_error(error, told)
    except BaseException:  # noqa: BLE001 - said in the log; the process ends here
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell_error(error: NarrowsError, told: int) -> int:
    from narrows.cli.main import exit_code, print_error

    print_error(error)
    code = exit_code(error)
    with contextlib.suppress(OSError):  # closed already when it had been ready: then the log has it
        os.write(told, json.dumps({"error": [error.what, error.why, error.hint], "exit": code}).encode())
    return code
