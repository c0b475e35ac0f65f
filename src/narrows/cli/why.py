"""`narrows why EXCHANGE`: the chain from an effect up to its prompt, or down to everything that a prompt caused."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from narrows.cli.client import segment
from narrows.cli.columns import call_of, resource_of, result_of
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client
from narrows.cli.render import clocks, emit_json, fit, paint, safe, terminal_width, when, width_of
from narrows.core.errors import ConfigError

Clock = Callable[[int | None], str]

WIDTH = 80
INDENT = 10
SHOWN = 40
"""Steps that are printed; of a longer chain its two ends."""
_STYLE = {"proven": "green", "reported": "bold", "inferred": "yellow"}
_TYPES = {"tool_call": "tool call", "tool_result": "result", "file_edit": "file edit", "file_read": "file read"}


def why(
    item: Annotated[
        str,
        typer.Argument(
            metavar="EXCHANGE", help="Exchange id or unique prefix; ID#N for the item of that number in `show`."
        ),
    ],
    down: Annotated[bool, typer.Option("--down", help="Everything that it caused, instead of what caused it.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show why something happened: the chain from an effect, such as an AWS call, up to the prompt.

    Each step says what it rests on: proven, reported or inferred. Exits with 1 when no cause is known.
    """
    exchange, mark, number = item.partition("#")
    if mark and not (number.isascii() and number.isdecimal() and len(number) <= 6):
        raise ConfigError(f"{item[:64]!r} is no item", "after the # goes the item's number", "see `narrows show ID`")
    api = client(data, config)
    found = api.get(
        f"/exchanges/{segment(exchange)}/why", direction="down" if down else None, item=number if mark else None
    )
    known = bool(found["nodes"]) if down else bool(found["reached"] or found["steps"][0]["link"])
    if json:
        emit_json(found)
    elif down:
        sys.stdout.writelines(line + "\n" for line in _down(found))
    else:
        sys.stdout.writelines(line + "\n" for line in _up(found))
    raise typer.Exit(0 if known else 1)


def _up(found: Mapping[str, Any]) -> Iterator[str]:
    steps = found["steps"]
    cut = len(steps) - SHOWN
    clock = clocks(int(step["started_ns"]) for step in steps)
    yield from _day(steps)
    for at, step in enumerate(steps):
        if cut > 0 and SHOWN // 2 <= at < SHOWN // 2 + cut:
            if at == SHOWN // 2:
                yield _beside(f"... {cut} steps between; all of them with --json", "dim")
            continue
        yield from _step(step, clock)
    yield ""
    if found["reached"] and len(steps) == 1:
        yield "a prompt: nothing that is known caused it"
    elif found["reached"]:
        yield f"{len(steps)} steps to the prompt; the least sure is {_evidence(found['weakest'])}"
    elif steps[0]["link"] is None:
        yield paint("no cause is known", "red")
    else:
        yield paint("no prompt is known above this", "yellow") + f"; the least sure is {_evidence(found['weakest'])}"
    yield from _notes(found)


def _step(step: Mapping[str, Any], clock: Clock) -> Iterator[str]:
    yield line_of(step, clock)
    about = ", ".join(filter(None, (step.get("model"), _agent(step))))
    if width_of(about) + len(step["node"]) + 2 <= _width() - INDENT:
        yield _beside(f"{step['node']}  {about}".rstrip(), "dim")
    else:
        yield _beside(step["node"], "dim")
        yield _beside(about, "dim")
    link = step["link"]
    if link is not None:
        yield from _link(link, "")
    for other in step["alternatives"][:2]:
        yield from _link(other, "or ")
    if len(step["alternatives"]) > 2:
        yield _beside(f"and {len(step['alternatives']) - 2} other possible causes", "dim")
    for other in step["same_bytes"]:
        if link is None or other["cause"] != link["cause"]:
            yield from _link(other, "also ")


def _link(link: Mapping[str, Any], word: str) -> Iterator[str]:
    score = f" {link['score']:.2f}" if link["evidence"] == "inferred" else ""
    cause = f" ({link['cause']})" if word else ""
    text = safe(f"{word}{link['evidence']}{score}: {link['why']}{cause}")
    head = safe(f"{word}{link['evidence']}")
    for at, line in enumerate(textwrap.wrap(text, _width() - INDENT, break_long_words=True)):
        shown = line
        if at == 0 and line.startswith(head):
            shown = (paint(head, "dim") if word else _evidence(link["evidence"])) + line[len(head) :]
        yield " " * INDENT + shown


def _down(found: Mapping[str, Any]) -> Iterator[str]:
    clock = clocks(int(node["started_ns"]) for node in [*found["roots"], *found["nodes"]])
    yield from _day(found["roots"])
    for root in found["roots"][:8]:
        yield line_of(root, clock)
        yield _beside(root["node"], "dim")
    levels: dict[str, int] = {}
    for node in found["nodes"]:
        link = node["link"]
        effect = node["item"] is None
        levels[node["node"]] = levels.get(link["cause"], 0) + 1 if effect else 0
        item = node["item"] or {}
        if item.get("type") == "tool_result" and not item.get("error"):
            continue
        if item.get("type") == "command" and link["rule"] == "same exchange":
            continue
        mark = {"proven": " ", "reported": " ", "inferred": "?"}.get(link["evidence"], "?")
        yield line_of(node, clock, mark + "  " * min(levels[node["node"]], 4))
    yield ""
    if not found["nodes"]:
        yield "nothing that is known came of it"
    else:
        counted = Counter(node["link"]["evidence"] for node in found["nodes"])
        counts = ", ".join(f"{counted[name]} {name}" for name in _STYLE if counted[name])
        yield f"{len(found['nodes'])} things came of it: {counts}; ? marks what is inferred"
    if found["cut"]:
        yield "there is more than is shown"
    yield from _notes(found)


def line_of(node: Mapping[str, Any], clock: Clock, before: str = "") -> str:
    """One line of a node: when, what kind of thing, and what it says; within the width."""
    item = node["item"]
    kind = what_of(node)
    start = f"{clock(node['started_ns']):8}  {before}{kind:10} "
    text = text_of(node)
    style = "red" if item and item.get("error") else ""
    shown = fit(safe(text), max(_width() - len(start), 16))
    return start + (paint(shown, style) if style else shown)


def what_of(node: Mapping[str, Any]) -> str:
    """What kind of thing a node is, in a word or two."""
    item = node["item"]
    if item is not None:
        return _TYPES.get(str(item["type"]), safe(item["type"])[:12])
    if node.get("process") is not None and node["service"] == "narrows":
        return "process"
    return {"aws.call": "AWS call", "llm.message": "model call", "agent.event": "event"}.get(node["kind"], "call")


def text_of(node: Mapping[str, Any], *, result: bool = True) -> str:
    """What a node says, in one line, not yet escaped; of a call with its result unless told otherwise."""
    item = node["item"]
    if what_of(node) == "process" and node.get("process"):
        return process_of(node)
    if item is None:
        came = result_of(node) if result and node.get("outcome") else ""
        named = resource_of(node)
        return " ".join(filter(None, (call_of(node), named))) + (f", {came}" if came else "")
    text = " ".join(str(item["text"]).split())
    data = item.get("data")
    if item["type"] == "tool_call":
        given = next((data[key] for key in ("command", "cmd", "file_path", "path") if key in data), data) if (
            isinstance(data, dict)) else data  # fmt: skip
        return f"{item['name']}: {text or _plain(given)}"
    if item["type"] in ("file_edit", "file_read", "code", "subagent"):
        return " ".join(filter(None, (str(item["name"]), text)))
    return text or _plain(data)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    return "" if value is None else " ".join(str(value).split())


def process_of(node: Mapping[str, Any]) -> str:
    """The command line that a lease was minted for: the nearest that is not the helper which asked for it."""
    for one in node.get("process") or ():
        words = [str(word) for word in one["argv"]]
        if words and "aws-credentials" not in words:
            interpreted = len(words) > 1 and "/python" in f"/{words[0]}" and not words[1].startswith("-")
            first, *rest = words[1:] if interpreted else words
            return f"{' '.join([first.rsplit('/', 1)[-1], *rest])} (pid {one['pid']})"
    return "a process that is not known"


def _day(nodes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The day, where it is not today."""
    if nodes and " " in (first := when(nodes[0]["started_ns"])):
        yield paint(first.partition(" ")[0], "dim")


def _agent(node: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (str(node.get("agent") or ""), str(node.get("agent_version") or ""))))


def _beside(text: str, style: str) -> str:
    return " " * INDENT + paint(fit(safe(text), _width() - INDENT), style)


def _evidence(name: str) -> str:
    return paint(name, _STYLE[name]) if name in _STYLE else safe(name)


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    for note in found.get("notes") or ():
        yield paint(f"note: {safe(note)}", "dim")


def _width() -> int:
    return min(terminal_width(), WIDTH)
