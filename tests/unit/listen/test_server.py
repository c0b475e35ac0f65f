"""The gateway port: binding, telling TLS from plain, limits, deadlines and the end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys

import pytest
from tests.kit import Conn, Received, World, plain, scenario

from narrows import processes
from narrows.core.errors import ConfigError
from narrows.listen.server import bind, bind_local, process_of
from narrows.path import Limits


def test_a_taken_port_says_so() -> None:
    first = bind("127.0.0.1", 0, reuse_port=False)
    first.listen()
    try:
        with pytest.raises(ConfigError, match="Cannot listen on"):
            bind("127.0.0.1", first.getsockname()[1], reuse_port=False)
    finally:
        first.close()


def test_workers_share_a_port() -> None:
    first = bind("127.0.0.1", 0)
    second = bind("127.0.0.1", first.getsockname()[1])
    first.close()
    second.close()


@scenario(first_byte_timeout_s=0.5)
async def test_a_client_that_says_nothing_is_closed(w: World) -> None:
    client = await w.client()
    assert await client.closed()
    assert not w.listener._waiting


@scenario()
async def test_a_client_that_leaves_before_its_first_byte_leaves_nothing(w: World) -> None:
    for how in ("close", "reset"):
        client = await w.client()
        while not w.listener._waiting:
            await asyncio.sleep(0)
        getattr(client, how)()
        while w.listener._waiting:
            await asyncio.sleep(0.01)
    assert not w.listener.connections


@scenario(limits=Limits(idle_s=0.5))
async def test_an_idle_client_is_closed_after_its_time(w: World) -> None:
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 200
    assert await client.closed()
    assert len(await w.recorded()) == 1, "nothing was under way: nothing is on record"


@scenario()
async def test_running_out_of_descriptors_pauses_accepting(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return real.fileno()

    real = w.listener._sock
    removed: list[object] = []
    monkeypatch.setattr(w.listener, "_sock", Full())
    monkeypatch.setattr(w.listener, "_pause", lambda error: removed.append(error))
    w.listener._accept()
    assert len(removed) == 1
    monkeypatch.undo()
    w.listener._pause(OSError(errno.EMFILE, "Too many open files"))
    assert w.errors.pop()["message"] == "no connection is accepted for a second"
    client = await w.client()
    assert (await client.ask(w.signer.request())).status == 200, "a second later it goes on"


@scenario()
async def test_draining_lets_a_request_finish_and_closes_the_idle(w: World) -> None:
    go = asyncio.Event()

    async def script(conn: Conn, received: Received) -> None:
        await conn.body(received)
        if received.head.target.endswith(b"slow"):
            await go.wait()
        await conn.answer(200, b"ok")

    w.origin.script = script
    idle, busy = await w.client(), await w.client()
    await idle.ask(w.signer.request())
    busy.send(w.signer.request(target=b"/bucket/slow"))
    await w.origin.arrived(2)
    w.listener.stop_accepting()
    draining = asyncio.get_running_loop().create_task(w.listener.drain(5))
    assert await idle.closed()
    go.set()
    assert (await busy.response()).body == b"ok"
    await draining
    assert [one.outcome["outcome"] for one in await w.recorded()] == ["complete", "complete"]
    w.listener.stop_accepting = lambda: None  # type: ignore[method-assign]


@scenario()
async def test_what_does_not_finish_in_time_is_cut_and_on_record(w: World) -> None:
    async def script(conn: Conn, received: Received) -> None:
        await conn.gone()

    w.origin.script = script
    busy = await w.client()
    busy.send(w.signer.request())
    await w.origin.arrived(1)
    w.listener.stop_accepting()
    await w.listener.drain(0.2)
    assert await busy.closed()
    found = await w.only()
    assert found.outcome["outcome"] == "client_gone"
    assert found.outcome["error"] == "the gateway stopped"
    w.listener.stop_accepting = lambda: None  # type: ignore[method-assign]


@scenario()
async def test_a_handshake_with_a_stranger_fails_quietly(w: World) -> None:
    w.origin.script = plain
    client = await w.client()
    client.send(b"\x16\x03\x01\x00\x05hello")
    await client.rest()
    while w.listener._adopting:
        await asyncio.sleep(0.01)
    assert not w.listener.connections


def test_a_local_name_is_taken_once_for_each_worker() -> None:
    first = bind_local(1, 0)
    assert first is not None
    try:
        assert bind_local(1, 0) is None, "another gateway's: TCP serves all the same"
        other = bind_local(1, 1)
        assert other is not None
        other.close()
    finally:
        first.close()


@scenario()
async def test_a_local_client_is_named_by_the_kernel(w: World) -> None:
    client = await w.local()
    answer = await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 403
    start = processes.stat(os.getpid())[0]
    assert (await w.only()).facts["client"] == f"pid:{os.getpid()}:{start}"


_HANDS_ON = """
import os, socket, sys
held = socket.socket(socket.AF_UNIX)
held.connect(chr(0) + sys.argv[1])
if not os.fork():
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names who connects")
def test_a_process_that_hands_its_connection_on_and_ends_lends_its_name_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0narrows-test-{os.getpid()}")
        listening.listen()
        name = f"narrows-test-{os.getpid()}"
        with subprocess.Popen([sys.executable, "-c", _HANDS_ON, name], stdin=subprocess.PIPE) as first:
            accepted, _ = listening.accept()
            with accepted:
                first.wait()
                assert process_of(accepted) == "local"
                monkeypatch.setattr(processes, "stat", lambda pid: (77, 1))  # another process has the pid now
                try:
                    accepted.getsockopt(socket.SOL_SOCKET, 77)
                except OSError as error:
                    if error.errno == errno.ENOPROTOOPT:
                        pytest.skip("this kernel cannot say whether who connected is still there")
                assert process_of(accepted) == "local"
