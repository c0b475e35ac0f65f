"""Leaves: the canonical header of each record, which the Merkle tree commits to. Pure.

Canonical JSON, exactly: an object; keys sorted by code point; no white space; integers in decimal (no floats); strings
ASCII only, with `"` and `\\` escaped by a backslash, \\b \\t \\n \\f \\r in that short form, and every other character
outside U+0020..U+007E as \\uXXXX in lower case hexadecimal (surrogate pairs above U+FFFF). This is what Python's
`json.dumps(value, sort_keys=True, separators=(",", ":"))` writes.

A leaf of a record made of frames has all of these keys:

    v              1
    type           exchange | session_open | session_close | gap | writer_open | writer_close | admin | erasure
    session        UUID; the nil UUID where the caller was not identified or the record is of no session
    exchange       UUID; nil where the record is of no exchange
    kind           the fact `kind` of the request (`aws.call`, ...); empty for other types
    writer         whose chain the frames are in
    first_seq last_seq frames     the first and last sequence number there, and the number of frames
    opened_ns closed_ns           wall clock of the first and the last frame, ns since the Unix epoch
    request response              {"length","sha256"} of the bytes of each direction, in order
    sent_sha256    SHA-256 of the bytes of the SENT frames
    facts_sha256   SHA-256 over each frame with a meta: kind (1 byte), length of meta (uint32 BE), meta
    decision policy_version outcome durability    from the facts; empty where they say nothing

`outcome` is `unfinished` where the record was closed without its last frame. A text over 128 bytes of UTF-8 is
replaced by `sha256:` and its digest. Digests only: a body can be erased and the leaf still proves.

A `heads` leaf holds v, type, and `writers`: {name: [sequence number, running hash]} of every writer whose chain
moved since the last heads leaf. A `gap` leaf with frames 0 is the sealer's own: it found a chain broken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from narrows.core.ids import NIL, parse, text

VERSION = 1
MAX_TEXT = 128
EMPTY_SHA256 = sha256(b"").hexdigest()

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def canonical(value: object) -> bytes:
    """Canonical JSON as this module's docstring defines it. `value` holds dicts, lists, strings and integers."""
    fast = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    # orjson agrees with the definition wherever its output is ASCII without DEL; it is several times faster.
    if fast.isascii() and b"\x7f" not in fast:
        return fast
    return _encode(value).encode()


def brief(value: object) -> str:
    """A fact as it goes into a leaf: text up to 128 bytes, longer text as its digest, anything else empty."""
    if not isinstance(value, str):
        return ""
    if len(value) <= MAX_TEXT // 4:
        return value
    raw = value.encode("utf-8", "surrogatepass")
    return value if len(raw) <= MAX_TEXT else f"sha256:{sha256(raw).hexdigest()}"


def facts(meta: bytes) -> dict[str, object]:
    """The JSON object in a frame's meta; empty when it is none (the bytes are on the record all the same)."""
    if not meta:
        return {}
    try:
        value = orjson.loads(meta)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a part's raw bytes, from a frame's beginning to a frame's end. Others' frames may lie in it."""

    part: int
    offset: int
    length: int


def spans_text(spans: tuple[Span, ...]) -> str:
    """`part:offset+length`, separated by commas."""
    return ",".join(f"{span.part}:{span.offset}+{span.length}" for span in spans)


def parse_spans(value: str) -> tuple[Span, ...]:
    """Read that text. Raises ValueError."""
    spans = []
    for item in value.split(",") if value else []:
        part, _, stretch = item.partition(":")
        offset, _, length = stretch.partition("+")
        spans.append(Span(int(part), int(offset), int(length)))
    return tuple(spans)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the frames of one record are. `str(place)` and `Place.parse` are its stored form (in the index)."""

    session: bytes
    exchange: bytes
    spans: tuple[Span, ...]

    def __str__(self) -> str:
        return f"{text(self.session)}/{text(self.exchange)}/{spans_text(self.spans)}"

    @classmethod
    def parse(cls, value: str) -> Place:
        """Read the stored form. Raises ValueError."""
        session, exchange, spans = value.split("/")
        return cls(parse(session), parse(exchange), parse_spans(spans))


@dataclass(slots=True)
class Sealed:
    """One sealed record, as the index gets it. Lengths in bytes, times in ns since the Unix epoch.

    `type` is the leaf's. `request_facts` is the first meta on the request's side (for one-frame records: their
    meta), `response_facts` all metas of the response, later keys winning. `erased` is True where the frames are gone
    and only the leaf is left: facts are then empty.
    """

    type: str
    leaf_index: int
    place: Place
    kind: str
    writer: str
    first_seq: int
    last_seq: int
    opened_ns: int
    closed_ns: int
    outcome: str
    request_length: int = 0
    response_length: int = 0
    request_sha256: str = EMPTY_SHA256
    response_sha256: str = EMPTY_SHA256
    sent_sha256: str = EMPTY_SHA256
    request_facts: dict[str, object] = field(default_factory=dict)
    response_facts: dict[str, object] = field(default_factory=dict)
    sent_facts: dict[str, object] = field(default_factory=dict)
    erased: bool = False

    @classmethod
    def of_leaf(
        cls, leaf: Mapping[str, Any], index: int, spans: tuple[Span, ...], told: dict[str, object]
    ) -> Sealed:
        """From a leaf's parsed JSON (any type but heads). Raises KeyError, ValueError, TypeError for another."""
        request, response = leaf["request"], leaf["response"]
        return cls(
            leaf["type"], index, Place(parse(leaf["session"]), parse(leaf["exchange"]), spans), leaf["kind"],
            leaf["writer"], leaf["first_seq"], leaf["last_seq"], leaf["opened_ns"], leaf["closed_ns"],
            leaf["outcome"], request["length"], response["length"], request["sha256"], response["sha256"],
            leaf["sent_sha256"], told,
        )  # fmt: skip

    @property
    def session(self) -> bytes:
        """The session's 16 bytes."""
        return self.place.session

    @property
    def exchange(self) -> bytes:
        """The exchange's 16 bytes; 16 zero bytes where the record is of none."""
        return self.place.exchange


def facts_digest(kind: int, meta: bytes) -> str:
    """`facts_sha256` of a record of one frame of that kind with that meta."""
    return sha256(bytes((kind,)) + len(meta).to_bytes(4, "big") + meta).hexdigest()


def heads_leaf(heads: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The leaf that commits to writers' chains."""
    writers = {name: [seq, running.hex()] for name, (seq, running) in heads.items()}
    return canonical({"type": "heads", "v": VERSION, "writers": writers})


def gap_leaf(writer: str, seq: int, now_ns: int, why: str) -> tuple[dict[str, object], dict[str, object]]:
    """The sealer's own gap leaf (not yet encoded): `writer`'s chain could not be followed from `seq` on.

    Also returns its facts.
    """
    told: dict[str, object] = {"why": why, "writer": writer, "seq": seq}
    meta = canonical(told)
    digest = facts_digest(8, meta)
    nothing = {"length": 0, "sha256": EMPTY_SHA256}
    leaf: dict[str, object] = {
        "closed_ns": now_ns, "decision": "", "durability": "", "exchange": text(NIL), "facts_sha256": digest,
        "first_seq": seq, "frames": 0, "kind": "", "last_seq": seq, "opened_ns": now_ns, "outcome": "",
        "policy_version": "", "request": nothing, "response": nothing, "sent_sha256": EMPTY_SHA256,
        "session": text(NIL), "type": "gap", "v": VERSION, "writer": writer,
    }  # fmt: skip
    return leaf, told
