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
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from hashlib import sha256

import zstandard
from crc32c import crc32c

from narrows.core.errors import ProofError
from narrows.record.log.leaf import canonical

OPEN_BLOCK = 1 << 20
"""A growing part's block is closed when it reaches this many raw bytes (or when the sealer's step ends)."""
FINAL_BLOCK = 4 << 20
"""Blocks of a final part: large enough that a history which an agent resends is found again by the compressor."""
MAX_RAW = 64 << 20
"""No block is longer than this raw: a reader refuses to decompress more."""
PART_RAW = 64 << 20
"""A part that has reached this many raw bytes gets no more frames."""

HEAD_MAGIC = 0x184D2A50
TABLE_MAGIC = 0x184D2A51
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

    @property
    def end(self) -> int:
        """File offset after this block."""
        return self.body + self.zstd

    def row(self) -> list[object]:
        """This block's row of the table."""
        runs = [list(run) for run in self.runs]
        return [self.offset, self.end - self.offset, self.at, self.raw, self.sha256.hex(), runs]


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
    body = zstd.compress(raw)
    crc = crc32c(body)
    content = _HEAD_TAG + canonical(
        {
            "at": at,
            "crc": crc,
            "raw": len(raw),
            "runs": runs,
            "sha256": digest.hex(),
            "v": 1,
            "zstd": len(body),
        }
    )
    head = _SKIPPABLE.pack(HEAD_MAGIC, len(content)) + content
    block = Block(offset, offset + len(head), at, len(raw), len(body), crc, digest, tuple(runs))
    return head + body, block


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
        fields = json.loads(content[4:])
        at, crc, raw, zstd, version = _integers(fields, "at", "crc", "raw", "zstd", "v")
        runs = tuple(_run(row) for row in fields["runs"])
        digest = bytes.fromhex(fields["sha256"])
        known = {"at": at, "crc": crc, "raw": raw, "runs": runs, "sha256": digest.hex(), "v": 1, "zstd": zstd}
        whole = content[:4] == _HEAD_TAG and canonical(known) == content[4:]
    except (ValueError, TypeError, KeyError, RecursionError) as bad:
        raise _damaged("a block's head cannot be read", offset) from bad
    if not whole or version != 1 or not 0 < raw <= MAX_RAW or len(digest) != 32:
        raise _damaged("a block's head is not in its canonical form", offset)
    return Block(offset, offset + len(head), at, raw, zstd, crc, digest, runs)


def decode_body(body: bytes, block: Block, zstd: zstandard.ZstdDecompressor) -> bytes:
    """The raw bytes of a block, checked against its head. Raises ProofError.

    Never makes more memory than the head says, whatever the zstd frame says of itself.
    """
    if len(body) != block.zstd or crc32c(body) != block.crc:
        raise _damaged("a block's compressed bytes were changed or cut", block.body)
    try:
        if zstandard.get_frame_parameters(body).content_size != block.raw:
            raise _damaged("a block's length is not the one that its head names", block.body)
        raw = zstd.decompress(body, max_output_size=block.raw, allow_extra_data=False)
    except zstandard.ZstdError as bad:
        raise _damaged("a block does not decompress", block.body) from bad
    if len(raw) != block.raw or sha256(raw).digest() != block.sha256:
        raise _damaged("a block's bytes are not the ones that its head names", block.body)
    return raw


def encode_table(blocks: list[Block]) -> bytes:
    """The table at the end of a final part."""
    content = canonical({"blocks": [block.row() for block in blocks], "v": 1})
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
    try:
        magic, size = _SKIPPABLE.unpack_from(table)
        if magic != TABLE_MAGIC or size != len(table) - _SKIPPABLE.size:
            raise ValueError
        rows = json.loads(table[_SKIPPABLE.size : -TABLE_TAIL])["blocks"]
        places = [(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, struct.error) as bad:
        raise ProofError("A part is damaged", "its table of blocks cannot be read") from bad
    if any(min(place) < 0 for place in places):
        raise ProofError("A part is damaged", "its table of blocks cannot be read")
    return places


def merge_runs(runs: list[Run], more: tuple[Run, ...]) -> None:
    """Append runs, joining neighbours of one writer."""
    for writer, first, last, count in more:
        if runs and runs[-1][0] == writer and runs[-1][2] < first:
            runs[-1] = (writer, runs[-1][1], last, runs[-1][3] + count)
        else:
            runs.append((writer, first, last, count))
