"""The main job, end to end: gateway up, an agent runs, and everything that it did is shown, found and proved.

A local AWS stand-in (moto) takes the place of AWS, and a script that of a model (`demo/model`); the `aws` command,
boto3 and the agent (mini-swe-agent) are the real ones. Data goes to `.data/demo`, which is made anew on each run and
left for looking at.
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
AGENT = ROOT / ".venv-agent" / "bin" / "mini"
UPSTREAM_KEYS = "[default]\naws_access_key_id = AKIAUPSTREAMDEMO0000\naws_secret_access_key = upstream-demo-secret\n"
MODEL_KEY = "sk-demo-the-real-key-of-the-model-0001"
TASK = "Objects in the bucket customer-exports must be deleted after 30 days. Set that up."
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


@contextlib.contextmanager
def scripted_model() -> Iterator[str]:
    """A model that says what `demo/lifecycle.json` says; yields its URL."""
    command = [sys.executable, "-m", "demo.model", "--key-variable", "DEMO_MODEL_KEY"]
    command += ["--script", str(ROOT / "demo" / "lifecycle.json")]
    env = environment() | {"DEMO_MODEL_KEY": MODEL_KEY, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("the scripted model did not start")
        yield url
    finally:
        process.terminate()
        process.wait()


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
    key = DATA / "model-key"
    key.touch(mode=0o600)
    key.write_text(MODEL_KEY)


def session(last: str) -> str:
    """The id of the session that just ran, once all of it is indexed. `last` finds its last exchange."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = [json.loads(line) for line in narrows("sessions", "--json", shown=False).splitlines()]
        if found and found[0].get("state") == "closed" and narrows("search", "--json", last, shown=False):
            return str(found[0]["id"])
        time.sleep(0.2)
    sys.exit("the session was not indexed in time")


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    prepare()
    print("== a local AWS stand-in and the gateway")
    with stand_in() as port, scripted_model() as model:
        narrows("up", "--detach")
        try:
            tour(port)
            why(model)
            print("\n== proved, offline")
            narrows("verify", "--all")
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
    ident = session("operation:DeleteTable")
    narrows("sessions")
    narrows("show", ident)
    print("\n== one exchange in full")
    put = json.loads(narrows("search", "--json", "operation:PutItem", shown=False).splitlines()[0])
    narrows("show", str(put["id"]))
    print("\n== found again")
    narrows("search", 'service:s3 AND operation:Delete* AND after:2h "customer-exports"')
    narrows("search", "outcome:refused")


def why(model: str) -> None:
    """A real agent with a prompt, and the way back from one of its calls to that prompt."""
    print("\n== a real agent, with a prompt; its model is a script, so that no account is needed")
    narrows(
        "connection", "add", "llm", "model", "--provider", "openai-compatible", "--endpoint", model, "--allow-private",
        "--api-key-file", str(DATA / "model-key"),
    )  # fmt: skip
    command = ["run", "--connection", "demo", "--connection", "model", "--", str(AGENT), "-y", "--exit-immediately"]
    command += ["-m", "openai/demo-model", "-t", TASK]
    shown = f'mini -y -m openai/demo-model -t "{TASK}"'
    print(f"\n$ narrows run --connection demo --connection model -- {shown}", flush=True)
    env = environment() | {
        "MSWEA_CONFIGURED": "true", "MSWEA_COST_TRACKING": "ignore_errors", "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": str(DATA / "mini"), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    with (DATA / "agent.log").open("wb") as log:
        done = subprocess.run(
            [BIN / "narrows", *command],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE, text=True, cwd=DATA,
        )  # fmt: skip
    print("\n".join(line for line in done.stderr.splitlines() if line.startswith("narrows:")))
    if done.returncode:
        sys.exit(f"the agent ended with code {done.returncode}: {done.stderr[-2000:]}")
    print(f"(what the agent itself printed is in {(DATA / 'agent.log').relative_to(ROOT)})")
    ident = session("tool:bash AND operation:chat.completions AND after:1h")
    narrows("show", ident)
    put = json.loads(narrows("search", "--json", "operation:PutBucketLifecycle*", shown=False).splitlines()[0])
    print("\n== why that rule was set")
    narrows("why", str(put["id"]))


if __name__ == "__main__":
    main()
