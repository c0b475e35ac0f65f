"""The control process's own records, and the log as it lies on disk: two ports of the API over what `record` has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from narrows.core import ids
from narrows.core.errors import NotFound
from narrows.core.ports import Recorder
from narrows.record.log.note import parse_checkpoint, parse_note
from narrows.record.sealed import sealed_size


class FrameRecord:
    """`deps.Record` over a recorder: one frame without data for each record. Call it on the recorder's loop."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def __call__(self, kind: int, session: bytes, meta: dict[str, Any]) -> None:
        """Append, and return when it is on stable storage. Raises RecorderFailed."""
        seq = self._recorder.append(kind, 0, session, ids.NIL, orjson.dumps(meta), b"")
        await self._recorder.durable(seq)


class FileLog:
    """`deps.LogReader` over the log's files."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._checkpoint = data / "log" / "checkpoint"

    def checkpoint(self) -> str:
        """The newest signed checkpoint, as published. Raises NotFound before the first."""
        try:
            return self._checkpoint.read_text()
        except FileNotFoundError as error:
            raise NotFound(
                "There is no checkpoint yet", "nothing was sealed so far", "ask again in a second"
            ) from error

    def status(self) -> dict[str, Any]:
        """`size`: leaves committed; `time`: when the checkpoint was published, ns since the epoch, 0 before the
        first; `lag`: leaves that no published checkpoint covers yet. Raises ProofError for a damaged log."""
        try:
            published = parse_checkpoint(parse_note(self._checkpoint.read_text()).text).size
            time = self._checkpoint.stat().st_mtime_ns
        except FileNotFoundError:
            published, time = 0, 0
        size = sealed_size(self._data)
        return {"size": size, "time": time, "lag": max(0, size - published)}
