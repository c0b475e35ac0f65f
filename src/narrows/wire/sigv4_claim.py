"""Reading a SigV4 claim off a request: who it says that it is from, and how. See `narrows.wire.sigv4`.

Sans-I/O and pure. Whatever bytes come in, `parse` returns or raises AuthError; no error text holds a token
or a signature. Nothing that is read here is verified.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from narrows.core.errors import Refusal
from narrows.wire import canonical
from narrows.wire.shape import Headers, Shape

ALGORITHM: Final = b"AWS4-HMAC-SHA256"
MAX_EXPIRES_S: Final = 604800
"""Longest life of a presigned URL: seven days."""

_CODES: Final = {
    "IncompleteSignature": ("signature_incomplete", 400),
    "AuthorizationQueryParametersError": ("signature_query_malformed", 400),
    "SignatureDoesNotMatch": ("signature_mismatch", 403),
    "InvalidSignatureException": ("signature_mismatch", 403),
    "RequestTimeTooSkewed": ("clock_skew", 403),
    "MissingAuthenticationToken": ("not_signed", 403),
    "AccessDenied": ("signature_refused", 403),
}


class AuthError(Refusal):
    """A request that claims to be signed, and is not signed well. `aws_code` is the code that an SDK expects."""

    def __init__(self, aws_code: str, what: str, why: str = "", hint: str = "", *, code: str = "") -> None:
        usual, status = _CODES[aws_code]
        super().__init__(what, why, hint, code=code or usual, status=status, aws_code=aws_code)


class Claim:
    """Who a request says that it is from, and how it says so. Nothing in it is verified.

    `date` is the scope's day (yyyymmdd), equal to the day of `amz_date`. `payload_hash` is the raw value of
    x-amz-content-sha256, or empty. `expires` is seconds, for the query form only.
    """

    __slots__ = (
        "access_key_id", "amz_date", "date", "expires", "form", "payload_hash", "region", "service", "signature",
        "signed_headers", "token",
    )  # fmt: skip

    def __init__(
        self,
        form: Literal["header", "query"],
        access_key_id: str,
        date: str,
        region: str,
        service: str,
        amz_date: str,
        signed_headers: tuple[bytes, ...],
        signature: str,
        token: bytes | None,
        payload_hash: bytes,
        expires: int | None,
    ) -> None:
        # No dataclass: that writes this method when the module is loaded, where the compiler cannot reach it.
        self.form = form
        self.access_key_id = access_key_id
        self.date = date
        self.region = region
        self.service = service
        self.amz_date = amz_date
        self.signed_headers = signed_headers
        self.signature = signature
        self.token = token
        self.payload_hash = payload_hash
        self.expires = expires

    def __repr__(self) -> str:
        return f"Claim({self.access_key_id!r}, {self.scope!r}, {self.form!r})"

    @property
    def scope(self) -> str:
        """`date/region/service/aws4_request`."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


_HEADER_FORM = re.compile(
    rb"AWS4-HMAC-SHA256 +Credential=([^, \t]+), *SignedHeaders=([^, \t]+), *Signature=([0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"([\x21-\x2b\x2d-\x7e]{1,256})/([0-9]{8})/([A-Za-z0-9_.*-]{1,64})/([A-Za-z0-9_.-]{1,64})/aws4_request"
)
_SIGNATURE = re.compile(rb"[0-9a-f]{64}")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_MAX_AUTHORIZATION = 8192
_SUSPECT = re.compile(rb"(?:^|&)(?:[Xx]-[Aa][Mm][Zz]-|[^=&]*%|AWSAccessKeyId)")
_AUTH_PARAMS: Final = {
    name.lower(): name
    for name in (
        b"X-Amz-Algorithm",
        b"X-Amz-Credential",
        b"X-Amz-Date",
        b"X-Amz-Expires",
        b"X-Amz-SignedHeaders",
        b"X-Amz-Signature",
        b"X-Amz-Security-Token",
    )
}
_TOKENS: Final = (b"x-amz-security-token", b"x-amz-s3session-token")
_QUERY_MARKS: Final = (b"x-amz-algorithm", b"x-amz-credential", b"x-amz-signature")
_SIGV4A_HINT: Final = (
    "sign with SigV4: set AWS_AUTH_SCHEME_PREFERENCE=sigv4 (profile: auth_scheme_preference = sigv4), unset "
    "AWS_SIGV4A_SIGNING_REGION_SET (profile: sigv4a_signing_region_set), and name a bucket or a regional endpoint "
    "instead of a multi-region access point or a global endpoint"
)


_MAX_KNOWN: Final = 1024
_known: dict[bytes, tuple[str, str, str, str, tuple[bytes, ...]]] = {}
"""Authorization headers seen lately, without their signatures, parsed. Nothing in them is secret."""


def _incomplete(why: str, hint: str = "") -> AuthError:
    return AuthError("IncompleteSignature", "the Authorization header was not understood", why, hint)


def _bad_query(why: str) -> AuthError:
    return AuthError("AuthorizationQueryParametersError", "the presigned URL was not understood", why)


def sigv4a_refused() -> AuthError:
    """The refusal of SigV4A, which says what to set instead."""
    return AuthError(
        "IncompleteSignature",
        "the request is signed with SigV4A, which the gateway does not verify",
        "AWS4-ECDSA-P256-SHA256 names no single region",
        _SIGV4A_HINT,
        code="sigv4a_unsupported",
    )


def parse(method: bytes, target: bytes, headers: Headers, shape: Shape | None = None) -> Claim | None:
    """Return the SigV4 claim of a request, or None where it carries none ("not mine").

    Raises AuthError for a claim that is malformed, doubled, in both places at once, or SigV4A. `method` is
    not needed to read a claim; it is there so that all forms of authentication are asked the same way. `shape` is
    that of `headers`, where the caller has it: it saves looking through them.
    """
    if shape is not None and target.find(b"?") < 0 and shape.distinct:
        claim = _parse_known(headers, shape.index)
        if claim is not None:
            return claim
    authorization = amz_date = date = token = payload_hash = None
    ours = False
    for name, value in headers:
        if name == b"authorization":
            ours = ours or value[:5].upper() == b"AWS4-"
            if authorization is not None and ours:
                raise _incomplete("the request has more than one Authorization header")
            authorization = value
        elif name == b"x-amz-date":
            amz_date = _once(amz_date, value, "x-amz-date")
        elif name == b"x-amz-content-sha256":
            payload_hash = _once(payload_hash, value, "x-amz-content-sha256")
        elif name in _TOKENS:
            token = _once(token, value, "x-amz-security-token")
        elif name == b"date":
            date = value
    query = target.partition(b"?")[2]
    params = _auth_params(query) if query and _SUSPECT.search(query) is not None else None
    if params is not None and not ours:
        if not any(mark in params for mark in _QUERY_MARKS):
            return None
        if authorization is not None:
            raise _bad_query("the request has an Authorization header as well as a signature in its query")
        return _parse_query(params, token, payload_hash)
    if not ours or authorization is None:
        return None
    if params is not None and any(name in params for name in (*_AUTH_PARAMS, b"awsaccesskeyid")):
        raise _incomplete("the request has a signature in its query as well as an Authorization header")
    return _parse_header(authorization, amz_date, date, token, payload_hash)


def _parse_known(headers: Headers, index: dict[bytes, int]) -> Claim | None:
    """The claim of a request whose Authorization header begins as one that was parsed before: same key, same scope,
    same SignedHeaders. None where that is not so: then the long way says what it is."""
    at = index.get(b"authorization")
    when_at = index.get(b"x-amz-date")
    if at is None or when_at is None or b"x-amz-s3session-token" in index:
        return None
    authorization = headers[at][1]
    known = _known.get(authorization[:-64])
    signature = authorization[-64:]
    if known is None or _SIGNATURE.fullmatch(signature) is None:
        return None
    access_key_id, day, region, service, names = known
    when = headers[when_at][1].decode("latin-1")
    _check_day(when, day)
    token_at = index.get(b"x-amz-security-token")
    hash_at = index.get(b"x-amz-content-sha256")
    return Claim(
        "header",
        access_key_id,
        day,
        region,
        service,
        when,
        names,
        signature.decode("ascii"),
        None if token_at is None else headers[token_at][1],
        b"" if hash_at is None else headers[hash_at][1],
        None,
    )


def _once(before: bytes | None, value: bytes, name: str) -> bytes:
    if before is not None:
        raise _incomplete(f"the request has more than one {name} header")
    return value


def _auth_params(query: bytes) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Parameters by decoded lower-case name, each with the spellings and raw values that came."""
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for piece in query.split(b"&"):
        name, _, value = piece.partition(b"=")
        found.setdefault(unquote_to_bytes(name).lower(), []).append((name, value))
    return found


def _parse_header(
    authorization: bytes, amz_date: bytes | None, date: bytes | None, token: bytes | None, payload_hash: bytes | None
) -> Claim:
    if len(authorization) > _MAX_AUTHORIZATION:
        raise _incomplete(f"it is longer than {_MAX_AUTHORIZATION} bytes")
    match = _HEADER_FORM.fullmatch(authorization)
    credential, names, signature = match.groups() if match is not None else _header_fields(authorization)
    if amz_date is None and date is None:
        raise _incomplete("the request has neither an x-amz-date nor a Date header")
    try:
        when = amz_date.decode("ascii") if amz_date is not None else canonical.http_date(date or b"")
    except ValueError as error:
        raise _incomplete("the request's date is not a date") from error
    access_key_id, day, region, service = _credential(credential, query=False)
    _check_day(when, day)
    signed = _signed_names(names)
    if authorization.endswith(signature):
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[authorization[:-64]] = (access_key_id, day, region, service, signed)
    return Claim(
        "header",
        access_key_id,
        day,
        region,
        service,
        when,
        signed,
        signature.decode("ascii"),
        token,
        payload_hash or b"",
        None,
    )


def _header_fields(authorization: bytes) -> tuple[bytes, bytes, bytes]:
    """Credential, SignedHeaders and Signature of a header that is not laid out the usual way."""
    scheme, _, rest = authorization.partition(b" ")
    if scheme.upper().startswith(b"AWS4-ECDSA"):
        raise sigv4a_refused()
    if scheme != ALGORITHM:
        raise _incomplete("the algorithm is not AWS4-HMAC-SHA256")
    fields: dict[bytes, bytes] = {}
    for piece in rest.split(b","):
        name, _, value = piece.strip(b" \t").partition(b"=")
        if name in fields:
            raise _incomplete("a field stands in it twice")
        fields[name] = value
    if set(fields) != {b"Credential", b"SignedHeaders", b"Signature"}:
        raise _incomplete("it does not hold exactly Credential, SignedHeaders and Signature")
    if _SIGNATURE.fullmatch(fields[b"Signature"]) is None:
        raise _incomplete("Signature is not 64 lower-case hexadecimal digits")
    return fields[b"Credential"], fields[b"SignedHeaders"], fields[b"Signature"]


def _parse_query(
    params: dict[bytes, list[tuple[bytes, bytes]]], header_token: bytes | None, header_hash: bytes | None
) -> Claim:
    values: dict[bytes, bytes] = {}
    for lower, came in params.items():
        if lower in _AUTH_PARAMS or lower in (b"x-amz-content-sha256", b"x-amz-s3session-token"):
            if len(came) > 1:
                raise _bad_query(f"{_AUTH_PARAMS.get(lower, lower).decode()} stands in it twice")
            if lower in _AUTH_PARAMS and came[0][0] != _AUTH_PARAMS[lower]:
                raise _bad_query(f"{_AUTH_PARAMS[lower].decode()} is spelt another way")
            values[lower] = unquote_to_bytes(came[0][1])
    if b"awsaccesskeyid" in params:
        raise _bad_query("it has a SigV2 signature as well")
    algorithm = values.get(b"x-amz-algorithm", b"")
    if algorithm.upper().startswith(b"AWS4-ECDSA"):
        raise sigv4a_refused()
    if algorithm != ALGORITHM:
        raise _bad_query("X-Amz-Algorithm is not AWS4-HMAC-SHA256")
    for lower, name in _AUTH_PARAMS.items():
        if lower not in values and lower != b"x-amz-security-token":
            raise _bad_query(f"{name.decode()} is missing")
    expires = values[b"x-amz-expires"]
    if not expires.isdigit() or len(expires) > 6 or not 1 <= int(expires) <= MAX_EXPIRES_S:
        raise _bad_query(f"X-Amz-Expires is not a number of seconds from 1 to {MAX_EXPIRES_S}")
    signature = values[b"x-amz-signature"]
    if _SIGNATURE.fullmatch(signature) is None:
        raise _bad_query("X-Amz-Signature is not 64 lower-case hexadecimal digits")
    token = values.get(b"x-amz-security-token", values.get(b"x-amz-s3session-token"))
    if token is not None and header_token is not None:
        raise _bad_query("the request has a security token in a header as well")
    if header_hash is not None and b"x-amz-content-sha256" in values:
        raise _bad_query("the request has x-amz-content-sha256 in a header as well")
    access_key_id, day, region, service = _credential(values[b"x-amz-credential"], query=True)
    amz_date = values[b"x-amz-date"].decode("latin-1")
    _check_day(amz_date, day)
    return Claim(
        "query",
        access_key_id,
        day,
        region,
        service,
        amz_date,
        _signed_names(values[b"x-amz-signedheaders"]),
        signature.decode("ascii"),
        token if token is not None else header_token,
        values.get(b"x-amz-content-sha256", header_hash or b""),
        int(expires),
    )


def _credential(raw: bytes, *, query: bool) -> tuple[str, str, str, str]:
    """Key id, day, region and service. A key id may hold slashes: the scope is read from the right."""
    match = _CREDENTIAL.fullmatch(raw.decode("latin-1"))
    if match is None:
        why = "Credential is not KEY-ID/yyyymmdd/region/service/aws4_request"
        raise _bad_query(why) if query else _incomplete(why)
    access_key_id, day, region, service = match.groups()
    return access_key_id, day, region, service


def _check_day(amz_date: str, day: str) -> None:
    try:
        canonical.epoch(amz_date)
    except ValueError as error:
        raise AuthError(
            "IncompleteSignature", "the request's date was not understood", "it is not of the form yyyymmddThhmmssZ"
        ) from error
    if amz_date[:8] != day:
        raise AuthError(
            "SignatureDoesNotMatch", "the request's date was refused", "the credential's scope names another day"
        )


@lru_cache(maxsize=256)
def _signed_names(raw: bytes) -> tuple[bytes, ...]:
    """The names of SignedHeaders, checked: lower case, sorted, no name twice, `host` among them."""
    names = tuple(raw.split(b";"))
    if len(raw) > _MAX_AUTHORIZATION or any(_HEADER_NAME.fullmatch(name) is None for name in names):
        raise _incomplete("SignedHeaders is not a list of lower-case header names")
    if any(a >= b for a, b in pairwise(names)):
        raise _incomplete("SignedHeaders is not sorted, or names a header twice")
    if b"host" not in names:
        raise _incomplete("the Host header is not signed")
    return names
