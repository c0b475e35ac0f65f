"""The real AWS host of a call that came in endpoint form, and the names of AWS's own hosts.

Hosts come from the rule sets of the service models (the source that the SDKs use), kept in the index as one template
per partition plus the regions that differ. S3's own rules are short and are written out here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from narrows.core.errors import Refusal
from narrows.session.aws.values import Target

PARTITIONS: tuple[tuple[str, re.Pattern[str], str, str], ...] = (
    ("aws-cn", re.compile(r"^cn-\w+-\d+$"), "amazonaws.com.cn", "cn-northwest-1"),
    ("aws-us-gov", re.compile(r"^us-gov-\w+-\d+$"), "amazonaws.com", "us-gov-west-1"),
    ("aws-eusc", re.compile(r"^eusc-de-\w+-\d+$"), "amazonaws.eu", "eusc-de-east-1"),
    ("aws-iso", re.compile(r"^us-iso-\w+-\d+$"), "c2s.ic.gov", "us-iso-east-1"),
    ("aws-iso-b", re.compile(r"^us-isob-\w+-\d+$"), "sc2s.sgov.gov", "us-isob-east-1"),
    ("aws-iso-e", re.compile(r"^eu-isoe-\w+-\d+$"), "cloud.adc-e.uk", "eu-isoe-west-1"),
    ("aws-iso-f", re.compile(r"^us-isof-\w+-\d+$"), "csp.hci.ic.gov", "us-isof-south-1"),
    ("aws", re.compile(r"^[a-z]{2}-[a-z]+-\d+$"), "amazonaws.com", "us-east-1"),
)
"""(partition, its regions, DNS suffix, region that global services sign for), most particular first."""

OWN_HOST: frozenset[str] = frozenset(
    (
        "apigatewaymanagementapi",
        "cloudfront-keyvaluestore",
        "cloudsearchdomain",
        "execute-api",
        "kinesis-video-archived-media",
        "kinesis-video-media",
        "kinesis-video-signaling",
        "kinesis-video-webrtc-storage",
        "mediastore-data",
        "neptunedata",
    )
)
"""Services whose hosts belong to one resource of the customer's: only the proxy form shows which."""

_SUFFIXES = (
    "*.amazonaws.com",
    "*.amazonaws.com.cn",
    "*.amazonaws.eu",
    "*.api.aws",
    "*.on.aws",
    "*.signin.aws",
    "*.api.amazonwebservices.com.cn",
    "*.api.amazonwebservices.eu",
    "signin.aws.amazon.com",
    "*.signin.aws.amazon.com",
)
_EXPRESS_BUCKET = re.compile(r"^[a-z0-9.-]+--([a-z0-9]+-az\d+)--x-s3$")
_EXPRESS_CONTROL = frozenset(
    (
        "CreateBucket",
        "DeleteBucket",
        "ListDirectoryBuckets",
        "PutBucketPolicy",
        "GetBucketPolicy",
        "DeleteBucketPolicy",
        "PutBucketEncryption",
        "GetBucketEncryption",
        "DeleteBucketEncryption",
        "PutBucketLifecycleConfiguration",
        "GetBucketLifecycleConfiguration",
        "DeleteBucketLifecycle",
    )
)
_CACHE: dict[tuple[str, str, str, str, str, bool], Endpoint] = {}
_CACHE_SIZE = 8192
_REGION = re.compile(r"^[a-z0-9-]{2,32}$")


class Endpoint(NamedTuple):
    """A real host (no port; TLS on 443) and the region to sign for."""

    host: str
    signing_region: str


def aws_hosts() -> tuple[str, ...]:
    """Host names of AWS's public APIs, exact or `*.suffix`, for a connection that covers all of AWS."""
    return _SUFFIXES


def partition(region: str) -> tuple[str, str, str]:
    """(partition, DNS suffix, default region) of a region; unknown regions belong to `aws`."""
    for name, pattern, suffix, default in PARTITIONS:
        if pattern.match(region):
            return name, suffix, default
    return "aws", "amazonaws.com", "us-east-1"


def host_for(target: Target, region: str = "", *, virtual_host: bool = False) -> Endpoint:
    """The host that a resolved target is really served by in `region` (the target's own region if empty).

    For S3 this is the host for path-style requests, or with `virtual_host` the bucket's own (`bucket.s3...`).
    Raises Refusal where only the caller could have known the host.
    """
    region = region or target.region or "us-east-1"
    is_s3 = target.service == "s3"
    key = (
        target.service,
        target.operation,
        region,
        target.host_prefix,
        target.bucket if is_s3 else "",
        virtual_host,
    )
    found = _CACHE.get(key)
    if found is None:
        found = _s3(target, region, virtual_host) if is_s3 else _general(target, region)
        if len(_CACHE) >= _CACHE_SIZE:
            _CACHE.clear()
        _CACHE[key] = found
    return found


def _general(target: Target, region: str) -> Endpoint:
    name, _, _ = partition(region)
    entry = target.hosts.get(region) or target.hosts.get(name)
    if target.service in OWN_HOST or not entry or not _REGION.match(region):
        raise Refusal(
            f"the host of {target.service} in {region[:32]!r} is not known",
            "it depends on a resource of the account, or the service is not in this partition",
            "use the proxy form (HTTPS_PROXY), which shows the true host",
            code="aws_unknown_service",
            status=400,
            aws_code="UnknownOperationException",
        )
    host, signing = (part.replace("{region}", region) for part in entry)
    return Endpoint(target.host_prefix + host, signing or region)


def _s3(target: Target, region: str, virtual_host: bool) -> Endpoint:
    if region in ("aws-global", ""):
        region = "us-east-1"
    if not _REGION.match(region):
        raise Refusal("the S3 region is malformed", code="aws_unknown_service", status=400)
    suffix = partition(region)[1]
    express = _EXPRESS_BUCKET.match(target.bucket)
    if target.signing_name == "s3-object-lambda":
        base = f"s3-object-lambda.{region}.{suffix}"
    elif express and target.operation not in _EXPRESS_CONTROL:
        base = f"s3express-{express.group(1)}.{region}.{suffix}"
    elif target.signing_name == "s3express":
        base = f"s3express-control.{region}.{suffix}"
    elif target.signing_name == "s3-outposts":
        raise Refusal(
            "S3 on Outposts needs the true host",
            "its host names an access point and an outpost",
            "use the proxy form (HTTPS_PROXY)",
            code="aws_unknown_service",
            status=400,
        )
    else:
        base = f"s3.{region}.{suffix}"
    if virtual_host and target.bucket:
        if not re.match(r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$", target.bucket):
            raise Refusal(
                "the bucket name is malformed",
                code="aws_unknown_operation",
                status=400,
                aws_code="InvalidBucketName",
            )
        return Endpoint(f"{target.bucket}.{base}", region)
    return Endpoint(base, region)
