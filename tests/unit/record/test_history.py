"""Histories that agents resend: stored once, read back byte for byte, and damage in what names them is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from bench import history
from bench.history import Recording, write_session

from narrows.core.errors import ProofError
from narrows.core.ids import text
from narrows.record import partfile, sealing_blocks
from narrows.record.bulk import BulkReader
from narrows.record.log.leaf import Sealed
from narrows.record.log.note import SigningKey
from narrows.record.log.part import Block, compressor, encode_deduped, encode_table
from narrows.record.log.tokens import Sequence, Shape, encode
from narrows.record.partfile import PartFile
from narrows.record.reader import iter_raw
from narrows.record.verify import Report, verify_all

TURNS = 40
DEEP = bool(os.environ.get("NARROWS_TEST_DEEP"))
VKEY = SigningKey(history.ORIGIN, bytes(range(32))).verifier.vkey


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    partfile.forget()
    yield
    partfile.forget()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, list[bytes], Path]:
    """A session's recording, the digests of its requests, and its data while the part still grew."""
    recording = Recording(tmp_path_factory.mktemp("session") / "data")
    with recording.sealer() as sealer:
        written = write_session(recording, sealer, TURNS)
        sealer.drain()
    growing = Path(shutil.copytree(recording.data, recording.data.with_name("growing")))
    with pytest.MonkeyPatch.context() as several_blocks:
        several_blocks.setattr(sealing_blocks, "DEDUPED_BLOCK", 1 << 20)
        several_blocks.setattr(sealing_blocks, "STEP_RAW", 3 << 20)
        history.finish(recording)
    return recording, written.requests, growing


@pytest.fixture
def data(session: tuple[Recording, list[bytes], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(session[0].data, tmp_path / "data"))


def exchanges(recording: Recording) -> list[Sealed]:
    return [record for record in recording.sealed if record.type == "exchange"]


def part(data: Path) -> Path:
    return max(data.glob("objects/sessions/*/00000.*"), key=lambda path: path.stat().st_size)


def blocks(path: Path) -> list[Block]:
    with PartFile.open(path) as file:
        return list(file.blocks())


def check(data: Path, recording: Recording, requests: list[bytes]) -> None:
    for record, expected in zip(exchanges(recording), requests, strict=True):
        got = b"".join(iter_raw(data, record.place, "request"))
        assert sha256(got).digest() == expected
        assert sha256(got).hexdigest() == record.request_sha256


@pytest.mark.parametrize("turns", [100, *(pytest.param(300, marks=pytest.mark.deep) for _ in range(DEEP))])
def test_a_session_is_stored_in_three_times_its_new_text(tmp_path: Path, turns: int) -> None:
    """Both compressed: the text alone as one zstd file, the parts with every frame, answer and proof in them."""
    figures = history.measure(tmp_path, turns)
    assert figures["stored_to_new_text_zstd"] <= 3, figures
    assert figures["last_request_read_bytes"] < 0.8 * figures["stored_bytes"], figures


def test_every_request_comes_back_growing_and_final(session: tuple[Recording, list[bytes], Path]) -> None:
    recording, requests, growing = session
    for data in (growing, recording.data):
        check(data, recording, requests)
        partfile.forget()
        with BulkReader(data) as bulk:
            for record, expected in reversed(list(zip(exchanges(recording), requests, strict=True))):
                assert sha256(bulk.read(record.place).stored().request).digest() == expected
        assert verify_all(data, VKEY).ok
    assert part(growing).name == "00000.open"
    assert part(recording.data).name == "00000.part"
    for data in (growing, recording.data):
        assert sum(block.shape is not None for block in blocks(part(data))) > 5


def test_an_early_request_is_read_without_what_came_later(session: tuple[Recording, list[bytes], Path]) -> None:
    recording, requests, growing = session
    before = history.bytes_read()
    got = b"".join(iter_raw(growing, exchanges(recording)[5].place, "request"))
    read = history.bytes_read() - before
    assert sha256(got).digest() == requests[5]
    assert read < part(growing).stat().st_size / 2


def test_a_sealer_that_was_started_again_stores_the_history_once_more_and_the_final_part_does_not(
    tmp_path: Path,
) -> None:
    recording = Recording(tmp_path / "data")
    talk = history.Conversation()
    requests = []
    for turn in range(12):
        body = talk.request(turn)
        sent = recording.call(history.FACTS, b"POST / HTTP/1.1\r\n\r\n", body, [b"HTTP/1.1 200 OK\r\n\r\n"])
        talk.answer(turn)
        requests.append(sha256(sent).digest())
        with recording.sealer() as sealer:
            sealer.drain()
    growing = recording.stored()
    check(recording.data, recording, requests)
    history.finish(recording)
    check(recording.data, recording, requests)
    assert recording.stored() < growing / 5
    assert verify_all(recording.data, VKEY).ok


def test_bodies_in_pieces_of_any_size_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for name, piece in (("whole", 1 << 20), ("pieces", 1)):
        monkeypatch.setattr(history, "PIECE", piece)
        recording = Recording(tmp_path / name)
        with recording.sealer() as sealer:
            requests = write_session(recording, sealer, 25).requests
            sealer.drain()
        history.finish(recording)
        check(recording.data, recording, requests)
        sizes.append(recording.stored())
    assert sizes[1] < sizes[0] * 1.15


def test_what_does_not_repeat_is_stored_as_before(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "data")
    with recording.sealer() as sealer:
        for _ in range(6):
            body = recording.chance.randbytes(700_000)
            recording.call(history.FACTS, b"PUT / HTTP/1.1\r\n\r\n", body, [b"HTTP/1.1 200 OK\r\n\r\n"])
            sealer.step()
        sealer.drain()
    assert all(block.shape is None for block in blocks(part(recording.data)))
    history.finish(recording)
    assert all(block.shape is None for block in blocks(part(recording.data)))
    assert part(recording.data).read_bytes()[:-8].endswith(b'"v":1}')
    assert recording.stored() < 6 * 700_000 * 1.01


# Damage -----------------------------------------------------------------------------------------------------------


def found(report: Report, what: str) -> bool:
    return any(f.code == "block" and what in f.what and f.file.endswith("00000.part") for f in report.findings)


def rewrite(path: Path, change: Callable[[Block, bytes, bytes], tuple[Shape, bytes, bytes]]) -> None:
    """Replace the last block of version 2 by one with another body, in a part that is consistent in itself."""
    raw = path.read_bytes()
    all_blocks = blocks(path)
    number = max(n for n, block in enumerate(all_blocks) if block.shape is not None)
    with PartFile.open(path) as file:
        frames, words = file.read(all_blocks[number]), file.literals(all_blocks[number])
    encoded = raw[: all_blocks[number].offset]
    made = all_blocks[:number]
    old = all_blocks[number]
    piece, block = encode_deduped(
        len(encoded), old.at, frames, old.sha256, list(old.runs), change(old, words, frames), compressor()
    )
    assert number == len(all_blocks) - 1
    path.write_bytes(encoded + piece + encode_table([*made, block]))


HOSTILE: dict[str, tuple[Callable[[int], Sequence], str]] = {
    "out of range": (lambda literal: Sequence(0, 0, 100, literal + 10_000_000), "not before it"),
    "forward": (lambda literal: Sequence(0, 0, 100, literal), "not before it"),
    "into the block": (lambda literal: Sequence(0, 0, 100, literal - 50), "not before it"),
    "too short": (lambda literal: Sequence(0, 0, 5, 0), "cannot be"),
    "a length bomb": (lambda literal: Sequence(0, 0, 1 << 39, 0), "not before it"),
    "a longer number": (lambda literal: Sequence(0, 0, 1 << 60, 0), "length that cannot be"),
    "of two blocks": (lambda literal: Sequence(0, 0, literal, 0), "not there"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_copy_is_damage_of_its_block(data: Path, how: str) -> None:
    hostile, what = HOSTILE[how]

    def change(block: Block, words: bytes, frames: bytes) -> tuple[Shape, bytes, bytes]:
        assert block.shape is not None
        copy = hostile(block.shape.literal)
        shape = replace(block.shape, new=0, other=0, packed=min(copy.copy, block.raw))
        return shape, b"", encode([copy], shape.literal)

    rewrite(part(data), change)
    report = verify_all(data, VKEY)
    assert found(report, what), [str(finding) for finding in report.findings]


def test_text_that_is_said_to_lie_elsewhere_is_damage(data: Path) -> None:
    def change(block: Block, words: bytes, frames: bytes) -> tuple[Shape, bytes, bytes]:
        assert block.shape is not None
        shape = replace(block.shape, literal=block.shape.literal + 1, other=len(frames), packed=len(frames), new=0)
        return shape, b"", frames + encode([Sequence(len(frames), 0, 0, 0)], shape.literal)

    rewrite(part(data), change)
    assert found(verify_all(data, VKEY), "said to begin")


def test_a_block_whose_words_were_changed_damages_each_that_names_them(
    data: Path, session: tuple[Recording, list[bytes], Path]
) -> None:
    path = part(data)
    first = next(block for block in blocks(path) if block.shape is not None and block.new)
    raw = bytearray(path.read_bytes())
    raw[first.body + 20] ^= 1
    path.write_bytes(raw)
    report = verify_all(data, VKEY)
    offsets = {finding.offset for finding in report.findings if finding.code == "block"}
    assert first.offset in offsets
    assert len(offsets) == len([block for block in blocks(path) if block.offset >= first.offset])
    with pytest.raises(ProofError, match=r"00000\.part"):
        list(iter_raw(data, exchanges(session[0])[-1].place, "request"))


def test_a_table_that_lies_about_the_words_does_not_mislead_verification(data: Path) -> None:
    path = part(data)
    all_blocks = blocks(path)
    lie = [replace(block, shape=block.shape and replace(block.shape, new=block.shape.new + 1)) for block in all_blocks]
    path.write_bytes(path.read_bytes()[: all_blocks[-1].end] + encode_table(lie))
    report = verify_all(data, VKEY)
    assert {finding.code for finding in report.findings} == {"table"}


def test_the_session_lies_in_one_part(session: tuple[Recording, list[bytes], Path]) -> None:
    recording, _, _ = session
    names = [path.name for path in (recording.data / partfile.SESSIONS / text(recording.session)).iterdir()]
    assert names == ["00000.part"]
