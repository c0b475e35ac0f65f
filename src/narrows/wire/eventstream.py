"""The binary event stream of AWS (`application/vnd.amazon.eventstream`): decode, encode, and the signed
input form.

Sans-I/O and pure. Sources: Smithy, "Amazon Event Stream Specification"; Amazon Transcribe Developer Guide,
"Event stream encoding" (signed events).

    message = total length u32 | headers length u32 | CRC32 of those 8 bytes
              headers | payload | CRC32 of all before it                          (big endian)
    header  = name length u8 | name | type u8 | value

Guaranteed: whatever bytes come in, the decoder returns or raises ProtocolError, and holds at most one
message. Both checksums are compared; the first one before the lengths are believed. A message encodes back
to the bytes that it was decoded from.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final
from uuid import UUID

from narrows.core.errors import ProtocolError
from narrows.wire import canonical
from narrows.wire.sigv4 import EMPTY_SHA256, MAX_SKEW_S
from narrows.wire.sigv4_claim import AuthError

MAX_HEADERS: Final = 128 * 1024
MAX_PAYLOAD: Final = 24 * 1024 * 1024
_OVERHEAD: Final = 16

TRUE: Final = 0
FALSE: Final = 1
BYTE: Final = 2
SHORT: Final = 3
INTEGER: Final = 4
LONG: Final = 5
BYTES: Final = 6
STRING: Final = 7
TIMESTAMP: Final = 8
"""Milliseconds since the Unix epoch."""
UUID_: Final = 9

_INTEGERS: Final = {BYTE: 1, SHORT: 2, INTEGER: 4, LONG: 8, TIMESTAMP: 8}
_PRELUDE = struct.Struct(">III")
_U32 = struct.Struct(">I")

Value = bool | int | bytes | str | UUID


@dataclass(frozen=True, slots=True)
class Header:
    """A header's type (0 to 9, the constants above) and value. Timestamps are ints."""

    type: int
    value: Value


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Headers keep their order; a name comes once."""

    headers: dict[str, Header]
    payload: bytes

    def text(self, name: str) -> str:
        """The value of a string header (`:event-type`, `:message-type`, ...), or an empty string."""
        header = self.headers.get(name)
        return header.value if header is not None and isinstance(header.value, str) else ""


class Decoder:
    """Decodes a stream. After an error it is dead: it raises ProtocolError whatever it is fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 12
        self._failed = False

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """Take the next bytes, return the messages that they complete. Raises ProtocolError."""
        if self._failed:
            raise _bad("it went on after an error")
        self._failed = True  # stays so if anything below raises
        self._buffer += data
        messages: list[Message] = []
        at = 0
        while len(self._buffer) - at >= self._need:
            if self._need == 12:
                self._need = _prelude(self._buffer, at)
                continue
            messages.append(_message(bytes(memoryview(self._buffer)[at : at + self._need])))
            at += self._need
            self._need = 12
        if at:
            del self._buffer[:at]
        self._failed = False
        return messages

    def finish(self) -> None:
        """Say that no more bytes come. Raises ProtocolError within a message."""
        if self._buffer or self._failed:
            self._failed = True
            raise _bad("it ended within a message")


def decode(data: bytes) -> Message:
    """Decode exactly one message. Raises ProtocolError."""
    if len(data) < _OVERHEAD or _prelude(data, 0) != len(data):
        raise _bad("it is not one whole message")
    return _message(data)


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises ValueError for one that cannot be encoded."""
    headers = encode_headers(message.headers)
    if len(headers) > MAX_HEADERS or len(message.payload) > MAX_PAYLOAD:
        raise ValueError("the message is too long")
    lengths = struct.pack(">II", _OVERHEAD + len(headers) + len(message.payload), len(headers))
    body = b"".join((lengths, _U32.pack(zlib.crc32(lengths)), headers, message.payload))
    return body + _U32.pack(zlib.crc32(body))


def encode_headers(headers: dict[str, Header]) -> bytes:
    """The bytes of a message's headers. Raises ValueError."""
    out: list[bytes] = []
    for name, header in headers.items():
        raw = name.encode()
        if not 1 <= len(raw) <= 255:
            raise ValueError("a header's name is 1 to 255 bytes long")
        out.append(bytes((len(raw),)) + raw + bytes((header.type,)) + _encode_value(header))
    return b"".join(out)


def _encode_value(header: Header) -> bytes:
    kind, value = header.type, header.value
    if kind in (TRUE, FALSE) and value is (kind == TRUE):
        return b""
    if kind in _INTEGERS and isinstance(value, int):
        try:
            return value.to_bytes(_INTEGERS[kind], "big", signed=True)
        except OverflowError as error:
            raise ValueError("a header's number is too large for its type") from error
    if kind == UUID_ and isinstance(value, UUID):
        return value.bytes
    raw: bytes
    if kind == STRING and isinstance(value, str):
        raw = value.encode()
    elif kind == BYTES and isinstance(value, bytes):
        raw = value
    else:
        raise ValueError("a header's value is not of its type")
    if len(raw) > 0xFFFF:
        raise ValueError("a header's value is longer than 65535 bytes")
    return len(raw).to_bytes(2, "big") + raw


def _prelude(buffer: bytes | bytearray, at: int) -> int:
    """Check the prelude at `at`; returns the message's whole length."""
    total, headers, crc = _PRELUDE.unpack_from(buffer, at)
    if zlib.crc32(bytes(buffer[at : at + 8])) != crc:
        raise _bad("a prelude's checksum is wrong")
    if headers > MAX_HEADERS:
        raise _bad(f"a message's headers are longer than {MAX_HEADERS} bytes")
    if total < _OVERHEAD + headers:
        raise _bad("a message is shorter than its headers")
    if total - headers - _OVERHEAD > MAX_PAYLOAD:
        raise _bad(f"a message's payload is longer than {MAX_PAYLOAD} bytes")
    return int(total)


def _message(raw: bytes) -> Message:
    if zlib.crc32(memoryview(raw)[:-4]) != _U32.unpack_from(raw, len(raw) - 4)[0]:
        raise _bad("a message's checksum is wrong")
    end = 12 + int(_U32.unpack_from(raw, 4)[0])
    return Message(_headers(raw, 12, end), raw[end:-4])


def _headers(raw: bytes, at: int, end: int) -> dict[str, Header]:
    headers: dict[str, Header] = {}
    while at < end:
        size = raw[at]
        kind_at = at + 1 + size
        if not size or kind_at >= end:
            raise _bad("a header's name is empty or cut off")
        name = _utf8(raw[at + 1 : kind_at])
        if name in headers:
            raise _bad("a header comes twice")
        kind = raw[kind_at]
        at = kind_at + 1
        if kind in (TRUE, FALSE):
            headers[name] = Header(kind, kind == TRUE)
            continue
        if kind in (BYTES, STRING):
            size = int.from_bytes(raw[at : at + 2], "big")
            at += 2
        elif kind == UUID_:
            size = 16
        else:
            size = _INTEGERS.get(kind, -1)
            if size < 0:
                raise _bad("a header has a type that does not exist")
        if at + size > end:
            raise _bad("a header's value is cut off")
        headers[name] = Header(kind, _value(kind, raw[at : at + size]))
        at += size
    return headers


def _value(kind: int, raw: bytes) -> Value:
    if kind == STRING:
        return _utf8(raw)
    if kind == BYTES:
        return raw
    if kind == UUID_:
        return UUID(bytes=raw)
    return int.from_bytes(raw, "big", signed=True)


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _bad("a header is not UTF-8") from error


def _bad(why: str) -> ProtocolError:
    return ProtocolError("the event stream was not understood", why)


# --- signed events --------------------------------------------------------------------------------

_DATE: Final = ":date"
_SIGNATURE: Final = ":chunk-signature"
_MAX_MS: Final = 253_402_300_799_999


class EventSigner:
    """Signs the events of one input stream (x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-EVENTS).

    Each event is wrapped in a message with `:date` and `:chunk-signature`, chained from the request's
    signature `seed`. `key_for` gives the signing key of a day (yyyymmdd): a stream may run past midnight.
    """

    __slots__ = ("_key_for", "_previous", "_region", "_service")

    def __init__(self, key_for: Callable[[str], bytes], region: str, service: str, seed: str) -> None:
        self._key_for = key_for
        self._region = region
        self._service = service
        self._previous = seed

    def sign(self, payload: bytes, date_ms: int) -> Message:
        """Wrap one event, itself an encoded message; an empty payload ends the stream."""
        date = {_DATE: Header(TIMESTAMP, date_ms)}
        signature = self.signature(date, payload, date_ms)
        return Message({**date, _SIGNATURE: Header(BYTES, signature)}, payload)

    def signature(self, date: dict[str, Header], payload: bytes, date_ms: int) -> bytes:
        """The next signature of the chain, 32 bytes; moves the chain on."""
        amz_date = canonical.amz_date(date_ms // 1000)
        scope = f"{amz_date[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                amz_date,
                scope,
                self._previous,
                sha256(encode_headers(date)).hexdigest(),
                sha256(payload).hexdigest() if payload else EMPTY_SHA256,
            )
        )
        signature = hmac_digest(self._key_for(amz_date[:8]), to_sign.encode(), "sha256")
        self._previous = signature.hex()
        return signature

    def __repr__(self) -> str:
        return "EventSigner()"


class EventVerifier:
    """Verifies the events of one input stream, in order. After an error it is dead."""

    __slots__ = ("_done", "_failed", "_signer")

    def __init__(self, key_for: Callable[[str], bytes], region: str, service: str, seed: str) -> None:
        self._signer = EventSigner(key_for, region, service, seed)
        self._done = False
        self._failed = False

    @property
    def done(self) -> bool:
        """Whether the empty event that ends a stream came."""
        return self._done

    def verify(self, message: Message, now_s: float) -> bytes:
        """The payload of a signed event (an encoded message), or empty bytes for the one that ends the
        stream.

        `now_s` is Unix seconds. Raises ProtocolError for what is not a signed event, AuthError for a wrong
        signature or a date more than 15 minutes away.
        """
        if self._failed or self._done:
            raise _bad("it went on after its end or an error")
        self._failed = True  # stays so if anything below raises
        date, given = message.headers.get(_DATE), message.headers.get(_SIGNATURE)
        if len(message.headers) != 2 or date is None or date.type != TIMESTAMP or not isinstance(date.value, int):
            raise _bad("an event does not have exactly the headers :date and :chunk-signature")
        if given is None or given.type != BYTES or not isinstance(given.value, bytes):
            raise _bad("an event is not signed")
        if not 0 <= date.value <= _MAX_MS:
            raise _bad("an event's date is not a date")
        if abs(now_s - date.value / 1000) > MAX_SKEW_S:
            raise AuthError(
                "RequestTimeTooSkewed",
                "an event's date is too far from the gateway's clock",
                f"they differ by {now_s - date.value / 1000:.0f} s, and {MAX_SKEW_S} s are allowed",
                "set the clock of the machine that signs",
            )
        expected = self._signer.signature({_DATE: date}, message.payload, date.value)
        if not compare_digest(expected, given.value):
            raise AuthError(
                "SignatureDoesNotMatch",
                "an event's signature does not match it",
                "the event was changed on its way, left out, or signed with another key",
                "let no proxy change the stream between the client and the gateway",
                code="event_signature_mismatch",
            )
        self._done = not message.payload
        self._failed = False
        return message.payload
