"""A request without tools is a turn of `forge chat`, whatever the design; what is certain of a text half written."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.serving.agent import ServedAgent
from flows.serving.metering import Cancelled, Meter, settled
from flows.serving.requests import ChatAsked
from phases.agent.acting import Acting
from phases.agent.design import Design
from phases.agent.tool import built_in
from phases.checkpoint import open_checkpoint

DESIGNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "votes": {"voting": {"samples": 3}},
    "branches": {"voting": {"samples": 3, "branch": True, "adaptive": True}},
    "beams": {"decoding": {"beams": 2}},
    "contrastive": {"decoding": {"contrastive": 0.5, "top_k": 4}},
    "half depth": {"decoding": {"depth": 0.5}},
    "said anew": {"prompting": {"reflect": "always"}},
    "in parts": {"prompting": {"decompose": True}},
    "result": {"calling": {"reply": "result"}},
}


@pytest.fixture(scope="module")
def agent(path: Path) -> Iterator[ServedAgent]:
    with contextlib.ExitStack() as held:
        yield ServedAgent.open(open_checkpoint(path), (), None, held)


def designed(agent: ServedAgent, design: dict[str, Any]) -> ServedAgent:
    settings = agent.settings.model_copy(update={"design": Design.model_validate(design)})
    return dataclasses.replace(agent, settings=settings)


def asked(text: str, **more: Any) -> ChatAsked:
    return ChatAsked.model_validate({"model": "tiny", "messages": [{"role": "user", "content": text}], **more})


@pytest.mark.parametrize("name", DESIGNS)
def test_a_turn_is_that_of_chat(agent: ServedAgent, name: str) -> None:
    served, pieces = designed(agent, DESIGNS[name]), list[str]()
    question = "hello. keep" if name == "in parts" else "sum"
    turn = Acting(served.minds, served.tools, served.settings).take_turns(
        [[{"role": "user", "content": question}]], dataclasses.replace(served.context)
    )[0]
    answer = served.chat(asked(question), Meter(pieces.append, lambda: False))
    assert answer.text == turn.text and answer.finish == ("stop" if turn.ended == "said" else "length")
    assert pieces == [""]  # a tool may be called, so nothing is certain before the end


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_what_is_sent_early_is_the_answers_beginning(agent: ServedAgent, design: dict[str, Any]) -> None:
    served, pieces = designed(agent, design), list[str]()
    meter = Meter(pieces.append, lambda: False, stops=("sir",))
    answer = served.chat(asked("hello", tool_choice="none"), meter)
    assert answer.text.startswith("".join(pieces)) and "sir" not in answer.text
    whole = design.keys() & {"voting", "prompting"} or design.get("decoding", {}).keys() & {"beams", "contrastive"}
    assert (len(pieces) == 1) == bool(whole)
    assert meter.prompt_tokens >= len("<|user|>hello<|assistant|>") and meter.completion_tokens > 0


@pytest.mark.parametrize("name", ["plain", "votes", "beams", "contrastive"])
def test_every_way_of_writing_ends_when_nobody_waits(agent: ServedAgent, name: str) -> None:
    steps = iter([False] * 5)
    with pytest.raises(Cancelled):
        designed(agent, DESIGNS[name]).chat(asked("hello"), Meter(lambda _: None, lambda: next(steps, True)))
    assert not agent.minds.model(agent.design).base_model._forward_pre_hooks


def test_a_request_knows_nothing_of_others(agent: ServedAgent) -> None:
    memory = agent.context.memory
    assert memory is not None
    before = len(list(memory.facts()))  # of the turns above that were played beside the server
    assert agent.chat(asked("keep"), Meter(lambda _: None, lambda: False)).text == "So it is."
    assert len(list(memory.facts())) == before and not list(memory.episodes())


def test_what_was_said_earlier_can_be_recalled(agent: ServedAgent) -> None:
    said = [("user", "my boat is called Zumi"), ("assistant", "Good."), ("user", "what is my boat called?")]
    with agent.session([{"role": role, "content": text} for role, text in said]) as context:
        assert built_in("recall").run({"query": "my boat"}, context) == "my boat is called Zumi"


@pytest.mark.parametrize(
    ("text", "stops", "certain"),
    [
        (" a b ", (), "a b"),
        ("a\ufffd", (), "a"),
        ("a EN", ("END",), "a"),
        ("a E", ("END", " END now"), "a"),
        ("a ENX", ("END",), "a ENX"),
    ],
)
def test_what_is_certain(text: str, stops: tuple[str, ...], certain: str) -> None:
    assert settled(text, stops, stripped=True) == certain
