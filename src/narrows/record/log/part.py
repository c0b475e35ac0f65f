"""The part codec: how a session's frames lie in an object file. Pure.

A part is a valid zstd file (RFC 8878): the `zstd` tool turns it into the frames' bytes, one after another.

    block := head, body
    head  := skippable frame 0x184D2A50: "NRB1" and canonical JSON
             {"at":N,"crc":N,"raw":N,"runs":[[writer,first seq,last seq,frames],...],"sha256":hex,"v":1,"zstd":N}
    body  := one zstd frame with content size and checksum, independent of all others
    table := skippable frame 0x184D2A51: canonical JSON {"blocks":[[offset,size,at,raw,sha256,runs],...],"v":1},
             its length (uint32, big endian), "NRT1"

`at` is the block's offset in the part's raw bytes, `raw` and `zstd` its lengths raw and compressed, `sha256` that of
the raw bytes, `crc` the CRC32C of the compressed bytes; `size` in the table is head and body together. `runs` say
whose frames these are, in order: a frame itself does not name its writer. Blocks begin and end at frame boundaries.
A growing file (`.open`) is blocks only; a final one (`.part`) ends with the table.

A block of version 2 names what the part holds already (`narrows.record.log.tokens`), and its frames may be bare
(`narrows.record.log.bare`). Its body is two zstd frames, `zstd` and `crc` are of both, and its head has five members
more: those of `tokens.Shape`. The table of a part with such a block has version 2, and rows [...,literal,new]: where
the block's literals begin in the part's, and how many they are.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from itertools import accumulate

import zstandard
from crc32c import crc32c

from narrows.core.errors import ProofError
from narrows.record.log import bare, tokens
from narrows.record.log.leaf import canonical
from narrows.record.log.tokens import Shape

OPEN_BLOCK = 1 << 20
"""A growing part's block is closed when it reaches this many raw bytes (or when the sealer's step ends)."""
FINAL_BLOCK = 4 << 20
"""Blocks of a final part: large enough that a history which an agent resends is found again by the compressor."""
MAX_RAW = 64 << 20
"""No block is longer than this raw: a reader refuses to decompress more."""
DEDUPED_BLOCK = 8 << 20
"""The same where blocks are of version 2: more of them name the same text in the same order."""
PART_RAW = 64 << 20
"""A part that has reached this many raw bytes, copies not counted, gets no more frames."""
PART_DEDUPED = 512 << 20
"""Nor one that has reached this many with them: what a part costs to be made final is bounded, too."""

HEAD_MAGIC = 0x184D2A50
TABLE_MAGIC = 0x184D2A51
_SHAPE = tuple(field.name for field in fields(Shape))
_SKIPPABLE = struct.Struct("<II")
_HEAD_TAG = b"NRB1"
_TABLE_TAG = b"NRT1"
_MAX_HEAD = 16 << 20
LEVEL = 3

Run = tuple[str, int, int, int]
"""Writer, first and last sequence number, number of frames."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a part. `offset` is where its head begins in the file, `body` where its zstd frame begins."""

    offset: int
    body: int
    at: int
    raw: int
    zstd: int
    crc: int
    sha256: bytes
    runs: tuple[Run, ...]
    shape: Shape | None = None
    """None: a block of version 1."""

    @property
    def new(self) -> int:
        """How many literals it adds to the part's."""
        return self.raw if self.shape is None else self.shape.new

    @property
    def end(self) -> int:
        """File offset after this block."""
        return self.body + self.zstd

    def row(self) -> list[object]:
        """This block's row of a table of version 1."""
        runs = [list(run) for run in self.runs]
        return [self.offset, self.end - self.offset, self.at, self.raw, self.sha256.hex(), runs]

    def fields(self) -> dict[str, object]:
        """What its head says."""
        told: dict[str, object] = {
            "at": self.at,
            "crc": self.crc,
            "raw": self.raw,
            "runs": self.runs,
            "sha256": self.sha256.hex(),
            "v": 1,
            "zstd": self.zstd,
        }
        if self.shape is not None:
            told |= self.shape.told() | {"v": 2}
        return told


def compressor(*, final: bool = False) -> zstandard.ZstdCompressor:
    """The compressor for growing or for final blocks. Not thread-safe."""
    if not final:
        return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    options = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=23, enable_ldm=True, write_checksum=True, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=options)


def encode_block(
    offset: int, at: int, raw: bytes, digest: bytes, runs: list[Run], zstd: zstandard.ZstdCompressor
) -> tuple[bytes, Block]:
    """The bytes of a block that will lie at file offset `offset`, and its description. `digest` is raw's SHA-256."""
    return _encoded(zstd.compress(raw), offset, at, len(raw), digest, runs)


def encode_deduped(
    offset: int,
    at: int,
    raw: bytes,
    digest: bytes,
    runs: list[Run],
    parts: tuple[Shape, bytes, bytes],
    zstd: zstandard.ZstdCompressor,
) -> tuple[bytes, Block]:
    """The same for a block of version 2: `parts` are its shape (`text` is set here) and what its two frames hold."""
    shape, text, rest = parts
    first = zstd.compress(text) if text else b""
    if text:
        known = zstandard.ZstdCompressionDict(text, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        zstd = zstandard.ZstdCompressor(level=LEVEL, dict_data=known, write_checksum=True, write_content_size=True)
    return _encoded(first + zstd.compress(rest), offset, at, len(raw), digest, runs, replace(shape, text=len(first)))


def _encoded(
    body: bytes, offset: int, at: int, raw: int, digest: bytes, runs: list[Run], shape: Shape | None = None
) -> tuple[bytes, Block]:
    block = Block(offset, 0, at, raw, len(body), crc32c(body), digest, tuple(runs), shape)
    content = _HEAD_TAG + canonical(block.fields())
    head = _SKIPPABLE.pack(HEAD_MAGIC, len(content)) + content
    return head + body, replace(block, body=offset + len(head))


def _damaged(why: str, offset: int) -> ProofError:
    return ProofError("A part is damaged", f"{why} at offset {offset}")


def head_size(prefix: bytes, offset: int) -> int:
    """Length of the skippable frame whose first 8 bytes are `prefix`; 0 if it is the table. Raises ProofError."""
    if len(prefix) < _SKIPPABLE.size:
        raise _damaged("it ends inside a block", offset)
    magic, size = _SKIPPABLE.unpack_from(prefix)
    if magic == TABLE_MAGIC:
        return 0
    if magic != HEAD_MAGIC or not 4 < size <= _MAX_HEAD:
        raise _damaged("no block begins", offset)
    return _SKIPPABLE.size + int(size)


def _integers(row: object, *keys: str) -> list[int]:
    if not isinstance(row, dict):
        raise TypeError
    values = [row[key] for key in keys]
    if any(type(value) is not int or not 0 <= value < 1 << 62 for value in values):
        raise TypeError
    return values


def _run(row: object) -> Run:
    if not isinstance(row, list) or len(row) != 4 or [type(x) for x in row] != [str, int, int, int]:
        raise TypeError
    writer, first, last, count = row
    if not (0 <= first <= last < 1 << 62 and 0 < count <= last - first + 1):
        raise ValueError
    return writer, first, last, count


def decode_head(head: bytes, offset: int) -> Block:
    """Read a block's head (whole skippable frame). Raises ProofError for anything but the canonical form."""
    content = head[_SKIPPABLE.size :]
    try:
        told = json.loads(content[4:])
        at, crc, raw, zstd, version = _integers(told, "at", "crc", "raw", "zstd", "v")
        shape = Shape(*_integers(told, *_SHAPE)) if version == 2 else None
        runs = tuple(_run(row) for row in told["runs"])
        digest = bytes.fromhex(told["sha256"])
        block = Block(offset, offset + len(head), at, raw, zstd, crc, digest, runs, shape)
        whole = content[:4] == _HEAD_TAG and canonical(block.fields()) == content[4:]
    except (ValueError, TypeError, KeyError, RecursionError) as bad:
        raise _damaged("a block's head cannot be read", offset) from bad
    fits = shape is None or (shape.possible and 0 < shape.packed <= raw and shape.text < zstd)
    if not whole or not 0 < raw <= MAX_RAW or not fits or len(digest) != 32:
        raise _damaged("a block's head is not in its canonical form", offset)
    return block


def decode_body(
    body: bytes, block: Block, zstd: zstandard.ZstdDecompressor, fetch: tokens.Fetch | None = None
) -> bytes:
    """The raw bytes of a block, checked against its head. Raises ProofError.

    Never makes more memory than the head says, whatever the zstd frame says of itself. A block of version 2 needs
    `fetch`, which gives stretches of the literals of earlier blocks of the part.
    """
    if len(body) != block.zstd or crc32c(body) != block.crc:
        raise _damaged("a block's compressed bytes were changed or cut", block.body)
    shape = block.shape
    if shape is None:
        raw = _unpacked(body, block, block.raw, zstd)
    elif fetch is None:
        raise _damaged("a block needs others to be read", block.body)
    else:
        text = _unpacked(body[: shape.text], block, shape.new, zstd) if shape.text else b""
        if text:
            known = zstandard.ZstdCompressionDict(text, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            zstd = zstandard.ZstdDecompressor(dict_data=known)
        rest = _unpacked(body[shape.text :], block, shape.other, zstd, tokens.MAX_STEPS)
        try:
            raw = tokens.expand(shape, text, rest, fetch)
            if shape.packed != block.raw:
                raw = bare.whole(raw, (count for *_, count in block.runs), block.raw)
        except ProofError as bad:
            raise ProofError(bad.what, f"{bad.why}, at offset {block.offset}") from bad
    if len(raw) != block.raw or sha256(raw).digest() != block.sha256:
        raise _damaged("a block's bytes are not the ones that its head names", block.body)
    return raw


def literals_size(block: Block) -> int:
    """How many bytes of a block's body, from its beginning, hold its literals."""
    return block.zstd if block.shape is None else block.shape.text


def decode_literals(body: bytes, block: Block, zstd: zstandard.ZstdDecompressor) -> bytes:
    """The literals of a block, `block.new` bytes, from the first `literals_size` bytes of its body. Raises ProofError.

    They are not proved by themselves: the digest of the block that they are for does that.
    """
    return _unpacked(body, block, block.new, zstd) if block.new else b""


def _unpacked(body: bytes, block: Block, least: int, zstd: zstandard.ZstdDecompressor, more: int = 0) -> bytes:
    """What one zstd frame holds: `least` bytes, or up to `more` above. Raises ProofError."""
    try:
        size = int(zstandard.get_frame_parameters(body).content_size)
        if not least <= size <= least + more:
            raise _damaged("a block's length is not the one that its head names", block.body)
        raw = zstd.decompress(body, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as bad:
        raise _damaged("a block does not decompress", block.body) from bad
    if len(raw) != size:
        raise _damaged("a block's length is not the one that its head names", block.body)
    return raw


def encode_table(blocks: list[Block]) -> bytes:
    """The table at the end of a final part."""
    if all(block.shape is None for block in blocks):
        content = canonical({"blocks": [block.row() for block in blocks], "v": 1})
    else:
        starts = accumulate((block.new for block in blocks), initial=0)
        rows = [[*block.row(), start, block.new] for block, start in zip(blocks, starts, strict=False)]
        content = canonical({"blocks": rows, "v": 2})
    content += struct.pack(">I", len(content)) + _TABLE_TAG
    return _SKIPPABLE.pack(TABLE_MAGIC, len(content)) + content


TABLE_TAIL = 8


def table_size(tail: bytes) -> int:
    """Length of the whole table frame, from the file's last 8 bytes; 0 when the file has none."""
    if len(tail) < TABLE_TAIL or tail[-4:] != _TABLE_TAG:
        return 0
    return int(struct.unpack_from(">I", tail, len(tail) - 8)[0]) + TABLE_TAIL + _SKIPPABLE.size


def decode_table(table: bytes) -> list[tuple[int, int, int, int]]:
    """(offset, size, at, raw) of each block, for random access; the heads say the rest. Raises ProofError."""
    return [(row[0], row[1], row[2], row[3]) for row in _rows(table)]


def decode_literal_table(table: bytes) -> list[tuple[int, int, int]]:
    """(literal, new, offset) of each block of a part, whichever the table's version. Raises ProofError."""
    found: list[tuple[int, int, int]] = []
    for row in _rows(table):
        literal, new = row[4:] if len(row) == 6 else (row[2], row[3])
        found.append((literal, new, row[0]))
    return found


def _rows(table: bytes) -> list[list[int]]:
    try:
        magic, size = _SKIPPABLE.unpack_from(table)
        if magic != TABLE_MAGIC or size != len(table) - _SKIPPABLE.size:
            raise ValueError
        told = json.loads(table[_SKIPPABLE.size : -TABLE_TAIL])
        width = {1: 6, 2: 8}[told["v"]]
        rows = [[int(row[i]) for i in (0, 1, 2, 3, *range(6, width))] for row in told["blocks"]]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, struct.error) as bad:
        raise ProofError("A part is damaged", "its table of blocks cannot be read") from bad
    if any(min(row) < 0 for row in rows):
        raise ProofError("A part is damaged", "its table of blocks cannot be read")
    return rows


def merge_runs(runs: list[Run], more: tuple[Run, ...]) -> None:
    """Append runs, joining neighbours of one writer."""
    for writer, first, last, count in more:
        if runs and runs[-1][0] == writer and runs[-1][2] < first:
            runs[-1] = (writer, runs[-1][1], last, runs[-1][3] + count)
        else:
            runs.append((writer, first, last, count))
