"""Signed notes, checkpoints and offline proofs against published examples."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log.merkle import CompactRange, leaf_hash
from narrows.record.log.note import (
    COSIGNATURE,
    Checkpoint,
    SigningKey,
    Verifier,
    key_id,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
)
from narrows.record.log.proof import LeafProof, parse_proof

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/signed_note.json").read_text())
KEY = SigningKey("narrows/test", bytes(32))
POINT = Checkpoint("narrows/test", 7, sha256(b"root").digest())


def test_the_published_example_is_signed_and_verified_to_the_byte() -> None:
    key = SigningKey.parse(VECTORS["skey"])
    assert key.verifier.vkey == VECTORS["vkey"]
    assert key.skey == VECTORS["skey"]
    note = key.sign(VECTORS["text"])
    assert note == VECTORS["text"] + "\n" + VECTORS["signature"]
    parse_note(note).verify([Verifier.parse(VECTORS["vkey"])])


def test_a_checkpoint_with_a_cosignature_is_read() -> None:
    note = parse_note(VECTORS["cosigned"])
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert [name for name, _, _ in note.signatures] == [
        "example.com/behind-the-sofa",
        "witness.example.com/w1",
    ]
    assert int.from_bytes(note.signatures[1][2][:8], "big") == 1679315147
    assert checkpoint.body == note.text


def cosign(note: str, name: str, seed: bytes, when: int) -> tuple[str, Verifier]:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    text = parse_note(note).text
    signed = private.sign(f"cosignature/v1\ntime {when}\n{text}".encode())
    raw = key_id(name, COSIGNATURE, public) + when.to_bytes(8, "big") + signed
    return note + f"— {name} {b64encode(raw).decode()}\n", Verifier(name, COSIGNATURE, public)


def test_witness_lines_are_passed_over_unless_asked_for_and_then_verified() -> None:
    note, witness = cosign(KEY.sign(POINT.body), "witness.example/w", b"w" * 32, 1_700_000_000)
    assert open_checkpoint(note, [KEY.verifier]) == POINT
    assert parse_note(note).verify([KEY.verifier, witness])["witness.example/w"] == 1_700_000_000
    assert Verifier.parse(witness.vkey) == witness
    forged = note.replace("\n7\n", "\n8\n")
    with pytest.raises(ProofError):
        parse_note(forged).verify([witness])


@pytest.mark.parametrize(
    "note",
    [
        "", "text\n", "text\n\n", "text\n\nno dash\n", "a\n\n— name notbase64!\n", "a\n\n— na+me AAAAAAA=\n",
        "a\x07\n\n— n AAAAAAAA\n", "a\n\n— n AAAAAAAA", "a\n\n— n AAA=\n",
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(ProofError):
        parse_note(note)


@pytest.mark.parametrize(
    "text",
    ["", "o\n", "o\n07\nAA==\n", "o\n1\nAA==\n", "o\n-1\n" + "A" * 43 + "=\n", "o\n1\n" + "A" * 43 + "=\n\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_checkpoint(text)


def test_another_key_another_origin_or_a_changed_byte_do_not_verify() -> None:
    note = KEY.sign(POINT.body)
    other = SigningKey("narrows/test", b"x" * 32)
    with pytest.raises(ProofError, match="not signed by a known key"):
        open_checkpoint(note, [other.verifier])
    with pytest.raises(ProofError, match="another log"):
        open_checkpoint(note, [KEY.verifier], "narrows/other")
    with pytest.raises(ProofError):
        open_checkpoint(note.replace("\n7\n", "\n9\n"), [KEY.verifier])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_garbage_raises_proof_errors_only(text: str) -> None:
    for read in (parse_note, parse_checkpoint, parse_proof, Verifier.parse, SigningKey.parse):
        try:
            read(text)
        except ProofError:
            continue


def test_a_key_never_shows_itself() -> None:
    secret = KEY.skey.rsplit("+", 1)[1]
    assert secret not in repr(KEY)
    assert secret not in str(KEY)
    with pytest.raises(ProofError) as error:
        SigningKey.parse(KEY.skey.replace("narrows/test", "narrows/tost"))
    assert secret not in str(error.value)


def test_an_offline_proof_goes_through_its_text() -> None:
    tree = CompactRange()
    leaves = [b"a", b"b"]
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    note = KEY.sign(Checkpoint("narrows/test", 2, tree.root()).body)
    proof = parse_proof(LeafProof(1, (leaf_hash(b"a"),), note).encode())
    assert proof.verify(b"b", [KEY.verifier]).size == 2
    with pytest.raises(ProofError):
        proof.verify(b"c", [KEY.verifier])
