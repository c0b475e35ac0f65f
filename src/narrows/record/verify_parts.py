"""Verifying a session's parts: structure, digests, and that each record is the one that its leaf commits to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from narrows.core.errors import NotFound, ProofError
from narrows.core.ids import parse, text
from narrows.record.log.frame import Frame, check_payload
from narrows.record.log.gather import Gatherer, Record
from narrows.record.log.leaf import spans_text
from narrows.record.log.merkle import leaf_hash
from narrows.record.log.part import Block, encode_table
from narrows.record.partfile import SESSIONS, PartFile
from narrows.record.reader import frames_of
from narrows.record.store.files import FileStore
from narrows.record.verify_chains import Chains
from narrows.record.verify_ends import MAX_SEQ
from narrows.record.verify_log import LeafRow, Leaves, PlacesCheck
from narrows.record.verify_report import Report


class SessionCheck:
    """Checks one session's parts after another against the leaves; takes each leaf out that its frames prove."""

    def __init__(
        self, store: FileStore, leaves: Leaves, places: PlacesCheck, chains: Chains | None, report: Report
    ) -> None:
        self._store = store
        self._leaves = leaves
        self._places = places
        self._chains = chains
        self._report = report
        self._number = 0
        self._session = ""
        self._seen: dict[str, int] = {}

    def sessions(self) -> list[str]:
        """Directories of sessions; anything else there is a finding."""
        names = []
        for name in self._store.list(SESSIONS):
            try:
                if text(parse(name)) != name:
                    raise ValueError
            except ValueError:
                self._report.found("stray", "Not a session's directory", file=f"{SESSIONS}/{name}")
                continue
            names.append(name)
        return names

    def check(self, session: str) -> None:
        """Check all parts of a session."""
        self._session = session
        self._seen = {}
        self._report.sessions += 1
        if self._chains is not None:
            self._number = self._chains.session(session)
        gatherer = Gatherer()
        for part, name in self._parts(session):
            for writer, frame, offset in self._frames(part, name):
                record = gatherer.feed(writer, frame, part, offset)
                if record is not None:
                    self._check_record(record)
        for record in gatherer.open.values():
            self._check_open(record)

    def _parts(self, session: str) -> Iterator[tuple[int, str]]:
        """(number, file) of the session's parts in order; numbers that are missing are findings."""
        files: dict[int, str] = {}
        directory = f"{SESSIONS}/{session}"
        for name in self._store.list(directory):
            stem, _, ending = name.partition(".")
            if ending not in ("part", "open") or not stem.isdigit() or len(stem) < 5:
                self._report.found("stray", "Not a part", session=session, file=f"{directory}/{name}")
            elif ending == "part" or int(stem) not in files:
                files[int(stem)] = f"{directory}/{name}"
        expected = 0
        for number in sorted(files):
            if number != expected and session not in self._leaves.erased:
                name = f"{directory}/{expected:05d}.part"
                self._report.found("missing_part", "A part is missing", session=session, file=name)
            expected = number + 1
            yield number, files[number]

    def _frames(self, part: int, name: str) -> Iterator[tuple[str, Frame, int]]:
        path = self._store.path(name)
        if not path.exists() and name.endswith(".open"):  # it has become final since the directory was read
            name = name.removesuffix("open") + "part"
            path = self._store.path(name)
        try:
            with PartFile.open(path, by_heads=True) as file:
                blocks: list[Block] = []
                for block, raw in self._blocks(file, name):
                    blocks.append(block)
                    if raw is not None:
                        yield from self._block_frames(block, raw, path, part, name)
                if name.endswith(".part"):
                    self._check_table(file, blocks, name)
        except NotFound as gone:
            self._report.found("missing_part", str(gone), session=self._session, file=name)

    def _blocks(self, file: PartFile, name: str) -> Iterator[tuple[Block, bytes | None]]:
        """Blocks with their raw bytes; None for those that are damaged (which is a finding)."""
        offset = at = literal = 0
        while True:
            try:
                block = file.block_at(offset)
            except ProofError as bad:
                self._bad_head(file, name, offset, str(bad))
                return
            if block is None:
                return
            if name.endswith(".open") and block.end > file.length:
                self._torn(name)
                return
            if block.at != at:
                what = f"A block is of raw offset {block.at}, where {at} should be"
                self._report.found("block", what, session=self._session, file=name, offset=offset)
            if block.shape is not None and block.shape.literal != literal:
                what = f"A block's text is said to begin at literal {block.shape.literal}, where {literal} should be"
                self._report.found("block", what, session=self._session, file=name, offset=offset)
            raw: bytes | None = None
            try:
                raw = file.read(block)
            except ProofError as bad:
                self._report.found("block", str(bad), session=self._session, file=name, offset=offset)
            yield block, raw
            offset, at, literal = block.end, block.at + block.raw, literal + block.new

    def _bad_head(self, file: PartFile, name: str, offset: int, why: str) -> None:
        if name.endswith(".open") and file.cut_in_head(offset):
            self._torn(name)
        else:
            self._report.found("block", why, session=self._session, file=name, offset=offset)

    def _torn(self, name: str) -> None:
        """A growing part may end in a block that is just being written; what a leaf needs of it is missed anyway."""
        self._report.note("torn", "A growing part ends in a torn block", session=self._session, file=name)

    def _check_table(self, file: PartFile, blocks: list[Block], name: str) -> None:
        end = blocks[-1].end if blocks else 0
        try:
            found = file.table()
        except ProofError:
            found = None
        expected = encode_table(blocks)
        if found != (end, expected) or end + len(expected) != file.length:
            what = "The table of blocks is not that of the blocks"
            self._report.found("table", what, session=self._session, file=name, offset=end)

    def _block_frames(
        self, block: Block, raw: bytes, path: Path, part: int, name: str
    ) -> Iterator[tuple[str, Frame, int]]:
        runs = iter(block.runs)
        writer, first, last, left = "", 0, 0, 0
        try:
            for frame in frames_of(raw, 0, len(raw), path, block.at):
                if not left:
                    writer, first, last, left = next(runs, ("", -1, -1, -1))
                    if frame.seq != first:
                        raise ProofError("A block's frames are not the ones that its head names")
                left -= 1
                if not left and frame.seq != last:
                    raise ProofError("A block's frames are not the ones that its head names")
                offset = block.at + frame.offset
                if self._check_frame(writer, frame, part, offset, name):
                    yield writer, frame, offset
            if left or next(runs, None) is not None:
                raise ProofError("A block's frames are not the ones that its head names")
        except ProofError as bad:
            self._report.found("block", str(bad), session=self._session, file=name, offset=block.offset)

    def _check_frame(self, writer: str, frame: Frame, part: int, offset: int, name: str) -> bool:
        report, exchange = self._report, text(frame.exchange)

        def found(code: str, what: str) -> None:
            report.found(code, what, session=self._session, exchange=exchange, file=name, offset=offset)

        report.frames += 1
        report.bytes += frame.size
        if text(frame.session) != self._session:
            found("foreign", "A frame of another session")
        if frame.seq <= self._seen.get(writer, -1):
            found("order", f"Frame {frame.seq} of writer {writer} is out of order or there twice")
            return False
        self._seen[writer] = frame.seq
        if frame.seq >= MAX_SEQ:
            found("order", f"Frame number {frame.seq} cannot be")
            return False
        try:
            check_payload(frame)
        except ProofError as bad:
            found("payload", str(bad))
        if self._chains is None:
            return True
        if self._chains.newer(writer, frame.seq, self._leaves.head(writer)):
            report.unsealed_frames += 1
        else:
            self._chains.add(writer, frame, self._number, part, offset)
        return True

    # Records against leaves ------------------------------------------------------------------------------------

    def _check_record(self, record: Record) -> None:
        row = self._leaves.rows.pop(record.key, None)
        if row is not None:
            self._compare(record, row, unfinished=False)
        elif self._chains is not None and record.last_seq <= self._leaves.head(record.writer):
            self._no_leaf(record)

    def _check_open(self, record: Record) -> None:
        row = self._leaves.rows.pop(record.key, None)
        if row is not None:
            self._compare(record, row, unfinished=True)
        elif self._chains is not None and record.writer in self._leaves.ended_writers:
            self._no_leaf(record)
        else:
            self._report.open_exchanges += 1

    def _no_leaf(self, record: Record) -> None:
        part, offset, _ = record.spans[0]
        self._report.found(
            "no_leaf",
            "No leaf accounts for a record",
            session=self._session,
            exchange=text(record.exchange),
            file=f"{SESSIONS}/{self._session}/{part:05d}",
            offset=offset,
        )

    def _compare(self, record: Record, row: LeafRow, *, unfinished: bool) -> None:
        leaf, sealed = record.finish(unfinished=unfinished)
        if leaf_hash(leaf) == row.hash:
            self._places.check(row.index, spans_text(sealed.place.spans))
            return
        part, offset, _ = record.spans[0]
        self._report.found(
            "record",
            "A record is not the one that its leaf commits to",
            session=self._session,
            exchange=text(record.exchange),
            file=f"{SESSIONS}/{self._session}/{part:05d}",
            offset=offset,
            leaf=row.index,
        )
