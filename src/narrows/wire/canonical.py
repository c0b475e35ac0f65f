"""Canonical forms of a request for SigV4: path, query, headers and dates.

Sans-I/O and pure. Source: AWS, "Create a signed AWS API request" and, for S3, "Authenticating Requests (AWS
Signature Version 4)". Everything works on the bytes as they came over the wire: nothing is decoded and
encoded again unless `encode` asks for it.

Where a client put bytes on the wire that AWS's rules would have escaped, there are two readings: clients
that sign the bytes as sent, and clients that sign what AWS computes (decode once, encode once). They agree
for every request whose escapes are already canonical. `Encoding` names the reading.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from narrows.wire.shape import Headers, Shape

RAW: Final = 0
"""Path and query count as they were sent."""
ENCODED_QUERY: Final = 1
"""Names and values of the query are decoded and encoded once before they count."""
ENCODED_PATH: Final = 2
"""The same for the path; S3-like services only (all others encode the path as sent once more in any case)."""

S3_LIKE: Final = frozenset({"s3", "s3-outposts", "s3-object-lambda", "s3express"})
"""Services whose path counts as sent: keys may hold `//`, `.` and `..`."""

_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*/?")
_ISO_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z", re.ASCII)
_HTTP_DATE = re.compile(
    rb"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?([0-9]{1,2}) ([A-Z][a-z]{2}) ([0-9]{4}) "
    rb"([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:GMT|UTC|[+-]0000)"
)
_NAME: Final = itemgetter(0)
_MONTHS: Final = {
    b"Jan": 1,
    b"Feb": 2,
    b"Mar": 3,
    b"Apr": 4,
    b"May": 5,
    b"Jun": 6,
    b"Jul": 7,
    b"Aug": 8,
    b"Sep": 9,
    b"Oct": 10,
    b"Nov": 11,
    b"Dec": 12,
}


def path(raw: bytes, service: str, encoding: int = RAW) -> bytes:
    """The canonical path of the raw path `raw` (what stands before `?`).

    S3-like services: as sent, never normalised. All others: dot segments and empty segments removed, then
    every byte outside the unreserved set and `/` escaped, so that an escape already there is escaped again.
    """
    if service in S3_LIKE:
        if encoding & ENCODED_PATH:
            return quote(unquote_to_bytes(raw), safe="/~").encode() or b"/"
        return raw or b"/"
    if _PLAIN_PATH.fullmatch(raw) is not None:
        return raw or b"/"
    kept: list[bytes] = []
    for segment in raw.split(b"/"):
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment and segment != b".":
            kept.append(segment)
    first = b"/" if raw[:1] == b"/" else b""
    last = b"/" if kept and raw[-1:] == b"/" else b""
    return quote(first + b"/".join(kept) + last, safe="/~").encode()


def query(raw: bytes, encoding: int = RAW, drop: bytes = b"") -> bytes:
    """The canonical query of `raw` (what stands after `?`): parameters sorted by name, then value, as bytes.

    A parameter without `=` counts as having an empty value. `+` is a plus sign, never a space. `drop` names
    one parameter to leave out (the signature itself, in a presigned URL).
    """
    if not raw:
        return b""
    recode = encoding & ENCODED_QUERY
    if not drop and not recode and raw.find(b"&") < 0:
        return raw if raw.find(b"=") >= 0 else raw + b"="
    pairs: list[tuple[bytes, bytes]] = []
    for piece in raw.split(b"&"):
        name, _, value = piece.partition(b"=")
        if drop and name == drop:
            continue
        if recode:
            if not piece:
                continue
            name = quote(unquote_to_bytes(name), safe="~").encode()
            value = quote(unquote_to_bytes(value), safe="~").encode()
        pairs.append((name, value))
    pairs.sort()
    return b"&".join([name + b"=" + value for name, value in pairs])


def header_block(headers: Headers, names: tuple[bytes, ...]) -> tuple[bytes, bytes | None, list[bytes]]:
    """Canonical header lines of the names in `names`, in that order; duplicates joined by `,` as received.

    Beside the block: a signed name that did not come, or None; and the `x-amz-*` names that came unsigned.
    """
    wanted: dict[bytes, bytes | None] = dict.fromkeys(names)
    unsigned: list[bytes] = []
    for name, value in headers:
        if name in wanted:
            before = wanted[name]
            wanted[name] = value if before is None else before + b"," + value
        elif name.startswith(b"x-amz-"):
            unsigned.append(name)
    lines: list[bytes] = []
    for name, found in wanted.items():
        if found is None:
            return b"", name, unsigned
        lines.append(name + b":" + found + b"\n")
    return trim(b"".join(lines)), None, unsigned


def shaped_block(headers: Headers, shape: Shape, names: tuple[bytes, ...]) -> tuple[bytes, bytes | None, list[bytes]]:
    """As `header_block`, for headers of a known shape in which no name comes twice."""
    key = ("signed", names)
    plan = shape.plans.get(key)
    if plan is None:
        index = shape.index
        missing = next((name for name in names if name not in index), None)
        signed = frozenset(names)
        unsigned = [name for name in shape.names if name not in signed and name.startswith(b"x-amz-")]
        places = [] if missing is not None else [(name + b":", index[name]) for name in names]
        plan = (places, missing, unsigned)
        shape.remember(key, plan)
    places, missing, unsigned = plan
    if missing is not None:
        return b"", missing, unsigned
    lines = b"\n".join([name + headers[at][1] for name, at in places]) + b"\n"
    return trim(lines), None, unsigned


def whole_block(headers: Headers) -> tuple[bytes, bytes]:
    """Canonical header lines of all `headers`, and their names sorted and joined by `;`."""
    ordered = sorted(headers, key=_NAME)
    names = b";".join([name for name, _ in ordered])
    lines = b"".join([name + b":" + value + b"\n" for name, value in ordered])
    if len({name for name, _ in ordered}) != len(ordered):
        merged = tuple(dict.fromkeys([name for name, _ in ordered]))
        return header_block(headers, merged)[0], b";".join(merged)
    return trim(lines), names


def trim(lines: bytes) -> bytes:
    """Make runs of white space inside values one space (the block as a whole is tested first: they are rare)."""
    if lines.find(b"  ") < 0 and lines.find(b"\t") < 0:
        return lines
    out: list[bytes] = []
    for line in lines[:-1].split(b"\n"):
        name, _, value = line.partition(b":")
        out.append(name + b":" + b" ".join(value.split()) + b"\n")
    return b"".join(out)


@lru_cache(maxsize=256)
def epoch(amz_date: str) -> int:
    """Unix seconds of a basic ISO 8601 date (`20130524T000000Z`). Raises ValueError."""
    match = _ISO_DATE.fullmatch(amz_date)
    if match is None:
        raise ValueError("not of the form YYYYMMDD'T'HHMMSS'Z'")
    year, month, day, hour, minute, second = map(int, match.groups())
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def amz_date(epoch_s: int) -> str:
    """The basic ISO 8601 form of Unix seconds, 0 to the year 9999."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def http_date(value: bytes) -> str:
    """The basic ISO 8601 form of a `Date` header, which may already have it (RFC 9110 section 5.6.7, in UTC).

    Raises ValueError. The result may still name a day that does not exist: `epoch` says so.
    """
    match = _HTTP_DATE.fullmatch(value)
    if match is None:
        return value.decode("ascii")
    day, month, year, hour, minute, second = match.groups()
    number = _MONTHS.get(month)
    if number is None:
        raise ValueError("unknown month")
    return f"{int(year):04}{number:02}{int(day):02}T{hour.decode()}{minute.decode()}{second.decode()}Z"
