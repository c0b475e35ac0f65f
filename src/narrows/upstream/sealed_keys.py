"""Master keys of the encrypted store: what wraps the data key of each sealed credential.

A master is described by JSON that holds names and paths, never a key:

    {"kind": "file", "path": "keys/credentials-<id>.key", "id": "<16 hex digits>"}
    {"kind": "kms", "key": "arn:aws:kms:...", "region": "eu-west-1", "endpoint": "", "profile": ""}
    {"kind": "transit", "key": "narrows", "mount": "transit", "address": "https://vault:8200", "namespace": "",
     "auth": "approle", "auth_mount": "", "auth_file": "/...", "role": "...", "ca_file": ""}

Wrapping binds the data key to the credential's name and version: a `file` master by AES-256-GCM's associated data,
AWS KMS by the encryption context, Vault's transit engine by its own `associated_data`. Everything here blocks.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from narrows import ownerfile
from narrows.core.errors import ConfigError
from narrows.core.values import CredentialSource
from narrows.upstream import secretsmanager
from narrows.upstream.sources_shape import SourceFailed
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

KEY_BYTES = 32
NONCE_BYTES = 12
Master = Mapping[str, str]

_FIELDS = {
    "file": {"kind", "path", "id"},
    "kms": {"kind", "key", "region", "endpoint", "profile"},
    "transit": {
        "kind", "key", "mount", "address", "namespace", "auth", "auth_mount", "auth_file", "role", "ca_file",
    },
}  # fmt: skip


def checked_master(raw: object, where: str) -> dict[str, str]:
    """A master's description, every field a text. Raises SourceFailed for anything else."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if isinstance(raw, dict) and kind in _FIELDS and set(raw) == _FIELDS[str(kind)]:
        values = {str(name): value for name, value in raw.items()}
        if all(isinstance(value, str) for value in values.values()):
            return values
    raise SourceFailed("a sealed credential could not be read", f"{where} describes no master key", "restore it")


def make_file_master(folder: Path) -> dict[str, str]:
    """Make a master key of 32 random bytes in an owner-only file of its own in `folder`, which is beside the store's.

    Its path is noted relative to that, so that a data directory may be moved. Raises ConfigError.
    """
    key = os.urandom(KEY_BYTES)
    name = key_id(key)
    path = folder / f"credentials-{name}.key"
    if not ownerfile.create(path, key):
        raise ConfigError(f"could not make {path}", "it exists")
    return {"kind": "file", "path": f"{folder.name}/{path.name}", "id": name}


def use_file_master(path: Path) -> dict[str, str]:
    """The master in an owner-only file of exactly 32 bytes that is there already. Raises SourceFailed."""
    return {"kind": "file", "path": str(path), "id": key_id(_read_key(path))}


def key_id(key: bytes) -> str:
    """What tells one master key from another: 16 hex digits of a hash, of no use to find the key."""
    return hashlib.sha256(b"narrows credential master\0" + key).hexdigest()[:16]


class Masters:
    """Wraps and unwraps data keys. Paths are relative to `base`; `chain` gives the credentials to ask KMS with."""

    def __init__(self, base: Path, vault: Vault, chain: Callable[[str], Credentials]) -> None:
        self._base = base
        self._vault = vault
        self._chain = chain

    def wrap(self, master: Master, name: str, version: int, key: bytes) -> str:
        """The data key, wrapped, as text. Raises SourceFailed."""
        bound = binding(name, version)
        if master["kind"] == "kms":
            blob = self._kms(master, "encrypt", "Plaintext", key, "CiphertextBlob", name, version)
            return base64.b64encode(blob).decode()
        if master["kind"] == "transit":
            return self._transit(master, "encrypt", {"plaintext": base64.b64encode(key).decode()}, "ciphertext", bound)
        nonce = os.urandom(NONCE_BYTES)
        return base64.b64encode(nonce + AESGCM(_file_key(self._base, master)).encrypt(nonce, key, bound)).decode()

    def unwrap(self, master: Master, name: str, version: int, wrapped: str) -> bytes:
        """The data key. Raises SourceFailed where it was wrapped for another name or version, or changed."""
        bound = binding(name, version)
        if master["kind"] == "transit":
            text = self._transit(master, "decrypt", {"ciphertext": wrapped}, "plaintext", bound)
            key = _decoded(text)
        elif master["kind"] == "kms":
            key = self._kms(master, "decrypt", "CiphertextBlob", _decoded(wrapped), "Plaintext", name, version)
        else:
            blob = _decoded(wrapped)
            try:
                key = AESGCM(_file_key(self._base, master)).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], bound)
            except (InvalidTag, ValueError):
                key = b""
        if len(key) != KEY_BYTES:
            raise changed(name)
        return key

    def _kms(
        self, master: Master, operation: str, takes: str, value: bytes, gives: str, name: str, version: int
    ) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"AWS KMS could not {operation} the data key of {name}"
        reader = self._chain(master["profile"])
        source = CredentialSource(source_endpoint=master["endpoint"], profile=master["profile"])
        request = {
            "KeyId": master["key"],
            takes: value,
            "EncryptionContext": {"narrows:credential": name, "narrows:version": str(version)},
        }
        try:
            client = secretsmanager.client_of("kms", source, reader, master["region"])
            try:
                return bytes(getattr(client, operation)(**request)[gives])
            finally:
                client.close()
        except ClientError as error:
            code = re.sub(r"[^A-Za-z0-9._:-]", "", str(error.response.get("Error", {}).get("Code", "")))[:64]
            if code in ("InvalidCiphertextException", "IncorrectKeyException"):
                failure = changed(name)
            else:
                hint = "the gateway needs kms:Encrypt and kms:Decrypt on the key, which must be enabled"
                failure = SourceFailed(what, f"it answered {code}", hint)
        except (BotoCoreError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            failure = SourceFailed(
                what, f"it could not be asked: {type(error).__name__}", "check region, endpoint and network"
            )
        raise failure

    def _transit(self, master: Master, operation: str, body: dict[str, str], gives: str, bound: bytes) -> str:
        what = f"Vault's transit engine could not {operation} a data key"
        source = CredentialSource(
            "vault",
            address=master["address"],
            namespace=master["namespace"],
            auth=master["auth"],  # type: ignore[arg-type]
            auth_mount=master["auth_mount"],
            auth_file=master["auth_file"],
            role=master["role"],
            source_ca_file=master["ca_file"],
        )
        path = f"{master['mount'] or 'transit'}/{operation}/{master['key']}"
        bound_text = base64.b64encode(bound).decode()
        answer = self._vault.call(source, "POST", path, body | {"associated_data": bound_text})
        data = answer.body.get("data")
        value = data.get(gives) if isinstance(data, dict) else None
        if answer.status != 200 or not isinstance(value, str):
            raise SourceFailed(
                what,
                f"it answered {answer.status}",
                "the key must be of type aes256-gcm96, and the token's policy must allow encrypt and decrypt with it; "
                "a credential that was changed is refused so too",
            )
        return value


def binding(name: str, version: int) -> bytes:
    """Associated data: what a data key and a sealed secret belong to."""
    return b"narrows credential 1\0" + name.encode() + b"\0" + version.to_bytes(8, "big")


def changed(name: str) -> SourceFailed:
    """A sealed credential that does not open."""
    return SourceFailed(
        f"the sealed credential {name} was refused",
        "its file was changed, belongs to another name or version, or the master key is not the one that sealed it",
        "restore the file or the key, or set it anew: narrows credential set",
        step="secret",
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _file_key(base: Path, master: Master) -> bytes:
    key = _read_key(base / master["path"])
    if key_id(key) != master["id"]:
        raise SourceFailed("a master key was refused", f"{master['path']} holds another key than it did", "restore it")
    return key


def _read_key(path: Path) -> bytes:
    what = f"no master key from {path}"
    try:
        key = ownerfile.read(path, limit=KEY_BYTES)
    except OSError as error:
        raise SourceFailed(what, error.strerror or type(error).__name__, "restore it from a backup") from None
    except ConfigError as error:
        raise SourceFailed(what, f"{error.what}: {error.why}", error.hint) from None
    if len(key) != KEY_BYTES:
        raise SourceFailed(what, f"a master key has {KEY_BYTES} bytes", "head -c 32 /dev/urandom makes one")
    return key
