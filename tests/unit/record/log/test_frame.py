"""The frame codec: what a reader may rely on."""

from __future__ import annotations

from hashlib import sha256

import pytest

from narrows.core.errors import ProofError
from narrows.record.log.frame import (
    GENESIS,
    HEADER_SIZE,
    Chain,
    Flag,
    Kind,
    TornFrame,
    check_link,
    decode,
    frames,
)

SESSION = bytes(range(16))
EXCHANGE = bytes(range(16, 32))


def encoded(chain: Chain, meta: bytes = b'{"kind":"aws.call"}', data: bytes = b"GET / HTTP/1.1\r\n\r\n") -> bytes:
    header, meta_out = chain.encode(Kind.REQUEST, Flag.BEGIN | Flag.END, SESSION, EXCHANGE, 7, -3, meta, data)
    return header + meta_out + data


def test_a_frame_comes_back_as_it_went_in() -> None:
    chain = Chain()
    raw = encoded(chain)
    frame = decode(raw)
    assert (frame.kind, frame.flags) == (Kind.REQUEST, Flag.BEGIN | Flag.END)
    assert (frame.session, frame.exchange, frame.wall_ns, frame.mono_ns) == (SESSION, EXCHANGE, 7, -3)
    assert (frame.meta, frame.data) == (b'{"kind":"aws.call"}', b"GET / HTTP/1.1\r\n\r\n")
    assert (frame.seq, frame.size, frame.raw) == (0, len(raw), raw)
    assert frame.digest == sha256(frame.meta + frame.data).digest()
    assert frame.running == sha256(GENESIS + raw[12:108]).digest() == chain.running


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 100_000])
@pytest.mark.parametrize("meta", [b"", b"{}"])
def test_both_ways_of_encoding_give_the_same_bytes(meta: bytes, data: bytes) -> None:
    one, other = Chain(5, b"r" * 32), Chain(5, b"r" * 32)
    arguments = (Kind.RESPONSE, Flag.FINAL, SESSION, EXCHANGE, 1, 2, meta)
    header, meta_out = one.encode(*arguments, memoryview(data))
    assert other.encode_whole(*arguments, data) == header + meta_out + data
    assert (one.seq, one.running) == (other.seq, other.running)


def test_the_layout_is_the_documented_one() -> None:
    raw = Chain(9).encode_whole(Kind.EVENT, 4, SESSION, EXCHANGE, 1, 2, b"m", b"data")
    assert raw[:4] == b"NRF1"
    assert int.from_bytes(raw[4:8], "big") == len(raw) == HEADER_SIZE + 5
    assert (raw[12], raw[13], raw[14:16]) == (Kind.EVENT, 4, b"\0\0")
    assert int.from_bytes(raw[16:20], "big") == 1
    assert int.from_bytes(raw[20:28], "big") == 9
    assert raw[28:44] == SESSION and raw[44:60] == EXCHANGE
    assert raw[140:] == b"mdata"


def test_every_cut_of_a_frame_is_torn_and_incomplete() -> None:
    raw = encoded(Chain())
    for cut in range(len(raw)):
        with pytest.raises(TornFrame) as torn:
            decode(raw[:cut])
        assert torn.value.incomplete


def test_every_flipped_byte_is_found() -> None:
    raw = encoded(Chain())
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 0x55
        with pytest.raises(TornFrame):
            decode(bytes(changed))


def test_the_chain_finds_a_frame_taken_out_and_a_payload_exchanged() -> None:
    chain = Chain()
    first, second, third = (decode(encoded(chain, data=str(n).encode())) for n in range(3))
    check_link(first, 0, GENESIS)
    check_link(second, 1, first.running)
    with pytest.raises(ProofError, match="missing or out of order"):
        check_link(third, 1, first.running)
    with pytest.raises(ProofError, match="running hash"):
        check_link(third, 2, first.running)
    forged = Chain(1, first.running)
    other = decode(encoded(forged, data=b"something else"))
    assert other.running != second.running


def test_frames_reads_a_buffer_to_its_end_and_raises_on_the_rest() -> None:
    chain = Chain()
    buffer = encoded(chain) + encoded(chain)
    assert [frame.seq for frame in frames(buffer)] == [0, 1]
    with pytest.raises(TornFrame):
        list(frames(buffer + b"NRF1"))
