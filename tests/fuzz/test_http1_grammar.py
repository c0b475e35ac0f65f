"""A head is read line by line: what is taken must be what the grammar, written as one expression, takes."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from narrows.core.errors import ProtocolError
from narrows.wire import http1_head

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
FIELDS = rb"(?:" + TOKEN + rb"+:[\t -~\x80-\xff]*\r\n)*"
REQUEST = re.compile(rb"(?:\r\n)?" + TOKEN + rb"+ [!-~]+ HTTP/1\.[01]\r\n" + FIELDS + rb"\r\n")
RESPONSE = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9] [\t -~\x80-\xff]*\r\n" + FIELDS + rb"\r\n")

NAMES = st.sampled_from(
    [b"Host", b"host", b"X-Amz-Date", b"", b"a b", b"x\x00", b"x:y", b"\xffx", b" x", b"Authorization"]
)
VALUES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"h", b" a.b \t", b"a\rb", b"a\nb", b"a\x7fb", b"\x80\xff", b"a\x0cb", b"", b"\r", b"x" * 250]),
)
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b"", b" : "]), VALUES), max_size=6)
ENDS = st.sampled_from([b"\r\n\r\n", b"\r\n", b"\n\n", b"\r\n\r\n\r\n", b"\r\n\r\nbody"])


def _joined(first: bytes, lines: list[tuple[bytes, bytes, bytes]], end: bytes) -> bytes:
    return b"\r\n".join([first, *[name + colon + value for name, colon, value in lines]]) + end


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]),
    st.sampled_from([b"GET / HTTP/1.1", b"GET  / HTTP/1.1", b"G\x00T / HTTP/1.1", b"", b"GET /\x80 HTTP/1.0"]),
    LINES,
    ENDS,
)
@example(b"", b"GET / HTTP/1.1", [(b"Host", b":", b"h"), (b"Host", b"", b"h")], b"\r\n\r\n")
def test_a_request_head_is_taken_only_if_the_grammar_takes_it(
    before: bytes, first: bytes, lines: list[tuple[bytes, bytes, bytes]], end: bytes
) -> None:
    data = before + _joined(first, [(b"Host", b":", b"h"), *lines], end)
    for _ in range(2):  # again, with the lines known from the first time
        try:
            head = http1_head.parse_request(data, 0, 65536)
        except ProtocolError:
            assert REQUEST.match(data)  # well-formed, and refused for what it says
            continue
        match = REQUEST.match(data)
        assert (head is None) == (match is None)
        if head is not None and match is not None:
            assert head.raw == match.group()


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 600 x", b"HTTP/1.1 200 a\x00"]),
    LINES,
    ENDS,
)
def test_a_response_head_is_taken_only_if_the_grammar_takes_it(
    first: bytes, lines: list[tuple[bytes, bytes, bytes]], end: bytes
) -> None:
    data = _joined(first, lines, end)
    for _ in range(2):
        try:
            head = http1_head.parse_response(data, 0, 65536, b"GET")
        except ProtocolError:
            assert RESPONSE.match(data)
            continue
        match = RESPONSE.match(data)
        assert (head is None) == (match is None)
        if head is not None and match is not None:
            assert head.raw == match.group()
