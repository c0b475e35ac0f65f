"""The HTTP/1.1 codec, rule by rule: what is accepted, what is refused with which status, limits at the limit."""

from __future__ import annotations

import time

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire.http1 import (
    CHUNKED,
    LAST_CHUNK,
    LENGTH,
    MAX_HEAD,
    MAX_HEADERS,
    NO_BODY,
    UNTIL_CLOSE,
    Data,
    End,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    build_head,
    encode_chunk,
)

Event = RequestHead | ResponseHead | Data | End


def events_of(parser: RequestParser | ResponseParser) -> list[Event]:
    """All events that are ready."""
    events: list[Event] = []
    while (event := parser.next()) is not None:
        events.append(event)
    return events


def request(data: bytes) -> RequestHead:
    """The head of a request that must be accepted."""
    parser = RequestParser()
    parser.feed(data)
    head = parser.next()
    assert isinstance(head, RequestHead)
    return head


def lines(*header_lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    """A head with these header lines."""
    return b"".join(line + b"\r\n" for line in (first, *header_lines, b""))


def get(*header_lines: bytes) -> RequestHead:
    """The head of a GET with a Host and these header lines."""
    return request(lines(b"Host: h", *header_lines))


def refusal(data: bytes, max_head: int = MAX_HEAD) -> ProtocolError:
    """The error for a request that must be refused, whole and byte by byte alike."""
    seen: list[ProtocolError] = []
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        parser = RequestParser(max_head)
        with pytest.raises(ProtocolError) as error:
            for piece in pieces:
                parser.feed(piece)
                events_of(parser)
        seen.append(error.value)
    assert (seen[0].status, str(seen[0])) == (seen[1].status, str(seen[1]))
    return seen[0]


def response(data: bytes, method: bytes = b"GET") -> tuple[ResponseHead, ResponseParser]:
    """The head of a response that must be accepted, and its parser."""
    parser = ResponseParser()
    parser.expect(method)
    parser.feed(data)
    head = parser.next()
    assert isinstance(head, ResponseHead)
    return head, parser


def response_refusal(data: bytes, method: bytes = b"GET") -> ProtocolError:
    """The error for a response that must be refused."""
    parser = ResponseParser()
    parser.expect(method)
    parser.feed(data)
    with pytest.raises(ProtocolError) as error:
        events_of(parser)
    assert error.value.status == 502
    return error.value


# -- request heads: what is handed out


def test_a_head_is_handed_out_verbatim_and_split() -> None:
    data = b"GET /a%2Fb?x=%7e HTTP/1.1\r\nHost: H:80\r\nX-Amz-Date:20261124T120000Z\r\nempty:\t\r\nA:  b c\t \r\n\r\n"
    head = request(data)
    assert head.raw == data
    assert (head.method, head.target, head.minor) == (b"GET", b"/a%2Fb?x=%7e", 1)
    assert head.headers == [(b"host", b"H:80"), (b"x-amz-date", b"20261124T120000Z"), (b"empty", b""), (b"a", b"b c")]
    assert head.lines == [b"Host: H:80", b"X-Amz-Date:20261124T120000Z", b"empty:\t", b"A:  b c\t "]
    assert (head.framing, head.length, head.keep_alive, head.expect_continue) == (NO_BODY, -1, True, False)
    assert head.upgrade == b""


def test_fields_are_found_by_lower_cased_name_and_repeated_ones_joined_in_order() -> None:
    head = get(b"X-A: 1", b"x-b: 2", b"x-a: 3", b"X-A:")
    assert (head.get(b"x-a"), head.get(b"x-b"), head.get(b"x-c")) == (b"1,3,", b"2", None)
    assert (head.count(b"x-a"), head.count(b"x-b"), head.count(b"x-c")) == (3, 1, 0)
    assert (get(b"X-A: 1").count(b"x-a"), get().count(b"x-a")) == (1, 0)


def test_bytes_beyond_ascii_stay_in_values() -> None:
    assert get(b"X-A: caf\xe9 \xff").get(b"x-a") == b"caf\xe9 \xff"


def test_a_repr_shows_no_credential() -> None:
    head = request(lines(b"Host: h", b"Authorization: Bearer sesame", first=b"GET /?X-Amz-Signature=sesame HTTP/1.1"))
    assert "sesame" not in repr(head)
    assert "sesame" not in repr(Data(b"sesame", b"sesame")) + repr(End(b"sesame", [(b"a", b"sesame")]))


def test_an_error_quotes_no_line() -> None:
    for data in (
        lines(b"Host: h", b"Authorization : sesame"),
        lines(b"Host: h", b"Content-Length: sesame"),
        lines(b"Host: h", b"Connection: sesame sesame"),
        lines(b"Host: h", first=b"GET sesame HTTP/1.1"),
        lines(b"Host: sesame/"),
    ):
        assert "sesame" not in str(refusal(data))


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//",
        b"/a/../b",
        b"/a:b@c;d=e,f(g)*!$&'+~_-.",
        b"/[|]",
        b"/?",
        b"/?a?b/c",
        b"/?{}|\\^`[]'",
        b"/%",
        b"/%zz",
    ],
)
def test_targets_are_opaque(target: bytes) -> None:
    assert request(lines(b"Host: h", first=b"GET " + target + b" HTTP/1.1")).target == target


@pytest.mark.parametrize(
    "first",
    [
        b"GET /a b HTTP/1.1",
        b"GET /a\tb HTTP/1.1",
        b"GET /a\x01 HTTP/1.1",
        b"GET /a\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /#f HTTP/1.1",
        b"GET /?a#f HTTP/1.1",
        b'GET /?"a" HTTP/1.1',
        b"GET /<a> HTTP/1.1",
        b"GET /a\\b HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET h:80 HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /",
        b"GET",
        b"G(T / HTTP/1.1",
        b"G\xc9T / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/ 1.1",
        b"GET / ICY/1.1",
        b"GET http://u@h/ HTTP/1.1",
        b"GET http://u:p@h/ HTTP/1.1",
        b"GET http:/// HTTP/1.1",
        b"GET http://h/\xe9 HTTP/1.1",
        b"GET http://h:99999999/ HTTP/1.1",
        b"GET ftp://h/ HTTP/1.1",
        b"GET file:///etc/passwd HTTP/1.1",
        b"CONNECT h HTTP/1.1",
        b"CONNECT u@h:443 HTTP/1.1",
        b"CONNECT h:443/ HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"CONNECT http://h:443 HTTP/1.1",
        b"CONNECT * HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(first: bytes) -> None:
    assert refusal(lines(b"Host: h", first=first)).status == 400


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0"])
def test_other_versions_are_refused_as_such(version: bytes) -> None:
    assert refusal(lines(b"Host: h", first=b"GET / " + version)).status == 505


def test_the_http2_preface_is_refused_as_another_version() -> None:
    assert refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 505


def test_tls_on_a_plain_port_is_refused_at_its_first_byte() -> None:
    parser = RequestParser()
    parser.feed(b"\x16")
    with pytest.raises(ProtocolError, match="control byte"):
        parser.next()


@pytest.mark.parametrize(
    ("first", "host"),
    [
        (b"GET http://example.com/a?b HTTP/1.1", b"example.com"),
        (b"GET HTTP://Example.com HTTP/1.1", b"example.COM:80"),
        (b"GET https://example.com?b HTTP/1.1", b"example.com:443"),
        (b"GET http://[::1]:8080/ HTTP/1.1", b"[::1]:8080"),
        (b"GET http://h:8080/ HTTP/1.1", b"h"),
        (b"OPTIONS * HTTP/1.1", b"h"),
        (b"CONNECT h:443 HTTP/1.1", b"h:443"),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.1", b"[2001:db8::1]"),
    ],
)
def test_absolute_asterisk_and_authority_forms_are_accepted(first: bytes, host: bytes) -> None:
    assert request(lines(b"Host: " + host, first=first)).target == first.split(b" ")[1]


@pytest.mark.parametrize(
    ("first", "host"),
    [
        (b"GET http://a/ HTTP/1.1", b"b"),
        (b"GET http://a:81/ HTTP/1.1", b"a:80"),
        (b"GET https://a/ HTTP/1.1", b"a:80"),
        (b"CONNECT a:443 HTTP/1.1", b"b:443"),
        (b"CONNECT a:443 HTTP/1.1", b"a:80"),
    ],
)
def test_a_target_and_a_host_header_that_disagree_are_refused(first: bytes, host: bytes) -> None:
    assert "different" in refusal(lines(b"Host: " + host, first=first)).why


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b"Host: a", b"Host: a"],
        [b"Host: a", b"hOST: b"],
        [b"Host:"],
        [b"Host: a,b"],
        [b"Host: a b"],
        [b"Host: u@a"],
        [b"Host: a/b"],
        [b"Host: a:"],
        [b"Host: a:b"],
        [b"Host: a:123456"],
        [b"Host: http://a"],
        [b"Host: [::1"],
        [b"Host: [::1%25lo]"],
        [b"Host: \xe9"],
        [b"Host: a?b"],
    ],
)
def test_a_missing_repeated_or_malformed_host_is_refused(headers: list[bytes]) -> None:
    assert refusal(lines(*headers)).status == 400


def test_http_1_0_may_lack_a_host_but_not_have_two() -> None:
    assert request(lines(first=b"GET / HTTP/1.0")).headers == []
    assert refusal(lines(b"Host: a", b"Host: a", first=b"GET / HTTP/1.0")).status == 400


@pytest.mark.parametrize(
    "line",
    [
        b"X-A : b",
        b"X-A\t: b",
        b": b",
        b"X-A",
        b"X A: b",
        b"X\xe9: b",
        b"X(: b",
        b" X: b",
        b"\tX: b",
        b"X: a\0b",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: a\x0bb",
        b"X: a\nb",
        b"X: a\rb",
        b"X: a\r",
        b"X: a\n",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X\0: b",
    ],
)
def test_a_malformed_header_line_is_refused(line: bytes) -> None:
    assert refusal(lines(b"Host: h", line)).status == 400
    assert refusal(lines(b"Host: h", line, b"Y: z")).status == 400


def test_bare_line_feeds_are_refused_before_the_head_ends() -> None:
    for data in (b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: h\n\n", b"\n", b"GET / HTTP/1.1\r\nHost: h\r\n\n"):
        assert "LF without CR" in refusal(data).why
    assert "CR without LF" in refusal(b"GET / HTTP/1.1\r\rHost").why


def test_one_blank_line_before_a_request_is_tolerated_and_is_part_of_its_head() -> None:
    data = lines(b"Host: h")
    assert request(b"\r\n" + data).raw == b"\r\n" + data
    assert request(b"\r\n" + data).lines == [b"Host: h"]
    assert refusal(b"\r\n\r\n" + data).status == 400
    assert refusal(b"\n" + data).status == 400
    assert refusal(b" \r\n" + data).status == 400
    assert refusal(b"\r" + data).status == 400


def test_one_blank_line_is_tolerated_before_every_request() -> None:
    data = b"\r\n" + lines(b"Host: h")
    parser = RequestParser()
    parser.feed(data + data)
    assert [event.raw for event in events_of(parser)] == [data, b"", data, b""]


# -- request heads: framing and connection


@pytest.mark.parametrize("value", [b"0", b"5", b"0005", b"9223372036854775807"])
def test_a_length_is_read(value: bytes) -> None:
    head = get(b"Content-Length: " + value)
    assert (head.framing, head.length) == (LENGTH, int(value))


@pytest.mark.parametrize(
    "value",
    [b"", b"+5", b"-5", b"5 5", b"5,5", b"0x5", b"5.0", b"1_0", b"\xb2", b"9223372036854775808", b"0" * 20, b'"5"'],
)
def test_a_length_that_is_not_a_plain_number_is_refused(value: bytes) -> None:
    assert refusal(lines(b"Host: h", b"Content-Length: " + value)).status == 400


def test_chunked_is_read() -> None:
    head = get(b"Transfer-Encoding: chunked")
    assert (head.framing, head.length) == (CHUNKED, -1)


@pytest.mark.parametrize(
    "value", [b"", b"Chunked", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked;q=1", b"identity", b"chunked,"]
)
def test_another_transfer_coding_is_refused_as_not_implemented(value: bytes) -> None:
    assert refusal(lines(b"Host: h", b"Transfer-Encoding: " + value)).status == 501


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"content-length: 6"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    ],
)
def test_contradictory_framing_is_refused(headers: list[bytes]) -> None:
    assert refusal(lines(b"Host: h", *headers)).status == 400


def test_http_1_0_has_no_transfer_coding() -> None:
    assert refusal(lines(b"Host: h", b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0")).status == 400


def test_connect_has_no_body() -> None:
    first = b"CONNECT h:443 HTTP/1.1"
    assert request(lines(b"Host: h", b"Content-Length: 0", first=first)).length == 0
    assert refusal(lines(b"Host: h", b"Content-Length: 1", first=first)).status == 400
    assert refusal(lines(b"Host: h", b"Transfer-Encoding: chunked", first=first)).status == 400


@pytest.mark.parametrize(
    ("version", "values", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.0", [], False),
        (b"1.1", [b"close"], False),
        (b"1.1", [b"Close"], False),
        (b"1.1", [b"keep-alive"], True),
        (b"1.0", [b"Keep-Alive"], True),
        (b"1.0", [b"keep-alive, close"], False),
        (b"1.1", [b"TE", b"close"], False),
        (b"1.1", [b"TE , ,x-a"], True),
        (b"1.1", [b""], True),
    ],
)
def test_the_connection_persists_by_rfc_9112(version: bytes, values: list[bytes], keep_alive: bool) -> None:
    head = request(lines(b"Host: h", *(b"Connection: " + v for v in values), first=b"GET / HTTP/" + version))
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    "value", [b"Host", b"close, authorization", b"Content-Length", b"transfer-encoding", b"a b", b"(a)"]
)
def test_a_connection_header_that_would_drop_fields_or_is_no_list_is_refused(value: bytes) -> None:
    assert refusal(lines(b"Host: h", b"Connection: " + value)).status == 400


def test_expect_continue() -> None:
    assert get(b"Expect: 100-Continue").expect_continue
    assert not get().expect_continue
    assert not request(lines(b"Expect: 100-continue", first=b"PUT / HTTP/1.0")).expect_continue
    assert refusal(lines(b"Host: h", b"Expect: 200-ok")).status == 417
    assert refusal(lines(b"Host: h", b"Expect: 100-continue", b"Expect: 100-continue")).status == 417


def test_upgrade_is_handed_out() -> None:
    assert get(b"Connection: Upgrade", b"Upgrade: websocket").upgrade == b"websocket"


# -- limits


def padded(size: int) -> bytes:
    """A request head of exactly `size` bytes."""
    empty = lines(b"Host: h", b"A: ")
    return lines(b"Host: h", b"A: " + b"x" * (size - len(empty)))


def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert len(request(padded(MAX_HEAD)).raw) == MAX_HEAD
    assert refusal(padded(MAX_HEAD + 1)).status == 431
    bytewise = RequestParser(500)
    for byte in padded(500):
        assert bytewise.next() is None
        bytewise.feed(bytes([byte]))
    assert isinstance(bytewise.next(), RequestHead)
    assert refusal(padded(501), 500).status == 431


def test_a_head_that_never_ends_is_refused_as_soon_as_the_limit_is_reached() -> None:
    parser = RequestParser(500)
    parser.feed(padded(600)[:499])
    assert parser.next() is None
    parser.feed(b"x")
    with pytest.raises(ProtocolError) as error:
        parser.next()
    assert error.value.status == 431
    assert parser.buffered == 0


def test_a_target_may_be_32_kib_and_no_longer() -> None:
    head = request(lines(b"Host: h", first=b"GET /" + b"a" * 32767 + b" HTTP/1.1"))
    assert len(head.target) == 32768
    assert refusal(lines(b"Host: h", first=b"GET /" + b"a" * 32768 + b" HTTP/1.1")).status == 414
    assert refusal(b"GET /" + b"a" * MAX_HEAD).status == 414
    assert refusal(lines(b"Host: h", first=b"GET /" + b"\xe9" * 32768 + b" HTTP/1.1")).status == 414


def test_there_may_be_as_many_headers_as_the_limit_and_no_more() -> None:
    assert len(get(*[b"A: b"] * (MAX_HEADERS - 1)).headers) == MAX_HEADERS
    assert refusal(lines(b"Host: h", *[b"A: b"] * MAX_HEADERS)).status == 431


CHUNKED_HEAD = lines(b"Host: h", b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.1")


def test_chunk_lines_at_their_limits() -> None:
    for line in (b"0000000000000001", b"1;" + b"a" * 255, b'1;a="' + b"\xe9 " * 125 + b'"', b"000000000000000A"):
        parser = RequestParser()
        parser.feed(CHUNKED_HEAD + line + b"\r\n")
        assert [bytes(event.raw) for event in events_of(parser)[1:]] == [line + b"\r\n"]
    for line in (
        b"00000000000000001",
        b"1;" + b"a" * 256,
        b"8000000000000000",
        b"1;",
        b"1;=a",
        b'1;a="',
        b"1;a=",
        b"1; a",
    ):
        assert refusal(CHUNKED_HEAD + line + b"\r\n").status == 400
    biggest = RequestParser()
    biggest.feed(CHUNKED_HEAD + b"7fffffffffffffff\r\nx")
    assert isinstance(events_of(biggest)[-1], Data)


def test_a_chunk_line_that_never_ends_is_refused() -> None:
    assert refusal(CHUNKED_HEAD + b"1;" + b"a" * 400).status == 400
    assert refusal(CHUNKED_HEAD + b"1" * 40).status == 400


def test_trailers_at_their_limits() -> None:
    room = 300 - len(b"A: \r\n\r\n")
    parser = RequestParser(300)
    parser.feed(CHUNKED_HEAD + b"0;ext\r\nA: " + b"x" * room + b"\r\n\r\n")
    end = events_of(parser)[-1]
    assert isinstance(end, End) and end.trailers == [(b"a", b"x" * room)]
    assert refusal(CHUNKED_HEAD + b"0;ext\r\nA: " + b"x" * (room + 1) + b"\r\n\r\n", 300).status == 431
    assert refusal(CHUNKED_HEAD + b"0\r\nA: " + b"x" * 1000, 300).status == 431
    assert refusal(CHUNKED_HEAD + b"0\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n").status == 431


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"transfer-encoding", b"HOST", b"Authorization", b"Connection", b"Trailer", b"Cookie"]
)
def test_a_trailer_that_steers_is_refused(name: bytes) -> None:
    assert refusal(CHUNKED_HEAD + b"0\r\nA: b\r\n" + name + b": x\r\n\r\n").status == 400


@pytest.mark.parametrize(
    "section", [b"A : b", b" A: b", b"A: b\r\n c", b"A", b": b", b"A: \0", b"A: b\nC: d", b"A: b\rC: d"]
)
def test_a_malformed_trailer_is_refused(section: bytes) -> None:
    assert refusal(CHUNKED_HEAD + b"0\r\n" + section + b"\r\n\r\n").status == 400


@pytest.mark.parametrize("start", [b"", CHUNKED_HEAD + b"0\r\n"], ids=["head", "trailers"])
def test_searching_is_linear_however_small_the_pieces(start: bytes) -> None:
    """One MiB in pieces of 64 bytes: some tens of ms if each byte is looked at once, many seconds if not."""
    parser = RequestParser(1 << 21)
    parser.feed(start)
    events_of(parser)
    piece = b"A: " + b"x" * 59 + b"\r\n"
    began = time.process_time()
    for _ in range(1 << 14):
        parser.feed(piece)
        assert parser.next() is None
    assert time.process_time() - began < 2.0
    assert parser.buffered >= 1 << 20


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\n" + b"a:" * 30000,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 15000 + b"a\r\n\r\n",
        b"GET " + b"/" * 60000,
        b"a" * 60000,
        CHUNKED_HEAD + b"1" + b";a" * 30000,
        CHUNKED_HEAD + b'1;a="' + b"\\\\" * 30000,
        CHUNKED_HEAD + b"0\r\n" + b"a:\r\n" * 15000 + b"a\r\n\r\n",
    ],
)
def test_hostile_bytes_cost_no_more_than_good_ones(hostile: bytes) -> None:
    began = time.process_time()
    for _ in range(5):
        parser = RequestParser()
        parser.feed(hostile)
        try:
            events_of(parser)
        except ProtocolError as error:
            assert error.status in (400, 414, 431)
    assert time.process_time() - began < 1.0


# -- bodies


def test_nothing_is_copied_where_a_block_is_one_thing() -> None:
    parser = RequestParser()
    data = lines(b"Host: h", b"Content-Length: 100000", first=b"PUT / HTTP/1.1")
    parser.feed(data)
    head = parser.next()
    assert isinstance(head, RequestHead) and head.raw is data
    block = bytes(60000)
    parser.feed(block)
    event = parser.next()
    assert isinstance(event, Data) and event.raw is block and event.payload is block
    parser.feed(bytes(50000))
    event = parser.next()
    assert isinstance(event, Data) and isinstance(event.raw, memoryview) and len(event.raw) == 40000
    assert event.payload is event.raw
    assert isinstance(parser.next(), End)
    assert parser.buffered == 10000


def test_large_chunks_are_views_of_the_block() -> None:
    parser = RequestParser()
    parser.feed(CHUNKED_HEAD)
    parser.next()
    parser.feed(b"186a0\r\n" + b"x" * 100000 + b"\r\n0\r\n\r\n")
    data, end = events_of(parser)
    assert isinstance(data, Data) and isinstance(data.payload, memoryview) and isinstance(data.raw, memoryview)
    assert data.payload == b"x" * 100000
    assert data.raw == b"186a0\r\n" + b"x" * 100000 + b"\r\n"
    assert end.raw == b"0\r\n\r\n"


def test_a_body_is_handed_out_as_it_comes_and_never_held() -> None:
    parser = RequestParser()
    parser.feed(lines(b"Host: h", b"Content-Length: 3000", first=b"PUT / HTTP/1.1"))
    parser.next()
    for _ in range(3):
        parser.feed(bytes(1000))
        assert isinstance(parser.next(), Data)
        assert parser.buffered == 0
    assert isinstance(parser.next(), End)


def test_a_body_ends_at_its_length_without_further_bytes() -> None:
    parser = RequestParser()
    parser.feed(lines(b"Host: h", b"Content-Length: 0", first=b"PUT / HTTP/1.1"))
    head, end = events_of(parser)
    assert isinstance(head, RequestHead) and isinstance(end, End) and (end.raw, end.trailers) == (b"", [])


def test_a_chunk_line_cut_by_a_block_is_handed_out_alone() -> None:
    parser = RequestParser()
    parser.feed(CHUNKED_HEAD + b"5;a")
    parser.next()
    assert parser.next() is None
    parser.feed(b"=b\r\nhel")
    line, data = events_of(parser)
    assert isinstance(line, Data) and (line.raw, line.payload) == (b"5;a=b\r\n", b"")
    assert isinstance(data, Data) and (data.raw, data.payload) == (b"hel", b"hel")
    parser.feed(b"lo\r")
    assert [event.raw for event in events_of(parser)] == [b"lo"]
    parser.feed(b"\n0\r\nX: y\r\n\r")
    assert [event.raw for event in events_of(parser)] == [b"\r\n"]
    parser.feed(b"\n")
    end = parser.next()
    assert isinstance(end, End) and (end.raw, end.trailers) == (b"0\r\nX: y\r\n\r\n", [(b"x", b"y")])


# -- state


def test_what_was_refused_stays_refused_and_holds_nothing() -> None:
    parser = RequestParser()
    parser.feed(b"GET / HTTP/2.0\r\n\r\n" + bytes(1000))
    for _ in range(3):
        with pytest.raises(ProtocolError) as error:
            parser.next()
        assert error.value.status == 505
        parser.feed(lines(b"Host: h"))
        assert parser.buffered == 0
    parser.eof()


def test_mid_message_and_buffered() -> None:
    parser = RequestParser()
    assert (parser.mid_message, parser.buffered) == (False, 0)
    parser.feed(b"\r\n")
    assert parser.next() is None
    assert (parser.mid_message, parser.buffered) == (False, 2)
    parser.feed(b"P")
    assert parser.mid_message
    assert parser.next() is None
    assert (parser.mid_message, parser.buffered) == (True, 3)
    parser.feed(b"UT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
    assert len(events_of(parser)) == 2
    assert (parser.mid_message, parser.buffered) == (True, 0)
    parser.feed(b"b")
    assert isinstance(parser.next(), Data) and parser.mid_message
    assert isinstance(parser.next(), End) and not parser.mid_message


@pytest.mark.parametrize(
    "cut", [b"G", b"\r", lines(b"Host: h")[:-1], CHUNKED_HEAD, CHUNKED_HEAD + b"5\r\nhel", CHUNKED_HEAD + b"0\r\n"]
)
def test_a_close_inside_a_request_is_an_error(cut: bytes) -> None:
    asked = RequestParser()
    asked.feed(cut)
    events_of(asked)
    with pytest.raises(ProtocolError, match="cut short"):
        asked.eof()
    with pytest.raises(ProtocolError, match="cut short"):
        asked.next()
    not_yet_asked = RequestParser()
    not_yet_asked.feed(cut)
    not_yet_asked.eof()
    with pytest.raises(ProtocolError, match="cut short"):
        events_of(not_yet_asked)


@pytest.mark.parametrize(
    "whole", [b"", b"\r\n", lines(b"Host: h"), lines(b"Host: h") + b"\r\n", CHUNKED_HEAD + LAST_CHUNK]
)
def test_a_close_between_requests_is_none(whole: bytes) -> None:
    asked = RequestParser()
    asked.feed(whole)
    events = events_of(asked)
    asked.eof()
    assert asked.next() is None
    not_yet_asked = RequestParser()
    not_yet_asked.feed(whole)
    not_yet_asked.eof()
    assert len(events_of(not_yet_asked)) == len(events)
    with pytest.raises(ValueError, match="after eof"):
        asked.feed(b"x")


def test_a_close_between_the_last_byte_and_the_end_event_is_no_error() -> None:
    parser = RequestParser()
    parser.feed(lines(b"Host: h"))
    assert isinstance(parser.next(), RequestHead)
    parser.eof()
    assert isinstance(parser.next(), End)
    assert parser.next() is None and not parser.mid_message


def test_take_gives_up_what_is_held() -> None:
    parser = RequestParser()
    parser.feed(lines(b"Host: h", first=b"CONNECT h:443 HTTP/1.1") + b"\x16\x03")
    assert isinstance(parser.next(), RequestHead) and isinstance(parser.next(), End)
    parser.feed(b"\x01")
    assert parser.take() == b"\x16\x03\x01"
    assert (parser.buffered, parser.take()) == (0, b"")


# -- responses


def test_a_response_head_is_handed_out_verbatim_and_split() -> None:
    data = b"HTTP/1.1 404 Not  Found \xe9\r\nServer: x\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n"
    head, _ = response(data)
    assert (head.raw, head.status, head.reason, head.minor) == (data, 404, b"Not  Found \xe9", 1)
    assert head.lines == data.split(b"\r\n")[1:-2]
    assert (head.get(b"set-cookie"), head.count(b"set-cookie"), head.get(b"server")) == (b"a,b", 2, b"x")
    assert (head.framing, head.length, head.keep_alive) == (LENGTH, 0, True)


@pytest.mark.parametrize(
    ("method", "status", "headers", "framing", "length"),
    [
        (b"GET", b"200", [b"Content-Length: 5"], LENGTH, 5),
        (b"GET", b"200", [b"Transfer-Encoding: chunked"], CHUNKED, -1),
        (b"GET", b"200", [], UNTIL_CLOSE, -1),
        (b"GET", b"204", [], NO_BODY, -1),
        (b"GET", b"204", [b"Content-Length: 0"], NO_BODY, -1),
        (b"GET", b"304", [b"Content-Length: 5"], NO_BODY, -1),
        (b"GET", b"304", [b"Transfer-Encoding: chunked"], NO_BODY, -1),
        (b"HEAD", b"200", [b"Content-Length: 5"], NO_BODY, -1),
        (b"HEAD", b"200", [b"Transfer-Encoding: chunked"], NO_BODY, -1),
        (b"HEAD", b"200", [], NO_BODY, -1),
        (b"CONNECT", b"200", [], NO_BODY, -1),
        (b"CONNECT", b"502", [b"Content-Length: 5"], LENGTH, 5),
        (b"CONNECT", b"502", [], UNTIL_CLOSE, -1),
        (b"head", b"200", [b"Content-Length: 5"], LENGTH, 5),
    ],
)
def test_a_response_is_framed_by_rfc_9112_6_3(
    method: bytes, status: bytes, headers: list[bytes], framing: int, length: int
) -> None:
    head, parser = response(lines(*headers, first=b"HTTP/1.1 " + status + b" x"), method)
    assert (head.framing, head.length) == (framing, length)
    assert head.keep_alive is (framing != UNTIL_CLOSE)
    if framing == NO_BODY:
        assert isinstance(parser.next(), End)


@pytest.mark.parametrize(
    "data",
    [
        lines(first=b"HTTP/1.1 101 Switching Protocols"),
        lines(first=b"HTTP/1.1 200"),
        lines(first=b"HTTP/1.1 99 x"),
        lines(first=b"HTTP/1.1 600 x"),
        lines(first=b"HTTP/1.1 2000 x"),
        lines(first=b"HTTP/1.1 +20 x"),
        lines(first=b"HTTP/1.1  200 x"),
        lines(first=b"HTTP/1.1 200 x\0"),
        lines(first=b"HTTP/2.0 200 x"),
        lines(first=b"http/1.1 200 x"),
        lines(first=b"ICY 200 x"),
        b"\r\n" + lines(first=b"HTTP/1.1 200 x"),
        b"HTTP/1.1 200 x\n\n",
        lines(b" a: b", first=b"HTTP/1.1 200 x"),
        lines(b"a : b", first=b"HTTP/1.1 200 x"),
        lines(b"Content-Length: 5", b"Content-Length: 5", first=b"HTTP/1.1 200 x"),
        lines(b"Content-Length: 5", b"Transfer-Encoding: chunked", first=b"HTTP/1.1 200 x"),
        lines(b"Content-Length: x", first=b"HTTP/1.1 304 x"),
        lines(b"Transfer-Encoding: gzip, chunked", first=b"HTTP/1.1 200 x"),
        lines(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 x"),
        lines(b"Content-Length: 5", first=b"HTTP/1.1 204 x"),
        lines(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 204 x"),
        lines(b"Content-Length: 5", first=b"HTTP/1.1 100 x"),
        lines(*[b"A: b"] * (MAX_HEADERS + 1), first=b"HTTP/1.1 200 x"),
        b"x" * MAX_HEAD,
    ],
)
def test_a_bad_response_is_refused(data: bytes) -> None:
    response_refusal(data)


def test_a_tunnel_that_announces_a_body_is_refused() -> None:
    response_refusal(lines(b"Content-Length: 5", first=b"HTTP/1.1 200 x"), b"CONNECT")


def test_bytes_that_answer_no_request_are_refused() -> None:
    parser = ResponseParser()
    parser.feed(lines(b"Content-Length: 0", first=b"HTTP/1.1 200 x"))
    with pytest.raises(ProtocolError, match="no request") as error:
        parser.next()
    assert error.value.status == 502


def test_one_response_is_due_at_a_time() -> None:
    parser = ResponseParser()
    parser.expect(b"GET")
    with pytest.raises(ValueError, match="still due"):
        parser.expect(b"GET")


def test_a_body_may_last_until_the_close() -> None:
    _, parser = response(lines(first=b"HTTP/1.0 200 x") + b"abc")
    data = parser.next()
    assert isinstance(data, Data) and data.payload == b"abc"
    assert parser.next() is None and parser.mid_message
    parser.eof()
    assert isinstance(parser.next(), End)
    assert parser.next() is None and not parser.mid_message


def test_a_server_that_closes_before_it_answers_broke_no_rule() -> None:
    parser = ResponseParser()
    parser.expect(b"GET")
    parser.eof()
    assert parser.next() is None and not parser.mid_message


# -- writing


def test_chunks_are_written_as_they_are_read() -> None:
    parser = RequestParser()
    body = b"".join(bytes(part) for text in (b"hello", b"", b"x" * 20) for part in encode_chunk(text)) + LAST_CHUNK
    parser.feed(CHUNKED_HEAD + body)
    events = events_of(parser)
    assert b"".join(bytes(event.payload) for event in events if isinstance(event, Data)) == b"hello" + b"x" * 20
    assert isinstance(events[-1], End)
    view = memoryview(b"abc")
    assert encode_chunk(view)[1] is view
    assert encode_chunk(b"") == ()


def test_a_head_is_built_from_its_lines() -> None:
    head = request(lines(b"Host: h", b"A:b"))
    assert build_head(b"GET / HTTP/1.1", head.lines) == head.raw
    assert build_head(b"HTTP/1.1 200 OK", []) == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("line", [b"", b"A: b\r\nC: d", b"A: b\n", b"\rA: b", b"\r\n"])
def test_a_line_that_would_add_lines_is_not_built_into_a_head(line: bytes) -> None:
    for parts in ((b"GET / HTTP/1.1", [line]), (b"GET / HTTP/1.1", [line, b"A: b"]), (line, [b"A: b"])):
        with pytest.raises(ProtocolError):
            build_head(*parts)
