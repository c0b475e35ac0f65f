"""Runs `make demo` and puts what it printed into README.md, between the two transcript marks.

Nothing in the transcript is typed by hand. What is left out is left out here, by rules, and a line says so:
repeated calls, what follows the parameters of the exchange that is shown in full, long rows of asterisks, and the path
of the checkout.

    python docs/transcript.py           run the demo, rewrite README.md
    python docs/transcript.py FILE      the same from what a run printed before
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- transcript: made by docs/transcript.py -->"
END = "<!-- end of transcript -->"
WIDTH = "170"

_CALL = re.compile(r"^\d\d:\d\d:\d\d  \S+ +(\w+ \w+) ")
_TEMPORARY = re.compile(r"(?:/\w+)+/tmp\w{8}/")
_STARS = re.compile(r"\*{9,}")


def run() -> str:
    """What `make demo` prints. Raises CalledProcessError if it fails."""
    env = os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    done = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def trimmed(text: str, root: str) -> list[str]:
    """The lines of a run as the README shows them. `root` is the path of the checkout that ran."""
    text = text.replace(root + "/", "").replace(root, ".")
    for length in range(len(root), 3, -1):  # a cell of a table may have been cut inside of it
        text = text.replace(root[:length] + "…", "…")
    lines = [_STARS.sub("********", _TEMPORARY.sub("", line)).rstrip() for line in text.splitlines()]
    return list(_without_repeats(_without_bodies(line for line in lines if not line.startswith("==> "))))


def _without_bodies(lines: Iterable[str]) -> Iterator[str]:
    """Leave out what follows the parameters of an exchange: heads and bodies of both directions."""
    skipping = False
    for line in lines:
        if line == "request":
            yield "[request, response and the head that was sent: left out here]"
            yield ""
            skipping = True
        elif skipping and line.startswith(("== ", "$ ")):
            skipping = False
        if not skipping:
            yield line


def _without_repeats(lines: Iterable[str]) -> Iterator[str]:
    """Of calls in a row that are the same operation, the first one and how many more there were."""
    before, more = "", 0
    for line in lines:
        found = _CALL.match(line)
        call = found[1] if found else ""
        if call and call == before:
            more += 1
            continue
        if more:
            yield f"[{more} more {before}]"
        before, more = call, 0
        yield line


def with_transcript(page: str, lines: list[str]) -> str:
    """The page with the lines between its marks. Raises ValueError where a mark is missing."""
    head, tail = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:head] + "\n```\n" + "\n".join(lines).strip("\n") + "\n```\n" + page[tail:]


def main(arguments: list[str]) -> None:
    """Rewrite the README."""
    text = Path(arguments[0]).read_text("utf-8") if arguments else run()
    found = re.search(r"^  data +(.+)/\.data/demo$", text, flags=re.MULTILINE)
    if found is None or "everything proves" not in text:
        sys.exit("this is not a whole run of the demo")
    README.write_text(with_transcript(README.read_text("utf-8"), trimmed(text, found[1])), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
