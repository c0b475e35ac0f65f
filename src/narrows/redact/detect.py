"""The detector of credentials: bytes in, matches out; or bytes in, as many bytes out, with the matches masked.

One engine, RE2: linear in the text, which is hostile. All kinds are one expression, in two passes (specific kinds, then
values that only a name speaks for); each match is checked by `checks`, and a specific kind goes before a general one
where both match.

Guarantees: `mask` keeps the length, and `scan` of what it gives finds nothing; neither raises on any bytes; matches are
in order and do not overlap; a text that is made to be slow to look through is not looked through to its end, and the
rest of it counts as found (`TRIES`). What a credential is made of never leaves this module: a `Match` has places, no
values.
"""

from __future__ import annotations

import binascii
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2  # type: ignore[import-untyped]

from narrows.redact.checks import CHECKS
from narrows.redact.patterns import BASE64, GENERIC, LEASES, SPECIFIC, Pattern

ROUNDS = 8
"""Masking is repeated until nothing is found; each round finds what the one before uncovered, which is rare."""
MEMORY = 64 << 20
"""Bytes that RE2 may keep for an expression's automaton; when it is full, RE2 goes on with a slow one."""
AGAIN = 1
"""What checks turn down is looked into once more from its inside, up to this many times the text's length in all."""
TRIES = 5_000
"""Places of a text that are checked, and one more for each 1024 bytes of it: each costs up to 100 microseconds.

Texts have a handful. Past them nothing is looked at, and the rest counts as found: as `unchecked`.
"""
UNCHECKED = "unchecked"
MAX_RUN = 64 * 1024
"""Bytes of base64 that are decoded at once; a longer run in pieces that overlap."""

_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_RUN = re.compile(rb"[A-Za-z0-9+/]{27,}")  # what 20 bytes come to, without padding
_OVERLAP = 64


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """A credential's kind and its place: `data[start:end]`."""

    kind: str
    start: int
    end: int


class Detector:
    """Finds and masks credentials. Stateless, and safe to use from several threads; made once, for it compiles."""

    def __init__(self) -> None:
        self._specific = _Engine(SPECIFIC)
        self._generic = _Engine(GENERIC)
        self._leases = _Engine(LEASES)

    def scan(self, data: bytes) -> list[Match]:
        """The credentials in `data`. The gateway's own leases are none."""
        return _merged([*self._specific.find(data), *_in_base64(data)], self._generic.find(data))

    def mask(self, data: bytes) -> tuple[bytes, list[Match]]:
        """`data` with credentials and leases replaced by as many `*`; and what was found, leases as `narrows-lease`.

        The same object where nothing was found.
        """
        every: list[Match] = []
        for _ in range(ROUNDS):
            # Both, also where they overlap: what begins like a lease must not keep what follows it from being masked.
            found = [*self._leases.find(data), *self.scan(data)]
            if not found:
                break
            masked = bytearray(data)
            for one in found:
                masked[one.start : one.end] = b"*" * (one.end - one.start)
            data = bytes(masked)
            every += found
        return data, _joined(every)


@cache
def detector() -> Detector:
    """The process' one detector."""
    return Detector()


class _Engine:
    """One expression of many patterns."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = MEMORY
        options.log_errors = False
        self._regex: Any = re2.compile("|".join(one.regex for one in patterns).encode(), options)
        self._of: list[Pattern] = []
        for one in patterns:
            self._of += [one] * int(re2.compile(one.regex.encode(), options).groups)

    def find(self, data: bytes) -> Iterator[Match]:
        """Matches in order, without overlaps."""
        at = 0
        budget = AGAIN * len(data)
        tries = TRIES + len(data) // 1024
        while True:
            for found in self._regex.finditer(data, at):
                group = found.lastindex
                start, end = found.span(group)
                tries -= 1
                if tries < 0:
                    if data[start:].strip(b"*"):  # else it was masked before
                        yield Match(UNCHECKED, start, len(data))
                    return
                if self._holds(self._of[group - 1], data, start, end):
                    yield Match(self._of[group - 1].kind, start, end)
                elif budget > 0 and start > at:
                    # Turned down: a real one may begin inside.
                    at = start
                    budget -= found.end() - start
                    break
            else:
                return

    def _holds(self, one: Pattern, data: bytes, start: int, end: int) -> bool:
        if end - start < one.least or (one.most and end - start > one.most):
            return False
        if one.word:
            before = start > 0 and data[start - 1] in _WORD and not _escape_ends(data, start)
            if before or (end < len(data) and data[end] in _WORD):
                return False
        return not one.check or CHECKS[one.check](data, start, end)


def _escape_ends(data: bytes, at: int) -> bool:
    """Whether the letter before `at` belongs to an escape of JSON, as `n` does in `\\n`."""
    return (data[at - 2 : at - 1] == b"\\" and data[at - 1] in b"nrtbf") or data[max(0, at - 6) : at - 4] == b"\\u"


def _merged(first: Iterable[Match], then: Iterable[Match]) -> list[Match]:
    """All of `first`, and those of `then` that overlap none of them; in order."""
    kept: list[Match] = []
    for one in sorted(first, key=lambda it: (it.start, -it.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    starts = [one.start for one in kept]
    more = []
    for one in then:
        i = bisect_right(starts, one.start)
        if (i == 0 or kept[i - 1].end <= one.start) and (i == len(kept) or one.end <= kept[i].start):
            more.append(one)
    return sorted([*kept, *more], key=lambda it: it.start) if more else kept


def _joined(found: list[Match]) -> list[Match]:
    """Matches in order; where a later one overlaps, one that reaches over both."""
    out: list[Match] = []
    for one in sorted(found, key=lambda it: it.start):
        if out and one.start < out[-1].end:
            out[-1] = Match(out[-1].kind, out[-1].start, max(out[-1].end, one.end))
        else:
            out.append(one)
    return out


def _in_base64(data: bytes) -> Iterator[Match]:
    """Runs of base64 in which an AWS access key is: an environment, an ini file or a Kubernetes secret, encoded."""
    if not any(mark in data for mark in BASE64):
        return
    tries = TRIES
    for run in _RUN.finditer(data):
        for start in range(run.start(), run.end(), MAX_RUN - _OVERLAP):
            end = min(run.end(), start + MAX_RUN)
            piece = data[start:end]
            if not any(mark in piece for mark in BASE64):
                continue
            tries -= 1
            if tries < 0:
                yield Match(UNCHECKED, start, len(data))
                return
            plain = binascii.a2b_base64(piece[: len(piece) & -4])
            if any(one.kind == "aws-access-key" for one in _keys().find(plain)):
                yield Match("aws-credentials-base64", start, end)


@cache
def _keys() -> _Engine:
    return _Engine(SPECIFIC[:1])
