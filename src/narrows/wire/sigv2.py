"""Presigned S3 URLs of Signature Version 2: boto3's default `generate_presigned_url` still makes them.

Sans-I/O and pure; the clock is an argument. Source: Amazon S3 Developer Guide, "Signing and authenticating
REST requests", section "Query string request authentication alternative". HMAC-SHA1 is that scheme's, not
our choice: it is accepted for requests that are re-signed with SigV4 before they leave.

Guaranteed: whatever bytes come in, the functions return or raise AuthError. Comparison takes constant time.

The string to sign covers what S3 reads as headers wherever it came: a presigned URL may carry `x-amz-*`,
`content-type` and `content-md5` as query parameters. One that comes in both places with two values is
refused.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from hmac import compare_digest
from hmac import digest as hmac_digest
from operator import itemgetter
from typing import Final
from urllib.parse import unquote_to_bytes

from narrows.wire.shape import Headers
from narrows.wire.sigv4_claim import AuthError

SUB_RESOURCES: Final = frozenset(
    {
        b"accelerate",
        b"acl",
        b"analytics",
        b"cors",
        b"defaultObjectAcl",
        b"delete",
        b"inventory",
        b"lifecycle",
        b"location",
        b"logging",
        b"metrics",
        b"notification",
        b"object-lock",
        b"partNumber",
        b"policy",
        b"replication",
        b"requestPayment",
        b"response-cache-control",
        b"response-content-disposition",
        b"response-content-encoding",
        b"response-content-language",
        b"response-content-type",
        b"response-expires",
        b"restore",
        b"select",
        b"select-type",
        b"storageClass",
        b"tagging",
        b"torrent",
        b"uploadId",
        b"uploads",
        b"versionId",
        b"versioning",
        b"versions",
        b"website",
    }
)
"""Query parameters that belong to the resource, as the SDKs that still sign so have them."""

_MARKS: Final = (b"AWSAccessKeyId", b"Signature", b"Expires")
_KEY_ID = re.compile(rb"[\x21-\x7e]{1,256}")
_SIGNATURE = re.compile(rb"[A-Za-z0-9+/]{27}=")
_HINT: Final = (
    "sign with SigV4: boto3 Config(signature_version='s3v4'), AWS CLI `aws configure set default.s3.signature_version "
    "s3v4`; other clients have a setting named signature version"
)


@dataclass(slots=True)
class ClaimV2:
    """Who a presigned SigV2 URL says that it is from. Nothing in it is verified. `expires` is Unix seconds.

    The rest is what the string to sign is made of; `amz` is by name, sorted; `resource` is without a bucket
    that stands in the host name only.
    """

    access_key_id: str
    signature: bytes = field(repr=False)
    expires: int
    token: bytes | None = field(repr=False)
    method: bytes
    content_md5: bytes
    content_type: bytes
    amz: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    path: bytes
    sub_resources: bytes


def parse(method: bytes, target: bytes, headers: Headers) -> ClaimV2 | None:
    """Return the SigV2 claim of a presigned URL, or None where there is none ("not mine").

    Raises AuthError for a claim that is malformed, doubled, or beside an Authorization header, and for the
    forms of SigV2 that are not taken: the Authorization header, and the query form of services other than
    S3.
    """
    authorization = [value for name, value in headers if name == b"authorization"]
    for value in authorization:
        if value[:4].upper() == b"AWS ":
            raise _refused("the Authorization header is of the form AWS KEY-ID:SIGNATURE")
    path, _, query = target.partition(b"?")
    if b"AWSAccessKeyId" not in query:
        return None
    params = [(name, value) for name, _, value in (piece.partition(b"=") for piece in query.split(b"&"))]
    marks: dict[bytes, bytes] = {}
    for name, value in params:
        if name in _MARKS:
            if name in marks:
                raise _malformed(f"{name.decode()} stands in it twice")
            marks[name] = unquote_to_bytes(value)
    if b"AWSAccessKeyId" not in marks:
        return None
    if any(name == b"SignatureVersion" for name, _ in params):
        raise _refused("the query names SignatureVersion")
    if authorization:
        raise _malformed("the request has an Authorization header as well")
    if any(name.lower() in (b"x-amz-signature", b"x-amz-algorithm", b"x-amz-credential") for name, _ in params):
        raise _malformed("it has a SigV4 signature as well")
    for name in _MARKS:
        if name not in marks:
            raise _malformed(f"{name.decode()} is missing")
    return _claim(method, path, query, params, headers, marks)


def _claim(
    method: bytes,
    path: bytes,
    query: bytes,
    params: list[tuple[bytes, bytes]],
    headers: Headers,
    marks: dict[bytes, bytes],
) -> ClaimV2:
    access_key_id, expires, signature = marks[b"AWSAccessKeyId"], marks[b"Expires"], marks[b"Signature"]
    if _KEY_ID.fullmatch(access_key_id) is None:
        raise _malformed("AWSAccessKeyId is not a key id")
    if not expires.isdigit() or len(expires) > 12:
        raise _malformed("Expires is not a number of seconds since 1970")
    if _SIGNATURE.fullmatch(signature) is None:
        raise _malformed("Signature is not 20 bytes in base64")
    covered: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name.startswith(b"x-amz-") or name in (b"content-md5", b"content-type"):
            covered.setdefault(name, []).append(value.strip())
    said = {name: b",".join(values) for name, values in covered.items()}
    in_query: set[bytes] = set()
    for name, value in params:
        lower = name.lower()
        if lower.startswith(b"x-amz-") or lower in (b"content-md5", b"content-type"):
            text = unquote_to_bytes(value)
            if lower in in_query or said.get(lower, text) != text:
                raise _malformed("a header stands in it twice, or beside the same header with another value")
            in_query.add(lower)
            said[lower] = text
    return ClaimV2(
        access_key_id.decode("ascii"),
        signature,
        int(expires),
        said.get(b"x-amz-security-token"),
        method,
        said.pop(b"content-md5", b""),
        said.pop(b"content-type", b""),
        tuple(sorted(said.items())),
        path,
        _sub_resources(query),
    )


def _sub_resources(query: bytes) -> bytes:
    """The part of the query that belongs to the resource: sorted by name only, values decoded, a bare name
    bare.
    """
    found: list[tuple[bytes, bytes]] = []
    for piece in query.split(b"&"):
        name, equals, value = piece.partition(b"=")
        if name in SUB_RESOURCES:
            found.append((name, name + equals + unquote_to_bytes(value)))
    found.sort(key=itemgetter(0))
    return b"&".join([text for _, text in found])


def string_to_sign(claim: ClaimV2, bucket_from_host: str = "") -> bytes:
    """What the signature covers. `bucket_from_host` is the bucket of a virtual-host request, which S3
    counts in.

    The result may hold a session token: not for logs.
    """
    amz = b"".join([name + b":" + value + b"\n" for name, value in claim.amz])
    resource = claim.path
    if bucket_from_host:
        resource = b"/" + bucket_from_host.encode() + resource
    if claim.sub_resources:
        resource += b"?" + claim.sub_resources
    lines = (
        claim.method,
        claim.content_md5,
        claim.content_type,
        str(claim.expires).encode(),
        amz + resource,
    )
    return b"\n".join(lines)


def verify(claim: ClaimV2, secret: str, now_s: float, bucket_from_host: str = "") -> None:
    """Verify a claim; `now_s` is Unix seconds. Raises AuthError: AccessDenied after `expires`,
    SignatureDoesNotMatch.
    """
    if now_s > claim.expires:
        raise AuthError(
            "AccessDenied",
            "Request has expired",
            f"the presigned URL expired {now_s - claim.expires:.0f} s ago",
            "presign it again",
            code="presign_expired",
        )
    digest = hmac_digest(secret.encode(), string_to_sign(claim, bucket_from_host), "sha1")
    if not compare_digest(b64encode(digest), claim.signature):
        raise AuthError(
            "SignatureDoesNotMatch",
            "the presigned URL's signature does not match the request",
            "it covers the method, path, sub-resources, Content-MD5, Content-Type and x-amz-* headers",
            "send the headers that the URL was presigned with, or presign with SigV4 (signature_version s3v4)",
        )


def _malformed(why: str) -> AuthError:
    return AuthError("AccessDenied", "the presigned URL was not understood", why, code="signature_query_malformed")


def _refused(why: str) -> AuthError:
    return AuthError(
        "IncompleteSignature",
        "the request is signed with Signature Version 2, which is taken in presigned S3 URLs only",
        why,
        _HINT,
        code="sigv2_unsupported",
    )
