"""Turns: calls that fail, loop, flood and make no sense, several conversations at once; and the writer's prompts."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from phases.agent.calls import Call, CallFormat, Message
from phases.agent.conversation import CallRecord, Toolbox, Turn, TurnLimits, Written, shorten, take_turns
from phases.agent.template import CHAT_TEMPLATE
from phases.agent.tool import Tool, ToolContext, ToolError
from phases.agent.writing import BatchWriter, Prompt
from phases.data.tokenizer import train_tokenizer
from phases.decoding import encode

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
LIMITS = TurnLimits()


def tool(name: str, run: Callable[[Any, ToolContext], Any], parameter: str = "text") -> Tool:
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    schema = {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}
    return Tool(name, schema, run, "test")


def fail(arguments: Any, _: ToolContext) -> str:
    errors = {
        "tool": ToolError("no such\nplace"),
        "key": KeyError("x"),
        "exit": RecursionError(),
        "long": ToolError("ab " * 999),
    }
    raise errors[arguments["text"]]


ECHO = tool("echo", lambda arguments, context: f"{context.session}: {arguments['text']}")
TOOLS = (
    ECHO,
    tool("fail", fail),
    tool("flood", lambda arguments, _: arguments["text"] * 9999),
    tool("none", lambda *_: None),
)


def said(name: str, text: str = "a") -> str:
    return FORM.render(Call(name, {"text": text}))


def script(*texts: str, whole: bool = True) -> Callable[[Sequence[Sequence[Message]]], list[Written]]:
    """A writer of given texts, one a round; the last is repeated."""
    left = list(texts)

    def write(conversations: Sequence[Sequence[Message]]) -> list[Written]:
        text = left.pop(0) if len(left) > 1 else left[0]
        return [Written(text, whole) for _ in conversations]

    return write


def turn(*texts: str, limits: TurnLimits = LIMITS, whole: bool = True) -> Turn:
    """One conversation's turn in which these texts are written."""
    box = Toolbox(FORM, TOOLS, ToolContext(session="s"))
    return take_turns(script(*texts, whole=whole), [[{"role": "user", "content": "x"}]], box, limits)[0]


def test_an_answer_without_calls_ends_the_turn() -> None:
    made = turn(" Hello. ")
    assert (made.text, made.ended, made.calls) == ("Hello.", "said", [])


def test_an_answer_that_is_cut_off_says_so() -> None:
    assert turn("Hello, I am", whole=False).ended == "cut off"


def test_a_call_runs_and_its_result_goes_back() -> None:
    made = turn(f"I look.{said('echo', 'é')}", "It is é.")
    assert made.calls == [CallRecord("done", "echo", {"text": "é"}, "s: é")]
    assert [message["role"] for message in made.messages] == ["assistant", "tool", "assistant"]
    assert made.messages[1] == {"role": "tool", "name": "echo", "content": "s: é"}
    assert (made.messages[0]["content"], made.text, made.ended) == ("I look.", "It is é.", "said")


@pytest.mark.parametrize(
    ("text", "verdict", "result"),
    [
        (said("fail", "tool"), "failed", "error: no such place"),
        (said("fail", "key"), "failed", "error: KeyError: 'x'"),
        (said("fail", "exit"), "failed", "error: RecursionError:"),
        (said("sing"), "invalid", "error: there is no tool sing; there are: echo, fail, flood, none"),
        (FORM.render(Call("echo", {})), "invalid", "error: echo: 'text' is a required property"),
        (FORM.render(Call("echo", {"text": 1})), "invalid", "error: echo: 1 is not of type 'string'"),
        ("<tool_call>echo", "malformed", 'error: this is no call; write <tool_call>{"name": "NAME", "arguments": {…}}'),
        (said("echo")[:-3], "malformed", "error: the call of echo is not closed with }</tool_call>"),
        (said("none"), "done", "None"),
    ],
)
def test_what_goes_wrong_is_a_result_that_the_model_reads(text: str, verdict: str, result: str) -> None:
    made = turn(text, "Sorry.")
    assert [record.verdict for record in made.calls] == [verdict]
    assert made.calls[0].result.startswith(result)
    assert made.messages[1]["content"] == made.calls[0].result
    assert (made.text, made.ended) == ("Sorry.", "said")


def test_a_malformed_call_stays_as_it_was_written() -> None:
    text = "Well.<tool_call>{'name': 3}"
    assert turn(text, "Sorry.").messages[0] == {"role": "assistant", "content": text}


def test_an_endless_loop_of_calls_is_ended() -> None:
    made = turn(*(said("echo", str(number)) for number in range(99)))
    assert made.ended == "too many calls" and made.text == "(stopped after 4 calls)"
    assert [record.arguments["text"] for record in made.calls] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("text", ["<tool_call>", said("sing"), said("fail", "key")])
def test_a_loop_of_calls_that_fail_is_ended_too(text: str) -> None:
    made = turn(text, limits=TurnLimits(calls=3))
    assert (made.ended, len(made.calls)) == ("too many calls", 3)


def test_no_calls_are_run_where_none_are_allowed() -> None:
    made = turn(said("echo"), limits=TurnLimits(calls=0))
    assert (made.ended, made.calls) == ("too many calls", [])


def test_many_calls_in_one_text_are_no_more_than_are_allowed() -> None:
    made = turn("".join(said("echo", str(number)) for number in range(9)), "Done.", limits=TurnLimits(calls=3))
    assert [record.result for record in made.calls] == ["s: 0", "s: 1", "s: 2"]
    assert len(made.messages[0]["tool_calls"]) == 3 == sum(message["role"] == "tool" for message in made.messages)
    assert made.text == "Done."


@pytest.mark.parametrize("texts", [[said("echo"), said("echo")], [said("echo") * 2]])
def test_the_same_call_twice_is_not_run_again(texts: list[str]) -> None:
    made = turn(*texts, said("echo", "b"), "Done.")
    assert [record.verdict for record in made.calls] == ["done", "repeated", "done"]
    assert made.calls[1].result == "error: that call was made already; answer now"


@pytest.mark.parametrize("text", [said("flood", "many words "), said("flood", "z"), said("fail", "long")])
def test_a_flood_is_cut_and_that_is_said(text: str) -> None:
    made = turn(text, "Done.", limits=TurnLimits(result_chars=50))
    result, _, rest = made.calls[0].result.partition(" … ")
    assert len(result) <= 50 and rest.endswith("characters more)")


def test_what_is_kept_of_a_text_and_what_is_cut_make_its_length() -> None:
    assert shorten("ab  cd\nef gh", 8) == "ab cd … (6 characters more)"
    assert shorten("ab  cd\nef", 8) == "ab cd ef"
    assert shorten("a" * 5000, 16) == "a" * 16 + " … (4,984 characters more)"
    assert shorten("half \ud83d", 16) == "half ?"


def test_a_malformed_call_of_any_length_makes_a_short_result() -> None:
    made = turn(f'<tool_call>{{"name": "{"e" * 9999}", "arguments": {{', "Sorry.")
    assert len(made.calls[0].result) < 2 * LIMITS.result_chars


def test_watchers_see_every_call_in_order() -> None:
    seen: list[CallRecord] = []
    box = Toolbox(FORM, TOOLS, ToolContext(session="s"))
    texts = [said("echo"), "<tool_call>", said("fail", "key"), "Done."]
    made = take_turns(script(*texts), [[{"role": "user", "content": "x"}]], box, LIMITS, seen.append)[0]
    assert seen == made.calls and [record.verdict for record in seen] == ["done", "malformed", "failed"]


def test_several_conversations_go_on_at_once_with_contexts_of_their_own() -> None:
    """The first answers at once, the second calls once, the third twice."""
    rounds: list[int] = []

    def write(conversations: Sequence[Sequence[Message]]) -> list[Written]:
        rounds.append(len(conversations))
        made = []
        for messages in conversations:
            wanted, done = int(messages[0]["content"]), sum(one["role"] == "tool" for one in messages)
            last = messages[-1]["content"]
            made.append(Written(said("echo", str(done)) if done < wanted else f"after {last}", True))
        return made

    box = Toolbox(FORM, TOOLS, lambda index: ToolContext(session=f"s{index}"))
    asked = [[{"role": "user", "content": str(number)}] for number in range(3)]
    before = copy.deepcopy(asked)
    turns = take_turns(write, asked, box, LIMITS)
    assert rounds == [3, 2, 1] and asked == before
    assert [one.text for one in turns] == ["after 0", "after s1: 0", "after s2: 1"]
    assert [[record.result for record in one.calls] for one in turns] == [[], ["s1: 0"], ["s2: 0", "s2: 1"]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = train_tokenizer(["a"], 260)  # bytes, and four special tokens
    made.chat_template = CHAT_TEMPLATE
    return made


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Any]) -> Any:
    return make_model("llama", vocab_size=260, max_position_embeddings=400)


@pytest.fixture
def seen(model: Any) -> Any:
    """Tokens (B, T) of every forward pass but those of one token: the prompts."""
    prompts: list[torch.Tensor] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] > 1:
            prompts.append(given["input_ids"])

    hook = model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    yield prompts
    hook.remove()


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def long_chat(turns: int) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": f"Line {i} of the talk. It says {i * 7}."} for i in range(2 * turns + 1)]


def test_the_writer_keeps_its_prompts_within_the_budget(model: Any, tokenizer: Any, seen: Any) -> None:
    prompt = Prompt(system="You are Forge.", tools=TOOLS[:1])
    short = TurnLimits(new_tokens=2)
    writer = BatchWriter(model, tokenizer, TOOLS, short, prompt=prompt, budget=200)
    writer([long_chat(30)])
    text = tokenizer.decode(seen[0][0])
    assert seen[0].shape[1] <= 200 < len(encode(tokenizer, str(long_chat(30))))
    assert text.startswith("<|system|>You are Forge.") and "echo(text)" in text and "Line 60" in text
    assert "Earlier: " in text  # what fell out is summarised


def test_a_prompt_beyond_the_context_keeps_its_end(model: Any, tokenizer: Any, seen: Any) -> None:
    BatchWriter(model, tokenizer, (), TurnLimits(new_tokens=20))([user("a" * 500 + "the end")])
    assert seen[0].shape[1] == 380
    assert tokenizer.decode(seen[0][0]).endswith("the end<|assistant|>")


def test_examples_stand_between_the_prompt_and_the_conversation(model: Any, tokenizer: Any, seen: Any) -> None:
    examples = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})
    BatchWriter(model, tokenizer, (), TurnLimits(new_tokens=1), prompt=Prompt("S.", (), examples))([user("you?")])
    text = "<|system|>S.<|user|>hi<|assistant|>hello<|endoftext|><|user|>you?<|assistant|>"
    assert tokenizer.decode(seen[0][0]) == text


@pytest.fixture
def calling(model: Any, tokenizer: Any) -> Any:
    """The model, its head made such that it wants to write the marker over and over."""
    made = copy.deepcopy(model)
    marker = encode(tokenizer, FORM.marker)
    position = {"count": 0}

    def force(_: Any, __: Any, logits_BV: torch.Tensor) -> torch.Tensor:
        logits_BV[:, marker[position["count"] % len(marker)]] += 100.0
        position["count"] += 1
        return logits_BV

    made.get_output_embeddings().register_forward_hook(force)
    return made


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("constrained", [False, True])
def test_without_calls_none_is_begun(calling: Any, tokenizer: Any, temperature: float, constrained: bool) -> None:
    def write(calls: bool) -> str:
        short = TurnLimits(new_tokens=len(encode(tokenizer, FORM.marker)) * 3)
        options = {"temperature": temperature, "constrained": constrained, "calls": calls}
        return BatchWriter(calling, tokenizer, TOOLS, short, **options)([user("x")])[0].text

    assert FORM.marker not in write(calls=False) and "<tool_call" in write(calls=False)


def test_with_calls_the_same_model_begins_one(calling: Any, tokenizer: Any) -> None:
    short = TurnLimits(new_tokens=len(encode(tokenizer, FORM.marker)))
    assert BatchWriter(calling, tokenizer, TOOLS, short)([user("x")]) == [Written(FORM.marker, False)]


def test_draws_are_repeatable_and_every_round_has_its_own(model: Any, tokenizer: Any) -> None:
    def rounds(seed: int) -> list[list[Written]]:
        writer = BatchWriter(model, tokenizer, (), TurnLimits(new_tokens=12), temperature=1.0, seed=[seed])
        return [writer([user("a"), user("b")]) for _ in range(2)]

    first = rounds(1)
    assert first == rounds(1) and first[0] != first[1]
    assert first != rounds(2)
    assert first[0][0] != first[0][1]


def test_greedy_writing_does_not_depend_on_the_batch(model: Any, tokenizer: Any) -> None:
    asked = [user("a" * number) for number in range(1, 6)]
    short = TurnLimits(new_tokens=8)
    alone = [BatchWriter(model, tokenizer, (), short)([one])[0] for one in asked]
    assert BatchWriter(model, tokenizer, (), short, batch=2)(asked) == alone


def test_a_turn_of_a_random_model_raises_nothing(model: Any, tokenizer: Any) -> None:
    writer = BatchWriter(model, tokenizer, TOOLS, TurnLimits(new_tokens=24), temperature=2.0, budget=300)
    box = Toolbox(FORM, TOOLS, ToolContext())
    turns = take_turns(writer, [user("x"), long_chat(9)], box, LIMITS)
    assert all(one.messages and one.ended in ("said", "cut off", "too many calls") for one in turns)
