"""What verification says: findings, each with its place, and what was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MAX_FINDINGS = 10_000

Tell = Callable[[str, int, int], None]
"""Progress: what is being read, how much is done, how much there is (0: not known)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not prove, and where. Empty or -1 where a place has no meaning. `code` is stable."""

    code: str
    what: str
    session: str = ""
    exchange: str = ""
    file: str = ""
    offset: int = -1
    leaf: int = -1

    def __str__(self) -> str:
        places = [f"session {self.session}"] if self.session else []
        places += [f"exchange {self.exchange}"] if self.exchange else []
        places += [f"leaf {self.leaf}"] if self.leaf >= 0 else []
        places += [f"{self.file}" + (f" at {self.offset}" if self.offset >= 0 else "")] if self.file else []
        return self.what + (f" ({', '.join(places)})" if places else "")


@dataclass(slots=True)
class Report:
    """The outcome. `ok` only when nothing was found; `notes` are on the record honestly and do not fail."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    checkpoint_size: int = 0
    leaves: int = 0
    exchanges: int = 0
    sessions: int = 0
    frames: int = 0
    bytes: int = 0
    unsealed_frames: int = 0
    open_exchanges: int = 0
    findings_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything proves."""
        return not self.findings

    def found(
        self,
        code: str,
        what: str,
        *,
        session: str = "",
        exchange: str = "",
        file: str = "",
        offset: int = -1,
        leaf: int = -1,
    ) -> None:
        """Add a finding; beyond 10,000 they are counted only."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, what, session, exchange, file, offset, leaf))
        else:
            self.findings_left_out += 1

    def note(self, code: str, what: str, *, session: str = "", file: str = "", leaf: int = -1) -> None:
        """Add a note."""
        if len(self.notes) < MAX_FINDINGS:
            self.notes.append(Finding(code, what, session, "", file, -1, leaf))
