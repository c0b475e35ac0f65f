"""How a command says whose it is."""

from __future__ import annotations

import os

from narrows.cli import process
from narrows.processes import ARGV
from narrows.session.events.process import read_header

PS = """    1     0 Mon Nov 24 20:00:00 2025     /sbin/launchd
  200     1 Mon Nov 24 20:33:25 2025     /usr/local/bin/narrows run -- claude
  300   200 Mon Nov  3 07:05:09 2025     claude --resume  "a b"
  400   300 Mon Nov 24 20:40:00 2025     aws s3 ls
  bad line
"""


def test_the_header_holds_what_the_gateway_reads() -> None:
    tree = process.ancestors()
    assert tree[0]["pid"] == os.getpid()
    assert read_header(process.header(tree).encode()) == tree


def test_the_header_stays_within_its_limit() -> None:
    one = {"pid": 5, "start": 7, "ppid": 4, "argv": ["\0" * ARGV], "cwd": "/x" * 2000, "exe": "/y"}
    value = process.header([dict(one) for _ in range(32)])
    assert len(value) <= process.MAX_HEADER
    read = read_header(value.encode())
    assert read[0]["pid"] == 5 and read[0]["argv"][-1] == "[cut]"


def test_ps_is_read_up_to_narrows_run() -> None:
    tree = process.from_ps(PS, 400)
    assert [one["pid"] for one in tree] == [400, 300, 200]
    assert tree[1]["argv"] == ['claude --resume  "a b"'] and tree[0]["ppid"] == 300
    assert tree[0]["start"] > tree[1]["start"] > 1_700_000_000
    assert process.from_ps(PS, 999) == [] and process.from_ps("", 1) == []
    assert [one["pid"] for one in process.from_ps(PS, 1)] == [1]


def test_ps_that_goes_in_circles_ends() -> None:
    text = "  5   6 Mon Nov 24 20:00:00 2025 a\n  6   5 Mon Nov 24 20:00:00 2025 b\n"
    assert [one["pid"] for one in process.from_ps(text, 5)] == [5, 6]
