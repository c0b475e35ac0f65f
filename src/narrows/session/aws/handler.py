"""AWS in the path: whose call it is, what it asks for, where it goes, and how a refusal reads in an AWS SDK."""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

from narrows.core.errors import Refusal
from narrows.core.ports import Clock
from narrows.core.values import Connection, Lease
from narrows.session.aws import endpoints, errors, outbound, resolve
from narrows.session.aws.models import Models
from narrows.session.aws.resign import S3_SERVICES, Proof, Resigner, Signing, digest_of, secrets
from narrows.session.call import Call, Outbound
from narrows.wire import sigv2, sigv4
from narrows.wire.http1 import RequestHead

_DOTS = re.compile(rb"(?i)/(?:\.|%2e){1,2}(?:/|$)")
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z0-9]{1,16}){1,5}")
_SCOPE = re.compile(rb"/[0-9]{8}/[a-z0-9*-]{1,32}/([a-z0-9-]{1,64})/aws4_request")
MAX_FORM = 16 * 1024 * 1024
"""Longest form that is unpacked to find its Action, bytes."""

_BUCKET_REGIONS = 4096
"""Buckets whose region is remembered; the oldest is forgotten first."""


class Leases(Protocol):
    """The part of identity that this handler needs."""

    def check(self, access_key_id: str, session_token: bytes, now_s: int) -> Lease:
        """The lease behind an AWS key pair. Raises Refusal."""
        ...


class Connections(Protocol):
    """The part of the directory that this handler needs."""

    def connection(self, name: str) -> Connection | None:
        """The registered connection."""
        ...

    def session_ended(self, session: bytes) -> str:
        """Why a session's leases no longer work, or an empty string."""
        ...


class AwsHandler:
    """Implements `narrows.session.call.Handler` for connections of kind `aws`.

    `gateway_hosts` are the names by which clients address the gateway itself (for S3 virtual hosts under them).
    """

    kind = "aws.call"
    needs_credentials = True
    answers = False
    upgrades = False

    def __init__(
        self,
        models: Models,
        leases: Leases,
        connections: Connections,
        clock: Clock,
        *,
        gateway_hosts: tuple[str, ...],
    ) -> None:
        self._models = models
        self._leases = leases
        self._connections = connections
        self._clock = clock
        self._gateway_hosts = gateway_hosts
        self._client_keys = sigv4.KeyCache()
        self._upstream_keys = sigv4.KeyCache()
        self._resigner = Resigner(clock, self._client_keys, self._upstream_keys)
        self._bucket_region: OrderedDict[str, str] = OrderedDict()

    # -- who --------------------------------------------------------------------------------------------------

    def claims(self, call: Call) -> bool:
        """True for anything signed the AWS way. Raises AuthError when it is signed and malformed."""
        head = call.head
        claim = sigv4.parse(head.method, head.target, head.headers, head.shape)
        claim_v2 = None if claim is not None else sigv2.parse(head.method, head.target, head.headers)
        if claim is None and claim_v2 is None:
            return False
        call.kind = self.kind
        call.auth = Proof(claim, claim_v2)
        return True

    def identify(self, call: Call) -> None:
        """Find the lease, and check that it still works and may be used here."""
        proof: Proof = call.auth
        found = proof.claim or proof.claim_v2
        assert found is not None
        if not found.token:
            raise Refusal(
                "The request carries an access key but no session token",
                "leases are key pairs with a session token",
                "set AWS_SESSION_TOKEN too, or run the command through `narrows run`",
                code="lease_without_token",
                aws_code="InvalidClientTokenId",
            )
        lease = self._leases.check(found.access_key_id, found.token, int(call.now_s))
        call.lease = lease
        call.session = lease.session
        ended = self._connections.session_ended(lease.session)
        if ended:
            raise Refusal(
                f"The session is {ended}",
                "its leases stopped working with it",
                "start a new one with `narrows run`",
                code="session_ended",
                aws_code="ExpiredToken",
            )
        if call.form == "proxy":
            _check_tunnel(call, lease)
            self._check_host(call)
        connection = self._connections.connection(lease.connection)
        if connection is None or connection.kind != "aws":
            raise Refusal(
                f"There is no AWS connection named {lease.connection}",
                "it was removed, or its kind changed, after the lease was issued",
                "see `narrows connection list`",
                code="connection_gone",
            )
        call.connection = connection
        if call.form == "proxy" and not _host_matches(call.true_host, connection.hosts):
            raise Refusal(
                f"The lease is not for {call.true_host}",
                f"connection {connection.name} does not name that host",
                "add it with `narrows connection add ... --host`, or use a lease of the connection that has it",
                code="host_not_in_connection",
            )

    def _check_host(self, call: Call) -> None:
        """Inside a tunnel the Host header names the tunnel's host, or the target would be another than decided."""
        host = (call.head.get(b"host") or b"").decode("latin-1").lower()
        if host not in (call.true_host, f"{call.true_host}:{call.true_port}"):
            raise Refusal(
                "The Host header is not the host of the tunnel",
                f"CONNECT named {call.true_host}",
                code="misdirected",
                status=421,
            )

    # -- what -------------------------------------------------------------------------------------------------

    def needs_body(self, call: Call) -> bool:
        """True where the body takes part in the signature without being declared, or holds the Action."""
        proof: Proof = call.auth
        if proof.claim is None:
            return False
        return sigv4.needs_body_hash(proof.claim) or self._needs_form(call)

    def _needs_form(self, call: Call) -> bool:
        head, claim = call.head, call.auth.claim
        return claim is not None and resolve.needs_body(head.method, head.target, head.headers, claim.service)

    def _form(self, call: Call) -> bytes:
        """The body that `resolve` looks into: a form that is compressed is read as what it holds."""
        coding = (call.head.get(b"content-encoding") or b"").strip().lower()
        body = call.body or b""
        if not coding or not body or not self._needs_form(call):
            return body
        unpack = zlib.decompressobj(wbits=31)
        try:
            if coding != b"gzip":
                raise zlib.error("not gzip")
            plain = unpack.decompress(body, MAX_FORM + 1)
        except zlib.error:
            plain = b""
        # A service that reads the packed bytes as a form must not find another operation in them.
        hides = resolve.names_operation(body)
        if not plain or not unpack.eof or unpack.unused_data or len(plain) > MAX_FORM or hides:
            raise Refusal(
                "The form could not be unpacked",
                f"its Content-Encoding is {coding.decode('latin-1')[:40]}, and it is not one whole gzip of at most"
                f" {MAX_FORM} bytes",
                "send it without Content-Encoding: AWS_DISABLE_REQUEST_COMPRESSION=true",
                code="form_encoded",
                status=400,
                aws_code="InvalidRequest",
            )
        return plain

    def decode(self, call: Call) -> None:
        """Verify the signature, then find service, operation, action and access level."""
        if call.body is None and call.body_sha256 and self._needs_form(call):
            raise Refusal(
                "The body is too long to be understood",
                "its operation stands in a form that is too long to be held",
                code="body_too_long",
                status=413,
                aws_code="RequestEntityTooLarge",
            )
        self._verify(call)
        proof: Proof = call.auth
        head = call.head
        claim = proof.claim
        if claim is not None and claim.service not in S3_SERVICES:
            _check_path(head.target)
            if proof.verified is not None and proof.verified.payload.chunked:
                # Signed anew, its chunks are others: a form could then say what it did not say before.
                raise Refusal(
                    "The body is in signed chunks",
                    "only S3 takes these",
                    "send it whole",
                    code="aws_ambiguous",
                    status=400,
                    aws_code="InvalidRequest",
                )
        target = resolve.resolve(
            self._models,
            method=head.method,
            target=head.target if claim is None or claim.form == "header" else self._bare(call),
            headers=head.headers,
            signing_name=claim.service if claim else "s3",
            region=claim.region if claim else "",
            host=call.true_host,
            body=self._form(call),
            gateway_hosts=self._gateway_hosts,
        )
        proof.target = target
        call.meaning = target
        facts = call.facts
        facts["service"] = target.service
        facts["operation"] = target.operation
        facts["action"] = target.action
        facts["access_level"] = target.access_level
        facts["protocol"] = target.protocol.value
        # SigV2 names no region; then it is the connection's.
        facts["region"] = target.region or (call.connection.region if call.connection is not None else "")

    def _bare(self, call: Call) -> bytes:
        return outbound.strip_presign(call.head.target, v2=call.auth.claim is None)

    def _verify(self, call: Call) -> None:
        proof: Proof = call.auth
        lease = call.lease
        assert lease is not None
        head = call.head
        if proof.claim_v2 is not None:
            sigv2.verify(
                proof.claim_v2, lease.secret_access_key, call.now_s, bucket_from_host=self._virtual_bucket(call)
            )
            return
        claim = proof.claim
        assert claim is not None
        proof.key = self._client_keys.get(
            claim.access_key_id, lease.secret_access_key, claim.date, claim.region, claim.service
        )
        digest = None
        if sigv4.needs_body_hash(claim):
            digest = digest_of(call)
        proof.verified = sigv4.verify(
            claim, head.method, head.target, head.headers, proof.key, call.now_s, digest, head.shape
        )

    def _virtual_bucket(self, call: Call) -> str:
        """The bucket in the Host header, where it stands there and not in the path."""
        host = (call.head.get(b"host") or b"").decode("ascii").lower()
        return resolve.bucket_of_host(call.true_host or host.rpartition(":")[0] or host, self._gateway_hosts)

    # -- where ------------------------------------------------------------------------------------------------

    def outbound(self, call: Call, credentials: sigv4.Credentials, amz_date: str) -> Outbound:
        """Where the call goes and the bytes that go there."""
        proof: Proof = call.auth
        target = proof.target
        connection = call.connection
        assert target is not None and connection is not None
        region = target.region
        if call.form == "endpoint" and target.bucket:
            region = self._bucket_region.get(target.bucket, region)
        region = region or connection.region or "us-east-1"
        scheme, host, port, prefix, region = self._place(call, target, connection, region)
        path = self._path(call, prefix, target, bool(connection.endpoint) or call.form == "endpoint")
        host_header = f"[{host}]" if ":" in host else host
        if port != (443 if scheme == "https" else 80):
            host_header += f":{port}"
        key = self._upstream_keys.get(
            credentials.access_key_id, credentials.secret_access_key, amz_date[:8], region, target.signing_name
        )
        signing = Signing(credentials, key, amz_date, region, target.signing_name)
        head, recorded, chunked, pipe = self._resigner.sign(call, path, host_header, signing)
        return Outbound(scheme, host, port, head, recorded, chunked, pipe, credentials)

    def _place(
        self, call: Call, target: resolve.Target, connection: Connection, region: str
    ) -> tuple[str, str, int, str, str]:
        if connection.endpoint:
            return *_endpoint(connection.endpoint), region
        if call.form == "proxy":
            return "https", call.true_host, call.true_port or 443, "", region
        host, scope_region = endpoints.host_for(target, region)
        return "https", host, 443, "", scope_region or region

    def _path(self, call: Call, prefix: str, target: resolve.Target, rewritten: bool) -> bytes:
        """The target as it goes up: without the lease's query authentication, S3 virtual hosts as paths."""
        proof: Proof = call.auth
        query_auth = proof.claim is None or proof.claim.form == "query"
        path = self._bare(call) if query_auth else call.head.target
        if rewritten and target.service == "s3" and target.virtual_host:
            path = b"/" + target.bucket.encode("ascii") + (path if path != b"/" else b"")
        if prefix:
            path = prefix.encode("ascii") + path
        return path

    def secrets(self, out: Outbound) -> tuple[bytes, ...]:
        """What must not come back to the client (`resign.secrets`)."""
        return secrets(out)

    def elsewhere(self, call: Call, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """S3 says that the bucket lives in another region: remember it (endpoint form only; in proxy form the
        client follows the redirect itself, through us)."""
        target = call.meaning
        if call.form != "endpoint" or target.service != "s3" or status not in (301, 307, 400) or not target.bucket:
            return False
        region = next((value for name, value in headers if name == b"x-amz-bucket-region"), b"").decode("latin-1")
        if not _REGION.fullmatch(region):
            return False
        if self._bucket_region.get(target.bucket, target.region) == region:
            return False
        self._bucket_region[target.bucket] = region
        self._bucket_region.move_to_end(target.bucket)
        if len(self._bucket_region) > _BUCKET_REGIONS:
            self._bucket_region.popitem(last=False)
        return True

    # -- no ---------------------------------------------------------------------------------------------------

    def refusal(self, call: Call, refusal: Refusal, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The refusal as the AWS error that the caller's SDK turns into its own exception."""
        proof: Proof | None = call.auth
        claim = proof.claim if proof else None
        target: resolve.Target | None = call.meaning
        service = target.service if target else (claim.service if claim else _named_service(call.head))
        protocol = target.protocol if target else errors.guess_protocol(call.head.headers, service)
        return errors.render(
            protocol,
            service,
            target.operation if target else "",
            errors.adapt(refusal.aws_code, protocol, service),
            f"Narrows: {refusal} [{refusal.code}]",
            refusal.status,
            request_id,
            query_compatible=call.head.get(b"x-amzn-query-mode") is not None,
            head=call.head.method == b"HEAD",
        )


@lru_cache(maxsize=1024)
def _endpoint(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and base path of a connection's endpoint."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def _named_service(head: RequestHead) -> str:
    """The service that an unreadable signature seems to be for: only for the shape of the answer."""
    found = _SCOPE.search(head.get(b"authorization") or head.target)
    return found[1].decode("ascii") if found is not None else "s3"


def _host_matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(host == p or (p.startswith("*.") and host.endswith(p[1:])) for p in patterns)


def _check_tunnel(call: Call, lease: Lease) -> None:
    """A lease works in the tunnels of its own session only: what one session does must not show as another's."""
    if call.proxy_lease is not None and call.proxy_lease.session != lease.session:
        raise Refusal(
            "The lease was refused",
            "it belongs to another session than the tunnel that it came through",
            "use proxy and lease of one session: `narrows run` sets both",
            code="lease_other_session",
        )


def _check_path(target: bytes) -> None:
    """Outside S3 the signature is over the path with dot segments and double slashes resolved, so that the same
    signature fits several paths: the one that we understood must be the one that AWS will see."""
    path = target.partition(b"?")[0]
    if path.find(b"//") >= 0 or _DOTS.search(path) is not None:
        raise Refusal(
            "The path has dot segments or double slashes",
            "they would be read one way here and could be read another way at the target",
            "send the path in its plain form",
            code="path_not_plain",
            status=400,
            aws_code="InvalidRequest",
        )
