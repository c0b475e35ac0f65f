"""Error answers in AWS's shape for each protocol, so that SDKs raise their own exceptions.

Shapes: the Smithy protocol pages `awsJson1_0`, `restJson1`, `awsQuery`, `ec2Query`, `restXml`, `rpcv2Cbor`, and S3's
"Error responses". Codes: "Common errors" of the API references, and S3's list of error codes.
"""

from __future__ import annotations

import json

from narrows.session.aws.values import Protocol

_JSON: dict[str, tuple[str, int]] = {
    "invalid_token": ("UnrecognizedClientException", 400),
    "expired_token": ("ExpiredTokenException", 400),
    "bad_signature": ("InvalidSignatureException", 400),
    "denied": ("AccessDeniedException", 400),
    "skewed": ("InvalidSignatureException", 400),
    "malformed": ("IncompleteSignatureException", 400),
    "throttled": ("ThrottlingException", 400),
    "unavailable": ("ServiceUnavailableException", 503),
    "internal": ("InternalServerError", 500),
    "payload_mismatch": ("InvalidSignatureException", 400),
    "unknown_operation": ("UnknownOperationException", 400),
}
_REST_JSON: dict[str, tuple[str, int]] = _JSON | {
    "invalid_token": ("UnrecognizedClientException", 403),
    "expired_token": ("ExpiredTokenException", 403),
    "bad_signature": ("InvalidSignatureException", 403),
    "denied": ("AccessDeniedException", 403),
    "skewed": ("InvalidSignatureException", 403),
    "malformed": ("IncompleteSignatureException", 403),
    "throttled": ("ThrottlingException", 429),
    "payload_mismatch": ("InvalidSignatureException", 403),
    "unknown_operation": ("UnknownOperationException", 404),
}
_QUERY: dict[str, tuple[str, int]] = {
    "invalid_token": ("InvalidClientTokenId", 403),
    "expired_token": ("ExpiredToken", 403),
    "bad_signature": ("SignatureDoesNotMatch", 403),
    "denied": ("AccessDenied", 403),
    "skewed": ("SignatureDoesNotMatch", 403),
    "malformed": ("IncompleteSignature", 400),
    "throttled": ("Throttling", 400),
    "unavailable": ("ServiceUnavailable", 503),
    "internal": ("InternalFailure", 500),
    "payload_mismatch": ("SignatureDoesNotMatch", 403),
    "unknown_operation": ("InvalidAction", 400),
}
_EC2: dict[str, tuple[str, int]] = _QUERY | {
    "invalid_token": ("AuthFailure", 401),
    "expired_token": ("RequestExpired", 400),
    "denied": ("UnauthorizedOperation", 403),
    "skewed": ("RequestExpired", 400),
    "throttled": ("RequestLimitExceeded", 503),
    "unavailable": ("Unavailable", 503),
    "internal": ("InternalError", 500),
}
_S3: dict[str, tuple[str, int]] = {
    "invalid_token": ("InvalidAccessKeyId", 403),
    "expired_token": ("ExpiredToken", 400),
    "bad_signature": ("SignatureDoesNotMatch", 403),
    "denied": ("AccessDenied", 403),
    "skewed": ("RequestTimeTooSkewed", 403),
    "malformed": ("AuthorizationHeaderMalformed", 400),
    "throttled": ("SlowDown", 503),
    "unavailable": ("ServiceUnavailable", 503),
    "internal": ("InternalError", 500),
    "payload_mismatch": ("XAmzContentSHA256Mismatch", 400),
    "unknown_operation": ("MethodNotAllowed", 405),
}

_S3_SHAPED = frozenset(("s3", "s3express", "s3-outposts", "s3-object-lambda"))
"""Services (and signing names) whose errors are S3's `<Error>`; the other XML services have `<ErrorResponse>`."""

KINDS = tuple(_JSON)
"""The kinds that `error_code` takes."""


def error_code(kind: str, protocol: Protocol | None, service: str) -> tuple[str, int]:
    """(AWS error code, HTTP status) that a client of `protocol` and `service` knows for one of `KINDS`."""
    if service in _S3_SHAPED:
        table = _S3
    elif protocol is Protocol.EC2:
        table = _EC2
    elif protocol is Protocol.QUERY or protocol is Protocol.REST_XML:
        table = _QUERY
    elif protocol is Protocol.REST_JSON or protocol is None:
        table = _REST_JSON
    else:
        table = _JSON
    return table[kind]


_KIND_OF: dict[str, str] = {}
for _table in (_S3, _EC2, _QUERY, _REST_JSON, _JSON):
    for _kind, (_code, _) in _table.items():
        _KIND_OF.setdefault(_code, _kind)
_KIND_OF["SignatureDoesNotMatch"] = _KIND_OF["InvalidSignatureException"] = "bad_signature"
_KIND_OF["RequestExpired"] = "expired_token"


def adapt(code: str, protocol: Protocol | None, service: str) -> str:
    """A code of any protocol (`AccessDenied`) as the given protocol spells it (`AccessDeniedException`).

    A code that is none of the common ones is returned as it is.
    """
    kind = _KIND_OF.get(code)
    return error_code(kind, protocol, service)[0] if kind else code


def guess_protocol(headers: list[tuple[bytes, bytes]], service: str) -> Protocol:
    """The protocol that a client speaks, from its headers and a signing name, where no operation was resolved."""
    content_type = b""
    for name, value in headers:
        lower = name.lower()
        if lower == b"smithy-protocol":
            return Protocol.CBOR
        if lower == b"content-type":
            content_type = value.strip().lower()
    if service.startswith("s3") or service in ("route53", "cloudfront"):
        return Protocol.REST_XML
    if content_type.startswith(b"application/x-amz-json-1.0"):
        return Protocol.JSON10
    if content_type.startswith(b"application/x-amz-json"):
        return Protocol.JSON11
    if content_type.startswith(b"application/cbor"):
        return Protocol.CBOR
    if content_type.startswith(b"application/x-www-form-urlencoded"):
        return Protocol.EC2 if service == "ec2" else Protocol.QUERY
    return Protocol.REST_JSON


def render(
    protocol: Protocol | None,
    service: str,
    operation: str,
    code: str,
    message: str,
    status: int,
    request_id: str,
    *,
    query_compatible: bool = False,
    head: bool = False,
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """(status, headers with Content-Length, body) of an error answer.

    `protocol` None means that it is not known yet: the answer is one that the JSON parsers read, with the code also in
    a header. `head` says that the request was HEAD: no body then, the length stands as for the body (RFC 9110 9.3.2).
    `operation` is unused by AWS's shapes today and taken so that callers need not care.
    """
    headers = [(b"x-amzn-RequestId", _field(request_id))]
    if protocol is Protocol.QUERY or (protocol is Protocol.REST_XML and service not in _S3_SHAPED):
        body = _query(code, message, status, request_id)
        headers.append((b"Content-Type", b"text/xml"))
    elif protocol is Protocol.EC2:
        body = _ec2(code, message, request_id)
        headers.append((b"Content-Type", b"text/xml;charset=UTF-8"))
    elif protocol is Protocol.REST_XML:
        body = _s3(code, message, request_id)
        headers = [(b"x-amz-request-id", _field(request_id)), (b"Content-Type", b"application/xml")]
    elif protocol is Protocol.CBOR:
        body = _cbor_map({"__type": code, "message": message})
        headers += [(b"smithy-protocol", b"rpc-v2-cbor"), (b"Content-Type", b"application/cbor")]
    else:
        fields = {"__type": code, "message": message}
        body = json.dumps(fields, separators=(",", ":")).encode()
        kind = b"application/json"
        if protocol is Protocol.JSON10 or protocol is Protocol.JSON11:
            kind = b"application/x-amz-json-1.0" if protocol is Protocol.JSON10 else b"application/x-amz-json-1.1"
        headers += [(b"Content-Type", kind), (b"x-amzn-ErrorType", _field(code))]
    if query_compatible and protocol in (Protocol.JSON10, Protocol.JSON11, Protocol.CBOR):
        fault = "Sender" if status < 500 else "Receiver"
        headers.append((b"x-amzn-query-error", _field(f"{code};{fault}")))
    headers.append((b"Content-Length", str(len(body)).encode()))
    return status, headers, b"" if head else body


def _field(text: str) -> bytes:
    """A header value that cannot break out of its line."""
    return "".join(c if 32 <= ord(c) < 127 else "?" for c in text).encode()


def _text(text: str) -> str:
    # XML 1.0 allows no control characters but tab, CR and LF, and no lone surrogates, even escaped.
    kept = (c if c in "\t\n\r" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF) else "?" for c in text)
    text = "".join("?" if c in "\ufffe\uffff" else c for c in kept)
    # Not xml.sax.saxutils.escape, which imports urllib, http and ssl.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _query(code: str, message: str, status: int, request_id: str) -> bytes:
    fault = "Sender" if status < 500 else "Receiver"
    return (
        f"<ErrorResponse><Error><Type>{fault}</Type><Code>{_text(code)}</Code><Message>{_text(message)}</Message>"
        f"</Error><RequestId>{_text(request_id)}</RequestId></ErrorResponse>"
    ).encode()


def _ec2(code: str, message: str, request_id: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{_text(code)}</Code><Message>{_text(message)}</Message></Error></Errors>"
        f"<RequestID>{_text(request_id)}</RequestID></Response>"
    ).encode()


def _s3(code: str, message: str, request_id: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{_text(code)}</Code><Message>{_text(message)}</Message>"
        f"<RequestId>{_text(request_id)}</RequestId></Error>"
    ).encode()


def _cbor_map(fields: dict[str, str]) -> bytes:
    """A CBOR map of text to text (RFC 8949)."""
    out = bytearray((0xA0 | len(fields),))
    for name, value in fields.items():
        for text in (name, value):
            raw = text.encode("utf-8", "replace")
            size = len(raw)
            if size < 24:
                out.append(0x60 | size)
            elif size < 256:
                out += bytes((0x78, size))
            else:
                out += b"\x7a" + size.to_bytes(4, "big")
            out += raw
    return bytes(out)
