"""The head that goes upstream: the client's own lines, less its lease and this hop, signed anew."""

from __future__ import annotations

import pytest

from narrows.core.errors import Refusal
from narrows.session.aws import outbound
from narrows.wire import canonical, sigv4
from narrows.wire.http1 import RequestHead, RequestParser

CREDENTIALS = sigv4.Credentials("AKIDEXAMPLE", "upstream-secret", "upstream/token==")
DATE = "20260101T000000Z"
KEY = sigv4.signing_key(CREDENTIALS.secret_access_key, DATE[:8], "eu-west-1", "s3")


def head(*lines: bytes, method: bytes = b"PUT", target: bytes = b"/b/k") -> RequestHead:
    parser = RequestParser()
    parser.feed(
        method
        + b" "
        + target
        + b" HTTP/1.1\r\n"
        + b"".join(line + b"\r\n" for line in (b"Host: old", *lines))
        + b"\r\n"
    )
    found = parser.next()
    assert isinstance(found, RequestHead)
    return found


def build(one: RequestHead, *, signed: tuple[bytes, ...] = (b"host",), credentials: sigv4.Credentials = CREDENTIALS,
          framing: bytes = b"") -> tuple[bytes, bytes, str]:  # fmt: skip
    return outbound.build(
        one, target=one.target, host="new", payload_hash=b"UNSIGNED-PAYLOAD", client_signed=signed, framing=framing,
        credentials=credentials, key=KEY, amz_date=DATE, region="eu-west-1", service="s3", encoding=0,
    )  # fmt: skip


def verified(raw: bytes) -> RequestHead:
    parser = RequestParser()
    parser.feed(raw)
    found = parser.next()
    assert isinstance(found, RequestHead)
    claim = sigv4.parse(found.method, found.target, found.headers)
    assert claim is not None
    sigv4.verify(claim, found.method, found.target, found.headers, KEY, float(canonical.epoch(DATE)), "0" * 64)
    return found


def test_lines_go_on_byte_for_byte_but_for_lease_and_hop() -> None:
    one = head(
        b"X-Odd:\t two  spaces ", b"x-amz-content-sha256: UNSIGNED-PAYLOAD", b"Authorization: lease",
        b"X-Amz-Security-Token: lease", b"X-Amz-Date: lease", b"Date: lease", b"Proxy-Authorization: lease",
        b"Connection: keep-alive", b"TE: trailers", b"Expect: 100-continue", b"Transfer-Encoding: chunked",
        b"X-Amz-Meta-A: 1", b"X-Amz-Meta-A: 2",
    )  # fmt: skip
    sent, recorded, seed = build(one, framing=b"Transfer-Encoding: chunked")
    assert b"X-Odd:\t two  spaces \r\n" in sent
    assert b"lease" not in sent
    assert sent.count(b"Transfer-Encoding") == 1
    for gone in (b"Connection", b"TE:", b"Expect", b"Proxy-", b"\r\nDate:"):
        assert gone not in sent
    found = verified(sent)
    signed = found.get(b"authorization") or b""
    assert b"host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token" in signed
    assert signed.endswith(seed.encode())
    assert len(recorded) == len(sent)
    assert b"upstream" not in recorded
    assert seed.encode() not in recorded
    assert b"X-Amz-Security-Token: " + b"*" * 16 in recorded


def test_without_a_token() -> None:
    plain = sigv4.Credentials("AKIDEXAMPLE", "upstream-secret")
    sent, recorded, _seed = build(head(b"x-amz-content-sha256: UNSIGNED-PAYLOAD"), credentials=plain)
    assert b"oken" not in sent
    assert len(sent) == len(recorded)
    verified(sent)


def test_what_the_client_signed_is_signed_but_for_what_intermediaries_change() -> None:
    one = head(b"x-amz-content-sha256: UNSIGNED-PAYLOAD", b"Range: bytes=0-1", b"User-Agent: me", b"If-Match: x")
    sent, _recorded, _seed = build(one, signed=(b"host", b"range", b"user-agent"))
    names = (verified(sent).get(b"authorization") or b"").partition(b"SignedHeaders=")[2].partition(b",")[0]
    assert names.split(b";") == [b"host", b"range", b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token"]


@pytest.mark.parametrize("named", [b"range", b"Range, close", b"x-amz-meta-a", b"keep-alive,content-type"])
def test_connection_naming_a_header_of_the_call(named: bytes) -> None:
    one = head(b"Range: bytes=0-1", b"X-Amz-Meta-A: 1", b"Content-Type: a/b", b"Connection: " + named)
    with pytest.raises(Refusal) as caught:
        build(one)
    assert caught.value.code == "hop_by_hop_abuse"


@pytest.mark.parametrize("named", [b"close", b"keep-alive", b"TE, close", b"Upgrade, HTTP2-Settings", b"x-not-there"])
def test_connection_naming_what_is_of_the_hop(named: bytes) -> None:
    build(head(b"TE: trailers", b"Upgrade: h2c", b"HTTP2-Settings: x", b"Connection: " + named))


@pytest.mark.parametrize(
    ("target", "v2", "bare"),
    [
        (b"/b/k", False, b"/b/k"),
        (b"/b/k?X-Amz-Signature=a&X-Amz-Date=b", False, b"/b/k"),
        (b"/b/k?versionId=%2F&X-Amz-Signature=a&tagging", False, b"/b/k?versionId=%2F&tagging"),
        (b"/b/k?x-id=GetObject&x-amz-meta-a=1&X-Amz-Credential=c", False, b"/b/k?x-id=GetObject&x-amz-meta-a=1"),
        (b"/b/k?AWSAccessKeyId=a&Expires=1&Signature=s&acl", True, b"/b/k?acl"),
        (b"/b/k?Expires=1&Signature=s", False, b"/b/k?Expires=1&Signature=s"),
    ],
)
def test_query_authentication_is_taken_off(target: bytes, v2: bool, bare: bytes) -> None:
    assert outbound.strip_presign(target, v2=v2) == bare


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 5"])
def test_a_presigned_head(framing: bytes) -> None:
    names = (b"content-length", b"host", b"x-amz-meta-a") if framing else (b"host", b"x-amz-meta-a")
    one = head(b"Content-Length: 5", b"X-Amz-Meta-A: 1", b"X-Amz-Security-Token: lease", b"Authorization: lease")
    sent, recorded, signature = outbound.build_presigned(
        one, target=b"/b/k?versionId=1", host="new", payload_hash=b"UNSIGNED-PAYLOAD", signed_headers=names,
        framing=framing, credentials=CREDENTIALS, key=KEY, amz_date=DATE, region="eu-west-1", service="s3", encoding=0,
    )  # fmt: skip
    assert b"lease" not in sent
    found = verified(sent)
    assert found.target.startswith(b"/b/k?versionId=1&X-Amz-Algorithm=")
    assert signature.encode() in sent
    assert signature.encode() not in recorded
    assert b"upstream" not in recorded
    assert len(sent) == len(recorded)
