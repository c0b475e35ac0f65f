"""Describes a recorded AWS call: parameters, result, error, resources, request ids, and the text to search in.

Never raises on hostile bytes: whatever could not be decoded is told in `problems`, and the rest is still there.
"""

from __future__ import annotations

from typing import Any

from narrows.core.values import Described, StoredExchange
from narrows.session.aws import decode, deployed, events, resources, s3
from narrows.session.aws.models import Models
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.shapes import Shape
from narrows.session.aws.values import Protocol, Target
from narrows.session.http.messages import Message, read_request, read_response
from narrows.session.llm import bedrock, clients

TEXT = 64 << 10
"""Characters of search text per direction."""
PROBLEMS = 20
"""Problems that are kept of one exchange."""


class AwsDescriber:
    """Implements `core.ports.Describe` for exchanges of kind `aws.call`.

    `gateway_hosts` are the gateway's own names, for S3 virtual hosts under them.
    """

    def __init__(self, models: Models, gateway_hosts: tuple[str, ...] = ()) -> None:
        self._models = models
        self._gateway_hosts = gateway_hosts

    def __call__(self, exchange: StoredExchange) -> Described:
        """Describe one exchange."""
        out = Described()
        facts = exchange.request_facts
        for name in ("service", "operation", "action", "access_level", "protocol", "region", "account"):
            value = facts.get(name)
            if isinstance(value, str):
                setattr(out, name, value)
        request = read_request(exchange.request)
        response = read_response(exchange.response, request.method, cut=exchange.response_truncated)
        if not exchange.response:
            response.problems.clear()  # no answer is an outcome of the exchange, not a decoding problem
        self._heads(exchange, request, response, out)
        target = self._target(out, request, facts)
        result: Any = None
        if target is not None:
            self._request(target, exchange, request, out)
            result = self._response(target, exchange, response, out)
            out.resources = resources.resources_of(target, out.parameters, region=out.region, account=out.account)
            out.account = out.account or resources.account_of(out.parameters, result)
        out.text = _search_text(out, result, request, response)
        self._refs(exchange, request, out)
        if out.service == "bedrock-runtime" and out.operation in bedrock.OPERATIONS:
            bedrock.describe(request, response, result, out)
        out.problems = (request.problems + response.problems + out.problems)[:PROBLEMS]
        return out

    def _refs(self, exchange: StoredExchange, request: Message, out: Described) -> None:
        clients.read_trace(request, exchange.request_facts, out)
        clients.read_app(request, out)
        clients.add(out, "request", out.request_id)
        if not exchange.request_truncated:
            deployed.read(request, out)

    def _heads(self, exchange: StoredExchange, request: Message, response: Message, out: Described) -> None:
        status = exchange.response_facts.get("status")
        out.status = response.status or (status if isinstance(status, int) else 0)
        lower = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in response.headers}
        out.request_id = decode.request_id(lower)
        out.invocation_id = request.header(b"amz-sdk-invocation-id")[:128]
        for part in request.header(b"amz-sdk-request").split(";"):
            name, _, value = part.strip().partition("=")
            if name == "attempt" and value.isdecimal() and len(value) < 6:
                out.attempt = int(value)

    def _target(self, out: Described, request: Message, facts: dict[str, object]) -> Target | None:
        """The target from the facts that the path wrote; None where it did not get as far."""
        if not out.service or not out.operation:
            return None
        service = self._models.service(out.service)
        operation = service.operations.get(out.operation) if service is not None else None
        if operation is None or out.protocol not in set(Protocol):
            out.problems.append(f"botocore knows no {out.service}.{out.operation} over {out.protocol}")
            return None
        target = operation.target(Protocol(out.protocol), out.region)
        if out.service == "s3":
            host = str(facts.get("host") or request.header(b"host")).lower()
            host = host.rpartition(":")[0] or host
            spot = s3.place(host, self._gateway_hosts)
            path = request.target.decode("latin-1").partition("?")[0]
            target.bucket, target.key = s3.split(path, spot)
            target.virtual_host = bool(spot.bucket)
        return target

    def _request(self, target: Target, exchange: StoredExchange, request: Message, out: Described) -> None:
        body = request.body
        cut = exchange.request_truncated or not request.whole
        if cut and body and not _streams(self._models, target):
            # What does not end cannot be parsed as a document; path, query and headers still can.
            out.problems.append(f"request: only the first {len(body)} bytes of the body were read")
            body = b""
        try:
            out.parameters = decode.decode_request(
                self._models, target, request.method, request.target, request.headers, body
            )
        except DecodeProblem as problem:
            out.problems.append(f"request: {problem}")

    def _response(self, target: Target, exchange: StoredExchange, response: Message, out: Described) -> Any:
        if not response.status:
            return None
        cut = exchange.response_truncated or not response.whole
        if target.event_stream_out and response.status < 300:
            try:
                out.events, problems = events.decode_events(self._models, target, response.body, truncated=cut)
                out.problems += problems
            except DecodeProblem as problem:
                out.problems.append(f"response: {problem}")
            failed = next((event for event in out.events if "error" in event), None)
            if failed is not None:
                out.error_code, out.error_message = str(failed["error"]), str(failed.get("message", ""))
            return None
        body = response.body
        if cut and body and not _streams(self._models, target, output=True):
            out.problems.append(f"response: only the first {len(body)} bytes of the body were read")
            body = b""
            if response.status >= 300:
                return None
        try:
            result, code, message, identifier = decode.decode_response(
                self._models, target, response.status, response.headers, body
            )
        except DecodeProblem as problem:
            out.problems.append(f"response: {problem}")
            return None
        out.error_code, out.error_message = code, message
        out.request_id = out.request_id or identifier
        return result


def _streams(models: Models, target: Target, *, output: bool = False) -> bool:
    """True if a body is one blob or text rather than a document."""
    try:
        model = decode.operation_model(models, target)
    except DecodeProblem:
        return False  # said where the body is decoded
    shape: Shape = model.output_shape if output else model.input_shape
    name = shape.serialization.get("payload") if shape is not None else None
    return bool(name) and shape.members[name].type_name in ("blob", "string")


def _search_text(out: Described, result: Any, request: Message, response: Message) -> str:
    """Text of both directions, each bounded by TEXT."""
    asked: list[str] = []
    _strings([out.parameters, [resource.arn for resource in out.resources]], asked, TEXT)
    asked_text = "\n".join(asked)[:TEXT]
    if _has_stream(out.parameters):
        asked_text = f"{asked_text}\n{_body_text(request)}"[:TEXT]
    answered: list[str] = []
    _strings([response.header(b"x-amz-id-2"), out.error_code, out.error_message, result, out.events], answered, TEXT)
    answered_text = "\n".join(answered)[:TEXT]
    if _has_stream(result):
        answered_text = f"{answered_text}\n{_body_text(response)}"[:TEXT]
    return f"{asked_text}\n{answered_text}".strip()


def _has_stream(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, dict) and "stream" in item for item in value.values())


def _strings(value: Any, into: list[str], room: int) -> int:
    """Collect the strings of a tree until `room` characters are used up; returns what is left."""
    if room <= 0:
        return 0
    if isinstance(value, str):
        if value:
            into.append(value[:room])
        return room - len(value) - 1 if value else room
    if isinstance(value, dict):
        if len(value) == 2 and "bytes" in value and "sha256" in value:
            return room
        for item in value.values():
            room = _strings(item, into, room)
    elif isinstance(value, list):
        for item in value:
            room = _strings(item, into, room)
    elif isinstance(value, int) and not isinstance(value, bool):
        return _strings(str(value), into, room)
    return room


def _body_text(message: Message) -> str:
    """A body that is text, or an empty string for anything binary."""
    start = message.body[: TEXT * 4]
    if b"\x00" in start:
        return ""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4 or len(start) == len(message.body):
            return ""
        text = start[: error.start].decode("utf-8")  # the cut fell inside a character
    odd = sum(1 for c in text[:1024] if ord(c) < 32 and c not in "\t\r\n\f\x1b")
    return "" if odd else text[:TEXT]
