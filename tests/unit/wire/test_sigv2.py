"""Presigned SigV2 URLs: refusals. That right ones verify is in tests/vectors."""

from __future__ import annotations

import pytest

from narrows.wire import sigv2
from narrows.wire.sigv4 import AuthError

GOOD = b"AWSAccessKeyId=AKID&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"


@pytest.mark.parametrize("target", [b"/", b"/?a=AWSAccessKeyId", b"/?Signature=x&Expires=1"])
def test_what_is_not_signed_so_is_not_ours(target: bytes) -> None:
    assert sigv2.parse(b"GET", target, [(b"authorization", b"AWS4-HMAC-SHA256 x")]) is None


def test_the_header_form_is_refused_with_what_to_set() -> None:
    with pytest.raises(AuthError) as caught:
        sigv2.parse(b"GET", b"/", [(b"authorization", b"AWS AKID:sig")])
    assert caught.value.code == "sigv2_unsupported"
    assert "signature_version" in caught.value.hint


def test_other_services_are_refused_with_what_to_set() -> None:
    with pytest.raises(AuthError, match="signature_version"):
        sigv2.parse(b"GET", b"/?Action=X&SignatureVersion=2&" + GOOD, [])


@pytest.mark.parametrize(
    "query",
    [
        b"AWSAccessKeyId=AKID",
        GOOD.replace(b"AKID", b""),
        GOOD.replace(b"AKID", b"%00"),
        GOOD.replace(b"1175139620", b"soon"),
        GOOD.replace(b"1175139620", b"9" * 13),
        GOOD.replace(b"%3D", b""),
        GOOD.replace(b"Npg", b"%FF"),
        GOOD + b"&Expires=1",
        GOOD + b"&AWSAccessKeyId=B",
        GOOD + b"&X-Amz-Signature=a",
        GOOD + b"&x-amz-acl=a&x-amz-acl=a",
        GOOD + b"&x-amz-acl=private",
        GOOD + b"&Content-Type=a",
    ],
)
def test_malformed(query: bytes) -> None:
    headers = [(b"host", b"gw"), (b"x-amz-acl", b"public-read"), (b"content-type", b"b")]
    with pytest.raises(AuthError) as caught:
        sigv2.parse(b"GET", b"/b/k?" + query, headers)
    assert caught.value.aws_code == "AccessDenied"


def test_beside_an_authorization_header() -> None:
    with pytest.raises(AuthError, match="as well"):
        sigv2.parse(b"GET", b"/b/k?" + GOOD, [(b"authorization", b"Bearer t")])


def test_string_to_sign_counts_headers_tokens_and_sub_resources() -> None:
    target = b"/k%20y?versionId=a%2Fb&prefix=x&acl&response-content-type=text%2Fplain&x-amz-security-token=t%2B&" + GOOD
    headers = [
        (b"x-amz-meta-b", b"2"),
        (b"x-amz-meta-a", b"1"),
        (b"x-amz-meta-b", b"3"),
        (b"content-type", b"text/x"),
        (b"content-md5", b"bWQ1"),
    ]
    claim = sigv2.parse(b"PUT", target, headers)
    assert claim is not None
    assert claim.token == b"t+"
    assert sigv2.string_to_sign(claim, "bucket") == (
        b"PUT\nbWQ1\ntext/x\n1175139620\nx-amz-meta-a:1\nx-amz-meta-b:2,3\nx-amz-security-token:t+\n"
        b"/bucket/k%20y?acl&response-content-type=text/plain&versionId=a/b"
    )
    assert "t+" not in repr(claim)
