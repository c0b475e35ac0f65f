"""docs/recording-format.md is enough: a second verifier, written from that page, with nothing of ours."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from struct import unpack_from
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import UUID

from crc32c import crc32c
from tests.sealed_world import NIL, World, Writer, ident

TYPES = {1: "writer_open", 2: "session_open", 3: "session_close", 8: "gap", 9: "admin", 10: "writer_close"}


def blocks_of(part: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Head and body of each block."""
    raw, at, found = part.read_bytes(), 0, []
    while raw[at : at + 4] == bytes.fromhex("502a4d18"):
        (size,) = unpack_from("<I", raw, at + 4)
        assert raw[at + 8 : at + 12] == b"NRB1"
        head = json.loads(raw[at + 12 : at + 8 + size])
        at += 8 + size
        found.append((head, raw[at : at + head["zstd"]]))
        at += head["zstd"]
    assert raw[at : at + 4] == bytes.fromhex("512a4d18")
    assert raw[-4:] == b"NRT1"
    return found


def unzstd(body: bytes, dictionary: bytes = b"") -> bytes:
    with NamedTemporaryFile() as file:
        file.write(dictionary)
        file.flush()
        command = ["zstd", "-dc", *(["-D", file.name] if dictionary else [])]
        return subprocess.run(command, input=body, capture_output=True, check=True).stdout


def numbers_of(raw: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def put(text: bytes, rest: bytes, head: dict[str, Any], literals: bytes) -> bytes:
    """What a body of version 2 stands for."""
    others, out = rest[: head["other"]], b""
    numbers = numbers_of(rest[head["other"] :])
    assert len(literals) == head["literal"]
    last, whole = len(literals), literals + text
    for other in numbers:
        words, copy = next(numbers), next(numbers)
        out, others = out + others[:other], others[other:]
        out, text = out + text[:words], text[words:]
        if copy:
            jump = next(numbers)
            source = last + (-(jump + 1) // 2 if jump % 2 else jump // 2)
            out, last = out + whole[source : source + copy], source + copy
    assert (text, others, len(out)) == (b"", b"", head["packed"])
    return out


def whole_frames(packed: bytes, runs: list[list[object]]) -> bytes:
    """Frames from their bare form."""
    out, at = b"", 0
    for _, _, _, count in runs:
        before = -2
        for _ in range(int(str(count))):
            length, (seq,) = int.from_bytes(packed[at + 4 : at + 8], "big"), unpack_from(">Q", packed, at + 16)
            start, fixed = packed[at : at + 8], packed[at + 8 : at + 72]
            at += 72
            if seq != before + 1:
                running, at = packed[at : at + 32], at + 32
            payload, at = packed[at : at + length - 140], at + length - 140
            covered = fixed + sha256(payload).digest()
            if seq == before + 1:
                running = sha256(running + covered).digest()
            rest = covered + running + payload
            out += start + crc32c(rest).to_bytes(4, "big") + rest
            before = seq
    assert at == len(packed)
    return out


def raw_of(part: Path) -> tuple[bytes, list[list[object]]]:
    """A part's frames and the runs of all blocks."""
    out, literals = b"", b""
    runs: list[list[object]] = []
    for head, body in blocks_of(part):
        if head["v"] == 1:
            raw = unzstd(body)
            literals += raw
        else:
            cut = head["text"]
            text = unzstd(body[:cut]) if cut else b""
            raw = put(text, unzstd(body[cut:], text), head, literals)
            literals += text
            if head["packed"] != head["raw"]:
                raw = whole_frames(raw, head["runs"])
        assert sha256(raw).hexdigest() == head["sha256"]
        assert len(out) == head["at"]
        out += raw
        runs += head["runs"]
    return out, runs


def frames_of(part: Path) -> list[tuple[str, int, bytes]]:
    """(writer, sequence number, frame) of a part."""
    raw, all_runs = raw_of(part)
    if all(head["v"] == 1 for head, _ in blocks_of(part)):
        assert subprocess.run(["zstd", "-dc", part], capture_output=True, check=True).stdout == raw
    frames, at = [], 0
    for writer, first, last, count in all_runs:
        for row in range(count):  # type: ignore[call-overload]
            assert raw[at : at + 4] == b"NRF1"
            (length,) = unpack_from(">I", raw, at + 4)
            (seq,) = unpack_from(">Q", raw, at + 20)
            assert (row > 0 or seq == first) and (row < count - 1 or seq == last)  # type: ignore[operator]
            frames.append((str(writer), seq, raw[at : at + length]))
            at += length
    assert at == len(raw)
    return frames


def leaf_of(writer: str, frames: list[bytes]) -> bytes:
    """The leaf that a record's frames make."""
    ended = frames[-1][13] & 4 or frames[0][12] not in (4, 5, 6)
    kinds = [frame[12] for frame in frames]
    metas = [frame[140 : 140 + unpack_from(">I", frame, 16)[0]] for frame in frames]
    datas = [frame[140 + len(meta) :] for frame, meta in zip(frames, metas, strict=True)]
    request = b"".join(data for kind, data in zip(kinds, datas, strict=True) if kind not in (5, 6))
    sent = b"".join(data for kind, data in zip(kinds, datas, strict=True) if kind == 5)
    response = b"".join(data for kind, data in zip(kinds, datas, strict=True) if kind == 6)
    pairs = [(kind, meta) for kind, meta in zip(kinds, metas, strict=True) if meta]
    told: dict[str, str] = next((json.loads(meta) for kind, meta in pairs if kind not in (5, 6)), {})
    answer: dict[str, str] = {}
    for kind, meta in pairs:
        if kind == 6:
            answer |= json.loads(meta)
    type_ = TYPES.get(kinds[0], "exchange")
    leaf = {
        "v": 1,
        "type": type_,
        "session": str(UUID(bytes=frames[0][28:44])),
        "exchange": str(UUID(bytes=frames[0][44:60])),
        "kind": told.get("kind", "") if type_ == "exchange" else "",
        "writer": writer,
        "first_seq": unpack_from(">Q", frames[0], 20)[0],
        "last_seq": unpack_from(">Q", frames[-1], 20)[0],
        "frames": len(frames),
        "opened_ns": unpack_from(">q", frames[0], 60)[0],
        "closed_ns": unpack_from(">q", frames[-1], 60)[0],
        "request": {"length": len(request), "sha256": sha256(request).hexdigest()},
        "response": {"length": len(response), "sha256": sha256(response).hexdigest()},
        "sent_sha256": sha256(sent).hexdigest(),
        "facts_sha256": sha256(
            b"".join(bytes([kind]) + len(meta).to_bytes(4, "big") + meta for kind, meta in pairs)
        ).hexdigest(),
        "decision": told.get("decision", ""),
        "durability": told.get("durability", ""),
        "policy_version": told.get("policy_version", ""),
        "outcome": answer.get("outcome", "") if ended else "unfinished",
    }
    return json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()


def root_of(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\x01" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


def lost_tails(chains: dict[str, dict[int, bytes]]) -> Iterator[tuple[str, int]]:
    """Ends of chains that are named and not reached, or reached with another running hash."""
    for writer, frames in chains.items():
        for seq, frame in frames.items():
            if frame[12] == 10 and sorted(frames) != list(range(seq + 1)):
                yield writer, seq
            elif frame[12] == 8:
                told = json.loads(frame[140 : 140 + unpack_from(">I", frame, 16)[0]])
                end = chains[told["writer"]].get(told["after_seq"])
                if told["after_seq"] >= 0 and (end is None or end[108:140].hex() != told["running"]):
                    yield told["writer"], told["after_seq"]


def resend(one: Writer, two: Writer) -> None:
    """Two agents of one session, each of which sends all that it said with every call."""
    said = ["", ""]
    one.open(ident(9))
    for turn in range(12):
        for number, writer in enumerate((one, two)):
            said[number] += "".join(
                f'{{"role":"user","n":"{sha256(bytes([turn, number, n])).hexdigest()}"}},' for n in range(9)
            )
            exchange = ident(500 + 2 * turn + number)
            writer.begin(ident(9), exchange, b"POST / HTTP/1.1\r\n\r\n" + said[number].encode())
            writer.more(ident(9), exchange, b"HTTP/1.1 200 OK\r\n\r\n")
            writer.finish(ident(9), exchange)


def test_a_second_verifier_comes_to_the_same(tmp_path: Path) -> None:
    world = World(tmp_path)
    one, two = world.writer("w1"), world.writer("w2")
    for number, session in enumerate((ident(1), ident(2))):
        one.open(session)
        for call in range(70):
            (one if call % 2 else two).call(session, 100 * number + call)
        one.close_session(session)
    resend(one, two)
    one.roll()
    two.frame(9, 0, NIL, NIL, b'{"action":"connection.add","name":"\xc3\xa9"}')
    dead = world.writer("dead")
    dead.open(ident(3))
    dead.begin(ident(3), ident(4))
    dead_running = dead.chain.running.hex()
    gap = {"writer": "dead", "segment": 0, "after_seq": 2, "running": dead_running, "bytes": 0, "why": "unfinished"}
    two.frame(8, 0, NIL, NIL, json.dumps(gap).encode())
    one.stop()
    two.stop()
    world.seal()
    world.finalise()
    world.finalise()

    _, size, root = world.checkpoint().split("\n")[:3]
    entries: list[bytes] = []
    for name in ("000", *(f"{n:03d}.p/{int(size) % 256}" for n in [int(size) // 256])):
        path = tmp_path / "log/tile/entries" / name
        raw, at = path.read_bytes() if path.exists() else b"", 0
        while at < len(raw):
            (length,) = unpack_from(">H", raw, at)
            entries.append(raw[at + 2 : at + 2 + length])
            at += 2 + length
    hashes = [sha256(b"\x00" + entry).digest() for entry in entries]
    assert (len(entries), root_of(hashes)) == (int(size), b64decode(root))

    parts = [blocks_of(part) for part in tmp_path.glob("objects/sessions/*/*.part")]
    assert {head["v"] for blocks in parts for head, _ in blocks} == {1, 2}

    leaves: set[bytes] = set()
    heads: dict[tuple[str, int], str] = {}
    for entry in entries:
        leaf = json.loads(entry)
        if leaf["type"] == "heads":
            heads |= {(writer, seq): running for writer, (seq, running) in leaf["writers"].items()}
        else:
            leaves.add(entry)

    chains: dict[str, dict[int, bytes]] = defaultdict(dict)
    records: dict[tuple[str, bytes], list[bytes]] = defaultdict(list)
    made = set()
    for directory in (tmp_path / "objects/sessions").iterdir():
        for part in sorted(directory.iterdir()):
            for writer, seq, frame in frames_of(part):
                assert seq not in chains[writer]
                chains[writer][seq] = frame
                assert sha256(frame[140:]).digest() == frame[76:108]
                if frame[12] in (4, 5, 6, 7):
                    records[writer, frame[44:60]].append(frame)
                elif frame[12] != 1 or seq == 0:
                    made.add(leaf_of(writer, [frame]))
    made |= {leaf_of(writer, frames) for (writer, _), frames in records.items()}
    assert made == leaves

    for writer, frames in chains.items():
        running = bytes(32)
        assert sorted(frames) == list(range(len(frames)))
        for seq in sorted(frames):
            running = sha256(running + frames[seq][12:108]).digest()
            assert running == frames[seq][108:140]
            assert heads.pop((writer, seq), running.hex()) == running.hex()
    assert not heads
    assert sorted(lost_tails(chains)) == []
    del chains["dead"][2]
    assert sorted(lost_tails(chains)) == [("dead", 2)]
