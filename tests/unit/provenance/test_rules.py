"""Each rule by itself: what it links, how surely, and what it leaves alone."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from narrows.provenance.chain import Provenance
from narrows.provenance.model import Evidence, Exchange, Link

from .conversations import HELPER, SESSION, asked, call, hook, minted, model, said


def links(exchanges: list[Exchange], node: str) -> list[tuple[str, str, Evidence]]:
    return [(link.cause, link.rule, link.evidence) for link in Provenance(exchanges).links(node)]


def first(exchanges: list[Exchange], node: str) -> Link:
    return Provenance(exchanges).links(node)[0]


def bash(id_: str, at: float, command: str, tool: str = "t1", **more: Any) -> Exchange:
    return model(id_, at, asked("prompt", "do it"), said("tool_call", "", tool, "Bash", {"command": command}), **more)


def done(id_: str, at: float, tool: str = "t1") -> Exchange:
    return model(id_, at, asked("tool_result", "ok", tool))


@pytest.mark.parametrize(("kernel", "evidence"), [(True, Evidence.PROVEN), (False, Evidence.REPORTED)])
def test_a_lease_is_as_sure_as_who_named_the_process(kernel: bool, evidence: Evidence) -> None:
    talk = [minted("l", 1, "NRWL1", ["aws"], kernel=kernel), call("c", 2, "GetObject", "NRWL1")]
    assert links(talk, "c") == [("l", "lease", evidence)]


def test_a_lease_of_another_or_of_later_is_no_cause() -> None:
    talk = [call("c", 1, "GetObject", "NRWL1"), minted("l", 2, "NRWL1", ["aws"]), minted("k", 0, "NRWL2", ["aws"])]
    assert links(talk, "c") == []


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "aws s3 ls s3://it's"],
        ["bash", "-c", "x && eval 'aws s3 ls s3://it'\"'\"'s' < /dev/null"],
        ["bash", "-c", "eval 'aws s3 ls s3://it'\\''s'"],
    ],
)
def test_the_whole_command_in_an_argument_is_reported_however_it_was_quoted(argv: list[str]) -> None:
    talk = [bash("m", 0, "aws s3 ls s3://it's"), minted("l", 2, "L", HELPER, argv), done("n", 3)]
    assert links(talk, "l") == [("m#1", "process tree", Evidence.REPORTED)]


@pytest.mark.parametrize(
    ("argv", "evidence"),
    [
        (["aws", "s3", "rm", "s3://b/x"], Evidence.REPORTED),
        (["python3", "/usr/bin/aws", "s3", "rm", "s3://b/x"], Evidence.REPORTED),
        (["aws", "s3", "rm", "s3://b/y"], Evidence.INFERRED),
        (["aws", "s3", "rm", "s3://b/x", "--recursive"], Evidence.INFERRED),
        (["sh", "-c", "aws s3 rm s3://b/xylophone"], Evidence.INFERRED),
        (["vim"], Evidence.INFERRED),
    ],
)
def test_only_the_whole_command_is_more_than_inferred(argv: list[str], evidence: Evidence) -> None:
    talk = [bash("m", 0, "aws s3 rm s3://b/x"), minted("l", 2, "L", HELPER, argv), done("n", 3)]
    found = first(talk, "l")
    assert (found.cause, found.evidence) == ("m#1", evidence)
    assert found.evidence is not Evidence.INFERRED or 0 < found.score < 1


def test_one_command_of_several_is_inferred_with_a_high_score() -> None:
    talk = [bash("m", 0, "cd /x && aws s3 ls | head"), minted("l", 2, "L", ["aws", "s3", "ls"]), done("n", 3)]
    found = first(talk, "l")
    assert (found.evidence, found.score) == (Evidence.INFERRED, 0.9)


def test_a_lease_outside_of_the_calls_time_is_inferred() -> None:
    command = "aws s3 sync . s3://b"
    talk = [bash("m", 0, command), done("n", 3), minted("l", 4, "L", ["sh", "-c", command])]
    found = first(talk, "l")
    assert (found.cause, found.evidence) == ("m#1", Evidence.INFERRED) and "told before" in found.why
    early = [minted("l", 0, "L", ["sh", "-c", command]), bash("m", 1, command), done("n", 3)]
    assert links(early, "l") == []


def test_a_call_and_its_result_on_one_websocket_are_bounded_by_its_end() -> None:
    """Codex's conversations: all of it is one exchange, whose end is the latest that a result can have come."""
    command = "aws s3 ls s3://b"
    turns = [asked("prompt", "p"), said("tool_call", "", "t1", "exec_command", {"cmd": command}),
             asked("tool_result", "ok", "t1"), said("answer", "done")]  # fmt: skip
    lease = minted("l", 0.9, "L", ["bash", "-lc", command])
    assert links([model("m", 0, *turns), lease], "l") == [("m#1", "process tree", Evidence.REPORTED)]
    late = minted("l", 1.5, "L", ["bash", "-lc", command])
    assert links([model("m", 0, *turns), late], "l") == [("m#1", "process tree", Evidence.INFERRED)]
    twice = [
        *turns[:3],
        said("tool_call", "", "t2", "exec_command", {"cmd": command}),
        asked("tool_result", "ok", "t2"),
    ]
    found = links([model("m", 0, *twice), lease], "l")
    assert sorted(found) == [(f"m#{n}", "process tree", Evidence.INFERRED) for n in (1, 3)], (
        "which of them is not known"
    )


def test_equal_calls_at_the_same_time_cannot_be_told_apart() -> None:
    command = "aws s3 ls s3://b"
    two = model(
        "m",
        0,
        asked("prompt", "p"),
        said("tool_call", "", "t1", "Bash", {"command": command}),
        said("tool_call", "", "t2", "Bash", {"command": command}),
    )
    results = model("n", 3, asked("tool_result", "", "t1"), asked("tool_result", "", "t2"))
    talk = [two, minted("l", 2, "L", ["sh", "-c", command]), results]
    assert sorted(links(talk, "l")) == [(f"m#{n}", "process tree", Evidence.INFERRED) for n in (1, 2)]
    step = Provenance(talk).up("l").steps[0]
    assert step.link is not None and [link.cause for link in step.alternatives] == [
        "m#2" if step.link.cause == "m#1" else "m#1"
    ], "the other call of the same answer is told beside it"


def test_of_equal_calls_one_after_the_other_the_running_one_is_the_cause() -> None:
    command = "aws s3 ls s3://b"
    talk = [
        bash("m", 0, command, "t1"),
        done("n", 3, "t1"),
        bash("o", 4, command, "t2"),
        minted("l", 6, "L", ["sh", "-c", command]),
        done("p", 7, "t2"),
    ]
    assert links(talk, "l")[0] == ("o#1", "process tree", Evidence.REPORTED)


def test_a_result_goes_to_its_call_by_id_and_never_to_a_later_one() -> None:
    talk = [bash("m", 0, "ls", "t1"), done("n", 2, "t1"), bash("o", 3, "ls", "t1")]
    assert links(talk, "n#0") == [("m#1", "tool result", Evidence.REPORTED)]
    assert links([done("n", 0, "t1"), bash("o", 3, "ls", "t1")], "n#0") == []


def test_a_nearby_command_whose_text_names_the_call_is_the_best_guess() -> None:
    talk = [
        hook("h0", 0, "cursor", "beforeShellExecution", asked("command", "sleep 100")),
        hook(
            "h1",
            1,
            "cursor",
            "preToolUse",
            asked("tool_call", "", "t", "Shell", {"command": "aws dynamodb delete-table --table-name orders"}),
        ),
        call("c", 2, "DeleteTable", service="dynamodb", names=("orders",)),
    ]
    found = Provenance(talk).links("c")
    assert [(link.cause, link.evidence) for link in found] == [("h1#0", Evidence.INFERRED), ("h0#0", Evidence.INFERRED)]
    assert found[0].score == 0.85 and "delete-table and dynamodb, it names orders" in found[0].why
    assert found[1].score == 0.3 and "does not name the call" in found[1].why


def test_a_call_with_a_lease_is_not_guessed_at() -> None:
    talk = [bash("m", 0, "aws s3 ls"), minted("l", 2, "L", ["aws", "s3", "ls"]), call("c", 3, "ListBuckets", "L")]
    assert {rule for _, rule, _ in links(talk, "c")} == {"lease"}


def test_an_application_id_or_span_names_the_tool_call() -> None:
    talk = [
        bash("m", 0, "make deploy", "toolu_7"),
        call("c", 2, "PutObject", refs=(("app", "toolu_7"),)),
        hook("h", 3, "opencode", "tool.execute.before", asked("tool_call", "x", "t2", "bash"), refs=[("span", "ab")]),
        call("d", 4, "PutObject", refs=(("span", "ab"),)),
    ]
    assert links(talk, "c") == [("m#1", "application", Evidence.REPORTED)]
    assert links(talk, "d") == [("h#0", "trace", Evidence.REPORTED)]


def test_a_span_that_the_whole_session_bears_is_no_link() -> None:
    refs = [("span", "ab")]
    talk = [
        model("m", 0, asked("prompt", "p"), refs=refs),
        model("n", 1, asked("prompt", "p"), refs=refs),
        call("c", 4, "PutObject", refs=tuple(refs)),
    ]
    assert links(talk, "c") == []


def test_a_span_of_a_later_batch_leads_to_the_call_that_it_names() -> None:
    span = Exchange(
        "o",
        "agent.event",
        "otlp",
        "traces",
        9 * 10**18,
        9 * 10**18,
        refs=(("span", "cd"),),
        items=(asked("tool_call", "", "t1", "Bash", {"span_id": "cd"}),),
    )
    talk = [bash("m", 0, "python deploy.py"), call("c", 2, "PutObject", refs=(("span", "cd"),)), span]
    assert links(talk, "c") == [("m#1", "trace", Evidence.REPORTED)]


def test_equal_bytes_are_proven_and_claim_no_more() -> None:
    code = "def handler(event, context):\n    return 1"
    digest = sha256((code + "\n").encode()).hexdigest()
    talk = [
        model(
            "m",
            0,
            asked("prompt", "write it"),
            said("tool_call", "", "t1", "Write", {"file_path": "f.py", "content": code}),
            refs=[("file", digest)],
        ),
        minted("l", 2, "L", ["make", "deploy"]),
        call("c", 3, "PutObject", "L", refs=(("file", digest),)),
        call("d", 4, "PutObject", refs=(("file", digest),)),
    ]
    known = Provenance(talk)
    step = known.up("c").steps[0]
    assert step.link is not None and step.link.rule == "lease", "equal bytes do not stand in for a cause"
    (same,) = step.same_bytes
    assert (same.cause, same.evidence) == ("m#1", Evidence.PROVEN)
    assert same.why.startswith("the bytes are the same") and "because" not in same.why
    assert [s.node for s in known.up("d").steps] == ["d", "m#1", "m#0"]


def test_a_conversation_goes_on_by_the_ids_of_its_answers() -> None:
    talk = [
        model("m", 0, asked("prompt", "p"), said("answer", "a"), refs=[("message", "resp_1")]),
        model("n", 2, said("answer", "b"), refs=[("previous", "resp_1"), ("message", "resp_2")]),
    ]
    assert links(talk, "n") == [("m#1", "conversation", Evidence.REPORTED)]
    assert [step.node for step in Provenance(talk).up("n").steps] == ["n#0", "n", "m#1", "m#0"]


def test_reports_without_turns_come_of_the_last_prompt_of_their_session() -> None:
    talk = [
        hook("p1", 0, "gemini", "BeforeAgent", asked("prompt", "one"), refs=[SESSION]),
        hook("p2", 5, "gemini", "BeforeAgent", asked("prompt", "two"), refs=[SESSION]),
        hook("q", 6, "gemini", "BeforeAgent", asked("prompt", "of another"), refs=[("agent_session", "other")]),
        hook("t", 7, "gemini", "BeforeTool", asked("tool_call", "ls", "", "run_shell_command"), refs=[SESSION]),
    ]
    assert links(talk, "t#0") == [("p2#0", "agent session", Evidence.REPORTED)]


def test_a_better_explained_cause_is_preferred_to_a_lease_that_leads_nowhere() -> None:
    talk = [
        bash("m", 0, "python x.py", "toolu_7"),
        done("n", 1.5, "toolu_7"),
        minted("l", 2, "L", ["agent"]),
        call("c", 3, "PutObject", "L", refs=(("app", "toolu_7"),)),
    ]
    chain = Provenance(talk).up("c")
    assert chain.steps[0].link is not None and chain.steps[0].link.rule == "application"
    assert [link.rule for link in chain.steps[0].alternatives] == ["lease"]


def test_an_unknown_call_has_no_cause() -> None:
    chain = Provenance([call("c", 1, "GetObject")]).up("c")
    assert len(chain.steps) == 1 and chain.steps[0].link is None and not chain.reached
