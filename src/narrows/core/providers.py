"""Whose model APIs are known: where they are, and in which header they take their key.

Sources: the providers' API references (Anthropic "Authentication", OpenAI "Authentication", Google "Using Gemini API
keys"). Data alone; nothing here says what a request means.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from narrows.core.values import Connection

ENDPOINT_PREFIX = "/llm/"
"""Paths of the gateway under which a connection's own paths stand: `/llm/NAME/v1/messages`."""


@dataclass(frozen=True, slots=True)
class Provider:
    """`header` (lower case) takes the key, written as `line` and the key. `version` begins the API's paths.

    `host` is empty where it is for the connection's endpoint to say. `base` says that clients are given a base URL that
    has the version in it already.
    """

    name: str
    host: str
    header: bytes
    line: bytes
    version: str
    base: bool


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("anthropic", "api.anthropic.com", b"x-api-key", b"x-api-key: ", "/v1", False),
        Provider("openai", "api.openai.com", b"authorization", b"Authorization: Bearer ", "/v1", True),
        Provider(
            "gemini", "generativelanguage.googleapis.com", b"x-goog-api-key", b"x-goog-api-key: ", "/v1beta", False
        ),
        Provider("openai-compatible", "", b"authorization", b"Authorization: Bearer ", "/v1", True),
    )
}


def base_path(connection: Connection) -> str:
    """What stands between the gateway's address and what an SDK of the provider appends to its base URL.

    OpenAI's SDKs expect the version in their base URL. An endpoint that has a path of its own, without a version, is
    such a base URL as it is.
    """
    provider = PROVIDERS[connection.provider]
    return ENDPOINT_PREFIX + connection.name + (provider.version if provider.base and _versioned(connection) else "")


def models_path(connection: Connection) -> bytes:
    """The path at the connection's endpoint that lists its models."""
    provider = PROVIDERS[connection.provider]
    path = f"{provider.version}/models" if not provider.base or _versioned(connection) else "/models"
    return upstream_path(urlsplit(connection.endpoint).path.rstrip("/"), provider, path.encode("ascii"))


def _versioned(connection: Connection) -> bool:
    """Whether the version stands between the endpoint and what an SDK appends to its base URL."""
    path = urlsplit(connection.endpoint).path.rstrip("/")
    return not path or path.endswith(PROVIDERS[connection.provider].version)


def upstream_path(prefix: str, provider: Provider, path: bytes) -> bytes:
    """`path`, as a client asked for it, below an endpoint's own path `prefix`; a version in both stands there once."""
    start = prefix.encode("ascii")
    version = provider.version.encode("ascii")
    if start.endswith(version) and (path == version or path[: len(version) + 1] == version + b"/"):
        start = start[: -len(version)]
    return start + path
