"""The patch form of Codex's `apply_patch` (`*** Begin Patch`): the files that it adds, and what it replaces in others.

Reads what is there and skips the rest: a patch that is malformed was refused by the agent's own tool.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one file: `old` became `new`. `whole` says that `new` is all that the file holds."""

    path: str
    old: str
    new: str
    whole: bool = False


_ADD, _UPDATE, _DELETE = "*** Add File: ", "*** Update File: ", "*** Delete File: "


def parse_patch(text: str) -> list[Change]:
    """The changes that a patch makes: a whole file for each that it adds, one change per hunk of the others."""
    out: list[Change] = []
    path, adding = "", False
    old: list[str] = []
    new: list[str] = []

    def end() -> None:
        if path and (old or new):
            out.append(Change(path, _joined(old), _joined(new), adding))
        old.clear()
        new.clear()

    for line in text.split("\n"):
        if line.startswith(("***", "@@")):
            end()
            if line.startswith((_ADD, _UPDATE, _DELETE)):
                path, adding = line.partition(": ")[2].strip(), line.startswith(_ADD)
            elif line.startswith("*** End Patch"):
                path = ""
        elif line.startswith("+"):
            new.append(line[1:])
        elif line.startswith("-"):
            old.append(line[1:])
        elif path and not adding and line.startswith(" "):
            old.append(line[1:])
            new.append(line[1:])
    end()
    return out


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
