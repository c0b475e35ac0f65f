"""The opencode plugin in a JavaScript engine, with a stand-in for `narrows hook` that writes down what it was told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs a JavaScript engine")

HOOK = """
import json, sys
payload = json.load(sys.stdin)
with open(sys.argv[1], "a") as told:
    told.write(json.dumps(payload) + "\\n")
args = payload.get("tool_input") or {}
deny = {"decision": "deny", "reason": "no deletes"}
print(json.dumps(deny if "rb" in args.get("command", "") else {"decision": "allow"}))
"""

DRIVER = """
import { Narrows } from "./narrows.mjs"
const hooks = await Narrows({ directory: "/home/ana/shop" })
const results = {}
const attempt = async (name, action) => {
  try { await action(); results[name] = "ok" } catch (error) { results[name] = error.message }
}
const call = (id, command) => [{ tool: "bash", sessionID: "ses_1", callID: id }, { args: { command } }]
await attempt("prompt", () => hooks["chat.message"](
  { sessionID: "ses_1", messageID: "msg_1", agent: "build", model: { providerID: "anthropic", modelID: "m" } },
  { message: {}, parts: [{ type: "text", text: "Hello" }, { type: "text", text: "hidden", synthetic: true }] },
))
await attempt("before", () => hooks["tool.execute.before"](...call("toolu_1", "aws s3 ls")))
await attempt("denied", () => hooks["tool.execute.before"](...call("toolu_2", "aws s3 rb s3://x")))
await attempt("after", () => hooks["tool.execute.after"](
  { tool: "bash", sessionID: "ses_1", callID: "toolu_1", args: { command: "aws s3 ls" } },
  { title: "t", output: "2 buckets", metadata: {} },
))
await attempt("created", () => hooks.event(
  { event: { type: "session.created", properties: { info: { id: "ses_1", version: "1.18.33" } } } },
))
const part = { type: "message.part.updated", properties: { sessionID: "ses_1" } }
await attempt("other", () => hooks.event({ event: part }))
const shell = { env: { PATH: "/bin" } }
await attempt("env", () => hooks["shell.env"]({ cwd: "/", sessionID: "ses_1", callID: "toolu_1/é" }, shell))
console.log(JSON.stringify({ results, shell }))
"""


def run(folder: Path, hook: list[str]) -> dict[str, Any]:
    text = (files("narrows.cli") / "plugins" / "opencode.js").read_text("utf-8")
    line = 'const HOOK = ["narrows", "hook", "opencode"]'
    assert text.count(line + "\n") == 1, "what `narrows connect` replaces"
    (folder / "narrows.mjs").write_text(text.replace(line, f"const HOOK = {json.dumps(hook)}"))
    (folder / "driver.mjs").write_text(DRIVER)
    assert NODE is not None
    done = subprocess.run([NODE, "driver.mjs"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_it_reports_and_blocks(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    found = run(tmp_path, [sys.executable, str(tmp_path / "hook.py"), str(tmp_path / "told")])
    assert found["results"] == {
        "prompt": "ok", "before": "ok", "denied": "no deletes", "after": "ok", "created": "ok", "other": "ok",
        "env": "ok",
    }  # fmt: skip
    assert found["shell"]["env"] == {"PATH": "/bin", "AWS_SDK_UA_APP_ID": "toolu_1--"}
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [one["hook_event_name"] for one in told] == [
        "chat.message", "tool.execute.before", "tool.execute.before", "tool.execute.after", "session.created",
    ]  # fmt: skip
    assert all(one["session_id"] == "ses_1" and one["cwd"] == "/home/ana/shop" for one in told)
    assert (told[0]["prompt"], told[0]["model"], told[0]["message_id"]) == ("Hello", "anthropic/m", "msg_1")
    assert (told[3]["tool_use_id"], told[3]["tool_output"]) == ("toolu_1", "2 buckets")
    assert told[4]["agent_version"] == "1.18.33"


def test_without_narrows_it_goes_on_unless_it_fails_closed(tmp_path: Path) -> None:
    assert run(tmp_path, ["/nonexistent/narrows", "hook", "opencode"])["results"]["before"] == "ok"
    closed = run(tmp_path, ["/nonexistent/narrows", "hook", "opencode", "--fail-closed"])["results"]
    assert "narrows hook" in closed["before"] and "narrows hook" in closed["prompt"] and closed["after"] == "ok"
