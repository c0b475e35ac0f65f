"""The model server as a program of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from demo.model.script import Script
from demo.model.server import ModelServer


def main(arguments: list[str] | None = None) -> None:
    """Serve until killed. Prints the URL as the first line, and one JSON line per request with `--log`."""
    parser = argparse.ArgumentParser(prog="python -m demo.model", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--script", type=Path, required=True, help="a JSON file, see demo/model/script.py")
    parser.add_argument("--key-variable", default="", help="the variable that holds the one API key that is accepted")
    parser.add_argument("--token-ms", type=float, default=0.0, help="milliseconds between two pieces of an answer")
    parser.add_argument("--log", type=Path, help="append each request's line, without headers and body, to this file")
    given = parser.parse_args(arguments)
    script = Script.from_json(json.loads(given.script.read_text("utf-8")))
    key = os.environ[given.key_variable] if given.key_variable else ""
    try:
        asyncio.run(_serve(ModelServer(script, key=key, keep=0), given.port, given.token_ms / 1000, given.log))
    except KeyboardInterrupt:
        return


async def _serve(server: ModelServer, port: int, token_s: float, log: Path | None) -> None:
    if token_s:

        async def pace() -> None:
            await asyncio.sleep(token_s)

        server.pace = pace
    if log is not None:
        server.log = log.open("a", encoding="utf-8")
    async with server.run(port):
        print(server.url, flush=True)
        await asyncio.Event().wait()
