"""aws-chunked: S3's framing of an uploaded body, decoded and verified chunk by chunk, and made anew.

Sans-I/O and pure. Sources: Amazon S3 API Reference, "Signature calculations for streaming uploads
(chunked)" and "Signature calculations for trailing headers".

    body    = *( size [ ";chunk-signature=" signature ] CRLF data CRLF ) last [ trailers ] CRLF
    last    = "0" [ ";chunk-signature=" signature ] CRLF
    trailer = name ":" value CRLF, and in the signed form at the end "x-amz-trailer-signature:" signature CRLF

One client of note (minio-go) ends trailer lines with LF alone and puts an empty line before the trailers'
signature, or a second one after the trailers: both are taken. All else that does not fit is ProtocolError.

Guaranteed: payload is never held back or copied. A piece of it may therefore be handed out before its chunk
is verified: a wrong signature raises AuthError at the end of its chunk, always before `Done`. Whoever
passes pieces on must not let the receiver take them for a whole body before `Done`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from narrows.core.errors import ProtocolError
from narrows.wire.sigv4 import EMPTY_SHA256, ChunkSigner, PayloadKind
from narrows.wire.sigv4_claim import AuthError

MAX_LINE: Final = 1024
"""Longest chunk header, without its CRLF."""
MAX_CHUNK: Final = 1 << 40
"""Largest size of one chunk."""
MAX_TRAILERS: Final = 16 * 1024
"""All trailer lines together."""

Trailers = list[tuple[bytes, bytes]]

_SIGNED_HEADER = re.compile(rb"([0-9A-Fa-f]{1,16});chunk-signature=([0-9a-f]{64})")
_PLAIN_HEADER = re.compile(rb"([0-9A-Fa-f]{1,16})")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([\x20-\x7e\x80-\xff\t]*)")
_SIGNATURE = re.compile(rb"[0-9a-f]{64}")
_TRAILER_SIGNATURE: Final = b"x-amz-trailer-signature"

_HEADER: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_LAST_END: Final = 3
_TRAILERS: Final = 4
_AFTER: Final = 5
_FAILED: Final = 6


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of payload: a whole chunk or part of one. A view of the bytes that were fed."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """A chunk of `size` bytes is whole, and its signature right where there is one."""

    size: int


@dataclass(frozen=True, slots=True)
class Done:
    """The body is whole and all that is signed is verified. Trailers: lower-case names, in order, no
    signature.
    """

    trailers: Trailers


Event = Chunk | ChunkEnd | Done


class Decoder:
    """Decodes one body. `kind` comes from `Verified.payload`, and must be one of the chunked forms.

    `signer` is seeded with the request's signature; None for the unsigned form only, unless `unverified`
    says that signatures shall be read over (for reading a record, where no key is at hand).
    `decoded_length` is x-amz-decoded-content-length; a body of another length is refused. `declared` are
    the names of x-amz-trailer, lower case: exactly those must come.

    After an error the decoder is dead: it raises ProtocolError whatever it is fed.
    """

    def __init__(
        self,
        kind: PayloadKind,
        signer: ChunkSigner | None,
        decoded_length: int | None,
        declared: frozenset[bytes] = frozenset(),
        *,
        unverified: bool = False,
    ) -> None:
        if not kind.chunked:
            raise ValueError(f"{kind.name} has no chunk framing")
        self._has_signatures = kind is not PayloadKind.STREAMING_UNSIGNED_TRAILER
        if self._has_signatures == (signer is None) and not (unverified and signer is None):
            raise ValueError(f"{kind.name} needs {'a' if self._has_signatures else 'no'} signer")
        self._with_trailers = kind is not PayloadKind.STREAMING_SIGNED
        self._signer = signer
        self._declared = declared
        self._length = decoded_length
        self._total = 0
        self._state = _HEADER
        self._line = bytearray()
        self._size = 0
        self._left = 0
        self._hash = sha256()
        self._signature = b""
        self._trailers: Trailers = []
        self._trailer_bytes = 0
        self._trailer_signature = b""
        self._blank = False

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return self._state == _AFTER

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes. Raises ProtocolError for what is not aws-chunked, AuthError for a wrong
        signature.
        """
        if self._state == _FAILED:
            raise ProtocolError("the aws-chunked body went on after an error")
        events: list[Event] = []
        state, self._state = self._state, _FAILED  # stays so if anything below raises
        view = memoryview(data)
        at = 0
        end = len(data)
        while at < end:
            if state == _DATA:
                piece = view[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if self._signer is not None:
                    self._hash.update(piece)
                events.append(Chunk(piece))
                if not self._left:
                    self._check_chunk()
                    events.append(ChunkEnd(self._size))
                    state = _DATA_END
                continue
            if state == _AFTER:
                self._after(data[at:])
                break
            stop = data.find(b"\n", at)
            self._collect(view[at : end if stop < 0 else stop + 1], state)
            if stop < 0:
                break
            at = stop + 1
            line = bytes(self._line)
            self._line.clear()
            state = self._on_line(state, line, events)
        self._state = state
        return events

    def finish(self) -> None:
        """Say that no more bytes come. Raises ProtocolError if the body is not whole."""
        if self._state != _AFTER or (self._line and bytes(self._line) != b"\r\n"):
            self._state = _FAILED
            raise ProtocolError(
                "the aws-chunked body ended too early", f"{self._total} bytes of payload had come", status=400
            )

    def _collect(self, piece: memoryview, state: int) -> None:
        limit = MAX_TRAILERS - self._trailer_bytes if state == _TRAILERS else MAX_LINE + 2
        if len(self._line) + len(piece) > limit:
            if state == _TRAILERS:
                raise _grammar(f"its trailers are longer than {MAX_TRAILERS} bytes")
            raise _grammar(f"a chunk header is longer than {MAX_LINE} bytes")
        self._line += piece

    def _on_line(self, state: int, line: bytes, events: list[Event]) -> int:
        """Take one line, its LF included; returns the next state."""
        if state == _TRAILERS:
            return self._on_trailer(line, events)
        if line[-2:] != b"\r\n":
            raise _grammar("a line ends with LF alone")
        if state == _HEADER:
            return self._on_header(line[:-2])
        if line != b"\r\n":
            raise _grammar("a chunk is longer than its header says")
        return _HEADER if state == _DATA_END else self._end(events)

    def _on_header(self, line: bytes) -> int:
        match = (_SIGNED_HEADER if self._has_signatures else _PLAIN_HEADER).fullmatch(line)
        if match is None:
            raise _grammar(
                "a chunk header is not " + ("SIZE;chunk-signature=SIGNATURE" if self._has_signatures else "SIZE")
            )
        size = int(match[1], 16)
        if size > MAX_CHUNK:
            raise _grammar(f"a chunk is larger than {MAX_CHUNK} bytes")
        self._total += size
        if self._length is not None and (self._total > self._length or (not size and self._total < self._length)):
            raise _grammar(f"its payload is not the {self._length} bytes that x-amz-decoded-content-length says")
        self._signature = match[2] if self._has_signatures else b""
        self._size = self._left = size
        self._hash = sha256()
        if size:
            return _DATA
        self._check_chunk()
        return _TRAILERS if self._with_trailers else _LAST_END

    def _check_chunk(self) -> None:
        if self._signer is not None and not compare_digest(
            self._signer.sign_chunk(self._hash.hexdigest()).encode(), self._signature
        ):
            raise _mismatch("a chunk's signature does not match its bytes")

    def _on_trailer(self, line: bytes, events: list[Event]) -> int:
        self._trailer_bytes += len(line)
        text = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
        if not text:
            if line == b"\r\n" and self._has_signatures and not self._trailer_signature and not self._blank:
                self._blank = True
                return _TRAILERS
            if line != b"\r\n":
                raise _grammar("its trailers end with LF alone")
            return self._end(events)
        match = _TRAILER.fullmatch(text)
        if match is None:
            raise _grammar("a trailer is not of the form name:value")
        name, value = match[1].lower(), match[2].strip(b" \t")
        if self._trailer_signature:
            raise _grammar("a trailer comes after the trailers' signature")
        if name == _TRAILER_SIGNATURE and self._has_signatures:
            if _SIGNATURE.fullmatch(value) is None:
                raise _grammar("the trailers' signature is not 64 lower-case hexadecimal digits")
            self._trailer_signature = value
            return _TRAILERS
        if self._blank:
            raise _grammar("a trailer comes after an empty line")
        if name not in self._declared:
            raise _grammar("a trailer comes that x-amz-trailer does not name")
        if any(name == before for before, _ in self._trailers):
            raise _grammar("a trailer comes twice")
        self._trailers.append((name, value))
        return _TRAILERS

    def _end(self, events: list[Event]) -> int:
        if len(self._trailers) != len(self._declared):
            raise _grammar("a trailer that x-amz-trailer names did not come")
        if self._has_signatures and self._with_trailers:
            if not self._trailer_signature:
                raise _grammar("x-amz-trailer-signature did not come")
            if self._signer is not None and not compare_digest(
                self._signer.sign_trailer(trailer_digest(self._trailers)).encode(), self._trailer_signature
            ):
                raise _mismatch("the trailers' signature does not match them")
        events.append(Done(self._trailers))
        return _AFTER

    def _after(self, rest: bytes) -> None:
        """One empty line may follow the trailers; nothing else."""
        self._line += rest[:3]
        if not self._with_trailers or not b"\r\n".startswith(self._line):
            raise _grammar("bytes come after its end")


def trailer_digest(trailers: Trailers) -> str:
    """SHA-256 in hex of the trailers as they are signed: `name:value\\n` each, in order."""
    return sha256(b"".join([name + b":" + value + b"\n" for name, value in trailers])).hexdigest()


def _grammar(why: str) -> ProtocolError:
    return ProtocolError("the aws-chunked body was not understood", why)


def _mismatch(what: str) -> AuthError:
    return AuthError(
        "SignatureDoesNotMatch",
        what,
        "the body was changed on its way, or signed with another key",
        "let no proxy change the body between the client and the gateway",
        code="chunk_signature_mismatch",
    )


class Encoder:
    """Frames payload as aws-chunked, each chunk of `chunk_size` bytes but the last; holds back less than
    one chunk.

    `signer` None makes the unsigned form, which always has trailers. `trailer` says whether the form is one
    with trailers (x-amz-content-sha256 ends with -TRAILER).
    """

    def __init__(self, signer: ChunkSigner | None, trailer: bool, chunk_size: int = 65536) -> None:
        if chunk_size < 1 or (signer is None and not trailer):
            raise ValueError("a chunk holds at least one byte, and the unsigned form has trailers")
        self._signer = signer
        self._with_trailers = trailer
        self._chunk_size = chunk_size
        self._held: list[bytes | memoryview] = []
        self._held_size = 0

    def feed(self, payload: bytes | memoryview) -> bytes:
        """The frames that are whole with this payload; the rest is held. A view that was fed is read in
        this call.
        """
        view = memoryview(payload)
        out: list[bytes | memoryview] = []
        at = 0
        while self._held_size + len(view) - at >= self._chunk_size:
            take = self._chunk_size - self._held_size
            self._chunk([*self._held, view[at : at + take]], self._chunk_size, out)
            at += take
            self._held = []
            self._held_size = 0
        if at < len(view):
            self._held.append(bytes(view[at:]))
            self._held_size += len(view) - at
            if len(self._held) > 64:
                self._held = [b"".join(self._held)]
        return b"".join(out)

    def finish(self, trailers: Trailers | None = None) -> bytes:
        """The last frames: what is held, the empty chunk, and the trailers, whose names are lower case."""
        if trailers and not self._with_trailers:
            raise ValueError("this form has no trailers")
        out: list[bytes | memoryview] = []
        if self._held_size:
            self._chunk(self._held, self._held_size, out)
            self._held = []
            self._held_size = 0
        out.append(self._header(0, EMPTY_SHA256))
        if self._with_trailers:
            for name, value in trailers or []:
                out.append(name + b":" + value + b"\r\n")
            if self._signer is not None:
                signature = self._signer.sign_trailer(trailer_digest(trailers or []))
                out.append(_TRAILER_SIGNATURE + b":" + signature.encode() + b"\r\n")
        out.append(b"\r\n")
        return b"".join(out)

    def _chunk(self, pieces: list[bytes | memoryview], size: int, out: list[bytes | memoryview]) -> None:
        digest = ""
        if self._signer is not None:
            hashed = sha256()
            for piece in pieces:
                hashed.update(piece)
            digest = hashed.hexdigest()
        out.append(self._header(size, digest))
        out.extend(pieces)
        out.append(b"\r\n")

    def _header(self, size: int, digest: str) -> bytes:
        if self._signer is None:
            return b"%x\r\n" % size
        return b"%x;chunk-signature=%b\r\n" % (size, self._signer.sign_chunk(digest).encode())


def encoded_length(
    decoded_length: int, chunk_size: int = 65536, trailer_lines: list[bytes] | None = None, *, signatures: bool = True
) -> int:
    """The length of what an Encoder makes of `decoded_length` bytes.

    `trailer_lines` are `name:value` each, without line end; None for the form without trailers. A
    checksum's value has a fixed length, so a line with any value of it will do.
    """
    per_chunk = 81 if signatures else 0  # ";chunk-signature=" and 64 digits
    whole, rest = divmod(decoded_length, chunk_size)
    total = whole * (len(f"{chunk_size:x}") + per_chunk + 2 + chunk_size + 2)
    if rest:
        total += len(f"{rest:x}") + per_chunk + 2 + rest + 2
    total += 1 + per_chunk + 2
    if trailer_lines is not None:
        total += sum(len(line) + 2 for line in trailer_lines)
        if signatures:
            total += len(_TRAILER_SIGNATURE) + 1 + 64 + 2
    return total + 2
