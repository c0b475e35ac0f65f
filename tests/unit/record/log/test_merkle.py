"""The tree against RFC 6962's own definition (recursive, slow) and known vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log.merkle import (
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/rfc6962.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]


def mth(hashes: list[bytes]) -> bytes:
    """Merkle Tree Hash as RFC 6962 section 2.1 writes it down."""
    if not hashes:
        from hashlib import sha256

        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(mth(hashes[:k]), mth(hashes[k:]))


def getter(hashes: list[bytes]):  # type: ignore[no-untyped-def]
    return lambda level, index: mth(hashes[index << level : (index + 1) << level])


def many(count: int) -> list[bytes]:
    return [leaf_hash(str(i).encode()) for i in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_known_ones(size: int) -> None:
    tree = CompactRange()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    assert tree.root().hex() == VECTORS["roots"][size]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}of{c['size']}")
def test_inclusion_vectors(case: dict[str, object]) -> None:
    index, size = int(case["index"]), int(case["size"])  # type: ignore[call-overload]
    proof = inclusion_proof(index, size, getter(LEAVES[:size]))
    assert [h.hex() for h in proof] == case["proof"]
    verify_inclusion(index, size, LEAVES[index], proof, bytes.fromhex(VECTORS["roots"][size]))


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda c: f"{c['old']}to{c['new']}")
def test_consistency_vectors(case: dict[str, object]) -> None:
    old, new = int(case["old"]), int(case["new"])  # type: ignore[call-overload]
    proof = consistency_proof(old, new, getter(LEAVES[:new]))
    assert [h.hex() for h in proof] == case["proof"]
    roots = [bytes.fromhex(root) for root in VECTORS["roots"]]
    verify_consistency(old, new, roots[old], roots[new], proof)


def test_every_proof_of_every_small_tree_verifies_and_no_other() -> None:
    hashes = many(20)
    roots = [mth(hashes[:size]) for size in range(21)]
    for size in range(1, 21):
        get = getter(hashes[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, get)
            verify_inclusion(index, size, hashes[index], proof, roots[size])
            other = hashes[(index + 1) % size]
            if size > 1:
                with pytest.raises(ProofError):
                    verify_inclusion(index, size, other, proof, roots[size])
        for old in range(size + 1):
            proof = consistency_proof(old, size, get)
            verify_consistency(old, size, roots[old], roots[size], proof)
            with pytest.raises(ProofError):
                verify_consistency(old, size, roots[old], roots[size], [*proof, bytes(32)])
            if proof:
                with pytest.raises(ProofError):
                    verify_consistency(old, size, roots[old], roots[size], proof[:-1])
                with pytest.raises(ProofError):
                    verify_consistency(old, size, bytes(32), roots[size], proof)
                with pytest.raises(ProofError):
                    verify_consistency(old, size, roots[old], bytes(32), proof)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 600), st.data())
def test_a_changed_proof_never_verifies(size: int, data: st.DataObject) -> None:
    hashes = many(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, getter(hashes))
    root = mth(hashes)
    verify_inclusion(index, size, hashes[index], proof, root)
    if proof:
        row = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        changed = bytearray(proof[row])
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProofError):
            verify_inclusion(
                index, size, hashes[index], [*proof[:row], bytes(changed), *proof[row + 1 :]], root
            )


def test_a_shrunk_log_has_no_consistency() -> None:
    with pytest.raises(ProofError, match="shrank"):
        verify_consistency(5, 4, bytes(32), bytes(32), [])
    with pytest.raises(ProofError):
        consistency_proof(5, 4, getter(many(4)))
    with pytest.raises(ProofError, match="two roots"):
        verify_consistency(4, 4, bytes(32), mth(many(4)), [])
