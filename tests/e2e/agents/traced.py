"""A program with telemetry: calls AWS within a span, and tells of the span by OTLP. The argument is a tool call's id.

It has no OpenTelemetry SDK; what it sends is what one would: the trace of `TRACEPARENT`, a span of its own.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

import boto3

SPAN = "00f067aa0ba902b7"


def attributes(**values: str) -> list[dict[str, Any]]:
    """OTLP's form of attributes."""
    return [{"key": name.replace("__", "."), "value": {"stringValue": value}} for name, value in values.items()]


def main() -> None:
    """One call, one span."""
    trace = os.environ["TRACEPARENT"].split("-")[1]
    context = f"00-{trace}-{SPAN}-01"
    client = boto3.client("sts")
    client.meta.events.register("before-call", lambda params, **_: params["headers"].update(traceparent=context))
    client.get_caller_identity()
    told = attributes(
        gen_ai__operation__name="execute_tool", gen_ai__tool__name="bash", gen_ai__tool__call__id=sys.argv[1]
    )
    span = {
        "traceId": trace, "spanId": SPAN, "name": "execute_tool bash", "startTimeUnixNano": "1",
        "endTimeUnixNano": "2", "attributes": told,
    }  # fmt: skip
    resource = {"attributes": attributes(service__name="traced")}
    batch = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['NARROWS_TOKEN']}"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(batch).encode(), headers)).read()


main()
