"""Trying a connection with its own credential: once, harmlessly, and outside any session."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from narrows.cli import tester_llm
from narrows.cli.owner import local_owner
from narrows.core import ids
from narrows.core.errors import NarrowsError, UpstreamError
from narrows.core.ports import Clock
from narrows.core.values import Agent, ApiKey, Connection, Lease
from narrows.upstream.credentials import UpstreamCredentials
from narrows.wire.sigv4 import Credentials

TIMEOUT_S = 10


class ConnectionTester:
    """Asks STS who a connection's credential is, or a model API for its models. Neither needs any permission."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._credentials = UpstreamCredentials()

    async def __call__(self, connection: Connection) -> dict[str, Any]:
        """`account`, `arn` and `source`; of a model API what `tester_llm.models` gives. Raises CredentialError,
        UpstreamError, or NarrowsError for a kind that cannot be tested."""
        if connection.kind not in ("aws", "llm"):
            raise NarrowsError("The connection was not tested", f"there is no test for the kind {connection.kind}")
        now = self._clock.wall_ns()
        session = ids.uuid7(now, os.urandom(10))
        lease = Lease(
            session=session,
            connection=connection.name,
            principal=local_owner(),
            agent=Agent("narrows"),
            expires=now // 1_000_000_000 + 900,
            access_key_id="",
            secret_access_key="",
            session_token="",
        )
        try:
            found = await self._credentials.get(lease, connection)
        finally:
            self._credentials.forget_session(session)
            self._credentials.forget_connection(connection.name)  # whoever mends the source tries again at once
        if isinstance(found, ApiKey):
            return await tester_llm.models(connection, found)
        identity = await asyncio.to_thread(_identity, connection, found)
        return {
            "account": str(identity.get("Account", "")),
            "arn": str(identity.get("Arn", "")),
            "source": connection.credential.kind,
        }

    def close(self) -> None:
        """Forget all credentials."""
        self._credentials.close()


def _identity(connection: Connection, credentials: Credentials) -> dict[str, Any]:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    options: dict[str, Any] = {
        "connect_timeout": TIMEOUT_S,
        "read_timeout": TIMEOUT_S,
        "retries": {"total_max_attempts": 1},
        # The gateway's own environment may point at a gateway, and this must not go through one.
        "ignore_configured_endpoint_urls": True,
        "proxies": {},
    }
    session: Any = botocore.session.Session()
    client = session.create_client(
        "sts",
        region_name=connection.region or "us-east-1",
        endpoint_url=connection.endpoint or None,
        verify=connection.ca_file or None,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token or None,
        config=Config(**options),
    )
    try:
        return dict(client.get_caller_identity())
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))[:64]
        raise UpstreamError(
            "The connection does not work",
            f"AWS refused its credential: {code}",
            "check the credential source: narrows connection show",
            phase="response",
        ) from None
    except BotoCoreError as error:
        # Its text may quote an endpoint, never a secret; the class says enough.
        raise UpstreamError(
            "The connection does not work",
            f"its endpoint could not be reached ({type(error).__name__})",
            "check the endpoint and the network",
            phase="dial",
        ) from None
    finally:
        client.close()
