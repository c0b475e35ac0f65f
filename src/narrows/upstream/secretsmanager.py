"""AWS Secrets Manager as a source: one GetSecretValue, with the AWS chain or with a role assumed from it.

Guarantees: of an error only its code is repeated; the value is in no error and kept nowhere here; the environment's
`AWS_ENDPOINT_URL` is not followed, because it may point at a gateway.

Source: AWS Secrets Manager API reference, GetSecretValue. Everything here blocks: run it in a thread.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from narrows.core.values import Connection, CredentialSource
from narrows.upstream.sources_shape import Loaded, SourceFailed, Step, parse
from narrows.wire.sigv4 import Credentials

_MEANINGS: dict[str, tuple[Step, str]] = {
    "ResourceNotFoundException": ("secret", "check secret_name and region; a secret without a value is not found too"),
    "AccessDeniedException": (
        "secret",
        "the reading identity needs secretsmanager:GetSecretValue, and kms:Decrypt on the secret's key",
    ),
    "AccessDenied": ("secret", "the reading identity needs secretsmanager:GetSecretValue"),
    "DecryptionFailure": ("secret", "the reading identity needs kms:Decrypt on the secret's key"),
    "InvalidRequestException": ("secret", "the secret may be scheduled for deletion: restore it"),
    "InvalidParameterException": ("secret", "check secret_name"),
    "ValidationException": ("secret", "check secret_name"),
    "UnrecognizedClientException": ("source", "the gateway's own credentials are not valid there: renew them"),
    "InvalidSignatureException": ("source", "a wrong clock, or wrong credentials of the gateway"),
    "ExpiredTokenException": ("source", "the gateway's own credentials have expired: renew them"),
    "ThrottlingException": ("source", "too many requests: raise the account's quota"),
}


def load(source: CredentialSource, connection: Connection, reader: Credentials) -> Loaded:
    """The credential in the secret that `source` names, read as `reader`. Raises SourceFailed."""
    from botocore.exceptions import BotoCoreError, ClientError

    what = f"no credentials from Secrets Manager, {source.secret_name}"
    try:
        client = client_of("secretsmanager", source, reader)
        try:
            answer = client.get_secret_value(SecretId=source.secret_name)
        finally:
            client.close()
        text = answer.get("SecretString")
        if text is None:
            text = bytes(answer.get("SecretBinary", b"")).decode("utf-8", "replace")
    except ClientError as error:
        code = re.sub(r"[^A-Za-z0-9._:-]", "", str(error.response.get("Error", {}).get("Code", "")))[:64]
        step, hint = _MEANINGS.get(code, ("source", "see the error codes of GetSecretValue"))
        failure = SourceFailed(what, f"Secrets Manager answered {code or 'no error code'}", hint, step=step)
    # botocore's parser trips over what is not an answer of AWS (a captive portal's page) in several ways.
    except (BotoCoreError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        failure = SourceFailed(
            what,
            f"Secrets Manager could not be asked: {type(error).__name__}",
            "check region, source_endpoint, source_ca_file and the network of the gateway",
        )
    else:
        return Loaded(parse(str(text), connection, source.field, what, "in the secret"))
    raise failure


def region_of(source: CredentialSource) -> str:
    """The region to ask: the source's own, or the one in the secret's ARN."""
    parts = source.secret_name.split(":")
    return source.region or (parts[3] if len(parts) > 3 else "")


def client_of(service: str, source: CredentialSource, reader: Credentials, region: str = "") -> Any:
    """A client of a store of AWS that signs as `reader`. Raises botocore's errors."""
    import botocore.session
    from botocore.config import Config

    options: dict[str, Any] = {
        "connect_timeout": 5,
        "read_timeout": 10,
        "retries": {"mode": "standard", "total_max_attempts": 3},
        "ignore_configured_endpoint_urls": True,
    }
    if (urlsplit(source.source_endpoint).hostname or "") in ("localhost", "127.0.0.1", "::1"):
        options["proxies"] = {}  # a proxy's loopback is not ours
    session: Any = botocore.session.Session(profile=source.profile or None)
    return session.create_client(
        service,
        region_name=region or region_of(source),
        endpoint_url=source.source_endpoint or None,
        verify=source.source_ca_file or None,
        aws_access_key_id=reader.access_key_id,
        aws_secret_access_key=reader.secret_access_key,
        aws_session_token=reader.session_token,
        config=Config(**options),
    )
