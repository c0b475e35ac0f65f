"""Published values: AWS's signature test suite, the S3 and IAM documentation's examples, event stream examples."""

from __future__ import annotations

from hashlib import sha256

import pytest

from narrows.wire import canonical, eventstream, sigv2, sigv4
from narrows.wire.aws_chunked import ChunkEnd, Decoder, Done, Encoder, encoded_length
from narrows.wire.sigv4 import ChunkSigner, Credentials, PayloadKind

Headers = list[tuple[bytes, bytes]]

SUITE_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_DATE = "20150830T123600Z"
S3_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
S3_DATE = "20130524T000000Z"

HOST = (b"host", b"example.amazonaws.com")
DATE = (b"x-amz-date", SUITE_DATE.encode())
UNRESERVED = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
POST_VANILLA = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
FORM = (b"content-type", b"application/x-www-form-urlencoded")

SUITE: list[tuple[str, bytes, bytes, Headers, bytes, str]] = [
    ("vanilla", b"GET", b"/", [], b"", VANILLA),
    ("relative", b"GET", b"/example/..", [], b"", VANILLA),
    ("relative-relative", b"GET", b"/example1/example2/../..", [], b"", VANILLA),
    ("slash", b"GET", b"//", [], b"", VANILLA),
    ("slash-dot-slash", b"GET", b"/./", [], b"", VANILLA),
    (
        "slash-pointless-dot",
        b"GET",
        b"/./example",
        [],
        b"",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    (
        "slashes",
        b"GET",
        b"//example//",
        [],
        b"",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    (
        "space",
        b"GET",
        b"/example space/",
        [],
        b"",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    (
        "unreserved",
        b"GET",
        b"/" + UNRESERVED,
        [],
        b"",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "utf8",
        b"GET",
        "/ሴ".encode(),
        [],
        b"",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    (
        "query-utf8",
        b"GET",
        "/?ሴ=bar".encode(),
        [],
        b"",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    (
        "query-order-encoded",
        b"GET",
        b"/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        [],
        b"",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    (
        "query-order-key-case",
        b"GET",
        b"/?Param2=value2&Param1=value1",
        [],
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "query-empty-key",
        b"GET",
        b"/?Param1=value1",
        [],
        b"",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "query-unreserved",
        b"GET",
        b"/?" + UNRESERVED + b"=" + UNRESERVED,
        [],
        b"",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "header-key-duplicate",
        b"GET",
        b"/",
        [(b"my-header1", b"value2"), (b"my-header1", b"value2"), (b"my-header1", b"value1")],
        b"",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "header-value-order",
        b"GET",
        b"/",
        [
            (b"my-header1", b"value4"),
            (b"my-header1", b"value1"),
            (b"my-header1", b"value3"),
            (b"my-header1", b"value2"),
        ],
        b"",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    (
        "header-value-trim",
        b"GET",
        b"/",
        [(b"my-header1", b"value1"), (b"my-header2", b'"a   b   c"')],
        b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "header-value-multiline, folded by the client",
        b"GET",
        b"/",
        [(b"my-header1", b"value1   value2\t     value3")],
        b"",
        "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd",
    ),
    ("post-vanilla", b"POST", b"/", [], b"", POST_VANILLA),
    (
        "post-vanilla-query",
        b"POST",
        b"/?Param1=value1",
        [],
        b"",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    (
        "post-header-key-sort",
        b"POST",
        b"/",
        [(b"my-header1", b"value1")],
        b"",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    (
        "post-header-value-case",
        b"POST",
        b"/",
        [(b"my-header1", b"VALUE1")],
        b"",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    (
        "post-sts-header-before",
        b"POST",
        b"/",
        [
            (
                b"x-amz-security-token",
                b"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeo"
                b"IYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5V"
                b"SXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yj"
                b"c8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==",
            )
        ],
        b"",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
    (
        "post-form",
        b"POST",
        b"/",
        [FORM],
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    (
        "post-form-parameters",
        b"POST",
        b"/",
        [(b"content-type", b"application/x-www-form-urlencoded; charset=utf8")],
        b"Param1=value1",
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
    ),
]


@pytest.mark.parametrize(
    ("method", "target", "extra", "body", "signature"), [row[1:] for row in SUITE], ids=[row[0] for row in SUITE]
)
def test_suite(method: bytes, target: bytes, extra: Headers, body: bytes, signature: str) -> None:
    headers = [*extra, HOST, DATE]
    key = sigv4.signing_key(SUITE_SECRET, "20150830", "us-east-1", "service")
    names = b";".join(sorted({name for name, _ in headers}))
    scope = b"AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    authorization = b"AWS4-HMAC-SHA256 Credential=%b, SignedHeaders=%b, Signature=%b" % (
        scope,
        names,
        signature.encode(),
    )
    digest = sha256(body).hexdigest()
    received = [*headers, (b"authorization", authorization), (b"user-agent", b"x")]
    claim = sigv4.parse(method, target, received)
    assert claim is not None
    verified = sigv4.verify(claim, method, target, received, key, canonical.epoch(SUITE_DATE), digest)
    assert verified.payload is PayloadKind.BODY
    signed = sigv4.sign(
        method,
        target,
        headers,
        digest.encode(),
        Credentials("AKIDEXAMPLE", SUITE_SECRET),
        key,
        SUITE_DATE,
        "20150830",
        "us-east-1",
        "service",
        encoding=verified.encoding,
    )
    assert signed == (authorization, signature)


def test_signing_key_of_the_documentation() -> None:
    key = sigv4.signing_key(SUITE_SECRET, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


def test_iam_example_of_the_documentation() -> None:
    headers = [
        (b"host", b"iam.amazonaws.com"),
        (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"),
        DATE,
    ]
    _, signature = sigv4.sign(
        b"GET",
        b"/?Action=ListUsers&Version=2010-05-08",
        headers,
        sigv4.EMPTY_SHA256.encode(),
        Credentials("AKIDEXAMPLE", SUITE_SECRET),
        sigv4.signing_key(SUITE_SECRET, "20150830", "us-east-1", "iam"),
        SUITE_DATE,
        "20150830",
        "us-east-1",
        "iam",
    )
    assert signature == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


EMPTY = (b"x-amz-content-sha256", sigv4.EMPTY_SHA256.encode())
BUCKET = (b"host", b"examplebucket.s3.amazonaws.com")
S3_EXAMPLES: list[tuple[bytes, bytes, Headers, str]] = [
    (
        b"GET",
        b"/test.txt",
        [(b"range", b"bytes=0-9"), EMPTY],
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        b"PUT",
        b"/test%24file.text",
        [
            (b"date", b"Fri, 24 May 2013 00:00:00 GMT"),
            (b"x-amz-content-sha256", sha256(b"Welcome to Amazon S3.").hexdigest().encode()),
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        ],
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (b"GET", b"/?lifecycle", [EMPTY], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    (
        b"GET",
        b"/?max-keys=2&prefix=J",
        [EMPTY],
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
]


def s3_key() -> bytes:
    return sigv4.signing_key(S3_SECRET, "20130524", "us-east-1", "s3")


@pytest.mark.parametrize(("method", "target", "extra", "signature"), S3_EXAMPLES)
def test_s3_examples_of_the_documentation(method: bytes, target: bytes, extra: Headers, signature: str) -> None:
    headers = [BUCKET, *extra, (b"x-amz-date", S3_DATE.encode())]
    payload_hash = dict(headers)[b"x-amz-content-sha256"]
    authorization, signed = sigv4.sign(
        method,
        target,
        headers,
        payload_hash,
        Credentials("AKIAIOSFODNN7EXAMPLE", S3_SECRET),
        s3_key(),
        S3_DATE,
        "20130524",
        "us-east-1",
        "s3",
    )
    assert signed == signature
    received = [*headers, (b"authorization", authorization)]
    claim = sigv4.parse(method, target, received)
    assert claim is not None
    verified = sigv4.verify(claim, method, target, received, s3_key(), canonical.epoch(S3_DATE))
    assert verified.body_sha256.encode() == payload_hash


def test_the_s3_example_sent_with_a_raw_dollar_sign_is_the_same_request() -> None:
    method, target, extra, signature = S3_EXAMPLES[1]
    headers = [BUCKET, *extra, (b"x-amz-date", S3_DATE.encode())]
    names = b";".join(sorted(name for name, _ in headers))
    received = [
        *headers,
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            b"SignedHeaders=%b,Signature=%b" % (names, signature.encode()),
        ),
    ]
    raw = target.replace(b"%24", b"$")
    claim = sigv4.parse(method, raw, received)
    assert claim is not None
    verified = sigv4.verify(claim, method, raw, received, s3_key(), canonical.epoch(S3_DATE))
    assert verified.encoding == canonical.ENCODED_PATH


PRESIGNED = (
    b"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    b"&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
    b"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    b"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def test_presigned_url_of_the_documentation() -> None:
    headers = [BUCKET]
    claim = sigv4.parse(b"GET", PRESIGNED, headers)
    assert claim is not None
    assert (claim.form, claim.expires, claim.access_key_id) == ("query", 86400, "AKIAIOSFODNN7EXAMPLE")
    verified = sigv4.verify(claim, b"GET", PRESIGNED, headers, s3_key(), canonical.epoch(S3_DATE) + 86400)
    assert verified.payload is PayloadKind.UNSIGNED


CHUNKED = [
    (
        [(b"content-length", b"66824")],
        PayloadKind.STREAMING_SIGNED,
        [],
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        [
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ],
        "",
    ),
    (
        [(b"x-amz-trailer", b"x-amz-checksum-crc32c")],
        PayloadKind.STREAMING_SIGNED_TRAILER,
        [(b"x-amz-checksum-crc32c", b"sOO8/Q==")],
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        [
            "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
            "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
            "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
        ],
        "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    ),
]


@pytest.mark.parametrize(("extra", "kind", "trailers", "seed", "signatures", "last"), CHUNKED)
def test_chunked_upload_of_the_documentation(
    extra: Headers, kind: PayloadKind, trailers: Headers, seed: str, signatures: list[str], last: str
) -> None:
    headers = [
        (b"host", b"s3.amazonaws.com"),
        (b"x-amz-date", S3_DATE.encode()),
        (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        (b"x-amz-content-sha256", kind.value.encode()),
        (b"content-encoding", b"aws-chunked"),
        (b"x-amz-decoded-content-length", b"66560"),
        *extra,
    ]
    target = b"/examplebucket/chunkObject.txt"
    authorization, signature = sigv4.sign(
        b"PUT",
        target,
        headers,
        kind.value.encode(),
        Credentials("AKIAIOSFODNN7EXAMPLE", S3_SECRET),
        s3_key(),
        S3_DATE,
        "20130524",
        "us-east-1",
        "s3",
    )
    assert signature == seed
    received = [*headers, (b"authorization", authorization)]
    claim = sigv4.parse(b"PUT", target, received)
    assert claim is not None
    verified = sigv4.verify(claim, b"PUT", target, received, s3_key(), canonical.epoch(S3_DATE))
    assert verified.payload is kind

    pieces: list[bytes] = []
    for size, chunk_signature in zip((65536, 1024, 0), signatures, strict=True):
        pieces.append(b"%x;chunk-signature=%b\r\n" % (size, chunk_signature.encode()))
        if size:
            pieces.append(b"a" * size + b"\r\n")
    pieces += [name + b":" + value + b"\r\n" for name, value in trailers]
    if last:
        pieces.append(b"x-amz-trailer-signature:" + last.encode() + b"\r\n")
    body = b"".join(pieces) + b"\r\n"

    signer = ChunkSigner(s3_key(), verified.scope, verified.amz_date, verified.signature)
    decoder = Decoder(kind, signer, 66560, frozenset(name for name, _ in trailers))
    events = decoder.feed(body)
    decoder.finish()
    assert [event.size for event in events if isinstance(event, ChunkEnd)] == [65536, 1024]
    assert events[-1] == Done(trailers)

    encoder = Encoder(ChunkSigner(s3_key(), verified.scope, verified.amz_date, seed), bool(last))
    assert encoder.feed(b"a" * 66560) + encoder.finish(trailers) == body
    lines = [name + b":" + value for name, value in trailers] if last else None
    assert encoded_length(66560, 65536, lines) == len(body)
    if not last:
        assert len(body) == 66824


def test_sigv2_presigned_example_of_the_documentation() -> None:
    target = (
        b"/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE"
        b"&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"
    )
    claim = sigv2.parse(b"GET", target, [(b"host", b"johnsmith.s3.amazonaws.com")])
    assert claim is not None
    assert sigv2.string_to_sign(claim, "johnsmith") == b"GET\n\n\n1175139620\n/johnsmith/photos/puppy.jpg"
    sigv2.verify(claim, S3_SECRET, 1175139620, "johnsmith")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("000000100000000005c248eb7d98c8ff", eventstream.Message({}, b"")),
        (
            "0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936",
            eventstream.Message({}, b"{'foo':'bar'}"),
        ),
    ],
)
def test_event_stream_examples(raw: str, message: eventstream.Message) -> None:
    assert eventstream.encode(message).hex() == raw
    assert eventstream.decode(bytes.fromhex(raw)) == message


def test_what_a_signed_event_covers() -> None:
    """Digests as another implementation of the signed event form has them for the same event and date."""
    date = {":date": eventstream.Header(eventstream.TIMESTAMP, 123_456_789_000)}
    event = eventstream.Message({"some-header": eventstream.Header(eventstream.STRING, "value")}, b"test payload")
    assert (
        sha256(eventstream.encode_headers(date)).hexdigest()
        == "0c0e3b3bf66b59b976181bd7d401927bbd624107303c713fd1e5f3d3c8dd1b1e"
    )
    assert (
        sha256(eventstream.encode(event)).hexdigest()
        == "f2eba0f2e95967ee9fbc6db5e678d2fd599229c0d04b11e4fc8e0f2a02a806c6"
    )
    assert canonical.amz_date(123_456_789) == "19731129T213309Z"
