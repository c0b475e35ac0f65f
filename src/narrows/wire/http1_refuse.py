"""Why a head, a chunk line or a trailer was refused: the slow path that finds the words, never a verdict.

The verdict is the grammar's in `http1_head` and `http1`; each function here is called once that said no, and
always returns an error. An error names a line by its number and never quotes it: lines carry credentials.

The order of the checks keeps an error the same however the bytes were cut into pieces: first the first byte
that no head may hold, which is also found while a head is incomplete, then the size, then the lines in order.
"""

from __future__ import annotations

import re
from typing import Final

from narrows.core.errors import ProtocolError
from narrows.wire.http1_head import (
    FORBIDDEN_TRAILERS,
    MAX_TARGET,
    TOKEN,
    target_too_long,
)

_WRONG_BYTE: Final = re.compile(rb"(\r[^\n])|((?<!\r)\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TOKEN: Final = re.compile(TOKEN + rb"+")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS: Final = re.compile(rb"[0-9]{3}")


def wrong_byte(part: bytes | bytearray, start: int = 0) -> ProtocolError | None:
    """The error for the first byte from `start` on that no head may hold: a control byte, a bare CR or LF.

    A CR at the very end is no error yet: its LF may follow.
    """
    found = _WRONG_BYTE.search(part, start)
    if found is None:
        return None
    if found[1] is not None:
        why = "a CR without LF"
    elif found[2] is not None:
        why = "an LF without CR"
    else:
        why = "a control byte"
    return ProtocolError("The message was refused", f"{why} in a head or trailer")


def too_large(window: bytes, is_request: bool) -> ProtocolError:
    """The error for a head of which `window`, as long as the limit, does not hold the end."""
    if is_request:
        words = window.removeprefix(b"\r\n").split(b"\r\n", 1)[0].split(b" ", 2)
        if len(words) > 1 and len(words[1]) > MAX_TARGET:
            return target_too_long()
    return ProtocolError(
        "The message was refused", f"a head or trailer section is larger than {len(window)} bytes", status=431
    )


def why_request(head: bytes) -> ProtocolError:
    """Why these bytes, up to and with the first empty line, are no request head."""
    wrong = wrong_byte(head)
    if wrong is not None:
        return wrong
    lines = head.removeprefix(b"\r\n").split(b"\r\n")
    words = lines[0].split(b" ")
    what = "The request line is malformed"
    if lines[0] == b"":
        return ProtocolError(what, "it is empty")
    if len(words) != 3:
        return ProtocolError(what, "it is not three words with one space between them")
    if _TOKEN.fullmatch(words[0]) is None:
        return ProtocolError(what, "its method is not a token")
    if _VERSION.fullmatch(words[2]) is None:
        return ProtocolError(what, "its version is not HTTP and two digits")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return ProtocolError("The request was refused", "only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
    if len(words[1]) > MAX_TARGET:
        return target_too_long()
    return _why_fields(lines[1:]) or ProtocolError(what, "its target has bytes that no target may have")


def why_response(head: bytes) -> ProtocolError:
    """Why these bytes, up to and with the first empty line, are no response head."""
    wrong = wrong_byte(head)
    if wrong is not None:
        return wrong
    lines = head.split(b"\r\n")
    words = lines[0].split(b" ", 2)
    what = "The status line is malformed"
    if words[0] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return ProtocolError(what, "it does not begin with HTTP/1.1 or HTTP/1.0")
    if len(words) != 3:
        return ProtocolError(what, "it is not a version, a status and a reason with one space between them")
    if _STATUS.fullmatch(words[1]) is None or not b"100" <= words[1] <= b"599":
        return ProtocolError(what, "its status is not a number from 100 to 599")
    return _why_fields(lines[1:]) or ProtocolError(what, "it does not follow RFC 9112")


def why_trailers(section: bytes) -> ProtocolError:
    """Why these bytes (last chunk line, trailer lines, empty line) are no end of a chunked body."""
    return (
        wrong_byte(section)
        or _why_fields(section.split(b"\r\n")[1:])
        or ProtocolError("The trailers are malformed", "they do not follow RFC 9112")
    )


def forbidden_trailer(names: list[bytes]) -> ProtocolError | None:
    """The error if one of the lower-cased names may not be in a trailer."""
    for name in names:
        if name in FORBIDDEN_TRAILERS:
            return ProtocolError("The message was refused", f"{name.decode()} is not allowed in a trailer")
    return None


def bad_chunk_line() -> ProtocolError:
    """The one error for every fault of a chunk line: it must not depend on how much of the line was there."""
    return ProtocolError(
        "A chunk line is malformed",
        "it is not a size below 2^63 in at most 16 hexadecimal digits, then well-formed extensions"
        " of at most 256 bytes, then CRLF",
    )


def _why_fields(lines: list[bytes]) -> ProtocolError | None:
    """The first fault in field lines; the empty line and what follows it are not looked at."""
    what = "A header line is malformed"
    for number, line in enumerate(lines, 1):
        if not line:
            return None
        if line[0] in b" \t":
            return ProtocolError(what, f"line {number} begins with white space: folded lines are refused")
        name, colon, _ = line.partition(b":")
        if not colon:
            return ProtocolError(what, f"line {number} has no colon")
        if not name:
            return ProtocolError(what, f"line {number} has no name")
        if name[-1] in b" \t":
            return ProtocolError(what, f"line {number} has white space before its colon")
        if _TOKEN.fullmatch(name) is None:
            return ProtocolError(what, f"the name in line {number} is not a token")
    return None
