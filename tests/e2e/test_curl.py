"""curl with its own SigV4, both forms: the least clever client there is."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from tests.e2e.conftest import FORMS
from tests.gateway import REGION, Gateway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed"),
]

HOSTS = {"endpoint": "$AWS_ENDPOINT_URL", "proxy": f"https://%s.{REGION}.amazonaws.com"}

PUT_ZEROS = """
import boto3, os, subprocess, sys
s3 = boto3.client("s3")
s3.create_bucket(Bucket="zeros", CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_REGION"]})
url = s3.generate_presigned_url("put_object", Params={"Bucket": "zeros", "Key": "zeros"})
put = ["curl", "-sS", "-i", "--fail-with-body", "-T", "-", "-H", "Expect: 100-continue", url]
sys.exit(subprocess.run(put, input=bytes(3_000_000)).returncode)
"""


def curl(form: str, service: str, rest: str) -> str:
    """A shell command: curl, signed with the session's lease."""
    url = HOSTS[form].replace("%s", service)
    return (
        f'curl -sS --fail-with-body --aws-sigv4 "aws:amz:{REGION}:{service}" '
        '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
        f'-H "x-amz-security-token: $AWS_SESSION_TOKEN" {rest} "{url}'
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_signed_post(narrows: Gateway, form: str) -> None:
    command = curl(form, "sts", "-d 'Action=GetCallerIdentity&Version=2011-06-15'") + '/"'
    ran = narrows.run(["sh", "-c", command], *FORMS[form])
    assert ran.code == 0 and "<Account>123456789012</Account>" in ran.out, ran.out + ran.err
    (row,) = narrows.calls(ran.session, 1)
    assert (row["service"], row["operation"], row["action"]) == ("sts", "GetCallerIdentity", "sts:GetCallerIdentity")
    assert row["facts"]["form"] == form
    assert narrows.raw(row["id"]).endswith(b"\r\n\r\nAction=GetCallerIdentity&Version=2011-06-15")


@pytest.mark.parametrize("form", FORMS)
def test_a_signed_get(narrows: Gateway, form: str) -> None:
    command = curl(form, "lambda", "") + '/2015-03-31/functions/"'
    ran = narrows.run(["sh", "-c", command], *FORMS[form])
    assert ran.code == 0 and json.loads(ran.out)["Functions"] == [], ran.err
    (row,) = narrows.calls(ran.session, 1)
    assert row["action"] == "lambda:ListFunctions"


@pytest.mark.parametrize("form", FORMS)
def test_a_request_without_a_signature(narrows: Gateway, form: str) -> None:
    url = HOSTS[form].replace("%s", "s3")
    ran = narrows.run(["sh", "-c", f'curl -sS -i "{url}/a-bucket/key"'], *FORMS[form])
    assert " 403 " in ran.out and "Narrows: The request carries no lease" in ran.out
    if form == "proxy":  # through the tunnel it is known whose it is
        (row,) = narrows.calls(ran.session, 1)
        assert row["outcome"] == "refused"


def test_expect_continue_and_a_body_of_unknown_length(narrows: Gateway) -> None:
    """`Expect: 100-continue` is answered, chunks pass, and the body is on record as it was on the wire."""
    ran = narrows.run([sys.executable, "-c", PUT_ZEROS])
    assert ran.code == 0 and "100 Continue" in ran.out and "200 OK" in ran.out, ran.out + ran.err
    rows = [row for row in narrows.calls(ran.session, 2) if row["operation"] == "PutObject"]
    raw = narrows.raw(rows[0]["id"])
    assert b"Transfer-Encoding: chunked" in raw and raw.count(b"\0") == 3_000_000 and raw.endswith(b"0\r\n\r\n")
