"""Code blocks, commands and edits in what a model answers."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.core.values import Described, Item
from narrows.session.llm import code, patches


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def derived(*items: Item) -> Described:
    out = Described(items=list(items))
    code.derive(out)
    return out


def tool(name: str, data: Any) -> Described:
    return derived(Item("tool_call", id="c1", name=name, data=data, said_by="response"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nx = 1\n```", [("python", "x = 1")]),
        ("a\n~~~\nx\n~~~~\nb\n```sh title=1\ny\n```", [("", "x"), ("sh", "y")]),
        ("````md\n```js\nx\n```\n````", [("md", "```js\nx\n```")]),
        ("1. so\n   ```yaml\n   a:\n     b\n   ```", [("yaml", "a:\n  b")]),
        ("```python:src/a.py\r\nx\r\n```", [("python", "x")]),
        ("```{.r}\nx\n```", [("r", "x")]),
        ("```py\nnever closed\n", [("py", "never closed\n")]),
        ("`` ` `` and ```inline``` text", []),
        ("```a`b\nno\n", []),
    ],
)
def test_fenced_blocks(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(code.blocks(text)) == expected


def test_blocks_follow_their_answer_and_have_digests() -> None:
    out = derived(
        Item("answer", "First\n```python\nprint('hello')\n```\n", said_by="response"),
        Item("prompt", "```python\nmine\n```"),
    )
    assert [(item.type, item.name, item.text) for item in out.items] == [
        ("answer", "", "First\n```python\nprint('hello')\n```\n"),
        ("code", "python", "print('hello')"),
        ("prompt", "", "```python\nmine\n```"),
    ]
    assert set(out.refs) == {("file", sha("print('hello')")), ("file", sha("print('hello')\n"))}


def test_a_block_that_says_nothing_has_no_digest() -> None:
    assert derived(Item("answer", "```json\n{}\n```", said_by="response")).refs == []


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("Bash", {"command": "aws s3 ls", "description": "d"}, "aws s3 ls"),
        ("bash", {"command": "ls"}, "ls"),
        ("exec_command", {"cmd": "aws sts get-caller-identity"}, "aws sts get-caller-identity"),
        ("run_shell_command", {"command": "ls"}, "ls"),
        ("shell", {"command": ["bash", "-lc", "aws s3 ls | head"]}, "aws s3 ls | head"),
        ("shell", {"command": ["aws", "s3", "ls", "a b"]}, "aws s3 ls 'a b'"),
        ("local_shell", {"type": "exec", "command": ["ls", "-l"]}, "ls -l"),
        ("shell", {"commands": ["cd /w", "make"]}, "cd /w\nmake"),
        ("local_shell_call", {"action": {"command": ["ls"]}}, "ls"),
    ],
)
def test_commands(name: str, data: Any, text: str) -> None:
    out = tool(name, data)
    assert [(item.type, item.id, item.text) for item in out.items[1:]] == [("command", "c1", text)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Write", {"file_path": "/w/a.py", "content": "AB = 100\n"}),
        ("write", {"filePath": "/w/a.py", "content": "AB = 100\n"}),
        ("write_file", {"file_path": "/w/a.py", "content": "AB = 100\n"}),
        ("mcp__fs__write_file", {"path": "/w/a.py", "content": "AB = 100\n"}),
        ("str_replace_based_edit_tool", {"command": "create", "path": "/w/a.py", "file_text": "AB = 100\n"}),
        ("Edit", {"file_path": "/w/a.py", "old_string": "", "new_string": "AB = 100\n"}),
        ("apply_patch", "*** Begin Patch\n*** Add File: /w/a.py\n+AB = 100\n*** End Patch"),
        ("apply_patch", {"type": "create_file", "path": "/w/a.py", "diff": "+AB = 100\n+"}),
    ],
)
def test_whole_files_have_digests(name: str, data: Any) -> None:
    out = tool(name, data)
    edit = out.items[1]
    assert (edit.type, edit.name, edit.text, edit.id) == ("file_edit", "/w/a.py", "AB = 100\n", "c1")
    assert edit.data["new"] == "AB = 100\n" and edit.data["whole"]
    assert set(out.refs) == {("file", sha("AB = 100\n")), ("file", sha("AB = 100"))}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Edit", {"file_path": "/w/a.py", "old_string": "A = 1", "new_string": "A = 2"}),
        ("edit", {"filePath": "/w/a.py", "oldString": "A = 1", "newString": "A = 2"}),
        ("replace", {"file_path": "/w/a.py", "old_string": "A = 1", "new_string": "A = 2"}),
        ("str_replace_editor", {"command": "str_replace", "path": "/w/a.py", "old_str": "A = 1", "new_str": "A = 2"}),
        ("MultiEdit", {"file_path": "/w/a.py", "edits": [{"old_string": "A = 1", "new_string": "A = 2"}]}),
        ("apply_patch", {"input": "*** Begin Patch\n*** Update File: /w/a.py\n@@\n-A = 1\n+A = 2\n*** End Patch"}),
        ("apply_patch", {"operation": {"type": "update_file", "path": "/w/a.py", "diff": "@@\n-A = 1\n+A = 2"}}),
    ],
)
def test_edits_have_both_sides_and_no_digest(name: str, data: Any) -> None:
    out = tool(name, data)
    assert [(item.type, item.name, item.data) for item in out.items[1:]] == [
        ("file_edit", "/w/a.py", {"old": "A = 1", "new": "A = 2", "whole": False})
    ]
    assert out.refs == []


def test_a_patch_in_a_command_is_both() -> None:
    patch = (
        "*** Begin Patch\n*** Add File: new.txt\n+one line\n+another\n"
        "*** Update File: old.txt\n*** Move to: moved.txt\n"
        "@@ def f():\n a\n--- b\n+++ c\n*** Delete File: gone.txt\n*** End Patch\n"
    )
    out = tool("exec_command", {"cmd": f"apply_patch <<'EOF'\n{patch}EOF"})
    assert [(item.type, item.name) for item in out.items[1:]] == [
        ("command", "exec_command"),
        ("file_edit", "new.txt"),
        ("file_edit", "moved.txt"),
        ("file_edit", "gone.txt"),
    ]
    assert out.items[2].text == "one line\nanother\n"
    assert out.items[3].data == {"old": "a\n-- b", "new": "a\n++ c", "whole": False}
    assert patches.parse("no patch") == [] and patches.in_command("cat <<EOF\n*** Begin Patch\n") == ""


def test_what_is_told_already_is_not_told_again() -> None:
    command = Item("command", "ls", "c1", said_by="response")
    out = derived(Item("tool_call", id="c1", name="bash", data={"command": "ls"}, said_by="response"), command)
    assert [item.type for item in out.items] == ["tool_call", "command"]


def test_reads_subagents_notebooks_and_agents_without_tools() -> None:
    assert [(i.type, i.name) for i in tool("Read", {"file_path": "/a"}).items[1:]] == [("file_read", "/a")]
    task = tool("Task", {"prompt": "Look for it", "subagent_type": "Explore", "description": "d"}).items[1]
    assert (task.type, task.name, task.text) == ("subagent", "Explore", "Look for it")
    edit = tool("NotebookEdit", {"notebook_path": "/n.ipynb", "new_source": "x = 1", "cell_id": "c"}).items[1]
    assert (edit.type, edit.name, edit.text) == ("file_edit", "/n.ipynb", "x = 1")
    out = derived(Item("answer", "```mswea_bash_command\naws s3 ls\n```", said_by="response"))
    assert [(item.type, item.text) for item in out.items[1:]] == [("code", "aws s3 ls"), ("command", "aws s3 ls")]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["command", "cmd", "path", "file_path", "content", "edits", "operation", "diff", "old_string"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(
        ["Bash", "shell", "Write", "Edit", "MultiEdit", "apply_patch", "str_replace_editor", "Read", "Task"]
    ),
    data=JSON,
    text=st.text(alphabet="`~ \nab*+-@Begin Patch", max_size=60),
)
def test_garbage_never_raises(name: str, data: Any, text: str) -> None:
    tool(name, data)
    derived(Item("answer", text, said_by="response"))
    patches.parse("*** Begin Patch\n" + text)
