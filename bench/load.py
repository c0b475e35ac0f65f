"""The load: real signed AWS calls and model calls, sent by wrk.

An AWS call is signed by botocore, once per round (a signature is good for 15 minutes), and wrk repeats it; a model call
carries a key. Every round must be answered 2xx throughout, or the run fails: a proxy is quick at refusing.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import BenchError
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "us-east-1"
BUCKET = "bench-bucket"
OBJECT = f"/{BUCKET}/object"
UPLOAD = f"/{BUCKET}/upload"
MIB = 2**20

_ITEM = {"Item": {"pk": {"S": "customer#4711"}, "sk": {"S": "order#2024-001"}, "state": {"S": "shipped"}}}
_BARE = len(json.dumps(_ITEM)) + len(', "note": {"S": ""}')
_ITEM["Item"]["note"] = {"S": "n" * (200 - _BARE)}
ANSWER = json.dumps(_ITEM).encode()
"""What the origin answers to the small call: 200 bytes."""
assert len(ANSWER) == 200

CHAT = "/v1/chat/completions"
CHAT_ASKED = json.dumps(
    {
        "model": "bench-model",
        "messages": [
            {"role": "system", "content": "You are a careful engineer. " * 20},
            {"role": "user", "content": "Which of our buckets are public? Say so in one line. " * 4},
        ],
        "max_tokens": 64,
    }
).encode()
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1764000000, "model": "bench-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "None of them is."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 180, "completion_tokens": 5, "total_tokens": 185},
    }
).encode()  # fmt: skip
"""What the origin answers to a model call."""

GET_ITEM = json.dumps({"TableName": "orders", "Key": {"pk": {"S": "customer#4711"}, "sk": {"S": "order#2024-001"}}})


def object_body() -> bytes:
    """1 MiB of JSON lines with random values, the same in every run."""
    chance = random.Random(4711)
    lines = bytearray()
    while len(lines) < MIB:
        row = {"id": chance.randrange(10**9), "key": f"{chance.getrandbits(96):024x}", "amount": chance.random()}
        lines += json.dumps(row).encode() + b"\n"
    return bytes(lines[:MIB])


@dataclass(frozen=True, slots=True)
class Call:
    """One request before it is signed. `service` is the signing name; without one it is sent as it is."""

    name: str
    service: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def calls(body: bytes) -> dict[str, Call]:
    """The calls that are measured: a DynamoDB GetItem, an S3 object of 1 MiB each way, and a model call."""
    target = (("X-Amz-Target", "DynamoDB_20120810.GetItem"), ("Content-Type", "application/x-amz-json-1.0"))
    return {
        "small": Call("small", "dynamodb", "POST", "/", target, GET_ITEM.encode()),
        "down": Call("down", "s3", "GET", OBJECT),
        "up": Call("up", "s3", "PUT", UPLOAD, (), body),
        "chat": Call("chat", "", "POST", CHAT, (("Content-Type", "application/json"),), CHAT_ASKED),
    }


ANYONE = Credentials("AKIAPEERPEERPEER0000", "peers-check-no-signature", "token")
"""What is shown to those who check nothing."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a target is asked: its port, with what credentials, below which path, with which headers of its own."""

    port: int
    credentials: Credentials
    prefix: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def url(self, call: Call) -> str:
        """Where the call goes."""
        return f"http://127.0.0.1:{self.port}{self.prefix}{call.path}"

    def ready(self, call: Call) -> dict[str, str]:
        """The call's headers as they are sent now."""
        if call.service:
            return signed(call, self.port, self.credentials)
        return dict(call.headers) | dict(self.headers)


def signed(call: Call, port: int, credentials: Credentials) -> dict[str, str]:
    """The call's headers, signed by botocore for this host and now; without Host, which the client adds."""
    url = f"http://127.0.0.1:{port}{call.path}"
    request = AWSRequest(method=call.method, url=url, headers=dict(call.headers), data=call.body)
    request.headers["User-Agent"] = "Boto3/1.44.8 md/Botocore#1.44.8 ua/2.1 os/linux lang/python#3.11.7"
    signer = (S3SigV4Auth if call.service == "s3" else SigV4Auth)(credentials, call.service, REGION)
    signer.add_auth(request)
    if call.service == "s3":
        # What is signed over plain HTTP is the body's own hash: the form that must be checked, not believed.
        assert request.headers["X-Amz-Content-SHA256"] == hashlib.sha256(call.body).hexdigest()
    return {name: str(value) for name, value in request.headers.items()}


def once(call: Call, way: Way) -> tuple[int, bytes]:
    """Send a call once; its status and body. Raises BenchError if none came."""
    connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=30)
    try:
        connection.request(call.method, way.prefix + call.path, call.body or None, way.ready(call))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{call.name} on port {way.port} was not answered: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What wrk counted. Latencies in microseconds."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float


DONE = """
function done(summary, latency, requests)
   local e = summary.errors
   local f = io.open(%s, "w")
   f:write(string.format('{"requests":%%d,"us":%%d,"p50":%%d,"p99":%%d,"bad":%%d,"connect":%%d,"read":%%d,"write":%%d,"timeout":%%d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.status, e.connect, e.read, e.write, e.timeout))
   f:close()
end
"""


def script(call: Call, headers: dict[str, str], body: Path, result: Path) -> str:
    """The Lua script with which wrk sends this one request, built once, again and again."""
    lines = [f"wrk.method = {_lua(call.method)}"]
    lines += [f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers.items()]
    if call.body:
        lines += [f'local f = io.open({_lua(str(body))}, "rb")', 'wrk.body = f:read("*a")', "f:close()"]
    return "\n".join(lines) + DONE % _lua(str(result))


def run(
    call: Call,
    way: Way,
    *,
    connections: int,
    seconds: int,
    core: int,
    here: Path,
    watch: Callable[[], None],
) -> Loaded:
    """One round. `watch` is called about 20 times a second meanwhile. Raises BenchError on any bad answer."""
    body, result, lua = here / "body", here / "result.json", here / "call.lua"
    body.write_bytes(call.body)
    result.unlink(missing_ok=True)
    lua.write_text(script(call, way.ready(call), body, result))
    url = way.url(call)
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    process = subprocess.Popen(
        [*command, "-s", str(lua), url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + seconds + 60
        while process.poll() is None:
            watch()
            time.sleep(0.05)
            if time.monotonic() > deadline:
                raise BenchError(f"wrk did not end: {call.name} on {urlsplit(url).netloc}")
        said = process.communicate()[0].decode("utf-8", "replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode or not result.exists():
        raise BenchError(f"wrk failed with code {process.returncode}: {said[-1000:]}")
    return _read(json.loads(result.read_text()), call.name, way.port)


def _read(told: dict[str, int], name: str, port: int) -> Loaded:
    bad = {kind: told[kind] for kind in ("bad", "connect", "read", "write", "timeout") if told[kind]}
    if bad or not told["requests"]:
        raise BenchError(f"{name} on port {port}: {told['requests']} answers, of them not good: {bad or 'none came'}")
    return Loaded(told["requests"], told["us"] / 1e6, told["p50"], told["p99"])


def _lua(text: str) -> str:
    """A Lua string literal of printable ASCII. Raises ValueError for anything else."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("only printable ASCII goes into the load script")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
