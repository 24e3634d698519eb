"""Constrained decoding: whatever the logits, a call that is finished is a valid one."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jsonschema
import pytest
import torch

from phases.agent.calls import Call, CallFormat
from phases.agent.constraint import CallConstraint, Kept
from phases.agent.grammar import CallGrammar, NoCalls, value_pattern
from phases.agent.template import CHAT_TEMPLATE
from phases.agent.tool import BUILT_IN, Tool, built_in
from phases.data.tokenizer import train_tokenizer
from phases.decoding import Choice, Sampler, decode, encode, likeliest
from phases.errors import ConfigError

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
STRING = {"type": "string"}
KINDS: dict[str, dict[str, Any]] = {
    "string": STRING,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "enum": {"enum": ["red", 'a "b"', 7, None, [True]]},
    "array": {"type": "array", "items": {"type": "boolean"}},
    "object": {"type": "object", "properties": {"a.b": {"type": "boolean"}, 'say "x"': {"enum": [1, 2]}}},
}
VALUES = {
    "string": ["", "a", 'q"\\/', "\n\té漢🙂\u2028", "<tool_call>", "{}"],
    "integer": [0, -1, 1234567890, -(10**99)],
    "number": [0, -1.5, 1e-7, 2.5e30, 12],
    "boolean": [True, False],
    "null": [None],
    "enum": KINDS["enum"]["enum"],
    "array": [[], [True], [True, False, True]],
    "object": [{}, {"a.b": True}, {'say "x"': 2}, {"a.b": False, 'say "x"': 1}],
}


def tool(name: str, properties: dict[str, Any], required: Sequence[str] = ()) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    schema = {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}
    return Tool(name, schema, lambda _, __: "", "test")


OPTIONAL = tool("pick", {"a": {"type": "boolean"}, "b": {"enum": ["x"]}, "c": {"type": "null"}}, ["b"])
TOOLS = [*(tool(f"{kind}_tool", {"value": schema}, ["value"]) for kind, schema in KINDS.items()), OPTIONAL]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = train_tokenizer(["a"], 260)  # bytes, and four special tokens
    made.chat_template = CHAT_TEMPLATE
    return made


class Eager:
    """Begins with a text, then draws, leaning towards what ends a string, a list and a call."""

    def __init__(self, tokenizer: Any, text: str, prompts: int, seed: int, lean: float = 5.0) -> None:
        self.start, self.sampler = encode(tokenizer, text), Sampler([1.0] * prompts, [seed])
        self.lean = torch.zeros(len(tokenizer))
        self.lean[encode(tokenizer, '"]}<')] = lean
        self.lean[tokenizer.all_special_ids] = 2.0  # these must never cut a call off
        self.noise = torch.Generator().manual_seed(seed)
        self.written = [0] * prompts

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        # In place: it also holds where the chosen token does not fit and another is looked for.
        logits_BV += self.lean + torch.randn(logits_BV.shape, generator=self.noise)
        chosen_B = self.sampler(logits_BV, index)
        for row, prompt in enumerate(index):
            if self.written[prompt] < len(self.start):
                chosen_B[row] = self.start[self.written[prompt]]
            self.written[prompt] += 1
        return chosen_B


def kept(tokenizer: Any, grammar: CallGrammar | NoCalls, choose: Choice = likeliest, prompts: int = 1) -> Kept:
    return Kept(choose, CallConstraint(tokenizer, grammar), prompts)


def written(tokenizer: Any, model: Any, tools: Sequence[Tool], choose: Choice, prompts: int, tokens: int) -> list[str]:
    constrained = kept(tokenizer, CallGrammar(FORM, tools), choose, prompts)
    ids = decode(model, [[5 + i] for i in range(prompts)], [tokens] * prompts, set(), constrained)
    return [str(tokenizer.decode(one, skip_special_tokens=True)) for one in ids]


def forced(tokenizer: Any, grammar: CallGrammar | NoCalls, text: str) -> str:
    """What becomes of a text when its tokens are the ones that are chosen."""
    ids = encode(tokenizer, text)
    constrained = kept(tokenizer, grammar)
    for token in ids:
        constrained(torch.nn.functional.one_hot(torch.tensor([token]), len(tokenizer)).float(), [0])
    return str(tokenizer.decode(constrained.written[0]))


@pytest.mark.parametrize("one", TOOLS, ids=lambda one: one.name)
def test_every_finished_call_of_random_logits_is_valid(
    one: Tool, tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model("llama", vocab_size=260, max_position_embeddings=512)
    finished = 0
    for text in written(tokenizer, model, [one], Eager(tokenizer, FORM.marker, 3, seed=1), 3, 140):
        begun = text[len(FORM.marker) :]
        assert text.startswith(FORM.marker) and CallGrammar(FORM, [one]).pattern.match(begun, partial=True)
        if FORM.closing in begun:
            call = FORM.parse(text[: text.index(FORM.closing) + len(FORM.closing)]).calls[0]
            jsonschema.validate(call.arguments, {**one.parameters, "additionalProperties": False})
            finished += call.name == one.name
    assert finished >= 1


def test_random_logits_reach_several_tools_and_leave_optional_arguments_out(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    tools = [tool("ask", {"a": {"type": "boolean"}}), tool("bid", {"a": {"type": "boolean"}}), OPTIONAL]
    model = make_model("llama", vocab_size=260, max_position_embeddings=512)
    texts = written(tokenizer, model, tools, Eager(tokenizer, FORM.opening, 12, seed=2), 12, 110)
    calls = [call for text in texts for call in FORM.parse(text[: text.find(FORM.closing) + len(FORM.closing)]).calls]
    assert len({call.name for call in calls}) >= 2
    assert len({tuple(call.arguments) for call in calls}) >= 2


def test_text_outside_of_calls_is_as_free_as_without_a_grammar(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model("llama", vocab_size=260)
    prompts, limits = [[5], [6], [7]], [60] * 3
    free = decode(model, prompts, limits, {0}, Sampler([1.0] * 3, [0]))
    grammar = CallGrammar(FORM, TOOLS)
    assert decode(model, prompts, limits, {0}, kept(tokenizer, grammar, Sampler([1.0] * 3, [0]), 3)) == free


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in VALUES for value in VALUES[kind]])
def test_a_valid_call_is_left_as_it_is_with_the_text_around_it(tokenizer: Any, kind: str, value: Any) -> None:
    call = FORM.render(Call(f"{kind}_tool", {"value": value}))
    text = f"See é 漢: {call} and {call}done"
    assert forced(tokenizer, CallGrammar(FORM, TOOLS), text) == text


@pytest.mark.parametrize("arguments", [{"b": "x"}, {"a": True, "b": "x"}, {"b": "x", "c": None}])
def test_arguments_that_are_not_required_may_be_left_out(arguments: dict[str, Any]) -> None:
    grammar = CallGrammar(FORM, TOOLS)
    assert grammar.pattern.fullmatch(FORM.render(Call("pick", arguments))[len(FORM.marker) :])
    assert not grammar.pattern.fullmatch(FORM.render(Call("pick", {**arguments, "b": "y"}))[len(FORM.marker) :])
    assert not grammar.pattern.fullmatch(FORM.render(Call("pick", {"a": True}))[len(FORM.marker) :])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", '"\\ud83d"'),
        ("string", '"a\nb"'),
        ("integer", "1.0"),
        ("integer", "01"),
        ("number", "1e999"),
        ("number", "NaN"),
        ("number", "1" * 400),
        ("boolean", "True"),
        ("enum", '"blue"'),
        ("array", '["true"]'),
        ("array", "[true, ]"),
        ("object", '{"aXb": true}'),
    ],
)
def test_a_value_that_is_not_valid_is_no_match(kind: str, value: str) -> None:
    call = f'{kind}_tool{FORM.middle}{{"value": {value}}}{FORM.closing}'
    assert not CallGrammar(FORM, TOOLS).pattern.fullmatch(f'{{"name": "{call}')


def test_a_token_that_does_not_fit_gives_way_to_the_likeliest_that_does(tokenizer: Any) -> None:
    grammar = CallGrammar(FORM, [TOOLS[3]])
    constrained = kept(tokenizer, grammar)
    constrained.written[0] = encode(tokenizer, FORM.opening + TOOLS[3].name + FORM.middle + '{"value": ')
    logits_BV = torch.zeros(1, len(tokenizer))
    for weight, text in enumerate("tf9"):
        logits_BV[0, encode(tokenizer, text)] = 1.0 + weight
    logits_BV[0, tokenizer.eos_token_id] = 9.0
    assert constrained(logits_BV, [0]).tolist() == encode(tokenizer, "f")


def test_bytes_that_make_no_character_are_refused_outside_of_strings(tokenizer: Any) -> None:
    lead, rest = encode(tokenizer, "é")
    before = {place: FORM.opening + TOOLS[place].name + FORM.middle + '{"value": ' for place in (0, 1)}
    for place, expected in ((0, [True, True]), (1, [False, False])):
        constraint = CallConstraint(tokenizer, CallGrammar(FORM, [TOOLS[place]]))
        begun = encode(tokenizer, before[place] + ('"' if place == 0 else ""))
        assert [constraint.fits(0, begun, lead), constraint.fits(0, [*begun, lead], rest)] == expected


def test_a_name_of_several_bytes_is_written_byte_by_byte(tokenizer: Any) -> None:
    one = tool("paint", {"größe": {"enum": ["weiß", "漢"]}}, ["größe"])
    for value in ("weiß", "漢"):
        text = FORM.render(Call("paint", {"größe": value}))
        assert forced(tokenizer, CallGrammar(FORM, [one]), text) == text


def test_a_token_that_ends_the_marker_and_goes_on_is_judged() -> None:
    """A trained tokenizer has such tokens: punctuation merges with punctuation."""
    for text, fits in (("<tool_call>[", False), ("<tool_call>{", True)):
        tokenizer = train_tokenizer([text] * 50, 267)
        *begun, last = encode(tokenizer, text)
        assert tokenizer.decode([last]) == text[-2:]
        assert CallConstraint(tokenizer, CallGrammar(FORM, TOOLS)).fits(0, begun, last) == fits


def test_no_call_is_begun_where_none_may_be(tokenizer: Any) -> None:
    text = "a < b, <tool_cal> and "
    assert forced(tokenizer, NoCalls(FORM), text) == text
    assert FORM.marker not in forced(tokenizer, NoCalls(FORM), f"{text}<tool_call>{{")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array"},
        {"type": ["string", "null"]},
        {"$ref": "#/x"},
        {"anyOf": [STRING]},
        True,
    ],
)
def test_a_schema_that_cannot_be_constrained_is_one_line(schema: Any) -> None:
    with pytest.raises(ConfigError, match=r"^odd: .*; set constrained=false, or give its type$"):
        CallGrammar(FORM, [tool("odd", {"value": schema})])
    with pytest.raises(ConfigError, match="odd"):
        value_pattern({"type": "array", "items": schema}, "odd")


def test_many_optional_arguments_make_no_huge_pattern() -> None:
    one = tool("wide", {f"p{number:02}": {"type": "boolean"} for number in range(24)})
    grammar = CallGrammar(FORM, [one])
    assert len(grammar.pattern.pattern) < 20_000
    for left in ({}, {"p00": True, "p23": False}, {"p11": True}, {f"p{number:02}": True for number in range(24)}):
        assert grammar.pattern.fullmatch(FORM.render(Call("wide", left))[len(FORM.marker) :])
    assert not grammar.pattern.fullmatch(f'{{"name": "wide{FORM.middle}{json.dumps({"p11": 1})}{FORM.closing}')


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_tools_that_ship_can_be_constrained(name: str) -> None:
    CallGrammar(FORM, [built_in(name)])
