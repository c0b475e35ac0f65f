"""The digests by which the same text is known again: in an answer, in an edited file, in what was uploaded."""

from __future__ import annotations

from hashlib import sha256

LEAST = 8
"""Bytes below which a text gets no digest: `{}` or `true` is the same everywhere and joins nothing."""


def digests(content: bytes | str) -> list[str]:
    """SHA-256 (hex) of a content, and of the same without the line ends at its end where it has some.

    Editors and formatters put a line end at the end of a file, and answers leave it away; a match on the second form
    says so much. Empty for a content that is too short.
    """
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    bare = raw.rstrip(b"\r\n")
    if len(bare) < LEAST:
        return []
    found = [sha256(raw).hexdigest()]
    if len(bare) != len(raw):
        found.append(sha256(bare).hexdigest())
    return found


def with_line_end(content: str) -> list[str]:
    """`digests` of a text that stands without its last line end, as it is and as a file would end it."""
    bare = content.rstrip("\r\n")
    return digests(bare + "\n")
