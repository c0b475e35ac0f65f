"""What the record says: the frames of a writer, gathered into exchanges and held to the rules of the path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.recording import read_all

from narrows.record.log.frame import Flag, Frame, Kind


@dataclass
class Recorded:
    """One exchange as recorded."""

    id: bytes
    frames: list[Frame] = field(default_factory=list)

    @property
    def session(self) -> bytes:
        """Whose it is."""
        return self.frames[0].session

    @property
    def facts(self) -> dict[str, Any]:
        """What its opening frame says."""
        return dict(json.loads(self.frames[0].meta))

    @property
    def outcome(self) -> dict[str, Any]:
        """What its closing frame says; empty while it is open."""
        last = self.frames[-1]
        return dict(json.loads(last.meta)) if last.flags & Flag.FINAL else {}

    @property
    def request(self) -> bytes:
        """The bytes from the client."""
        return b"".join(f.data for f in self.frames if f.kind == Kind.REQUEST)

    @property
    def response(self) -> bytes:
        """The bytes of the answer."""
        return b"".join(f.data for f in self.frames if f.kind == Kind.RESPONSE)

    @property
    def sent(self) -> list[Frame]:
        """Every head that went upstream."""
        return [f for f in self.frames if f.kind == Kind.SENT]

    def check(self) -> None:
        """One opening and one closing frame, first and last; one end of the request; nothing of a stranger."""
        assert [f for f in self.frames if f.flags & Flag.BEGIN] == self.frames[:1], "not exactly one BEGIN, first"
        assert [f for f in self.frames if f.flags & Flag.FINAL] == self.frames[-1:], "not exactly one FINAL, last"
        assert sum(1 for f in self.frames if f.kind == Kind.REQUEST and f.flags & Flag.END) <= 1
        assert len({f.session for f in self.frames}) == 1
        facts, outcome = self.facts, self.outcome
        assert facts["kind"] and facts["client"]
        assert outcome["bytes_in"] == len(self.request)
        assert outcome["bytes_out"] == len(self.response)
        assert outcome["outcome"] == "complete" or outcome.get("error"), "an end without a reason"
        if outcome["outcome"] != "complete" and self.sent:
            assert facts.get("decision") == "allow", "something went upstream without a decision"


def exchanges(writer: Path) -> list[Recorded]:
    """All exchanges of a writer, in the order in which they were opened."""
    found: dict[bytes, Recorded] = {}
    for frame in read_all(writer):
        if frame.kind in (Kind.REQUEST, Kind.SENT, Kind.RESPONSE):
            found.setdefault(frame.exchange, Recorded(frame.exchange)).frames.append(frame)
    return list(found.values())
