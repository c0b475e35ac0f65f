"""`narrows connect AGENT`: write an agent's settings and hooks, and take exactly that back.

Nothing is written before the change was shown and agreed to; what a file held before is kept first. Running it again
changes nothing; running it with other options is as if the first run had not been.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from narrows.cli import connect_edits as edits
from narrows.cli.client import segment
from narrows.cli.connect_files import Found, Keeper, Kept, digest, look, remove, unchanged, writable, write
from narrows.cli.connect_paths import Scope, Where
from narrows.cli.connect_plans import FilePlan, Order, Target, plan
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client_of, settings
from narrows.cli.render import emit_json, paint, safe
from narrows.core.errors import ConfigError, NotFound
from narrows.core.providers import base_path
from narrows.core.values import Connection
from narrows.settings import Settings, default_data_dir


class AgentName(StrEnum):
    """Agents whose settings are known."""

    CURSOR = "cursor"
    CLAUDE_CODE = "claude-code"
    CODEX = "codex"
    GEMINI = "gemini"
    COPILOT = "copilot"
    OPENCODE = "opencode"


@dataclass(slots=True)
class Change:
    """One file: as it is, as it is to be (None: not there), and what is to be kept about it (None: nothing)."""

    found: Found
    text: str | None
    kept: Kept | None
    left: list[str] = field(default_factory=list)

    @property
    def action(self) -> Literal["create", "change", "delete", "none"]:
        """What happens to the file."""
        if self.text == self.found.text:
            return "none"
        if self.text is None:
            return "delete"
        return "create" if self.found.text is None else "change"


def connect(
    agent: Annotated[
        AgentName, typer.Argument(metavar="AGENT", help="cursor, claude-code, codex, gemini, copilot or opencode.")
    ],
    user: Annotated[bool, typer.Option("--user", help="For you, in every project; the default.")] = False,
    project: Annotated[bool, typer.Option("--project", help="For the repository that you are in.")] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="For everyone on this machine, at the place for administrators.")
    ] = False,
    connection: Annotated[
        list[str] | None,
        typer.Option(
            "--connection", metavar="NAME", help="AWS account or model API to use; may be repeated.", show_default=False
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what this command wrote.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes and make none.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Connect an agent by its own settings and hooks: shows the change, asks, writes. --undo takes it back."""
    scope = _scope(user, project, machine)
    if undo and connection:
        raise ConfigError("Nothing was changed", "--undo takes everything back, whatever connection it was for")
    where = Where(sys.platform, _home(), _root(Path.cwd()), os.environ)
    found = settings(data, config)
    keeper = Keeper(found.data, agent.value, scope, where.root if scope == "project" else None)
    kept = keeper.read()
    inside = where.root if scope == "project" else None
    notes: list[str] = []
    if undo:
        changes = [undone(one, look(one.path)) for one in kept.values()]
    else:
        order = _order(agent.value, scope, where, found, connection or [])
        planned = plan(order)
        notes = planned.notes
        changes = connected(planned.files, kept, inside)
    made = _carry_out(changes, keeper, kept, undo=undo, yes=yes, dry_run=dry_run, json=json, notes=notes)
    if json:
        emit_json(_report(agent.value, scope, changes, notes, made))
    elif undo and not kept:
        print(f"{agent.value}: there is nothing to undo for the {scope}")


def _scope(user: bool, project: bool, machine: bool) -> Scope:
    if user + project + machine > 1:
        raise ConfigError("Nothing was changed", "--user, --project and --machine are three places", "give one of them")
    return "project" if project else "machine" if machine else "user"


def _home() -> Path:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - pathlib's raises where there is none
    if not home.is_absolute():
        raise ConfigError("Nothing was changed", "no home directory is known", "set HOME")
    return home


def _root(start: Path) -> Path:
    """The repository's top, or the directory itself outside of one."""
    return next((one for one in (start, *start.parents) if (one / ".git").exists()), start)


def program() -> str:
    """The absolute path of this very `narrows`, for an agent that has another PATH. Raises ConfigError."""
    beside = Path(sys.executable).with_name("narrows")  # not resolved: a virtual environment is found by its own name
    for path in (beside, Path(sys.argv[0]).absolute()):
        if path.name == "narrows" and os.access(path, os.X_OK):
            return str(path)
    raise ConfigError("Nothing was changed", f"no command `narrows` is beside {sys.executable}", "install the package")


def _order(agent: str, scope: Scope, where: Where, found: Settings, names: Sequence[str]) -> Order:
    targets: list[Target] = []
    gateway = f"http://{_address(found.listen_host)}:{found.gateway_port}"
    if names:
        api = client_of(found.data)
        gateway = api.local.gateway
        rows = [api.get(f"/connections/{segment(name)}") for name in dict.fromkeys(names)]
        targets = [_target(row) for row in rows]
    ours = scope != "machine" and found.data != default_data_dir()
    text = _plugin() if agent == "opencode" else ""
    order = Order(
        agent, scope, where, program(), gateway, tuple(targets),
        data=str(found.data) if ours else "", ca=str(found.data / "ca.pem"), plugin=text,
    )  # fmt: skip
    for one in (order.program, order.gateway, order.data, order.ca, *(target.region for target in targets)):
        if not one.isprintable():
            raise ConfigError("Nothing was changed", f"{one!r} is not one line of printable text")
    return order


def _target(row: dict[str, Any]) -> Target:
    name, kind, provider = str(row["name"]), str(row["kind"]), str(row.get("provider") or "")
    base = ""
    if kind == "llm":
        known = cast(Literal["anthropic"], provider)  # the gateway answered with it: it is one of the schema's
        base = base_path(Connection(name, kind="llm", provider=known, endpoint=str(row.get("endpoint") or "")))
    return Target(name, kind, provider, str(row.get("region") or ""), bool(row.get("fail_closed")), base)


def _address(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _plugin() -> str:
    from importlib.resources import files

    try:
        return (files("narrows.cli") / "plugins" / "opencode.js").read_text("utf-8")
    except FileNotFoundError as error:
        raise NotFound("The opencode plugin was not found", "this installation lacks it", "install it anew") from error


# -- what changes -----------------------------------------------------------------------------------------------------


def connected(files: Sequence[FilePlan], kept: dict[Path, Kept], inside: Path | None = None) -> list[Change]:
    """The changes that make every file as planned, and take an earlier run's out of files that have no part any more.

    Raises ConfigError.
    """
    planned = {one.path for one in files}
    gone = [undone(one, look(one.path)) for path, one in kept.items() if path not in planned]
    return [_connected(one, look(one.path, inside=_bound(one, inside)), kept.get(one.path)) for one in files] + gone


def _bound(one: FilePlan, inside: Path | None) -> Path | None:
    """The AWS config is the user's own, also for a project."""
    return None if one.form == "ini" else inside


def _connected(one: FilePlan, found: Found, old: Kept | None) -> Change:
    with _named(one.path):
        return _planned(one, found, old)


def _planned(one: FilePlan, found: Found, old: Kept | None) -> Change:
    if old is None:
        text, done = edits.apply(one.form, found.text, one.edits)
        if not done:
            return Change(found, found.text, None)
        return Change(found, text, Kept(one.path, one.form, found.text, [digest(text)], done))
    if found.text is not None and digest(found.text) in old.written:
        before = old.original
    else:
        if _holds(one, found.text, old):
            return Change(found, found.text, old)
        before = _without(old, found.text)[0]
    text, done = edits.apply(one.form, before, one.edits)
    if not done:
        return Change(found, text, None)
    written = [digest(text)] + ([digest(found.text)] if found.text is not None else [])
    return Change(found, text, Kept(one.path, one.form, before, written, done, old.made))


def _holds(one: FilePlan, text: str | None, old: Kept) -> bool:
    """Whether a file that its owner changed since still has all that is wanted, and nothing of ours besides."""
    if text is None:
        return False
    again, done = edits.apply(one.form, text, one.edits)
    wanted = [(edit.op, edit.path, edit.value) for edit in one.edits]
    return not done and again == text and all((it.op, it.path, it.value) in wanted for it in old.done)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in an error about a text which file it is of."""
    try:
        yield
    except ConfigError as error:
        why = f"{error.what[:1].lower()}{error.what[1:]}: {error.why}".removeprefix("the file was not changed: ")
        raise ConfigError(f"{path} was not changed", why, error.hint) from error


def _without(old: Kept, text: str | None) -> tuple[str | None, list[str]]:
    """A file's text without ours, None if nothing is left of a file that we made; and what was left in it."""
    if text is None:
        return None, []
    with _named(old.path):
        rest, left = edits.revert(old.form, text, old.done)
    return (None if old.original is None and edits.is_empty(old.form, rest) else rest), left


def undone(old: Kept, found: Found) -> Change:
    """The change that takes back what was done to a file. Raises ConfigError.

    The original bytes if the file is as we wrote it; else our entries are taken out of it.
    """
    if found.text is None or found.text == old.original:
        return Change(found, found.text, None)
    if digest(found.text) in old.written:
        return Change(found, old.original, None)
    text, left = _without(old, found.text)
    return Change(found, text, None, left)


# -- showing and doing ------------------------------------------------------------------------------------------------


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
"""A line with its end. Only a line feed ends one: `splitlines` would split at a dozen characters."""


def difference(one: Change) -> list[str]:
    """A unified diff of a change, without line ends."""
    old, new = (_LINE.findall(text or "") for text in (one.found.text, one.text))
    before, after = ("/dev/null" if text is None else str(one.found.path) for text in (one.found.text, one.text))
    lines: list[str] = []
    for line in unified_diff(old, new, before, after):
        ended = line.endswith("\n")
        lines.append(line[:-1] if ended else line)
        if not ended and line[:1] in "+- ":
            lines.append("\\ No newline at end of file")
    return lines


def _show(changes: Sequence[Change], notes: Sequence[str]) -> None:
    for one in changes:
        path = safe(one.found.path)
        if one.found.path.is_symlink() or one.found.path.parent.resolve() != one.found.target.parent:
            print(f"{path} leads to {safe(one.found.target)}: that file changes")
        for line in difference(one):
            style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
            style = "bold" if line.startswith(("+++", "---")) else style
            print(paint(safe(line.rstrip("\r")), style) if style else safe(line.rstrip("\r")))
        if one.left:
            print(f"{path}: changed since, and left as it is: {safe(', '.join(one.left))}")
    for note in notes:
        print(paint("note: ", "yellow") + safe(note))


def _carry_out(
    changes: Sequence[Change],
    keeper: Keeper,
    kept: dict[Path, Kept],
    *,
    undo: bool,
    yes: bool,
    dry_run: bool,
    json: bool,
    notes: Sequence[str],
) -> bool:
    """Show, ask, and write; returns whether anything was written."""
    real = [one for one in changes if one.action != "none"]
    if not json:
        _show(changes, notes)
    for one in real:
        writable(one.found)
    if dry_run:
        return False
    if not real:
        if undo and kept:
            keeper.write({})
        if not undo and not json:
            print("nothing to change: it is connected so already")
        return False
    if not yes:
        _ask()
    for one in real:
        unchanged(one.found)
    after = {one.found.path: one.kept for one in changes if one.kept is not None}
    if not undo:
        keeper.write(kept | after)  # before the files: what they held must not be lost by whatever comes next
    for one in real:
        _write(one, kept.get(one.found.path))
    keeper.write(after)
    if not json:
        for one in real:
            done = {"create": "written", "change": "changed", "delete": "deleted"}[one.action]
            print(f"{safe(one.found.path)} {done}")
    return True


def _write(one: Change, old: Kept | None) -> None:
    if one.text is not None:
        made = write(one.found, one.text)
        if one.kept is not None:
            one.kept.made = [*one.kept.made, *made]
        return
    remove(one.found)
    for directory in reversed(old.made if old is not None else []):
        if directory.is_dir() and not any(directory.iterdir()):  # else it holds something else by now
            directory.rmdir()


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ConfigError("Nothing was changed", "the input is not a terminal, so nobody can be asked", "add --yes")
    sys.stderr.write("Write this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was changed", file=sys.stderr)
        raise typer.Exit(1)


def _report(agent: str, scope: str, changes: Sequence[Change], notes: Sequence[str], written: bool) -> dict[str, Any]:
    return {
        "agent": agent,
        "scope": scope,
        "written": written,
        "files": [
            {
                "path": str(one.found.path),
                "target": str(one.found.target),
                "action": one.action,
                "diff": "\n".join(difference(one)),
                "left": one.left,
            }
            for one in changes
        ],
        "notes": list(notes),
    }
