"""The head of an AWS call as it goes upstream: the client's own lines, less its lease, signed anew.

What the client sent goes on byte for byte except for what binds it to its lease (signature, token, date) and what
binds it to this hop (Host, Connection and the like). The same set of headers that AWS looks at is signed.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

from narrows.core.errors import Refusal
from narrows.wire import scrub, sigv4
from narrows.wire.http1 import RequestHead
from narrows.wire.sigv4_keys import keyed

HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
        b"transfer-encoding",
        b"content-length",
        b"expect",
        b"host",
    }
)
"""Headers of one hop (RFC 9110 section 7.6.1), and those that are written anew."""

_OF_UPGRADE = frozenset({b"http2-settings"})
"""Goes with `Upgrade: h2c`, an offer that is passed over."""

_DROP = HOP | _OF_UPGRADE | {b"authorization", b"x-amz-security-token", b"x-amz-date", b"date"}

_DROP_PRESIGNED = HOP | _OF_UPGRADE | {b"authorization", b"x-amz-security-token"}

_SIGNED = frozenset({b"content-type", b"content-md5"})
"""Signed whenever present, beside host and every x-amz-*."""

_NEVER_SIGNED = frozenset({b"user-agent", b"traceparent", b"tracestate", b"baggage", b"x-amzn-trace-id"})

_AUTH_PARAMETERS = frozenset(
    {
        b"x-amz-algorithm",
        b"x-amz-credential",
        b"x-amz-date",
        b"x-amz-expires",
        b"x-amz-signedheaders",
        b"x-amz-signature",
        b"x-amz-security-token",
    }
)
_AUTH_PARAMETERS_V2 = frozenset({b"awsaccesskeyid", b"signature", b"expires", b"x-amz-security-token"})

PRESIGN_SECONDS = 300
"""Validity of a presigned request as it leaves the gateway; it is used at once."""


def named_by_connection(head: RequestHead) -> None:
    """Raise Refusal where the Connection header names a header that came and is not of this hop anyway.

    A client must not be able to strip a header that it signed, or that AWS acts on, on the way: what was verified
    would not be what is sent.
    """
    value = head.get(b"connection")
    if value is None:
        return
    for name in {part.strip().lower() for part in value.split(b",")} - HOP - _OF_UPGRADE:
        if head.get(name) is not None:
            raise Refusal(
                "The Connection header names a header that is part of the call",
                name.decode("latin-1"),
                code="hop_by_hop_abuse",
                status=400,
                aws_code="InvalidRequest",
            )


def build(
    head: RequestHead,
    *,
    target: bytes,
    host: str,
    payload_hash: bytes,
    client_signed: tuple[bytes, ...],
    framing: bytes,
    credentials: sigv4.Credentials,
    key: bytes,
    amz_date: str,
    region: str,
    service: str,
    encoding: int,
) -> tuple[bytes, bytes, str]:
    """Return (head to send, head to record, seed signature) for a header-signed call.

    `framing` is the `Content-Length`/`Transfer-Encoding` line to write, or empty. `encoding` is how the client
    read path and query when it signed (`sigv4.Verified`). Raises Refusal for a Connection header
    that names part of the call.
    """
    shape, lines = head.shape, head.lines
    if b"connection" in shape.index:
        named_by_connection(head)
    token = credentials.session_token.encode("ascii") if credentials.session_token else b""
    plan_key = ("outbound", client_signed, bool(token))
    plan = shape.plans.get(plan_key)
    if plan is None:
        plan = _plan(shape.names, client_signed, with_token=bool(token))
        shape.remember(plan_key, plan)
    kept, signed, names = plan
    host_value, date_value = host.encode("ascii"), amz_date.encode("ascii")
    fields = [*head.headers, (b"", host_value), (b"", date_value), (b"", token)]
    if shape.distinct:
        block = sigv4.block_of([name + fields[places[0]][1] for name, places in signed])
    else:
        block = sigv4.block_of([name + b",".join([fields[at][1] for at in places]) for name, places in signed])
    authorization, seed = sigv4.sign_block(
        head.method, target, block, names, payload_hash, credentials, key, amz_date, region, service, encoding
    )
    out = [b"Host: " + host_value, *[lines[at] for at in kept]]
    if framing:
        out.append(framing)
    out.append(b"X-Amz-Date: " + date_value)
    start = head.method + b" " + target + b" HTTP/1.1"
    shown = start + b"\r\n" + b"\r\n".join(out)
    if not token:
        return (
            shown + b"\r\nAuthorization: " + authorization + b"\r\n\r\n",
            shown + b"\r\nAuthorization: " + b"*" * len(authorization) + b"\r\n\r\n",
            seed,
        )
    return (
        b"%b\r\nX-Amz-Security-Token: %b\r\nAuthorization: %b\r\n\r\n" % (shown, token, authorization),
        b"%b\r\nX-Amz-Security-Token: %b\r\nAuthorization: %b\r\n\r\n"
        % (shown, b"*" * len(token), b"*" * len(authorization)),
        seed,
    )


_Plan = tuple[list[int], list[tuple[bytes, list[int]]], bytes]


def _plan(names: tuple[bytes, ...], client_signed: tuple[bytes, ...], *, with_token: bool) -> _Plan:
    """What follows from the field names: the lines that go on, what is signed from where, and its names.

    Places past the client's own fields stand for host, date and token, in this order.
    """
    size = len(names)
    kept = [at for at, name in enumerate(names) if name not in _DROP]
    signed: dict[bytes, list[int]] = {b"host": [size], b"x-amz-date": [size + 1]}
    if with_token:
        signed[b"x-amz-security-token"] = [size + 2]
    for at in kept:
        name = names[at]
        if name[:6] == b"x-amz-" or name in _SIGNED or (name in client_signed and name not in _NEVER_SIGNED):
            signed.setdefault(name, []).append(at)
    ordered = sorted(signed)
    return kept, [(name + b":", signed[name]) for name in ordered], b";".join(ordered)


def strip_presign(target: bytes, *, v2: bool) -> bytes:
    """The target without the client's query authentication."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    names = _AUTH_PARAMETERS_V2 if v2 else _AUTH_PARAMETERS
    kept = [part for part in query.split(b"&") if part.partition(b"=")[0].lower() not in names]
    return path + b"?" + b"&".join(kept) if kept else path


def build_presigned(
    head: RequestHead,
    *,
    target: bytes,
    host: str,
    payload_hash: bytes,
    signed_headers: tuple[bytes, ...],
    framing: bytes,
    credentials: sigv4.Credentials,
    key: bytes,
    amz_date: str,
    region: str,
    service: str,
    encoding: int,
) -> tuple[bytes, bytes, str]:
    """Return (head to send, head to record, signature) for a call that authenticates by its query.

    `target` is already without the client's authentication. It stays query-signed, since some parameters mean
    something only there (headers hoisted into the query). The same headers are signed as the client signed.
    """
    named_by_connection(head)
    scope = f"{amz_date[:8]}/{region}/{service}/aws4_request"
    parameters = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{credentials.access_key_id}/{scope}"),
        ("X-Amz-Date", amz_date),
        ("X-Amz-Expires", str(PRESIGN_SECONDS)),
        ("X-Amz-SignedHeaders", ";".join(sorted(name.decode("latin-1") for name in signed_headers))),
    ]
    if credentials.session_token:
        parameters.append(("X-Amz-Security-Token", credentials.session_token))
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in parameters).encode("ascii")
    full = target + (b"&" if target.find(b"?") >= 0 else b"?") + query
    host_value = host.encode("ascii")
    headers = [(b"host", host_value)]
    out = [b"Host: " + host_value]
    for (name, value), line in zip(head.headers, head.lines, strict=True):
        if name in _DROP_PRESIGNED:
            continue
        out.append(line)
        headers.append((name, value))
    if framing:
        out.append(framing)
        name, _, value = framing.partition(b": ")
        headers.append((name.lower(), value))
    canonical = sigv4.canonical_request(
        head.method, full, headers, tuple(sorted(signed_headers)), payload_hash, service, encoding=encoding
    )
    to_sign = f"AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{sha256(canonical).hexdigest()}"
    mac = keyed(key)
    mac.update(to_sign.encode("ascii"))
    signature = mac.hexdigest()
    start = head.method + b" " + full + b"&X-Amz-Signature=" + signature.encode("ascii") + b" HTTP/1.1"
    rest = b"\r\n" + b"\r\n".join(out) + b"\r\n\r\n"
    return start + rest, scrub.target(start) + rest, signature
