"""What SigV4 is signed with: credentials, signing keys and the chain of chunk signatures. See `narrows.wire.sigv4`."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import HMAC, compare_digest
from hmac import digest as hmac_digest
from hmac import new as new_hmac
from typing import Final

EMPTY_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Credentials:
    """AWS credentials to sign with; the repr names the key id only."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The 32-byte key of one day, region and service. Four HMACs: keep the result in a KeyCache."""
    key = hmac_digest(b"AWS4" + secret.encode(), date.encode(), "sha256")
    key = hmac_digest(key, region.encode(), "sha256")
    key = hmac_digest(key, service.encode(), "sha256")
    return hmac_digest(key, b"aws4_request", "sha256")


class KeyCache:
    """Signing keys by (access key id, date, region, service), at most `limit` of them; the oldest goes first.

    A key is kept with the secret that it came from, so that a changed secret never meets an old key. The
    repr shows the number of keys only.
    """

    __slots__ = ("_keys", "_limit")

    def __init__(self, limit: int = 1024) -> None:
        self._keys: dict[tuple[str, str, str, str], tuple[str, bytes]] = {}
        self._limit = limit

    def get(self, access_key_id: str, secret: str, date: str, region: str, service: str) -> bytes:
        """The signing key, derived now if it is not known."""
        name = (access_key_id, date, region, service)
        held = self._keys.get(name)
        if held is not None and compare_digest(held[0].encode(), secret.encode()):
            return held[1]
        key = signing_key(secret, date, region, service)
        if held is None and len(self._keys) >= self._limit:
            del self._keys[next(iter(self._keys))]
        self._keys[name] = (secret, key)
        return key

    def forget(self, access_key_id: str) -> None:
        """Drop the keys of one access key id."""
        for name in [name for name in self._keys if name[0] == access_key_id]:
            del self._keys[name]

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyCache({len(self._keys)} of {self._limit})"


_MAX_MACS: Final = 1024
_macs: dict[bytes, HMAC] = {}
"""HMACs that have taken in their key and nothing else; a copy of one is cheaper than a new one. Keys of one day."""


def keyed(key: bytes) -> HMAC:
    """An HMAC-SHA256 that has taken in `key`, for one use."""
    mac = _macs.get(key)
    if mac is None:
        if len(_macs) >= _MAX_MACS:
            _macs.clear()
        mac = _macs[key] = new_hmac(key, digestmod="sha256")
    return mac.copy()


class ChunkSigner:
    """The chain of chunk signatures that starts from a request's signature; one for each direction of use.

    It computes what a chunk's signature must be: to verify, compare in constant time with the one that
    came; to sign, send it. Each call moves the chain on. Source: S3, "Signature calculations for streaming
    uploads".
    """

    __slots__ = ("_chunk", "_key", "_trailer", "previous")

    def __init__(self, key: bytes, scope: str, amz_date: str, seed: str) -> None:
        self._key = key
        self._chunk = f"AWS4-HMAC-SHA256-PAYLOAD\n{amz_date}\n{scope}\n"
        self._trailer = f"AWS4-HMAC-SHA256-TRAILER\n{amz_date}\n{scope}\n"
        self.previous = seed

    def sign_chunk(self, sha256_hex: str) -> str:
        """The signature of the next chunk, whose payload has this SHA-256."""
        to_sign = f"{self._chunk}{self.previous}\n{EMPTY_SHA256}\n{sha256_hex}"
        self.previous = hmac_digest(self._key, to_sign.encode(), "sha256").hex()
        return self.previous

    def sign_trailer(self, sha256_hex: str) -> str:
        """The signature of the trailer, whose lines `name:value\\n` have this SHA-256."""
        to_sign = f"{self._trailer}{self.previous}\n{sha256_hex}"
        self.previous = hmac_digest(self._key, to_sign.encode(), "sha256").hex()
        return self.previous

    def __repr__(self) -> str:
        return "ChunkSigner()"
