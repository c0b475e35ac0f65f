"""Decodes AWS requests to parameters and responses to results, through botocore's shapes.

Requests: the inverse of botocore's serializers, for all protocols. Responses: botocore's own parsers, their results
made safe to show (`shapes`). Whatever bytes come in, nothing but DecodeProblem comes out. Bodies are whole and without
framing; a body longer than `documents.BODY` is not decoded.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any

from narrows.session.aws import cbor, form, rest, xmlbody
from narrows.session.aws.documents import fits, load_json, payload
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import OPEN_SERVICES, SENSITIVE, Shape, Shower, plain, timestamp
from narrows.session.aws.values import Protocol, Target

if TYPE_CHECKING:
    from botocore.model import OperationModel

BOTO_PROTOCOL = {
    Protocol.JSON10: "json",
    Protocol.JSON11: "json",
    Protocol.QUERY: "query",
    Protocol.EC2: "ec2",
    Protocol.REST_JSON: "rest-json",
    Protocol.REST_XML: "rest-xml",
    Protocol.CBOR: "smithy-rpc-v2-cbor",
}
"""Our protocols -> botocore's names."""

_LATE_ERRORS = frozenset(("CompleteMultipartUpload", "CopyObject", "UploadPartCopy"))
"""S3 operations that may answer 200 with an error in the body. Not the others: an object may look like an error."""

_PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    UnboundLocalError,
)
"""What botocore's parsers raise on bytes that are not what the model says."""


def operation_model(models: Models, target: Target) -> OperationModel:
    """botocore's model of a target's operation. Raises DecodeProblem."""
    service = models.service_model(target.service)
    if target.operation not in service.operation_names:
        raise DecodeProblem(f"botocore has no operation {target.service}.{target.operation}", "it may be newer")
    return service.operation_model(target.operation)


def decode_request(
    models: Models,
    target: Target,
    method: bytes,
    target_bytes: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> dict[str, Any]:
    """The parameters of a request, named as SDKs name them. Raises DecodeProblem.

    `target_bytes` is the request target in origin form. A streaming payload becomes `{"stream": length}`.
    """
    model = operation_model(models, target)
    show = Shower(target.service not in OPEN_SERVICES)
    shape: Shape = model.input_shape
    if target.protocol in (Protocol.QUERY, Protocol.EC2):
        fits(body)
        root = form.parse(body, target_bytes.decode("latin-1").partition("?")[2])
        return form.FormDecoder(show, target.protocol is Protocol.EC2).parameters(shape, root)
    if target.protocol in (Protocol.JSON10, Protocol.JSON11, Protocol.CBOR):
        if shape is not None and shape.event_stream_name:
            return {shape.event_stream_name: {"stream": len(body)}}
        return _structured(show, shape, body, target.protocol)
    return rest.RestRequest(show, target, model, target_bytes.decode("latin-1"), headers, body).parameters()


def _structured(show: Shower, shape: Shape | None, body: bytes, protocol: Protocol) -> dict[str, Any]:
    if not body:
        return {}
    if protocol is Protocol.CBOR:
        fits(body)
        parsed = cbor.decode(body)
    else:
        parsed = load_json(body)
    if not isinstance(parsed, dict):
        raise DecodeProblem("the body is no object", f"it is a {type(parsed).__name__}")
    out = show.value(shape, parsed) if shape is not None else plain(parsed)
    return out if isinstance(out, dict) else {"": out}


def decode_response(
    models: Models,
    target: Target,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> tuple[dict[str, Any], str, str, str]:
    """(result, error code, error message, request id) of a response. Raises DecodeProblem.

    The result of an error is empty. Event streams are left to `events.decode_events`.
    """
    model = operation_model(models, target)
    show = Shower(target.service not in OPEN_SERVICES)
    lower = {name.decode("latin-1").lower(): rest.header_text(value) for name, value in headers}
    shape: Shape = model.output_shape
    failed = status >= 301 or _is_s3_error(target, status, body)
    whole = None
    sent = body
    if not failed and shape is not None:
        name = shape.serialization.get("payload")
        member = shape.members[name] if name else None
        if shape.event_stream_name:
            # The messages of the stream are events, not a body: only the headers are parsed here.
            return {}, "", "", request_id(lower)
        if name and member is not None and member.type_name in ("blob", "string"):
            whole = (name, payload(show, member, body))
            sent = b""
    fits(sent)
    parsed = _parse(target, status if status >= 301 or not failed else 500, lower, sent, shape)
    metadata = parsed.pop("ResponseMetadata", None) or {}
    identifier = request_id(lower) or str(metadata.get("RequestId") or "")
    if failed:
        error = parsed.get("Error") or {}
        code, message = str(error.get("Code") or ""), str(error.get("Message") or error.get("message") or "")
        return {}, code, message, identifier
    out = _result(show, shape, parsed) if shape is not None else {}
    if whole is not None:
        out[whole[0]] = whole[1]
    return out, "", "", identifier


def request_id(lower: dict[str, str]) -> str:
    """The request id in a response's headers (names in lower case), or an empty string."""
    return lower.get("x-amzn-requestid") or lower.get("x-amz-request-id") or lower.get("x-amz-cf-id", "")


def _is_s3_error(target: Target, status: int, body: bytes) -> bool:
    """S3 sends 200 first and an error later for operations that take long (CopyObject, CompleteMultipartUpload)."""
    if target.operation not in _LATE_ERRORS or target.service != "s3" or status >= 301:
        return False
    return body.lstrip().startswith((b"<?xml", b"<Error>")) and b"<Error>" in body[:256]


def _parse(target: Target, status: int, headers: dict[str, str], body: bytes, shape: Shape | None) -> dict[str, Any]:
    from botocore.awsrequest import HeadersDict
    from botocore.parsers import ResponseParserError

    xml = target.protocol in (Protocol.REST_XML, Protocol.QUERY, Protocol.EC2)
    if xml:
        xmlbody.check(body)
    elif target.protocol is not Protocol.CBOR and body[:1] in (b"{", b"["):
        load_json(body)  # bounds the nesting before the recursive parser sees it
    elif target.protocol is Protocol.CBOR and body:
        cbor.decode(body)
    parser = _parser(BOTO_PROTOCOL[target.protocol])
    response = {"status_code": status, "headers": HeadersDict(headers), "body": body, "context": {}}
    try:
        parsed = parser.parse(response, shape)
    except ResponseParserError as error:
        raise DecodeProblem("the response could not be parsed", "botocore's parser refused it") from error
    except _PARSER_ERRORS as error:
        raise DecodeProblem("the response is not what its model says", type(error).__name__) from error
    return parsed if isinstance(parsed, dict) else {"": parsed}


@cache
def _parser(protocol: str) -> Any:
    """botocore's parser of a protocol. It keeps nothing between two responses: its clients share theirs, too."""
    from botocore.parsers import ResponseParserFactory

    factory = ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=timestamp, blob_parser=_keep)
    return factory.create_parser(protocol)


def _keep(value: Any) -> Any:
    return value


def _result(show: Shower, shape: Shape, parsed: dict[str, Any]) -> dict[str, Any]:
    """A parsed response as it is shown: member names already, so members are looked up by name only."""
    out: dict[str, Any] = {}
    for name, value in parsed.items():
        member = shape.members.get(name)
        out[name] = _walk(show, member, value, 0) if member is not None else plain(value)
    return out


def _walk(show: Shower, shape: Shape, value: Any, depth: int) -> Any:
    if value is None:
        return None
    if show.hide and shape.metadata.get("sensitive"):
        return SENSITIVE
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict) and not shape.is_document_type:
        members = shape.members
        return {
            str(name): _walk(show, members[name], item, depth + 1) if name in members else plain(item)
            for name, item in value.items()
        }
    if kind == "list" and isinstance(value, list):
        return [_walk(show, shape.member, item, depth + 1) for item in value]
    if kind == "map" and isinstance(value, dict):
        return {str(key): _walk(show, shape.value, item, depth + 1) for key, item in value.items()}
    return show.value(shape, value, depth)
