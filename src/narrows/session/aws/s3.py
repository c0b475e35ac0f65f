"""Which S3 operation a request calls: bucket and key from host and path, the operation from method and sub-resources.

S3 has no operation names on the wire. An operation is its method, whether a bucket and a key are named, the
sub-resource in the query (`?acl`, `?uploads`), required query members (`uploadId`) and `x-amz-copy-source`. A query
parameter that the chosen operation does not know is refused, because S3 would take an unknown sub-resource as another
operation than the one decided on; `x-*` parameters (S3 logs and ignores them) and those of presigned URLs pass.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from narrows.core.errors import Refusal
from narrows.session.aws import iam
from narrows.session.aws.iam_names import S3_VERSION
from narrows.session.aws.routes import split_query
from narrows.session.aws.values import Protocol, Target

if TYPE_CHECKING:
    from narrows.session.aws.models import Group, Operation

SIGNING = frozenset(("s3", "s3express", "s3-outposts", "s3-object-lambda"))
"""Signing names of the S3 family."""

MEMO = 4096
"""Entries kept per memo; it is emptied when full."""
_MEMO_QUERY = 512
"""Queries longer than this, in characters, are not kept: their names are the client's to make up."""

_COPY_SOURCE = "x-amz-copy-source"
_CONTROL_PATH = "/v20180820/"
_PRESIGNED = frozenset(("awsaccesskeyid", "signature", "expires", "content-type", "content-md5"))
"""What a presigned URL may have beside `x-*`. botocore puts the last two into a SigV2 URL; S3 passes them over."""
_VALUED = ("list-type", "select-type")
_HOST = re.compile(
    r"^(?:(?P<bucket>.+?)\.)?"
    r"(?P<service>s3(?:-accesspoint|-outposts|-object-lambda|-control|-accelerate|-external-1|-global"
    r"|express-control|express-[a-z0-9]+-az\d+|-(?:us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d)?(?:-fips)?)"
    r"(?:\.dualstack)?(?:\.[a-z]{2,4}(?:-[a-z]+)+-\d)?"
    r"\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws|vpce\.amazonaws\.com)$"
)


class Place:
    """Where a host name points: its bucket ("" for path style) and the kind of S3 endpoint ("" if not AWS)."""

    __slots__ = ("bucket", "kind")

    def __init__(self, bucket: str, kind: str) -> None:
        self.bucket = bucket
        self.kind = kind


_NOWHERE = Place("", "")
_places: dict[tuple[str, tuple[str, ...]], Place] = {}


def place(host: str, gateway_hosts: tuple[str, ...]) -> Place:
    """Bucket and endpoint kind of a host name (lower case, no port)."""
    found = _places.get((host, gateway_hosts))
    if found is None:
        found = _place(host, gateway_hosts)
        if len(_places) >= MEMO:
            _places.clear()
        _places[(host, gateway_hosts)] = found
    return found


def _place(host: str, gateway_hosts: tuple[str, ...]) -> Place:
    matched = _HOST.match(host)
    if matched:
        service = matched.group("service").removesuffix("-fips")
        return Place(matched.group("bucket") or "", service)
    for gateway in gateway_hosts:
        if host == gateway:
            return _NOWHERE
        if host.endswith("." + gateway):
            rest = host[: -len(gateway) - 1]
            if rest == "s3":
                return _NOWHERE
            return Place(rest.removesuffix(".s3"), "")
    return _NOWHERE


class Choice:
    """An operation chosen for one kind of request, with its IAM action settled."""

    __slots__ = ("action", "level", "operation")

    def __init__(self, operation: Operation, versioned: bool) -> None:
        self.operation = operation
        self.action = S3_VERSION.get(operation.action, operation.action) if versioned else operation.action
        self.level = iam.level(self.action) if versioned else operation.access_level


class Table:
    """The S3 operations by (method, 0 service | 1 bucket | 2 object)."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        self._rows: dict[tuple[str, int], list[Operation]] = {}
        self._literals: dict[str, list[tuple[str, str | None]]] = {}
        self._memo: dict[object, Choice] = {}
        self.response = operations.get("WriteGetObjectResponse")
        for op in operations.values():
            path, _, query = op.uri.partition("?")
            if op.name == "WriteGetObjectResponse":
                continue
            depth = 0 if path == "/" else 2 if "{Key+}" in path else 1
            self._rows.setdefault((op.method, depth), []).append(op)
            self._literals[op.name] = [(n, v) for n, v in split_query(query) if n != "x-id"]

    def choose(self, method: str, depth: int, query: str, copy: bool, express: bool) -> Choice:
        """The operation of a request. Raises Refusal."""
        parameters: dict[str, str] = {}
        if query:
            for name, value in split_query(query):
                if name in parameters and not name.lower().startswith("x-"):
                    raise _refuse(f"the query names {name[:64]!r} twice")
                parameters[name] = value or ""
                copy = copy or name.lower() == _COPY_SOURCE
            values = tuple(parameters.get(name, "") for name in _VALUED)
            hint = parameters.get("x-id") == "ListDirectoryBuckets"
            key: object = (method, depth, copy, express or hint, frozenset(parameters), values)
        else:
            key = (method, depth, copy, express)
        choice = self._memo.get(key)
        if choice is None:
            hint = express or parameters.get("x-id") == "ListDirectoryBuckets"
            choice = self._choose(method, depth, parameters, copy, hint)
            if len(query) <= _MEMO_QUERY:
                if len(self._memo) >= MEMO:
                    self._memo.clear()
                self._memo[key] = choice
        return choice

    def _choose(self, method: str, depth: int, parameters: dict[str, str], copy: bool, express: bool) -> Choice:
        scored: list[tuple[int, bool, Operation]] = []
        for op in self._rows.get((method, depth), ()):
            score = 0
            for name, value in self._literals[op.name]:
                if name not in parameters or (value is not None and parameters[name] != value):
                    break
                score += 4
            else:
                needed = self._needed(op, parameters, copy)
                if needed is not None and not (op.name == "ListDirectoryBuckets" and not express):
                    bonus = 1 if op.name == "ListDirectoryBuckets" else 0
                    scored.append((score + needed + bonus, not op.deprecated, op))
        if not scored:
            what = ("no bucket", "a bucket", "an object")[depth]
            raise _refuse(f"S3 has no operation {method} on {what} with query [{', '.join(sorted(parameters))}]")
        top = max((score, current) for score, current, _ in scored)
        best = [op for score, current, op in scored if (score, current) == top]
        if len(best) > 1:
            raise _refuse("several operations fit: " + ", ".join(op.name for op in best), "aws_ambiguous")
        self._check(best[0], parameters)
        return Choice(best[0], bool(parameters.get("versionId")))

    @staticmethod
    def _needed(op: Operation, parameters: dict[str, str], copy: bool) -> int | None:
        count = 0
        for location, name in op.required:
            if location == "querystring":
                if not any(given.lower() == name for given in parameters):
                    return None
                count += 1
            elif name == _COPY_SOURCE:
                if not copy:
                    return None
                count += 1
        return count

    def _check(self, op: Operation, parameters: dict[str, str]) -> None:
        known = {name.lower() for name in op.query_names}
        known.update(name.lower() for name, _ in self._literals[op.name])
        for name in parameters:
            lower = name.lower()
            if lower not in known and lower not in _PRESIGNED and not lower.startswith("x-"):
                raise _refuse(f"{op.name} takes no query parameter {name[:64]!r}")


def _refuse(why: str, code: str = "aws_unknown_operation") -> Refusal:
    return Refusal(
        "the S3 request could not be understood",
        why,
        "send it as an AWS SDK would, or drop the parameter",
        code=code,
        status=400,
        aws_code="MethodNotAllowed" if code == "aws_unknown_operation" else "InvalidRequest",
    )


def resolve(
    group: Group,
    method: str,
    target: str,
    headers: list[tuple[bytes, bytes]],
    signing_name: str,
    region: str,
    host: str,
    gateway_hosts: tuple[str, ...],
) -> Target | None:
    """The target of an S3 request, or None if it is an S3 Control request. Raises Refusal."""
    path, _, query = target.partition("?")
    account = copy = False
    named = host
    for name, value in headers:
        size = len(name)
        if size == 17 and name.lower() == b"x-amz-copy-source":
            copy = True
        elif size == 16 and name.lower() == b"x-amz-account-id":
            account = True
        elif size == 4 and not named and name.lower() == b"host":
            named = value.decode("latin-1").rpartition(":")[0] or value.decode("latin-1")
            named = named.lower()
    spot = place(named, gateway_hosts) if named else _NOWHERE
    if path.startswith(_CONTROL_PATH) and (
        spot.kind in ("s3-control", "s3express-control", "s3-outposts") or (not spot.kind and account)
    ):
        return None
    if spot.kind == "s3-control":
        raise _refuse("S3 Control is asked under /v20180820/, spelt so")
    table = s3_table(group)
    if signing_name == "s3-object-lambda" and path == "/WriteGetObjectResponse" and method == "POST":
        if table.response is None:
            raise _refuse("this botocore does not know WriteGetObjectResponse")
        return table.response.target(Protocol.REST_XML, region)
    bucket, key = split(path, spot)
    if bucket in (".", "..") or "/" in bucket or (not spot.bucket and path.startswith("//")):
        raise _refuse("the path names no bucket that could exist")
    depth = 2 if key else 1 if bucket else 0
    choice = table.choose(method, depth, query, copy, signing_name == "s3express")
    op = choice.operation
    service = op.service
    return Target(
        service.name,
        signing_name,
        op.name,
        Protocol.REST_XML,
        choice.action,
        choice.level,
        region,
        service.endpoint_prefix,
        "",
        op.event_stream_in,
        op.event_stream_out,
        op.issues,
        bucket,
        key,
        bool(spot.bucket),
        False,
        op.hosts,
    )


def split(path: str, spot: Place) -> tuple[str, str]:
    """(bucket, key still percent-encoded) of a raw path under a host."""
    if spot.bucket:
        return spot.bucket, path[1:]
    bucket, _, key = path[1:].partition("/")
    return (unquote(bucket) if "%" in bucket else bucket), key


def s3_table(group: Group) -> Table:
    """The table of a group, made on first use."""
    if group.s3 is None:
        for service in group.services:
            if service.name == "s3":
                group.s3 = Table(service.operations)
    if group.s3 is None:
        raise _refuse("botocore has no S3 model")
    return group.s3
