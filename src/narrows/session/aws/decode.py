"""Decodes AWS requests to parameters and responses to results, through botocore's shapes.

Requests: the inverse of botocore's serializers, for all protocols. Responses: botocore's own parsers, their results
made safe to show (`shapes`). Whatever bytes come in, nothing but DecodeProblem comes out. Bodies are whole and without
framing; a body longer than BODY bytes is not decoded.
"""

from __future__ import annotations

import base64
import binascii
import csv
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from narrows.session.aws import cbor, form, xmlbody
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.routes import compile_route, match_one, split_query
from narrows.session.aws.shapes import OPEN_SERVICES, SENSITIVE, Shower, plain, timestamp
from narrows.session.aws.values import Protocol, Target

if TYPE_CHECKING:
    from botocore.model import OperationModel, Shape  # type: ignore[import-untyped]

BODY = 8 << 20
"""Bytes of a structured body that are decoded."""
PAYLOAD_JSON = 1 << 20
"""Bytes of a blob payload that is shown as JSON if it is JSON."""

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
    shape = model.input_shape
    if target.protocol in (Protocol.QUERY, Protocol.EC2):
        _fits(body)
        root = form.parse(body, target_bytes.decode("latin-1").partition("?")[2])
        return form.FormDecoder(show, target.protocol is Protocol.EC2).parameters(shape, root)
    if target.protocol in (Protocol.JSON10, Protocol.JSON11, Protocol.CBOR):
        if shape is not None and shape.event_stream_name:
            return {shape.event_stream_name: {"stream": len(body)}}
        return _structured(show, shape, body, target.protocol)
    return _Rest(show, target, model, target_bytes.decode("latin-1"), headers, body).parameters()


def _fits(body: bytes) -> None:
    if len(body) > BODY:
        raise DecodeProblem("the body is too long to decode", f"{len(body)} bytes, more than {BODY}")


def load_json(body: bytes) -> Any:
    """JSON, its nesting bounded. Raises DecodeProblem."""
    _fits(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeProblem("the body is not JSON", str(error)) from error


def _structured(show: Shower, shape: Shape | None, body: bytes, protocol: Protocol) -> dict[str, Any]:
    if not body:
        return {}
    if protocol is Protocol.CBOR:
        _fits(body)
        parsed = cbor.decode(body)
    else:
        parsed = load_json(body)
    if not isinstance(parsed, dict):
        raise DecodeProblem("the body is no object", f"it is a {type(parsed).__name__}")
    out = show.value(shape, parsed) if shape is not None else plain(parsed)
    return out if isinstance(out, dict) else {"": out}


def payload(show: Shower, shape: Shape, body: bytes) -> Any:
    """A payload that is the whole body: a stream's length, text, JSON where a blob is JSON, or the blob rule."""
    if shape.serialization.get("streaming"):
        return {"stream": len(body)}
    if show.hide and shape.metadata.get("sensitive"):
        return SENSITIVE
    if shape.type_name == "string":
        return body.decode("utf-8", "replace")
    if body[:1] in (b"{", b"[") and len(body) <= PAYLOAD_JSON:
        try:
            return plain(orjson.loads(body))
        except (orjson.JSONDecodeError, DecodeProblem):
            return plain(body)  # a blob that only starts like JSON is a blob
    return plain(body)


class _Rest:
    """One REST request: members from the path, the query, headers, and the body for the rest."""

    def __init__(
        self,
        show: Shower,
        target: Target,
        model: OperationModel,
        text: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        self._show = show
        self._target = target
        self._model = model
        path, _, query = text.partition("?")
        self._labels = self._path_labels(path)
        self._query = split_query(query)
        self._headers: dict[str, list[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name.decode("latin-1").lower(), []).append(_header_text(value))
        self._body = body

    def _path_labels(self, path: str) -> dict[str, str]:
        target = self._target
        if target.service == "s3":
            return {"Bucket": target.bucket, "Key": unquote(target.key)}
        found = match_one(compile_route(self._model.http.get("requestUri", "/"), None), path)
        return {name: unquote(value) for name, value in found.items()}

    def parameters(self) -> dict[str, Any]:
        shape = self._model.input_shape
        out: dict[str, Any] = {}
        if shape is None:
            return out
        bound: set[str] = set()
        spare = ""
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            if location == "uri":
                wire = str(member.serialization.get("name", name))
                if self._labels.get(wire):
                    out[name] = self._show.scalar(member, self._labels[wire])
            elif location == "querystring":
                if member.type_name == "map":
                    spare = name
                else:
                    self._from_query(name, member, bound, out)
            elif location == "header":
                self._from_header(name, member, out)
            elif location == "headers":
                self._from_headers(name, member, out)
        if spare:
            self._spare(spare, shape.members[spare], bound, out)
        self._from_body(shape, out)
        return out

    def _hidden(self, member: Shape) -> bool:
        return bool(self._show.hide and member.metadata.get("sensitive"))

    def _from_query(self, name: str, member: Shape, bound: set[str], out: dict[str, Any]) -> None:
        wire = str(member.serialization.get("name", name))
        values = [value or "" for given, value in self._query if given == wire]
        if not values and self._target.service == "s3":
            values = [value or "" for given, value in self._query if given.lower() == wire.lower()]
        if not values:
            return
        bound.add(wire)
        if self._hidden(member):
            out[name] = SENSITIVE
        elif member.type_name == "list":
            out[name] = [self._show.scalar(member.member, value) for value in values]
        else:
            out[name] = self._show.scalar(member, values[-1])

    def _spare(self, name: str, member: Shape, bound: set[str], out: dict[str, Any]) -> None:
        literals = {given for given, _ in split_query(self._model.http.get("requestUri", "").partition("?")[2])}
        rest: dict[str, Any] = {}
        for given, value in self._query:
            if given in bound or given in literals or given.lower().startswith("x-amz-"):
                continue
            if member.value.type_name == "list":
                rest.setdefault(given, []).append(value or "")
            else:
                rest[given] = value or ""
        if rest:
            out[name] = SENSITIVE if self._hidden(member) else rest

    def _from_header(self, name: str, member: Shape, out: dict[str, Any]) -> None:
        wire = str(member.serialization.get("name", name)).lower()
        values = self._headers.get(wire)
        if not values and wire.startswith("x-amz-"):
            # A presigned request may carry headers in its query.
            values = [value or "" for given, value in self._query if given.lower() == wire]
        if not values:
            return
        if self._hidden(member):
            out[name] = SENSITIVE
        elif member.type_name == "list":
            joined = ",".join(values)
            if member.member.type_name == "timestamp":
                parts = [part.strip() for part in joined.split(",")]
            else:
                parts = _list_header(joined)
            out[name] = [self._show.scalar(member.member, part) for part in parts]
        elif member.serialization.get("jsonvalue"):
            out[name] = _json_header(values[0])
        else:
            out[name] = self._show.scalar(member, values[0])

    def _from_headers(self, name: str, member: Shape, out: dict[str, Any]) -> None:
        prefix = str(member.serialization.get("name", "")).lower()
        found = {
            given[len(prefix) :]: self._show.scalar(member.value, values[0])
            for given, values in self._headers.items()
            if given.startswith(prefix)
        }
        if found:
            out[name] = SENSITIVE if self._hidden(member) else found

    def _from_body(self, shape: Shape, out: dict[str, Any]) -> None:
        body = self._body
        name = shape.serialization.get("payload")
        if name:
            member = shape.members[name]
            if member.serialization.get("eventstream"):
                out[name] = {"stream": len(body)}
            elif member.type_name in ("blob", "string"):
                if body or member.serialization.get("streaming"):
                    out[name] = payload(self._show, member, body)
            elif body:
                out[name] = self._document(member, body)
            return
        if not body:
            return
        inner = {n: m for n, m in shape.members.items() if "location" not in m.serialization}
        if not inner:
            return
        parsed = self._document(shape, body)
        if isinstance(parsed, dict):
            for key, value in parsed.items():
                out.setdefault(key, value)
        else:
            out[""] = parsed

    def _document(self, shape: Shape, body: bytes) -> Any:
        if self._target.protocol is Protocol.REST_XML:
            _fits(body)
            return xmlbody.XmlDecoder(self._show).value(shape, xmlbody.parse(body))
        return self._show.value(shape, load_json(body))


def _header_text(value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _list_header(text: str) -> list[str]:
    if '"' not in text:
        return [part.strip() for part in text.split(",")]
    try:
        rows = list(csv.reader([text], skipinitialspace=True, doublequote=False, escapechar="\\"))
    except csv.Error:
        return [text]
    return [part.strip() for part in rows[0]] if rows else []


def _json_header(text: str) -> Any:
    try:
        return plain(orjson.loads(base64.b64decode(text, validate=True)))
    except (binascii.Error, ValueError, DecodeProblem):
        return text


# -- responses ------------------------------------------------------------------------------------------------


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
    lower = {name.decode("latin-1").lower(): _header_text(value) for name, value in headers}
    shape = model.output_shape
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
    _fits(sent)
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
    if target.service != "s3" or status >= 301 or b"<Error>" not in body[:512]:
        return False
    return body.lstrip().startswith((b"<?xml", b"<Error>")) and b"<Error>" in body[:256]


def _parse(target: Target, status: int, headers: dict[str, str], body: bytes, shape: Shape | None) -> dict[str, Any]:
    from botocore.parsers import ResponseParserError, ResponseParserFactory  # type: ignore[import-untyped]

    xml = target.protocol in (Protocol.REST_XML, Protocol.QUERY, Protocol.EC2)
    if xml:
        xmlbody.check(body)
    elif target.protocol is not Protocol.CBOR and body[:1] in (b"{", b"["):
        load_json(body)  # bounds the nesting before the recursive parser sees it
    elif target.protocol is Protocol.CBOR and body:
        cbor.decode(body)
    factory = ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=timestamp, blob_parser=_keep)
    parser = factory.create_parser(BOTO_PROTOCOL[target.protocol])
    response = {"status_code": status, "headers": headers, "body": body, "context": {}}
    try:
        parsed = parser.parse(response, shape)
    except ResponseParserError as error:
        raise DecodeProblem("the response could not be parsed", str(error)[:200]) from error
    except _PARSER_ERRORS as error:
        raise DecodeProblem("the response is not what its model says", type(error).__name__) from error
    return parsed if isinstance(parsed, dict) else {"": parsed}


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
