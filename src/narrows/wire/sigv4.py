"""AWS Signature Version 4: read a claim off a request, verify it, and sign a request anew.

Sans-I/O and pure; the clock is an argument. Sources: AWS, "Signature Version 4 for API requests"; Amazon S3
API Reference, "Authenticating Requests (AWS Signature Version 4)" with its streaming sub-pages.

Guaranteed: whatever bytes come in, the functions return or raise AuthError. No error text, repr or cache
repr holds a key, a secret, a token or a computed signature. Signatures are compared in constant time.

Headers are `list[tuple[bytes, bytes]]` as received: names lower case, values stripped, order kept. A target
is the raw `path[?query]`; method and target are bytes as they came.

Rules that are stricter than the computation needs, since the signature is all that we know of a caller:
- `host` is signed, and so is every `x-amz-*` header that came (S3 has the same rule). Of all SDKs looked
  at, only presigned URLs leave one out, `x-amz-user-agent`; it may go unsigned there.
- every signed header came; a request names its credential, date and signature once, in one place.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from narrows.wire import canonical
from narrows.wire.shape import Headers, Shape
from narrows.wire.sigv4_claim import ALGORITHM, MAX_EXPIRES_S, AuthError, Claim, parse, sigv4a_refused
from narrows.wire.sigv4_keys import EMPTY_SHA256, ChunkSigner, Credentials, KeyCache, keyed, signing_key

__all__ = [
    "ALGORITHM",
    "EMPTY_SHA256",
    "MAX_EXPIRES_S",
    "MAX_SKEW_S",
    "AuthError",
    "ChunkSigner",
    "Claim",
    "Credentials",
    "KeyCache",
    "PayloadKind",
    "Verified",
    "canonical_request",
    "needs_body_hash",
    "parse",
    "sign",
    "signing_key",
    "verify",
]

MAX_SKEW_S: Final = 900
"""Largest difference between a request's date and our clock."""


class PayloadKind(StrEnum):
    """What `x-amz-content-sha256` says of the body. The value is the header's, where there is one."""

    HEX = "hex"
    """The body's SHA-256 is declared (`Verified.body_sha256`): the caller hashes the body and compares."""
    EMPTY = "empty"
    """As HEX, with the digest of nothing: the body must be empty."""
    BODY = "body"
    """Nothing declared: the hash given to `verify` was the body's, and the signature covers it."""
    UNSIGNED = "UNSIGNED-PAYLOAD"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    EVENTS = "STREAMING-AWS4-HMAC-SHA256-EVENTS"

    @property
    def chunked(self) -> bool:
        """The body has aws-chunked framing."""
        return self.name in ("STREAMING_UNSIGNED_TRAILER", "STREAMING_SIGNED", "STREAMING_SIGNED_TRAILER")


_KINDS: Final = {kind.value.encode(): kind for kind in PayloadKind if kind.value.isupper()}


class Verified:
    """What a verified request yields. `signature` seeds chunk signatures; `skew_s` is our clock minus the
    request's.

    `body_sha256` is the digest that the body must have (lower-case hex), or empty where none was declared.
    `encoding` is the reading of path and query that the client signed (`narrows.wire.canonical`): give it
    to `sign`, so that AWS computes for our signature what it would have computed for the client's.
    """

    __slots__ = ("amz_date", "body_sha256", "encoding", "payload", "scope", "signature", "skew_s")

    def __init__(
        self,
        signature: str,
        scope: str,
        amz_date: str,
        skew_s: float,
        payload: PayloadKind,
        body_sha256: str,
        encoding: int,
    ) -> None:
        self.signature = signature
        self.scope = scope
        self.amz_date = amz_date
        self.skew_s = skew_s
        self.payload = payload
        self.body_sha256 = body_sha256
        self.encoding = encoding

    def __repr__(self) -> str:
        return f"Verified({self.scope!r}, {self.payload!r})"


_SIGNATURE_PARAM: Final = b"X-Amz-Signature"
_HEX_DIGEST = re.compile(rb"[0-9A-Fa-f]{64}")


# --- verifying ------------------------------------------------------------------------------------


def needs_body_hash(claim: Claim) -> bool:
    """Whether `verify` needs the SHA-256 of the body: nothing is declared, and the service is not S3's
    presigning.
    """
    return not claim.payload_hash and not (claim.form == "query" and claim.service in canonical.S3_LIKE)


def canonical_request(
    method: bytes,
    target: bytes,
    headers: Headers,
    signed_headers: tuple[bytes, ...],
    payload_hash: bytes,
    service: str,
    *,
    drop_signature_param: bool = False,
    encoding: int = canonical.RAW,
) -> bytes:
    """The canonical request over `signed_headers`. Raises AuthError where one of them did not come.

    The result holds header values, a session token among them: not for logs.
    """
    block, missing, _ = canonical.header_block(headers, signed_headers)
    if missing is not None:
        raise _missing(missing)
    path, _, query = target.partition(b"?")
    return _join(
        method,
        canonical.path(path, service, encoding),
        canonical.query(query, encoding, _SIGNATURE_PARAM if drop_signature_param else b""),
        block,
        b";".join(signed_headers),
        payload_hash,
    )


def _join(method: bytes, path: bytes, query: bytes, block: bytes, names: bytes, payload_hash: bytes) -> bytes:
    return b"\n".join((method, path, query, block, names, payload_hash))


def _signature(key: bytes, amz_date: str, scope: str, request: bytes) -> str:
    mac = keyed(key)
    mac.update(f"AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{sha256(request).hexdigest()}".encode())
    return mac.hexdigest()


def verify(
    claim: Claim,
    method: bytes,
    target: bytes,
    headers: Headers,
    key: bytes,
    now_s: float,
    body_sha256: str | None = None,
    shape: Shape | None = None,
) -> Verified:
    """Verify a claim against the request it came with, `key` being `signing_key` of the claimed scope.

    `now_s` is Unix seconds. `body_sha256` (hex) is needed where `needs_body_hash` says so, and ignored
    elsewhere. Raises AuthError: RequestTimeTooSkewed, AccessDenied for a presigned URL outside its time or
    an `x-amz-*` header that is not signed, SignatureDoesNotMatch, and IncompleteSignature for a payload
    declaration that is not known. `shape` is that of `headers`, where the caller has it.
    """
    skew_s = now_s - canonical.epoch(claim.amz_date)
    _check_time(claim, skew_s)
    payload, payload_hash, declared = _payload(claim, body_sha256)
    if shape is not None and shape.distinct:
        block, missing, unsigned = canonical.shaped_block(headers, shape, claim.signed_headers)
    else:
        block, missing, unsigned = canonical.header_block(headers, claim.signed_headers)
    if missing is not None:
        raise _missing(missing)
    drop = b""
    if claim.form == "query":
        drop = _SIGNATURE_PARAM
        unsigned = [name for name in unsigned if name != b"x-amz-user-agent"]
    if unsigned:
        raise _unsigned(unsigned)
    names = b";".join(claim.signed_headers)
    raw_path, _, raw_query = target.partition(b"?")
    scope = claim.scope
    seen: list[bytes] = []
    # The first reading is nearly always the one; the others are for clients that encode what they sign differently.
    for encoding in (0, 1, 2, 3):
        request = _join(
            method,
            canonical.path(raw_path, claim.service, encoding),
            canonical.query(raw_query, encoding, drop) if raw_query else b"",
            block,
            names,
            payload_hash,
        )
        if seen and request in seen:
            continue
        if compare_digest(_signature(key, claim.amz_date, scope, request), claim.signature):
            return Verified(claim.signature, scope, claim.amz_date, skew_s, payload, declared, encoding)
        seen.append(request)
    raise AuthError(
        "SignatureDoesNotMatch",
        "the request's signature does not match the request",
        f"it covers {names.decode('ascii')} under {scope}",
        "use the secret access key that belongs to the key id, and let no proxy change the host, path, query or "
        "signed headers on the way",
    )


def _check_time(claim: Claim, skew_s: float) -> None:
    if claim.expires is None:
        if not -MAX_SKEW_S <= skew_s <= MAX_SKEW_S:
            raise AuthError(
                "RequestTimeTooSkewed",
                "the request's date is too far from the gateway's clock",
                f"they differ by {skew_s:.0f} s, and {MAX_SKEW_S} s are allowed",
                "set the clock of the machine that signs, and send a request soon after it is signed",
            )
        return
    if skew_s < -MAX_SKEW_S:
        raise AuthError(
            "AccessDenied",
            "Request is not valid yet",
            f"the presigned URL starts {-skew_s:.0f} s from now",
            "set the clock of the machine that signs",
            code="presign_not_yet_valid",
        )
    if skew_s > claim.expires:
        raise AuthError(
            "AccessDenied",
            "Request has expired",
            f"the presigned URL was good for {claim.expires} s and was signed {skew_s:.0f} s ago",
            "presign it again",
            code="presign_expired",
        )


def _payload(claim: Claim, body_sha256: str | None) -> tuple[PayloadKind, bytes, str]:
    """The kind of payload, the hash that enters the canonical request, and the digest that the body must
    have.
    """
    raw = claim.payload_hash
    kind = _KINDS.get(raw)
    if kind is not None:
        return kind, raw, ""
    if not raw:
        if not needs_body_hash(claim):
            return PayloadKind.UNSIGNED, b"UNSIGNED-PAYLOAD", ""
        if body_sha256 is None:
            raise ValueError("this claim is verified over the body's SHA-256 (needs_body_hash)")
        return PayloadKind.BODY, body_sha256.encode(), body_sha256
    if _HEX_DIGEST.fullmatch(raw) is not None:
        digest = raw.decode("ascii").lower()
        return (PayloadKind.EMPTY if digest == EMPTY_SHA256 else PayloadKind.HEX), raw, digest
    if raw.startswith(b"STREAMING-AWS4-ECDSA"):
        raise sigv4a_refused()
    raise AuthError(
        "IncompleteSignature",
        "x-amz-content-sha256 was not understood",
        "it is neither a SHA-256 in hexadecimal nor a payload form that AWS documents",
        code="payload_hash_unknown",
    )


def _missing(name: bytes) -> AuthError:
    return AuthError(
        "SignatureDoesNotMatch", "a signed header did not come", "SignedHeaders names " + name.decode("latin-1")
    )


def _unsigned(names: list[bytes]) -> AuthError:
    shown = ", ".join(sorted({name.decode("latin-1") for name in names}))[:200]
    return AuthError(
        "AccessDenied",
        "There were headers present in the request which were not signed",
        shown,
        "sign every x-amz-* header, or let no proxy add one",
        code="headers_not_signed",
    )


# --- signing --------------------------------------------------------------------------------------


def sign(
    method: bytes,
    target: bytes,
    headers: Headers,
    payload_hash: bytes,
    credentials: Credentials,
    key: bytes,
    amz_date: str,
    date: str,
    region: str,
    service: str,
    *,
    encoding: int = canonical.RAW,
) -> tuple[bytes, str]:
    """Sign a request: the value of its Authorization header, and the signature in hex (the seed of chunks).

    `headers` are exactly those to sign, `host`, `x-amz-date` and a session token's among them. `key` is
    `signing_key` of the secret for `date`, `region`, `service`; `encoding` comes from `Verified` where a
    client's request goes on.
    """
    if date != amz_date[:8]:
        raise ValueError("the scope's day is the day of the date")
    block, names = canonical.whole_block(headers)
    return sign_block(
        method, target, block, names, payload_hash, credentials, key, amz_date, region, service, encoding
    )


def block_of(lines: list[bytes]) -> bytes:
    """The canonical lines `name:value`, in the order of their names, made into a block."""
    return canonical.trim(b"\n".join(lines) + b"\n")


def sign_block(
    method: bytes,
    target: bytes,
    block: bytes,
    names: bytes,
    payload_hash: bytes,
    credentials: Credentials,
    key: bytes,
    amz_date: str,
    region: str,
    service: str,
    encoding: int,
) -> tuple[bytes, str]:
    """As `sign`, for canonical header lines that are made already: `block`, over `names` joined by `;`."""
    path, _, query = target.partition(b"?")
    request = _join(
        method, canonical.path(path, service, encoding), canonical.query(query, encoding), block, names, payload_hash
    )
    scope = f"{amz_date[:8]}/{region}/{service}/aws4_request"
    signature = _signature(key, amz_date, scope, request)
    value = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names.decode('latin-1')}, Signature={signature}"
    )
    return value.encode("latin-1"), signature
