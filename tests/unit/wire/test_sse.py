"""Server-sent events, by the rules of the standard's section on interpreting a stream."""

from __future__ import annotations

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire.sse import Event, Parser


def parse(*pieces: bytes) -> list[Event]:
    parser = Parser()
    out: list[Event] = []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next()) is not None:
            out.append(event)
    return out


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end(end: bytes) -> None:
    stream = b"event: add" + end + b"data: 73" + end + b"data:  857" + end + end + b": ping" + end + b"data" + end + end
    assert parse(stream) == [Event("add", "73\n 857"), Event("", "")]


def test_a_line_end_that_falls_between_two_reads() -> None:
    assert parse(b"data: a\r", b"\n\r", b"\ndata: b\n\n") == [Event("", "a"), Event("", "b")]


def test_a_byte_order_mark_stands_only_at_the_start() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [Event("", "a")]


def test_ids_stay_and_names_do_not() -> None:
    assert parse(b"id: 7\nevent: x\ndata: a\n\ndata: b\nid: 8\x00\n\nretry: 10\nevent: lost\n\ndata: c\n\n") == [
        Event("x", "a", "7"),
        Event("", "b", "7"),
        Event("", "c", "7"),
    ]


def test_a_character_that_is_cut_in_two() -> None:
    text = "data: Grüße 🙂\n\n".encode()
    assert parse(*(text[i : i + 1] for i in range(len(text)))) == [Event("", "Grüße 🙂")]
    assert parse(b"data: \xff\n\n") == [Event("", "�")]


def test_what_is_left_at_the_end_is_given_only_when_asked_for() -> None:
    parser = Parser()
    parser.feed(b"event: delta\ndata: {}")
    assert parser.next() is None
    assert parser.finish() == Event("delta", "{}")
    assert parser.finish() is None


def test_limits_at_the_limit() -> None:
    parser = Parser(max_line=10, max_event=8)
    parser.feed(b"data: 1234\n\n")
    assert parser.next() == Event("", "1234")
    parser.feed(b"data: 12345\n\n")
    with pytest.raises(ProtocolError, match="line"):
        parser.next()
    with pytest.raises(ProtocolError, match="line"):
        parser.next()
    parser = Parser(max_line=10, max_event=8)
    parser.feed(b"data: 1\n\ndata: 1234\ndata: 1\n\n")
    assert parser.next() == Event("", "1")
    with pytest.raises(ProtocolError, match="event is too long"):
        parser.next()
    unended = Parser(max_line=10)
    unended.feed(b"x" * 11)
    with pytest.raises(ProtocolError, match="line"):
        unended.next()
