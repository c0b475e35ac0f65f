"""Tampering, one way after another: `verify` must find each, and say where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sealed_world import KEY, ORIGIN, VKEY, World, codes, ident

from narrows.core.ids import text
from narrows.record.log.frame import Chain, decode
from narrows.record.log.note import Checkpoint, SigningKey
from narrows.record.log.part import Block, compressor, encode_block, encode_table
from narrows.record.log.tiles import unpack_entries
from narrows.record.partfile import PartFile
from narrows.record.verify import Report, verify_all, verify_session

ONE, TWO = ident(1), ident(2)
SESSIONS = "objects/sessions"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of three parts in all, more than a full bundle of leaves, nothing left in the segments."""
    world = World(tmp_path_factory.mktemp("pristine"))
    writers = [world.writer("w1"), world.writer("w2")]
    for session in (ONE, TWO):
        writers[0].open(session)
    for number in range(270):
        writers[number % 2].call((ONE, TWO)[number % 3 == 0], number)
    world.finalise()
    world.finalise()
    (world.data / "older").write_text(world.checkpoint())
    for number in range(300, 320):
        writers[0].call(ONE, number)
    for session in (ONE, TWO):
        writers[0].close_session(session)
    for writer in writers:
        writer.stop()
    world.finalise()
    world.finalise()
    assert world.verify().ok
    return world.data


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def verify(data: Path) -> Report:
    return verify_all(data, VKEY)


def part(data: Path, session: bytes = ONE, number: int = 0) -> Path:
    return data / SESSIONS / text(session) / f"{number:05d}.part"


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0x40
    path.write_bytes(raw)


def rebuild(path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Take a part apart into (writer, frame), change that, and write a part that is consistent in itself."""
    frames: list[tuple[str, bytes]] = []
    with PartFile.open(path) as file:
        for block in file.blocks():
            raw, at = file.read(block), 0
            for writer, _, _, count in block.runs:
                for _ in range(count):
                    frame = decode(raw, at)
                    frames.append((writer, frame.raw))
                    at += frame.size
    frames = change(frames)
    raw = b"".join(frame for _, frame in frames)
    seqs = [(writer, decode(frame).seq) for writer, frame in frames]
    from hashlib import sha256

    runs = [(writer, seq, seq, 1) for writer, seq in seqs]
    encoded, block = encode_block(0, 0, raw, sha256(raw).digest(), runs, compressor(final=True))
    blocks: list[Block] = [block]
    path.write_bytes(encoded + encode_table(blocks))


def at(frames: list[tuple[str, bytes]], marker: bytes) -> int:
    return next(i for i, (_, frame) in enumerate(frames) if marker in frame)


def test_untouched_it_proves(data: Path) -> None:
    report = verify_all(data, VKEY, since=(data / "older").read_text())
    assert report.ok, [str(f) for f in report.findings]
    assert (report.exchanges, report.sessions) == (290, 3)


def test_a_deleted_session_is_named(data: Path) -> None:
    shutil.rmtree(data / SESSIONS / text(TWO))
    report = verify(data)
    found = next(f for f in report.findings if f.code == "session_deleted")
    assert found.session == text(TWO)
    assert "missing_frames" in codes(report)


def test_a_removed_part_is_named(data: Path) -> None:
    part(data, ONE, 0).unlink()
    report = verify(data)
    assert any(f.code == "missing_part" and f.file.endswith("00000.part") for f in report.findings)
    assert {f.session for f in report.findings if f.code == "missing_record"} == {text(ONE)}


def test_swapped_parts_are_found(data: Path) -> None:
    first, other = part(data, ONE), part(data, TWO)
    kept = first.read_bytes()
    first.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    report = verify(data)
    assert {"foreign", "missing_record"} & codes(report)
    assert {f.session for f in report.findings if f.code == "foreign"} == {text(ONE), text(TWO)}


def test_a_changed_answer_is_named_even_when_everything_around_it_is_made_to_fit(data: Path) -> None:
    """The attacker recomputes digest, CRC, running hash, block and table; only the leaf cannot be made to fit."""
    told: dict[str, str] = {}

    def change(frames: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        index = at(frames, b"answer 7")
        writer, raw = frames[index]
        old = decode(raw)
        told["exchange"] = text(old.exchange)
        chain = Chain(old.seq, b"guess")
        new = chain.encode_whole(
            old.kind, old.flags, old.session, old.exchange, old.wall_ns, old.mono_ns, old.meta,
            old.data.replace(b"answer 7", b"answer 8"),
        )  # fmt: skip
        frames[index] = writer, new
        return frames

    rebuild(part(data, ONE), change)
    report = verify(data)
    assert {"record", "chain"} <= codes(report)
    found = next(f for f in report.findings if f.code == "record")
    assert (found.session, found.exchange) == (text(ONE), told["exchange"])
    assert found.leaf >= 0
    assert found.offset >= 0
    assert "record" in codes(verify_session(data, VKEY, ONE))


@pytest.mark.parametrize("how", ["removed", "swapped", "doubled", "moved"])
def test_frames_removed_swapped_doubled_or_moved_are_found(data: Path, how: str) -> None:
    def change(frames: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        index = at(frames, b"answer 7")
        if how == "removed":
            del frames[index]
        elif how == "swapped":
            frames[index - 1], frames[index] = frames[index], frames[index - 1]
        elif how == "doubled":
            frames.insert(index, frames[index])
        else:
            frames.append(frames.pop(index))
        return frames

    rebuild(part(data, ONE), change)
    report = verify(data)
    expected = {"removed": "missing_frames", "swapped": "order", "doubled": "order", "moved": "order"}[how]
    assert expected in codes(report)
    assert text(ONE) in {f.session for f in report.findings}


def test_a_whole_exchange_taken_out_is_named(data: Path) -> None:
    exchange = text(ident(1_000_000 + 7))

    def change(frames: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [(w, f) for w, f in frames if text(decode(f).exchange) != exchange]

    rebuild(part(data, ONE), change)
    report = verify(data)
    assert {"missing_record", "missing_frames"} <= codes(report)
    leaf = next(f.leaf for f in report.findings if f.code == "missing_record")
    bundle = unpack_entries((data / f"log/tile/entries/{leaf // 256:03d}").read_bytes())
    assert exchange.encode() in bundle[leaf % 256]


def test_an_invented_exchange_is_found(data: Path) -> None:
    def change(frames: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        old = decode(frames[at(frames, b"answer 7")][1])
        raw = Chain(old.seq, old.running).encode_whole(7, 7, old.session, ident(99), 1, 1, b"{}", b"it was you")
        return [*frames, ("w1", raw)]

    rebuild(part(data, ONE), change)
    assert "order" in codes(verify(data))


def test_a_forged_sequence_number_neither_passes_nor_takes_forever(data: Path) -> None:
    def change(frames: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        old = decode(frames[-1][1])
        forged = [
            Chain(seq, bytes(32)).encode_whole(7, 7, old.session, ident(99), 1, 1, b"", b"x") for seq in (2**32, 2**61)
        ]
        return [*frames, *(("w1", raw) for raw in forged)]

    rebuild(part(data, ONE), change)
    report = verify(data)
    assert {"missing_frames", "order"} <= codes(report)
    assert report.unsealed_frames == 1


def test_a_block_cut_out_of_a_part_is_found(data: Path) -> None:
    path = part(data, ONE)
    with PartFile.open(path) as file:
        block = next(file.blocks())
    path.write_bytes(path.read_bytes()[block.end :])
    report = verify(data)
    assert {"table", "missing_record"} <= codes(report)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -9])
def test_a_part_cut_short_is_found(data: Path, keep: int) -> None:
    path = part(data, TWO)
    path.write_bytes(path.read_bytes()[:keep])
    report = verify(data)
    assert text(TWO) in {f.session for f in report.findings}


def test_a_final_part_passed_off_as_a_growing_one_is_found(data: Path) -> None:
    path = part(data, TWO)
    path.rename(path.with_suffix(".open")).write_bytes(path.with_suffix(".open").read_bytes()[:100])
    assert "missing_record" in codes(verify(data))


def test_strange_files_are_named(data: Path) -> None:
    (data / SESSIONS / text(ONE) / "notes.txt").write_text("x")
    (data / SESSIONS / "else").mkdir()
    assert [f.code for f in verify(data).findings].count("stray") == 2


# The log ---------------------------------------------------------------------------------------------------------


def test_a_changed_leaf_is_named(data: Path) -> None:
    bundle = data / "log/tile/entries/000"
    raw = bundle.read_bytes()
    bundle.write_bytes(raw.replace(b'"decision":"allow"', b'"decision":"alloW"', 1))
    report = verify(data)
    assert {"tile", "root", "record"} <= codes(report)
    leaf = next(f.leaf for f in report.findings if f.code == "tile" and f.leaf >= 0)
    assert b"alloW" in unpack_entries(bundle.read_bytes())[leaf]


@pytest.mark.parametrize("name", ["log/tile/0/000", "log/tile/entries/000", "log/checkpoint", "log/places/000"])
def test_a_removed_file_of_the_log_is_named(data: Path, name: str) -> None:
    (data / name).unlink()
    report = verify(data)
    assert not report.ok
    assert any(name in f.file or name in f.what for f in report.findings)


def test_swapped_tiles_and_bundles_are_found(data: Path) -> None:
    last = next((data / "log/tile/0/001.p").iterdir())
    raw = (data / "log/tile/0/000").read_bytes()
    (data / "log/tile/0/000").write_bytes(raw[32:64] + raw[:32] + raw[64:])
    assert any(f.code == "tile" and f.offset == 0 for f in verify(data).findings)
    last.write_bytes(raw[: last.stat().st_size])
    assert any(f.code == "tile" and last.name in f.file for f in verify(data).findings)


def test_a_rolled_back_log_is_found_with_an_older_checkpoint_held_elsewhere(pristine: Path, tmp_path: Path) -> None:
    held = (pristine / "log/checkpoint").read_text()
    world = World(tmp_path / "past")
    world.writer("w1").call(ONE, 1)
    world.seal()
    report = verify_all(world.data, VKEY, since=held)
    assert "rollback" in codes(report)


def test_history_rewritten_by_the_signer_is_found_only_with_an_older_checkpoint(tmp_path: Path) -> None:
    worlds = []
    for name, answer in (("true", 1), ("false", 2)):
        world = World(tmp_path / name)
        writer = world.writer("w1")
        writer.call(ONE, answer)
        world.seal()
        writer.call(ONE, 3)
        world.seal()
        worlds.append(world)
    held = worlds[0].checkpoint()
    assert worlds[1].verify().ok
    assert codes(worlds[1].verify(since=held)) == {"rewritten"}


def test_another_key_and_another_root_are_found(data: Path) -> None:
    stranger = SigningKey(ORIGIN, b"s" * 32)
    size = int((data / "log/checkpoint").read_text().split("\n")[1])
    (data / "log/checkpoint").write_text(stranger.sign(Checkpoint(ORIGIN, size, bytes(32)).body))
    assert {"checkpoint", "root"} <= codes(verify(data))
    (data / "log/checkpoint").write_text(KEY.sign(Checkpoint(ORIGIN, size, bytes(32)).body))
    assert "root" in codes(verify(data))


def test_a_missing_witness_is_found(data: Path) -> None:
    witness = SigningKey("witness.example/w", b"w" * 32).verifier.vkey
    assert "checkpoint" in codes(verify_all(data, VKEY, witnesses=[witness]))


# Segments --------------------------------------------------------------------------------------------------------


def test_a_frame_taken_out_of_an_unsealed_segment_is_found(tmp_path: Path) -> None:
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.call(ONE, 1)
    world.seal()
    for number in range(2, 5):
        writer.call(ONE, number)
    report = world.verify()
    assert report.ok
    assert report.unsealed_frames == 9
    path = writer.directory / "00000000.seg"
    raw = path.read_bytes()
    place = raw.index(b"answer 3") - 140 - 35
    start = raw.rindex(b"NRF1", 0, place + 60)
    frame = decode(raw, start)
    path.write_bytes(raw[:start] + raw[start + frame.size :])
    report = world.verify()
    assert any(f.code == "segment" and "w1" in f.file for f in report.findings)


def test_a_segment_removed_between_the_sealed_and_the_unsealed_is_found(tmp_path: Path) -> None:
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.call(ONE, 1)
    world.seal()
    writer.call(ONE, 2)
    writer.roll()
    writer.call(ONE, 3)
    (writer.directory / "00000000.seg").unlink()
    assert "missing_frames" in codes(world.verify())


# Every byte ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """On a small log: every byte of small files, a sample of about 100 of each longer one."""
    world = World(tmp_path)
    writer = world.writer("w1")
    writer.open(ONE)
    writer.call(ONE, 1)
    writer.close_session(ONE)
    writer.stop()
    world.finalise()
    world.finalise()
    assert world.verify().ok
    tried = 0
    for name, raw in world.files().items():
        step = 1 if len(raw) < 250 else max(1, len(raw) // 100)
        for offset in range(tried % step, len(raw), step):
            path = tmp_path / name
            changed = bytearray(raw)
            changed[offset] ^= 1 << (offset % 8)
            path.write_bytes(changed)
            report = world.verify()
            assert not report.ok, (name, offset)
            path.write_bytes(raw)
            tried += 1
    assert world.verify().ok
    assert tried > 700
