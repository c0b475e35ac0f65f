"""Error answers as botocore's parsers, and so the SDK's exceptions, see them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.awsrequest import HeadersDict
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.session.aws import errors
from narrows.session.aws.decode import BOTO_PROTOCOL
from narrows.session.aws.values import Protocol

CALLERS = [
    (Protocol.JSON10, "dynamodb"),
    (Protocol.JSON11, "logs"),
    (Protocol.QUERY, "sts"),
    (Protocol.EC2, "ec2"),
    (Protocol.REST_JSON, "lambda"),
    (Protocol.REST_XML, "s3"),
    (Protocol.REST_XML, "s3control"),
    (Protocol.REST_XML, "route53"),
    (Protocol.CBOR, "cloudwatch"),
]


def parsed(protocol: Protocol, answer: tuple[int, list[tuple[bytes, bytes]], bytes]) -> Any:
    status, headers, body = answer
    lines = HeadersDict({n.decode(): v.decode() for n, v in headers})
    response = {"status_code": status, "headers": lines, "body": body, "context": {}}
    parser: Any = create_parser(BOTO_PROTOCOL[protocol])
    return ClientError(parser.parse(response, None), "Op")


@pytest.mark.parametrize(("protocol", "service"), CALLERS)
@pytest.mark.parametrize("kind", errors.KINDS)
def test_sdks_read_code_message_and_request_id(protocol: Protocol, service: str, kind: str) -> None:
    code, status = errors.error_code(kind, protocol, service)
    answer = errors.render(protocol, service, "Op", code, 'No <&> "é"', status, "req-1")
    error = parsed(protocol, answer).response
    assert error["Error"]["Code"] == code
    assert error["Error"]["Message"] == 'No <&> "é"'
    assert error["ResponseMetadata"]["RequestId"] == "req-1"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == status
    assert dict(answer[1])[b"Content-Length"] == str(len(answer[2])).encode()


def test_codes_are_the_ones_that_sdks_know() -> None:
    assert errors.error_code("invalid_token", Protocol.REST_XML, "s3") == ("InvalidAccessKeyId", 403)
    assert errors.error_code("expired_token", Protocol.JSON10, "dynamodb")[0] == "ExpiredTokenException"
    assert errors.error_code("invalid_token", Protocol.QUERY, "iam")[0] == "InvalidClientTokenId"
    assert errors.error_code("skewed", Protocol.REST_XML, "s3")[0] == "RequestTimeTooSkewed"
    assert errors.error_code("payload_mismatch", Protocol.REST_XML, "s3")[0] == "XAmzContentSHA256Mismatch"
    assert errors.error_code("throttled", Protocol.REST_XML, "s3") == ("SlowDown", 503)


def test_codes_are_adapted_between_protocols() -> None:
    assert errors.adapt("AccessDenied", Protocol.JSON10, "dynamodb") == "AccessDeniedException"
    assert errors.adapt("AccessDeniedException", Protocol.QUERY, "iam") == "AccessDenied"
    assert errors.adapt("AccessDenied", Protocol.EC2, "ec2") == "UnauthorizedOperation"
    assert errors.adapt("InvalidClientTokenId", Protocol.REST_XML, "s3") == "InvalidAccessKeyId"
    assert errors.adapt("SignatureDoesNotMatch", Protocol.REST_JSON, "lambda") == "InvalidSignatureException"
    assert errors.adapt("ExpiredToken", Protocol.CBOR, "cloudwatch") == "ExpiredTokenException"
    assert errors.adapt("SomethingElse", Protocol.QUERY, "iam") == "SomethingElse"


def test_former_query_services_get_the_query_code_too() -> None:
    answer = errors.render(Protocol.JSON10, "sqs", "Op", "AccessDenied", "m", 403, "r", query_compatible=True)
    error = parsed(Protocol.JSON10, answer).response["Error"]
    assert (error["Code"], error["Type"]) == ("AccessDenied", "Sender")


def test_head_has_no_body_but_its_length() -> None:
    status, headers, body = errors.render(
        Protocol.REST_XML, "s3", "HeadObject", "AccessDenied", "m", 403, "r", head=True
    )
    assert (status, body) == (403, b"")
    assert int(dict(headers)[b"Content-Length"]) > 0


def test_an_unknown_protocol_still_gives_something_readable() -> None:
    answer = errors.render(None, "", "", "AccessDeniedException", "why", 403, "r")
    for protocol in (Protocol.JSON10, Protocol.REST_JSON):
        assert parsed(protocol, answer).response["Error"] == {"Code": "AccessDeniedException", "Message": "why"}


@pytest.mark.parametrize(
    ("headers", "service", "protocol"),
    [
        ([(b"content-type", b"application/x-amz-json-1.1")], "logs", Protocol.JSON11),
        ([(b"Content-Type", b"application/x-www-form-urlencoded")], "ec2", Protocol.EC2),
        ([(b"Content-Type", b"application/x-www-form-urlencoded")], "sts", Protocol.QUERY),
        ([(b"Smithy-Protocol", b"rpc-v2-cbor")], "monitoring", Protocol.CBOR),
        ([], "s3", Protocol.REST_XML),
        ([], "lambda", Protocol.REST_JSON),
    ],
)
def test_the_protocol_is_guessed_where_nothing_was_resolved(
    headers: list[tuple[bytes, bytes]], service: str, protocol: Protocol
) -> None:
    assert errors.guess_protocol(headers, service) is protocol


@pytest.mark.parametrize(("protocol", "service"), CALLERS)
@settings(max_examples=50, deadline=None)
@given(message=st.text(max_size=300), request_id=st.text(max_size=40))
def test_no_text_breaks_out(protocol: Protocol, service: str, message: str, request_id: str) -> None:
    status, headers, body = errors.render(protocol, service, "Op", "AccessDenied", message, 403, request_id)
    assert all(b"\r" not in v and b"\n" not in v for _, v in headers)
    assert parsed(protocol, (status, headers, body)).response["Error"]["Code"] == "AccessDenied"
