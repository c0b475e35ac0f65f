"""The client's side of the tests: parameters made from botocore's shapes, and requests made by its serializers."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.model import OperationModel
from botocore.serialize import create_serializer

from narrows.session.aws.shapes import Shape

WHEN = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
BOTO_PROTOCOL = {
    "json": "json",
    "query": "query",
    "ec2": "ec2",
    "rest-json": "rest-json",
    "rest-xml": "rest-xml",
    "smithy-rpc-v2-cbor": "smithy-rpc-v2-cbor",
}


@dataclass
class Request:
    """One HTTP request as a client would send it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    host: str


def sample(shape: Shape, name: str, *, full: bool, depth: int = 0) -> Any:
    """A value that fits a shape: every member if `full`, else the required ones."""
    kind = shape.type_name
    if kind == "structure":
        return structure(shape, full=full, depth=depth)
    if kind == "list":
        return [sample(shape.member, name, full=full, depth=depth + 1)]
    if kind == "map":
        return {
            sample(shape.key, "key", full=full, depth=depth + 1): sample(shape.value, name, full=full, depth=depth + 1)
        }
    if kind in ("string", "character"):
        if getattr(shape, "enum", None):
            return shape.enum[0]
        text = f"{name[:20]}-ü é" if full and not shape.serialization.get("location") else f"{name[:20]}1"
        return text.ljust(int(shape.metadata.get("min", 0)), "x")
    if kind == "blob":
        return b"\x00\x01blob " + name.encode()
    if kind == "timestamp":
        return WHEN
    if kind in ("integer", "long"):
        return int(shape.metadata.get("min", 1)) or 7
    if kind in ("float", "double"):
        return 1.5
    assert kind == "boolean", kind
    return True


def structure(shape: Shape, *, full: bool, depth: int) -> dict[str, Any]:
    """A structure's members; recursion stops at depth 4, a union gets its first member."""
    if shape.is_document_type:
        return {"document": [1, "two", None]}
    out: dict[str, Any] = {}
    union = shape.is_tagged_union
    for name, member in shape.members.items():
        if member.serialization.get("eventstream"):
            continue
        wanted = name in shape.required_members or shape.serialization.get("payload") == name or (full and depth < 3)
        if not wanted and not (union and not out):
            continue
        if depth >= 4 and member.type_name in ("structure", "list", "map"):
            if name not in shape.required_members and not union:
                continue
            if depth >= 9:
                continue
        plain = member.serialization.get("location") in ("header", "headers")  # header text is ASCII here
        out[name] = sample(member, name, full=full and not union and not plain, depth=depth + 1)
        if union:
            break
    if not out and depth and shape.members and depth < 9:
        # Forms and flattened lists cannot say "an empty structure".
        name, member = next(iter(shape.members.items()))
        out[name] = sample(member, name, full=False, depth=depth + 1)
    return out


def parameters(model: OperationModel, *, full: bool) -> dict[str, Any]:
    """Parameters of an operation."""
    return structure(model.input_shape, full=full, depth=0) if model.input_shape is not None else {}


def request(model: OperationModel, given: dict[str, Any], protocol: str, endpoint: str = "https://gw.test") -> Request:
    """The request that botocore would send (before signing)."""
    serializer = create_serializer(BOTO_PROTOCOL[protocol], include_validation=False)
    serialized = serializer.serialize_to_request(given, model)
    serialized["context"] = {}
    prepare_request_dict(serialized, endpoint, serialized["context"], user_agent="Boto3")
    prepared = create_request_object(serialized).prepare()
    parts = urlsplit(prepared.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [(_bytes(n), _bytes(v)) for n, v in prepared.headers.items()]
    body = prepared.body or b""
    if isinstance(body, str):
        body = body.encode()
    return Request(prepared.method.encode(), target.encode(), headers, bytes(body), parts.hostname or "")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def expected(shape: Shape, value: Any, *, hide: bool) -> Any:
    """What the decoder should show for a parameter value."""
    if hide and shape.metadata.get("sensitive"):
        return "(sensitive)"
    kind = shape.type_name
    if kind == "structure" and not shape.is_document_type:
        return {n: expected(shape.members[n], v, hide=hide) for n, v in value.items()}
    if kind == "list":
        return [expected(shape.member, v, hide=hide) for v in value]
    if kind == "map":
        if hide and shape.key.metadata.get("sensitive"):
            return "(sensitive)"
        return {k: expected(shape.value, v, hide=hide) for k, v in value.items()}
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "timestamp":
        return "2026-03-04T05:06:07Z"
    return value


def expected_parameters(model: OperationModel, given: dict[str, Any], *, hide: bool) -> dict[str, Any]:
    """What `decode_request` should answer for parameters."""
    shape: Shape = model.input_shape
    out: dict[str, Any] = {}
    for name, value in given.items():
        member = shape.members[name]
        if shape.serialization.get("payload") == name and member.serialization.get("streaming"):
            out[name] = {"stream": len(value)}
        else:
            out[name] = expected(member, value, hide=hide)
    return out
