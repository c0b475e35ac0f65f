"""Fuzz of the HTTP/1.1 codec.

Invariant: any bytes, however cut, give the same events and then either more events, silence or one ProtocolError;
the raw of the events and the held bytes are the input; and h11 reads whatever was accepted in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError
from narrows.wire.http1 import (
    CHUNKED,
    LENGTH,
    NO_BODY,
    UNTIL_CLOSE,
    Data,
    End,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
)

FAST = settings(max_examples=100, deadline=None)
SMALL = 256
"""A small limit, so that the fuzz meets it."""


class Trace:
    """What a parser made of some bytes: events with adjacent Data joined, then the error if any."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.error: tuple[int, str, str] | None = None
        self.raw = b""
        self.held = 0

    def add(self, event: RequestHead | ResponseHead | Data | End) -> None:
        raw = bytes(event.raw)
        self.raw += raw
        if isinstance(event, Data):
            payload = bytes(event.payload)
            if self.events and self.events[-1][0] == "data":
                _, raw_before, payload_before = self.events.pop()
                assert isinstance(raw_before, bytes) and isinstance(payload_before, bytes)
                raw, payload = raw_before + raw, payload_before + payload
            self.events.append(("data", raw, payload))
        elif isinstance(event, End):
            self.events.append(("end", raw, tuple(event.trailers)))
        else:
            assert len(event.lines) == len(event.headers)
            facts = (event.framing, event.length, event.keep_alive, tuple(event.headers))
            self.events.append(("head", raw, *facts))

    def seen(self) -> tuple[object, ...]:
        return (*self.events, self.error)


def trace(
    kind: str, pieces: Sequence[bytes], *, close: bool = True, late: bool = False, max_head: int = SMALL
) -> Trace:
    """Feed a new parser piece by piece. `kind` is `request`, or the methods of the requests answered.

    With `late` nothing is asked for before all is fed: the pieces wait inside.
    """
    result = Trace()
    parser: RequestParser | ResponseParser
    methods = [] if kind == "request" else kind.split(" ")
    if kind == "request":
        parser = RequestParser(max_head)
    else:
        parser = ResponseParser(max_head)
        parser.expect(methods.pop(0).encode())

    def drain() -> None:
        while (event := parser.next()) is not None:
            result.add(event)
            if isinstance(event, End) and methods and isinstance(parser, ResponseParser):
                parser.expect(methods.pop(0).encode())

    try:
        for piece in pieces:
            parser.feed(piece)
            if not late:
                drain()
        drain()
        result.held = parser.buffered
        if close:
            parser.eof()
            drain()
    except ProtocolError as error:
        result.error = (error.status, error.what, error.why)
        with pytest.raises(ProtocolError):
            parser.next()
    return result


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(data)) for place in at} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def check(kind: str, data: bytes, at: list[int]) -> Trace:
    """The invariant, for one input."""
    whole = trace(kind, [data])
    assert trace(kind, [data[i : i + 1] for i in range(len(data))]).seen() == whole.seen()
    assert trace(kind, cut(data, at)).seen() == whole.seen()
    assert trace(kind, cut(data, at), late=True).seen() == whole.seen()
    still_open = trace(kind, [data], close=False)
    assert data.startswith(still_open.raw)
    if still_open.error is None:
        assert still_open.held == len(data) - len(still_open.raw)
    return whole


FRAGMENTS = [
    b"GET ", b"POST ", b"CONNECT ", b"OPTIONS ", b"get ", b"/", b"/a?b=c", b"*", b"http://h/", b"h:80", b" ",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.0 304 x\r\n", b"HTTP/1.1 101 x\r\n", b"Host: h\r\n", b"Host:h:80\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:+5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"A: b\r\n",
    b"A : b\r\n", b" folded\r\n", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b"\t", b"\xff", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"0\r\nX-T: v\r\n\r\n", b"5;a=b\r\nhello\r\n", b'1;q="\\"x"\r\nz\r\n', b"00", b"FFFFFFFFFFFFFFFF",
    b"hello", b"x" * 300, b":", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
]  # fmt: skip

BEGINNINGS = {
    "request": [b"", b"\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: h\r\n", b"PUT / HTTP/1.0\r\n"],
    "response": [b"", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 500 x\r\n"],
}
FRAMINGS = [
    b"", b"\r\n", b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"Transfer-Encoding: chunked\r\n\r\n1;a\r\nz\r\n0\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0;a=b\r\nX-T: v\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: v\r\n\r\n",
    b"X: " + b"x" * 200 + b"\r\n",
]  # fmt: skip


@st.composite
def soups(draw: st.DrawFn) -> tuple[str, bytes]:
    """(kind, bytes): a beginning that is often good, then anything."""
    kind = draw(st.sampled_from(["request", "request", "GET GET GET", "HEAD GET", "CONNECT", "GET"]))
    data = draw(st.sampled_from(BEGINNINGS["request" if kind == "request" else "response"]))
    data += draw(st.sampled_from(FRAMINGS))
    return kind, data + b"".join(draw(st.lists(st.sampled_from(FRAGMENTS), max_size=10)))


cuts = st.lists(st.integers(0, 800), max_size=8)
kinds = st.sampled_from(["request", "GET GET GET", "HEAD GET", "CONNECT"])

# -- a grammar of valid messages

token_chars = b"!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
tokens = st.lists(st.sampled_from(list(token_chars)), min_size=1, max_size=12).map(bytes)
values = st.lists(st.sampled_from([9, *range(32, 127), 128, 200, 255]), max_size=20).map(bytes)
spaces = st.sampled_from([b"", b" ", b"\t", b"  \t"])
targets = st.sampled_from(
    [b"/", b"/a/b%20c;d=e,f:@!$&'()*+", b"/x?y={z}|^`[]\\?/", b"//", b"http://h", b"HTTP://H:80/p?q", b"https://h?x"]
)
RESERVED = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te", b"trailer",
    b"keep-alive", b"cookie", b"set-cookie", b"authorization",
}  # fmt: skip


@st.composite
def fields(draw: st.DrawFn, most: int = 6) -> list[bytes]:
    lines = []
    for _ in range(draw(st.integers(0, most))):
        name = draw(tokens)
        if name.lower() not in RESERVED:
            lines.append(name + b":" + draw(spaces) + draw(values) + draw(spaces))
    return lines


@st.composite
def bodies(draw: st.DrawFn) -> tuple[int, list[bytes], bytes, bytes, list[bytes]]:
    """(framing, header lines, wire bytes, payload, trailer lines)."""
    framing = draw(st.sampled_from([NO_BODY, LENGTH, CHUNKED]))
    if framing == NO_BODY:
        return framing, [], b"", b"", []
    if framing == LENGTH:
        payload = draw(st.binary(max_size=40))
        return framing, [b"Content-Length: %d" % len(payload)], payload, payload, []
    chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    extensions = st.sampled_from([b"", b";a", b";a=b", b';a="\\" \xfe"', b";x;y=z"])
    wire = b"".join(
        draw(st.sampled_from([b"%x", b"%X", b"%05x"])) % len(chunk) + draw(extensions) + b"\r\n" + chunk + b"\r\n"
        for chunk in chunks
    )
    trailers = draw(fields(most=2))
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(extensions) + b"\r\n"
    wire += b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    return framing, [b"Transfer-Encoding: chunked"], wire, b"".join(chunks), trailers


class Message:
    """A valid message and what must be read out of it."""

    def __init__(
        self, raw: bytes, lines: list[bytes], body: tuple[int, list[bytes], bytes, bytes, list[bytes]]
    ) -> None:
        self.raw = raw
        self.lines = lines
        self.framing, _, self.wire, self.payload, self.trailers = body


@st.composite
def requests(draw: st.DrawFn) -> Message:
    body = draw(bodies())
    lines = draw(st.permutations([b"Host: h", *body[1], *draw(fields())]))
    blank = draw(st.sampled_from([b"", b"\r\n"]))
    first = draw(tokens.filter(lambda name: name != b"CONNECT")) + b" " + draw(targets) + b" HTTP/1.1\r\n"
    head = blank + first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return Message(head + body[2], lines, body)


@st.composite
def responses(draw: st.DrawFn) -> Message:
    body = draw(bodies().filter(lambda body: body[0] != NO_BODY))
    lines = draw(st.permutations([*body[1], *draw(fields())]))
    first = b"HTTP/1.1 %d " % draw(st.sampled_from([200, 206, 301, 400, 503, 599])) + draw(values) + b"\r\n"
    return Message(first + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body[2], lines, body)


def split_line(line: bytes) -> tuple[bytes, bytes]:
    name, value = line.split(b":", 1)
    return name.lower(), value.strip(b" \t")


def check_read(messages: Sequence[Message], events: list[tuple[object, ...]]) -> None:
    """The events are the messages, byte for byte and field by field."""
    rest = list(events)
    for message in messages:
        kind, raw, framing, length, _, headers = rest.pop(0)
        assert (kind, framing) == ("head", message.framing)
        assert raw == message.raw[: len(message.raw) - len(message.wire)]
        assert length == (len(message.payload) if framing == LENGTH else -1)
        assert headers == tuple(split_line(line) for line in message.lines)
        if message.payload:
            kind, _, payload = rest.pop(0)
            assert (kind, payload) == ("data", message.payload)
        kind, _, trailers = rest.pop(0)
        assert (kind, trailers) == ("end", tuple(split_line(line) for line in message.trailers))
    assert rest == []


# -- the properties


@FAST
@given(st.binary(max_size=700), cuts, kinds)
def test_any_bytes_are_read_the_same_however_cut(data: bytes, at: list[int], kind: str) -> None:
    check(kind, data, at)


@settings(max_examples=400, deadline=None)
@given(soups(), cuts)
def test_any_soup_of_http_is_read_the_same_however_cut(soup: tuple[str, bytes], at: list[int]) -> None:
    check(*soup, at)


@FAST
@given(st.lists(requests(), min_size=1, max_size=3), cuts)
def test_valid_requests_are_read_exactly(messages: list[Message], at: list[int]) -> None:
    data = b"".join(message.raw for message in messages)
    seen = check_big("request", data, at)
    assert seen.error is None and seen.raw == data
    check_read(messages, seen.events)


@FAST
@given(st.lists(responses(), min_size=1, max_size=3), cuts)
def test_valid_responses_are_read_exactly(messages: list[Message], at: list[int]) -> None:
    data = b"".join(message.raw for message in messages)
    seen = check_big("GET GET GET", data, at)
    assert seen.error is None and seen.raw == data
    check_read(messages, seen.events)


def check_big(kind: str, data: bytes, at: list[int]) -> Trace:
    whole = trace(kind, [data], max_head=4096)
    for pieces in ([data[i : i + 1] for i in range(len(data))], cut(data, at)):
        assert trace(kind, pieces, max_head=4096).seen() == whole.seen()
    return whole


Mutation = tuple[str, int, bytes]
mutations = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "delete", "double"]),
        st.integers(0, 400),
        st.sampled_from([b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"g", b"\x80", b"\r\n", b"\x7f"]),
    ),
    min_size=1,
    max_size=3,
)


def mutate(data: bytes, changes: list[Mutation]) -> bytes:
    for how, at, what in changes:
        place = at % (len(data) + 1)
        if how == "put":
            data = data[:place] + what + data[place + len(what) :]
        elif how == "insert":
            data = data[:place] + what + data[place:]
        elif how == "delete":
            data = data[:place] + data[place + 1 :]
        else:
            data = data[:place] + data[place : place + 30] + data[place:]
    return data


@settings(max_examples=300, deadline=None)
@given(requests(), mutations, cuts)
def test_mutated_requests_are_read_the_same_however_cut_and_as_h11_does(
    message: Message, changes: list[Mutation], at: list[int]
) -> None:
    data = mutate(message.raw, changes)
    check_big("request", data, at)
    as_h11_request(data)


@settings(max_examples=300, deadline=None)
@given(responses(), mutations, cuts)
def test_mutated_responses_are_read_the_same_however_cut_and_as_h11_does(
    message: Message, changes: list[Mutation], at: list[int]
) -> None:
    data = mutate(message.raw, changes)
    check_big("GET GET", data, at)
    as_h11_response(data)


@settings(max_examples=300, deadline=None)
@given(soups())
def test_what_is_accepted_in_a_soup_h11_accepts_too(soup: tuple[str, bytes]) -> None:
    as_h11_request(soup[1])
    as_h11_response(soup[1])


# -- the other implementation


def first_message(parser: RequestParser | ResponseParser, data: bytes) -> list[RequestHead | ResponseHead | Data | End]:
    """The events of the first message, or nothing if it is refused or not whole."""
    events: list[RequestHead | ResponseHead | Data | End] = []
    try:
        parser.feed(data)
        while (event := parser.next()) is not None:
            events.append(event)
            if isinstance(event, End):
                return events
        parser.eof()
        while (event := parser.next()) is not None:
            events.append(event)
        return events if events and isinstance(events[-1], End) else []
    except ProtocolError:
        return []


def read_h11(connection: h11.Connection, data: bytes) -> tuple[list[h11.Event], bytes, list[tuple[bytes, bytes]]]:
    """(heads, payload, trailers) of the first message as h11 reads it; fails the test if h11 refuses it."""
    heads: list[h11.Event] = []
    payload = b""
    connection.receive_data(data)
    closed = False
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA and not closed:
            closed = True
            connection.receive_data(b"")
        elif isinstance(event, h11.Data):
            payload += event.data
        elif isinstance(event, h11.EndOfMessage):
            return heads, payload, [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            heads.append(event)
        else:
            raise AssertionError(f"h11 did not read a whole message: {event}")


def split_events(
    events: list[RequestHead | ResponseHead | Data | End],
) -> tuple[list[RequestHead | ResponseHead], bytes, list[tuple[bytes, bytes]]]:
    heads = [event for event in events if isinstance(event, RequestHead | ResponseHead)]
    payload = b"".join(bytes(event.payload) for event in events if isinstance(event, Data))
    end = events[-1]
    assert isinstance(end, End)
    return heads, payload, end.trailers


def pairs(headers: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in headers.headers]


def as_h11_request(data: bytes) -> None:
    events = first_message(RequestParser(), data)
    if not events:
        return
    heads, payload, trailers = split_events(events)
    head = heads[0]
    assert isinstance(head, RequestHead)
    if head.method == b"CONNECT":
        return  # h11 stops at the tunnel
    # h11 does not take the one blank line of RFC 9112 2.2.
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    heads_h11, payload_h11, trailers_h11 = read_h11(other, data.removeprefix(b"\r\n"))
    request = heads_h11[0]
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (head.method, head.target)
    assert request.http_version == b"1.%d" % head.minor
    assert pairs(request) == head.headers
    assert (payload_h11, trailers_h11) == (payload, trailers)


def as_h11_response(data: bytes) -> None:
    parser = ResponseParser()
    parser.expect(b"GET")
    events = first_message(parser, data)
    if not events:
        return
    heads, payload, trailers = split_events(events)
    other = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    other.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    other.send(h11.EndOfMessage())
    heads_h11, payload_h11, trailers_h11 = read_h11(other, data)
    assert len(heads_h11) == len(heads)
    for theirs, ours in zip(heads_h11, heads, strict=True):
        assert isinstance(theirs, h11.Response | h11.InformationalResponse)
        assert isinstance(ours, ResponseHead)
        assert (theirs.status_code, theirs.reason) == (ours.status, ours.reason)
        assert pairs(theirs) == ours.headers
    assert (payload_h11, trailers_h11) == (payload, trailers)


# -- what the fuzz must not miss

Smuggle = tuple[str, bytes]
HOST = b"Host: h\r\n"
SMUGGLING: list[Smuggle] = [
    ("CL.TE", b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    ("TE.CL", b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"),
    ("CL.CL differ", b"Content-Length: 6\r\nContent-Length: 5\r\n\r\n"),
    ("CL.CL equal", b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    ("CL list", b"Content-Length: 5, 5\r\n\r\n"),
    ("CL sign", b"Content-Length: +5\r\n\r\n"),
    ("CL negative", b"Content-Length: -1\r\n\r\n"),
    ("CL hex", b"Content-Length: 0x5\r\n\r\n"),
    ("CL underscore", b"Content-Length: 1_0\r\n\r\n"),
    ("CL inner space", b"Content-Length: 1 0\r\n\r\n"),
    ("CL empty", b"Content-Length:\r\n\r\n"),
    ("CL 2^63", b"Content-Length: 9223372036854775808\r\n\r\n"),
    ("CL other digits", "Content-Length: \u0665\r\n\r\n".encode()),
    ("TE.TE", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("TE other", b"Transfer-Encoding: xchunked\r\n\r\n"),
    ("TE identity", b"Transfer-Encoding: identity\r\n\r\n"),
    ("TE list", b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    ("TE twice", b"Transfer-Encoding: chunked, chunked\r\n\r\n"),
    ("TE not last", b"Transfer-Encoding: chunked, identity\r\n\r\n"),
    ("TE spelling", b"Transfer-Encoding: cHuNkEd\r\n\r\n"),
    ("TE quoted", b'Transfer-Encoding: "chunked"\r\n\r\n'),
    ("TE vertical tab", b"Transfer-Encoding: \x0bchunked\r\n\r\n"),
    ("TE form feed", b"Transfer-Encoding: chunked\x0c\r\n\r\n"),
    ("TE NUL", b"Transfer-Encoding: chunked\0\r\n\r\n"),
    ("TE space before colon", b"Transfer-Encoding : chunked\r\n\r\n"),
    ("TE tab before colon", b"Transfer-Encoding\t: chunked\r\n\r\n"),
    ("TE leading space", b" Transfer-Encoding: chunked\r\n\r\n"),
    ("TE folded", b"Transfer-Encoding:\r\n chunked\r\n\r\n"),
    ("TE behind LF", b"X: y\nTransfer-Encoding: chunked\r\n\r\n"),
    ("TE behind CR", b"X: y\rTransfer-Encoding: chunked\r\n\r\n"),
    ("CR before CRLF", b"X: y\r\r\n\r\n"),
    ("LF LF", b"X: y\n\n"),
    ("no name", b": chunked\r\n\r\n"),
    ("no colon", b"Transfer-Encoding\r\n\r\n"),
    ("name with space", b"Transfer Encoding: chunked\r\n\r\n"),
    ("name beyond ASCII", b"Transfer-Encoding\xa0: chunked\r\n\r\n"),
    ("connection names length", b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\n"),
    ("connection names host", b"Connection: close, Host\r\n\r\n"),
    ("chunk sign", b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk 0x", b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk empty size", b"Transfer-Encoding: chunked\r\n\r\n\r\n\r\n"),
    ("chunk leading space", b"Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk trailing space", b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"),
    ("chunk space in extension", b"Transfer-Encoding: chunked\r\n\r\n5 ;a\r\nhello\r\n0\r\n\r\n"),
    ("chunk 17 digits", b"Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk 2^63", b"Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("chunk line LF", b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
    ("chunk extension LF", b"Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n"),
    ("chunk extension CR", b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension control", b"Transfer-Encoding: chunked\r\n\r\n5;a=\x01\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension no name", b"Transfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n"),
    ("chunk extension too long", b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 256 + b"\r\nhello\r\n0\r\n\r\n"),
    ("chunk too long", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"),
    ("chunk too short", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n"),
    ("chunk end LF", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"),
    ("last chunk LF", b"Transfer-Encoding: chunked\r\n\r\n0\n\n"),
    ("trailer LF", b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n"),
    ("trailer length", b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"),
    ("trailer host", b"Transfer-Encoding: chunked\r\n\r\n0\r\nhOST: x\r\n\r\n"),
    ("trailer folded", b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer no colon", b"Transfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("cutting", ["whole", "bytewise"])
@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize(("name", "attack"), SMUGGLING, ids=[name for name, _ in SMUGGLING])
def test_smuggling_is_refused(name: str, attack: bytes, kind: str, cutting: str) -> None:
    first = b"POST / HTTP/1.1\r\nHost: h\r\n" if kind == "request" else b"HTTP/1.1 200 OK\r\n"
    data = first + attack
    pieces = [data] if cutting == "whole" else [data[i : i + 1] for i in range(len(data))]
    seen = trace("request" if kind == "request" else "GET GET", pieces, close=False, max_head=4096)
    assert seen.error is not None, f"{name} passed"
    assert seen.error[0] in ((400, 501) if kind == "request" else (502,))
    assert not any(event[0] == "end" for event in seen.events), "the message was given out as whole"


def test_the_fuzz_reaches_what_it_should() -> None:
    """The strategies are worth nothing if they only make garbage: count what a run of them meets."""
    reached: set[str] = set()
    finders: list[tuple[str, Callable[[Trace], bool]]] = [
        ("refused", lambda seen: seen.error is not None),
        ("accepted", lambda seen: seen.error is None and bool(seen.events)),
        ("body", lambda seen: any(event[0] == "data" for event in seen.events)),
        ("whole", lambda seen: any(event[0] == "end" for event in seen.events)),
        ("trailers", lambda seen: any(event[0] == "end" and bool(event[2]) for event in seen.events)),
        ("until close", lambda seen: any(e[0] == "head" and e[2] == UNTIL_CLOSE for e in seen.events)),
        ("too large", lambda seen: seen.error is not None and "larger" in seen.error[2]),
    ]

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(soups())
    def meet(soup: tuple[str, bytes]) -> None:
        seen = trace(soup[0], [soup[1]])
        reached.update(name for name, find in finders if find(seen))

    meet()
    assert reached == {name for name, _ in finders}
