"""Event streams: against botocore's decoder, at the limits, and the signed input form."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any
from uuid import UUID

import pytest
from botocore import eventstream as boto

from narrows.core.errors import ProtocolError
from narrows.wire import canonical, eventstream, sigv4
from narrows.wire.eventstream import Decoder, EventSigner, EventVerifier, Header, Message, Value

NOW_MS = 1_795_539_600_000
ALL = Message(
    {
        "t": Header(eventstream.TRUE, True),
        "f": Header(eventstream.FALSE, False),
        "byte": Header(eventstream.BYTE, -128),
        "short": Header(eventstream.SHORT, -2),
        "int": Header(eventstream.INTEGER, 2**31 - 1),
        "long": Header(eventstream.LONG, -(2**63)),
        "bytes": Header(eventstream.BYTES, b"\x00\xff"),
        ":event-type": Header(eventstream.STRING, "chunk é"),
        "time": Header(eventstream.TIMESTAMP, NOW_MS),
        "uuid": Header(eventstream.UUID_, UUID(int=7)),
    },
    b'{"bytes":"aGVsbG8="}',
)


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def random_message(rng: random.Random) -> Message:
    headers: dict[str, Header] = {}
    for n in range(rng.randint(0, 6)):
        kind = rng.randrange(10)
        width = {2: 7, 3: 15, 4: 31, 5: 63, 8: 63}.get(kind, 0)
        value: Value
        if kind < 2:
            value = kind == 0
        elif width:
            value = rng.randint(-(1 << width), (1 << width) - 1)
        elif kind == eventstream.UUID_:
            value = UUID(int=rng.getrandbits(128))
        elif kind == eventstream.BYTES:
            value = rng.randbytes(rng.randint(0, 300))
        else:
            value = "é:-" * rng.randint(0, 50)
        headers[f"h{n}"] = Header(kind, value)
    return Message(headers, rng.randbytes(rng.randint(0, 2000)))


def test_as_botocore_reads_it() -> None:
    rng = random.Random(1)
    messages = [random_message(rng) for _ in range(200)]
    theirs = boto.EventStreamBuffer()
    ours = Decoder()
    for message in messages:
        raw = eventstream.encode(message)
        assert eventstream.decode(raw) == message
        theirs.add_data(raw)
        (their,) = list(theirs)
        (our,) = ours.feed(raw)
        assert our == message
        assert their.payload == our.payload
        headers: Any = their.headers
        for name, header in our.headers.items():
            expected = header.value.bytes if isinstance(header.value, UUID) else header.value
            assert headers[name] == expected
    ours.finish()


def test_whole_and_byte_by_byte() -> None:
    raw = eventstream.encode(ALL) * 3
    assert Decoder().feed(raw) == [ALL] * 3
    decoder = Decoder()
    assert [message for at in range(len(raw)) for message in decoder.feed(raw[at : at + 1])] == [ALL] * 3
    decoder.finish()
    assert ALL.text(":event-type") == "chunk é"
    assert ALL.text("bytes") == ALL.text("none") == ""


def test_a_cut_stream_is_not_whole() -> None:
    raw = eventstream.encode(ALL)
    for cut in range(1, len(raw)):
        decoder = Decoder()
        assert decoder.feed(raw[:cut]) == []
        with pytest.raises(ProtocolError, match="within a message"):
            decoder.finish()


def test_every_changed_byte_is_found() -> None:
    raw = eventstream.encode(ALL)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 0x10
        decoder = Decoder()
        with pytest.raises(ProtocolError):
            decoder.feed(bytes(changed))
        with pytest.raises(ProtocolError, match="after an error"):
            decoder.feed(b"")


@pytest.mark.parametrize(
    "headers",
    [
        b"\x00\x00",
        b"\x01",
        b"\x01a",
        b"\x02a\x00",
        b"\x01a\x0a",
        b"\x01a\x02",
        b"\x01a\x06\x00",
        b"\x01a\x07\x00\x05abc",
        b"\x01a\x09" + bytes(15),
        b"\x01\xff\x00",
        b"\x01a\x07\x00\x01\xff",
        b"\x01a\x00\x01a\x00",
    ],
)
def test_broken_headers(headers: bytes) -> None:
    with pytest.raises(ProtocolError):
        eventstream.decode(framed(headers))


def prelude(total: int, headers: int) -> bytes:
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


def test_limits() -> None:
    most = 16 + eventstream.MAX_HEADERS + eventstream.MAX_PAYLOAD
    assert Decoder().feed(prelude(most, eventstream.MAX_HEADERS)) == []
    for total, headers in (
        (most + 1, eventstream.MAX_HEADERS),
        (most, eventstream.MAX_HEADERS + 1),
        (15, 0),
        (17, 2),
        (0, 0),
        (0xFFFFFFFF, 0xFFFFFFFF),
    ):
        with pytest.raises(ProtocolError):
            Decoder().feed(prelude(total, headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"": Header(eventstream.TRUE, True)},
        {"x" * 256: Header(eventstream.TRUE, True)},
        {"x": Header(eventstream.TRUE, False)},
        {"x": Header(eventstream.BYTE, 128)},
        {"x": Header(eventstream.STRING, b"x")},
        {"x": Header(eventstream.STRING, "x" * 65536)},
        {"x": Header(eventstream.UUID_, "x")},
        {"x": Header(10, "x")},
    ],
)
def test_what_cannot_be_encoded(headers: dict[str, Header]) -> None:
    with pytest.raises(ValueError, match="header"):
        eventstream.encode(Message(headers, b""))


def key_for(day: str) -> bytes:
    return sigv4.signing_key("secret", day, "us-east-1", "transcribe")


def stream() -> list[Message]:
    signer = EventSigner(key_for, "us-east-1", "transcribe", "0" * 64)
    event = eventstream.encode(Message({":event-type": Header(eventstream.STRING, "AudioEvent")}, b"pcm"))
    return [signer.sign(event, NOW_MS), signer.sign(event + event, NOW_MS + 1500), signer.sign(b"", NOW_MS + 2000)]


def verifier() -> EventVerifier:
    return EventVerifier(key_for, "us-east-1", "transcribe", "0" * 64)


def test_signed_events_verify_and_end() -> None:
    events = Decoder().feed(b"".join(eventstream.encode(message) for message in stream()))
    taken = verifier()
    payloads = [taken.verify(event, NOW_MS / 1000) for event in events]
    assert [message.payload for message in Decoder().feed(payloads[0])] == [b"pcm"]
    assert payloads[2] == b"" and taken.done
    with pytest.raises(ProtocolError, match="after its end"):
        taken.verify(events[0], NOW_MS / 1000)


def test_a_stream_may_run_past_midnight() -> None:
    midnight = canonical.epoch("20261125T000000Z") * 1000
    signer = EventSigner(key_for, "us-east-1", "transcribe", "1" * 64)
    taken = EventVerifier(key_for, "us-east-1", "transcribe", "1" * 64)
    for at in (midnight - 1, midnight):
        assert taken.verify(signer.sign(b"x", at), midnight / 1000) == b"x"


def test_changed_swapped_and_left_out_events_are_found() -> None:
    first, second, last = stream()
    changed = Message(first.headers, first.payload + b"x")
    redated = Message({**first.headers, ":date": Header(eventstream.TIMESTAMP, NOW_MS + 1)}, first.payload)
    for sequence in ([changed], [redated], [second], [last], [first, last], [first, first]):
        taken = verifier()
        with pytest.raises(sigv4.AuthError) as caught:
            for message in sequence:
                taken.verify(message, NOW_MS / 1000)
        assert caught.value.code == "event_signature_mismatch"
        with pytest.raises(ProtocolError):
            taken.verify(first, NOW_MS / 1000)


def test_old_and_future_events_are_refused() -> None:
    for now in (NOW_MS / 1000 + 901, NOW_MS / 1000 - 901):
        with pytest.raises(sigv4.AuthError) as caught:
            verifier().verify(stream()[0], now)
        assert caught.value.aws_code == "RequestTimeTooSkewed"


def test_events_that_are_not_signed() -> None:
    good = stream()[0]
    for headers in (
        {},
        {":date": good.headers[":date"]},
        {**good.headers, "extra": Header(eventstream.TRUE, True)},
        {**good.headers, ":date": Header(eventstream.LONG, NOW_MS)},
        {**good.headers, ":date": Header(eventstream.TIMESTAMP, 2**63 - 1)},
        {**good.headers, ":date": Header(eventstream.TIMESTAMP, -1)},
        {**good.headers, ":chunk-signature": Header(eventstream.STRING, "x")},
    ):
        with pytest.raises(ProtocolError):
            verifier().verify(Message(headers, b"x"), NOW_MS / 1000)
