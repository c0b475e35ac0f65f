"""From an AWS call of an agent's command up to the prompt, through the real gateway; and a session as one timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import python
from tests.gateway import Gateway, Ran, gateway, until
from tests.kit.model import Call, Script, Turn, served

pytestmark = pytest.mark.slow

KEY = "sk-real-key-of-the-tests-0123456789"
MAKE, COPY = "aws s3 mb s3://why-exports", "echo hello > f && aws s3 cp f s3://why-exports/f --only-show-errors; rm f"


@pytest.fixture(scope="module")
def narrows(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with AWS and a scripted model that makes a bucket and puts an object into it."""
    script = Script(
        [
            Turn("First the bucket.", calls=(Call(shell=MAKE),)),
            Turn("Now the object.", calls=(Call(shell=COPY),)),
            Turn("All is there."),
        ]
    )
    with served(script, key=KEY) as model, gateway(tmp_path_factory.mktemp("why"), UPSTREAM_MODEL_KEY=KEY) as found:
        found.connect("demo", moto)
        found.narrows(
            "connection",
            "add",
            "llm",
            "claude",
            "--provider",
            "anthropic",
            "--endpoint",
            model.url,
            "--allow-private",
            "--api-key-env",
            "UPSTREAM_MODEL_KEY",
        )
        yield found


def _run(narrows: Gateway, *more: str) -> Ran:
    ran = narrows.run([*python("small_agent.py"), "put hello into a bucket", *more], env_keys=False)
    assert ran.code == 0 and "All is there." in ran.out, ran.err
    return ran


def _why(narrows: Gateway, ran: Ran, operation: str) -> dict[str, Any]:
    (row,) = narrows.calls(ran.session, 1, f"operation:{operation}")
    done = narrows.narrows("why", row["id"], "--json")
    assert done.returncode == 0
    return dict(json.loads(done.stdout))


def _settled(narrows: Gateway, ran: Ran) -> None:
    def look() -> bool:
        return bool(narrows.get(f"/sessions/{ran.session}")["closed_ns"]) and len(narrows.calls(ran.session, 1)) >= 7

    until("the session's end in the index", look)


@pytest.mark.parametrize("hooks", [[], ["hooks"]], ids=["wire", "wire and hooks"])
@pytest.mark.parametrize("operation", ["CreateBucket", "PutObject"])
def test_an_aws_call_leads_to_the_prompt(narrows: Gateway, hooks: list[str], operation: str) -> None:
    ran = _run(narrows, *hooks)
    _settled(narrows, ran)
    found = _why(narrows, ran, operation)
    evidence = [step["link"]["evidence"] for step in found["steps"] if step["link"]]
    assert found["reached"], found
    assert evidence[0] == "proven" and set(evidence) <= {"proven", "reported"}, found
    last = found["steps"][-1]
    assert last["item"]["type"] == "prompt" and last["item"]["text"] == "put hello into a bucket"
    assert last["kind"] == ("agent.event" if hooks else "llm.message")
    called = [
        step["item"]["data"]["command"] for step in found["steps"] if (step["item"] or {}).get("type") == "tool_call"
    ]
    assert called[0] == (MAKE if operation == "CreateBucket" else COPY)

    down = json.loads(narrows.narrows("why", last["node"], "--down", "--json").stdout)
    calls = {row["id"] for row in narrows.calls(ran.session, 1, "kind:aws.call")}
    assert calls <= {node["exchange"] for node in down["nodes"]}

    shown = narrows.narrows("show", ran.session).stdout
    for part in ("put hello into a bucket", "First the bucket.", MAKE, "s3 CreateBucket", "All is there."):
        assert shown.count(part) >= 1, shown
    assert shown.count("put hello into a bucket") == 1 + shown.count("command:"), "each thing stands once"


def test_the_index_is_compared_and_a_lie_is_told(narrows: Gateway) -> None:
    assert narrows.verify("--all", "--index")["exit"] == 0
    assert Path(narrows.data / "index.db").is_file()
