"""WebSocket frames and messages: what an end must refuse is refused, the rest comes out as it was said."""

from __future__ import annotations

import zlib

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire import websocket as ws
from narrows.wire.websocket import Binary, Close, Event, Parser, Ping, Pong, Text, close_frame, frame, mask, read_all
from narrows.wire.websocket_deflate import Deflate

NOT_SENT = (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
KEY = b"\x37\xfa\x21\x3d"


def of_server(raw: bytes, **options: object) -> tuple[list[Event], str]:
    return read_all(raw, Parser(masked=False, **options))  # type: ignore[arg-type]


def of_client(raw: bytes, **options: object) -> tuple[list[Event], str]:
    return read_all(raw, Parser(masked=True, **options))  # type: ignore[arg-type]


def refused(raw: bytes, word: str, *, client: bool = False, deflate: Deflate | None = None) -> None:
    parser = Parser(masked=client, deflate=deflate)
    parser.feed(raw)
    for _ in range(2):
        with pytest.raises(ProtocolError, match=word):
            while parser.next() is not None:
                pass
    parser.feed(frame(ws.TEXT, b"x"))
    with pytest.raises(ProtocolError, match=word):
        parser.next()


def deflated(data: bytes, squeeze: zlib._Compress | None = None) -> bytes:
    squeeze = squeeze or zlib.compressobj(wbits=-15)
    return (squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def test_the_examples_of_rfc_6455() -> None:
    hello = bytes.fromhex("818537fa213d7f9f4d5158")
    assert of_server(bytes.fromhex("810548656c6c6f")) == ([Text("Hello", 7)], "")
    assert of_client(hello) == ([Text("Hello", 11)], "")
    assert frame(ws.TEXT, b"Hello", KEY) == hello
    assert of_server(bytes.fromhex("010348656c80026c6f")) == ([Text("Hello", 9)], "")
    assert of_server(bytes.fromhex("890548656c6c6f")) == ([Ping(b"Hello", 7)], "")
    assert of_client(bytes.fromhex("8a8537fa213d7f9f4d5158")) == ([Pong(b"Hello", 11)], "")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
@pytest.mark.parametrize("key", [b"", KEY])
def test_every_form_of_length(size: int, key: bytes) -> None:
    payload = bytes(n % 251 for n in range(size))
    raw = frame(ws.BINARY, payload, key)
    assert read_all(raw, Parser(masked=bool(key))) == ([Binary(payload, len(raw))], "")


def test_control_frames_between_the_frames_of_a_message() -> None:
    first = frame(ws.TEXT, "gr\u00fc".encode()[:3], fin=False) + frame(ws.PING, b"1")
    second = frame(ws.CONTINUATION, b"\xbc", fin=False) + frame(ws.PONG, b"") + frame(ws.CONTINUATION, b"")
    raw = first + second + frame(ws.BINARY, b"\xff") + close_frame(1001, "bye")
    events, problem = of_server(raw)
    assert events[:2] == [Ping(b"1", 8), Pong(b"", 13)]
    assert events[2:] == [Text("gr\u00fc", 15), Binary(b"\xff", 18), Close(1001, "bye", len(raw))]
    assert problem == ""


def test_what_was_understood_is_counted() -> None:
    parser = Parser(masked=False)
    one, two = frame(ws.TEXT, b"one"), frame(ws.TEXT, b"two")
    parser.feed(one + two[:3])
    assert parser.next() == Text("one", len(one))
    assert parser.next() is None
    assert parser.consumed == len(one)
    with pytest.raises(ProtocolError, match="within a message"):
        parser.finish()


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (frame(ws.TEXT, b"x", KEY), "server's frame is masked"),
        (b"\xc1\x00", "reserved bit"),
        (b"\xa1\x00", "reserved bit"),
        (b"\x91\x00", "reserved bit"),
        *[(bytes((0x80 | opcode,)), "opcode") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
        (b"\x80\x00", "did not begin"),
        (b"\x01\x00\x81\x00", "before the one under way"),
        (b"\x09\x00", "fragmented"),
        (b"\x89\x7e\x00\x7e", "longer than 125"),
        (b"\x81\x7e\x00\x7d", "shortest"),
        (b"\x81\x7f" + (65535).to_bytes(8, "big"), "shortest"),
        (b"\x81\x7f" + (1 << 63).to_bytes(8, "big"), "longer than"),
        (b"\x81\x02\xc3\x28", "UTF-8"),
        (b"\x81\x03\xed\xa0\x80", "UTF-8"),
        (b"\x88\x01\x03", "cut off"),
        *[(b"\x88\x02" + code.to_bytes(2, "big"), "may not be sent") for code in NOT_SENT],
        (b"\x88\x04\x03\xe8\xff\xff", "reason is not UTF-8"),
        (b"\x88\x00\x81\x00", "after its close"),
    ],
)  # fmt: skip
def test_what_a_server_may_not_send(raw: bytes, word: str) -> None:
    refused(raw, word)


def test_a_client_must_mask() -> None:
    refused(frame(ws.TEXT, b"x"), "client's frame is not masked", client=True)


def test_messages_are_bounded_however_they_are_cut() -> None:
    assert of_server(frame(ws.BINARY, b"x" * 10), max_message=10)[1] == ""
    assert "longer than 10" in of_server(frame(ws.BINARY, b"x" * 11)[:2], max_message=10)[1]
    parts = frame(ws.BINARY, b"x" * 6, fin=False) + frame(ws.CONTINUATION, b"x" * 5)
    assert "longer than 10" in of_server(parts, max_message=10)[1]


def test_a_cut_message_is_told() -> None:
    assert of_server(frame(ws.TEXT, b"x", fin=False))[1] != ""
    assert of_server(frame(ws.TEXT, b"xyz")[:-1])[1] != ""


def test_the_examples_of_rfc_7692() -> None:
    one = bytes.fromhex("c107f248cdc9c90700")
    again = bytes.fromhex("c105f200110000")
    fragments = bytes.fromhex("4103f248cd8004c9c90700")
    stored = bytes.fromhex("c10b000500faff48656c6c6f00")
    final = bytes.fromhex("c108f348cdc9c9070000")
    texts = [
        event.text for event in of_server(one + again + fragments, deflate=Deflate())[0] if isinstance(event, Text)
    ]
    assert texts == ["Hello"] * 3
    assert of_server(stored + final + one, deflate=Deflate())[0] == [
        Text("Hello", 13), Text("Hello", 23), Text("Hello", 32),
    ]  # fmt: skip
    without = Deflate(server_no_context_takeover=True)
    assert of_server(one + one, deflate=without)[0] == [Text("Hello", 9), Text("Hello", 18)]
    assert "not DEFLATE" in of_server(one + again, deflate=without)[1]


def test_a_final_block_does_not_end_the_window() -> None:
    squeeze = zlib.compressobj(wbits=-15)
    first = squeeze.compress(b"a sentence to look back at") + squeeze.flush(zlib.Z_FINISH) + b"\x00"
    back = zlib.compressobj(wbits=-15, zdict=b"a sentence to look back at")
    raw = frame(ws.TEXT, first, compressed=True)
    raw += frame(ws.TEXT, deflated(b"a sentence to look back at", back), compressed=True)
    texts = [event.text for event in of_server(raw, deflate=Deflate())[0] if isinstance(event, Text)]
    assert texts == ["a sentence to look back at"] * 2


def test_a_compressed_stream_may_have_plain_messages() -> None:
    raw = frame(ws.TEXT, b"plain") + frame(ws.TEXT, deflated(b"squeezed"), compressed=True)
    texts = [event.text for event in of_server(raw, deflate=Deflate())[0] if isinstance(event, Text)]
    assert texts == ["plain", "squeezed"]


def test_what_expands_beyond_the_limit_is_refused_before_it_is_held() -> None:
    bomb = deflated(b"\x00" * (50 << 20))
    assert len(bomb) < 60_000
    events, problem = of_server(frame(ws.BINARY, bomb, compressed=True), deflate=Deflate(), max_message=1 << 20)
    assert events == []
    assert "expands to more than" in problem


def test_many_streams_in_one_message_are_refused() -> None:
    raw = frame(ws.BINARY, b"\x03\x00" * 100_000, compressed=True)
    assert "streams" in of_server(raw, deflate=Deflate())[1]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (frame(ws.TEXT, b"\xff\xff\xff", compressed=True), "not DEFLATE"),
        (b"\x01\x00\xc0\x00", "reserved bit"),
        (b"\xc9\x00", "reserved bit"),
        (b"\xb1\x00", "reserved bit"),
    ],
)
def test_what_compression_does_not_allow(raw: bytes, word: str) -> None:
    refused(raw, word, deflate=Deflate())


def test_close_frames_that_the_gateway_makes() -> None:
    raw = close_frame(1008, "a credential stands in it", KEY)
    assert of_client(raw) == ([Close(1008, "a credential stands in it", len(raw))], "")
    assert of_server(frame(ws.CLOSE, b"")) == ([Close(0, "", 2)], "")
    for code, reason in ((1006, ""), (1000, "x" * 124)):
        with pytest.raises(ValueError, match="close frame"):
            close_frame(code, reason)


def test_masking_twice_is_nothing() -> None:
    for size in (0, 1, 3, 4, 5, 1000):
        payload = bytes(n % 256 for n in range(size))
        assert mask(mask(payload, KEY), KEY) == payload
