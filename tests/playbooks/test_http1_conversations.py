"""HTTP/1.1 as conversations: what the peer sends, and at once below it what must come out.

`says` feeds bytes, `gives` states all events that follow (a difference is shown line by line), `refuses` the status
of the refusal. Events that nobody stated fail the talk at its next step.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire.http1 import Data, End, RequestHead, RequestParser, ResponseHead, ResponseParser

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Talk:
    """One direction of a connection, played step by step."""

    def __init__(self, parser: RequestParser | ResponseParser) -> None:
        self.parser = parser

    def expect(self, method: bytes) -> Talk:
        assert isinstance(self.parser, ResponseParser)
        self.parser.expect(method)
        return self

    def says(self, data: bytes) -> Talk:
        assert list(self._events()) == [], "events came that the talk does not state"
        self.parser.feed(data)
        return self

    def gives(self, *expected: str) -> Talk:
        assert list(self._events()) == list(expected)
        return self

    def gives_first(self, *expected: str) -> Talk:
        """The next events, however many follow."""
        events = self._events()
        assert [next(events, "nothing") for _ in expected] == list(expected)
        return self

    def refuses(self, status: int, word: str) -> Talk:
        with pytest.raises(ProtocolError, match=word) as error:
            self.parser.next()
        assert error.value.status == status
        return self

    def closes(self) -> Talk:
        assert list(self._events()) == [], "events came that the talk does not state"
        self.parser.eof()
        return self

    def cut(self) -> Talk:
        assert list(self._events()) == [], "events came that the talk does not state"
        with pytest.raises(ProtocolError, match="cut short"):
            self.parser.eof()
        return self

    def rests(self) -> None:
        """The talk is over and the connection between two messages."""
        self.gives()
        assert not self.parser.mid_message
        assert self.parser.buffered == 0

    def _events(self) -> Iterator[str]:
        while (event := self.parser.next()) is not None:
            yield shown(event)


def shown(event: RequestHead | ResponseHead | Data | End) -> str:
    """An event as a line of a talk: framing that is not body stands in brackets."""
    if isinstance(event, RequestHead):
        marks = [mark for mark, on in (("close", not event.keep_alive), ("expects", event.expect_continue)) if on]
        return " ".join([event.method.decode(), event.target.decode(), *marks])
    if isinstance(event, ResponseHead):
        return " ".join([str(event.status), event.reason.decode(), *([] if event.keep_alive else ["close"])])
    if isinstance(event, Data):
        raw, payload = bytes(event.raw), bytes(event.payload)
        return f"data {payload.decode()!r}" + (f" in {raw.decode()!r}" if raw != payload else "")
    trailers = ", ".join(f"{name.decode()}={value.decode()}" for name, value in event.trailers)
    return "end" + (f" {event.raw.decode()!r}" if event.raw else "") + (f" with {trailers}" if trailers else "")


def client() -> Talk:
    return Talk(RequestParser())


def server(*methods: bytes) -> Talk:
    talk = Talk(ResponseParser())
    return talk.expect(methods[0]) if methods else talk


# -- clients


def test_boto3_lists_and_the_connection_is_used_again() -> None:
    signed = (
        b"GET /?list-type=2 HTTP/1.1\r\nHost: b.s3.eu-west-1.amazonaws.com\r\nAccept-Encoding: identity\r\n"
        b"X-Amz-Date: 20261124T120000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=A/b/c, Signature=0\r\n\r\n"
    )
    (
        client()
        .says(signed)
        .gives("GET /?list-type=2", "end")
        .says(signed[:50])
        .gives()
        .says(signed[50:])
        .gives("GET /?list-type=2", "end")
        .closes()
        .rests()
    )


def test_boto3_puts_with_expect_and_a_checksum_trailer_inside_aws_chunks() -> None:
    """HTTP chunks around aws-chunks: the codec decodes the outer framing only, and waits for nothing."""
    (
        client()
        .says(
            b"PUT /k HTTP/1.1\r\nHost: b.s3.amazonaws.com\r\nExpect: 100-continue\r\nContent-Encoding: aws-chunked\r\n"
            b"Transfer-Encoding: chunked\r\nX-Amz-Trailer: x-amz-checksum-crc32\r\n\r\n"
        )
        .gives("PUT /k expects")
        .says(b"a\r\n5\r\nhello\r\n\r\n")
        .gives("data '5\\r\\nhello\\r\\n' in 'a\\r\\n5\\r\\nhello\\r\\n\\r\\n'")
        .says(b"18\r\n0\r\nx-amz-trailer:a==\r\n\r\n")
        .gives("data '0\\r\\nx-amz-trailer:a==\\r\\n\\r\\n' in '18\\r\\n0\\r\\nx-amz-trailer:a==\\r\\n\\r\\n'")
        .says(b"\r\n0\r\n\r\n")
        .gives("data '' in '\\r\\n'", "end '0\\r\\n\\r\\n'")
        .rests()
    )


def test_a_client_pipelines_and_the_third_request_is_bad() -> None:
    """What is good before the fault is given out; nothing after it ever is."""
    (
        client()
        .says(
            b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
            b"GET /3 HTTP/1.1\r\nHost : h\r\n\r\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        .gives_first("POST /1", "data 'ab'", "end", "GET /2", "end")
        .refuses(400, "before its colon")
        .refuses(400, "before its colon")
    )


def test_a_body_that_reads_like_a_request_stays_a_body() -> None:
    inner = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    (
        client()
        .says(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
        .gives("POST /", f"data {inner.decode()!r}", "end")
        .rests()
    )


def test_an_old_client_sends_a_line_break_after_its_body() -> None:
    (
        client()
        .says(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab\r\n")
        .gives("POST / close", "data 'ab'", "end")
        .closes()
        .gives()
    )


def test_a_proxy_client_opens_a_tunnel_and_speaks_tls_at_once() -> None:
    talk = client().says(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n\x16\x03\x01")
    talk.gives_first("CONNECT api.example.com:443", "end")
    assert talk.parser.take() == b"\x16\x03\x01"
    talk.rests()


def test_a_slow_client_drips_its_head() -> None:
    talk = client()
    head = b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"
    for at in range(len(head) - 1):
        talk.says(head[at : at + 1]).gives()
        assert talk.parser.mid_message
    talk.says(b"\n").gives("GET /slow", "end").rests()


def test_a_client_goes_away_in_its_body() -> None:
    (
        client()
        .says(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        .gives("PUT /", "data 'abc'")
        .cut()
        .refuses(400, "cut short")
    )


def test_a_smuggler_hides_a_request_behind_two_framings() -> None:
    (
        client()
        .says(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        .refuses(400, "both")
    )


# -- servers


def test_a_server_says_continue_and_then_answers() -> None:
    (
        server(b"PUT")
        .says(CONTINUE)
        .gives("100 Continue")
        .says(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n")
        .gives("200 OK", "end")
        .rests()
    )


def test_a_server_gives_hints_and_the_answer_in_one_piece() -> None:
    (
        server(b"GET")
        .says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .gives("103 Early Hints", "200 OK", "data 'ok'", "end")
        .rests()
    )


def test_a_stream_of_events_passes_chunk_by_chunk() -> None:
    """Each chunk goes on with its own line end: a reader that waits for it is not kept waiting."""
    (
        server(b"POST")
        .says(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .gives("200 OK")
        .says(b"9\r\ndata: a\n\n\r\n")
        .gives("data 'data: a\\n\\n' in '9\\r\\ndata: a\\n\\n\\r\\n'")
        .says(b"9\r\ndata: b\n\n")
        .gives("data 'data: b\\n\\n' in '9\\r\\ndata: b\\n\\n'")
        .says(b"\r\n")
        .gives("data '' in '\\r\\n'")
        .says(b"0\r\nServer-Timing: x\r\n\r\n")
        .gives("end '0\\r\\nServer-Timing: x\\r\\n\\r\\n' with server-timing=x")
        .rests()
    )


def test_heads_without_bodies_announce_lengths() -> None:
    talk = server(b"HEAD").says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").gives("200 OK", "end")
    talk.expect(b"GET").says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n")
    talk.gives("304 Not Modified", "end")
    talk.expect(b"DELETE").says(b"HTTP/1.1 204 No Content\r\n\r\n").gives("204 No Content", "end").rests()


def test_an_old_server_ends_its_body_by_closing() -> None:
    (
        server(b"GET")
        .says(b"HTTP/1.0 200 OK\r\n\r\nsome")
        .gives("200 OK close", "data 'some'")
        .says(b" more")
        .gives("data ' more'")
        .closes()
        .gives("end")
        .rests()
    )


def test_a_server_is_cut_off_inside_a_chunk() -> None:
    (
        server(b"GET")
        .says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        .gives("200 OK", "data 'hel' in '5\\r\\nhel'")
        .cut()
        .refuses(502, "cut short")
    )


def test_a_server_sends_more_than_it_announced() -> None:
    """The rest must never become the answer to the next request on a pooled connection."""
    talk = server(b"GET").says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 Forged\r\n\r\n")
    talk.gives_first("200 OK", "data 'ok'", "end")
    assert talk.parser.buffered > 0, "what a pool looks at before it uses the connection again"
    talk.refuses(502, "no request").refuses(502, "no request")


def test_a_server_answers_before_it_is_asked() -> None:
    server().says(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").refuses(502, "no request")


def test_a_server_switches_protocols_unasked() -> None:
    (
        server(b"GET")
        .says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        .refuses(502, "switches protocols")
    )


def test_a_tunnel_opens_or_is_denied() -> None:
    talk = server(b"CONNECT").says(b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03")
    talk.gives_first("200 Connection established", "end")
    assert talk.parser.take() == b"\x16\x03"
    denied = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    server(b"CONNECT").says(denied).gives("403 Forbidden", "data 'no'", "end").rests()
