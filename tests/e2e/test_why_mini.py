"""A real agent, mini-swe-agent, from its own locked environment: from its `aws` call back to the prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.kit.model import Call, Turn
from tests.kit.stories import Stage, Why, aws, caused, in_order, settled, timeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MINI = Path(__file__).parents[2] / ".venv-agent" / "bin" / "mini"
TASK = "Put the third quarter's report where finance finds it."
COPY = "printf 'north,12\\nsouth,9\\n' > q3.csv && aws s3 cp q3.csv s3://mini-reports/2026/q3.csv --only-show-errors"


@pytest.mark.skipif(
    not MINI.is_file() and not os.environ.get("CI"),
    reason="mini-swe-agent is not installed in .venv-agent; `make test` does that",
)
def test_why_leads_from_its_aws_call_to_the_task(on: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on.stories.add(
        "mini-model",
        Turn("I make the bucket and put the report into it.", (Call(shell=f"aws s3 mb s3://mini-reports && {COPY}"),)),
        Turn("It is there.", (Call(shell="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),)),
    )
    command = f"aws s3 mb s3://mini-reports && {COPY}"
    env = {
        "MSWEA_CONFIGURED": "true", "MSWEA_COST_TRACKING": "ignore_errors", "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": str(tmp_path / "mini"), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ran = on.narrows.run(
        [str(MINI), "-y", "--exit-immediately", "-m", f"openai/{model}", "-t", TASK], "--connection", "demo",
        "--connection", "gpt",        env=env, env_keys=False, seconds=250,
    )  # fmt: skip
    assert ran.code == 0, ran.out[-3000:] + ran.err
    settled(on, ran, model, least=6)
    (put,) = aws(on.narrows, ran.session, "PutObject")
    (made,) = aws(on.narrows, ran.session, "CreateBucket")
    for call in (put, made):
        why = Why(on.narrows, call["id"])
        assert why.command == command, why.found
        prompted = why.steps[-1]["item"]["text"]
        assert TASK in prompted
        why.reaches(prompted.strip())
        assert why.steps[-1]["model"] == model
        assert {put["id"], made["id"]} <= caused(on.narrows, why.steps[-1]["node"])

    node = Why(on.narrows, put["id"]).steps[-1]["node"]
    down = json.loads(on.narrows.narrows("why", node, "--down", "--json").stdout)
    assert put["id"] in {one["exchange"] for one in down["nodes"]}
    shown = on.narrows.narrows("why", put["id"]).stdout
    for line in ("AWS call", "process", "tool call", "prompt", "steps to the prompt; the least sure is reported"):
        assert line in shown, shown
    in_order(
        timeline(on.narrows, ran.session),
        ("prompt", TASK), ("answer", "I make the bucket"), ("tool_call", command), ("process", ""),
        ("call", "PutObject"), ("tool_result", ""), ("answer", "It is there."),
    )  # fmt: skip
    printed = on.narrows.narrows("show", ran.session).stdout
    texts = (TASK[:20], "I make the bucket", "aws s3 mb", "s3 PutObject", "It is there.")
    places = [printed.index(text) for text in texts]
    assert places == sorted(places), printed
