"""What a hook was given on standard input: the payload as it goes to the gateway, and what must be understood of it."""

from __future__ import annotations

import os

from narrows.session.agents import names

MAX_PAYLOAD = 16 << 20
"""Bytes of a payload. Of a longer one the gateway gets the size, the SHA-256 and the beginning."""
KEPT = 65536
"""Bytes of that beginning."""


class Report:
    """What standard input held: the payload as it goes to the gateway, and what was understood of it."""

    __slots__ = ("cut", "cwd", "event", "payload", "session", "version")

    def __init__(self, event: str) -> None:
        self.event = event or names.UNKNOWN
        self.payload = b""
        self.cut = 0
        self.session = ""
        self.version = ""
        self.cwd = ""

    def read(self, agent: str) -> None:
        """Read standard input to its end."""
        hint = self.event if self.event != names.UNKNOWN else ""
        parts: list[bytes] = []
        size = 0
        while size <= MAX_PAYLOAD and (piece := os.read(0, 1 << 20)):
            parts.append(piece)
            size += len(piece)
        self.payload = b"".join(parts)
        if size > MAX_PAYLOAD:
            self._cut(agent, hint)
            return
        value = names.parse(self.payload)
        self.event = names.name_of(agent, value, hint)
        self.session = names.session_of(value)
        if isinstance(value, dict):
            self.version = _line(value.get("cursor_version") or value.get("agent_version"), 64)
            roots = value.get("workspace_roots")
            self.cwd = _line(value.get("cwd") or (roots[0] if isinstance(roots, list) and roots else ""), 4096)

    def _cut(self, agent: str, hint: str) -> None:
        """A payload that is too long is not sent, but that it was there is."""
        import hashlib
        import json
        import re

        digest = hashlib.sha256(self.payload)
        self.cut = len(self.payload)
        while piece := os.read(0, 1 << 20):
            digest.update(piece)
            self.cut += len(piece)
        first = self.payload[:KEPT].decode("utf-8", "replace")
        fields = dict(re.findall(r'"([A-Za-z_]{1,32})"\s*:\s*"([A-Za-z0-9_.-]{1,128})"', first))
        self.event = names.name_of(agent, fields, hint)
        self.session = names.session_of(fields)
        told = {"bytes": self.cut, "sha256": digest.hexdigest(), "first": first}
        self.payload = json.dumps({"hook_event_name": self.event, **fields, "narrows_cut": told}).encode()


def _line(value: object, most: int) -> str:
    return "".join(c for c in value if c.isprintable())[:most] if isinstance(value, str) else ""
