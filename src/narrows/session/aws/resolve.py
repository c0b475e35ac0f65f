"""From an HTTP request to the AWS operation it calls.

The service is looked for among the models that sign with the request's signing name, by (in this order) the S3 rules,
`X-Amz-Target`, the RPC v2 CBOR path, `Action` and `Version`, then method and path. In proxy form the true host narrows
the candidates. Where none or several fit that differ in host or IAM action, the request is refused (P4): the caller
would otherwise decide about one operation and forward another.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from narrows.core.errors import Refusal
from narrows.session.aws import customer, s3
from narrows.session.aws.models import Group, Models, Operation, Service
from narrows.session.aws.routes import split_query
from narrows.session.aws.values import Protocol, Target

__all__ = ["Protocol", "Target", "bucket_of_host", "names_operation", "needs_body", "resolve"]

MEMO = 4096
"""Entries of a group's memo; it is emptied when full."""

_FORM = b"application/x-www-form-urlencoded"
_PLAIN_FORM = re.compile(
    rb"application/x-www-form-urlencoded(?: *; *charset=\"?(?:utf-?8|us-ascii|iso-8859-1)\"?)?(?: *;)?"
)
_BLANKS = rb"(?:[\s\0+]|%(?:20|09|0[a-d]|00))*+"
_FIELD = re.compile(
    rb"(?i)(?:\A|[&;])("
    + _BLANKS
    + rb"(?:"
    + b"|".join(
        b"".join(b"(?:%c|%%%02x|%%%02x)" % (letter, letter, letter - 32) for letter in word)
        for word in (b"action", b"version")
    )
    + rb")"
    + _BLANKS
    + rb")(?:=([^&;]*+)|(?=[&;]|\Z))"
)
"""A field of a form that some reader takes for its `Action` or `Version`: in any case, in escapes, with blanks around
it, after a semicolon. One pass, whatever the form holds."""
_VERBS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")
_MEMO_TYPE = 64
"""A content type longer than this, in bytes, is not kept."""
_CBOR_PATH = re.compile(r"^/service/([A-Za-z0-9_.]+)/operation/([A-Za-z0-9_]+)$")
_LABEL = re.compile(r"^[A-Za-z0-9-]{1,63}$")
_ACTION = re.compile(r"^[A-Za-z0-9]{1,128}$")


def needs_body(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], signing_name: str) -> bool:
    """True if `resolve` needs the body: form bodies hold the `Action` of the query protocols.

    True also when the query string names an `Action` already, since a body that names another must be refused.
    """
    if method != b"POST" or signing_name in s3.SIGNING:
        return False
    content_type = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-type":
            content_type = value
        elif lower == b"x-amz-target":
            return False
    return content_type is None or content_type.strip().lower().startswith(_FORM)


def bucket_of_host(host: str, gateway_hosts: tuple[str, ...]) -> str:
    """The bucket that a host name (lower case, no port) holds, or "" for a path-style host."""
    return s3.place(host, gateway_hosts).bucket


def resolve(
    models: Models,
    *,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    signing_name: str,
    region: str,
    host: str = "",
    body: bytes = b"",
    gateway_hosts: tuple[str, ...] = (),
) -> Target:
    """The operation that a request calls.

    `target` is the origin-form request target, any base path of the gateway taken off. `signing_name` and `region` are
    those of the credential scope. `host` is the true host in proxy form (lower case, no port), "" in endpoint form.
    `body` is needed where `needs_body` says so. `gateway_hosts` are the gateway's own names, for S3 virtual hosts.
    Raises Refusal with code `aws_unknown_service`, `aws_unknown_operation` or `aws_ambiguous`.
    """
    group = models.group(signing_name)
    if group is None or (host and customer.known(host)):
        own = customer.target(signing_name, region, host)
        if own is not None:
            return own
    if group is None:
        raise Refusal(
            "the AWS service is not known",
            f"no service of this botocore signs as {signing_name[:64]!r}",
            "update botocore, or register the host as an http connection",
            code="aws_unknown_service",
            status=400,
            aws_code="UnknownOperationException",
        )
    text = target.decode("latin-1")
    if signing_name in s3.SIGNING:
        found = s3.resolve(group, method.decode("latin-1"), text, headers, signing_name, region, host, gateway_hosts)
        return found if found is not None else _by_route(group, method, text, headers, region, host)
    amz_target: bytes | None = None
    content_type = b""
    cbor = False
    for name, value in headers:
        size = len(name)
        if size == 12:
            lower = name.lower()
            if lower == b"x-amz-target":
                if amz_target is not None:
                    raise _ambiguous(group, "X-Amz-Target stands twice", ())
                amz_target = value
            elif lower == b"content-type":
                content_type = value
        elif size == 15 and name.lower() == b"smithy-protocol":
            cbor = True
    if amz_target is not None:
        if method != b"POST":
            raise _unknown(group, f"X-Amz-Target with the method {method[:16]!r}: the JSON protocol uses POST")
        key = (amz_target, content_type, region, host, text, cbor)
        memo = group.memo.get(key)
        if memo is None:
            memo = _by_target(group, amz_target, content_type, region, host, text, cbor)
            if len(content_type) <= _MEMO_TYPE:
                if len(group.memo) >= MEMO:
                    group.memo.clear()
                group.memo[key] = memo
        return memo
    path = text.partition("?")[0]
    matched = _CBOR_PATH.match(path) if group.cbor else None
    action = _action(group, method, text, headers, body) if group.query else None
    if matched:
        if not cbor or method != b"POST" or action is not None or content_type.strip().lower().startswith(_FORM):
            raise _ambiguous(group, "the path of an RPC v2 CBOR call stands beside signs of another protocol", ())
        return _by_cbor(group, matched.group(1), matched.group(2), region, host)
    if action is not None:
        # SQS puts a queue into the path; elsewhere a path of its own may be another service's operation.
        if cbor or (path != "/" and any(group.routes.match(verb, path, []) for verb in _VERBS)):
            raise _ambiguous(group, "an Action stands beside signs of another protocol", ())
        return _by_action(group, *action, region, host)
    return _by_route(group, method, text, headers, region, host)


def _by_target(
    group: Group, amz_target: bytes, content_type: bytes, region: str, host: str, text: str, cbor: bool
) -> Target:
    if cbor or content_type.strip().lower().startswith(_FORM):
        raise _ambiguous(group, "X-Amz-Target stands beside another protocol's content type", ())
    if text not in ("/", ""):
        raise _unknown(group, f"X-Amz-Target with the path {text[:64]!r}: the JSON protocol uses /")
    prefix, _, name = amz_target.decode("latin-1").strip().rpartition(".")
    found = [s.operations[name] for s in _narrow(group, host, group.json.get(prefix, ())) if name in s.operations]
    operation = _one(group, found, f"X-Amz-Target {prefix[:64]}.{name[:128]}")
    version = content_type.strip().lower().rpartition(b"-")[2]
    spoken = version.decode("latin-1") if version in (b"1.0", b"1.1") else operation.service.json_version
    return operation.target(Protocol.JSON10 if spoken == "1.0" else Protocol.JSON11, region)


def _by_cbor(group: Group, shape: str, name: str, region: str, host: str) -> Target:
    found = [s.operations[name] for s in _narrow(group, host, group.cbor.get(shape, ())) if name in s.operations]
    return _one(group, found, f"/service/{shape[:64]}/operation/{name[:128]}").target(Protocol.CBOR, region)


def names_operation(form: bytes) -> bool:
    """Whether a form body holds an `Action` or a `Version`, in whatever spelling."""
    return _FIELD.search(form) is not None


def _action(
    group: Group, method: bytes, text: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[str, str] | None:
    """(Action, Version) of a query protocol request, or None.

    Raises Refusal when they are given twice, also in a spelling that only some readers take for them, and for an
    Action beside a body that some readers take for a form and others do not.
    """
    given: dict[str, str] = {}
    unread = False
    fields = _FIELD.findall(text.partition("?")[2].encode("latin-1"))
    if method == b"POST":
        form, unread = _form(headers)
        if form:
            fields += _FIELD.findall(body)
    for raw, value in fields:
        name = unquote(raw.decode("latin-1"))
        if name in given or name not in ("Action", "Version"):
            raise _ambiguous(group, "Action or Version is given twice, or spelt another way", ())
        given[name] = unquote(value.decode("latin-1").strip())
    if "Action" not in given:
        return None
    if unread:
        raise _ambiguous(group, "its Action stands beside a body that is not a plain form", ())
    if not _ACTION.match(given["Action"]):
        raise _unknown(group, "its Action is not a name")
    return given["Action"], given.get("Version", "")


def _form(headers: list[tuple[bytes, bytes]]) -> tuple[bool, bool]:
    """Whether a POST's body is to be read as a form, and whether it has a body that cannot be read so for sure.

    Readers that take its bytes for another character set's would find other names in it.
    """
    types = [value.strip().lower() for name, value in headers if name.lower() == b"content-type"]
    empty = not any(
        name.lower() == b"transfer-encoding" or (name.lower() == b"content-length" and value.strip(b"0"))
        for name, value in headers
    )
    plain = not types or (len(types) == 1 and _PLAIN_FORM.fullmatch(types[0]) is not None)
    return not types or types[-1].startswith(_FORM), not plain and not empty


def _by_action(group: Group, action: str, version: str, region: str, host: str) -> Target:
    services = [s for s in _narrow(group, host, group.query) if action in s.operations]
    exact = [s for s in services if s.version == version]
    # An older API version is still the same service, but only where one service can be meant.
    found = [s.operations[action] for s in (exact or (services if len(services) == 1 else ()))]
    what = f"Action {action[:128]}, Version {version[:16]!r}"
    if not found and services:
        raise _ambiguous(group, what, [s.operations[action] for s in services])
    operation = _one(group, found, what)
    spoken = Protocol.EC2 if "ec2" in operation.service.protocols else Protocol.QUERY
    return operation.target(spoken, region)


def _by_route(
    group: Group, method: bytes, text: str, headers: list[tuple[bytes, bytes]], region: str, host: str
) -> Target:
    path, _, query = text.partition("?")
    verb = method.decode("latin-1")
    what = f"{verb[:16]} {path[:128]!r}"
    inner = path[1:-1] if path.endswith("/") else path[1:]
    if not path.startswith("/") or any(unquote(part) in (".", "..") for part in path.split("/")) or "//" in inner:
        raise _unknown(group, f"{what} has an empty or dot segment")
    if ";" in path:  # what follows is cut off by some readers (RFC 3986 3.3); SDKs escape it
        raise _unknown(group, f"{what} has a parameter in its path")
    parameters = split_query(query) if query else []
    allowed = {id(s) for s in _narrow(group, host, group.services)}
    matches = [m for m in group.routes.match(verb, path, parameters) if id(m[0].value.service) in allowed]
    if len(matches) > 1:
        names = {("querystring", n.lower()) for n, _ in parameters}
        names.update(("header", n.decode("latin-1").lower()) for n, _ in headers)
        counts = [
            (len(m[0].value.required), m)
            for m in matches
            if all((location, name) in names for location, name in m[0].value.required)
        ]
        if counts:
            most = max(count for count, _ in counts)
            matches = [m for count, m in counts if count == most]
    operation = _one(group, [m[0].value for m in matches], what)
    labels = next(labels for route, labels in matches if route.value is operation)
    protocol = Protocol.REST_XML if operation.service.protocols[0] == "rest-xml" else Protocol.REST_JSON
    prefix = _host_prefix(group, operation, labels, headers) if operation.host_labels else ""
    return operation.target(protocol, region, prefix)


def _host_prefix(group: Group, operation: Operation, labels: dict[str, str], headers: list[tuple[bytes, bytes]]) -> str:
    prefix = operation.host_prefix
    for member, (location, wire) in operation.host_labels.items():
        value = ""
        if location == "uri":
            value = labels.get(wire, "")
        elif location == "header":
            wanted = wire.lower().encode()
            value = next((v.decode("latin-1").strip() for n, v in headers if n.lower() == wanted), "")
        if f"{{{member}}}" in prefix:
            if not _LABEL.match(value):
                raise _unknown(group, f"{operation.name} needs {member} for its host name")
            prefix = prefix.replace(f"{{{member}}}", value)
    return prefix


def _narrow(group: Group, host: str, services: list[Service] | tuple[Service, ...]) -> list[Service]:
    """The services whose endpoint the true host is; all of them if it is none's."""
    if not host or len(group.services) == 1:
        return list(services)
    named = group.at_host(host)
    return [s for s in services if s.name in named] if named else list(services)


def _one(group: Group, found: list[Operation], what: str) -> Operation:
    if not found:
        raise _unknown(group, f"{what} is no operation of it")
    first = next((op for op in found if not op.deprecated), found[0])
    if any(op.action != first.action or _where(op) != _where(first) for op in found):
        raise _ambiguous(group, what, found)
    return first


def _where(operation: Operation) -> dict[str, str]:
    return {name: operation.host_prefix + host for name, (host, _) in operation.hosts.items()}


def _services(group: Group) -> str:
    return ", ".join(service.name for service in group.services)


def _unknown(group: Group, why: str) -> Refusal:
    return Refusal(
        f"the request to {_services(group)} could not be understood",
        why,
        "if the operation is new, update botocore",
        code="aws_unknown_operation",
        status=400,
        aws_code="UnknownOperationException",
    )


def _ambiguous(group: Group, why: str, found: list[Operation] | tuple[Operation, ...]) -> Refusal:
    names = ", ".join(f"{op.service.name}.{op.name}" for op in found) or _services(group)
    return Refusal(
        f"the request could be meant for several operations: {names}",
        why,
        "use the proxy form (HTTPS_PROXY), which shows the true host" if found else "send it as an AWS SDK would",
        code="aws_ambiguous",
        status=400,
        aws_code="UnknownOperationException",
    )
