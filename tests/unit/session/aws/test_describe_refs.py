"""Identifiers in an AWS call that join it to what caused it."""

from __future__ import annotations

import pytest
from tests.kit.modelcalls import http

from narrows.core.ports import Describe
from narrows.core.values import StoredExchange
from narrows.session.aws.describe import AwsDescriber
from narrows.session.aws.models import Models


@pytest.fixture(scope="module")
def describe(models: Models) -> Describe:
    return AwsDescriber(models)


def test_lease_trace_application_and_request(describe: Describe) -> None:
    request = http(
        "POST / HTTP/1.1",
        {
            "Host": "h",
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "User-Agent": "aws-cli/2.31 md/awscrt ua/2.1 app/toolu_01ABC",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793",
        },
        b"{}",
    )
    facts: dict[str, object] = {
        "service": "dynamodb",
        "operation": "ListTables",
        "protocol": "json-1.0",
        "region": "eu-west-1",
        "lease": "NRWA123",
    }
    response = http("HTTP/1.1 200 OK", {"x-amzn-RequestId": "RID"}, b'{"TableNames":[]}')
    out = describe(StoredExchange(b"", b"", "aws.call", request=request, response=response, request_facts=facts))
    assert out.refs == [
        ("lease", "NRWA123"),
        ("trace", "0af7651916cd43dd8448eb211c80319c"),
        ("span", "b7ad6b7169203331"),
        ("app", "toolu_01ABC"),
        ("request", "RID"),
    ]
    assert out.items == [] and out.llm == {} and out.model == ""


def test_a_refused_call_still_has_its_lease(describe: Describe) -> None:
    request = http("GET / HTTP/1.1", {"Host": "h"}, b"")
    out = describe(StoredExchange(b"", b"", "aws.call", request=request, request_facts={"lease": "NRWA123"}))
    assert out.refs == [("lease", "NRWA123")]
