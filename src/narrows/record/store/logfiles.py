"""The log's files below DATA/log, in the C2SP tlog-tiles layout: how they are named and read.

checkpoint              the signed head
tile/<L>/<N>[.p/<W>]    hash tiles
tile/entries/<N>[.p/<W>]  entry bundles
places/<N>              for each leaf of bundle N one line: where its frames are (a help, never a proof)
sealer.json             what the sealer has committed (a help, never a proof)
"""

from __future__ import annotations

from narrows.core.errors import NotFound, ProofError
from narrows.record.log.merkle import HASH_SIZE
from narrows.record.log.tiles import WIDTH, entries_path, index_path, tile_path, unpack_entries
from narrows.record.store.files import FileStore

LOG = "log"
CHECKPOINT = "log/checkpoint"
STATE = "log/sealer.json"
LOCK = "log/lock"


def places_name(bundle: int) -> str:
    """The file that says where the frames of a bundle's leaves are."""
    return f"{LOG}/places/{index_path(bundle)}"


def find(store: FileStore, full: str, width: int) -> tuple[str, bytes]:
    """The file that holds at least `width` elements: the partial of that width, a wider one, or the full one.

    A partial may be gone once a wider one is there (C2SP tlog-tiles, "Partial Tiles"). Raises NotFound.
    """
    for _ in range(3):  # the sealer may replace one by another between listing and reading
        candidates = [full]
        if width != WIDTH:
            wider = sorted(int(name) for name in store.list(f"{full}.p") if name.isdigit() and int(name) >= width)
            candidates = [f"{full}.p/{w}" for w in wider] + [full]
        for name in candidates:
            try:
                return name, store.read(name)
            except NotFound:
                continue
    raise NotFound("A file of the log is missing", full if width == WIDTH else f"{full}.p/{width}")


def read_tile(store: FileStore, level: int, index: int, width: int) -> bytes:
    """The first `width` hashes of a tile. Raises NotFound, ProofError."""
    name, data = find(store, f"{LOG}/{tile_path(level, index)}", width)
    if len(data) % HASH_SIZE or len(data) < width * HASH_SIZE:
        raise ProofError("A tile has the wrong length", f"{name}: {len(data)} bytes")
    return data[: width * HASH_SIZE]


def read_entries(store: FileStore, index: int, width: int) -> list[bytes]:
    """The first `width` entries of a bundle. Raises NotFound, ProofError."""
    name, data = find(store, f"{LOG}/{entries_path(index)}", width)
    try:
        entries = unpack_entries(data)
    except ProofError as bad:
        raise ProofError(bad.what, f"{name}: {bad.why}") from bad
    if len(entries) < width:
        raise ProofError("An entry bundle is cut short", f"{name}: {len(entries)} of {width} entries")
    return entries[:width]


def read_places(store: FileStore, index: int, width: int) -> list[bytes]:
    """The first `width` lines of a bundle's places. Raises NotFound, ProofError."""
    name = places_name(index)
    lines = store.read(name).split(b"\n")
    if len(lines) <= width:  # each line ends in a newline
        raise ProofError("A list of places is cut short", f"{name}: {len(lines) - 1} of {width} lines")
    return lines[:width]
