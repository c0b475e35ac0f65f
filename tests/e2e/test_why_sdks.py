"""Agents on the providers' own SDKs: from an AWS call back to the prompt, on either way in; leaks; telemetry."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import FORMS
from tests.gateway import Ran
from tests.kit.model import Call, Turn
from tests.kit.stories import PROVIDERS, Stage, Why, add_model, aws, caused, in_order, run, settled, timeline

pytestmark = pytest.mark.slow

LOOP = str(Path(__file__).parent / "agents" / "loop.py")
APIS = {"messages": "claude", "chat": "gpt", "responses": "gpt", "gemini": "gem"}
"""The API that the agent speaks, and the connection that leads to it."""
ALL = ("--connection", "demo", *(word for name in PROVIDERS for word in ("--connection", name)))
TRACED = (
    f'OTEL_EXPORTER_OTLP_ENDPOINT="$NARROWS_GATEWAY/_narrows/otlp" {sys.executable} '
    f"{Path(__file__).parent / 'agents' / 'traced.py'} toolu_traced_1"
)
SPAN = "00f067aa0ba902b7"
SECRET, BLOCKED = "AKIAIOSFODNN7EXAMPL4", "AKIAIOSFODNN7BLOCK2X"


def hold(on: Stage, *talks: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[Ran, list[dict[str, Any]]]:
    """`narrows run -- loop.py`; what ran, and what each conversation came to."""
    ran = run(on.narrows, [sys.executable, LOOP, json.dumps(talks)], *options)
    return ran, ran.json()


CASES = [
    *[(api, "endpoint", stream) for api in APIS for stream in (False, True) if api != "gemini" or stream],
    ("messages", "proxy", True), ("chat", "proxy", False), ("responses", "proxy", True),
]  # fmt: skip


def _name(api: str, form: str, stream: bool) -> str:
    return f"{api}-{form}-{'stream' if stream else 'whole'}"


@pytest.fixture(scope="module")
def sessions(on: Stage) -> dict[str, Ran]:
    """For each way in, a session in which every API is spoken, streamed and not; by the way's name."""
    talks: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    for api, form, stream in CASES:
        name = _name(api, form, stream)
        shell = Call(shell=f"aws s3 mb s3://why-{name}")
        on.stories.add(name, Turn(f"First the bucket of {name}.", (shell,)), Turn(f"{name} is there."))
        talks[form].append({"api": api, "stream": stream, "model": name, "prompt": f"Make a bucket for {name}."})
    with ThreadPoolExecutor(len(FORMS)) as pool:
        done = {form: pool.submit(hold, on, *talks[form], options=(*ALL, *FORMS[form])) for form in FORMS}
    for form, one in done.items():
        ran, told = one.result()
        assert told == [{"text": f"{talk['model']} is there."} for talk in talks[form]]
        settled(on, ran, *[str(talk["model"]) for talk in talks[form]], least=4 * len(talks[form]))
    return {form: one.result()[0] for form, one in done.items()}


@pytest.mark.parametrize(("api", "form", "stream"), CASES, ids=[_name(*case) for case in CASES])
def test_why_leads_to_the_prompt(on: Stage, sessions: dict[str, Ran], api: str, form: str, stream: bool) -> None:
    """Conversations of one agent, several at a time: each call belongs to its own prompt alone."""
    ran, name = sessions[form], _name(api, form, stream)
    made = aws(on.narrows, ran.session, "CreateBucket", sum(1 for case in CASES if case[1] == form))
    (call,) = [one for one in made if one["resources"][0]["arn"].endswith(f":why-{name}")]
    assert call["facts"]["form"] == form
    why = Why(on.narrows, call["id"])
    why.reaches(f"Make a bucket for {name}.", f"aws s3 mb s3://why-{name}")
    assert not any(step["alternatives"] for step in why.steps)
    asked = why.steps[-1]
    assert asked["model"] == name and asked["service"] == PROVIDERS[APIS[api]]
    below = caused(on.narrows, asked["node"])
    assert call["id"] in below and not {one["id"] for one in made if one is not call} & below
    in_order(
        timeline(on.narrows, ran.session),
        ("prompt", f"Make a bucket for {name}."), ("answer", f"First the bucket of {name}."),
        ("tool_call", f"why-{name}"), ("process", ""), ("call", "CreateBucket"), ("answer", f"{name} is there."),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sundry(on: Stage) -> Ran:
    """A session with a credential in its first prompt, and with telemetry in its second conversation."""
    on.stories.add("leaks", Turn("I look.", (Call(shell=f"echo {SECRET}"),)))
    on.stories.add("traced", Turn("I ask.", (Call(shell=TRACED, id="toolu_traced_1"),)))
    ran, told = hold(
        on, {"api": "messages", "stream": True, "model": "leaks", "prompt": f"Is {SECRET} still good?"},
        {"api": "messages", "stream": True, "model": "traced", "prompt": "Who am I?"}, options=ALL,
    )  # fmt: skip
    assert told == [{"text": "Done."}] * 2
    settled(on, ran, "leaks", "traced", least=7)
    return ran


def test_a_credential_in_a_prompt_is_a_finding(on: Stage, sundry: Ran) -> None:
    asked, answered = on.narrows.calls(sundry.session, 2, "finding:aws*")
    rows = on.narrows.rows("search", "finding:aws*", "--session", sundry.session)
    assert {row["id"] for row in rows} == {asked["id"], answered["id"]}
    assert {row["model"] for row in (asked, answered)} == {"leaks"}
    findings = on.narrows.get(f"/exchanges/{asked['id']}")["findings"]
    assert {one["where"] for one in findings} == {"prompt", "tool_call", "command"}
    assert SECRET not in json.dumps(findings)
    assert any(SECRET.encode() in one.body for one in on.model.received), "this connection only records it"


def test_where_it_is_blocked_the_model_never_sees_it(on: Stage, tmp_path: Path) -> None:
    """In the prompt, and in what a tool printed: each SDK raises its own exception, which names the reason."""
    for name in ("claude", "gpt"):
        add_model(on.narrows, f"careful-{name}", PROVIDERS[name], on.model.url, "--on-secret", "block")
    (tmp_path / "credentials").write_text(f"aws_access_key_id = {BLOCKED}\n")
    apis = ("messages", "chat", "responses")
    for api in apis:
        on.stories.add(f"careful-{api}", Turn("I look.", (Call(shell=f"cat {tmp_path / 'credentials'}"),)))
    talks = [
        {"api": api, "stream": api == "chat", "model": f"careful-{api}", "prompt": prompt}
        for api in apis
        for prompt in (f"Use {BLOCKED}.", "Which key is it?")
    ]
    ran, told = hold(on, *talks, options=("--connection", "careful-claude", "--connection", "careful-gpt"))
    for talk, one in zip(talks, told, strict=True):
        package, kind, text = one["error"]
        assert package == PROVIDERS[APIS[str(talk["api"])]] and kind == "BadRequestError", told
        assert "secret_found" in text and BLOCKED not in text, told
    assert not any(BLOCKED.encode() in one.body for one in on.model.received)
    rows = on.narrows.calls(ran.session, 9, "kind:llm.message")
    found = {row["id"] for row in on.narrows.calls(ran.session, 6, "finding:aws*")}
    for api in apis:
        assert on.asked(f"careful-{api}") == 1, "of the second conversation the question alone came through"
        mine = [row for row in rows if row["model"] == f"careful-{api}"]
        assert [row["outcome"] for row in mine] == ["refused", "complete", "refused"]
        assert {mine[0]["id"], mine[2]["id"]} <= found


def test_telemetry_joins_the_timeline(on: Stage, sundry: Ran) -> None:
    """The span that a client tells of by OTLP bears the trace id of the session, and joins the call and its prompt."""
    (batch,) = on.narrows.calls(sundry.session, 1, "service:otlp")
    assert (batch["kind"], batch["operation"], batch["outcome"]) == ("agent.event", "traces", "complete")
    refs = [tuple(one) for one in on.narrows.get(f"/exchanges/{batch['id']}")["refs"]]
    assert ("trace", sundry.session.replace("-", "")) in refs
    (call,) = aws(on.narrows, sundry.session, "GetCallerIdentity")
    assert set(refs) & {tuple(one) for one in on.narrows.get(f"/exchanges/{call['id']}")["refs"]} >= {("span", SPAN)}
    Why(on.narrows, call["id"]).reaches("Who am I?", TRACED)
    told = timeline(on.narrows, sundry.session)
    in_order(told, ("prompt", "Who am I?"), ("call", "GetCallerIdentity"), ("answer", "Done."))
    entries = on.narrows.get(f"/sessions/{sundry.session}/timeline", limit=500)["items"]
    assert batch["id"] in {entry["exchange"] for entry in entries}
