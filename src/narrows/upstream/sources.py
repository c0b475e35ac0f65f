"""Where upstream credentials come from, AWS's and API keys: one function per kind of source. Everything here blocks:
run it in a thread.

Guarantees: a source either gives credentials or raises CredentialError; none stands in for another. No
secret is in an error text: of what botocore, STS or a parser says, only the class, the code and texts known
to be harmless are repeated, and the original exception is not chained, because it may quote what it was
working on.

Limits of AssumeRole's parameters: AWS STS API reference, AssumeRole (the same as botocore's model).
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import threading
import unicodedata
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from narrows import ownerfile
from narrows.core import ids
from narrows.core.errors import ConfigError, CredentialError
from narrows.core.values import Agent, Connection, CredentialSource, Lease, Principal
from narrows.upstream import secretsmanager
from narrows.upstream.sealed import SealedStore
from narrows.upstream.sources_shape import Loaded, SourceFailed, checked, checked_key
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

__all__ = ["BaseRejected", "Loaded", "Sources", "assume_role_request", "session_name", "source_identity"]

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_DURATION_S, MAX_DURATION_S = 900, 43200
_CLIENTS = 64
"""STS clients kept (each holds a model of some megabytes)."""


class BaseRejected(CredentialError):
    """STS does not accept the credentials with which a role was to be assumed: they want to be loaded anew."""


class Sources:
    """Loads credentials. Keeps botocore's own chain and STS clients, nothing else; may be used from many
    threads.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, sealed: Path | None = None) -> None:
        """`sealed` is the directory of the encrypted store; without one, kind `sealed` gives nothing."""
        self._environ = os.environ if environ is None else environ
        self._vault = Vault()
        self._sealed = None if sealed is None else SealedStore(sealed, self._vault, self.chain)
        self._chains: dict[str, Any] = {}
        self._clients: OrderedDict[tuple[str, str, str, str], tuple[Credentials, Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def sealed(self) -> SealedStore:
        """The encrypted store. Raises SourceFailed where this process has none."""
        if self._sealed is None:
            raise SourceFailed("no credentials from the sealed store", "this process has none")
        return self._sealed

    def load(self, source: CredentialSource, before: Loaded | None = None) -> Loaded:
        """Credentials of a `chain`, `file` or `environment` source. Raises CredentialError.

        `before` is what the same source gave last: a file that has not changed since is not read again.
        """
        if source.kind == "file":
            return _from_file(source, before)
        if source.kind == "environment":
            return self._from_environment(source)
        if source.kind == "chain":
            return self._from_chain(source)
        raise CredentialError("no credentials", f"{source.kind} is not a source of its own")

    def api_key(self, source: CredentialSource, before: Loaded | None = None) -> Loaded:
        """The API key of a `file` (the key alone, owner-only) or `environment` source. Raises CredentialError.

        `before` is as for `load`.
        """
        if source.kind == "file":
            what = f"no API key from {source.path}"
            raw, stamp = _read(source, before, what)
            if raw is None:
                assert before is not None
                return before
            return Loaded(checked_key(raw.decode("utf-8", "replace").strip(), what, "in the file"), None, stamp)
        if source.kind == "environment":
            what = "no API key in the environment"
            value = self._environ.get(source.variable, "").strip()
            return Loaded(checked_key(value, what, f"in {source.variable} where the gateway runs"))
        raise CredentialError("no API key", f"{source.kind} is not a source of API keys")

    def stored(
        self, source: CredentialSource, connection: Connection, lease: Lease, before: Loaded | None = None
    ) -> Loaded:
        """The credential of a `secrets_manager`, `vault` or `sealed` source, as the connection's kind needs it.

        Raises CredentialError. `before` is as for `load`; a lease of Vault is renewed where that can be.
        """
        if source.kind == "vault":
            return self._vault.load(source, connection, before)
        if source.kind == "sealed":
            return self.sealed.load(source, connection, before)
        reader = self.chain(source.profile)
        if source.role_arn:
            # In the gateway's name: what is read serves every session of the connection.
            own = replace(lease, session=ids.NIL, principal=Principal("gateway", "service"), agent=Agent("narrows"))
            given = self.assume_role(source, connection, own, reader).credentials
            assert isinstance(given, Credentials)
            reader = given
        return secretsmanager.load(source, connection, reader)

    def give_back(self, source: CredentialSource, loaded: Loaded) -> None:
        """End a lease of Vault that is no longer needed; nothing for other sources. Raises CredentialError."""
        if source.kind == "vault":
            self._vault.revoke(source, loaded)

    def chain(self, profile: str) -> Credentials:
        """The AWS chain's credentials: what secret stores of AWS are asked with. Raises CredentialError."""
        found = self._from_chain(CredentialSource(profile=profile)).credentials
        assert isinstance(found, Credentials)
        return found

    def assume_role(self, source: CredentialSource, connection: Connection, lease: Lease, base: Credentials) -> Loaded:
        """Credentials of `source.role_arn` for one session, in the name of its principal. Raises
        CredentialError.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        request = assume_role_request(source, lease)
        try:
            given = self._sts(source, connection, base).assume_role(**request)["Credentials"]
            key_id, secret, token = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
            expires_ns = int(given["Expiration"].timestamp()) * 1_000_000_000
        except ClientError as error:
            failure = _sts_failure(source, dict(error.response.get("Error", {})), base)
        # botocore's parser trips over what is not an answer of STS (a captive portal's page) in several ways.
        except (BotoCoreError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            failure = CredentialError(
                f"could not assume {source.role_arn}",
                f"STS could not be asked: {type(error).__name__}",
                "check the network, proxy and CA settings of the gateway, and the connection's sts_endpoint",
            )
        else:
            return Loaded(checked(key_id, secret, token, "the answer of STS"), expires_ns)
        raise failure

    def _from_environment(self, source: CredentialSource) -> Loaded:
        names = [source.prefix + name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
        key_id, secret, token = (self._environ.get(name, "") for name in names)
        missing = [name for name, value in zip(names, (key_id, secret), strict=False) if not value]
        if missing:
            raise SourceFailed(
                "no credentials in the environment",
                f"{' and '.join(missing)} not set where the gateway runs",
                "set them for the gateway, or choose another source for the connection",
                step="secret",
            )
        return Loaded(checked(key_id, secret, token, f"variables {source.prefix}AWS_*"))

    def _from_chain(self, source: CredentialSource) -> Loaded:
        import botocore.session
        from botocore.credentials import RefreshableCredentials
        from botocore.exceptions import BotoCoreError, ClientError

        what = "no credentials from the AWS chain" + (f", profile {source.profile}" if source.profile else "")
        try:
            # What refreshes itself is kept, with botocore's own windows; what does not is looked for again.
            found = self._chains.get(source.profile)
            if found is None:
                found = botocore.session.Session(profile=source.profile or None).get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            reason = type(error).__name__
        else:
            if found is None or frozen is None:
                raise CredentialError(
                    what,
                    "none of environment, profile, SSO, container and instance metadata gave any",
                    "run `aws sts get-caller-identity` as the gateway's user: it uses the same chain",
                )
            expires = None
            if isinstance(found, RefreshableCredentials):
                self._chains[source.profile] = found
                # botocore has no public name for it; without one we would only know "soon" or "not soon".
                at = getattr(found, "_expiry_time", None)
                expires = None if at is None else int(at.timestamp()) * 1_000_000_000
            key_id, secret, token = frozen.access_key or "", frozen.secret_key or "", frozen.token or ""
            return Loaded(checked(key_id, secret, token, what[3:]), expires)
        self._chains.pop(source.profile, None)
        raise CredentialError(
            what,
            f"{reason} from botocore",
            "run `aws sts get-caller-identity` as the gateway's user: it uses the same chain",
        )

    def _sts(self, source: CredentialSource, connection: Connection, base: Credentials) -> Any:
        """An STS client that signs with `base`. Making one costs tens of milliseconds, so they are kept."""
        region = connection.region or _partition_region(source.role_arn)
        key = (connection.name, source.sts_endpoint, region, connection.ca_file)
        with self._lock:
            kept = self._clients.get(key)
            if kept is None or kept[0] != base:
                kept = (base, _make_sts(source, region, connection.ca_file, base))
                self._clients[key] = kept
            self._clients.move_to_end(key)
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
            return kept[1]


def assume_role_request(source: CredentialSource, lease: Lease) -> dict[str, Any]:
    """The parameters of AssumeRole for one session, so that CloudTrail names the principal and the session.

    Raises CredentialError for a duration that STS does not know.
    """
    if not MIN_DURATION_S <= source.duration_s <= MAX_DURATION_S:
        raise CredentialError(
            f"could not assume {source.role_arn}",
            f"a duration of {source.duration_s} s is outside {MIN_DURATION_S} to {MAX_DURATION_S}",
            "set the connection's duration_s",
        )
    agent = lease.agent.name + (f"/{lease.agent.version}" if lease.agent.version else "")
    tags = {
        "narrows:session": ids.text(lease.session),
        "narrows:agent": agent,
        "narrows:principal": lease.principal.name,
    }
    request: dict[str, Any] = {
        "RoleArn": source.role_arn,
        "RoleSessionName": session_name(lease.principal.name),
        "SourceIdentity": source_identity(lease.principal.name),
        "DurationSeconds": source.duration_s,
        "Tags": [{"Key": key, "Value": _tag_value(value)} for key, value in tags.items()],
        "TransitiveTagKeys": list(tags),
    }
    if source.external_id:
        request["ExternalId"] = source.external_id
    return request


def session_name(principal: str) -> str:
    """`narrows-<principal>` as a RoleSessionName."""
    return _sanitised("narrows-" + principal)


def source_identity(principal: str) -> str:
    """The principal as a SourceIdentity."""
    return _sanitised(principal)


def _sanitised(name: str) -> str:
    """`name` in the characters and length (2 to 64) that STS takes.

    A name that had to be changed gets eight digits of its SHA-256, so that two principals stay two in
    CloudTrail.
    """
    clean = re.sub(r"[^A-Za-z0-9_+=,.@-]", "-", name)
    if clean == name and 2 <= len(name) <= 64:
        return name
    return f"{clean[:55]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _tag_value(value: str) -> str:
    allowed = (c if unicodedata.category(c)[0] in "LZN" or c in "_.:/=+-@" else "_" for c in value[:256])
    return "".join(allowed)


def _partition_region(role_arn: str) -> str:
    """A region whose STS knows the role, for a connection that names none."""
    partition = role_arn.split(":")[1] if role_arn.count(":") > 1 else "aws"
    return {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}.get(partition, "us-east-1")


def _make_sts(source: CredentialSource, region: str, ca_file: str, base: Credentials) -> Any:
    import botocore.session
    from botocore.config import Config

    options: dict[str, Any] = {
        "connect_timeout": 5,
        "read_timeout": 10,
        "retries": {"mode": "standard", "total_max_attempts": 3},
        # The gateway may have been started where AWS_ENDPOINT_URL points at a gateway, maybe at this one.
        "ignore_configured_endpoint_urls": True,
    }
    if (urlsplit(source.sts_endpoint).hostname or "") in ("localhost", "127.0.0.1", "::1"):
        options["proxies"] = {}  # a proxy's loopback is not ours
    session = botocore.session.Session(profile=(source.base == "chain" and source.profile) or None)
    return session.create_client(
        "sts",
        region_name=region,
        endpoint_url=source.sts_endpoint or None,
        verify=ca_file or None,
        aws_access_key_id=base.access_key_id,
        aws_secret_access_key=base.secret_access_key,
        aws_session_token=base.session_token,
        config=Config(**options),
    )


_STS_HINTS = {
    "AccessDenied": "the role's trust policy must let the gateway's identity do sts:AssumeRole, "
    "sts:SetSourceIdentity and sts:TagSession, and its own policy must allow the same",
    "ValidationError": "check role_arn, external_id and duration_s: chained roles last 3600 s at most, and no role "
    "longer than its MaxSessionDuration",
    "RegionDisabledException": "activate STS in that region, or set another region on the connection",
    "PackedPolicyTooLarge": "the role's inherited session tags leave no room for those of the gateway",
}
_BASE_CODES = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
}


def _sts_failure(source: CredentialSource, error: dict[str, Any], base: Credentials) -> CredentialError:
    code = re.sub(r"[^A-Za-z0-9._:-]", "", str(error.get("Code", "")))[:64] or "no error code"
    what = f"could not assume {source.role_arn}"
    if code in _BASE_CODES:
        # Such messages may quote the signed request, session token included: the code alone must do.
        return BaseRejected(
            what,
            f"STS answered {code} to the gateway's own credentials ({source.base})",
            "renew them; a SignatureDoesNotMatch or an expired token may also be a wrong clock",
        )
    why = f"STS answered {code}"
    if code in _STS_HINTS:
        message = "".join(c if c.isprintable() else " " for c in str(error.get("Message", "")))[:500]
        for secret in (base.secret_access_key, base.session_token or ""):
            message = message.replace(secret, "***") if secret else message
        why += f": {message}" if message else ""
    return CredentialError(what, why, _STS_HINTS.get(code, "see the STS error codes of AssumeRole"))


def _from_file(source: CredentialSource, before: Loaded | None) -> Loaded:
    path = Path(source.path).expanduser()
    what = f"no credentials from {path}"
    raw, stamp = _read(source, before, what)
    if raw is None:
        assert before is not None
        return before
    section = _section(raw, source.profile or "default", what)
    key_id, secret, token = (
        section.get(name, "").strip() for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    )
    if not key_id or not secret:
        raise SourceFailed(
            what,
            f"profile {source.profile or 'default'} has no aws_access_key_id with aws_secret_access_key",
            "a profile that runs a process or assumes a role is for the sources chain and assume_role",
            step="shape",
        )
    return Loaded(checked(key_id, secret, token, str(path)), None, stamp)


def _read(source: CredentialSource, before: Loaded | None, what: str) -> tuple[bytes | None, tuple[int, ...]]:
    """The bytes of a source's file and its stamp; None for the bytes if it is as it was `before`."""
    path = Path(source.path).expanduser()
    try:
        # Looked at before it is read: if it changes in between, the next look sees that.
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode, state.st_uid)
        if before is not None and before.stamp == stamp:
            return None, stamp
        return ownerfile.read(path), stamp
    except OSError as error:
        raise CredentialError(what, error.strerror or type(error).__name__, "check the connection's path") from None
    except ConfigError as error:
        raise CredentialError(what, f"{error.what}: {error.why}", error.hint) from None


def _section(raw: bytes, profile: str, what: str) -> Mapping[str, str]:
    """One profile of a shared credentials file (INI without interpolation, as AWS reads it)."""
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(raw.decode("utf-8"))
        found = parser[profile]
    except KeyError:
        reason = f"it has no profile {profile}"
    except (configparser.Error, ValueError) as error:  # their texts quote the file
        line = getattr(error, "lineno", None)
        reason = f"it is not in AWS' format ({type(error).__name__}{f', line {line}' if line else ''})"
    else:
        return found
    raise SourceFailed(what, reason, "check the file and the connection's profile", step="secret")
