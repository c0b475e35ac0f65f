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
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from hmac import HMAC, compare_digest
from hmac import digest as hmac_digest
from hmac import new as new_hmac
from typing import Final

from narrows.wire import canonical
from narrows.wire.shape import Headers, Shape
from narrows.wire.sigv4_claim import ALGORITHM, MAX_EXPIRES_S, AuthError, Claim, parse, sigv4a_refused

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

EMPTY_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
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


@dataclass(slots=True)
class Verified:
    """What a verified request yields. `signature` seeds chunk signatures; `skew_s` is our clock minus the
    request's.

    `body_sha256` is the digest that the body must have (lower-case hex), or empty where none was declared.
    `encoding` is the reading of path and query that the client signed (`narrows.wire.canonical`): give it
    to `sign`, so that AWS computes for our signature what it would have computed for the client's.
    """

    signature: str = field(repr=False)
    scope: str
    amz_date: str
    skew_s: float
    payload: PayloadKind
    body_sha256: str
    encoding: int


@dataclass(frozen=True, slots=True)
class Credentials:
    """AWS credentials to sign with; the repr names the key id only."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


_SIGNATURE_PARAM: Final = b"X-Amz-Signature"
_HEX_DIGEST = re.compile(rb"[0-9A-Fa-f]{64}")


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The 32-byte key of one day, region and service. Four HMACs: keep the result in a KeyCache."""
    key = hmac_digest(b"AWS4" + secret.encode(), date.encode(), "sha256")
    key = hmac_digest(key, region.encode(), "sha256")
    key = hmac_digest(key, service.encode(), "sha256")
    return hmac_digest(key, b"aws4_request", "sha256")


class KeyCache:
    """Signing keys by (access key id, date, region, service), at most `limit` of them; the oldest goes first.

    A key is kept with the secret that it came from, so that a changed secret never meets an old key. The
    repr shows the number of keys only.
    """

    __slots__ = ("_keys", "_limit")

    def __init__(self, limit: int = 1024) -> None:
        self._keys: dict[tuple[str, str, str, str], tuple[str, bytes]] = {}
        self._limit = limit

    def get(self, access_key_id: str, secret: str, date: str, region: str, service: str) -> bytes:
        """The signing key, derived now if it is not known."""
        name = (access_key_id, date, region, service)
        held = self._keys.get(name)
        if held is not None and compare_digest(held[0].encode(), secret.encode()):
            return held[1]
        key = signing_key(secret, date, region, service)
        if held is None and len(self._keys) >= self._limit:
            del self._keys[next(iter(self._keys))]
        self._keys[name] = (secret, key)
        return key

    def forget(self, access_key_id: str) -> None:
        """Drop the keys of one access key id."""
        for name in [name for name in self._keys if name[0] == access_key_id]:
            del self._keys[name]

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyCache({len(self._keys)} of {self._limit})"


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


_MAX_MACS: Final = 1024
_macs: dict[bytes, HMAC] = {}
"""HMACs that have taken in their key and nothing else; a copy of one is cheaper than a new one. Keys of one day."""


def _mac(key: bytes) -> HMAC:
    mac = _macs.get(key)
    if mac is None:
        if len(_macs) >= _MAX_MACS:
            _macs.clear()
        mac = _macs[key] = new_hmac(key, digestmod="sha256")
    return mac.copy()


def _signature(key: bytes, amz_date: str, scope: str, request: bytes) -> str:
    mac = _mac(key)
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


class ChunkSigner:
    """The chain of chunk signatures that starts from a request's signature; one for each direction of use.

    It computes what a chunk's signature must be: to verify, compare in constant time with the one that
    came; to sign, send it. Each call moves the chain on. Source: S3, "Signature calculations for streaming
    uploads".
    """

    __slots__ = ("_chunk", "_key", "_trailer", "previous")

    def __init__(self, key: bytes, scope: str, amz_date: str, seed: str) -> None:
        self._key = key
        self._chunk = f"AWS4-HMAC-SHA256-PAYLOAD\n{amz_date}\n{scope}\n"
        self._trailer = f"AWS4-HMAC-SHA256-TRAILER\n{amz_date}\n{scope}\n"
        self.previous = seed

    def sign_chunk(self, sha256_hex: str) -> str:
        """The signature of the next chunk, whose payload has this SHA-256."""
        to_sign = f"{self._chunk}{self.previous}\n{EMPTY_SHA256}\n{sha256_hex}"
        self.previous = hmac_digest(self._key, to_sign.encode(), "sha256").hex()
        return self.previous

    def sign_trailer(self, sha256_hex: str) -> str:
        """The signature of the trailer, whose lines `name:value\\n` have this SHA-256."""
        to_sign = f"{self._trailer}{self.previous}\n{sha256_hex}"
        self.previous = hmac_digest(self._key, to_sign.encode(), "sha256").hex()
        return self.previous

    def __repr__(self) -> str:
        return "ChunkSigner()"
