"""S3's checksums of a body (`x-amz-checksum-*`), to compare a trailer or header with what came.

Sans-I/O and pure. Source: Amazon S3 User Guide, "Checking object integrity". CRC-64/NVME and newer
algorithms are not computed here: `matches` says None for them, which means neither right nor wrong.
"""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from typing import Final

from crc32c import crc32c as _crc32c

PREFIX: Final = b"x-amz-checksum-"


class Checksum:
    """Computes the checksum that one `x-amz-checksum-*` header or trailer names, over pieces of a body."""

    __slots__ = ("_crc", "_hash", "kind", "name")

    def __init__(self, name: bytes) -> None:
        """`name` is the header's, lower case."""
        self.name = name
        self.kind = name[len(PREFIX) :] if name.startswith(PREFIX) else b""
        self._crc = 0
        self._hash: hashlib._Hash | None = None
        if self.kind == b"sha256":
            self._hash = hashlib.sha256()
        elif self.kind == b"sha1":
            self._hash = hashlib.sha1(usedforsecurity=False)

    @property
    def verifiable(self) -> bool:
        """Whether this algorithm can be computed here."""
        return self._hash is not None or self.kind in (b"crc32", b"crc32c")

    def update(self, data: bytes | memoryview) -> None:
        """Take the next piece of the body."""
        if self._hash is not None:
            self._hash.update(data)
        elif self.kind == b"crc32":
            self._crc = zlib.crc32(data, self._crc)
        elif self.kind == b"crc32c":
            self._crc = _crc32c(data, self._crc)

    def value(self) -> bytes | None:
        """The checksum so far as its header carries it (base64), or None where it is not verifiable."""
        if not self.verifiable:
            return None
        return b64encode(self._hash.digest() if self._hash is not None else self._crc.to_bytes(4, "big"))

    def matches(self, value: bytes) -> bool | None:
        """Whether the body so far has this checksum; None where that cannot be told."""
        mine = self.value()
        return None if mine is None else mine == value
