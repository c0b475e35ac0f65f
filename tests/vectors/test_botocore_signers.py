"""Differential: what botocore signs, in each of its forms, verifies here; what we sign, botocore would have signed."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from narrows.wire import canonical, sigv2, sigv4

Headers = list[tuple[bytes, bytes]]

AKID, SECRET, TOKEN = "ASIAEXAMPLE", "secret/+of=the lease", "token/with+and=signs"
NOW = datetime.datetime(2026, 11, 24, 17, 0, 0, tzinfo=datetime.UTC)
NOW_S = int(NOW.timestamp())
REGION = "eu-west-1"
CASES = 150


@contextmanager
def frozen() -> Iterator[None]:
    with patch.object(auth, "get_current_datetime", return_value=NOW), patch("time.time", lambda: NOW_S):
        yield


def text(rng: random.Random, alphabet: str, most: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))


KEYS = "abcXYZ019-_.~ !$&'()*+,;=:@%/é漢"


def path(rng: random.Random, s3: bool) -> str:
    raw = "/" + "/".join(text(rng, KEYS, 8) for _ in range(rng.randint(0, 5)))
    if not s3 and rng.random() < 0.4:
        raw += rng.choice(["/.", "/..", "//", "/./a/../b", "//x", "/a:b/"])
    return quote(raw, safe=rng.choice(["/~", "/~:", "/~:@$!*(),;=+"]))


def query(rng: random.Random) -> str:
    pairs = []
    for _ in range(rng.choice([0, 0, 1, 2, 3, 6])):
        name = quote(text(rng, "abAB-_.12 é", 4) or "k", safe="~")
        value = quote(text(rng, KEYS, 8), safe="~")
        pairs.append(rng.choice([f"{name}={value}", f"{name}={value}", name]))
    if rng.random() < 0.3:
        pairs.append(rng.choice(["acl", "uploads", "versionId=3%2F4", "partNumber=2&uploadId=x%2By", "list-type=2"]))
    return "&".join(pairs)


def request(rng: random.Random, s3: bool) -> AWSRequest:
    host = rng.choice(["gw.example", "127.0.0.1:18765", "bucket.s3.gw.example", "[::1]:8080"])
    url = f"https://{host}{path(rng, s3)}"
    parameters = query(rng)
    if parameters:
        url += "?" + parameters
    made = AWSRequest(method=rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]), url=url)
    if rng.random() < 0.5:
        made.headers["Content-Type"] = rng.choice(["application/x-amz-json-1.0", "text/plain;  charset=utf-8"])
    for _ in range(rng.randint(0, 3)):
        name = rng.choice(["X-Amz-Target", "X-Amz-Meta-A", "x-amz-acl", "X-Custom", "Range", "Content-MD5"])
        if name not in made.headers:
            made.headers[name] = text(rng, "abc  \tXYZ,;=/", 20).strip() or "v"
    made.headers["User-Agent"] = "Boto3/1.0  md/x"
    made.headers["X-Amzn-Trace-Id"] = "Root=1"
    made.data = rng.choice([b"", b"{}", bytes(range(256))])
    return made


def on_the_wire(made: AWSRequest) -> tuple[bytes, bytes, Headers, bytes]:
    """Method, target, received headers and body of a signed botocore request."""
    parts = urlsplit(str(made.url))
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    headers = [(name.lower().encode(), value.strip().encode()) for name, value in made.headers.items()]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", parts.netloc.encode()))
    assert isinstance(made.data, bytes)
    return str(made.method).encode(), target.encode(), headers, made.data


HEADER_FORMS: list[tuple[str, Callable[..., auth.SigV4Auth]]] = [
    ("dynamodb", auth.SigV4Auth),
    ("bedrock", auth.SigV4Auth),
    ("s3", auth.S3SigV4Auth),
    ("s3-outposts", auth.S3SigV4Auth),
]
QUERY_FORMS: list[tuple[str, Callable[..., auth.SigV4QueryAuth]]] = [
    ("sts", auth.SigV4QueryAuth),
    ("s3", auth.S3SigV4QueryAuth),
]


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(("service", "signer"), HEADER_FORMS)
def test_header_form(service: str, signer: Callable[..., auth.SigV4Auth], token: str | None) -> None:
    rng = random.Random(f"{service}{token}")
    key = sigv4.signing_key(SECRET, "20261124", REGION, service)
    s3 = service.startswith("s3")
    for _ in range(CASES):
        made = request(rng, s3)
        if rng.random() < 0.2:
            made.headers["Date"] = "x"  # botocore then dates the request in this header alone
        with frozen():
            signer(BotoCredentials(AKID, SECRET, token), service, REGION).add_auth(made)
        method, target, headers, body = on_the_wire(made)
        claim = sigv4.parse(method, target, headers)
        assert claim is not None
        assert (claim.access_key_id, claim.region, claim.service, claim.date) == (AKID, REGION, service, "20261124")
        assert claim.token == (token.encode() if token else None)
        assert sigv4.needs_body_hash(claim) is not s3
        digest = sha256(body).hexdigest()
        verified = sigv4.verify(claim, method, target, headers, key, NOW_S, digest)
        assert verified.encoding == canonical.RAW
        assert verified.body_sha256 == digest

        to_sign = [(name, value) for name, value in headers if name in claim.signed_headers]
        ours = sigv4.sign(
            method,
            target,
            to_sign,
            claim.payload_hash or digest.encode(),
            sigv4.Credentials(AKID, SECRET, token),
            key,
            claim.amz_date,
            claim.date,
            REGION,
            service,
        )
        assert ours == (dict(headers)[b"authorization"], claim.signature)
        tampered(claim, method, target, headers, key, digest)


def tampered(
    claim: sigv4.Claim, method: bytes, target: bytes, headers: Headers, key: bytes, digest: str | None
) -> None:
    """A request that differs in any signed part is refused."""
    changed = [(name, value + b"x" if name == b"host" else value) for name, value in headers]
    path, question, parameters = target.partition(b"?")
    for other in (
        (b"PATCH", target, headers, key, digest),
        (method, path + b"?" + parameters + b"&evil=1", headers, key, digest),
        (method, path + b"zz" + question + parameters, headers, key, digest),
        (method, target, changed, key, digest),
        (method, target, [*headers, (b"host", b"second")], key, digest),
        (method, target, headers, bytes(32), digest),
    ):
        with pytest.raises(sigv4.AuthError) as caught:
            sigv4.verify(claim, other[0], other[1], other[2], other[3], NOW_S, other[4])
        assert caught.value.aws_code == "SignatureDoesNotMatch"
        assert SECRET not in str(caught.value) and TOKEN not in str(caught.value)


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(("service", "signer"), QUERY_FORMS)
def test_query_form(service: str, signer: Callable[..., auth.SigV4QueryAuth], token: str | None) -> None:
    rng = random.Random(f"{service}{token}")
    key = sigv4.signing_key(SECRET, "20261124", REGION, service)
    for _ in range(CASES):
        made = request(rng, service == "s3")
        made.data = b""
        with frozen():
            signer(BotoCredentials(AKID, SECRET, token), service, REGION, expires=60).add_auth(made)
        method, target, headers, _ = on_the_wire(made)
        claim = sigv4.parse(method, target, headers)
        assert claim is not None
        assert (claim.form, claim.expires) == ("query", 60)
        assert claim.token == (token.encode() if token else None)
        verified = sigv4.verify(claim, method, target, headers, key, NOW_S + 60, sigv4.EMPTY_SHA256)
        assert verified.payload is (sigv4.PayloadKind.UNSIGNED if service == "s3" else sigv4.PayloadKind.BODY)
        tampered(claim, method, target, headers, key, sigv4.EMPTY_SHA256)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_sigv2_query_form(token: str | None) -> None:
    rng = random.Random(f"v2{token}")
    for _ in range(CASES):
        made = request(rng, s3=True)
        made.data = b""
        in_host = rng.random() < 0.5
        raw_path = urlsplit(str(made.url)).path or "/"
        made.auth_path = f"/some-bucket{raw_path}" if in_host else None
        for name in ("User-Agent", "X-Amzn-Trace-Id", "X-Custom", "Range"):
            del made.headers[name]
        with frozen():
            auth.HmacV1QueryAuth(BotoCredentials(AKID, SECRET, token), expires=60).add_auth(made)
        method, target, headers, _ = on_the_wire(made)
        if rng.random() < 0.5:  # what the URL carries need not come as headers again
            headers = [(name, value) for name, value in headers if name == b"host"]
        headers = [(name, value) for name, value in headers if name != b"date"]
        claim = sigv2.parse(method, target, headers)
        assert claim is not None
        assert sigv4.parse(method, target, headers) is None
        assert claim.access_key_id == AKID
        assert claim.token == (token.encode() if token else None)
        bucket = "some-bucket" if in_host else ""
        sigv2.verify(claim, SECRET, NOW_S + 60, bucket)
        for now, secret, other, code in (
            (NOW_S + 61, SECRET, bucket, "AccessDenied"),
            (NOW_S, "other", bucket, "SignatureDoesNotMatch"),
            (NOW_S, SECRET, "other-bucket", "SignatureDoesNotMatch"),
        ):
            with pytest.raises(sigv4.AuthError) as caught:
                sigv2.verify(claim, secret, now, other)
            assert caught.value.aws_code == code
