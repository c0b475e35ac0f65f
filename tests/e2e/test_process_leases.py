"""`narrows aws-credentials` as AWS's own programs run it: a lease for every command, bound to the processes that asked.

And what can be done wrong with the gateway's own paths, over a real gateway.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import BIN, Gateway, all_frames, find_in, gateway, until

from narrows.core.errors import ProofError
from narrows.record.log.frame import Kind

REPORT = """
import base64, json, os, sys, http.client
from urllib.parse import urlsplit
url = urlsplit(os.environ["NARROWS_GATEWAY"])
forged = [{"pid": 4, "start": 4, "ppid": 1, "argv": ["aws", "s3", "rb", "s3://all"], "cwd": "/", "exe": "/bin/aws"}]
def ask(path, body, token=os.environ["NARROWS_TOKEN"], tree=forged):
    made = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    if tree: headers["X-Narrows-Process"] = base64.urlsafe_b64encode(json.dumps(tree).encode()).decode()
    made.request("POST", "/_narrows/" + path, body, headers)
    answer = made.getresponse()
    raw = answer.read()
    made.close()
    return answer.status, json.loads(raw or b"{}")
"""


def asked(narrows: Gateway, code: str) -> Any:
    """What a session's command prints as JSON that speaks to the gateway itself over TCP."""
    ran = narrows.run([sys.executable, "-c", REPORT + code], "--connection", "demo", env_keys=False)
    assert ran.code == 0, ran.err
    return ran, json.loads(ran.out)


@pytest.mark.parametrize(
    "command",
    [
        [str(BIN / "aws"), "s3api", "list-buckets", "--output", "json"],
        [sys.executable, "-c", "import boto3; boto3.client('s3').list_buckets()"],
    ],
    ids=["aws", "boto3"],
)
def test_a_call_is_bound_to_the_command_by_the_kernels_word(narrows: Gateway, command: list[str]) -> None:
    ran = narrows.run(["sh", "-c", '"$@"; exit $?', "a shell", *command], "--connection", "demo", env_keys=False)
    assert ran.code == 0, ran.err
    issued, call = narrows.calls(ran.session, 2)
    assert (issued["kind"], issued["operation"], call["operation"]) == ("agent.event", "lease.issued", "ListBuckets")
    facts, called = (narrows.get(f"/exchanges/{row['id']}")["facts"] for row in (issued, call))
    assert facts["process_from"] == "kernel"
    assert facts["lease"] == called["lease"] != ""
    shown = [" ".join(one["argv"]) for one in facts["process"]]
    assert "aws-credentials" in shown[0]
    assert any(command[-1] in line for line in shown[1:]), shown
    assert any("a shell" in line for line in shown[1:]), shown
    assert "narrows" in shown[-1] and " run " in shown[-1], "up to narrows run, and no further"


def test_two_commands_have_two_leases(narrows: Gateway) -> None:
    line = f"{BIN / 'aws'} s3 ls; {BIN / 'aws'} s3 ls"
    ran = narrows.run(["sh", "-c", line], "--connection", "demo", env_keys=False)
    rows = narrows.calls(ran.session, 4)
    leases = [narrows.get(f"/exchanges/{row['id']}")["facts"].get("lease") for row in rows]
    assert leases[0] == leases[1] != leases[2] == leases[3]


def test_what_a_caller_says_of_its_processes_is_marked_as_its_word(narrows: Gateway) -> None:
    ran, (status, lease) = asked(narrows, "print(json.dumps(ask('leases', '{}')))")
    assert status == 200 and lease["secret_access_key"]
    facts = narrows.get(f"/exchanges/{narrows.calls(ran.session, 1)[0]['id']}")["facts"]
    assert facts["process_from"] == "client" and facts["process"][0]["argv"] == ["aws", "s3", "rb", "s3://all"]
    needles = {name: lease[name].encode() for name in ("secret_access_key", "session_token")}
    needles["own token"] = json.loads(json.dumps(ran.told))["HTTPS_PROXY"].split(":")[2].split("@")[0].encode()
    assert find_in(narrows.data, needles) == {}


def test_wrong_use_is_refused_and_on_record(narrows: Gateway) -> None:
    code = """
print(json.dumps([ask('leases', '{'), ask('events/cursor', 'no json'), ask('leases', '{"connection": "nope"}'),
  ask('leases', '{}', token='wrong'), ask('leases', '{}', token=os.environ['NARROWS_TOKEN'][:-2] + 'xx'),
  ask('nothing', '{}'),
  ask('events/cursor', json.dumps({'hook_event_name': 'stop', 'token': os.environ['NARROWS_TOKEN']}))]))
"""
    ran, answers = asked(narrows, code)
    codes = [(status, told.get("error", {}).get("code")) for status, told in answers]
    assert codes == [
        (400, "malformed_json"), (400, "malformed_json"), (403, "not_in_session"), (401, "lease_foreign"),
        (401, "lease_invalid"), (404, "not_found"), (200, None),
    ]  # fmt: skip
    assert answers[-1][1]["decision"] == "allow"
    rows = narrows.calls(ran.session, 5)
    assert [row["outcome"] for row in rows] == ["refused"] * 4 + ["complete"]
    assert rows[-1]["id"] == answers[-1][1]["exchange"]


def test_a_killed_session_gets_no_lease(narrows: Gateway) -> None:
    code = f"""
import subprocess, sys
print('up', flush=True)
sys.stdin.readline()
while True:  # a worker looks for ended sessions five times a second
    done = subprocess.run([{str(BIN / "narrows")!r}, 'aws-credentials'], capture_output=True, text=True)
    if done.returncode:
        print(done.stdout)
        sys.exit(done.stderr)
"""
    command = narrows.session_command([sys.executable, "-c", code], "--connection", "demo", env_keys=False)
    made = subprocess.Popen(
        command, env=narrows.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert made.stdout is not None and made.stdout.readline() == "up\n"
    narrows.narrows("session", "kill", narrows.all_told()[-1]["NARROWS_SESSION"])
    out, err = made.communicate("go\n", timeout=60)
    assert made.returncode == 1 and "AccessKeyId" not in out
    assert "The session is killed" in err


# -- kill -9 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(moto: str, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway to be killed."""
    with gateway(tmp_path) as found:
        found.connect("demo", moto)
        yield found


def test_no_lease_leaves_that_is_not_on_record_though_the_worker_is_killed(own: Gateway) -> None:
    """Leases are asked for one after another while the worker is killed: every one that came is on record."""
    code = """
import time
got = []
print('up', flush=True)
while True:
    try:
        status, told = ask('leases', '{}', tree=None)
    except (OSError, ValueError, http.client.HTTPException):
        if len(got) > 200: break
        time.sleep(0.01)
        continue
    if status == 200: got.append(told['access_key_id'])
    if len(got) > 2000: break
print(json.dumps(got))
"""
    command = own.session_command([sys.executable, "-c", REPORT + code], "--connection", "demo", env_keys=False)
    made = subprocess.Popen(command, env=own.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "up\n"
    until("leases", lambda: sum(_issued(own)) > 200)
    for _ in range(3):
        until("the worker", lambda: "worker 0" in own.processes())
        _kill_and_wait(own, made)
    out, err = made.communicate(timeout=90)
    got = json.loads(out.splitlines()[-1])
    assert len(got) > 100, err
    own.down()
    recorded = set()
    for frame in all_frames(own.data):
        if frame.kind == Kind.REQUEST and frame.meta:
            recorded.add(json.loads(frame.meta).get("lease"))
    assert set(got) <= recorded
    assert own.verify()["ok"]


def _kill_and_wait(found: Gateway, made: subprocess.Popen[str]) -> None:
    before = len(_issued(found))
    found.kill("worker 0")
    until("more leases", lambda: len(_issued(found)) > before or made.poll() is not None)


def _issued(found: Gateway) -> list[bool]:
    """One True for each lease on record by now. A block that is being written is looked at again: nothing says yet that
    it is whole."""
    while True:
        try:
            return [b'"lease.issued"' in frame.meta for frame in all_frames(found.data) if frame.kind == Kind.REQUEST]
        except ProofError:
            continue
