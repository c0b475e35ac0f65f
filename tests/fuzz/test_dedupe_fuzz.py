"""Invariant: whatever frames repeat in whatever blocks, what is stored stands for exactly them, text once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProofError
from narrows.record.log import dedupe, tokens
from narrows.record.log.dedupe import Chooser, Dedupe, Region
from narrows.record.log.frame import Chain
from narrows.record.log.part import Block, Run, compressor, decode_body, decode_head, decode_literals, head_size
from narrows.record.sealing_blocks import chosen, make_block

# Pieces of text with and without places to look up, and some that no text has.
PIECES = [
    *(
        b'{"role":"user","content":"%b\\n%b"},'
        % (bytes([97 + n]) * (60 + 97 * n), sha256(bytes([n])).hexdigest().encode())
        for n in range(8)
    ),
    *(b"\\n\\n", b'"', b"x" * 3000, bytes(range(256))),
]
bodies = st.lists(st.sampled_from(range(len(PIECES))), min_size=1, max_size=25)
blocks = st.lists(st.lists(bodies, min_size=1, max_size=3), min_size=1, max_size=6)


def cut(literals: bytes, wanted: list[tuple[int, int]]) -> list[bytes]:
    return [literals[offset : offset + length] for offset, length in wanted]


class Blocks:
    """Blocks in memory, and what a reader does with them."""

    def __init__(self) -> None:
        self.file = b""
        self.blocks: list[Block] = []
        self.zstd = zstandard.ZstdDecompressor()

    def fetch(self, wanted: list[tuple[int, int]]) -> list[bytes]:
        literals = b"".join(decode_literals(self.body(block), block, self.zstd) for block in self.blocks)
        return cut(literals, wanted)

    def body(self, block: Block) -> bytes:
        size = block.zstd if block.shape is None else block.shape.text
        return self.file[block.body : block.body + size]

    def read(self, encoded: bytes) -> bytes:
        """Take the next block; its raw bytes."""
        offset = len(self.file)
        block = decode_head(encoded[: head_size(encoded[:8], offset)], offset)
        self.file += encoded
        raw = decode_body(self.file[block.body :], block, self.zstd, self.fetch)
        self.blocks.append(block)
        return raw


def part(told: list[list[list[int]]], use: Callable[[bytes, list[Run]], None]) -> None:
    """Give the raw bytes and runs of each block: each body one frame or two."""
    chain = Chain()
    for bodies in told:
        raw = b""
        first = chain.seq
        for number, pieces in enumerate(bodies):
            data = b"".join(PIECES[piece] for piece in pieces)
            cut = len(data) // 3 if number % 2 else len(data)
            for piece in (data[:cut], data[cut:]):
                raw += chain.encode_whole(4, 1, b"s" * 16, number.to_bytes(16, "big"), 1, 2, b"{}", piece)
        use(raw, [("w", first, chain.seq - 1, chain.seq - first)])


@settings(max_examples=150, deadline=None)
@given(blocks, st.booleans(), st.sampled_from([50, 4000, 1 << 25]))
def test_any_frames_come_back(told: list[list[list[int]]], pack: bool, held: int) -> None:
    stored, known, chooser, zstd = Blocks(), Dedupe(), Chooser(), compressor(final=pack)
    kept = dedupe.HELD

    def use(raw: bytes, runs: list[Run]) -> None:
        place = len(stored.file), sum(block.raw for block in stored.blocks)
        encoded, _ = make_block(place, raw, runs, chosen(raw, chooser), known, zstd, pack=pack)
        assert stored.read(encoded) == raw
        assert known.literal == sum(block.new for block in stored.blocks)
        assert known.held <= held + max(block.raw for block in stored.blocks)

    dedupe.HELD = held
    try:
        part(told, use)
    finally:
        dedupe.HELD = kept


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=400) | st.sampled_from(PIECES), max_size=12), st.integers(0, 3000))
def test_any_bytes_come_back_whatever_is_looked_at(pieces: list[bytes], at: int) -> None:
    known, literals = Dedupe(), b""
    stream = b"".join(pieces)
    for regions in ([Region(0, len(stream), 0)], [Region(min(at, len(stream)), len(stream), min(at, len(stream)))]):
        found = known.block(stream, regions, len(stream))
        if found is None:
            literals += stream
            continue
        rest = found.other + tokens.encode(found.sequences, len(literals))
        got = tokens.expand(found.shape, found.text, rest, partial(cut, literals))
        assert got == stream
        literals += found.text


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_bodies_give_proof_errors_only(data: st.DataObject) -> None:
    stored, known, chooser = Blocks(), Dedupe(), Chooser()
    made: list[tuple[bytes, Block]] = []

    def use(raw: bytes, runs: list[Run]) -> None:
        made.append(make_block((len(stored.file), 0), raw, runs, chosen(raw, chooser), known, compressor()))
        stored.read(made[-1][0])

    part([[[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 7]]], use)
    encoded, block = made[-1]
    shape = block.shape
    assert shape is not None
    text, rest = encoded[block.body - block.offset :][: shape.text], encoded[block.body - block.offset :][shape.text :]
    dictionary = zstandard.ZstdCompressionDict(stored.zstd.decompress(text), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    steps = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(rest)
    at = data.draw(st.integers(0, len(steps) - 1))
    steps = steps[:at] + data.draw(st.binary(max_size=4)) + steps[at + data.draw(st.integers(0, 4)) :]
    unpacked = stored.zstd.decompress(text)
    try:
        got = tokens.expand(shape, unpacked, steps, stored.fetch)
    except ProofError:
        return
    assert len(got) == shape.packed
