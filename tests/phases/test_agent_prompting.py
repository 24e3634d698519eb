"""What the model reads besides the conversation: what stands in its prompt, what is kept of it."""

from collections.abc import Callable
from typing import Any

import pytest

from phases.agent.calls import Call, CallFormat, Message
from phases.agent.conversation import Turn, TurnLimits
from phases.agent.design import Prompting
from phases.agent.library import Example, Library
from phases.agent.prompting import REFLECT, asked, joined, parts, unsure
from phases.agent.tool import ToolContext, built_in

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


class Reader:
    """A script that says `Yes.` and notes its prompts."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> Any:
        if prompt not in self.prompts:
            self.prompts.append(prompt)
        return "Yes."


def read(act: Callable[..., Any], messages: list[Message], **options: Any) -> list[str]:
    """The prompts that are read for a turn."""
    reader = Reader()
    (turn,) = act(reader, **options).take_turns([messages], ToolContext())
    assert turn.messages[-1]["content"].startswith("Yes.")
    return reader.prompts


def test_the_default_reads_the_conversation_and_nothing_else(act: Callable[..., Any]) -> None:
    talk = [user("a"), assistant("b"), user("c")]
    assert read(act, talk) == ["<|user|>a<|assistant|>b<|endoftext|><|user|>c<|assistant|>"]


@pytest.mark.parametrize(
    ("prompting", "question"),
    [
        ({"reread": True}, "How many?\nRead the question again: How many?"),
        ({"steps": True}, "How many? Let's think step by step."),
        ({"reread": True, "steps": True}, "How many?\nRead the question again: How many? Let's think step by step."),
    ],
)
def test_only_the_question_is_put_otherwise(act: Callable[..., Any], prompting: Any, question: str) -> None:
    talk = [user("a"), assistant("b"), user("How many?")]
    expected = f"<|user|>a<|assistant|>b<|endoftext|><|user|>{question}<|assistant|>"
    assert read(act, talk, prompting=prompting) == [expected]
    assert talk[-1] == user("How many?")
    assert asked("How many?", Prompting(**prompting)) == question


def test_it_is_put_so_after_a_result_too(act: Callable[..., Any]) -> None:
    def script(prompt: str) -> Any:
        assert "step by step" in prompt
        return "Done." if "<tool_response>" in prompt else FORM.render(Call("recall", {"query": "x"}))

    acting = act(script, [built_in("recall")], prompting={"steps": True})
    assert acting.take_turns([[user("?")]], ToolContext())[0].text == "Done."


LIBRARY = Library(
    examples=tuple(
        Example(domain=domain, messages=(user(text), assistant(reply)))
        for domain, text, reply in (("a", "one two", "1"), ("a", "red green", "2"), ("b", "cat dog", "3"))
    )
)
SHOWN = {text: f"<|user|>{text}<|assistant|>{reply}<|endoftext|>" for text, reply in
         (("one two", "1"), ("red green", "2"), ("cat dog", "3"))}  # fmt: skip
ASKED = "<|user|>green?<|assistant|>"


@pytest.mark.parametrize(
    ("prompting", "texts"),
    [
        ({"examples": 0}, []),
        ({"examples": 1}, ["one two"]),
        ({"examples": 2}, ["one two", "cat dog"]),
        ({"examples": 1, "nearest": True}, ["red green"]),
        ({"examples": 9}, ["one two", "cat dog", "red green"]),
    ],
)
def test_solved_examples_stand_before_the_conversation(
    act: Callable[..., Any], prompting: Any, texts: list[str]
) -> None:
    prompts = read(act, [user("green?")], library=LIBRARY, prompting=prompting)
    assert prompts == ["".join(SHOWN[text] for text in texts) + ASKED]


def test_examples_never_push_the_conversation_out(act: Callable[..., Any]) -> None:
    """As many as there is room for: in the budget, and in the model's context."""
    options = {"library": LIBRARY, "prompting": {"examples": 3}}
    talk = [user("x" * 50), assistant("y"), user("green?")]
    whole = f"<|user|>{'x' * 50}<|assistant|>y<|endoftext|>{ASKED}"
    (one,) = read(act, talk, context_tokens=75, **options)  # 62 tokens, and 11 an example
    assert one == SHOWN["one two"] + whole
    assert read(act, talk, context_tokens=64, **options) == [whole]
    assert read(act, talk, limits=TurnLimits(new_tokens=4000 - 85), **options) == [
        SHOWN["one two"] + SHOWN["cat dog"] + whole
    ]


def test_the_tools_are_shown_where_they_are_asked_for(act: Callable[..., Any]) -> None:
    tools = [built_in("recall")]
    for design in ({"prompting": {"show_tools": True}}, {"options": {"show_tools": True}}):
        assert read(act, [user("a")], tools=tools, **design)[0].startswith("<|system|>Tools: recall(query).<|user|>a")
    assert read(act, [user("a")], tools=tools)[0].startswith("<|user|>a")


def test_a_system_prompt_that_is_given_comes_first(act: Callable[..., Any]) -> None:
    assert read(act, [user("a")], options={"system": "Be."}) == ["<|system|>Be.<|user|>a<|assistant|>"]


def test_a_question_of_several_sentences_has_parts() -> None:
    deep = Prompting(decompose=True)
    assert parts("My boat is Zumi. What is my boat?", deep) == ["My boat is Zumi.", "What is my boat?"]
    assert parts("What is 3.5?", deep) == ["What is 3.5?"] and parts("A. B.", Prompting()) == ["A. B."]
    assert parts("", deep) == [""]


def test_parts_are_asked_one_after_the_other_and_answered_as_one(act: Callable[..., Any]) -> None:
    def script(prompt: str) -> Any:
        question = prompt.split("<|user|>")[-1].split("<|assistant|>")[0]
        if question.startswith("<tool_response>"):
            return f"Read {prompt.count('<tool_response>')}."
        return FORM.render(Call("recall", {"query": "x"})) if question == "Two?" else f"To {question}"

    (turn,) = act(script, [built_in("recall")], prompting={"decompose": True}).take_turns(
        [[user("One? Two? Three?")]], ToolContext()
    )
    assert turn.text == "To One? Read 1. To Three?" and turn.ended == "said"
    assert [message["role"] for message in turn.messages] == ["assistant", "tool", "assistant"]
    assert [call.name for call in turn.calls] == ["recall"]


def test_parts_share_the_calls_of_the_turn(act: Callable[..., Any]) -> None:
    def script(prompt: str) -> Any:
        return [FORM.render(Call("recall", {"query": query})) for query in ("a", "b", "c")]

    limits = TurnLimits(calls=3)
    acting = act(script, [built_in("recall")], limits=limits, prompting={"decompose": True}, voting={"samples": 2})
    (turn,) = acting.take_turns([[user("One? Two?")]], ToolContext())
    assert len(turn.calls) == 3 and turn.ended == "too many calls"


def test_turns_are_joined_by_what_was_said_last() -> None:
    first, second = Turn([assistant("a")], [], "cut off"), Turn([assistant("b")])
    assert joined([first, second]) == Turn([assistant("a b")], [], "cut off") and joined([second]) is second


def reflects(prompt: str) -> Any:
    return "Twelve." if REFLECT in prompt else "Thirteen."


def test_an_answer_is_said_anew(act: Callable[..., Any]) -> None:
    (turn,) = act(reflects, prompting={"reflect": "always"}).take_turns([[user("3*4")]], ToolContext())
    assert turn.messages == [assistant("Twelve.")] and turn.ended == "said"
    assert act(reflects).take_turns([[user("3*4")]], ToolContext())[0].text == "Thirteen."


@pytest.mark.parametrize(("logit", "text"), [(4.0, "b"), (9.0, "a")])
def test_in_doubt_only_what_was_unsure_is(act: Callable[..., Any], logit: float, text: str) -> None:
    """Of 260 tokens, one with logit 4 has a probability of .17, one with 9 of .97."""
    acting = act(lambda p: [("b" if REFLECT in p else "a", logit)], prompting={"reflect": "doubt"})
    assert acting.take_turns([[user("?")]], ToolContext())[0].text == text


def test_doubt_is_a_mean_probability_below_one_half() -> None:
    assert unsure([-0.8, -0.6]) and not unsure([-0.8, -0.5]) and not unsure([])  # .499, .528


@pytest.mark.parametrize("again", [[""], [FORM.render(Call("recall", {"query": "x"})), ""]])
def test_what_is_no_answer_changes_nothing(act: Callable[..., Any], again: list[str]) -> None:
    acting = act(lambda p: again if REFLECT in p else ["Well."], [built_in("recall")], prompting={"reflect": "always"})
    assert acting.take_turns([[user("?")]], ToolContext())[0].text == "Well."
