"""What a tool call can run, and how sure it is afterwards that an AWS call came of it: scripts, pipelines, several
commands at once, the same one twice, the agent's own doing; and code from an answer to its deployment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.gateway import REGION, UPSTREAM_KEY, UPSTREAM_SECRET, Ran
from tests.kit.model import Call, Turn
from tests.kit.stories import Stage, Why, aws, caused, run, settled

pytestmark = pytest.mark.slow

LOOP = str(Path(__file__).parent / "agents" / "loop.py")
ROLE = "arn:aws:iam::123456789012:role/deployer"
PROGRAM = f"{sys.executable} - <<'END'\nimport boto3\nboto3.client('sqs').create_queue(QueueName='of-a-program')\nEND"
PIPE = f"true && aws sqs list-queues --output json | {sys.executable} -c 'import sys; sys.stdin.read()'; echo over"
TOPIC = "aws sns create-topic --name {}"
SAME = "aws sts get-caller-identity"
CODE = 'def handler(event, context):\n    return {"ok": True, "by": "NAME"}\n'
DEPLOY = (
    f"cd {{folder}} && {sys.executable} -m zipfile -c code.zip handler.py && aws lambda create-function "
    f"--function-name {{name}} --runtime python3.12 --handler handler.handler --role {ROLE} --zip-file fileb://code.zip"
)
WAYS = ("written", "said")
BEFORE, DURING = "aws sns list-subscriptions", "aws sns list-topics"
"""What the agent runs by itself: before any tool call, and while one runs."""
WAITS = "while ! test -e {}; do sleep 0.05; done; aws iam list-users"


@pytest.fixture(scope="module")
def role(moto: str) -> None:
    """The role that a function has to have."""
    client: Any = boto3.client(
        "iam", endpoint_url=moto, region_name=REGION, aws_access_key_id=UPSTREAM_KEY,
        aws_secret_access_key=UPSTREAM_SECRET,
    )  # fmt: skip
    trusts = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trusts]})
    client.create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=document)


def prompt(name: str) -> str:
    """What a conversation begins with."""
    return f"Do what {name} needs."


def talk(name: str, **more: Any) -> dict[str, Any]:
    """A conversation for the agent to hold."""
    return {"api": "messages", "stream": True, "model": name, "prompt": prompt(name), **more}


def shell(*commands: str) -> Turn:
    """An answer that calls for commands, to be run at once."""
    return Turn("I do it.", tuple(Call(shell=command) for command in commands))


def hold(on: Stage, *talks: dict[str, Any], least: int) -> Ran:
    """A session of these conversations, once all of it is in the index: `least` exchanges."""
    ran = run(on.narrows, [sys.executable, LOOP, json.dumps(talks)], "--connection", "demo", "--connection", "claude")
    assert ran.json() == [{"text": "Done."}] * len(talks)
    settled(on, ran, *[str(one["model"]) for one in talks], least=least)
    return ran


@pytest.fixture(scope="module")
def session(on: Stage, role: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One session in which all of it happens, prompt after prompt."""
    folder = tmp_path_factory.mktemp("mark")
    on.stories.add("before", shell("echo nothing"))
    on.stories.add("during", shell(WAITS.format(folder / "mark")))
    on.stories.add("programs", shell(PROGRAM), shell(PIPE))
    on.stories.add("at-once", shell(TOPIC.format("left"), TOPIC.format("right")))
    on.stories.add("twice", shell(SAME), shell(SAME), shell(SAME, SAME))
    for name in WAYS:
        place = tmp_path_factory.mktemp(name)
        code, path = CODE.replace("NAME", name), place / "handler.py"
        if name == "written":
            wrote = Turn("I write it.", (Call("write", {"file_path": str(path), "content": code}),))
        else:
            here = Call(shell=f"cat > {path} <<'END'\n{code}END")
            wrote = Turn(f"This is the function:\n\n```python\n{code}```\n\nI put it into a file.", (here,))
        on.stories.add(name, wrote, shell(DEPLOY.format(folder=place, name=name)))
    return hold(
        on, talk("before", aside=BEFORE), *map(talk, ("programs", "at-once", "twice", *WAYS)),
        talk("during", aside=f"{DURING}; touch {folder / 'mark'}", during=True), least=19 + 2 * 13,
    )  # fmt: skip


def test_a_python_program_and_a_pipeline(on: Stage, session: Ran) -> None:
    (made,), (listed,) = aws(on.narrows, session.session, "CreateQueue"), aws(on.narrows, session.session, "ListQueues")
    Why(on.narrows, made["id"]).reaches(prompt("programs"), PROGRAM)
    why = Why(on.narrows, listed["id"])
    why.reaches(prompt("programs"), PIPE)
    assert {made["id"], listed["id"]} <= caused(on.narrows, why.steps[-1]["node"])


def test_two_calls_of_one_answer_at_once(on: Stage, session: Ran) -> None:
    """Each AWS call has its own command, though both ran at the same time."""
    rows = aws(on.narrows, session.session, "CreateTopic", 2)
    assert len({Why(on.narrows, row["id"]).call_id for row in rows}) == 2
    for row in rows:
        name = on.narrows.get(f"/exchanges/{row['id']}")["parameters"]["Name"]
        why = Why(on.narrows, row["id"])
        why.reaches(prompt("at-once"), TOPIC.format(name))
        assert not why.steps[1]["alternatives"], "nothing else is as likely"


def test_the_same_command_twice_and_twice_at_once(on: Stage, session: Ran) -> None:
    """One after the other, the right one of the two is named. At once, nothing tells them apart, and both are told."""
    first, second, *both = aws(on.narrows, session.session, "GetCallerIdentity", 4)
    said = [one.saying for one in on.model.received if one.saying is not None and one.saying.asked.model == "twice"]
    calls = [[call for call, _, _ in saying.calls] for saying in said]
    for row, called in zip((first, second), calls[:2], strict=True):
        why = Why(on.narrows, row["id"])
        why.reaches(prompt("twice"), SAME)
        assert [why.call_id] == called

    for row in both:
        why = Why(on.narrows, row["id"])
        told = json.dumps(why.found, indent=1)
        assert why.evidence[0] == "proven" and why.found["weakest"] == "inferred", told
        link, others = why.steps[1]["link"], why.steps[1]["alternatives"]
        assert link["evidence"] == "inferred" and link["score"] <= 0.5, told
        likely = [link, *(other for other in others if other["score"] == link["score"])]
        assert {_id(on, one["cause"]) for one in likely} == set(calls[2]), told


def _id(on: Stage, node: str) -> str:
    exchange, _, number = node.partition("#")
    return str(on.narrows.get(f"/exchanges/{exchange}")["items"][int(number)].get("id"))


@pytest.mark.parametrize("name", WAYS)
def test_deployed_code_is_the_text_of_the_answer(on: Stage, session: Ran, name: str) -> None:
    """The bytes in the uploaded zip are those that the model wrote, by a tool or in its answer's text."""
    rows = aws(on.narrows, session.session, "CreateFunction", len(WAYS))
    call = rows[WAYS.index(name)]
    assert call["status"] == 201, call
    why = Why(on.narrows, call["id"])
    why.reaches(prompt(name))
    assert f"--function-name {name} " in why.command
    found = why.steps[0]["same_bytes"]
    assert found and all(link["evidence"] == "proven" and link["rule"] == "same bytes" for link in found), why.found
    exchange, _, number = found[0]["cause"].partition("#")
    item = on.narrows.get(f"/exchanges/{exchange}")["items"][int(number)]
    assert item["type"] in ("file_edit", "code", "tool_call") and item["said_by"] == "response"
    text = item["data"]["content"] if item["type"] == "tool_call" else item["text"]
    assert text.rstrip("\n") == CODE.replace("NAME", name).rstrip("\n")
    above = Why(on.narrows, found[0]["cause"])
    assert above.found["reached"] and above.steps[-1]["item"]["text"] == prompt(name)
    shown = on.narrows.narrows("why", call["id"]).stdout
    assert "the bytes are the same: SHA-256" in " ".join(shown.split())


def test_what_the_agent_does_by_itself_is_not_claimed(on: Stage, session: Ran) -> None:
    """A call that no tool call started: before any, its process is all that is known; during one, it is a guess."""
    (call,) = aws(on.narrows, session.session, "ListSubscriptions")
    why = Why(on.narrows, call["id"])
    assert why.kinds == ["aws.call", "process"] and why.evidence == ["proven"], why.found
    assert not why.found["reached"]
    done = on.narrows.narrows("why", call["id"])
    assert "no prompt is known above this" in done.stdout and BEFORE in done.stdout

    (guessed,) = aws(on.narrows, session.session, "ListTopics")
    why = Why(on.narrows, guessed["id"])
    link = why.steps[1]["link"]
    assert why.evidence[0] == "proven" and why.found["weakest"] == "inferred", why.found
    assert (link["evidence"], link["rule"]) == ("inferred", "time") and link["score"] <= 0.3, why.found
    (called,) = aws(on.narrows, session.session, "ListUsers")
    why = Why(on.narrows, called["id"])
    why.reaches(prompt("during"))
    assert why.command.endswith("aws iam list-users")
