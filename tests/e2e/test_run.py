"""`narrows run`: what the command gets, what it does not get, and what passes through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gateway import REGION, UPSTREAM_KEY, UPSTREAM_SECRET, Gateway, until

pytestmark = pytest.mark.slow

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def test_the_environment_holds_leases_and_nothing_else(narrows: Gateway) -> None:
    """Whatever the user's own environment held of AWS, the command sees none of it."""
    own = {
        "AWS_PROFILE": "production", "AWS_DEFAULT_PROFILE": "production", "AWS_ACCESS_KEY_ID": "AKIAREALKEYOFTHEUSER",
        "AWS_SECRET_ACCESS_KEY": "real-secret-of-the-user", "AWS_SESSION_TOKEN": "real-token-of-the-user",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/real/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/real",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://real", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "real-container",
        "AWS_ENDPOINT_URL_S3": "https://real-s3", "AWS_CA_BUNDLE": "", "AWS_MAX_ATTEMPTS": "2",
        "BOTO_CONFIG": "/real/boto", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://real-imds",
    }  # fmt: skip
    ran = narrows.run([sys.executable, "-c", PRINT_ENVIRONMENT], env=own, env_keys=False)
    env = ran.json()
    everything = ran.out
    for secret in ("real", "production", "AKIAREALKEYOFTHEUSER", UPSTREAM_KEY, UPSTREAM_SECRET):
        assert secret not in everything, secret
    token = json.loads((narrows.data / "run" / "local.json").read_text())["token"]
    assert token not in everything
    keys = (narrows.data / "keys" / "lease.key").read_bytes()
    assert keys.hex() not in everything
    assert env["AWS_MAX_ATTEMPTS"] == "2" and env["AWS_REGION"] == REGION
    assert env["NARROWS_SESSION"] == ran.session
    names = {
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "AWS_MAX_ATTEMPTS",
    }  # fmt: skip
    variables = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert {name for name in env if name.startswith("AWS_")} == names
    with_keys = narrows.run([sys.executable, "-c", PRINT_ENVIRONMENT], env=own).json()
    assert {name for name in with_keys if name.startswith("AWS_")} == names | variables
    # The files of the session are gone with it.
    assert not Path(env["AWS_SHARED_CREDENTIALS_FILE"]).exists()


def test_every_command_gets_a_lease_of_its_own(narrows: Gateway) -> None:
    """As SDKs and the AWS CLI do without being told: they run the profile's credential_process."""
    code = (
        "import boto3, subprocess, sys\n"
        "for _ in range(2): print(boto3.client('sts').get_caller_identity()['Account'])\n"
        "print(subprocess.check_output(['aws', 'sts', 'get-caller-identity', '--query', 'Account',\n"
        "                               '--output', 'text'], text=True).strip())\n"
    )
    ran = narrows.run([sys.executable, "-c", code], "--connection", "demo", env_keys=False)
    assert (ran.code, ran.out) == (0, "123456789012\n" * 3), ran.err
    calls = narrows.calls(ran.session, 3, "service:sts")
    leases = [call["facts"]["lease"] for call in (narrows.get(f"/exchanges/{row['id']}") for row in calls)]
    assert leases[0] == leases[1] != leases[2]


def test_the_files_of_a_session_are_its_own(narrows: Gateway) -> None:
    code = (
        "import json, os, pathlib as p; f = p.Path(os.environ['AWS_SHARED_CREDENTIALS_FILE']);"
        "print(json.dumps([oct(f.stat().st_mode & 0o777), oct(f.parent.stat().st_mode & 0o777), f.read_text()]))"
    )
    mode, folder, text = narrows.run([sys.executable, "-c", code]).json()
    assert (mode, folder) == ("0o600", "0o700")
    assert UPSTREAM_SECRET not in text and "aws_session_token" in text


@pytest.mark.parametrize(
    ("command", "code"), [(["true"], 0), (["sh", "-c", "exit 77"], 77), (["sh", "-c", "kill -TERM $$"], 143)]
)
def test_the_exit_code_passes_through(narrows: Gateway, command: list[str], code: int) -> None:
    ran = narrows.run(command)
    assert ran.code == code
    shown = json.loads(narrows.narrows("show", ran.session, "--json").stdout)
    session = shown.get("session", shown)
    assert session["state"] == "closed" and session["exit_code"] == (code if code < 128 else -15)


def test_standard_streams_pass_through(narrows: Gateway) -> None:
    done = subprocess.run(
        narrows.session_command(["sh", "-c", "cat; echo err >&2"]),
        env=narrows.environ(), input="in\n", capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "in\n" and "err\n" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(narrows: Gateway, tmp_path: Path, number: signal.Signals) -> None:
    """The command ends in its own way, and its session is closed after it."""
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, sys\n"
        "def heard(number, frame):\n    print('heard', number); sys.exit(9)\n"
        "signal.signal(signal.SIGINT, heard); signal.signal(signal.SIGTERM, heard)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "signal.pause()\n"
    )
    running = subprocess.Popen(
        narrows.session_command([sys.executable, "-c", code, str(ready)]),
        env=narrows.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until("the command runs", ready.exists)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (9, f"heard {int(number)}\n"), err
    session = narrows.all_told()[-1]["NARROWS_SESSION"]
    assert narrows.get(f"/sessions/{session}")["state"] == "closed"


def test_a_gateway_is_started_where_none_runs(tmp_path: Path, moto: str) -> None:
    """The first command of a user who has done nothing yet: told what is missing, with the gateway up; then it runs."""
    fresh = Gateway(tmp_path)
    try:
        done = fresh.narrows("run", "--", "true", check=False)
        assert done.returncode == 2 and "connection add aws" in done.stderr, done.stderr
        assert "starting one" in done.stderr
        fresh.connect("only", moto)
        fresh.down()
        code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
        ran = fresh.run([sys.executable, "-c", code])
        assert (ran.code, ran.out) == (0, "123456789012\n"), ran.err
        assert "starting one" in ran.err
    finally:
        fresh.narrows("down", check=False)


def test_a_process_listing_shows_no_secret(narrows: Gateway) -> None:
    """Arguments are readable by every user of the machine."""
    code = (
        "import os, pathlib as p, json\n"
        "told = []\n"
        "for one in p.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    try: told.append(one.read_bytes().decode('latin-1'))\n"
        "    except OSError: pass\n"
        "mine = [os.environ[n] for n in ('AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'HTTPS_PROXY')]\n"
        "print(json.dumps([s for s in mine if any(s in t for t in told)]))\n"
    )
    assert narrows.run([sys.executable, "-c", code]).json() == []
    token = json.loads((narrows.data / "run" / "local.json").read_text())["token"]
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token.encode() not in one.read_bytes()
        except OSError:
            continue
    for name, pid in narrows.processes().items():
        assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), name
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "") != UPSTREAM_SECRET
