"""Invariant: garbage gives events or ProtocolError, the same whole as byte by byte; what two libraries say is read."""

from __future__ import annotations

import zlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as TheirDeflate
from websockets.frames import Frame, Opcode
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as TheirPing
from wsproto.extensions import PerMessageDeflate

from narrows.core.errors import ProtocolError
from narrows.wire import websocket as ws
from narrows.wire.websocket import Binary, Close, Event, Parser, Ping, Text, frame
from narrows.wire.websocket_deflate import Deflate, agreed

KEYS = st.sampled_from((b"", b"\x01\x02\x03\x04"))


def squeezed(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return (squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


FRAMES = st.builds(
    lambda opcode, payload, key, fin, packed: frame(
        opcode, squeezed(payload) if packed else payload, key, fin=fin, compressed=packed
    ),
    st.sampled_from((0, 0, 1, 1, 2, 8, 9, 10, 3)),
    st.one_of(st.binary(max_size=6), st.text(max_size=4).map(str.encode), st.just(b"x" * 126)),
    KEYS,
    st.booleans(),
    st.sampled_from((False, False, False, True)),
)
STREAMS = st.lists(st.one_of(FRAMES, FRAMES, FRAMES, st.binary(max_size=8)), max_size=6).map(b"".join)


def run(stream: bytes, step: int, masked: bool, deflate: Deflate | None) -> tuple[list[Event], str]:
    parser = Parser(masked=masked, deflate=deflate, max_message=200)
    events: list[Event] = []
    try:
        for at in range(0, len(stream), step):
            parser.feed(stream[at : at + step])
            while (event := parser.next()) is not None:
                events.append(event)
        parser.finish()
    except ProtocolError as error:
        return events, str(error)
    return events, ""


@settings(max_examples=500, deadline=None)
@given(stream=STREAMS, masked=st.booleans(), packed=st.booleans())
def test_garbage_whole_and_byte_by_byte(stream: bytes, masked: bool, packed: bool) -> None:
    deflate = Deflate() if packed else None
    assert run(stream, len(stream) or 1, masked, deflate) == run(stream, 1, masked, deflate)


SAID = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.text(max_size=300)),
        st.tuples(st.just("bytes"), st.binary(max_size=300)),
        st.tuples(st.just("text"), st.text("ab ", min_size=200, max_size=3000)),
        st.tuples(st.just("ping"), st.binary(max_size=125)),
    ),
    max_size=8,
)
EXTENSIONS = st.builds(
    lambda server, client, bits: PerMessageDeflate(
        server_no_context_takeover=server,
        client_no_context_takeover=client,
        server_max_window_bits=bits,
        client_max_window_bits=bits,
    ),
    st.booleans(),
    st.booleans(),
    st.integers(9, 15),
)


def said(events: list[Event]) -> list[tuple[str, str | bytes]]:
    out: list[tuple[str, str | bytes]] = []
    for event in events:
        if isinstance(event, Text):
            out.append(("text", event.text))
        elif isinstance(event, Binary):
            out.append(("bytes", event.data))
        elif isinstance(event, Ping):
            out.append(("ping", event.data))
    return out


@settings(max_examples=150, deadline=None)
@given(
    messages=SAID, extension=st.none() | EXTENSIONS, client=st.booleans(), whole=st.booleans(), step=st.integers(1, 99)
)
def test_what_wsproto_says_is_read(
    messages: list[tuple[str, str | bytes]], extension: PerMessageDeflate | None, client: bool, whole: bool, step: int
) -> None:
    deflate = None
    if extension is not None:
        offer = f"permessage-deflate; {extension.offer()}"
        answer = extension.accept(offer)
        assert isinstance(answer, str)
        deflate = agreed(offer, f"permessage-deflate; {answer}" if answer else "permessage-deflate")
        extension._enabled = True
    end = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER, [extension] if extension else [])
    raw = b""
    for kind, data in messages:
        if kind == "ping":
            raw += end.send(TheirPing(bytes(data)))  # type: ignore[arg-type]
            continue
        event: Any = TextMessage if kind == "text" else BytesMessage
        if whole:
            raw += end.send(event(data=data))
        else:
            middle = len(data) // 2
            raw += end.send(event(data=data[:middle], message_finished=False))
            raw += end.send(TheirPing(b"between"))
            raw += end.send(event(data=data[middle:]))
    raw += end.send(CloseConnection(1000, "done"))
    parser = Parser(masked=client, deflate=deflate)
    events: list[Event] = []
    for at in range(0, len(raw), step):
        parser.feed(raw[at : at + step])
        while (event_ := parser.next()) is not None:
            events.append(event_)
    parser.finish()
    assert parser.consumed == len(raw)
    assert [one for one in said(events) if one != ("ping", b"between")] == [
        one for one in messages if one != ("ping", b"between")
    ]
    assert isinstance(events[-1], Close)
    assert (events[-1].code, events[-1].reason) == (1000, "done")


@settings(max_examples=150, deadline=None)
@given(messages=SAID, client=st.booleans(), packed=st.booleans(), takeover=st.booleans())
def test_what_websockets_says_is_read(
    messages: list[tuple[str, str | bytes]], client: bool, packed: bool, takeover: bool
) -> None:
    theirs = [TheirDeflate(not takeover, not takeover, 15, 15)] if packed else []
    raw = b""
    for kind, data in messages:
        opcode = {"text": Opcode.TEXT, "bytes": Opcode.BINARY, "ping": Opcode.PING}[kind]
        payload = data.encode() if isinstance(data, str) else data
        raw += Frame(opcode, payload).serialize(mask=client, extensions=theirs)
    deflate = Deflate(not takeover, not takeover) if packed else None
    events, problem = ws.read_all(raw, Parser(masked=client, deflate=deflate))
    assert problem == ""
    assert said(events) == messages


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=70_000), opcode=st.sampled_from((ws.TEXT, ws.BINARY)), fin=st.booleans(), key=KEYS)
def test_our_frames_are_theirs(payload: bytes, opcode: int, fin: bool, key: bytes) -> None:
    ours = frame(opcode, payload, fin=fin)
    assert ours == Frame(Opcode(opcode), payload, fin).serialize(mask=False)
    if key:
        assert frame(opcode, payload, key, fin=fin)[-len(payload) or len(ours) + 4 :] == ws.mask(payload, key)
