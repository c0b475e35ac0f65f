"""The control process's two background threads: sealing what was recorded, and indexing what was sealed.

Neither may end while the process lives: a failure is logged, told by `problem`, and tried again with a pause. Both
can be stopped at once, with one last bounded round so that a clean stop leaves nothing waiting.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from narrows.core.errors import NarrowsError, ProofError
from narrows.core.ports import Clock
from narrows.record.indexer import Indexer
from narrows.record.log.note import SigningKey
from narrows.record.sealer import Sealer

log = logging.getLogger(__name__)

RETRY_S = 1.0
PROOF_RETRY_S = 30.0
"""A log that contradicts itself needs a person; it is looked at again in case one has restored it."""
LAST_SEAL_S = 5.0
LAST_INDEX_S = 2.0


class Sealing(threading.Thread):
    """Runs the sealer. `problem` is why it does not seal, or an empty string; read from any thread."""

    def __init__(self, data: Path, key: SigningKey, clock: Clock, interval_s: float) -> None:
        super().__init__(name="sealing", daemon=True)
        self.problem = ""
        self.behind = 0
        """Frames of the last step where more waited; 0 when the sealer is up to date."""
        self.sealed = threading.Event()
        """Set when something new was sealed."""
        self._data = data
        self._key = key
        self._clock = clock
        self._interval_s = interval_s
        self._ending = threading.Event()
        self._told: set[str] = set()

    def run(self) -> None:
        """The thread: open the sealer, step, and open it again after a failure."""
        while not self._ending.is_set():
            pause = RETRY_S
            try:
                with Sealer(self._data, self._key.name, self._key, self._clock) as sealer:
                    self._steps(sealer)
            except ProofError as error:
                pause = PROOF_RETRY_S
                self._fail(error)
            except (NarrowsError, OSError) as error:
                self._fail(error)
            except Exception as error:
                log.exception("sealing failed")
                self.problem = f"sealing failed: {type(error).__name__}"
            self._ending.wait(pause if not self._ending.is_set() else 0)

    def _steps(self, sealer: Sealer) -> None:
        while not self._ending.is_set():
            progress = sealer.step()
            self.problem = ""
            self.behind = progress.frames if progress.more else 0
            for problem in progress.problems:
                if problem not in self._told:
                    self._told.add(problem)
                    log.error("sealing goes on without: %s", problem)
            if progress.sealed:
                self.sealed.set()
            if not progress.more:
                self._ending.wait(self._interval_s)
        deadline = time.monotonic() + LAST_SEAL_S
        while sealer.step().more and time.monotonic() < deadline:
            pass
        sealer.step(publish=True)
        self.sealed.set()

    def _fail(self, error: Exception) -> None:
        if str(error) != self.problem:
            log.error("nothing is sealed: %s", error)
        self.problem = str(error)

    def stop(self) -> None:
        """Seal what waits, for a bounded time, and end. Blocks until then."""
        self._ending.set()
        self.join()


class Indexing(threading.Thread):
    """Runs the indexer after every round of sealing. `problem` as in `Sealing`."""

    def __init__(self, indexer: Indexer, sealed: threading.Event, interval_s: float) -> None:
        super().__init__(name="indexing", daemon=True)
        self.problem = ""
        self.current = False
        """Whether the last look found nothing to do."""
        self._step: Callable[[], int] = indexer.step
        self._sealed = sealed
        self._interval_s = interval_s
        self._ending = threading.Event()

    def run(self) -> None:
        """The thread: step while there is something, then wait for the sealer."""
        while not self._ending.is_set():
            try:
                while not self._ending.is_set() and self._step():
                    self.current = False
                self.current = True
                self.problem = ""
                # The time-out is for leaves that an earlier process sealed and did not come to index.
                if self._sealed.wait(max(self._interval_s, 1.0)):
                    self._sealed.clear()
            except (NarrowsError, OSError) as error:
                if str(error) != self.problem:
                    log.error("nothing is indexed: %s", error)
                self.problem = str(error)
                self._ending.wait(RETRY_S)
            except Exception as error:
                log.exception("indexing failed")
                self.problem = f"indexing failed: {type(error).__name__}"
                self._ending.wait(RETRY_S)

    def stop(self) -> None:
        """Index what waits, for a bounded time, and end. Blocks until then."""
        self._ending.set()
        self._sealed.set()
        self.join()
        deadline = time.monotonic() + LAST_INDEX_S
        try:
            while time.monotonic() < deadline and self._step():
                pass
        except (NarrowsError, OSError) as error:
            log.error("the index is behind: %s", error)
