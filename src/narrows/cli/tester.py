"""Trying a connection with its own credential: once, harmlessly, and outside any session."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from narrows.cli import tester_llm
from narrows.cli.owner import local_owner
from narrows.core import ids
from narrows.core.errors import CredentialError, NarrowsError, UpstreamError
from narrows.core.ports import Clock
from narrows.core.values import Agent, ApiKey, Connection, Lease
from narrows.upstream.credentials import UpstreamCredentials
from narrows.upstream.sources import Sources
from narrows.upstream.sources_shape import SourceFailed, Step
from narrows.wire.sigv4 import Credentials

TIMEOUT_S = 10

STEPS = ("source reachable", "secret found", "shape right", "target accepts")
"""What a test goes through, in this order."""
_AT: dict[Step, int] = {"source": 0, "secret": 1, "shape": 2}


class ConnectionTester:
    """Asks STS who a connection's credential is, or a model API for its models. Neither needs any permission."""

    def __init__(self, clock: Clock, sealed: Path | None = None) -> None:
        """`sealed` is the directory of the encrypted store."""
        self._clock = clock
        self._credentials = UpstreamCredentials(Sources(sealed=sealed))

    async def __call__(self, connection: Connection) -> dict[str, Any]:
        """`account`, `arn` and `source`; of a model API what `tester_llm.models` gives; and the `steps` taken.

        Raises CredentialError or UpstreamError whose texts say which step failed and how to mend it, or NarrowsError
        for a kind that cannot be tested.
        """
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
        source = connection.credential.kind
        try:
            try:
                found = await self._credentials.get(lease, connection)
            except CredentialError as error:
                raise _unloaded(error) from None
            try:
                told = await self._target(connection, found)
            except UpstreamError as error:
                error.why = _at_step(error.why, len(STEPS) - 1)
                raise
            finally:
                await self._credentials.give_back(lease, connection)
        finally:
            self._credentials.forget_session(session)
            self._credentials.forget_connection(connection.name)  # whoever mends the source tries again at once
        return told | {"source": source, "steps": list(STEPS)}

    async def _target(self, connection: Connection, found: Credentials | ApiKey) -> dict[str, Any]:
        if isinstance(found, ApiKey):
            return await tester_llm.models(connection, found)
        identity = await asyncio.to_thread(_identity, connection, found)
        return {"account": str(identity.get("Account", "")), "arn": str(identity.get("Arn", ""))}

    def close(self) -> None:
        """Forget all credentials."""
        self._credentials.close()


def _at_step(why: str, at: int) -> str:
    """Why it failed, and how far it came."""
    passed = "".join(f"{step}: yes; " for step in STEPS[:at])
    return f"{why} [{passed}{STEPS[at]}: no]"


def _unloaded(error: CredentialError) -> CredentialError:
    """A failed source as a test tells it: why, the steps that worked, the one that did not, and what mends it."""
    at = _AT[error.step] if isinstance(error, SourceFailed) else 0
    why = f"{error.what}: {error.why}" if error.why else error.what
    return CredentialError("The connection does not work", _at_step(why, at), error.hint)


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
