"""`narrows why` and the timeline of `narrows show`, over a sealed recording: what a reader sees, and exit codes."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.kit.why import COMMAND, SESSION, Why, describe, recorded
from tests.sealed_world import VKEY

from narrows.cli import show
from narrows.cli.main import main
from narrows.cli.render import width_of
from narrows.core import ids


class _Through(dict[str, Any]):
    """Answers of the fake gateway that come from the real API over the recording."""

    def __init__(self, why: Why) -> None:
        super().__init__()
        self._why = why

    def get(self, key: str, default: Any = None) -> Any:
        method, path = key.split(" ", 1)

        def answer(query: dict[str, str], body: Any) -> tuple[int, bytes]:
            found = self._why.client.request(method, f"/api/v1{path}?{urlencode(query)}", json=body)
            return found.status_code, found.content

        return answer


@pytest.fixture
def why(api: Any, tmp_path: Path) -> Iterator[Why]:
    with recorded(tmp_path / "recorded") as made:
        api.answers = _Through(made)
        yield made


def _clean(text: str) -> None:
    """No byte of the recording steers the terminal."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), text


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    _clean(told.out)
    _clean(told.err)
    return code, told.out, told.err


def test_why_prints_the_chain_to_the_prompt(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "why", why.ids["call"])
    assert code == 0
    kinds = re.findall(r"^.{10}(AWS call|process|tool call|prompt) +", out, re.MULTILINE)
    assert kinds == ["AWS call", "process", "tool call", "tool call", "prompt", "prompt"]
    evidence = re.findall(r"^ {10}(proven|reported|inferred)\b", out, re.MULTILINE)
    assert evidence == ["proven", "reported", "reported", "proven", "reported"]
    assert "claude-sonnet-4-5, claude-code 2.1.197" in out and COMMAND in out and "NRWL1" in out
    assert "6 steps to the prompt; the least sure is reported" in out
    assert max(map(width_of, out.splitlines())) <= 80
    assert "remove the exports of 2019 \\x1b" in out


def test_why_takes_prefixes_and_items(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(_run(capsys, "why", why.ids["call"], "--json")[1])
    node = whole["steps"][3]["node"]
    code, out, _ = _run(capsys, "why", node, "--json")
    assert code == 0 and json.loads(out)["steps"] == whole["steps"][3:]
    assert main(["why", why.ids["call"][:4]]) != 0, "several begin so"
    assert "names several" in capsys.readouterr().err
    assert main(["why", why.ids["call"] + "#x"]) == 2
    assert main(["why", why.ids["first"] + "#77"]) == 1
    assert "no item of that number" in capsys.readouterr().err


def test_why_without_a_known_cause_says_no(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "why", why.ids["lease"])
    assert code == 0
    code, out, _ = _run(capsys, "why", why.ids["stray"])
    assert "time and text" not in out and code in (0, 1)


def test_why_down_prints_what_a_prompt_caused(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "why", why.ids["prompt"], "--down")
    assert code == 0 and "s3 DeleteObject" in out and "things came of it" in out
    assert max(map(width_of, out.splitlines())) <= 80
    found = json.loads(_run(capsys, "why", why.ids["prompt"], "--down", "--json")[1])
    assert why.ids["call"] in {node["node"] for node in found["nodes"]}
    code, out, _ = _run(capsys, "why", why.ids["call"], "--down")
    assert code == 1 and "nothing that is known came of it" in out


def test_colours_only_where_they_are_wanted(
    why: Why, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narrows.cli.render.colours", lambda stream: True)
    monkeypatch.setattr("narrows.cli.why.terminal_width", lambda: 200)
    assert main(["why", why.ids["call"]]) == 0
    out = capsys.readouterr().out
    assert "\x1b[32mproven\x1b[0m" in out
    _clean(re.sub(r"\x1b\[\d+m", "", out))
    plain = re.sub(r"\x1b\[\d+m", "", out)
    assert max(map(width_of, plain.splitlines())) <= 80


def test_show_session_is_one_timeline(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "show", ids.text(SESSION))
    assert code == 0
    lines = [line for line in out.splitlines() if re.match(r"[\d:-]{8}", line)]
    kinds = [re.search(r"(prompt|answer|tool call|process|AWS call|result|command)", line) for line in lines]
    assert [found and found[1] for found in kinds] == [
        "prompt", "answer", "tool call", "process", "AWS call", "answer", "AWS call"
    ]  # fmt: skip
    tool = next(line for line in lines if "tool call" in line)
    assert COMMAND in tool and "error" in tool and "claude-sonnet-4-5" in tool
    assert "DeleteObject" in out and "204" in out
    code, out, _ = _run(capsys, "show", ids.text(SESSION), "--calls")
    assert "LEVEL" in out and "tool call" not in out
    shown = json.loads(_run(capsys, "show", ids.text(SESSION), "--json")[1])
    assert len(shown["calls"]) == 8 and len(shown["timeline"]) > 8


def test_show_model_call(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "show", why.ids["first"])
    assert code == 0
    for part in (
        "claude-sonnet-4-5",
        "100 input",
        "20 output",
        "tool call",
        f"Bash: {COMMAND}",
        "#0",
        "claude-code 2.1.197",
    ):
        assert part in out, part
    code, out, _ = _run(capsys, "show", why.ids["before"])
    assert code == 0 and "PreToolUse" in out and COMMAND in out


def test_show_says_loudly_that_the_index_lies(why: Why, capsys: pytest.CaptureFixture[str]) -> None:
    db = sqlite3.connect(why.data / "index.db")
    with db:
        db.execute("UPDATE exchanges SET operation = ? WHERE operation = 'DeleteObject'", ("Get\x1b[2JObject",))
    db.close()
    code, out, err = _run(capsys, "show", why.ids["call"])
    assert code == 1 and "THE INDEX DOES NOT SAY WHAT THE RECORDING SAYS" in err
    assert "operation" in err and "DeleteObject" in err and out
    code, out, err = _run(capsys, "show", why.ids["call"], "--json")
    assert code == 1 and json.loads(out)["differences"][0]["field"] == "operation" and "INDEX" in err


def test_verify_compares_the_index_when_asked(
    why: Why, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narrows.cli.control.describer", lambda settings: describe)
    options = ["verify", "--data", str(why.data), "--key", VKEY]
    assert _run(capsys, *options, "--index")[0] == 0
    db = sqlite3.connect(why.data / "index.db")
    with db:
        db.execute("UPDATE exchanges SET principal = 'bob' WHERE operation = 'DeleteObject'")
    db.close()
    assert _run(capsys, *options)[0] == 0, "the record itself proves"
    code, out, _ = _run(capsys, *options, "--index")
    assert code == 1 and "The index says principal bob, the recording alice" in out and why.ids["call"] in out
    code, out, _ = _run(capsys, *options, "--index", "--json")
    assert {finding["code"] for finding in json.loads(out)["findings"]} == {"index"}
    (why.data / "index.db").write_bytes(b"no database" * 1000)
    assert _run(capsys, *options, "--index")[0] == 1
    assert main([*options, "--index", ids.text(SESSION)]) == 2


@pytest.mark.parametrize(
    ("row", "cost"),
    [
        ({"kind": "llm.message", "model": "m", "cost_usd": 0.5}, "cost: 0.500000 USD"),
        ({"kind": "llm.message", "model": "m"}, "cost: unknown"),
        ({"kind": "llm.message"}, ""),
        ({"kind": "aws.call", "model": "m", "tokens_in": 7}, "cost: unknown"),
        ({"kind": "aws.call", "model": "m"}, ""),
        ({"kind": "agent.event", "model": "m"}, ""),
    ],
)
def test_only_what_asks_a_model_has_a_cost(row: dict[str, Any], cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    show._model(row)
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.startswith("cost")]
    assert told == ([cost] if cost else [])
