"""Signed notes and checkpoints: C2SP signed-note, tlog-checkpoint and tlog-cosignature (Ed25519 only).

https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature. Signature lines of
unknown keys are kept and passed over; a line of a known key must verify, or the whole note is refused.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from narrows.core.errors import ProofError

ED25519 = 0x01
COSIGNATURE = 0x04
MAX_NOTE = 1 << 20
MAX_SIGNATURES = 64

_NAME = re.compile(r"[^\s+]+\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_SEPARATOR = "\n\n"


def decode_base64(text: str, what: str) -> bytes:
    """Strict, canonical base64; `what` names it in the error. Raises ProofError."""
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError) as bad:
        raise ProofError(f"{what} is not base64", hint="Take it again from where it was published.") from bad
    if b64encode(raw).decode() != text:
        raise ProofError(f"{what} is not canonical base64")
    return raw


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The 4 bytes by which a signature line names its key."""
    return sha256(name.encode() + b"\n" + bytes((kind,)) + public).digest()[:4]


def check_name(name: str) -> None:
    """Key names and origins: not empty, no space, no plus, no control character. Raises ProofError."""
    if not _NAME.match(name) or any(ord(c) < 0x20 for c in name):
        raise ProofError("The key name cannot be used", "it is empty or holds a space or a plus sign")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under a name. `kind` is 0x01 for a log's own key and 0x04 for a witness's cosignatures."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Read `<name>+<8 hex digits>+<base64>`. Raises ProofError."""
        name, _, rest = vkey.strip().partition("+")
        digest, _, encoded = rest.partition("+")
        check_name(name)
        raw = decode_base64(encoded, "The public key")
        if len(raw) != 33 or raw[0] not in (ED25519, COSIGNATURE):
            raise ProofError("The public key is of a kind that is not known here", f"key name {name}")
        if digest != key_id(name, raw[0], raw[1:]).hex():
            raise ProofError("The public key is damaged", f"its id does not fit, key name {name}")
        return cls(name, raw[0], raw[1:])

    @property
    def vkey(self) -> str:
        """The key as one line of text."""
        encoded = b64encode(bytes((self.kind,)) + self.public).decode()
        return f"{self.name}+{key_id(self.name, self.kind, self.public).hex()}+{encoded}"

    @property
    def id(self) -> bytes:
        """The key's 4-byte id."""
        return key_id(self.name, self.kind, self.public)

    def check(self, text: str, signature: bytes) -> int:
        """Check a signature over a note's text; returns a cosignature's time (Unix s), else 0. Raises ProofError."""
        message, stamp = text.encode(), 0
        if self.kind == COSIGNATURE:
            if len(signature) != 72:
                raise ProofError("A cosignature does not verify", f"key {self.name}: wrong length")
            stamp = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {stamp}\n".encode() + message
            signature = signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError) as bad:
            raise ProofError("A signature does not verify", f"key {self.name}") from bad
        return stamp


class SigningKey:
    """An Ed25519 private key under a name. Its repr never shows it."""

    __slots__ = ("_private", "name", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        """`seed` is the 32 bytes of RFC 8032 section 5.1.5. Raises ProofError."""
        check_name(name)
        if len(seed) != 32:
            raise ProofError("The signing key has the wrong length", f"{len(seed)} bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.name = name
        self.verifier = Verifier(name, ED25519, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey({self.verifier.vkey})"

    @classmethod
    def parse(cls, skey: str) -> SigningKey:
        """Read `PRIVATE+KEY+<name>+<8 hex digits>+<base64>`. Raises ProofError, without the key in its text."""
        fields = skey.strip().split("+", 4)
        if len(fields) != 5 or fields[:2] != ["PRIVATE", "KEY"]:
            raise ProofError("The signing key cannot be read", "it does not begin with PRIVATE+KEY+")
        raw = decode_base64(fields[4], "The signing key")
        if len(raw) != 33 or raw[0] != ED25519:
            raise ProofError("The signing key is of a kind that is not known here")
        key = cls(fields[2], raw[1:])
        if fields[3] != key.verifier.id.hex():
            raise ProofError("The signing key is damaged", "its id does not fit")
        return key

    @property
    def skey(self) -> str:
        """The private key as one line of text: for the key file only."""
        raw = bytes((ED25519,)) + self._private.private_bytes_raw()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.id.hex()}+{b64encode(raw).decode()}"

    def sign(self, text: str) -> str:
        """A note: `text` (which ends in a newline), a blank line, our signature line. Deterministic (RFC 8032)."""
        if not text.endswith("\n"):
            raise ProofError("The text cannot be signed", "it does not end in a newline")
        raw = self.verifier.id + self._private.sign(text.encode())
        return f"{text}\n— {self.name} {b64encode(raw).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart, nothing verified. `signatures` are (key name, key id, signature)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def verify(self, keys: list[Verifier]) -> dict[str, int]:
        """Check every line of a known key; returns {key name: cosignature time or 0}. Raises ProofError.

        Fails when a known key's line does not verify, and when no line is of a known key.
        """
        known = {(key.name, key.id): key for key in keys}
        found: dict[str, int] = {}
        for name, ident, signature in self.signatures:
            key = known.get((name, ident))
            if key is not None:
                found[name] = key.check(self.text, signature)
        if not found:
            names = ", ".join(key.name for key in keys)
            raise ProofError("The note is not signed by a known key", f"known: {names}")
        return found


def parse_note(note: str) -> Note:
    """Take a signed note apart. Raises ProofError for anything that is not one."""
    if len(note) > MAX_NOTE or any(ord(c) < 0x20 and c != "\n" for c in note):
        raise ProofError("This is not a signed note", "it is too long or holds control characters")
    cut = note.rfind(_SEPARATOR)
    if cut < 0 or not note.endswith("\n"):
        raise ProofError("This is not a signed note", "no blank line before the signatures")
    lines = note[cut + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise ProofError("This is not a signed note", f"{len(lines)} signature lines")
    signatures = []
    for line in lines:
        fields = line.split(" ")
        if len(fields) != 3 or fields[0] != "—":
            raise ProofError("This is not a signed note", "a signature line is malformed")
        check_name(fields[1])
        raw = decode_base64(fields[2], "A signature")
        if len(raw) < 5:
            raise ProofError("This is not a signed note", "a signature is too short")
        signatures.append((fields[1], raw[:4], raw[4:]))
    return Note(note[: cut + 1], tuple(signatures))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: origin, number of leaves, root. `extensions` are further lines, kept as they are."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """The note text that is signed (C2SP tlog-checkpoint)."""
        head = f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"
        return head + "".join(f"{line}\n" for line in self.extensions)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint body (a note's text). Raises ProofError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not lines[0] or not all(lines[3:-1]):
        raise ProofError("This is not a checkpoint", "it has too few lines or an empty one")
    if not _SIZE.match(lines[1]):
        raise ProofError("This is not a checkpoint", "its size is not a number")
    root = decode_base64(lines[2], "The checkpoint's root")
    if len(root) != 32:
        raise ProofError("This is not a checkpoint", "its root is not 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:-1]))


def open_checkpoint(note: str, keys: list[Verifier], origin: str = "") -> Checkpoint:
    """Verify a signed checkpoint and return it. Raises ProofError.

    `origin` empty: the name of the first key (a log's key is named after its origin).
    """
    parsed = parse_note(note)
    parsed.verify(keys)
    checkpoint = parse_checkpoint(parsed.text)
    expected = origin or keys[0].name
    if checkpoint.origin != expected:
        raise ProofError("The checkpoint is of another log", f"origin {checkpoint.origin}, not {expected}")
    return checkpoint
