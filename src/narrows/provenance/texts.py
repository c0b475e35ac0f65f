"""Commands as texts: what a tool call runs, whether a process runs it, and how well it fits an AWS call.

Texts come from models and agents, so every comparison is bounded: `MAX_COMMAND` characters of a command, `MAX_ARGV` of
a process's arguments, and a budget for a whole session.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from narrows.core.values import Item
from narrows.provenance.model import Process

MAX_COMMAND = 16 * 1024
MAX_ARGV = 64 * 1024
MIN_COMMAND = 3
MAX_SIMPLE = 2048
"""Characters of one simple command that is split into words."""
SHELLS = frozenset({"bash", "sh", "shell", "zsh", "console", "mswea_bash_command"})
"""Languages of a code block that is a command."""
_KEYS = ("command", "cmd", "script", "code")
_OPERATORS = frozenset({"&&", "||", ";", "|", "|&", "&"})
_SEPARATORS = re.compile(r"\n|&&|\|\|?|;")


class Budget:
    """Characters that may still be compared. Afterwards nothing matches, and `spent` says so."""

    def __init__(self, characters: int = 60_000_000) -> None:
        self._left = characters

    def take(self, characters: int) -> bool:
        """Whether so many may be compared."""
        self._left -= characters
        return self._left >= 0

    @property
    def spent(self) -> bool:
        """It was not enough."""
        return self._left < 0


def command_of(item: Item) -> str:
    """The command that an item runs, or an empty string: a shell tool's input, a command, a shell code block."""
    if item.type == "command":
        text = item.text or _input(item.data)
    elif item.type == "tool_call":
        text = _input(item.data)
    elif item.type == "code" and item.name.lower() in SHELLS:
        text = item.text
    else:
        text = ""
    return text.strip()


def _input(data: Any) -> str:
    if isinstance(data, str):
        return data
    if not isinstance(data, dict):
        return ""
    for key in _KEYS:
        value = data.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
            # `["bash", "-lc", TEXT]`: the text is the command; otherwise the words are.
            shell = value[0].rsplit("/", 1)[-1] in SHELLS and len(value) >= 3 and value[1].startswith("-")
            return str(value[-1]) if shell else shlex.join(value)
    return ""


def whole_in(command: str, processes: Sequence[Process], budget: Budget) -> str:
    """Where the whole command stands among a tree's processes: in words, or an empty string.

    It stands whole in one argument (as a shell gets it after `-c`, also quoted once more), or the arguments are the
    command, word by word (a shell replaces itself by a simple command).
    """
    if not MIN_COMMAND <= len(command) <= MAX_COMMAND:
        return ""
    forms = {command, command.replace("'", "'\"'\"'"), command.replace("'", "'\\''")}
    words = _words(command)
    for process in processes:
        for argument in process.argv:
            if len(argument) < len(command) or not budget.take(min(len(argument), MAX_ARGV)):
                continue
            if argument.strip() == command:
                return f"it is an argument of process {process.pid}"
            if len(command) >= 8 and any(_stands(form, argument[:MAX_ARGV]) for form in forms):
                return f"it stands whole in an argument of process {process.pid}"
        if words and _runs(words, process.argv):
            return f"it is, word by word, what process {process.pid} runs"
    return ""


def _stands(command: str, argument: str) -> bool:
    """The command is in the argument, and not as a piece of longer words."""
    at = argument.find(command)
    end = at + len(command)
    return at >= 0 and not _joins(argument, at - 1) and not _joins(argument, end)


def _joins(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] in "-_./=")


def partly_in(command: str, processes: Sequence[Process], budget: Budget) -> tuple[float, str]:
    """How much of the command a tree's processes run: a score, and in words."""
    best: tuple[float, str] = (0.0, "")
    if not budget.take(len(command)):
        return best
    simple = _simple(command)
    for process in processes:
        if not process.argv or not budget.take(sum(map(len, process.argv[:64])) + len(command)):
            continue
        for words in simple:
            if len(words) > 1 and _runs(words, process.argv):
                return 0.9, f"one of its commands is, word by word, what process {process.pid} runs"
            common = _common(words, process.argv)
            if common >= 2 and (score := 0.4 + 0.4 * common / max(len(words), len(process.argv))) > best[0]:
                best = min(score, 0.8), f"{common} of its words are what process {process.pid} runs"
    return best


@lru_cache(4096)
def _words(command: str) -> tuple[str, ...]:
    """The words of one simple command; none where a shell would do more than split it, or where it is very long."""
    if len(command) > MAX_SIMPLE or any(mark in command for mark in "`$\n"):
        return ()
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        return ()
    return () if any(word in _OPERATORS or word.startswith((">", "<", "2>")) for word in words) else words


@lru_cache(1024)
def _simple(command: str) -> tuple[tuple[str, ...], ...]:
    """The simple commands in a command line."""
    pieces = _SEPARATORS.split(command[:MAX_COMMAND])[:64]
    return tuple(words for piece in pieces if (words := _words(piece.strip())))


def _runs(words: Sequence[str], argv: Sequence[str]) -> bool:
    """The arguments are those words, perhaps behind an interpreter: `python3 /usr/bin/aws s3 ls` runs `aws s3 ls`."""
    for skip in range(min(3, len(argv))):
        rest = argv[skip:]
        if len(rest) == len(words) and rest[0].rsplit("/", 1)[-1] == words[0].rsplit("/", 1)[-1]:
            return list(rest[1:]) == list(words[1:])
    return False


def _common(words: Sequence[str], argv: Sequence[str]) -> int:
    """How many of the words are among the arguments, if the program is."""
    names = {argument.rsplit("/", 1)[-1] for argument in argv[:3]}
    if words[0].rsplit("/", 1)[-1] not in names:
        return 0
    given = set(argv[:256])
    return 1 + sum(1 for word in words[1:257] if word in given)


def spelling(operation: str) -> str:
    """An operation as the AWS CLI spells it: `DescribeDBInstances` is `describe-db-instances`."""
    partly = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1-\2", operation[:128])
    return re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", partly).lower()


_HIGH_LEVEL = {
    "cp": ("put-object", "get-object", "copy-object", "head-object", "create-multipart-upload", "upload-part"),
    "mv": ("put-object", "get-object", "copy-object", "delete-object", "head-object"),
    "sync": ("put-object", "get-object", "copy-object", "delete-object", "list-objects-v2"),
    "rm": ("delete-object", "delete-objects", "list-objects-v2"),
    "ls": ("list-buckets", "list-objects-v2"),
    "mb": ("create-bucket",),
    "rb": ("delete-bucket",),
}
"""What `aws s3 WORD` calls."""


def fit(command: str, service: str, operation: str, names: Iterable[str], budget: Budget) -> tuple[float, str]:
    """How well a command's text fits an AWS call: a score from 0 to 0.55, and in words what of it does."""
    text = command[:MAX_COMMAND].lower()
    if not budget.take(4 * len(text)):
        return 0.0, ""
    score, told = 0.0, []
    dashed = spelling(operation)
    words = set(re.split(r"[^a-z0-9_\-]+", text))
    if dashed and (dashed in words or dashed.replace("-", "_") in words or operation.lower() in words):
        score, told = 0.3, [f"its text holds {dashed}"]
    elif service == "s3":
        high = next((word for word, calls in _HIGH_LEVEL.items() if dashed in calls and word in words), "")
        if high:
            score, told = 0.25, [f"its text holds s3 {high}"]
    if score and service and service.lower() in words:
        score, told = score + 0.05, [f"{told[0]} and {service}"]
    named = next((name for name in names if len(name) >= MIN_COMMAND and name.lower() in text), "")
    if named:
        score, told = score + 0.2, [*told, f"it names {named[:60]}"]
    return score, ", ".join(told)
