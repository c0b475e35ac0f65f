"""Trying a connection to a model API: its list of models, asked for with its own key.

Costs nothing at any provider, and shows every step: the key's source, the address, TLS, the key at the provider.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import orjson

from narrows.core.errors import UpstreamError
from narrows.core.providers import PROVIDERS, models_path
from narrows.core.values import ApiKey, Connection
from narrows.session.http import codings
from narrows.upstream.http import Origin, Pool
from narrows.wire.http1 import Data, End, ResponseHead

CONNECT_S = 5.0
TIMEOUT_S = 10.0
MAX_ANSWER = 4 * 1024 * 1024
"""Longest answer that is read, bytes."""

_HINTS = {
    "dial": "check the endpoint and the network",
    "tls": "check the endpoint's certificate; --ca-file names a private CA",
    "request": "check the endpoint",
    "response": "check that the endpoint is a model API of that provider",
}


async def models(connection: Connection, key: ApiKey) -> dict[str, Any]:
    """`provider`, `endpoint` (what was asked), `models` (how many it names) and `source`.

    Raises UpstreamError whose texts say which step failed, or Refusal of an address that may not be dialled. No text
    holds the key, nor anything that the target said.
    """
    provider = PROVIDERS[connection.provider]
    parts = urlsplit(connection.endpoint or f"https://{provider.host}")
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    path = models_path(connection)
    url = f"{parts.scheme}://{parts.netloc}{path.decode('ascii')}"
    pool = Pool(per_origin=1, idle_s=1, connect_timeout_s=CONNECT_S, own_ports=frozenset())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status, body = await _get(pool, Origin(parts.scheme, host, port, connection.name), connection, key, path)
    except UpstreamError as error:
        raise _failed(url, error.phase, f"{error.what}: {error.why}" if error.why else error.what) from None
    except TimeoutError:
        raise _failed(url, "response", f"no answer within {TIMEOUT_S:g} s") from None
    finally:
        pool.close()
    if status in (401, 403):
        raise UpstreamError(
            "The connection does not work",
            f"{host} was reached and refused the key (status {status} from {url})",
            "check the key in the connection's source: narrows connection show",
            phase="response",
        )
    if status != 200:
        raise _failed(url, "response", f"{host} was reached and answered {status}")
    return {
        "provider": connection.provider,
        "endpoint": url,
        "models": _count(body),
        "source": connection.credential.kind,
    }


async def _get(pool: Pool, origin: Origin, connection: Connection, key: ApiKey, path: bytes) -> tuple[int, bytes]:
    provider = PROVIDERS[connection.provider]
    conn = await pool.acquire(origin, connection)
    try:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        if origin.port != (443 if origin.scheme == "https" else 80):
            host += f":{origin.port}"
        lines = [
            b"GET " + path + b" HTTP/1.1",
            b"Host: " + host.encode("ascii"),
            provider.line + key.key.encode("ascii"),
        ]
        if provider.name == "anthropic":
            lines.append(b"anthropic-version: 2023-06-01")
        conn.begin(b"GET")
        conn.write(b"\r\n".join([*lines, b"Accept: application/json", b"User-Agent: narrows", b"", b""]))
        head: ResponseHead | None = None
        body = b""
        while True:
            event = await conn.next()
            if isinstance(event, ResponseHead):
                head = event
            elif isinstance(event, Data):
                body += event.payload
                if len(body) > MAX_ANSWER:
                    raise UpstreamError("The answer is too long", phase="response")
            elif isinstance(event, End):
                assert head is not None
                coding = (head.get(b"content-encoding") or b"").decode("latin-1")
                return head.status, codings.decode(coding, body, MAX_ANSWER)[0]
    finally:
        pool.release(conn, reusable=False)


def _count(body: bytes) -> int:
    """How many models the answer names. Raises UpstreamError for what is no list of models."""
    try:
        found = orjson.loads(body)
        listed = found["data"] if "data" in found else found["models"]
        if not isinstance(listed, list):
            raise TypeError
        return len(listed)
    except (ValueError, KeyError, TypeError):
        raise UpstreamError(
            "The connection does not work",
            "its endpoint was reached, took the key, and answered with something that is no list of models",
            _HINTS["response"],
            phase="response",
        ) from None


def _failed(url: str, phase: str, why: str) -> UpstreamError:
    step = {"dial": "the address", "tls": "TLS", "request": "sending", "response": "the answer"}.get(phase, phase)
    # Whatever step it was: to whoever asked, the test has an answer, and it is no.
    return UpstreamError(
        "The connection does not work", f"{step} failed for {url}: {why}", _HINTS.get(phase, ""), phase="response"
    )
