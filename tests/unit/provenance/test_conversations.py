"""Whole conversations of real agents: from an AWS call up to the prompt, and down again."""

from __future__ import annotations

import pytest

from narrows.provenance.chain import Provenance
from narrows.provenance.model import Chain, Evidence, Exchange

from .conversations import asked, claude_code, codex, cursor, hook, mini_swe_agent, model, said


def nodes(chain: Chain) -> list[str]:
    return [step.node for step in chain.steps]


def evidence(chain: Chain) -> list[str]:
    return [step.link.evidence.value for step in chain.steps if step.link]


def test_claude_code_reaches_the_prompt_that_the_person_typed() -> None:
    chain = Provenance(claude_code()).up("c3")
    assert nodes(chain) == [
        "c3", "l2", "h-pre-2#0", "m2#1", "m2#0", "m1#5", "m1#2", "h-prompt#0",
    ]  # fmt: skip
    assert evidence(chain) == ["proven", "reported", "reported", "proven", "reported", "proven", "reported"]
    assert chain.reached and chain.weakest is not None and chain.weakest.evidence is Evidence.REPORTED
    assert "NRWL2" in chain.steps[0].link.why and "kernel" in chain.steps[0].link.why  # type: ignore[union-attr]
    assert not chain.notes


def test_a_simple_command_that_replaced_its_shell_is_found_word_by_word() -> None:
    (link,) = [step.link for step in Provenance(claude_code()).up("c1").steps if step.node == "l1"]
    assert link is not None and link.evidence is Evidence.REPORTED and "word by word" in link.why


def test_down_gives_everything_that_the_prompt_caused_and_up_agrees() -> None:
    known = Provenance(claude_code())
    tree = known.down("h-prompt")
    below = {caused.node for caused in tree.nodes}
    assert {"c1", "c2", "c3", "l1", "l2", "m1#5", "m2#1", "m3#1", "h-pre-1#0"} <= below and not tree.cut
    for caused in tree.nodes:
        assert known.up(caused.node).steps[-1].node == "h-prompt#0"
    assert {caused.node for caused in known.down("m2#1").nodes} >= {"c2", "c3", "l2"}
    assert "c1" not in {caused.node for caused in known.down("m2#1").nodes}


def test_codex_over_the_wire_with_a_client_that_named_its_processes() -> None:
    chain = Provenance(codex()).up("c1")
    assert nodes(chain) == ["c1", "l1", "m1#1", "m1#0"] and chain.reached
    assert evidence(chain) == ["reported", "reported", "proven"], "a client's word is not the kernel's"


def test_cursor_by_its_hooks_alone() -> None:
    chain = Provenance(cursor()).up("c1")
    assert nodes(chain) == ["c1", "l1", "h2#0", "h1#0"] and chain.reached
    assert evidence(chain) == ["proven", "reported", "reported"]
    answer = Provenance(cursor()).up("h6")
    assert nodes(answer) == ["h6", "h1#0"] and answer.reached
    assert Provenance(cursor()).up("h1").reached


def test_mini_swe_agent_whose_outcomes_look_like_prompts() -> None:
    known = Provenance(mini_swe_agent())
    chain = known.up("c1")
    assert nodes(chain) == ["c1", "l1", "m1#4", "m1#1"] and chain.reached
    assert evidence(chain) == ["proven", "reported", "proven"]
    later = known.up("c2")
    assert nodes(later) == ["c2", "l2", "m2#3", "m2#0", "m1#4", "m1#1"] and later.reached
    assert evidence(later) == ["proven", "reported", "proven", "inferred", "proven"]
    assert "outcome of the code" in later.steps[3].link.why  # type: ignore[union-attr]


def test_without_hooks_the_prompt_on_the_wire_is_the_end() -> None:
    wire = [x for x in claude_code() if not x.is_event]
    chain = Provenance(wire).up("c3")
    assert nodes(chain) == ["c3", "l2", "m2#1", "m2#0", "m1#5", "m1#2"] and chain.reached


def test_a_prompt_of_another_text_in_the_same_turn_is_not_the_persons() -> None:
    refs = [("agent_session", "s"), ("turn", "t")]
    talk = [
        hook("h", 0, "claude-code", "UserPromptSubmit", asked("prompt", "fix the bug"), refs=refs),
        model("m", 1, asked("prompt", "Make a title for this"), said("answer", "Bug"), refs=refs),
    ]
    chain = Provenance(talk).up("m")
    assert nodes(chain) == ["m#1", "m#0"]


def test_a_subagents_prompt_came_of_the_call_that_started_it() -> None:
    text = "Find every bucket without encryption and list it"
    talk = [
        model("m1", 0, asked("prompt", "audit"), said("tool_call", "", "toolu_1", "Task", {"prompt": text}),
              said("subagent", text, "toolu_1"), refs=[("agent_session", "s")]),
        model("m2", 2, asked("prompt", text), said("answer", "none"), refs=[("agent_session", "s")]),
    ]  # fmt: skip
    chain = Provenance(talk).up("m2")
    assert nodes(chain) == ["m2#1", "m2#0", "m1#1", "m1#0"]
    assert evidence(chain) == ["proven", "inferred", "proven"] and chain.steps[1].link.score == 0.9  # type: ignore[union-attr]


@pytest.mark.parametrize("talk", [claude_code(), codex(), cursor(), mini_swe_agent()])
def test_every_node_has_a_chain_that_ends(talk: list[Exchange]) -> None:
    known = Provenance(talk)
    for x in talk:
        for node in [x.id, *(f"{x.id}#{n}" for n in range(len(x.items)))]:
            chain = known.up(node)
            assert len(chain.steps) == len(set(nodes(chain))) <= len(talk) * 3


def test_what_is_not_there_is_a_key_error() -> None:
    known = Provenance(codex())
    for node in ("nothing", "m1#99"):
        with pytest.raises(KeyError):
            known.up(node)
        with pytest.raises(KeyError):
            known.down(node)
    with pytest.raises(ValueError):
        known.up("m1#-1")
