"""An offline proof that one leaf is in the log: C2SP tlog-proof (https://c2sp.org/tlog-proof). Pure.

Text: the line `c2sp.org/tlog-proof@v1`, `index N`, the inclusion proof's hashes in base64 one a line, a blank line, the
signed checkpoint. Whoever holds the leaf, this text and the log's public key needs nothing else.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from narrows.core.errors import ProofError
from narrows.record.log.merkle import leaf_hash, verify_inclusion
from narrows.record.log.note import Checkpoint, Verifier, decode_base64, open_checkpoint

MAGIC = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class LeafProof:
    """A leaf's index, its audit path and the signed checkpoint that it leads to."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str

    def encode(self) -> str:
        """The proof as text."""
        hashes = "".join(f"{b64encode(h).decode()}\n" for h in self.path)
        return f"{MAGIC}\nindex {self.index}\n{hashes}\n{self.checkpoint}"

    def verify(self, leaf: bytes, keys: Sequence[Verifier], origin: str = "") -> Checkpoint:
        """Check signature and path for the leaf's bytes; returns the checkpoint. Raises ProofError."""
        checkpoint = open_checkpoint(self.checkpoint, list(keys), origin)
        verify_inclusion(self.index, checkpoint.size, leaf_hash(leaf), self.path, checkpoint.root)
        return checkpoint


def parse_proof(text: str) -> LeafProof:
    """Read a proof's text; nothing is verified. Raises ProofError."""
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != MAGIC:
        raise ProofError("This is not a tlog-proof", "its first line is another")
    if lines and lines[0].startswith("extra "):
        lines.pop(0)
    match = _INDEX.match(lines.pop(0)) if lines else None
    if match is None or len(lines) > 63:
        raise ProofError("This is not a tlog-proof", "its index line or its path is malformed")
    path = tuple(decode_base64(line, "A hash of the proof") for line in lines)
    if any(len(h) != 32 for h in path):
        raise ProofError("This is not a tlog-proof", "a hash is not 32 bytes")
    return LeafProof(int(match[1]), path, checkpoint)
