"""`narrows verify`: does the record prove itself? Reads the data directory and a public key; asks no server."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from narrows.cli.context import ConfigOption, DataOption, JsonOption, settings
from narrows.cli.render import colours, emit_json, paint, safe, size
from narrows.core import ids
from narrows.core.errors import ConfigError, NarrowsError, NotFound

if TYPE_CHECKING:
    from narrows.record.verify_report import Report
    from narrows.settings import Settings

SHOWN = 50
"""Findings that are printed; `--json` has all."""


def verify(
    item: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Session id or unique prefix; default: everything.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify everything: the default.")] = False,
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="Public key, or a file with it; default: DATA/keys/log.pub.")
    ] = "",
    since: Annotated[
        Path | None,
        typer.Option(
            "--since", metavar="FILE", help="Earlier checkpoint: prove that history only grew.", show_default=False
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness", metavar="KEY", help="Require this witness's cosignature; repeatable.", show_default=False
        ),
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="Also compare the index with the recording: takes as long as indexing.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Verify the record offline. Exits with 0 only if everything proves."""
    from narrows.record.verify import verify_all, verify_session

    known = settings(data, config)
    where = known.data
    if not (where / "log").is_dir():
        raise ConfigError("Nothing was verified", f"{where} holds no log", "name the data directory with --data")
    vkey = _key(key, where)
    if item is not None:
        if everything or since is not None or witness or index:
            raise ConfigError(
                "Nothing was verified", "--all, --since, --witness and --index are about the whole log, not one session"
            )
        report = verify_session(where, vkey, _session(where, item))
    else:
        older = _read(since, "The earlier checkpoint") if since is not None else None
        with_progress: Callable[[str, int, int], None] = _progress if colours(sys.stderr) else _silent
        report = verify_all(where, vkey, since=older, witnesses=witness or (), progress=with_progress)
        if index:
            _check_index(known, report, with_progress)
        _end_progress()
    if json:
        emit_json({"ok": report.ok, **asdict(report)})
    else:
        _print(report)
    raise typer.Exit(0 if report.ok else 1)


def _key(given: str, data: Path) -> str:
    """The public key: as given, from the file that is named, or the data directory's own."""
    if given and "+" in given and not Path(given).exists():
        return given
    return _read(Path(given) if given else data / "keys" / "log.pub", "The public key").strip()


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{what} could not be read", f"{path}: {why}") from error


def _session(data: Path, item: str) -> bytes:
    """The session that an id or unique prefix names, by the objects on disk. Raises NotFound, ConfigError."""
    try:
        return ids.parse(item)
    except ValueError:
        folder = data / "objects" / "sessions"
        names = (
            [path.name for path in folder.iterdir() if path.name.startswith(item.lower())] if folder.is_dir() else []
        )
    if not names:
        raise NotFound(
            f"There is no session {item[:64]!r}", "no recorded session's id begins so", "see `narrows sessions`"
        )
    if len(names) > 1:
        raise ConfigError(
            f"{item[:64]!r} names {len(names)} sessions", ", ".join(sorted(names)[:4]), "give more of the id"
        )
    return ids.parse(names[0])


def _check_index(known: Settings, report: Report, progress: Callable[[str, int, int], None]) -> None:
    """Add to the report what the index says otherwise than the recording."""
    from narrows.cli.control import describer
    from narrows.record.index.check import check_index
    from narrows.record.index.sqlite import SqliteIndex

    path = known.data / "index.db"
    if not path.is_file():
        report.found("index", "There is no index: it is made again when the gateway runs", file="index.db")
        return
    with closing(SqliteIndex(path, write=False)) as held:
        try:
            for found in check_index(known.data, held, describer(known), lambda at, of: progress("index", at, of)):
                what = f"The index says {found.field} {found.index}, the recording {found.recording}"
                exchange = "" if found.what == "index.db" else found.what
                report.found("index", what, exchange=exchange, file="index.db")
        except NarrowsError as error:
            report.found("index", f"The index could not be compared: {error}", file="index.db")
        except sqlite3.Error as error:
            report.found("index", f"The index is damaged: {error}", file="index.db")


def _silent(stage: str, done: int, total: int) -> None:
    """No progress: standard error is not a terminal."""


def _progress(stage: str, done: int, total: int) -> None:
    share = f" {done * 100 // total:3} %" if total else ""
    sys.stderr.write(f"\r\x1b[Kverifying {safe(stage)}{share}")
    sys.stderr.flush()


def _end_progress() -> None:
    if colours(sys.stderr):
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _print(report: Report) -> None:
    for finding in report.findings[:SHOWN]:
        print(f"{paint('does not prove', 'red')}  {safe(finding)}")
    more = len(report.findings) - SHOWN + report.findings_left_out
    if more > 0:
        print(f"... and {more} more; all with --json")
    for note in report.notes[:SHOWN]:
        print(f"{paint('note', 'yellow')}  {safe(note)}")
    read = (
        f"{report.leaves} leaves, {report.exchanges} exchanges of {report.sessions} sessions, "
        f"{report.frames} frames, {size(report.bytes)}"
    )
    if report.ok:
        # What no checkpoint covers is chained, not proved: say so instead of "everything".
        proven = "everything that is signed proves" if report.unsealed_frames else "everything proves"
        print(f"{paint(proven, 'green')}: {read}; checkpoint of {report.checkpoint_size} leaves")
    else:
        count = len(report.findings) + report.findings_left_out
        print(f"{paint('NOT PROVEN', 'red')}: {count} finding{'s' if count != 1 else ''} in {read}")
    if report.unsealed_frames or report.open_exchanges:
        waiting = f"{report.unsealed_frames} frames are chained and not yet signed"
        print(f"{waiting}; {report.open_exchanges} exchanges still run")
