"""What does not pass, as the SDK sees it: its own exception, with a message that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import FORMS
from tests.gateway import Gateway, find_in, until

pytestmark = pytest.mark.slow

SHOW_ERROR = """
import json, os, sys, boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
def told(call):
    try:
        return ["ok", str(call())[:60]]
    except ClientError as error:
        return [error.response["Error"]["Code"], error.response["Error"]["Message"]]
    except BotoCoreError as error:
        return [type(error).__name__, str(error)]
once = Config(retries={"total_max_attempts": 1})
"""


def program(body: str) -> list[str]:
    """A program that prints what `told` gave."""
    return [sys.executable, "-c", SHOW_ERROR + body]


def test_a_host_that_no_connection_names(narrows: Gateway) -> None:
    body = """
import urllib.request, urllib.error
try:
    print(json.dumps(["ok", urllib.request.urlopen("https://example.org/", timeout=20).status]))
except OSError as error:
    print(json.dumps([type(error).__name__, str(error)]))
import subprocess
done = subprocess.run(["curl", "-sS", "-v", "https://example.org/"], capture_output=True, text=True)
sys.stderr.write(done.stderr)
"""
    ran = narrows.run(program(body))
    kind, text = ran.json()
    assert kind != "ok" and "403" in text
    (row,) = narrows.calls(ran.session, 2)[:1]
    assert row["outcome"] == "refused" and "No connection names" in json.dumps(row), row
    answer = narrows.raw(row["id"], "response").decode()
    assert "No connection names example.org" in answer
    assert "narrows connection add http NAME --host example.org" in answer


def test_the_metadata_address_is_a_host_like_any_other(narrows: Gateway) -> None:
    """Neither by CONNECT nor by an absolute URI."""
    body = """
import http.client
proxy = __import__("urllib.parse").parse.urlsplit(os.environ["HTTPS_PROXY"])
import base64
auth = {"Proxy-Authorization": "Basic " + base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()}
out = []
for method, target in (("CONNECT", "169.254.169.254:80"), ("GET", "http://169.254.169.254/latest/meta-data/")):
    c = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)
    c.putrequest(method, target, skip_host=True)
    c.putheader("Host", "169.254.169.254")
    c.putheader("Proxy-Authorization", auth["Proxy-Authorization"])
    c.endheaders()
    a = c.getresponse()
    out.append([a.status, a.read().decode()])
print(json.dumps(out))
"""
    for status, text in narrows.run(program(body)).json():
        assert status == 403 and "Narrows" in text


@pytest.mark.parametrize("form", FORMS)
def test_a_lease_that_was_altered(narrows: Gateway, form: str) -> None:
    body = """
key, secret, token = (os.environ[n] for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
flip = lambda text, at: text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1:]
def call(k, s, t, service="s3", operation="list_buckets"):
    c = boto3.client(service, aws_access_key_id=k, aws_secret_access_key=s, aws_session_token=t, config=once)
    return told(getattr(c, operation))
print(json.dumps({
    "good": call(key, secret, token),
    "secret": call(key, flip(secret, 5), token),
    "token": call(key, secret, flip(token, len(token) // 2)),
    "key": call(flip(key, 10), secret, token),
    "no token": call(key, secret, None),
    "json": call(key, flip(secret, 5), token, "dynamodb", "list_tables"),
    "query": call(key, secret, flip(token, len(token) // 2), "iam", "list_users"),
    "real keys": call("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None),
    "keys of a role": call("ASIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEJr" * 20),
}))
"""
    ran = narrows.run(program(body), *FORMS[form])
    told = ran.json()
    assert told.pop("good")[0] == "ok"
    codes = {name: code for name, (code, _text) in told.items()}
    assert codes == {
        "secret": "SignatureDoesNotMatch",
        "token": "InvalidAccessKeyId",
        "key": "InvalidAccessKeyId",
        "no token": "InvalidAccessKeyId",
        "json": "InvalidSignatureException",
        "query": "InvalidClientTokenId",
        "real keys": "InvalidAccessKeyId",
        "keys of a role": "InvalidAccessKeyId",
    }
    for name, (_code, text) in told.items():
        assert text.startswith("Narrows: "), name
    assert "narrows run" in told["real keys"][1] and "narrows run" in told["keys of a role"][1]


def test_keys_that_are_real_are_never_passed_on(narrows: Gateway) -> None:
    """They are refused, and what is kept of them on disk is the key id alone."""
    secret, token = "real/secret+access+key/of/the/user000000", "RealSessionTokenOfTheUser" * 8
    # By a variable: what stands in a command line is on the record.
    body = """
key = dict(zip(("aws_access_key_id", "aws_secret_access_key", "aws_session_token"), os.environ["OWN"].split()))
print(json.dumps(told(boto3.client("s3", config=once, **key).list_buckets)))
"""
    env = {"OWN": f"ASIAREALREALREALREAL {secret} {token}"}
    before = len(narrows.get("/exchanges", q="outcome:refused", limit=500)["items"])
    assert narrows.run(program(body), env=env).json()[0] == "InvalidAccessKeyId"
    found = until(
        "the refusal is indexed",
        lambda: narrows.get("/exchanges", q="outcome:refused", limit=500)["items"][: -before or None],
    )
    recorded = narrows.raw(found[0]["id"])
    assert b"GET / HTTP/1.1" in recorded
    assert find_in(narrows.data, {"token": token.encode(), "secret": secret.encode()}) == {}


@pytest.mark.parametrize("form", FORMS)
def test_credentials_that_work_elsewhere_are_not_handed_out(narrows: Gateway, form: str) -> None:
    body = """
sts, iam = boto3.client("sts", config=once), boto3.client("iam", config=once)
print(json.dumps({
    "assume": told(lambda: sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/x", RoleSessionName="mine")),
    "session": told(sts.get_session_token),
    "key": told(lambda: iam.create_access_key(UserName="u")),
    "login": told(lambda: boto3.client("ecr", config=once).get_authorization_token()),
}))
"""
    ran = narrows.run(program(body), *FORMS[form])
    told = ran.json()
    assert {name: code for name, (code, _text) in told.items()} == {
        "assume": "AccessDenied", "session": "AccessDenied", "key": "AccessDenied", "login": "AccessDeniedException",
    }  # fmt: skip
    for row in narrows.calls(ran.session, 4):
        assert row["decision"] == "deny" and row["reason"] and row["outcome"] == "refused"
        assert row["facts"].get("upstream_request_sent") is not True
        assert narrows.raw(row["id"], "sent") == b""


def test_a_killed_session(narrows: Gateway, tmp_path: Path) -> None:
    """From the answer to `kill` on, a second at most until nothing of the session works."""
    go, gone = tmp_path / "go", tmp_path / "gone"
    body = f"""
import pathlib, time
s3, dynamodb = boto3.client("s3", config=once), boto3.client("dynamodb", config=once)
out = [told(s3.list_buckets)]
pathlib.Path({str(go)!r}).touch()
until = time.monotonic() + 30
while not pathlib.Path({str(gone)!r}).exists() and time.monotonic() < until:
    time.sleep(0.01)
until = time.monotonic() + 5
while (last := told(s3.list_buckets))[0] == "ok" and time.monotonic() < until:
    pass
out += [last, time.time(), told(dynamodb.list_tables)]
print(json.dumps(out))
"""
    with subprocess.Popen(
        narrows.session_command(program(body)), env=narrows.environ(), stdout=subprocess.PIPE, text=True
    ) as running:
        until("the first call", go.exists)
        session = narrows.all_told()[-1]["NARROWS_SESSION"]
        done = narrows.narrows("session", "kill", session)
        killed = time.time()
        gone.touch()
        out, _ = running.communicate(timeout=60)
    assert done.returncode == 0
    first, refused, when, other = json.loads(out)
    assert first[0] == "ok" and refused[0] == "ExpiredToken" and other[0] == "ExpiredTokenException"
    assert "killed" in refused[1] and "narrows run" in refused[1]
    assert when - killed < 1.0
    rows = narrows.calls(session, 3)
    assert rows[-1]["outcome"] == "refused" and rows[-1]["session"] == session
    assert narrows.get(f"/sessions/{session}")["state"] == "killed"


def test_a_lease_ends_with_its_session(narrows: Gateway) -> None:
    """A lease that was copied out works no longer when the command has ended."""
    ran = narrows.run(["true"])
    body = """
key = dict(zip(("aws_access_key_id", "aws_secret_access_key", "aws_session_token"), os.environ["OWN"].split()))
c = boto3.client("s3", config=once, **key)
import time
until = time.monotonic() + 5
while (last := told(c.list_buckets))[0] == "ok" and time.monotonic() < until:
    pass
print(json.dumps(last))
"""
    own = [ran.told[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    code, text = narrows.run(program(body), env={"OWN": " ".join(own)}).json()
    assert code == "ExpiredToken" and "closed" in text
