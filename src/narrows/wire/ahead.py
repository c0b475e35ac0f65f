"""How far a process reads ahead of what its connections' readers ask for, all connections together (P8).

A connection may hold FEW bytes without asking. For more, up to MANY, it takes a place, of which there are as many as
fit into the budget; without one it stops reading at FEW. What is held is thus at most the budget, FEW for each
connection, and what one read of a socket gives beyond these.
"""

from __future__ import annotations

from typing import Final

FEW: Final = 64 * 1024
MANY: Final = 512 * 1024
BUDGET: Final = 256 * 1024 * 1024
"""Bytes."""


class ReadAhead:
    """Places for connections that hold more than FEW bytes. Used from one thread."""

    __slots__ = ("_most", "taken")

    def __init__(self, budget: int = BUDGET) -> None:
        self._most = budget // MANY
        self.taken = 0

    def take(self) -> bool:
        """Take a place; False if there is none."""
        if self.taken >= self._most:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """Give a place back."""
        self.taken -= 1


shared: Final = ReadAhead()
"""The process's own: clients' and targets' connections count together."""
