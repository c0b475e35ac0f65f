"""The real SDKs and commands get through the gateway what they get without it, and all of it is on record."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from tests.e2e.conftest import Clients, by_operation, python
from tests.gateway import REGION, Gateway, payload

MB = 1024 * 1024
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def check_rows(rows: list[dict[str, Any]], form: str) -> None:
    """What is true of every exchange of a program that was allowed all it did."""
    for row in rows:
        assert row["kind"] == "aws.call" and row["connection"] == "demo", row
        assert row["decision"] == "allow" and row["outcome"] == "complete", row
        assert row["service"] and row["operation"] and row["action"], row
        assert row["durability"] == "strict" and row["region"], row
        assert row["facts"]["form"] == form, row


@pytest.mark.parametrize(("form", "style"), [("endpoint", "auto"), ("proxy", "auto"), ("proxy", "path")])
def test_boto3(clients: Clients, form: str, style: str) -> None:
    """An endpoint that is an address makes boto3 use paths by itself, so that `path` is of use to the proxy only."""
    command = python("boto3_calls.py")
    env = {"AWS_REGION": REGION, "STYLE": style}
    ran, tag = clients.through(command, form, env)
    assert json.loads(ran.out) == json.loads(clients.direct(command, env))
    narrows = clients.narrows
    narrows.calls(ran.session, 1, "operation:PutParameter" if style == "auto" else 'operation:GetObject AND "s3v4"')
    rows = narrows.calls(ran.session, 80 if style == "auto" else 30)
    check_rows(rows, form)
    by = by_operation(rows)
    hosts = {row["host"] for row in by("PutObject") + by("GetObject")}
    if (form, style) == ("proxy", "auto"):
        assert f"bucket-{tag}.s3.{REGION}.amazonaws.com" in hosts
    for key in ("a//b", "a/../b", "åäö/日本.txt", "plain.txt"):
        arn = f":bucket-{tag}/{key}"
        found = [row for row in by("PutObject") if any(r["arn"].endswith(arn) for r in row["resources"])]
        assert len(found) == 1, f"{key}: {[row['resources'] for row in by('PutObject')]}"
        raw = narrows.raw(found[0]["id"])
        assert b"body of " + key.encode() + b" \x00\xff " + tag.encode() in raw
        assert found[0]["action"] == "s3:PutObject" and found[0]["access_level"] == "Write"


def test_boto3_by_the_search_command(clients: Clients, form: str) -> None:
    """What one would type to find it again."""
    code = (
        "import boto3, os; t = os.environ['TAG']; d = boto3.client('sqs');"
        "q = d.create_queue(QueueName=f'found-{t}')['QueueUrl'];"
        "d.send_message(QueueUrl=q, MessageBody=f'needle-{t}')"
    )
    ran, tag = clients.through(("python", "-c", code), form)
    narrows = clients.narrows
    narrows.calls(ran.session, 2)
    (row,) = narrows.rows("search", f'service:sqs AND operation:SendMessage AND "needle-{tag}"')
    assert row["session"] == ran.session and row["action"] == "sqs:SendMessage" and row["status"] == 200
    assert f"needle-{tag}".encode() in narrows.raw(row["id"], "request")
    assert narrows.raw(row["id"], "response").startswith(b"HTTP/1.1 200")
    sent = narrows.raw(row["id"], "sent")
    assert sent.startswith(b"POST / HTTP/1.1\r\n") and b"X-Amz-Security-Token" not in sent
    shown = narrows.narrows("show", row["id"], "--json").stdout
    assert json.loads(shown)["parameters"]["MessageBody"] == f"needle-{tag}"


def test_aiobotocore(clients: Clients, form: str) -> None:
    command = python("aiobotocore_calls.py")
    env = {"AWS_REGION": REGION}
    ran, _tag = clients.through(command, form, env)
    assert json.loads(ran.out) == json.loads(clients.direct(command, env))
    rows = clients.narrows.calls(ran.session, 1 + 16 * 2 + 4 + 1)
    check_rows(rows, form)
    assert len(by_operation(rows)("PutObject")) == 16


def test_aws_command(clients: Clients, form: str) -> None:
    home = clients.home
    up = home / "up.bin"
    if not up.exists():
        up.write_bytes(os.urandom(24 * MB))
    command = python("aws_commands.py")
    env = {"WORK": str(home)}
    ran, _tag = clients.through(command, form, env)
    assert json.loads(ran.out) == json.loads(clients.direct(command, env))
    rows = clients.narrows.calls(ran.session, 22)
    check_rows([row for row in rows if row["service"] != "sqs"], form)
    by = by_operation(rows)
    parts = by("UploadPart")
    assert len(parts) == 3 and sum(row["bytes_in"] for row in parts) >= 24 * MB
    data = up.read_bytes()
    for row in parts:
        number = int(row["parameters"]["PartNumber"])
        assert payload(clients.narrows.raw(row["id"])) == data[(number - 1) * 8 * MB :][: 8 * MB]
    assert [row["error_code"] for row in by("GetObject") if row["status"] == 404] == ["NoSuchKey"]
    for operation in (
        "CreateTable", "PutItem", "GetCallerIdentity", "DescribeInstances", "ListUsers", "ListQueues",
        "ValidateTemplate", "DescribeLogGroups", "DeleteObject",
    ):  # fmt: skip
        assert len(by(operation)) == 1, operation


def test_the_same_calls_are_the_same_record_both_ways(narrows: Gateway, clients: Clients) -> None:
    """Endpoint or proxy: what was done reads the same."""
    code = (
        "import boto3; boto3.client('ec2').describe_regions(); boto3.client('iam').list_roles();"
        "boto3.client('lambda').list_layers(); boto3.client('kms').list_keys()"
    )
    told = []
    for form in ("endpoint", "proxy"):
        ran, _ = clients.through(("python", "-c", code), form)
        rows = narrows.calls(ran.session, 4)
        told.append([(row["service"], row["operation"], row["action"], row["access_level"]) for row in rows])
    assert told[0] == told[1]
    assert [action for _, _, action, _ in told[0]] == [
        "ec2:DescribeRegions", "iam:ListRoles", "lambda:ListLayers", "kms:ListKeys",
    ]  # fmt: skip


STREAM = """
import boto3, os
class Stream:
    left = 40
    def read(self, size=-1):
        self.left -= 1
        return b"0123456789abcdef" * 4096 if self.left >= 0 else b""
s3 = boto3.client("s3")
bucket = "stream-" + os.environ["TAG"]
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_REGION"]})
s3.put_object(Bucket=bucket, Key="stream", Body=Stream())
print(s3.get_object(Bucket=bucket, Key="stream")["Body"].read() == b"0123456789abcdef" * 4096 * 40)
"""


def test_a_stream_whose_length_nobody_knows(clients: Clients) -> None:
    """Over TLS boto3 sends it in chunks with a checksum after them; what the bucket gets is the stream alone."""
    ran, _tag = clients.through(("python", "-c", STREAM), "proxy")
    assert ran.out == "True\n"
    rows = clients.narrows.calls(ran.session, 3)
    (put,) = by_operation(rows)("PutObject")
    raw = clients.narrows.raw(put["id"])
    assert b"\r\nx-amz-checksum-crc32:" in raw and payload(raw) == b"0123456789abcdef" * 4096 * 40


VIRTUAL_HOST = """
import http.client, os, boto3
from urllib.parse import urlsplit
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import get_session
where = urlsplit(os.environ["AWS_ENDPOINT_URL"])
bucket, region = "vhost-" + os.environ["TAG"].replace("x", "-"), os.environ["AWS_REGION"]
s3 = boto3.client("s3")
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
url = f"http://{bucket}.localhost:{where.port}/a//key"
request = AWSRequest("PUT", url, data=b"by host")
S3SigV4Auth(get_session().get_credentials(), "s3", region).add_auth(request)
connection = http.client.HTTPConnection(where.hostname, where.port)
connection.request("PUT", "/a//key", b"by host", {**dict(request.headers), "Host": urlsplit(url).netloc})
assert connection.getresponse().status == 200
print(s3.get_object(Bucket=bucket, Key="a//key")["Body"].read().decode())
"""


def test_a_bucket_in_the_host_name_of_the_endpoint(clients: Clients) -> None:
    ran, tag = clients.through(("python", "-c", VIRTUAL_HOST), "endpoint")
    assert ran.out == "by host\n"
    (put,) = by_operation(clients.narrows.calls(ran.session, 3))("PutObject")
    assert put["resources"][0]["arn"].endswith(f":vhost-{tag.replace('x', '-')}/a//key")
    assert clients.narrows.raw(put["id"]).startswith(b"PUT /a//key HTTP/1.1\r\n")
