"""The handshake: only what both sides said makes a WebSocket."""

from __future__ import annotations

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire.websocket_deflate import Deflate
from narrows.wire.websocket_handshake import Agreed, Asked, accept, answered, asks, opening

Headers = list[tuple[bytes, bytes]]
REQUEST: Headers = [
    (b"Host", b"example.com"), (b"Upgrade", b"websocket"), (b"Connection", b"keep-alive, Upgrade"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="), (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Extensions", b"permessage-deflate"), (b"Sec-WebSocket-Protocol", b"chat, superchat"),
]  # fmt: skip
ANSWER: Headers = [
    (b"upgrade", b"WebSocket"), (b"connection", b"upgrade"), (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
]  # fmt: skip


def with_(headers: Headers, name: bytes, *values: bytes) -> Headers:
    return [one for one in headers if one[0].lower() != name.lower()] + [(name, value) for value in values]


def test_the_example_of_the_rfc() -> None:
    asked = opening(b"GET", REQUEST)
    assert asked == Asked(b"dGhlIHNhbXBsZSBub25jZQ==", "permessage-deflate", ("chat", "superchat"))
    assert accept(asked.key) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answered(asked, 101, ANSWER) == Agreed()
    more = [*ANSWER, (b"Sec-WebSocket-Protocol", b"chat"), (b"Sec-WebSocket-Extensions", b"permessage-deflate")]
    assert answered(asked, 101, more) == Agreed(Deflate(), "chat")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (with_(REQUEST, b"Upgrade", b"h2c"), 400),
        (with_(REQUEST, b"Connection", b"keep-alive"), 400),
        (with_(REQUEST, b"Sec-WebSocket-Version", b"8"), 426),
        (with_(REQUEST, b"Sec-WebSocket-Version"), 426),
        (with_(REQUEST, b"Sec-WebSocket-Key"), 400),
        (with_(REQUEST, b"Sec-WebSocket-Key", b"c2hvcnQ="), 400),
        (with_(REQUEST, b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (with_(REQUEST, b"Sec-WebSocket-Key", b"\xff!"), 400),
    ],
)
def test_openings_that_are_none(headers: Headers, status: int) -> None:
    with pytest.raises(ProtocolError) as error:
        opening(b"GET", headers)
    assert error.value.status == status


def test_only_a_get_asks() -> None:
    assert asks(b"GET", REQUEST)
    assert not asks(b"POST", REQUEST)
    assert not asks(b"GET", with_(REQUEST, b"upgrade"))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, ANSWER),
        (101, with_(ANSWER, b"upgrade", b"h2c")),
        (101, with_(ANSWER, b"connection", b"close")),
        (101, with_(ANSWER, b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")),
        (101, with_(ANSWER, b"sec-websocket-accept")),
        (101, with_(ANSWER, b"sec-websocket-protocol", b"other")),
        (101, with_(ANSWER, b"sec-websocket-extensions", b"permessage-bzip2")),
    ],
)
def test_answers_that_open_nothing(status: int, headers: Headers) -> None:
    with pytest.raises(ProtocolError):
        answered(opening(b"GET", REQUEST), status, headers)
