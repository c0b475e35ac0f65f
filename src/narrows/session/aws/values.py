"""What `resolve` answers with: the target of an AWS call."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Protocol(StrEnum):
    """The wire protocols of AWS APIs."""

    JSON10 = "json-1.0"
    JSON11 = "json-1.1"
    QUERY = "query"
    EC2 = "ec2"
    REST_JSON = "rest-json"
    REST_XML = "rest-xml"
    CBOR = "rpc-v2-cbor"


@dataclass(slots=True)
class Target:
    """Which operation of which service a request calls. Shared between calls of one kind: never change one.

    `service` is the botocore model's directory name. `action` is the IAM action (`s3:PutObject`), `access_level` its
    level or "" if unknown. `region` is the region of the request's credential scope. `host_prefix` is what goes before
    the service's host, labels filled in (`123456789012.`). `operation` is "" only for customer-defined APIs
    (API Gateway, Lambda URLs and the like). `bucket` and `key` are set for S3; `key` is as on the wire, still
    percent-encoded, without its leading slash. `virtual_host` says that the bucket came from the host name.
    """

    service: str
    signing_name: str
    operation: str
    protocol: Protocol
    action: str = ""
    access_level: str = ""
    region: str = ""
    endpoint_prefix: str = ""
    host_prefix: str = ""
    event_stream_in: bool = False
    event_stream_out: bool = False
    issues_credentials: bool = False
    bucket: str = ""
    key: str = ""
    virtual_host: bool = False
    query_compatible: bool = False
    hosts: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)
    """Endpoint templates of the service's rules, for `endpoints.host_for`."""
