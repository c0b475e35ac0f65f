"""Sections of an AWS config file, added and removed as blocks of text. Pure.

The file belongs to several programs and is often written by hand: no other line of it is touched. Its format is that of
"Configuration and credential file settings" (AWS SDKs and Tools Reference Guide): a section reaches to the next line
that begins with `[`.
"""

from __future__ import annotations

import re

from narrows.core.errors import ConfigError

_HEADER = re.compile(r"^[ \t]*\[[ \t]*([^\]\n]*?)[ \t]*\]", re.MULTILINE)


def add(text: str, section: str, body: str) -> str:
    """The text with the section at its end; unchanged if it is there just so. Raises ConfigError if it is another."""
    found = _find(text, section)
    block = f"[{section}]\n{body}"
    newline = "\r\n" if "\r\n" in text else "\n"
    if found is not None:
        if _same(text[found[0] : found[1]], block):
            return text
        raise ConfigError(
            "The AWS config file was not changed",
            f"it has a section [{section}] that is not ours",
            "rename or remove that section",
        )
    gap = "" if not text else newline if text.endswith("\n") else newline * 2
    return text + gap + block.replace("\n", newline)


def remove(text: str, section: str, body: str) -> str | None:
    """The text without the section and the empty line before it; None if it is not as we wrote it.

    A section that is gone is none to remove: the text as it is.
    """
    found = _find(text, section)
    if found is None:
        return text
    start, end = found
    if not _same(text[start:end], f"[{section}]\n{body}"):
        return None
    before, after = text[:start], text[end:]
    for gap in ("\r\n", "\n"):
        if before.endswith(gap * 2) or before == gap:
            before = before.removesuffix(gap)
            break
    return before + after


def _find(text: str, section: str) -> tuple[int, int] | None:
    """The section's place, up to its last line that says something."""
    headers = list(_HEADER.finditer(text))
    # AWS reads the name shell-like: [profile "x"] is [profile x].
    mine = [i for i, one in enumerate(headers) if " ".join(one.group(1).replace('"', " ").split()) == section]
    if not mine:
        return None
    if len(mine) > 1:
        raise ConfigError("The AWS config file was not changed", f"it has the section [{section}] twice")
    start = headers[mine[0]].start()
    end = headers[mine[0] + 1].start() if mine[0] + 1 < len(headers) else len(text)
    kept = text[start:end].rstrip()
    end = start + len(kept)
    return start, end + (2 if text.startswith("\r\n", end) else 1 if text.startswith("\n", end) else 0)


def _same(one: str, other: str) -> bool:
    return one.replace("\r\n", "\n").strip() == other.strip()
