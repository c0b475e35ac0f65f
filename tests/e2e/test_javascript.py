"""The AWS SDK for JavaScript, installed from its lock file into a cache outside the tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import Clients, by_operation
from tests.gateway import REGION

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent / "js"


@pytest.fixture(scope="session")
def program() -> tuple[str, ...]:
    """The command that runs `js/calls.mjs` beside its packages; skipped where there is no Node or no network."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "narrows-tests" / f"js-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr[-400:]}")
        (folder / "installed").touch()
    shutil.copy(HERE / "calls.mjs", folder)  # Node looks for packages beside the program
    return ("node", str(folder / "calls.mjs"))


def test_javascript(clients: Clients, form: str, program: tuple[str, ...]) -> None:
    env = {"AWS_REGION": REGION}
    ran, tag = clients.through(program, form, env)
    assert json.loads(ran.out) == json.loads(clients.direct(program, env))
    rows = clients.narrows.calls(ran.session, 30)
    by = by_operation(rows)
    assert {row["facts"]["form"] for row in rows} == {form}
    assert {row["outcome"] for row in rows} == {"complete"} and all(row["action"] for row in rows)
    assert len(by("UploadPart")) == 3 and len(by("CompleteMultipartUpload")) == 1
    (item,) = by("PutItem")
    assert f"written by js {tag}".encode() in clients.narrows.raw(item["id"])
    assert item["action"] == "dynamodb:PutItem" and item["status"] == 200
