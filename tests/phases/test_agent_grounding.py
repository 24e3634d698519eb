"""What is written stands somewhere: against all parts of a text, and with a model that wants something else."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from phases.agent.calls import Call, CallFormat
from phases.agent.grounding import Copied, Grounded, Known, Numbers, Source
from phases.agent.reading import Place
from phases.agent.tool import Tool, ToolContext, ToolError
from phases.data.tokenizer import train_tokenizer

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
TEXT = 'look up "a.b_c" in 37*28, I\'m\tsure\\ '


def tool(name: str, parameter: str, run: Callable[..., str] = lambda *_: "12", **schema: Any) -> Tool:
    parameters = {"type": "object", "properties": {parameter: {"type": "string", **schema}}, "required": [parameter]}
    function = {"name": name, "description": "", "parameters": parameters}
    return Tool(name, {"type": "function", "function": function}, run, "built-in")


TOOLS = [tool("find", "query"), tool("python", "code"), tool("unit", "name", enum=["km", "mile"])]


def escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def parts_of(text: str) -> set[str]:
    """All parts that begin and end where a word does, or a sign that is none."""
    found = re.finditer(r"[A-Za-z]+['.][A-Za-z_]+|\w+|[^\w\s]", text)
    spans = [one.span() for one in found]
    return {text[start:end] for start, _ in spans for _, end in spans if start < end}


def test_a_part_is_whole_and_its_beginnings_begin_and_nothing_else_does() -> None:
    source, parts = Source(TEXT), {escaped(part) for part in parts_of(TEXT)}
    beginnings = {part[:length] for part in parts for length in range(len(part) + 1)}
    raw = escaped(TEXT)
    tried = {raw[start:end] for start in range(len(raw)) for end in range(start, len(raw) + 1)} | {"b", "look a"}
    assert {text for text in tried if source.whole(text)} == parts
    assert {text for text in tried if source.begins(text)} == beginnings & tried


def test_words_without_spaces_are_parts_too() -> None:
    source = Source("我的狗叫Rex")
    assert source.whole("狗") and source.whole("Rex") and not source.whole("Re") and source.begins("Re")
    assert source.begins("我", more=True) and not source.begins("叫", more=True)


@pytest.mark.parametrize(
    ("raw", "open_", "whole"),
    [
        ("37*28", True, True),
        ("37*2", True, False),
        ("37+37", True, True),
        ("7", False, False),
        ("371", False, False),
        ("37*2+", False, False),
        ("math.log2(37)", True, True),
        ("x1 = 37", True, True),
        ("0x37", False, False),
        ("", True, True),
    ],
)
def test_numbers_of_a_text_are_known_or_may_become_so(raw: str, open_: bool, whole: bool) -> None:
    known = Known(["compute 37*28"])
    assert (known.holds(raw, False), known.holds(raw, True)) == (open_, whole)


def test_a_place_knows_what_stands_there() -> None:
    def at(text: str) -> tuple[str, str, str, str]:
        place = Place().after(text, FORM)
        return place.kind, place.tool, place.argument, place.raw

    call = '<tool_call>{"name": "f", "arguments": {"a": '
    assert at("I say")[::3] == ("text", "I say") and at('<tool_call>{"name')[::3] == ("head", '{"name')
    assert at(call + '"x\\"y') == ("string", "f", "a", 'x\\"y')
    assert at(call + '["x", {"b": "c') == ("string", "f", "a", "c")
    assert at(call + '{"b": 1}, "c": -2.5') == ("bare", "f", "c", "-2.5")
    assert at(call + '"x"}}</tool_call>so')[0] == "text"
    assert at(call + '"x"}}</tool_call> ' + call + '"y')[3] == "y"


def holds(text: str, said: list[str], what: Any) -> bool:
    """Whether a whole text could be written sign by sign."""
    rule, place = Copied(FORM, TOOLS, said, what), Place()
    for sign in text:
        place = place.next(sign, FORM)
        if not rule.holds(place):
            return False
    return True


@pytest.mark.parametrize(
    ("name", "arguments", "strings", "numbers", "everything"),
    [
        ("find", {"query": "heap"}, True, True, True),
        ("find", {"query": "hea"}, False, True, False),
        ("find", {"query": "Heap"}, False, True, False),
        ("find", {"query": ""}, False, True, False),
        ("find", {"query": "heap 4"}, False, False, False),
        ("python", {"code": "3+3"}, False, True, True),
        ("python", {"code": "3*4"}, False, False, False),
        ("unit", {"name": "mile"}, True, True, True),
    ],
)
def test_arguments_are_copied(name: str, arguments: Any, strings: bool, numbers: bool, everything: bool) -> None:
    said = ['find "heap" and 3', "so"]
    found = [holds(f"Well 9. {FORM.render(Call(name, arguments))} 8", said, w) for w in ("strings", "numbers", "all")]
    assert found == [strings, numbers, everything]


def test_numbers_of_a_reply_are_those_of_the_results() -> None:
    rule = Numbers(["3*4", "12"])

    def state(text: str) -> tuple[bool, bool]:
        place = Place().after(text, FORM)
        return rule.holds(place), rule.ends(place)

    assert state("It is 12") == state("3 and 4") == (True, True) and state("It is 1") == (True, False)
    assert state("It is 121") == state("It is 1.") == (False, False)
    assert state(FORM.render(Call("python", {"code": "99"}))) == (True, True)


def test_the_sign_that_opens_a_call_ends_a_number() -> None:
    rule = Numbers(["12"])
    assert not rule.holds(Place().after("1<tool_call>", FORM)) and rule.holds(Place().after("12<tool_call>", FORM))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Pairs of bytes too, also within a sign."""
    return train_tokenizer(['{"name": "find", "arguments": {"query": "héé 12"}}'] * 9, 280)


def test_every_way_of_writing_it_is_judged_alike(tokenizer: Any) -> None:
    """By single bytes and by longer tokens: fits as long as the text could become an allowed one."""
    rule = Copied(FORM, TOOLS, ["find héé 12 now"], "strings")
    for query, good in (("héé 12", True), ("héé 1", False), ("hé", False), ("héé now", False), ("hée", False)):
        text = FORM.render(Call("find", {"query": query}))
        for made in (tokenizer, train_tokenizer(["a"], 260)):
            ids = made(text, add_special_tokens=False)["input_ids"]
            grounded = Grounded(made, FORM, {0: (rule,)})
            assert all(grounded.fits(0, ids[:place], ids[place]) for place in range(len(ids))) == good
            assert grounded.fits(1, [], ids[0])


def test_places_are_the_same_however_they_are_found(tokenizer: Any) -> None:
    """Whatever is asked in whatever order, as beams do, the answers are those of a fresh constraint."""
    torch.manual_seed(0)
    rule = Copied(FORM, TOOLS, ["héé 12"], "all")
    ids = tokenizer(FORM.render(Call("find", {"query": "héé 12"})), add_special_tokens=False)["input_ids"]
    kept = Grounded(tokenizer, FORM, {0: (rule,)})
    for _ in range(200):
        place, token = int(torch.randint(len(ids), ())), int(torch.randint(4, 280, ()))
        fresh = Grounded(tokenizer, FORM, {0: (rule,)})
        assert kept.fits(0, ids[:place], token) == fresh.fits(0, ids[:place], token)


ASKED = [[{"role": "user", "content": 'find "heap"'}], [{"role": "user", "content": "3*4"}]]


def wrong(prompt: str) -> Any:
    """Wants another query and another sum than was asked for, and a number that it has not read."""
    if "tool_response" in prompt:
        return ["It is 13.", "It is 12."]
    name, argument, values = (
        ("find", "query", ("hear", "heap")) if "heap" in prompt else ("python", "code", ("3*5", "3*4"))
    )
    return [FORM.render(Call(name, {argument: value})) for value in values]


@pytest.mark.parametrize(
    ("copied", "arguments"),
    [
        ("none", ["hear", "3*5"]),
        ("strings", ["heap", "3*4"]),
        ("numbers", ["hear", "3*4"]),
        ("all", ["heap", "3*4"]),
    ],
)
def test_a_model_that_wants_something_else_copies(act: Callable[..., Any], copied: str, arguments: list[str]) -> None:
    turns = act(wrong, TOOLS, calling={"copied": copied}).take_turns(ASKED, ToolContext())
    assert [next(iter(turn.calls[0].arguments.values())) for turn in turns] == arguments


@pytest.mark.parametrize(("reply", "text"), [("free", "It is 13."), ("numbers", "It is 12."), ("result", "12")])
def test_a_reply_keeps_to_the_results(act: Callable[..., Any], reply: str, text: str) -> None:
    acting = act(wrong, TOOLS, calling={"reply": reply})
    assert {turn.text for turn in acting.take_turns(ASKED, ToolContext())} == {text}
    assert (acting.writer().rounds == 1) == (reply == "result")


def test_a_failure_is_no_result_to_give(act: Callable[..., Any]) -> None:
    def fail(*_: Any) -> str:
        raise ToolError("no")

    script: Callable[[str], Any] = lambda p: "Sorry." if "error" in p else FORM.render(Call("find", {"query": "x"}))  # noqa: E731
    (turn,) = act(script, [tool("find", "query", fail)], calling={"reply": "result"}).take_turns(
        [[{"role": "user", "content": "x"}]], ToolContext()
    )
    assert turn.text == "Sorry." and turn.calls[0].verdict == "failed"


def test_what_was_said_before_may_be_copied_and_what_is_in_other_conversations_may_not(act: Callable[..., Any]) -> None:
    def script(prompt: str) -> Any:
        return [FORM.render(Call("find", {"query": value})) for value in ("blue", "green")]

    asked = [
        [
            {"role": "user", "content": "blue"},
            {"role": "assistant", "content": "green"},
            {"role": "user", "content": "?"},
        ],
        [{"role": "user", "content": "green"}],
    ]
    turns = act(script, TOOLS, calling={"copied": "strings", "reply": "result"}).take_turns(asked, ToolContext())
    assert [turn.calls[0].arguments["query"] for turn in turns] == ["blue", "green"]
