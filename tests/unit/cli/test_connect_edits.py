"""Edits of users' settings: nothing of theirs changes, and what was done can be taken back."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.cli import connect_ini, connect_json
from narrows.cli.connect_edits import Done, Edit, apply, is_empty, revert
from narrows.core.errors import ConfigError

HOOK = {"command": "/opt/narrows hook cursor", "timeout": 30}
HOOKS = (
    Edit("member", ("version",), 1, only=True),
    Edit("item", ("hooks", "preToolUse"), HOOK),
    Edit("item", ("hooks", "stop"), HOOK),
    Edit("member", ("env", "BASE"), "http://127.0.0.1:8470"),
)

WITH_COMMENTS = """{
\t// my hooks
\t"hooks": {
\t\t"preToolUse": [{"command": "mine"},], /* keep */
\t},
\t"rate": 1.0e2, // not 100
\t"version": 1
}
"""


def plain(text: str) -> Any:
    """A JSON text with comments as its value, by the scanner under test."""
    return connect_json.value(text, connect_json.scan(text))


def test_comments_order_and_number_forms_stay() -> None:
    text, done = apply("json", WITH_COMMENTS, HOOKS)
    for piece in ("// my hooks", '{"command": "mine"}', "/* keep */", '"rate": 1.0e2, // not 100', '"version": 1,'):
        assert piece in text
    assert plain(text)["hooks"] == {"preToolUse": [{"command": "mine"}, HOOK], "stop": [HOOK]}
    assert [one.path for one in done] == [("hooks", "preToolUse"), ("hooks", "stop"), ("env", "BASE")]
    assert apply("json", text, HOOKS) == (text, [])


def test_only_lines_of_ours_are_added() -> None:
    text, _ = apply("json", '{\n    "a": {"b": 1}\n}\n', (Edit("item", ("hooks", "stop"), HOOK),))
    assert text == (
        '{\n    "a": {"b": 1},\n    "hooks": {\n        "stop": [\n            {\n'
        '                "command": "/opt/narrows hook cursor",\n                "timeout": 30\n'
        "            }\n        ]\n    }\n}\n"
    )


def test_line_ends_and_byte_order_mark_stay() -> None:
    text, _ = apply("json", '\ufeff{\r\n  "a": 1\r\n}\r\n', HOOKS)
    assert text.startswith('\ufeff{\r\n  "a": 1,\r\n')
    assert "\n" not in text.replace("\r\n", "")


keys = st.sampled_from(["hooks", "preToolUse", "stop", "env", "BASE", "a", "b\n", "é", "", "model"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)


def settings_of(value: dict[str, Any], style: tuple[Any, str]) -> str:
    """A user's settings as some program wrote them."""
    indent, newline = style
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", newline)


styles = st.tuples(st.sampled_from([None, 2, 4, "\t", 0]), st.sampled_from(["\n", "\r\n"]))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values), styles)
def test_whatever_the_user_has_stays_and_ours_can_be_taken_out_again(value: dict[str, Any], style: Any) -> None:
    text = settings_of(value, style)
    try:
        changed, done = apply("json", text, HOOKS)
    except ConfigError:
        hooks, env = value.get("hooks", {}), value.get("env", {})
        lists = [hooks.get(name, []) for name in ("preToolUse", "stop")] if isinstance(hooks, dict) else [None]
        assert not isinstance(env, dict) or not all(isinstance(one, list) for one in lists)
        return
    after = plain(changed)
    assert after["hooks"]["preToolUse"][-1] == HOOK and after["env"]["BASE"] == "http://127.0.0.1:8470"
    for key, one in value.items():
        if key not in ("hooks", "env", "version"):
            assert after[key] == one
    assert apply("json", changed, HOOKS)[1] == []
    # The user adds something elsewhere; then ours goes out of it, and only ours.
    theirs = connect_json.put(changed, ("later",), [1, {"x": "y"}])
    back, left = revert("json", theirs, [Done.of(json.loads(json.dumps(one.to_json()))) for one in done])
    assert left == []
    assert plain(back) == {**value, "later": [1, {"x": "y"}]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not an object"),
        ("{", "line 1"),
        ('{"a": 1,\n\n "b" 2}', "line 3"),
        ('{"a": 01}', "line 1"),
        ('{"a": "\t"}', "line 1"),
        ('{"a": 1} {}', "follows the end"),
        ('{"hooks": []}', "not an object"),
        ('{"hooks": {"stop": "x"}}', "not a list"),
        ('{"hooks": {"stop": {}}}', "not a list"),
        ('{"hooks": {}, "hooks": {}}', "twice"),
        ('{"version": 2}', "only 1 is understood"),
        ('{"version": true}', "only 1 is understood"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested deeper"),
        ('{"a": "\\q"}', "wrong escape"),
        ('{"a": nulls}', "line 1"),
        ("{,}", "line 1"),
        ("/* open", "line 1"),
    ],
)
def test_what_cannot_be_edited_exactly_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        done = apply("json", text, HOOKS)[0]
        plain(done)
    assert why in str(error.value)


def test_a_value_that_was_replaced_comes_back_as_it_was_written() -> None:
    text = '{"env": {"BASE": "https:\\/\\/mine"}, "n": 1}'
    changed, done = apply("json", text, (HOOKS[3],))
    assert plain(changed)["env"]["BASE"] == "http://127.0.0.1:8470"
    assert revert("json", changed, done) == (text, [])


def test_what_the_user_changed_of_ours_is_left_and_said() -> None:
    changed, done = apply("json", None, HOOKS)
    theirs = changed.replace("127.0.0.1:8470", "elsewhere").replace('"timeout": 30', '"timeout": 5', 1)
    back, left = revert("json", theirs, done)
    assert plain(back) == {
        "hooks": {"preToolUse": [{**HOOK, "timeout": 5}]},
        "env": {"BASE": "http://elsewhere"},
    }
    assert left == ["env.BASE", "hooks.preToolUse"]


def test_a_file_that_we_made_is_empty_afterwards_unless_the_user_wrote_into_it() -> None:
    changed, done = apply("json", None, HOOKS)
    assert is_empty("json", revert("json", changed, done)[0])
    noted = changed.replace("{", "{ // mine", 1)
    assert not is_empty("json", revert("json", noted, done)[0])


def test_a_list_that_was_empty_before_stays_and_an_edit_already_gone_is_no_matter() -> None:
    text = '{"hooks": {"stop": []}}'
    changed, done = apply("json", text, (HOOKS[2],))
    assert plain(revert("json", changed, done)[0]) == {"hooks": {"stop": []}}
    assert revert("json", "{}", done) == ("{}", [])


PROVIDER = {"name": "Narrows", "supports_websockets": False, "auth": {"command": "/opt/narrows", "args": ["lease"]}}
TOML = (Edit("member", ("model_provider",), "narrows"), Edit("member", ("model_providers", "narrows"), PROVIDER))

CODEX = """# mine
model = "gpt-5"   # the big one
model_provider = "corp" # ours

[model_providers.corp]
name = 'Corp'

[[things]]
at = 2026-01-02T03:04:05Z
[tui]
notifications = [ "a",
  "b" ]
"""


@pytest.mark.parametrize("text", [None, "", CODEX, "[tui]\nx = 1", 'model_providers = {corp = {name="x"}}\n'])
def test_toml_keeps_comments_and_gives_back(text: str | None) -> None:
    changed, done = apply("toml", text, TOML)
    found = tomllib.loads(changed)
    assert found["model_provider"] == "narrows" and found["model_providers"]["narrows"] == PROVIDER
    for line in (text or "").splitlines():
        if not line.startswith("model_provider"):
            assert line in changed  # what names the provider is what changes
    assert apply("toml", changed, TOML) == (changed, [])
    theirs = changed + "\n[later]\nx = 1\n"
    back, left = revert("toml", theirs, done)
    assert left == []
    assert tomllib.loads(back) == {**tomllib.loads(text or ""), "later": {"x": 1}}
    if text == CODEX:
        assert back.startswith(CODEX)


@pytest.mark.parametrize(
    "text", ["a = ", "model_providers = 3\n", "[x]\n[x]\n", 'model_provider = "a"\nmodel_provider = "b"\n']
)
def test_toml_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        apply("toml", text, TOML)


AWS = (Edit("text", ("profile narrows-prod",), "credential_process = x\nendpoint_url = http://y\n"),)


@pytest.mark.parametrize(
    "text", [None, "", "[default]\nregion = x", "[default]\nregion = x\n", "# c\r\n[profile a]\r\nb=1\r\n"]
)
def test_a_profile_is_added_at_the_end_and_taken_out(text: str | None) -> None:
    changed, done = apply("ini", text, AWS)
    assert changed.startswith(text or "")
    assert "[profile narrows-prod]" in changed
    assert apply("ini", changed, AWS) == (changed, [])
    back, left = revert("ini", changed, done)
    assert left == [] and back.strip() == (text or "").strip()
    more = changed + "\n[profile z]\nq = 1\n"
    assert "narrows" not in revert("ini", more, done)[0] and "[profile z]\nq = 1\n" in revert("ini", more, done)[0]
    edited = changed.replace("http://y", "http://z")
    assert revert("ini", edited, done) == (edited, ["[profile narrows-prod]"])


@pytest.mark.parametrize("header", ["[profile narrows-prod]", '[profile "narrows-prod"]', "[ profile  narrows-prod ]"])
def test_a_profile_of_that_name_that_is_not_ours_is_refused(header: str) -> None:
    with pytest.raises(ConfigError, match="AWS config file was not changed"):
        apply("ini", f"{header}\nregion = x\n", AWS)
    with pytest.raises(ConfigError):
        connect_ini.add("[a]\n[a]\n", "a", "x = 1\n")


def test_a_whole_file_is_deleted_only_as_we_wrote_it() -> None:
    edits = (Edit("text", (), "export const plugin = 1\n"),)
    changed, done = apply("whole", None, edits)
    assert changed == "export const plugin = 1\n"
    assert apply("whole", changed, edits)[1] == []
    assert is_empty("whole", revert("whole", changed, done)[0])
    assert revert("whole", changed + "//", done) == (changed + "//", ["the whole file"])
