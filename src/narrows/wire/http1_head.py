"""HTTP/1.1 heads: from the exact bytes of a head to a checked `RequestHead` or `ResponseHead`.

A head is accepted by one regular expression over all of it, then split: what the expression lets through
needs no second look at its bytes. Nothing is repaired. What RFC 9112 forbids, and what it allows but two
readers could take in two ways, is refused; `http1_refuse` finds the words for it, off the hot path.

Rules beyond the RFC's grammar, each because somebody reads it differently: `Transfer-Encoding` is exactly
`chunked`, in that spelling; a repeated `Content-Length` is refused even when the values agree; a fragment
never comes in a target; `Host` is a name or address with an optional port; an absolute or authority form
names the same host as `Host` does.
"""

from __future__ import annotations

import re
from typing import Final

from narrows.core.errors import ProtocolError
from narrows.wire.shape import Headers, Shape
from narrows.wire.shape import of as shape_of

MAX_HEAD: Final = 65536
"""Default limit of a head, and of a trailer section, in bytes, the empty line included."""
MAX_HEADERS: Final = 200
"""Limit of the number of header lines, and of trailer lines."""
MAX_TARGET: Final = 32768
"""Limit of a request target, in bytes."""
MAX_LENGTH: Final = (1 << 63) - 1
"""Limit of a Content-Length and of a chunk size: beyond it other implementations overflow."""

SWITCHING: Final = b"GET, switching"
"""Instead of the method, of a GET that asks to switch protocols: only then is 101 an answer to it (RFC 9110 15.2.2)."""

NO_BODY: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3

# Possessive quantifiers: no byte is looked at twice, so a hostile head costs no more than a good one.
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
FIELDS: Final = rb"(?:" + TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n)*+"
# RFC 3986, and of what it excludes the characters that WHATWG URL parsers (Node, browsers) leave alone.
_ORIGIN: Final = rb"/[!$-;=@-\[\]_a-z|~]*+(?:\?[!$-;=?-~]*+)?+"

_REQUEST: Final = re.compile(
    rb"(?:\r\n)?+(" + TOKEN + rb"++) (?:(" + _ORIGIN + rb")|([!-~]++)) HTTP/1\.([01])\r\n" + FIELDS + rb"\r\n"
)
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,64}\]|[0-9A-Za-z._\-]{1,255})(?::([0-9]{1,5}))?")
_ABSOLUTE: Final = re.compile(
    rb"([Hh][Tt][Tt][Pp][Ss]?)://([0-9A-Za-z._\-\[\]:]++)(?:" + _ORIGIN + rb"|\?[!$-;=?-~]*+)?+"
)
_OPTION: Final = re.compile(TOKEN + rb"+")
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb"++) (?:(" + _ORIGIN + rb")|([!-~]++)) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*+)")
_OF_VALUES: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""The bytes that a field's value may have (RFC 9110 section 5.5)."""

FORBIDDEN_TRAILERS: Final = frozenset(
    (
        b"authorization", b"connection", b"content-length", b"cookie", b"expect", b"host", b"keep-alive",
        b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"set-cookie", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""Fields of framing, routing, connection and authentication: never in a trailer (RFC 9110 6.5.1)."""

_MAX_KNOWN: Final = 4096
_MAX_KNOWN_LINE: Final = 192
_NEVER_KNOWN: Final = frozenset(
    (
        b"amz-sdk-invocation-id", b"authorization", b"cookie", b"date", b"etag", b"proxy-authorization", b"set-cookie",
        b"x-amz-date", b"x-amz-id-2", b"x-amz-request-id", b"x-amz-security-token", b"x-amzn-requestid", b"x-api-key",
        b"x-goog-api-key",
    )
)  # fmt: skip
"""Not kept: what differs with every message, and what should not stay in memory for longer than its message."""
_known: dict[bytes, tuple[bytes, bytes]] = {}
"""Well-formed field lines seen lately, already split: clients and servers repeat most of theirs with every message."""
_names: dict[bytes, bytes] = {}
"""Well-formed field names seen lately, and their lower-case forms."""
_MAX_NAMES: Final = 1024

_NOT_AN_OPTION: Final = frozenset((b"content-length", b"transfer-encoding", b"host", b"authorization"))

class Head:
    """What the two heads have in common.

    `minor`: of the version, 0 or 1. `headers`: (lower-cased name, value without surrounding spaces and tabs), in
    the order received. `lines`: the same lines as received, without CRLF, parallel to `headers`. `raw`: the whole
    head as received, empty line included. `framing`: how the body is delimited; `length`: its bytes if that is
    LENGTH, else -1. `keep_alive`: what this head says about the connection after this message.

    The repr shows no target and no header: they carry credentials.
    """

    __slots__ = ("framing", "headers", "keep_alive", "length", "lines", "minor", "raw", "shape")

    minor: int
    headers: Headers
    lines: list[bytes]
    raw: bytes
    framing: int
    length: int
    keep_alive: bool
    shape: Shape

    def get(self, name: bytes) -> bytes | None:
        """The value of a field by its lower-cased name, None if absent; repeated fields joined with `,` in order."""
        at = self.shape.index.get(name)
        if at is None:
            return None
        if self.shape.distinct:
            return self.headers[at][1]
        return b",".join([value for other, value in self.headers if other == name])

    def count(self, name: bytes) -> int:
        """How many lines carry this lower-cased name."""
        return self.shape.names.count(name)


class RequestHead(Head):
    """A request's head. `target` is exactly as received; `upgrade` is the Upgrade header's value or empty.

    `expect_continue`: the client waits for a 100 response before it sends the body (HTTP/1.1 only).
    """

    __slots__ = ("expect_continue", "method", "target", "upgrade")

    def __init__(
        self, raw: bytes, method: bytes, target: bytes, minor: int, headers: Headers, lines: list[bytes]
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.lines = lines
        self.framing = NO_BODY
        self.length = -1
        self.keep_alive = minor == 1
        self.expect_continue = False
        self.upgrade = b""
        self.shape = shape_of(headers)

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {len(self.headers)} headers, {len(self.raw)} bytes>"


class ResponseHead(Head):
    """A response's head. An informational one (1xx) is followed by the next head, without an End."""

    __slots__ = ("reason", "status")

    def __init__(
        self, raw: bytes, status: int, reason: bytes, minor: int, headers: Headers, lines: list[bytes]
    ) -> None:
        self.raw = raw
        self.status = status
        self.reason = reason
        self.minor = minor
        self.headers = headers
        self.lines = lines
        self.framing = NO_BODY
        self.length = -1
        self.keep_alive = minor == 1
        self.shape = shape_of(headers)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {len(self.headers)} headers, {len(self.raw)} bytes>"


def parse_request(buffer: bytes, start: int, max_head: int) -> RequestHead | None:
    """The request head that begins at `start`, or None if no well-formed head of `max_head` bytes lies there.

    None says nothing about why (cut short, malformed or too large). Raises ProtocolError where the head is
    well-formed and must be refused for what it says. A single CRLF before the request line belongs to the head
    (RFC 9112 2.2).
    """
    end = buffer.find(b"\r\n\r\n", start, start + max_head) + 4
    if end < 4:
        return None
    raw = buffer if start == 0 and end == len(buffer) else buffer[start:end]
    lines = raw.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        if lines[0]:
            return None
        match = _REQUEST.match(buffer, start, start + max_head)  # with an empty line before it
        if match is None:
            return None
        raw = buffer[start : match.end()]
        lines = raw.split(b"\r\n")
        del lines[0]
    del lines[0], lines[-2:]
    if len(lines) > MAX_HEADERS:
        raise too_many_headers()
    headers = split_fields(lines)
    if headers is None:
        return None
    method, target, other, minor = match.groups()
    head = RequestHead(raw, method, target or other, 1 if minor == b"1" else 0, headers, lines)
    _judge_request(head, other is not None)
    return head


def parse_response(buffer: bytes, start: int, max_head: int, method: bytes) -> ResponseHead | None:
    """The head at `start` of the response to a request of `method`; as `parse_request` otherwise."""
    end = buffer.find(b"\r\n\r\n", start, start + max_head) + 4
    if end < 4:
        return None
    raw = buffer if start == 0 and end == len(buffer) else buffer[start:end]
    lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        return None
    del lines[0], lines[-2:]
    if len(lines) > MAX_HEADERS:
        raise too_many_headers()
    headers = split_fields(lines)
    if headers is None:
        return None
    minor, status, reason = match.groups()
    head = ResponseHead(raw, int(status), reason, 1 if minor == b"1" else 0, headers, lines)
    _judge_response(head, method)
    return head


def split_fields(lines: list[bytes]) -> Headers | None:
    """Split field lines into (lower-cased name, value without surrounding spaces and tabs); None if one is malformed.

    A line that was well-formed before is not looked through again, and a value's bytes are checked by taking all
    good ones away: a regular expression over the whole head costs several times as much.
    """
    headers: Headers = []
    known = _known
    fresh: list[bytes] = []
    values: list[bytes] = []
    for line in lines:
        field = known.get(line)
        if field is None:
            name, colon, value = line.partition(b":")
            lower = _names.get(name)
            if lower is None:
                lower = _new_name(name)
            if not lower or not colon:
                return None
            # strip() also takes line breaks and form feeds, which a well-formed line does not have.
            field = (lower, value.strip())
            values.append(value)
            if len(line) <= _MAX_KNOWN_LINE and lower not in _NEVER_KNOWN:
                fresh.append(line)
        headers.append(field)
    if b"".join(values).translate(None, _OF_VALUES):
        return None
    for line in fresh:
        if len(known) >= _MAX_KNOWN:
            known.clear()
        name, _, value = line.partition(b":")
        known[line] = (name.lower(), value.strip())
    return headers


def _new_name(name: bytes) -> bytes:
    """The lower-case form of a field name; empty if it is not a token."""
    if _OPTION.fullmatch(name) is None:
        return b""
    if len(_names) >= _MAX_NAMES:
        _names.clear()
    if len(name) <= _MAX_KNOWN_LINE:
        _names[name] = name.lower()
    return name.lower()


def _judge_request(head: RequestHead, other_form: bool) -> None:
    """Decide framing and connection of a well-formed request head, or refuse it."""
    names = head.shape.index
    if len(head.target) > MAX_TARGET:
        raise target_too_long()
    host = head.get(b"host") if b"host" in names else None
    if host is None:
        if head.minor == 1:
            raise ProtocolError("The request was refused", "it has no Host header")
    elif _HOST.fullmatch(host) is None:
        # Several Host headers too: joined they have a comma, which no host has.
        raise ProtocolError("The request was refused", "its Host header is not one host with an optional port")
    if other_form or head.method == b"CONNECT":
        _judge_target(head.method, head.target, host)
    if b"content-length" in names or b"transfer-encoding" in names:
        _judge_framing(head)
        if head.method == b"CONNECT" and head.length != 0:
            raise ProtocolError("The request was refused", "a CONNECT request has no body")
    options = head.get(b"connection") if b"connection" in names else None
    if options is not None:
        head.keep_alive = _judge_connection(options, head.minor)
    expect = head.get(b"expect") if b"expect" in names else None
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise ProtocolError("The request was refused", "it expects something unknown", status=417)
        head.expect_continue = head.minor == 1
    upgrade = head.get(b"upgrade") if b"upgrade" in names else None
    if upgrade is not None:
        head.upgrade = upgrade


def _judge_response(head: ResponseHead, method: bytes) -> None:
    """Decide framing and connection of a well-formed response head (RFC 9112 6.3), or refuse it."""
    names = head.shape.index
    status = head.status
    framed = b"content-length" in names or b"transfer-encoding" in names
    if framed:
        _judge_framing(head)
    if status == 101 and method != SWITCHING:
        raise ProtocolError("The response was refused", "it switches protocols, which was not asked for")
    if status < 200 or status == 204 or (method == b"CONNECT" and status < 300):
        # No body follows whatever the head says: where it announces one, two readers disagree.
        if framed and head.length != 0:
            raise ProtocolError("The response was refused", "it announces a body that its status cannot have")
        head.framing = NO_BODY
        head.length = -1
    elif status == 304 or method == b"HEAD":
        head.framing = NO_BODY
        head.length = -1
    elif not framed:
        head.framing = UNTIL_CLOSE
    options = head.get(b"connection") if b"connection" in names else None
    if options is not None:
        head.keep_alive = _judge_connection(options, head.minor)
    if head.framing == UNTIL_CLOSE:
        head.keep_alive = False


def _judge_framing(head: Head) -> None:
    """Read Content-Length and Transfer-Encoding into `framing` and `length` (RFC 9112 6.3), or refuse."""
    coding = head.get(b"transfer-encoding")
    length = head.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise ProtocolError("The message was refused", "it has both Content-Length and Transfer-Encoding")
        if head.minor == 0:
            raise ProtocolError("The message was refused", "HTTP/1.0 has no Transfer-Encoding")
        if not head.shape.distinct and head.count(b"transfer-encoding") > 1:
            raise ProtocolError("The message was refused", "it has several Transfer-Encoding headers")
        if coding != b"chunked":
            raise ProtocolError("The message was refused", "its Transfer-Encoding is not exactly `chunked`", status=501)
        head.framing = CHUNKED
    elif length is not None:
        if not head.shape.distinct and head.count(b"content-length") > 1:
            raise ProtocolError("The message was refused", "it has several Content-Length headers")
        if not length.isdigit() or len(length) > 19 or int(length) > MAX_LENGTH:
            raise ProtocolError("The message was refused", "its Content-Length is not a number below 2^63")
        head.framing = LENGTH
        head.length = int(length)


def _judge_connection(value: bytes, minor: int) -> bool:
    """Whether the connection persists (RFC 9112 9.3); refuses options that name fields of the message."""
    options = value.lower()
    if options == b"keep-alive":
        return True
    if options == b"close":
        return False
    keep = minor == 1
    close = False
    for item in options.split(b","):
        option = item.strip()
        if option == b"close":
            close = True
        elif option == b"keep-alive":
            keep = True
        elif option in _NOT_AN_OPTION:
            raise ProtocolError("The message was refused", "its Connection header names a field of the message")
        elif option and _OPTION.fullmatch(option) is None:
            raise ProtocolError("The message was refused", "its Connection header is not a list of tokens")
    return keep and not close


def _judge_target(method: bytes, target: bytes, host: bytes | None) -> None:
    """Check a target that is not in origin form (RFC 9112 3.2.2 to 3.2.4) against its method and Host."""
    port = b""
    if method == b"CONNECT":
        authority = _HOST.fullmatch(target)
        if authority is None or authority[2] is None:
            raise ProtocolError("The request was refused", "a CONNECT target is a host and a port")
    elif target == b"*":
        if method != b"OPTIONS":
            raise ProtocolError("The request was refused", "only OPTIONS may have the target `*`")
        return
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        authority = None if absolute is None else _HOST.fullmatch(absolute[2])
        if absolute is None or authority is None:
            raise ProtocolError(
                "The request was refused",
                "its target is not a path, nor an http URL without user information",
            )
        port = b"443" if absolute[1].lower() == b"https" else b"80"
    if host is None:
        return
    named = _HOST.fullmatch(host)
    if named is None or named[1].lower() != authority[1].lower():
        raise ProtocolError("The request was refused", "its target and its Host header name different hosts")
    if named[2] is not None and int(named[2]) != int(authority[2] or port):
        raise ProtocolError("The request was refused", "its target and its Host header name different ports")


def too_many_headers() -> ProtocolError:
    """The error for more than MAX_HEADERS lines."""
    return ProtocolError("The message was refused", f"it has more than {MAX_HEADERS} header lines", status=431)


def target_too_long() -> ProtocolError:
    """The error for a target beyond MAX_TARGET."""
    return ProtocolError("The request was refused", f"its target is longer than {MAX_TARGET} bytes", status=414)
