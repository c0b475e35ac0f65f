"""The main job, end to end: gateway up, an agent runs, and everything that it did is shown, found and proved.

A local AWS stand-in (moto) takes the place of AWS; the `aws` command and boto3 are the real ones. Data goes to
`.data/demo`, which is made anew on each run and left for looking at.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".data" / "demo"
BIN = Path(sys.executable).parent
UPSTREAM_KEYS = "[default]\naws_access_key_id = AKIAUPSTREAMDEMO0000\naws_secret_access_key = upstream-demo-secret\n"
WAIT_S = 30.0


def environment() -> dict[str, str]:
    """Our environment, with the tools of this checkout first and free ports for the gateway."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("NARROWS_", "AWS_"))}
    return ours | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "NARROWS_DATA": str(DATA),
        "NARROWS_GATEWAY_PORT": "0",
        "NARROWS_API_PORT": "0",
    }


def narrows(*arguments: str, shown: bool = True) -> str:
    """Run a command as a user would type it; returns what it printed."""
    if shown:
        print(f"\n$ narrows {' '.join(arguments)}", flush=True)
    command = [str(BIN / "narrows"), *arguments]
    done = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    if shown:
        print(done.stdout, end="", flush=True)
    return str(done.stdout)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def stand_in() -> Iterator[int]:
    """moto, ready to answer."""
    port = free_port()
    log = (DATA / "moto.log").open("wb")
    process = subprocess.Popen([BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                # Functions are answered by moto itself: it would otherwise want a container engine.
                connection.request("POST", "/moto-api/config", json.dumps({"lambda": {"use_docker": False}}))
                connection.getresponse().read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the AWS stand-in did not start; see {DATA / 'moto.log'}")
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
        log.close()


def prepare() -> None:
    """A new data directory, with the keys that only the gateway will hold."""
    if DATA.exists():
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([BIN / "narrows", "down"], env=environment(), check=True, capture_output=True)
        shutil.rmtree(DATA)
    DATA.mkdir(parents=True, mode=0o700)
    keys = DATA / "upstream-keys"
    keys.touch(mode=0o600)
    keys.write_text(UPSTREAM_KEYS)


def session() -> str:
    """The id of the session that just ran, once all of it is indexed."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = [json.loads(line) for line in narrows("sessions", "--json", shown=False).splitlines()]
        last = narrows("search", "--json", "operation:DeleteTable", shown=False)
        if found and found[0].get("state") == "closed" and last:
            return str(found[0]["id"])
        time.sleep(0.2)
    sys.exit("the session was not indexed in time")


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    prepare()
    print("== a local AWS stand-in and the gateway")
    with stand_in() as port:
        narrows("up", "--detach")
        try:
            tour(port)
        finally:
            narrows("down")
    print(f"""
== done in {time.monotonic() - started:.0f} s
Look next:
  NARROWS_DATA={DATA.relative_to(ROOT)} .venv/bin/narrows up --detach     and then any command above
  make up                                                  a gateway for yourself, left running
  narrows connection add aws prod --role-arn ARN           a real account
  narrows run --connection prod -- aws s3 ls               or terraform, a script; an agent whose model host no
                                                           connection names needs --no-proxy: docs/agents.md""")


def tour(port: int) -> None:
    """What the README shows: register, run, look, find, prove."""
    narrows(
        "connection", "add", "aws", "demo", "--endpoint", f"http://127.0.0.1:{port}", "--allow-private",
        "--credentials-file", str(DATA / "upstream-keys"), "--region", "eu-west-1",
    )  # fmt: skip
    print("\n== an agent, with leases only")
    print("$ narrows run --connection demo -- python demo/agent.py", flush=True)
    command = ["run", "--connection", "demo", "--", sys.executable, str(ROOT / "demo" / "agent.py")]
    subprocess.run([BIN / "narrows", *command], env=environment(), check=True)
    print("\n== what it did")
    ident = session()
    narrows("sessions")
    narrows("show", ident)
    print("\n== one exchange in full")
    put = json.loads(narrows("search", "--json", "operation:PutItem", shown=False).splitlines()[0])
    narrows("show", str(put["id"]))
    print("\n== found again")
    narrows("search", 'service:s3 AND operation:Delete* AND after:2h "customer-exports"')
    narrows("search", "outcome:refused")
    print("\n== proved, offline")
    narrows("verify", "--all")


if __name__ == "__main__":
    main()
