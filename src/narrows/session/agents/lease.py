"""A lease that was minted for a process: the process, those above it, and the lease's public name.

The facts say where the process tree comes from: `kernel` (the gateway read it itself, of a peer that the kernel named)
or `client` (the caller told it).
"""

from __future__ import annotations

import binascii
import shlex
from typing import Any

from narrows.session.agents.names import parse
from narrows.session.agents.told import Told, shown
from narrows.session.http.messages import Message

DEPTH = 32
"""Processes of a tree that are told."""


def describe(told: Told, request: Message, response: Message, facts: dict[str, object]) -> None:
    """Add the process item and the refs `lease` and `process`."""
    body, answer = parse(request.body), parse(response.body)
    asked = body if isinstance(body, dict) else {}
    given = answer if isinstance(answer, dict) else {}
    for name in ("connection", "region", "expires"):
        value = given.get(name, asked.get(name))
        if isinstance(value, (str, int)):
            told.out.parameters[name] = value if isinstance(value, int) else value[:256]
    told.ref("lease", given.get("access_key_id") or facts.get("issued"))
    if response.status >= 400:
        error = given.get("error")
        given = error if isinstance(error, dict) else given
        told.out.error_code = shown(given.get("code"))[:64]
        told.out.error_message = ": ".join(shown(given[name]) for name in ("what", "why") if given.get(name))[:2000]
    tree = tree_of(facts, request)
    if not tree:
        told.notice(f"a lease for {shown(asked.get('connection'))[:64] or 'a connection'}")
        return
    lines = []
    for one in tree:
        pid, start, argv = one.get("pid"), one.get("start"), one.get("argv")
        told.ref("process", f"{pid}:{start}")
        words = [str(part) for part in argv] if isinstance(argv, list) else []
        lines.append(shlex.join(words) if words else str(one.get("exe") or f"process {pid}"))
    first = tree[0]
    told.add(
        "process",
        "\n".join(lines),
        id=f"{first.get('pid')}:{first.get('start')}",
        name=shown(first.get("exe"))[:4096],
        data={"from": facts.get("process_from") or "client", "tree": tree},
    )


def tree_of(facts: dict[str, object], request: Message) -> list[dict[str, Any]]:
    """The process tree, nearest first: what the gateway wrote down, else the caller's header."""
    told: Any = facts.get("process")
    if not isinstance(told, list):
        raw = request.header(b"x-narrows-process")
        try:
            told = parse(binascii.a2b_base64(raw.translate({45: 43, 95: 47}) + "=" * (-len(raw) % 4)))
        except (ValueError, UnicodeEncodeError):
            told = None
    return [one for one in told[:DEPTH] if isinstance(one, dict)] if isinstance(told, list) else []
