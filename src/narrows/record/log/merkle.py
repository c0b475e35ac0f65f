"""The Merkle tree of RFC 6962 section 2.1 (the same as RFC 9162 section 2.1) over SHA-256. Pure.

Nothing here knows where hashes are kept: proofs are made through a function `get(level, index)` that returns the
hash of the complete subtree over leaves `index * 2**level` to `(index + 1) * 2**level`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from narrows.core.errors import ProofError

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves (RFC 6962 section 2.1)."""

Get = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 || entry), RFC 6962 section 2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right), RFC 6962 section 2.1."""
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Root of a perfect subtree given its row of hashes; their number must be a power of two."""
    row = list(hashes)
    while len(row) > 1:
        row = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


def fold_peaks(peaks: Sequence[bytes]) -> bytes:
    """Root of a tree from the roots of its perfect subtrees, largest (leftmost) first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


class CompactRange:
    """The right edge of a tree: enough to append leaves and to know the root. Holds at most 64 hashes."""

    __slots__ = ("peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The tree's root now."""
        return fold_peaks(self.peaks)


def _split(width: int) -> int:
    """The largest power of two smaller than `width` (the k of RFC 6962 section 2.1)."""
    return 1 << ((width - 1).bit_length() - 1)


def range_root(low: int, high: int, get: Get) -> bytes:
    """MTH(D[low:high]) for a `low` that is aligned as the recursion of RFC 6962 aligns it."""
    width = high - low
    if width == 0:
        return EMPTY_ROOT
    level = width.bit_length() - 1
    if width == 1 << level:
        return get(level, low >> level)
    middle = low + _split(width)
    return node_hash(range_root(low, middle, get), range_root(middle, high, get))


def inclusion_proof(index: int, size: int, get: Get) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling up. Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError("No such leaf", f"index {index} in a tree of {size}")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(range_root(middle, high, get))
            high = middle
        else:
            proof.append(range_root(low, middle, get))
            low = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, get: Get) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2. Empty for old == 0 and for old == new. Raises ProofError."""
    if not 0 <= old <= new:
        raise ProofError("No consistency proof exists", f"from a tree of {old} to one of {new}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(range_root(middle, high, get))
            high = middle
        else:
            proof.append(range_root(low, middle, get))
            low, whole = middle, False
    if not whole:
        proof.append(range_root(low, high, get))
    proof.reverse()
    return proof


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof (RFC 9162 section 2.1.3.2) of the leaf hash `leaf`. Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError("The inclusion proof fails", f"index {index} is outside a tree of {size}")
    fn, sn, current = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofError("The inclusion proof fails", "it is too long")
        if fn & 1 or fn == sn:
            current = node_hash(sibling, current)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            current = node_hash(current, sibling)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("The inclusion proof fails", "it is too short")
    if current != root:
        raise ProofError("The inclusion proof fails", f"leaf {index} does not lead to the root of size {size}")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` leaves begins with the one of `old` leaves (RFC 9162 section 2.1.4.2).

    Raises ProofError.
    """
    if not 0 <= old <= new:
        raise ProofError("The consistency proof fails", f"from size {old} to size {new}: the log shrank")
    if old == new or old == 0:
        if proof:
            raise ProofError("The consistency proof fails", "it should be empty")
        if old == new and old_root != new_root:
            raise ProofError("The consistency proof fails", f"two roots for one size, {old}")
        if old == 0 and old_root != EMPTY_ROOT:
            raise ProofError("The consistency proof fails", "the old root is not that of an empty log")
        return
    path = list(proof)
    if not old & (old - 1):
        path.insert(0, old_root)
    if not path:
        raise ProofError("The consistency proof fails", "it is too short")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = second = path[0]
    for node in path[1:]:
        if sn == 0:
            raise ProofError("The consistency proof fails", "it is too long")
        if fn & 1 or fn == sn:
            first, second = node_hash(node, first), node_hash(node, second)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            second = node_hash(second, node)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("The consistency proof fails", "it is too short")
    if first != old_root:
        raise ProofError("The consistency proof fails", f"the first {old} leaves were changed or removed")
    if second != new_root:
        raise ProofError("The consistency proof fails", f"it does not lead to the root of size {new}")
