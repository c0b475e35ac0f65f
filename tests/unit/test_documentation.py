"""The pages name what the code has, and nothing that it has not.

`cli/test_docs.py` holds the command line, its JSON fields and the settings to their pages; this file the rest.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from narrows.cli.childenv import CA_VARIABLES, KEPT
from narrows.core.values import Connection, CredentialSource, Outcome

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "narrows"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def _page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- error codes ------------------------------------------------------------------------------------------------------


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


_POSITIONAL = {"problem": 4, "from_error": 1, "_refuse": 1}
"""Functions that take a code by position, and which position that is."""


def _codes_in_call(node: ast.Call) -> Iterator[str]:
    yield from (_text(item.value) for item in node.keywords if item.arg == "code")
    phases = (_text(item.value) for item in node.keywords if item.arg == "phase")
    yield from (f"upstream_{phase}" for phase in phases if phase)  # a variable's is made elsewhere
    at = _POSITIONAL.get(_called(node))
    if at is not None and len(node.args) > at:
        yield _text(node.args[at])


def _codes_in_assignment(name: ast.expr, value: ast.expr | None) -> Iterator[str]:
    """`code = "..."` of a class; the tables of codes, and a look-up in one with its default."""
    if not isinstance(name, ast.Name) or name.id not in ("code", "_CODES") or value is None:
        return
    yield _text(value)
    table: ast.expr = value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        table = value.func.value
        yield from (_text(item) for item in value.args if isinstance(table, ast.Dict))
    if isinstance(table, ast.Dict):
        for item in table.values:
            yield _text(item.elts[0]) if isinstance(item, ast.Tuple) else _text(item)


def _scanned() -> tuple[set[str], set[str], set[str]]:
    """Codes of errors, of verification's findings and of its notes, as they stand in the source."""
    codes: set[str] = set()
    findings: set[str] = set()
    notes: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                codes.update(_codes_in_call(node))
                if path.name.startswith("verify") and node.args:
                    kind = {"found": findings, "note": notes}.get(_called(node))
                    if kind is not None:
                        kind.add(_text(node.args[0]))
            elif isinstance(node, ast.Assign):
                codes.update(_codes_in_assignment(node.targets[0], node.value))
            elif isinstance(node, ast.AnnAssign):
                codes.update(_codes_in_assignment(node.target, node.value))
    return codes - {""}, findings - {""}, notes - {""}


def _first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)


ERRORS = _page("docs/errors.md")
ERROR_CODES, FINDINGS, NOTES = _scanned()


def test_the_scan_sees_codes_of_every_kind() -> None:
    assert {"policy_denied", "not_found", "clock_skew", "credential_source", "foreign_request", "upstream_dial",
            "http_error", "aws_ambiguous"} <= ERROR_CODES  # fmt: skip
    assert {"rollback", "chain"} <= FINDINGS
    assert "gap" in NOTES


def test_every_error_code_is_documented_once_and_no_other() -> None:
    before, _, after = ERRORS.partition("## Findings of `narrows verify`")
    documented = _first_cells(before)
    inside = re.findall(r"`([a-z_]+)`", before[before.index("Codes that stand for a whole class") :])
    assert len(documented) == len(set(documented))
    assert set(documented) | {"error", "refused", "torn_frame", "decode_problem"} >= ERROR_CODES
    assert set(documented) - ERROR_CODES <= {"upstream_request"}  # a default of the pool, made from a variable
    assert {"error", "refused", "torn_frame", "decode_problem"} <= set(inside)
    assert set(_first_cells(after)) == FINDINGS
    for note in NOTES:
        assert f"`{note}`" in after


def test_every_outcome_is_in_the_life_of_a_request() -> None:
    for outcome in Outcome:
        assert f"`{outcome.value}`" in _page("docs/architecture.md")


# -- interface --------------------------------------------------------------------------------------------------------


def test_the_api_page_is_what_its_generator_makes() -> None:
    generate = _tool("generate_api")
    page = _page("docs/api.md")
    for path, methods in generate.application()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page
    assert page == generate.page(), "run docs/generate_api.py"


@pytest.mark.parametrize("kind", [Connection, CredentialSource])
def test_every_field_of_a_connection_is_documented(kind: type[Connection | CredentialSource]) -> None:
    page = _page("docs/connections.md")
    for item in fields(kind):
        assert f"`{item.name}`" in page, item.name


def test_the_variables_of_a_session_are_documented() -> None:
    page = _page("docs/agents.md")
    for name in (*KEPT, *CA_VARIABLES):
        assert f"`{name}`" in page, name


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    runtime, _, development = _page("docs/dependencies.md").partition("## Development")

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.split(r"[\[<>=!~; ]", item)[0] for item in requirements)

    assert sorted(_first_cells(runtime)) == names(project["project"]["dependencies"])
    assert sorted(_first_cells(development)) == names(project["dependency-groups"]["dev"])


# -- references -------------------------------------------------------------------------------------------------------


def _anchors(text: str) -> set[str]:
    """The anchors that a code host gives to a page's headings."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", outside, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", _page(name), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("name", NAMES)
def test_files_and_tests_that_a_page_names_exist(name: str) -> None:
    text = _page(name)
    for path in re.findall(r"`((?:tests|src|docs|demo|bench|tools|\.ci)/[\w./-]+)`", text):
        if path.startswith("bench/results/"):
            continue  # made by `make bench`
        assert (ROOT / path).exists() or (SOURCE / path).exists(), path
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in tests, test


def test_modules_and_functions_that_the_architecture_names_exist() -> None:
    text = _page("docs/architecture.md")
    source = {path: path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    for module in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        assert SOURCE / module in source, module
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)
    assert ("Exchange", "_relay") in named
    for owner, method in named:
        holders = [one for one in source.values() if re.search(rf"^class {owner}\b", one, flags=re.MULTILINE)]
        assert any(re.search(rf"^    (?:async )?def {method}\(", one, flags=re.MULTILINE) for one in holders), (
            f"{owner}.{method}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_page_knows_no_machine(name: str) -> None:
    text = _page(name)
    for word in (str(ROOT), str(Path.home()) + "/", "/work/", "/tmp/", "pythonhosted", "registry.npmjs"):
        assert word not in text, word


# -- README -----------------------------------------------------------------------------------------------------------


def test_the_readme_shows_a_whole_run_of_the_demo() -> None:
    transcript = _tool("transcript")
    readme = _page("README.md")
    shown = readme[readme.index(transcript.BEGIN) : readme.index(transcript.END)]
    demo = (ROOT / "demo" / "demo.py").read_text("utf-8")
    for heading in re.findall(r"== [a-z][^\"\\{]+", demo):
        if not heading.startswith("== done"):
            assert heading.strip() in shown, heading
    for command in (
        "up --detach",
        "connection add aws demo",
        "run --connection demo",
        "show ",
        "search ",
        "verify --all",
    ):
        assert f"$ narrows {command}" in shown
    assert "AssumeRole was refused" in shown and "everything proves" in shown


def test_the_transcript_leaves_out_by_rule_and_says_so() -> None:
    transcript = _tool("transcript")
    call = "18:00:0{0}  01a20ebb-c8{0}  s3 UploadPart   bucket/key  Write"
    run = [
        "==> tools: uv, in .tools", "  data     /home/someone/narrows/.data/demo", call.format(1), call.format(2),
        call.format(3), "18:00:04  01a20ebb-c84  s3 HeadObject   bucket/key  Read", "parameters", "{}", "", "request",
        "Authorization: ****************", "", "sent", "GET / HTTP/1.1", "", "== found again", "$ narrows search x",
    ]  # fmt: skip
    assert transcript.trimmed("\n".join(run), "/home/someone/narrows") == [
        "  data     .data/demo", call.format(1), "[2 more s3 UploadPart]", run[5], "parameters", "{}", "",
        "[request, response and the head that was sent: left out here]", "", "== found again", "$ narrows search x",
    ]  # fmt: skip
    page = f"a\n{transcript.BEGIN}\nold\n{transcript.END}\nz\n"
    assert transcript.with_transcript(page, ["new"]) == f"a\n{transcript.BEGIN}\n```\nnew\n```\n{transcript.END}\nz\n"


@pytest.mark.parametrize("path", sorted((DOCS / "images").glob("*.svg")), ids=lambda path: str(path.name))
def test_a_picture_is_drawn_for_light_and_dark_and_loads_nothing(path: Path) -> None:
    text = path.read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|href=|url\(http|@import|foreignObject", text)
