"""OpenTelemetry batches (OTLP/HTTP, JSON or protobuf): traces, logs and metrics -> items and ids that join.

JSON names ids in hex, protobuf's mapping in base64 (opentelemetry-proto, docs/specification.md, "JSON Protobuf
Encoding"); both become one form here. Understood by name: the events of Claude Code (`claude_code.*`) and Codex
(`codex.*`), and the `gen_ai.*` attributes of any program. The rest is a notice with its name.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Any

from narrows.session.agents import otlp_records
from narrows.session.agents.names import parse
from narrows.session.agents.otlp_records import objects
from narrows.session.agents.told import Told, shown

_PARTS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}
"""The three levels of each signal's message."""


def describe(told: Told, body: bytes, content_type: str) -> None:
    """Add what the batch says. `told.event` is the signal: `traces`, `logs` or `metrics`."""
    signal = told.event
    if signal not in _PARTS:
        told.problem(f"OTLP knows no signal {signal[:64]!r}")
        return
    protobuf = content_type.partition(";")[0].strip().lower() == "application/x-protobuf"
    batch = _from_protobuf(told, signal, body) if protobuf else parse(body)
    if not isinstance(batch, dict):
        if not told.out.problems:
            told.problem("the batch is not OTLP in JSON")
        return
    metrics: list[str] = []
    for resource, scope, one in _records(batch, *_PARTS[signal]):
        attributes = resource | attributes_of(one)
        otlp_records.joined(told, attributes, one)
        if signal == "traces":
            otlp_records.span(told, attributes, one)
        elif signal == "logs":
            otlp_records.event(told, attributes, one, scope)
        else:
            metrics.append(shown(one.get("name"))[:200])
            for point in _points(one):
                otlp_records.joined(told, attributes_of(point), point)
    if metrics:
        told.notice("\n".join(dict.fromkeys(metrics)))


def _records(batch: dict[str, Any], outer: str, middle: str, inner: str) -> Iterator[tuple[dict[str, Any], str, Any]]:
    for group in objects(batch.get(outer)):
        resource = group.get("resource")
        shared = attributes_of(resource) if isinstance(resource, dict) else {}
        for scoped in objects(group.get(middle)):
            scope = scoped.get("scope")
            name = shown(scope.get("name")) if isinstance(scope, dict) else ""
            for one in objects(scoped.get(inner)):
                yield shared, name, one


def _points(metric: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("sum", "gauge", "histogram", "exponentialHistogram", "summary"):
        held = metric.get(kind)
        if isinstance(held, dict):
            yield from objects(held.get("dataPoints"))


def attributes_of(one: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a record by name; the later of two with one name counts."""
    out: dict[str, Any] = {}
    for pair in objects(one.get("attributes")):
        key = pair.get("key")
        if isinstance(key, str):
            out[key] = otlp_records.any_value(pair.get("value"))
    return out


def _from_protobuf(told: Told, signal: str, body: bytes) -> Any:
    """The batch in the JSON form. The decoder is loaded only where a batch needs it: it is big."""
    from google.protobuf.json_format import Error, MessageToDict
    from google.protobuf.message import DecodeError, Message

    message: Message
    if signal == "traces":
        from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

        message = TracesData()
    elif signal == "logs":
        from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

        message = LogsData()
    else:
        from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

        message = MetricsData()
    try:
        message.ParseFromString(body)
        batch: dict[str, Any] = MessageToDict(message)
    except (DecodeError, Error, ValueError, RecursionError) as error:
        told.problem(f"the batch is not OTLP in protobuf: {type(error).__name__}")
        return None
    for _, _, one in _records(batch, *_PARTS[signal]):
        _hex_ids(one)
    return batch


def _hex_ids(record: dict[str, Any]) -> None:
    for name in ("traceId", "spanId", "parentSpanId"):
        held = record.get(name)
        if isinstance(held, str):
            record[name] = binascii.a2b_base64(held).hex()
    for link in objects(record.get("links")):
        _hex_ids(link)
