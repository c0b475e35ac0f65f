"""What the sealer promises: everything once, in order, provable, and readable again."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from tests.sealed_world import KEY, NIL, ORIGIN, VKEY, World, ident

from narrows.core.errors import ConfigError, NotFound, ProofError
from narrows.core.ids import text
from narrows.record.log.leaf import Place, canonical
from narrows.record.log.note import SigningKey, open_checkpoint
from narrows.record.log.part import PART_RAW
from narrows.record.reader import iter_raw, read_exchange
from narrows.record.sealed import iter_sealed, sealed_size
from narrows.record.sealer import Sealer
from narrows.record.verify import prove_leaf, verify_session


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_exchange_is_sealed_read_back_and_proved(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.open(session)
    exchange = writer.call(session, 5)
    world.seal()
    sealed = next(s for s in world.sealed if s.exchange == exchange)
    assert (sealed.type, sealed.kind, sealed.outcome) == ("exchange", "aws.call", "complete")
    assert sealed.request_facts["decision"] == "allow"
    assert sealed.response_facts["status"] == 200
    stored = read_exchange(world.data, sealed.place)
    assert stored.request.startswith(b"POST /5 HTTP/1.1")
    assert stored.response == b"HTTP/1.1 200 OK\r\n\r\nanswer 5"
    assert stored.sent.startswith(b"GET / HTTP/1.1\r\nsigned")
    assert b"".join(iter_raw(world.data, sealed.place, "response")) == stored.response
    assert sealed.response_sha256 == sha256(stored.response).hexdigest()
    cut = read_exchange(world.data, Place.parse(str(sealed.place)), 4)
    assert (cut.request, cut.request_truncated, cut.request_length) == (b"POST", True, len(stored.request))
    leaf, proof = prove_leaf(world.data, sealed.leaf_index)
    proof.verify(leaf, [KEY.verifier])
    assert json.loads(leaf)["response"]["sha256"] == sealed.response_sha256
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]
    assert (report.exchanges, report.unsealed_frames) == (1, 0)


def test_a_leaf_is_what_the_format_says(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.open(session)
    exchange = ident(9)
    writer.begin(session, exchange, b"abc", policy_version="ü" * 65, decision="süß")
    writer.finish(session, exchange, b"defg")
    world.seal()
    index = next(s.leaf_index for s in world.sealed if s.exchange == exchange)
    leaf = json.loads(prove_leaf(world.data, index)[0])
    assert canonical(leaf) == json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
    assert canonical(leaf).isascii()
    assert leaf["request"] == {"length": 3, "sha256": sha256(b"abc").hexdigest()}
    assert leaf["decision"] == "süß"
    assert leaf["policy_version"] == "sha256:" + sha256(("ü" * 65).encode()).hexdigest()
    assert (leaf["first_seq"], leaf["last_seq"], leaf["frames"], leaf["writer"]) == (2, 4, 3, "w1")


def test_checkpoints_come_at_most_every_second_and_commit_to_every_chain(world: World) -> None:
    writer, session = world.writer(), ident(1)
    with world.sealer() as sealer:
        writer.call(session, 1)
        assert sealer.step().checkpoint_size == 3
        writer.call(session, 2)
        progress = sealer.step()
        assert (progress.size, progress.checkpoint_size) == (4, 3)
        world.clock.pass_(1)
        progress = sealer.step()
        assert (progress.size, progress.checkpoint_size) == (5, 5)
        assert sealer.step().size == 5
    heads = json.loads(prove_leaf(world.data, 4)[0])
    assert heads == {
        "type": "heads", "v": 1, "writers": {"w1": [writer.chain.seq - 1, writer.chain.running.hex()]}
    }  # fmt: skip
    assert open_checkpoint(world.checkpoint(), [KEY.verifier]).size == 5


def test_segments_go_when_every_frame_is_sealed_and_only_then(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.call(session, 1)
    writer.roll()
    writer.call(session, 2)
    world.seal()
    assert [p.name for p in sorted(writer.directory.iterdir())] == ["00000001.seg"]
    writer.stop()
    world.seal()
    assert list(writer.directory.iterdir()) == []
    assert world.verify().ok
    assert [s.type for s in world.sealed if s.type.startswith("writer")] == ["writer_open", "writer_close"]


def test_parts_become_final_when_the_session_closes_and_the_zstd_tool_reads_them(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.open(session)
    calls = [writer.call(session, i) for i in range(40)]
    world.seal()
    directory = world.data / "objects/sessions" / text(session)
    assert [p.suffix for p in directory.iterdir()] == [".open"]
    writer.close_session(session)
    world.seal()
    (part,) = directory.iterdir()
    assert part.name == "00000.part"
    raw = subprocess.run(["zstd", "-dc", part], capture_output=True, check=True).stdout
    assert raw.count(b"NRF1") >= 3 * len(calls) + 2
    assert world.verify().ok
    for sealed in world.sealed:
        if sealed.type == "exchange":
            assert read_exchange(world.data, sealed.place).response.startswith(b"HTTP/1.1 200 OK")


def test_frames_after_a_close_go_to_the_next_part(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.open(session)
    late = ident(77)
    writer.begin(session, late)
    writer.close_session(session)
    world.seal()
    writer.finish(session, late)
    world.seal()
    writer.call(session, 1)
    world.seal()
    names = sorted(p.name for p in (world.data / "objects/sessions").glob("*-7*/*"))
    assert names == ["00000.part", "00001.open"]
    assert world.verify().ok


def test_an_exchange_open_across_steps_restarts_and_parts_is_whole(world: World) -> None:
    writer, session, exchange = world.writer(), ident(1), ident(2)
    writer.begin(session, exchange)
    pieces = [bytes([i]) * 1000 for i in range(6)]
    for number, piece in enumerate(pieces):
        writer.more(session, exchange, piece)
        writer.call(session, number)
        world.seal()
        world.clock.pass_(1200)  # idle: the part becomes final while the exchange is open
        world.seal()
    writer.finish(session, exchange, b"end")
    world.seal()
    sealed = next(s for s in world.sealed if s.exchange == exchange)
    assert len({span.part for span in sealed.place.spans}) == 7
    stored = read_exchange(world.data, sealed.place)
    assert stored.response == b"".join(pieces) + b"end"
    assert sealed.response_sha256 == sha256(stored.response).hexdigest()
    assert world.verify().ok


def test_a_body_longer_than_a_part_spans_parts(world: World) -> None:
    writer, session, exchange = world.writer(), ident(1), ident(2)
    writer.begin(session, exchange)
    piece = bytes(1 << 20)
    count = PART_RAW // len(piece) + 3
    for _ in range(count):
        writer.more(session, exchange, piece)
    writer.finish(session, exchange, b"")
    world.seal()
    sealed = next(s for s in world.sealed if s.exchange == exchange)
    assert {span.part for span in sealed.place.spans} == {0, 1}
    assert sealed.response_length == count << 20
    assert sum(map(len, iter_raw(world.data, sealed.place, "response"))) == count << 20
    cut = read_exchange(world.data, sealed.place, 10)
    assert (cut.response, cut.response_length) == (bytes(10), count << 20)
    assert world.verify().ok


def test_what_a_dead_writer_left_open_is_sealed_as_unfinished(world: World) -> None:
    dead, session, exchange = world.writer("w1"), ident(1), ident(2)
    dead.begin(session, exchange)
    world.seal()
    assert not [s for s in world.sealed if s.exchange == exchange]
    live = world.writer("w2")
    live.frame(8, 0, NIL, NIL, b'{"writer":"w1","why":"unfinished","after_seq":1}')
    world.seal()
    sealed = next(s for s in world.sealed if s.exchange == exchange)
    assert sealed.outcome == "unfinished"
    report = world.verify()
    assert report.ok
    assert [note.code for note in report.notes] == ["gap", "no_open"]


def test_a_writer_that_only_says_recovered_leaves_nothing_open(world: World) -> None:
    dead, session, exchange = world.writer("w1"), ident(1), ident(2)
    dead.begin(session, exchange)
    dead.roll()
    (dead.directory / "recovered.json").write_text("{}")
    world.seal()
    assert [s.outcome for s in world.sealed if s.exchange == exchange] == ["unfinished"]
    assert [p.name for p in dead.directory.iterdir()] == ["recovered.json"]
    assert world.verify().ok


def test_a_writer_that_stops_ends_what_it_left_open(world: World) -> None:
    writer, session, exchange = world.writer(), ident(1), ident(2)
    writer.begin(session, exchange)
    writer.stop()
    world.seal()
    assert [s.outcome for s in world.sealed if s.exchange == exchange] == ["unfinished"]
    assert world.verify().ok


def test_a_broken_chain_is_sealed_as_a_gap_and_does_not_stop_the_others(world: World) -> None:
    bad, good, session = world.writer("bad"), world.writer("good"), ident(1)
    bad.begin(session, ident(2))
    bad.call(session, 1)
    path = bad.directory / "00000000.seg"
    raw = bytearray(path.read_bytes())
    raw[-600] ^= 1
    path.write_bytes(raw)
    for number in range(3):
        good.call(session, 10 + number)
    with world.sealer() as sealer:
        progress = sealer.drain()
    assert progress.problems
    assert [s.type for s in world.sealed].count("gap") == 1
    assert [s.outcome for s in world.sealed if s.type == "exchange"].count("complete") == 3
    assert path.exists()
    report = world.verify()
    assert {"broken_chain", "segment"} <= {f.code for f in report.findings}


def test_segments_that_vanish_before_they_were_sealed_are_a_gap(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.call(session, 1)
    world.seal()
    for path in writer.directory.iterdir():
        path.unlink()
    world.seal()
    gap = next(s for s in world.sealed if s.type == "gap")
    assert "removed" in str(gap.request_facts["why"])
    assert list(iter_sealed(world.data))[-1] == gap


def test_the_index_can_be_rebuilt_from_disk_alone(world: World) -> None:
    writer = world.writer()
    for session in (ident(1), ident(2)):
        writer.open(session)
        for number in range(300):
            writer.call(session, number + session[5] * 1000)
        writer.close_session(session)
    world.seal()
    assert list(iter_sealed(world.data)) == world.sealed
    assert list(iter_sealed(world.data, world.sealed[400].leaf_index)) == world.sealed[401:]
    (world.data / "log/sealer.json").unlink()
    assert sealed_size(world.data) == world.sealed[-1].leaf_index + 2
    assert len(list(iter_sealed(world.data))) == len(world.sealed)


def test_one_sealer_at_a_time(world: World) -> None:
    with world.sealer(), pytest.raises(ConfigError, match="Another process"):
        world.sealer()
    world.sealer().close()


def test_another_key_is_refused(world: World) -> None:
    with pytest.raises(ConfigError):
        Sealer(world.data, ORIGIN, SigningKey("narrows/other", bytes(32)), world.clock)
    world.writer().call(ident(1), 1)
    world.seal()
    with pytest.raises(ProofError):
        Sealer(world.data, ORIGIN, SigningKey(ORIGIN, bytes(32)), world.clock)


def test_it_does_not_go_on_where_that_could_fork_the_log(world: World) -> None:
    writer, session = world.writer(), ident(1)
    writer.call(session, 1)
    world.seal()
    old = (world.data / "log/sealer.json").read_bytes()
    writer.call(session, 2)
    world.seal()
    now = (world.data / "log/sealer.json").read_bytes()
    (world.data / "log/sealer.json").write_bytes(old)
    with pytest.raises(ProofError, match=r"not one that was committed|another root"):
        world.sealer()
    (world.data / "log/sealer.json").unlink()
    with pytest.raises(ProofError, match="missing"):
        world.sealer()
    (world.data / "log/sealer.json").write_bytes(b"{")
    with pytest.raises(ProofError, match="cannot be read"):
        world.sealer()
    (world.data / "log/sealer.json").write_bytes(now)
    world.sealer().close()


def test_one_session_verifies_alone_and_an_unknown_one_is_not_found(world: World) -> None:
    writer = world.writer()
    for number in (1, 2):
        writer.open(ident(number))
        writer.call(ident(number), number)
    world.seal()
    report = verify_session(world.data, VKEY, ident(1))
    assert report.ok
    assert report.leaves == 2
    with pytest.raises(NotFound):
        verify_session(world.data, VKEY, ident(3))


def test_an_erasure_leaf_makes_a_missing_session_lawful(world: World) -> None:
    writer, session, other = world.writer(), ident(1), ident(2)
    writer.open(session)
    writer.call(session, 1)
    writer.call(other, 2)
    writer.call(session, 3)
    writer.roll()
    world.finalise()
    world.seal()
    shutil.rmtree(world.data / "objects/sessions" / text(session))
    assert {f.code for f in world.verify().findings} == {"session_deleted", "missing_frames"}
    writer.frame(9, 0, session, NIL, b'{"action":"erasure"}')
    world.seal()
    report = world.verify()
    assert report.ok, [str(f) for f in report.findings]
    assert [s.erased for s in iter_sealed(world.data) if s.session == session] == [True] * 3 + [False]


def test_a_part_that_was_taken_stops_nobody_else(world: World) -> None:
    writer, session, other = world.writer(), ident(1), ident(2)
    writer.begin(session, ident(3))
    writer.call(other, 2)
    world.seal()
    shutil.rmtree(world.data / "objects/sessions" / text(session))
    writer.finish(session, ident(3))
    writer.call(other, 4)
    with world.sealer() as sealer:
        problems = sealer.drain().problems
    assert len(problems) == 2
    assert world.sealed[-1].session == other
    assert not world.verify().ok
