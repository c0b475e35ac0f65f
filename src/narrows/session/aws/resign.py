"""Signing anew what a verified call was signed with: its head with the connection's credential, its body as it comes.

Sources: AWS "Signature Version 4" and "Signature calculations for streaming uploads"; the forms of a body are those of
`narrows.wire.sigv4.PayloadKind`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote
from weakref import WeakKeyDictionary

from narrows.core.errors import ProtocolError
from narrows.core.ports import Clock
from narrows.session.aws import body as bodies
from narrows.session.aws import outbound, resolve
from narrows.session.call import BodyPipe, Call, Outbound, PassBody
from narrows.wire import aws_chunked, eventstream, sigv2, sigv4
from narrows.wire.http1 import RequestHead

S3_SERVICES = frozenset({"s3", "s3express", "s3-outposts", "s3-object-lambda"})
"""Signing names whose paths are signed as they are, and whose presigned URLs do not cover the body."""

_SIGNATURE = re.compile(rb"Signature=([0-9a-f]{64})")


class Proof:
    """What a caller's signature said, and, once verified, what is needed to check and re-sign the body."""

    __slots__ = ("claim", "claim_v2", "key", "target", "verified")

    def __init__(self, claim: sigv4.Claim | None, claim_v2: sigv2.ClaimV2 | None) -> None:
        self.claim = claim
        self.claim_v2 = claim_v2
        self.key = b""
        self.verified: sigv4.Verified | None = None
        self.target: resolve.Target | None = None


@dataclass(slots=True)
class Signing:
    """With what, and in which scope, a request is signed for the target. `seed` is its head's signature, once made."""

    credentials: sigv4.Credentials
    key: bytes = field(repr=False)
    amz_date: str
    region: str
    service: str
    seed: str = ""

    def chunk_signer(self) -> sigv4.ChunkSigner:
        """The chain of chunk signatures that starts from the head's."""
        scope = f"{self.amz_date[:8]}/{self.region}/{self.service}/aws4_request"
        return sigv4.ChunkSigner(self.key, scope, self.amz_date, self.seed)


class Resigner:
    """Signs heads and bodies; `client_keys` and `upstream_keys` are the caches of both sides' signing keys."""

    def __init__(self, clock: Clock, client_keys: sigv4.KeyCache, upstream_keys: sigv4.KeyCache) -> None:
        self._clock = clock
        self._client_keys = client_keys
        self._upstream_keys = upstream_keys

    def sign(self, call: Call, path: bytes, host: str, signing: Signing) -> tuple[bytes, bytes, bool, BodyPipe]:
        """Head to send, head to record, whether the body goes in HTTP chunks, and what happens to the body."""
        proof: Proof = call.auth
        head = call.head
        claim = proof.claim
        framing, chunked = self._framing(call)
        if claim is None or claim.form == "query":
            sent, recorded, _signature = outbound.build_presigned(
                head,
                target=path,
                host=host,
                payload_hash=self._presigned_payload(call, claim),
                signed_headers=claim.signed_headers if claim else _signed_v2(head),
                framing=framing,
                credentials=signing.credentials,
                key=signing.key,
                amz_date=signing.amz_date,
                region=signing.region,
                service=signing.service,
                encoding=proof.verified.encoding if proof.verified else 0,
            )
            return sent, recorded, chunked, PassBody()
        payload_hash = claim.payload_hash or digest_of(call).encode("ascii")
        sent, recorded, signing.seed = outbound.build(
            head,
            target=path,
            host=host,
            payload_hash=payload_hash,
            client_signed=claim.signed_headers,
            framing=framing,
            credentials=signing.credentials,
            key=signing.key,
            amz_date=signing.amz_date,
            region=signing.region,
            service=signing.service,
            encoding=proof.verified.encoding if proof.verified else 0,
        )
        return sent, recorded, chunked, self._pipe(call, signing)

    def _presigned_payload(self, call: Call, claim: sigv4.Claim | None) -> bytes:
        if claim is None or claim.service in S3_SERVICES:
            return (claim.payload_hash if claim else b"") or b"UNSIGNED-PAYLOAD"
        return claim.payload_hash or digest_of(call).encode("ascii")

    def _framing(self, call: Call) -> tuple[bytes, bool]:
        """The framing line signing. Re-signed chunks have other boundaries than the client's, hence another length."""
        head = call.head
        length = head.get(b"content-length")
        verified = call.auth.verified
        if verified is not None and verified.payload in (
            sigv4.PayloadKind.STREAMING_SIGNED,
            sigv4.PayloadKind.STREAMING_SIGNED_TRAILER,
        ):
            decoded = _decoded_length(head.get(b"x-amz-decoded-content-length"))
            if verified.payload is sigv4.PayloadKind.STREAMING_SIGNED and decoded is not None:
                size = aws_chunked.encoded_length(decoded, bodies.CHUNK, None)
                return b"Content-Length: %d" % size, False
            return b"Transfer-Encoding: chunked", True
        if length is not None:
            return b"Content-Length: " + length, False
        if head.get(b"transfer-encoding") is not None:
            return b"Transfer-Encoding: chunked", True
        return b"", False

    def _pipe(self, call: Call, signing: Signing) -> BodyPipe:
        proof: Proof = call.auth
        verified = proof.verified
        assert verified is not None
        kind = verified.payload
        if kind in (sigv4.PayloadKind.HEX, sigv4.PayloadKind.EMPTY):
            return bodies.DeclaredDigest(verified.body_sha256)
        if kind in (sigv4.PayloadKind.UNSIGNED, sigv4.PayloadKind.BODY):
            return PassBody()
        head = call.head
        decoded = _decoded_length(head.get(b"x-amz-decoded-content-length"))
        names = frozenset(
            part.strip().lower() for part in (head.get(b"x-amz-trailer") or b"").split(b",") if part.strip()
        )
        client_signer = sigv4.ChunkSigner(proof.key, verified.scope, verified.amz_date, verified.signature)
        if kind is sigv4.PayloadKind.STREAMING_UNSIGNED_TRAILER:
            return bodies.UnsignedChunks(aws_chunked.Decoder(kind, None, decoded, names))
        if kind is sigv4.PayloadKind.EVENTS:
            return self._events(call, signing)
        trailer = kind is sigv4.PayloadKind.STREAMING_SIGNED_TRAILER
        return bodies.ResignedChunks(
            aws_chunked.Decoder(kind, client_signer, decoded, names),
            aws_chunked.Encoder(signing.chunk_signer(), trailer, bodies.CHUNK),
        )

    def _events(self, call: Call, signing: Signing) -> BodyPipe:
        proof: Proof = call.auth
        claim, lease, verified = proof.claim, call.lease, proof.verified
        assert claim is not None and lease is not None and verified is not None
        theirs, ours = self._client_keys, self._upstream_keys
        credentials = signing.credentials
        verifier = eventstream.EventVerifier(
            lambda day: theirs.get(
                lease.access_key_id, lease.secret_access_key, day, claim.region, claim.service
            ),
            claim.region, claim.service, verified.signature,
        )  # fmt: skip
        signer = eventstream.EventSigner(
            lambda day: ours.get(
                credentials.access_key_id, credentials.secret_access_key, day, signing.region, signing.service
            ),
            signing.region, signing.service, signing.seed,
        )  # fmt: skip
        return bodies.ResignedEvents(verifier, signer, self._clock)


def secrets(out: Outbound) -> tuple[bytes, ...]:
    """What must not come back to the client: secret key, session token, and the signature that we made.

    In every spelling that a target is known to answer in: as in a URL, escaped for JSON, and as the hexadecimal
    bytes in which S3's SignatureDoesNotMatch repeats the canonical request.
    """
    credentials: sigv4.Credentials = out.credentials
    spelt = _spelt.get(credentials)
    if spelt is None:
        spelt = _spelt[credentials] = _of_credentials(credentials.secret_access_key, credentials.session_token or "")
    for signature in _SIGNATURE.findall(out.head):  # hexadecimal digits, which no URL and no JSON escapes
        pairs = signature.hex(" ").encode("ascii")
        spelt += (pairs, pairs.upper(), signature.hex().encode("ascii"), signature)
    return spelt


_spelt: WeakKeyDictionary[sigv4.Credentials, tuple[bytes, ...]] = WeakKeyDictionary()
"""Spellings by credentials, which stay the same from call to call; they go when the credentials go."""


def _of_credentials(secret: str, token: str) -> tuple[bytes, ...]:
    """The spellings of a secret key and a session token, longest first."""
    found = [one.encode("ascii") for one in (secret, token) if one]
    spellings = dict.fromkeys(one for each in found for one in _spellings(each))
    return tuple(sorted(spellings, key=len, reverse=True))


def _spellings(secret: bytes) -> tuple[bytes, ...]:
    escaped = quote(secret, safe="-_.~")
    lower = re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), escaped)
    return (
        secret,
        escaped.encode("ascii"),
        lower.encode("ascii"),
        quote(escaped, safe="").encode("ascii"),
        secret.replace(b"/", b"\\/"),
        secret.hex(" ").encode("ascii"),
        secret.hex(" ").upper().encode("ascii"),
        secret.hex().encode("ascii"),
    )


def digest_of(call: Call) -> str:
    if not call.body_sha256:
        call.body_sha256 = sha256(call.body or b"").hexdigest()
    return call.body_sha256


def _signed_v2(head: RequestHead) -> tuple[bytes, ...]:
    """What a SigV2 signature covers, as names that SigV4 signs: S3 accepts no x-amz-* header unsigned."""
    names = {b"host"} | {name for name, _value in head.headers if name[:6] == b"x-amz-"} - {b"x-amz-security-token"}
    return tuple(sorted(names))


def _decoded_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise ProtocolError("x-amz-decoded-content-length is not a length")
    return int(value)
