"""The patch form of `apply_patch`: files added, updated and deleted, in one text.

*** Begin Patch
*** Add File: path          then lines that begin with +
*** Update File: path       then perhaps *** Move to: path, and hunks of lines that begin with space, + or -
*** Delete File: path
*** End Patch
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEGIN = "*** Begin Patch"
_FILE = re.compile(r"\*\*\* (Add|Update|Delete) File: (.*)")
_HEREDOC = re.compile(r"\b(?:apply_patch|applypatch)\b")


@dataclass(slots=True)
class Change:
    """What a patch does to one file. `whole` says that `new` is the whole content."""

    path: str
    old: str | None
    new: str
    whole: bool = False


def in_command(command: str) -> str:
    """The patch that a shell command hands to `apply_patch`, or an empty string."""
    start = command.find(_BEGIN)
    return command[start:] if start >= 0 and _HEREDOC.search(command[:start]) else ""


def parse(text: str) -> list[Change]:
    """The changes of a patch, as far as it goes; none if the text is no patch."""
    start = text.find(_BEGIN)
    if start < 0:
        return []
    changes: list[Change] = []
    kind, path, body = "", "", list[str]()
    for line in [*text[start:].split("\n")[1:], "*** End Patch"]:
        line = line.rstrip("\r")
        header = _FILE.fullmatch(line)
        if header is None and line != "*** End Patch":
            body.append(line)
            continue
        if kind:
            changes.append(_change(kind, path, body))
        if header is None:
            break
        kind, path, body = header[1], header[2].strip(), []
    return changes


def _change(kind: str, path: str, body: list[str]) -> Change:
    if kind == "Delete":
        return Change(path, None, "")
    if body and body[0].startswith("*** Move to: "):
        path = body[0].removeprefix("*** Move to: ").strip()
    old, new = sides(body)
    if kind == "Add":
        return Change(path, None, new + "\n" if new else "", whole=True)
    return Change(path, old, new)


def sides(lines: list[str]) -> tuple[str, str]:
    """(old, new) text of a diff's hunks, their context in both."""
    old: list[str] = []
    new: list[str] = []
    for line in lines:
        if line.startswith(("***", "@@")):
            continue
        mark, rest = line[:1], line[1:]
        if mark != "+":
            old.append(rest)
        if mark != "-":
            new.append(rest)
    while old and new and not old[-1] and not new[-1]:
        old.pop()
        new.pop()
    return "\n".join(old), "\n".join(new)
