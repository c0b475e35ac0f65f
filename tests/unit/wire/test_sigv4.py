"""SigV4: what is taken, what is refused and with which code, and that no secret shows."""

from __future__ import annotations

import pytest

from narrows.wire import canonical, sigv4
from narrows.wire.sigv4 import AuthError, PayloadKind

Headers = list[tuple[bytes, bytes]]

SECRET = "the lease's secret"
DATE = "20261124T170000Z"
NOW = canonical.epoch(DATE)
EMPTY = (b"x-amz-content-sha256", sigv4.EMPTY_SHA256.encode())


def key(service: str = "s3") -> bytes:
    return sigv4.signing_key(SECRET, DATE[:8], "us-east-1", service)


def signed(extra: Headers, target: bytes = b"/b/k", service: str = "s3", akid: str = "AKID") -> Headers:
    headers = [(b"host", b"gw"), (b"x-amz-date", DATE.encode()), *extra]
    payload_hash = dict(headers).get(b"x-amz-content-sha256", sigv4.EMPTY_SHA256.encode())
    value, _ = sigv4.sign(
        b"GET",
        target,
        headers,
        payload_hash,
        sigv4.Credentials(akid, SECRET),
        key(service),
        DATE,
        DATE[:8],
        "us-east-1",
        service,
    )
    return [*headers, (b"authorization", value)]


def check(
    headers: Headers, target: bytes = b"/b/k", service: str = "s3", now: float = NOW, body: str | None = None
) -> sigv4.Verified:
    claim = sigv4.parse(b"GET", target, headers)
    assert claim is not None
    return sigv4.verify(claim, b"GET", target, headers, key(service), now, body)


def replaced(headers: Headers, old: bytes, new: bytes) -> Headers:
    return [(name, value.replace(old, new) if name == b"authorization" else value) for name, value in headers]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer t")],
        [(b"authorization", b"Basic t"), (b"authorization", b"Basic u")],
        [(b"authorization", b"AWS AKID:sig")],
        [(b"authorization", b"")],
    ],
)
@pytest.mark.parametrize("target", [b"/", b"/?x-amz-acl=private&a%20b=c", b"/?AWSAccessKeyId=a&Signature=b&Expires=1"])
def test_what_is_not_signed_so_is_not_ours(headers: Headers, target: bytes) -> None:
    assert sigv4.parse(b"GET", target, headers) is None


def test_a_claim_says_what_came() -> None:
    claim = sigv4.parse(b"GET", b"/b/k", signed([EMPTY, (b"x-amz-security-token", b"tok")], akid="with/slash/es"))
    assert claim is not None
    assert claim.access_key_id == "with/slash/es"
    assert claim.scope == "20261124/us-east-1/s3/aws4_request"
    assert claim.signed_headers == (b"host", b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token")
    assert (claim.token, claim.amz_date, claim.payload_hash) == (b"tok", DATE, EMPTY[1])
    assert "tok'" not in repr(claim) and claim.signature not in repr(claim)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256\t"),
        (b"AWS4-HMAC-SHA256 ", b"aws4-hmac-sha256 "),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA512 "),
        (b"Credential=AKID/", b"Credential="),
        (b"/aws4_request", b"/aws5_request"),
        (b"/20261124/", b"/2026-11-24/"),
        (b"/us-east-1/", b"//"),
        (b"SignedHeaders=host;", b"SignedHeaders=Host;"),
        (b"SignedHeaders=host;", b"SignedHeaders=host;host;"),
        (b"SignedHeaders=host;", b"SignedHeaders=z;host;"),
        (b"SignedHeaders=host;", b"SignedHeaders="),
        (b"SignedHeaders=host;", b"SignedHeaders=;host;"),
        (b", Signature=", b", Signature=0"),
        (b", Signature=", b", Signature=G"),
        (b", Signature=", b", SIGNATURE="),
        (b", Signature=", b", Credential=a, Signature="),
        (b", SignedHeaders", b" SignedHeaders"),
        (b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256 " + b"x" * 9000),
    ],
)
def test_malformed_authorization(old: bytes, new: bytes) -> None:
    headers = replaced(signed([EMPTY]), old, new)
    with pytest.raises(AuthError) as caught:
        sigv4.parse(b"GET", b"/b/k", headers)
    assert caught.value.aws_code == "IncompleteSignature"
    assert caught.value.status == 400


def test_the_layout_of_authorization_is_free() -> None:
    headers = signed([EMPTY])
    value = dict(headers)[b"authorization"]
    scheme, credential, names, signature = value.replace(b",", b"").split(b" ")
    for other in (
        scheme + b" " + b",".join((credential, names, signature)),
        scheme + b"  " + b" , ".join((signature, credential, names)),
    ):
        check([*headers[:-1], (b"authorization", other)])


@pytest.mark.parametrize(
    "second",
    [
        (b"authorization", b"Bearer t"),
        (b"x-amz-date", DATE.encode()),
        EMPTY,
        (b"x-amz-security-token", b"u"),
        (b"x-amz-s3session-token", b"u"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_claim_is_made_once(second: tuple[bytes, bytes], first: bool) -> None:
    headers = signed([EMPTY, (b"x-amz-security-token", b"t")])
    headers = [second, *headers] if first else [*headers, second]
    with pytest.raises(AuthError, match="more than one"):
        sigv4.parse(b"GET", b"/b/k", headers)


@pytest.mark.parametrize(
    "query",
    [
        b"X-Amz-Signature=a",
        b"x-amz-signature=a",
        b"a=b&X%2DAmz-Credential=a",
        b"X-Amz-Security-Token=t",
        b"X-Amz-Expires=1",
        b"AWSAccessKeyId=a",
    ],
)
def test_a_signature_in_header_and_query_is_refused(query: bytes) -> None:
    target = b"/b/k?" + query
    with pytest.raises(AuthError, match="in its query as well"):
        sigv4.parse(b"GET", target, signed([EMPTY], target))


def test_ordinary_query_parameters_stand_beside_the_header() -> None:
    target = b"/b/k?x-amz-acl=private&%C3%A9=1&uploads"
    check(signed([EMPTY], target), target)


@pytest.mark.parametrize("value", [b"", b"now", b"20261324T170000Z", b"20261124T170000", b"\xff", b"20261124T170060Z"])
def test_a_date_that_is_none(value: bytes) -> None:
    headers = [(name, value if name == b"x-amz-date" else old) for name, old in signed([EMPTY])]
    with pytest.raises(AuthError, match="date"):
        sigv4.parse(b"GET", b"/b/k", headers)


def test_no_date_at_all() -> None:
    with pytest.raises(AuthError, match="neither an x-amz-date nor a Date"):
        sigv4.parse(b"GET", b"/b/k", [pair for pair in signed([EMPTY]) if pair[0] != b"x-amz-date"])


def test_the_scope_has_the_day_of_the_date() -> None:
    headers = [(name, b"20261125T000000Z" if name == b"x-amz-date" else value) for name, value in signed([EMPTY])]
    with pytest.raises(AuthError, match="another day") as caught:
        sigv4.parse(b"GET", b"/b/k", headers)
    assert caught.value.aws_code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("date", [b"Tue, 24 Nov 2026 17:00:00 GMT", b"24 Nov 2026 17:00:00 -0000", DATE.encode()])
def test_the_date_header_counts_where_there_is_no_other(date: bytes) -> None:
    headers = [(b"host", b"gw"), (b"date", date), EMPTY]
    value, _ = sigv4.sign(
        b"GET",
        b"/b/k",
        headers,
        EMPTY[1],
        sigv4.Credentials("AKID", SECRET),
        key(),
        DATE,
        DATE[:8],
        "us-east-1",
        "s3",
    )
    assert check([*headers, (b"authorization", value)]).amz_date == DATE


@pytest.mark.parametrize(("skew", "right"), [(900, True), (-900, True), (901, False), (-901, False)])
def test_clock_skew_at_its_limit(skew: int, right: bool) -> None:
    if right:
        assert check(signed([EMPTY]), now=NOW + skew).skew_s == skew
        return
    with pytest.raises(AuthError) as caught:
        check(signed([EMPTY]), now=NOW + skew)
    assert caught.value.aws_code == "RequestTimeTooSkewed"


def test_every_x_amz_header_is_signed() -> None:
    for name in (b"x-amz-acl", b"x-amz-user-agent", b"x-amz-"):
        with pytest.raises(AuthError) as caught:
            check([*signed([EMPTY]), (name, b"public-read")])
        assert (caught.value.aws_code, caught.value.code) == ("AccessDenied", "headers_not_signed")
    check([*signed([EMPTY]), (b"x-amzn-trace-id", b"Root=1"), (b"amz-sdk-request", b"attempt=1"), (b"te", b"x")])


def test_a_signed_header_that_did_not_come() -> None:
    headers = [pair for pair in signed([EMPTY, (b"range", b"bytes=0-1")]) if pair[0] != b"range"]
    with pytest.raises(AuthError, match="did not come: SignedHeaders names range"):
        check(headers)


@pytest.mark.parametrize(
    ("value", "kind", "digest"),
    [
        (sigv4.EMPTY_SHA256, PayloadKind.EMPTY, sigv4.EMPTY_SHA256),
        ("a" * 64, PayloadKind.HEX, "a" * 64),
        ("AB" * 32, PayloadKind.HEX, "ab" * 32),
        ("UNSIGNED-PAYLOAD", PayloadKind.UNSIGNED, ""),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", PayloadKind.STREAMING_UNSIGNED_TRAILER, ""),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", PayloadKind.STREAMING_SIGNED, ""),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", PayloadKind.STREAMING_SIGNED_TRAILER, ""),
        ("STREAMING-AWS4-HMAC-SHA256-EVENTS", PayloadKind.EVENTS, ""),
    ],
)
def test_payload_forms(value: str, kind: PayloadKind, digest: str) -> None:
    verified = check(signed([(b"x-amz-content-sha256", value.encode())]))
    assert (verified.payload, verified.body_sha256) == (kind, digest)
    assert kind.chunked is (value.startswith("STREAMING") and not value.endswith("EVENTS"))


@pytest.mark.parametrize("value", [b"hex", b"EMPTY", b"unsigned-payload", b"a" * 63, b"UNSIGNED", b"STREAMING-X"])
def test_unknown_payload_forms_are_refused(value: bytes) -> None:
    with pytest.raises(AuthError) as caught:
        check(signed([(b"x-amz-content-sha256", value)]))
    assert caught.value.code == "payload_hash_unknown"


def test_an_undeclared_payload_is_covered_by_its_hash() -> None:
    headers = signed([], b"/", "dynamodb")
    claim = sigv4.parse(b"GET", b"/", headers)
    assert claim is not None
    assert sigv4.needs_body_hash(claim)
    assert check(headers, b"/", "dynamodb", body=sigv4.EMPTY_SHA256).payload is PayloadKind.BODY
    with pytest.raises(AuthError) as caught:
        check(headers, b"/", "dynamodb", body="0" * 64)
    assert caught.value.aws_code == "SignatureDoesNotMatch"
    with pytest.raises(ValueError, match="needs_body_hash"):
        check(headers, b"/", "dynamodb")


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/", [(b"authorization", b"AWS4-ECDSA-P256-SHA256 Credential=A/20261124/s3/aws4_request, ...")]),
        (b"/?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Credential=a", []),
    ],
)
def test_sigv4a_is_refused_with_what_to_set(target: bytes, headers: Headers) -> None:
    with pytest.raises(AuthError) as caught:
        sigv4.parse(b"GET", target, headers)
    assert caught.value.code == "sigv4a_unsupported"
    assert "AWS_AUTH_SCHEME_PREFERENCE=sigv4" in caught.value.hint


def test_a_sigv4a_payload_is_refused() -> None:
    with pytest.raises(AuthError) as caught:
        check(signed([(b"x-amz-content-sha256", b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER")]))
    assert caught.value.code == "sigv4a_unsupported"


def presigned(**changes: bytes | None) -> bytes:
    params: dict[bytes, bytes | None] = {
        b"X-Amz-Algorithm": b"AWS4-HMAC-SHA256",
        b"X-Amz-Credential": b"AKID/20261124/us-east-1/s3/aws4_request",
        b"X-Amz-Date": DATE.encode(),
        b"X-Amz-Expires": b"60",
        b"X-Amz-SignedHeaders": b"host",
        b"X-Amz-Signature": b"0" * 64,
    }
    params.update({b"X-Amz-" + name.replace("_", "-").encode(): value for name, value in changes.items()})
    return b"/b/k?" + b"&".join(name + b"=" + value for name, value in params.items() if value is not None)


def with_signature(target: bytes, payload_hash: bytes = b"UNSIGNED-PAYLOAD", extra: Headers | None = None) -> bytes:
    claim = sigv4.parse(b"GET", target, [])
    assert claim is not None
    request = sigv4.canonical_request(
        b"GET",
        target,
        [(b"host", b"gw"), *(extra or [])],
        claim.signed_headers,
        payload_hash,
        "s3",
        drop_signature_param=True,
    )
    return target.replace(b"0" * 64, sigv4._signature(key(), DATE, claim.scope, request).encode())


@pytest.mark.parametrize(
    ("now", "code"),
    [(-900, ""), (60, ""), (61, "presign_expired"), (-901, "presign_not_yet_valid")],
)
def test_life_of_a_presigned_url(now: int, code: str) -> None:
    target = with_signature(presigned())
    if not code:
        assert check([(b"host", b"gw")], target, now=NOW + now).payload is PayloadKind.UNSIGNED
        return
    with pytest.raises(AuthError) as caught:
        check([(b"host", b"gw")], target, now=NOW + now)
    assert (caught.value.aws_code, caught.value.code) == ("AccessDenied", code)
    assert caught.value.what.startswith("Request ")


def test_a_presigned_url_may_declare_its_payload() -> None:
    target = with_signature(presigned(Content_Sha256=b"a" * 64), b"a" * 64)
    verified = check([(b"host", b"gw")], target)
    assert (verified.payload, verified.body_sha256) == (PayloadKind.HEX, "a" * 64)


def test_headers_beside_a_presigned_url() -> None:
    target = with_signature(presigned())
    check([(b"host", b"gw"), (b"x-amz-user-agent", b"ua"), (b"range", b"bytes=0-1")], target)
    with pytest.raises(AuthError) as caught:
        check([(b"host", b"gw"), (b"x-amz-acl", b"public-read")], target)
    assert caught.value.code == "headers_not_signed"


@pytest.mark.parametrize(
    "target",
    [
        presigned(Algorithm=None),
        presigned(Algorithm=b"AWS4"),
        presigned(Credential=None),
        presigned(Credential=b"AKID/20261124/us-east-1/s3"),
        presigned(Date=None),
        presigned(Expires=None),
        presigned(Expires=b"0"),
        presigned(Expires=b"604801"),
        presigned(Expires=b"-1"),
        presigned(Expires=b"1e3"),
        presigned(Expires=b"9" * 5000),
        presigned(SignedHeaders=None),
        presigned(Signature=None),
        presigned(Signature=b"0" * 63),
        presigned() + b"&X-Amz-Signature=" + b"0" * 64,
        presigned() + b"&X-Amz-Expires=61",
        presigned() + b"&x-amz-expires=61",
        presigned() + b"&X%2dAmz-Date=1",
        presigned(Signature=None) + b"&x-amz-signature=" + b"0" * 64,
        presigned() + b"&AWSAccessKeyId=b",
    ],
)
def test_malformed_presigned_urls(target: bytes) -> None:
    with pytest.raises(AuthError) as caught:
        sigv4.parse(b"GET", target, [(b"host", b"gw")])
    assert caught.value.aws_code == "AuthorizationQueryParametersError"
    assert caught.value.status == 400


def test_longest_and_shortest_life() -> None:
    for expires in (b"1", b"604800"):
        claim = sigv4.parse(b"GET", presigned(Expires=expires), [])
        assert claim is not None
        assert claim.expires == int(expires)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer t")],
        [(b"x-amz-security-token", b"t")],
        [EMPTY],
    ],
)
def test_a_presigned_url_is_the_only_authentication(headers: Headers) -> None:
    target = presigned(Security_Token=b"t", Content_Sha256=b"UNSIGNED-PAYLOAD")
    with pytest.raises(AuthError, match="as well"):
        sigv4.parse(b"GET", target, headers)


def test_a_raw_colon_and_an_escaped_one_both_verify() -> None:
    for path in (b"/model/anthropic.x-v1:0/converse", b"/model/anthropic.x-v1%3A0/converse"):
        check(signed([EMPTY], path, "bedrock"), path, "bedrock")
    assert canonical.path(b"/model/x:0", "bedrock") == b"/model/x%3A0"
    assert canonical.path(b"/model/x%3A0", "bedrock") == b"/model/x%253A0"


@pytest.mark.parametrize("service", ["s3", "s3-outposts", "s3-object-lambda", "s3express"])
def test_s3_paths_count_as_sent(service: str) -> None:
    assert canonical.path(b"/b//a/../%2e/./k%20", service) == b"/b//a/../%2e/./k%20"


@pytest.mark.parametrize(
    ("raw", "plain", "encoded"),
    [
        (b"", b"", b""),
        (b"a", b"a=", b"a="),
        (b"b=1&a=2", b"a=2&b=1", b"a=2&b=1"),
        (b"a=2&a=10&a=", b"a=&a=10&a=2", b"a=&a=10&a=2"),
        (b"a-b=1&a=2", b"a=2&a-b=1", b"a=2&a-b=1"),
        (b"a=x+y", b"a=x+y", b"a=x%2By"),
        (b"p=a/b&d=/", b"d=/&p=a/b", b"d=%2F&p=a%2Fb"),
        (b"a=%7e%2f=", b"a=%7e%2f=", b"a=~%2F%3D"),
        (b"a&&b", b"=&a=&b=", b"a=&b="),
    ],
)
def test_canonical_query(raw: bytes, plain: bytes, encoded: bytes) -> None:
    assert canonical.query(raw) == plain
    assert canonical.query(raw, canonical.ENCODED_QUERY) == encoded


@pytest.mark.parametrize("encoding", [0, 1, 2, 3])
def test_the_reading_that_the_client_signed_is_found(encoding: int) -> None:
    target = b"/b/a=(b)?delimiter=/&prefix=x:y"
    headers = [(b"host", b"gw"), (b"x-amz-date", DATE.encode()), EMPTY]
    arguments = (EMPTY[1], sigv4.Credentials("AKID", SECRET), key(), DATE, DATE[:8], "us-east-1", "s3")
    value, _ = sigv4.sign(b"GET", target, headers, *arguments, encoding=encoding)
    verified = check([*headers, (b"authorization", value)], target)
    assert verified.encoding == encoding


def test_keys_are_cached_and_bounded() -> None:
    cache = sigv4.KeyCache(limit=2)
    first = cache.get("A", SECRET, "20261124", "us-east-1", "s3")
    assert first == key()
    assert cache.get("A", SECRET, "20261124", "us-east-1", "s3") is first
    assert cache.get("A", "another secret", "20261124", "us-east-1", "s3") != first
    for service in ("a", "b", "c"):
        cache.get("A", SECRET, "20261124", "us-east-1", service)
    assert len(cache) == 2
    assert repr(cache) == "KeyCache(2 of 2)"
    cache.forget("A")
    assert len(cache) == 0


def test_no_secret_shows() -> None:
    credentials = sigv4.Credentials("AKID", SECRET, "session")
    assert SECRET not in repr(credentials) and "session" not in repr(credentials)
    signer = sigv4.ChunkSigner(key(), "scope", DATE, "seed")
    assert key().hex() not in repr(signer)
    headers = signed([EMPTY, (b"x-amz-security-token", b"sesame")])
    claim = sigv4.parse(b"GET", b"/b/k", headers)
    assert claim is not None
    verified = sigv4.verify(claim, b"GET", b"/b/k", headers, key(), NOW)
    assert verified.signature not in repr(verified)
    assert "sesame" not in repr(claim) and claim.signature not in repr(claim)
    claim.signature = "0" * 64
    with pytest.raises(AuthError) as caught:
        sigv4.verify(claim, b"GET", b"/b/k", headers, key(), NOW)
    assert "sesame" not in str(caught.value) and verified.signature not in str(caught.value)
