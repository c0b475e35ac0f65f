"""Tile arithmetic and growth, against the examples of C2SP tlog-tiles and a tree computed leaf by leaf."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from narrows.core.errors import ProofError
from narrows.record.log.merkle import (
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from narrows.record.log.tiles import (
    TileTree,
    entries_path,
    index_path,
    pack_entries,
    subtree_reader,
    tile_hashes,
    tile_path,
    tiles_of,
    unpack_entries,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/tlog_tiles.json").read_text())


def test_paths_are_those_of_the_specification() -> None:
    for index, path in VECTORS["index_paths"].items():
        assert index_path(int(index)) == path
    assert tile_path(2, 1234067, 17) == "tile/2/x001/x234/067.p/17"
    assert entries_path(0) == "tile/entries/000"
    assert entries_path(5, 3) == "tile/entries/005.p/3"


@pytest.mark.parametrize("size", VECTORS["trees"])
def test_a_trees_tiles_are_those_of_the_specification(size: str) -> None:
    full: dict[str, int] = {}
    partial: dict[str, int] = {}
    for level, _, width in tiles_of(int(size)):
        if width == 256:
            full[str(level)] = full.get(str(level), 0) + 1
        else:
            partial[str(level)] = width
    assert {"full": full, "partial": partial} == VECTORS["trees"][size]


def test_a_grown_tree_has_the_same_root_and_tiles_however_it_grew() -> None:
    size = 70_000
    hashes = [leaf_hash(i.to_bytes(4, "big")) for i in range(size)]
    tiles: dict[tuple[int, int, int], bytes] = {}
    tree, compact = TileTree(), CompactRange()
    for count, leaf in enumerate(hashes, 1):
        tree.append(leaf)
        compact.append(leaf)
        if count % 997 == 0 or count in (1, 255, 256, 257, 65_535, 65_536, 65_537, size):
            assert tree.root() == compact.root()
            tiles.update(tree.changed())
            again = TileTree(count, [list(row) for row in tree.levels])
            assert again.root() == compact.root()
    for level, index, width in tiles_of(size):
        assert len(tile_hashes(tiles[level, index, width], width)) == width
    get = subtree_reader(size, lambda level, index, width: tiles[level, index, width])
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        verify_inclusion(index, size, hashes[index], inclusion_proof(index, size, get), compact.root())
    old = CompactRange()
    for leaf in hashes[:65_537]:
        old.append(leaf)
    proof = consistency_proof(65_537, size, get)
    verify_consistency(65_537, size, old.root(), compact.root(), proof)


def test_a_batch_writes_each_tile_once() -> None:
    tree = TileTree()
    for i in range(600):
        tree.append(leaf_hash(b"%d" % i))
    assert sorted(tree.changed()) == [(0, 0, 256), (0, 1, 256), (0, 2, 88), (1, 0, 2)]
    assert tree.changed() == {}


def test_entry_bundles_come_back_and_damage_is_told() -> None:
    entries = [b"", b"a", b"x" * 65_535]
    bundle = pack_entries(entries)
    assert unpack_entries(bundle) == entries
    with pytest.raises(ProofError):
        unpack_entries(bundle[:-1])
    with pytest.raises(ProofError):
        unpack_entries(bundle + b"\x00")
    with pytest.raises(ProofError):
        pack_entries([b"x" * 65_536])
    with pytest.raises(ProofError):
        unpack_entries(pack_entries([b""] * 256) + b"\x00\x00")


def test_a_tile_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ProofError):
        tile_hashes(bytes(63), 2)
