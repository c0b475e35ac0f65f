"""What calls upload is known again by its digest, however it was packed; zips are read within bounds."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kit.modelcalls import http

from narrows.core.ports import Describe
from narrows.core.values import Described, StoredExchange
from narrows.session.aws import deployed
from narrows.session.aws.describe import AwsDescriber
from narrows.session.aws.models import Models
from narrows.session.http.messages import Message

CODE = "def handler(event, context):\n    return 'ok'\n"
OK = http("HTTP/1.1 200 OK", {}, b"{}")


@pytest.fixture(scope="module")
def describe(models: Models) -> Describe:
    return AwsDescriber(models, ("localhost",))


def sha(content: str | bytes) -> tuple[str, str]:
    return "file", sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def zipped(members: dict[str, bytes | str], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def call(service: str, operation: str, protocol: str, request: bytes) -> StoredExchange:
    facts: dict[str, object] = {"service": service, "operation": operation, "protocol": protocol, "region": "eu-west-1"}
    return StoredExchange(
        b"", b"", "aws.call", request=request, response=OK, request_facts=facts | {"host": "localhost"}
    )


def function(packed: bytes) -> StoredExchange:
    body = {"FunctionName": "f", "Role": "r", "Code": {"ZipFile": base64.b64encode(packed).decode()}}
    request = http("POST /2015-03-31/functions HTTP/1.1", {"Host": "localhost"}, json.dumps(body).encode())
    return call("lambda", "CreateFunction", "rest-json", request)


def test_function_code_by_member(describe: Describe) -> None:
    packed = zipped({"lambda_function.py": CODE, "lib/": b"", "lib/x.bin": bytes(range(200))})
    out = describe(function(packed))
    assert set(out.refs) == {sha(packed), sha(CODE), sha(CODE.rstrip("\n")), sha(bytes(range(200)))}
    assert out.problems == []


def test_update_and_layer(describe: Describe) -> None:
    given = base64.b64encode(zipped({"a.py": CODE})).decode()
    request = http(
        "PUT /2015-03-31/functions/f/code HTTP/1.1", {"Host": "localhost"}, json.dumps({"ZipFile": given}).encode()
    )
    assert sha(CODE) in describe(call("lambda", "UpdateFunctionCode", "rest-json", request)).refs
    body = json.dumps({"Content": {"ZipFile": given}}).encode()
    request = http("POST /2018-10-31/layers/l/versions HTTP/1.1", {"Host": "localhost"}, body)
    assert sha(CODE) in describe(call("lambda", "PublishLayerVersion", "rest-json", request)).refs


def test_objects_as_they_are_stored(describe: Describe) -> None:
    framed = b"%x\r\n%b\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n" % (len(CODE), CODE.encode())
    headers = {
        "Host": "localhost",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "aws-chunked",
    }
    out = describe(call("s3", "PutObject", "rest-xml", http("PUT /b/k.py HTTP/1.1", headers, framed)))
    assert set(out.refs) == {sha(CODE), sha(CODE.rstrip("\n"))}
    packed = gzip.compress(CODE.encode())
    request = http("PUT /b/k HTTP/1.1", {"Host": "localhost", "Content-Encoding": "gzip"}, packed)
    assert {sha(packed), sha(CODE)} <= set(describe(call("s3", "PutObject", "rest-xml", request)).refs)
    request = http("PUT /b/k.zip HTTP/1.1", {"Host": "localhost"}, zipped({"a.py": CODE}))
    assert sha(CODE) in describe(call("s3", "PutObject", "rest-xml", request)).refs


def test_an_object_that_is_cut_has_no_digest(describe: Describe) -> None:
    exchange = call("s3", "PutObject", "rest-xml", http("PUT /b/k HTTP/1.1", {"Host": "localhost"}, CODE.encode())[:-5])
    assert describe(exchange).refs == []
    exchange.request_truncated = True
    assert describe(exchange).refs == []


def test_templates_commands_and_parameters(describe: Describe) -> None:
    template = "Resources:\n  Bucket:\n    Type: AWS::S3::Bucket\n"
    form = "Action=CreateStack&Version=2010-05-15&StackName=s&TemplateBody=" + template.replace("\n", "%0A").replace(
        " ", "+"
    )
    headers = {"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded"}
    out = describe(call("cloudformation", "CreateStack", "query", http("POST / HTTP/1.1", headers, form.encode())))
    assert {sha(template), sha(template.rstrip("\n"))} == set(out.refs)

    def ssm(operation: str, body: Any) -> Described:
        return describe(
            call("ssm", operation, "json-1.1", http("POST / HTTP/1.1", {"Host": "h"}, json.dumps(body).encode()))
        )

    lines = ["#!/bin/bash", "systemctl restart app"]
    out = ssm("SendCommand", {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": lines}})
    assert {sha("\n".join(lines)), sha(lines[1])} <= set(out.refs)
    assert ssm("PutParameter", {"Name": "n", "Type": "String", "Value": "long enough"}).refs == [sha("long enough")]
    secret = ssm("PutParameter", {"Name": "n", "Type": "SecureString", "Value": "hunter2hunter2"})
    assert secret.refs == [] and "hunter2" not in repr(secret)


def read(packed: bytes) -> Described:
    out = Described(service="s3", operation="PutObject")
    deployed.read(Message(body=packed, stored=packed, whole=True), out)
    return out


def test_zip_bombs_are_refused_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "UNPACKED", 3 << 20)
    out = read(zipped({"first.py": CODE, "zeros": bytes(8 << 20), "last.py": CODE + "#"}))
    assert sha(CODE) in out.refs and sha(CODE + "#") not in out.refs
    assert any("unpacked" in problem for problem in out.problems)
    exact = zipped({"a": bytes(2 << 20), "b": bytes(1 << 20)})
    assert read(exact).problems == []
    assert read(zipped({"a": bytes(2 << 20), "b": bytes((1 << 20) + 1)})).problems


def test_members_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "MEMBERS", 3)
    members: dict[str, bytes | str] = {f"{i}.py": f"{CODE}# {i}" for i in range(3)}
    assert read(zipped(members)).problems == []
    out = read(zipped(members | {"3.py": CODE}))
    assert sha(CODE) not in out.refs and any("first 3 of" in problem for problem in out.problems)


def test_other_ways_of_packing_are_told() -> None:
    assert any("not read" in problem for problem in read(zipped({"a": CODE}, zipfile.ZIP_LZMA)).problems)
    locked = bytearray(zipped({"a": CODE}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + at] |= 1  # says that it is encrypted
    assert any("RuntimeError" in problem for problem in read(bytes(locked)).problems)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_broken_zips_never_raise(at: int, value: int, cut: int) -> None:
    packed = bytearray(zipped({"a.py": CODE, "b.py": CODE * 3}))
    packed[at % len(packed)] = value
    read(bytes(packed[: len(packed) - cut % 50]))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60), operation=st.sampled_from(sorted(deployed._READERS)))
def test_garbage_never_raises(body: bytes, operation: tuple[str, str]) -> None:
    out = Described(service=operation[0], operation=operation[1])
    deployed.read(Message(body=body, stored=body, whole=True), out)
    deployed.read(
        Message(body=b'{"Parameters": {"a": [1, null]}, "Code": 3, "Type": "String", "Value": []}', whole=True), out
    )
