"""Blocks of parts: what a part holds already is named, not stored again; growing parts written anew as final ones."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import zstandard

from narrows.core.errors import ProofError
from narrows.record.log import bare, tokens
from narrows.record.log.dedupe import Chooser, Dedupe, Region
from narrows.record.log.frame import HEADER_SIZE
from narrows.record.log.part import (
    DEDUPED_BLOCK,
    FINAL_BLOCK,
    Block,
    Run,
    compressor,
    encode_block,
    encode_deduped,
    encode_table,
    merge_runs,
)
from narrows.record.partfile import PartFile, part_name
from narrows.record.store.files import FileStore

STEP_RAW = 32 << 20
"""About how many raw bytes one step writes anew: sealing goes on between the steps."""


def make_block(
    place: tuple[int, int],
    raw: bytes,
    runs: list[Run],
    regions: list[Region],
    dedupe: Dedupe,
    zstd: zstandard.ZstdCompressor,
    *,
    pack: bool = False,
) -> tuple[bytes, Block]:
    """A block at `place` (file offset, raw offset): of version 2 where some of it is known, else of version 1.

    `regions` say where to look, in `raw`; `pack` makes the frames of a block of version 2 bare.
    """
    offset, at = place
    digest = sha256(raw).digest()
    if not regions:
        dedupe.plain(len(raw))
        return encode_block(offset, at, raw, digest, runs, zstd)
    stream = raw
    if pack:
        stream, payloads = bare.bare(raw, [count for *_, count in runs])
        regions = _moved(regions, raw, payloads)
    found = dedupe.block(stream, regions, len(raw))
    if found is not None:
        steps = tokens.encode(found.sequences, found.shape.literal)
        parts = found.shape, found.text, found.other + steps
        if len(steps) <= tokens.MAX_STEPS and _is(parts, stream, dedupe):
            return encode_deduped(offset, at, raw, digest, runs, parts, zstd)
        dedupe.retract(len(raw))
    return encode_block(offset, at, raw, digest, runs, zstd)


def _is(parts: tuple[tokens.Shape, bytes, bytes], stream: bytes, dedupe: Dedupe) -> bool:
    """Whether a body stands for `stream`: what cannot be read back must not replace the only copy there is."""
    try:
        return tokens.expand(*parts, dedupe.fetch) == stream
    except ProofError:
        return False


def _moved(regions: list[Region], raw: bytes, payloads: list[int]) -> list[Region]:
    """Regions of raw bytes as regions of their bare form, whose payloads begin at `payloads`."""
    wanted = {region.start: region for region in regions}
    moved: list[Region] = []
    for (start, _), payload in zip(bare.bounds(raw), payloads, strict=True):
        region = wanted.get(start + HEADER_SIZE)
        if region is not None:
            moved.append(Region(payload, payload + region.end - region.start, region.raw))
    return moved


def chosen(raw: bytes, chooser: Chooser) -> list[Region]:
    """The payloads of a block's frames that are looked at. Raises ProofError where there is no frame."""
    return [
        Region(start + HEADER_SIZE, end, start + HEADER_SIZE)
        for start, end in bare.bounds(raw)
        if chooser.looks(raw, start, end)
    ]


def unfinished(session: bytes, part: int) -> str:
    """The name of a final part while it is being written."""
    return part_name(session, part, final=True) + ".tmp"


class FinalPart:
    """A growing part, which takes no more frames, written anew: large blocks, then the table.

    Each block that names others is read back from the file before its frames count as kept. A step's bytes are durable
    on its return; what a crash leaves behind is written over.
    """

    def __init__(self, store: FileStore, session: bytes, part: int) -> None:
        self._store = store
        self._source = part_name(session, part, final=False)
        self._name, self._making = part_name(session, part, final=True), unfinished(session, part)
        self._dedupe, self._chooser = Dedupe(), Chooser()
        self._zstd = compressor(final=True)
        self._blocks: list[Block] = []
        self._size = self._at = self._read = 0

    def step(self) -> bool:
        """Write on; True when the final part is there, under its name. Raises ProofError, NotFound."""
        pieces: list[bytes] = []
        fresh: list[Block] = []
        with PartFile.open(self._store.path(self._source)) as source:
            for encoded, block in self._more(source):
                pieces.append(encoded)
                fresh.append(block)
            whole = source.block_at(self._read) is None
        start = self._size - sum(map(len, pieces))
        if whole:
            pieces.append(encode_table(self._blocks))
        self._store.append(self._making, start, b"".join(pieces))
        self._prove(fresh)
        if whole:
            self._store.rename(self._making, self._name)
        return whole

    def _more(self, source: PartFile) -> Iterator[tuple[bytes, Block]]:
        """The next blocks, of about STEP_RAW bytes."""
        raws: list[bytes] = []
        runs: list[Run] = []
        held, most, left = 0, FINAL_BLOCK, STEP_RAW
        while left > 0 and (small := source.block_at(self._read)) is not None:
            if small.shape is not None:
                most = DEDUPED_BLOCK
            if raws and held + small.raw > most:
                yield self._block(b"".join(raws), runs)
                raws, runs, held, most = [], [], 0, FINAL_BLOCK
                left -= self._blocks[-1].raw
                continue
            raws.append(source.read(small))
            held += small.raw
            merge_runs(runs, small.runs)
            self._read = small.end
        if raws:
            yield self._block(b"".join(raws), runs)

    def _block(self, raw: bytes, runs: list[Run]) -> tuple[bytes, Block]:
        regions = chosen(raw, self._chooser)
        encoded, block = make_block((self._size, self._at), raw, runs, regions, self._dedupe, self._zstd, pack=True)
        self._blocks.append(block)
        self._size += len(encoded)
        self._at += len(raw)
        return encoded, block

    def _prove(self, blocks: list[Block]) -> None:
        """Read back what names other blocks. Raises ProofError."""
        with PartFile.open(self._store.path(self._making), by_heads=True) as part:
            for block in blocks:
                if block.shape is not None:
                    part.read(block)
