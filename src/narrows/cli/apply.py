"""`narrows apply -f FILE`: make the registered targets what a file says they are.

First the plan: what would be created, changed (field by field) and removed. Then, when it is confirmed, exactly that
plan: each change holds only while the connection still is as the plan saw it, so that two administrators do not
overwrite each other. Applying a file again changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narrows.cli.client import segment
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import emit_json, paint, printable_json, safe
from narrows.core.errors import ConfigError, NarrowsError

if TYPE_CHECKING:
    from narrows.cli.client import Client

_MARKS = {"create": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}


@dataclass(slots=True)
class Step:
    """One change of the plan. `fields` is (name, before, after); `etag` says what it was planned from."""

    action: str
    name: str
    body: dict[str, Any] | None = None
    etag: str = ""
    fields: list[tuple[str, Any, Any]] = field(default_factory=list)

    def json(self, *, done: bool | None = None) -> dict[str, Any]:
        """What `--json` prints of it."""
        told: dict[str, Any] = {"action": self.action, "name": self.name}
        told["fields"] = [{"field": name, "before": before, "after": after} for name, before, after in self.fields]
        return told if done is None else told | {"done": done}


def plan(
    wanted: list[dict[str, Any]], registered: list[dict[str, Any]], *, prune: bool
) -> tuple[list[Step], list[str]]:
    """The steps from what is registered to what is wanted, and the names that the file does not have and that stay."""
    from narrows.manage.schema import etag

    known = {str(row["name"]): row for row in registered}
    names = {str(row["name"]) for row in wanted}
    steps = []
    for row in wanted:
        name = str(row["name"])
        before = known.get(name)
        if before is None:
            steps.append(Step("create", name, row, fields=list(_differences({}, row))))
        elif fields := list(_differences(before, row)):
            steps.append(Step("change", name, row, etag(before), fields))
    others = [name for name in known if name not in names]
    if not prune:
        return steps, others
    return steps + [Step("remove", name, None, etag(known[name])) for name in others], []


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """The fields that differ, those of the credential one by one. Against nothing: those that say something."""
    from narrows.cli.apply_file import short

    shown = after if before or prefix else short(after)
    for name, value in shown.items():
        old = before.get(name)
        if isinstance(value, Mapping):
            yield from _differences(old if isinstance(old, Mapping) else {}, value, f"{prefix}{name}.")
        elif _listed(value) != _listed(old) and not (old is None and prefix and not before and value in ("", None)):
            yield f"{prefix}{name}", _listed(old), _listed(value)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def apply(
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="File with `connections:`; - is standard input.")
    ],
    prune: Annotated[bool, typer.Option("--prune", help="Remove connections that the file does not have.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show the plan and change nothing; exit 1 if there is drift.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make the registered targets what a file says: plan, confirm, apply.

    Without --yes and without a terminal to ask on, it shows the plan and exits 1 if there is anything to do.
    """
    from narrows.cli import apply_file

    wanted = apply_file.read(file, _raw(file))
    api = client(data, config)
    steps, others = plan(wanted, list(api.pages("/connections")), prune=prune)
    ask = not yes and not plan_only and not json and sys.stdin.isatty() and str(file) != "-"
    if not steps or not (yes or ask):
        _show(steps, others, json=json)
        raise typer.Exit(1 if steps else 0)
    if ask:
        _show(steps, others, json=False)
        if not typer.confirm(f"apply {len(steps)} change{'' if len(steps) == 1 else 's'}?", default=False):
            raise typer.Exit(1)
    _carry_out(api, steps, json=json, shown=ask)


def _raw(file: Path) -> bytes:
    from narrows.cli.apply_file import MAX_FILE

    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_FILE + 1)
    try:
        with file.open("rb") as source:
            return source.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(
            f"{file} could not be read", error.strerror or type(error).__name__, "check the path"
        ) from None


def _carry_out(api: Client, steps: list[Step], *, json: bool, shown: bool) -> None:
    """The plan, step by step. At the first that fails it stops, and says what was done until then."""
    for done, step in enumerate(steps):
        try:
            _do(api, step)
        except NarrowsError as error:
            why = f"{error.what}: {error.why}" if error.why else error.what
            raise NarrowsError(
                f"{done} of {len(steps)} changes were made; {step.action} {step.name} failed",
                why,
                f"{error.hint + '; ' if error.hint else ''}apply the file again: it goes on where this stopped",
            ) from error
        if json:
            emit_json(step.json(done=True))
        elif shown:
            print(f"{step.action} {safe(step.name)}: done")
        else:
            _show_step(step)
    if not json:
        print(f"{len(steps)} change{'' if len(steps) == 1 else 's'} made")


def _do(api: Client, step: Step) -> None:
    path = f"/connections/{segment(step.name)}"
    if step.action == "create":
        import secrets

        api.post("/connections", step.body, key=secrets.token_hex(16))
    elif step.action == "change":
        api.put(path, step.body, etag=step.etag)
    else:
        api.delete(path, etag=step.etag)


def _show(steps: list[Step], others: list[str], *, json: bool) -> None:
    if json:
        for step in steps:
            emit_json(step.json(done=False))
        return
    for step in steps:
        _show_step(step)
    for name in others:
        print(f"  {safe(name)} is registered and not in the file; --prune removes it")
    if not steps:
        print("nothing to do: what is registered is what the file says")


def _show_step(step: Step) -> None:
    mark, style = _MARKS[step.action]
    print(paint(f"{mark} {step.action} {safe(step.name)}", style))
    for name, before, after in step.fields:
        if step.action == "create":
            print(f"    {safe(name)}: {_text(after)}")
        else:
            print(f"    {safe(name)}: {_text(before)} -> {_text(after)}")


def _text(value: Any) -> str:
    return safe(value) if isinstance(value, str) and value else printable_json(value)
