"""Bodies as documents: bounded JSON, and payloads that are the whole body."""

from __future__ import annotations

from typing import Any

import orjson

from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import SENSITIVE, Shape, Shower, plain

BODY = 8 << 20
"""Bytes of a structured body that are decoded."""
PAYLOAD_JSON = 1 << 20
"""Bytes of a blob payload that is shown as JSON if it is JSON."""


def fits(body: bytes) -> None:
    """Raise DecodeProblem for a body that is too long to decode."""
    if len(body) > BODY:
        raise DecodeProblem("the body is too long to decode", f"{len(body)} bytes, more than {BODY}")


def load_json(body: bytes) -> Any:
    """JSON, its nesting bounded. Raises DecodeProblem."""
    fits(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeProblem("the body is not JSON", str(error)) from error


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
