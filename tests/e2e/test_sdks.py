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


@pytest.mark.parametrize("style", ["auto", "path"])
def test_boto3(clients: Clients, form: str, style: str) -> None:
    if (form, style) == ("endpoint", "path"):
        pytest.skip("an endpoint that is an address makes boto3 use paths by itself")
    command = python("boto3_calls.py")
    env = {"AWS_REGION": REGION, "STYLE": style}
    ran, tag = clients.through(command, form, env)
    assert json.loads(ran.out) == json.loads(clients.direct(command, env))
    narrows = clients.narrows
    narrows.calls(ran.session, 1, "operation:PutParameter")  # the last one
    rows = narrows.calls(ran.session, 80)
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
