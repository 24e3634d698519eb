"""Tool calls: the format of several chat templates, round trips of any arguments, and text that is no call."""

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.agent.calls import DEEPEST, Call, CallFormat, Said, check_call
from phases.agent.template import encode_chat, render, with_tools
from phases.agent.tool import Tool
from phases.data.tokenizer import CHAT_TEMPLATE, train_tokenizer
from phases.decoding import encode
from phases.errors import CheckpointError

FUNCTION = "{{ call['function']['name'] }}%s{{ call['function']['arguments'] | tojson }}"
EACH = "{% for call in message['tool_calls'] or [] %}"
HERMES = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    + EACH
    + '{{ \'\n<tool_call>\n{"name": "\' }}'
    + FUNCTION % '", "arguments": '
    + "{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] }}"
    + EACH
    + '{{ \'{"name": "\' }}'
    + FUNCTION % '", "parameters": '
    + "{{ '}' }}{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
INSTRUCT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ message['content'] }}" + EACH + "{{ CALL }}{% endfor %}{{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = INSTRUCT.replace(
    "{{ CALL }}", '{{ \'[TOOL_CALLS][{"name": "\' }}' + FUNCTION % '", "arguments": ' + "{{ '}]' }}"
)
MISTRAL_NEW = INSTRUCT.replace("{{ CALL }}", "{{ '[TOOL_CALLS]' }}" + FUNCTION % "[ARGS]")
TEMPLATES = {"ours": "", "hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "mistral-new": MISTRAL_NEW}
EXPECTED = {
    "ours": CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>"),
    "hermes": CallFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"),
    "llama": CallFormat('{"name": "', '", "parameters": ', "}"),
    "mistral": CallFormat('[TOOL_CALLS][{"name": "', '", "arguments": ', "}]"),
    "mistral-new": CallFormat("[TOOL_CALLS]", "[ARGS]", ""),
}
FORM = EXPECTED["ours"]
any_format = pytest.mark.parametrize("name", TEMPLATES)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
CALLS = st.builds(Call, st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True), st.dictionaries(st.text(), VALUES))

PARAMETERS = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
    "required": ["text"],
}
ECHO: Any = {"type": "function", "function": {"name": "echo", "description": "again", "parameters": PARAMETERS}}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "description": "the time"}}
TOOLS = tuple(Tool(one["function"]["name"], one, lambda _, __: "", "test") for one in (ECHO, CLOCK))
ASKED = {"role": "user", "content": "x"}


def byte_tokenizer() -> Any:
    """Bytes and the four special tokens of the data's tokenizer; no merges."""
    return train_tokenizer(["a"], 260)


@cache
def tokenizer_with(name: str) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATES[name] or None
    return with_tools(tokenizer)


def called(arguments: Any) -> dict[str, Any]:
    function = {"name": "echo", "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


@any_format
def test_the_format_is_read_off_the_template(name: str) -> None:
    assert CallFormat.of(tokenizer_with(name)) == EXPECTED[name]


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, "{{ messages }}", "no messages"])
def test_a_template_without_calls_is_refused_and_replaced_by_ours(template: str | None) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    if template != "{{ messages }}":
        with pytest.raises(CheckpointError, match="renders no tool calls"):
            CallFormat.of(tokenizer)
    assert CallFormat.of(with_tools(tokenizer)) == FORM


@any_format
@settings(deadline=None, max_examples=20)
@given(call=CALLS)
def test_a_call_is_parsed_as_it_was_rendered(name: str, call: Call) -> None:
    assert EXPECTED[name].parse(EXPECTED[name].render(call)) == Said("", (call,))


@any_format
@settings(deadline=None, max_examples=10)
@given(call=CALLS)
def test_a_call_is_rendered_as_the_template_does(name: str, call: Call) -> None:
    tokenizer = tokenizer_with(name)
    before = tokenizer.apply_chat_template([ASKED], tokenize=False, add_generation_prompt=True)
    after = tokenizer.apply_chat_template([ASKED, Said("", (call,)).message()], tokenize=False)
    assert after[len(before) :].lstrip().startswith(EXPECTED[name].render(call))


@any_format
@settings(deadline=None, max_examples=12)
@given(calls=st.lists(CALLS, max_size=3))
def test_several_calls_are_parsed_with_what_is_said_beside_them(name: str, calls: list[Call]) -> None:
    form = EXPECTED[name]
    text = "I look." + "".join(f"\n{form.render(call)}" for call in calls) + " Done."
    said = form.parse(text)
    assert said.calls == tuple(calls) and not said.problem
    assert said.content.split() == ["I", "look.", "Done."]


@any_format
@settings(deadline=None, max_examples=60)
@given(text=st.text())
def test_no_text_is_an_exception(name: str, text: str) -> None:
    form = EXPECTED[name]
    assert form.parse(text).problem == "" or form.marker in text
    # What st.text() makes after a marker is never a call, so it must be a problem, in one line.
    said = form.parse(form.marker + text)
    assert said.problem and not said.calls
    assert form.parse(form.opening + "echo" + form.middle + text).problem


@any_format
@settings(deadline=None, max_examples=20)
@given(call=CALLS, data=st.data())
def test_a_call_that_is_cut_off_is_a_problem(name: str, call: Call, data: st.DataObject) -> None:
    form = EXPECTED[name]
    text = form.render(call)
    end = data.draw(st.integers(text.index(form.marker) + len(form.marker), len(text) - 1))
    assert form.parse(text[:end]).problem
    assert form.parse(text[:end]).calls == ()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("NaN", "this is no call"),
        ('{"n": NaN}', "not JSON"),
        ('{"n": 1e999}', "not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "not JSON"),
        ('{"t": "\\ud83d"}', "not JSON"),
        ('{"a": ' + "[" * 100_000, "not JSON"),
        ('{"a": ' + "[" * DEEPEST + "]" * DEEPEST + "}", "nested too deeply"),
        ('{"a": 1]', "not JSON"),
        ('{"a": 1},', "not closed"),
    ],
)
def test_what_is_wrong_with_arguments_is_said(arguments: str, problem: str) -> None:
    said = FORM.parse(f'Well.<tool_call>{{"name": "echo", "arguments": {arguments}}}</tool_call>')
    assert problem in said.problem and "\n" not in said.problem


def test_arguments_may_be_nested_as_deep_as_is_allowed() -> None:
    text = '{"a": ' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}"
    assert FORM.parse(f'<tool_call>{{"name": "echo", "arguments": {text}}}</tool_call>').calls


def test_a_marker_within_arguments_is_no_call_of_its_own() -> None:
    call = Call("echo", {"text": FORM.render(Call("echo", {"text": "<tool_call>"}))})
    assert FORM.parse(FORM.render(call)).calls == (call,)


def test_calls_before_a_malformed_one_are_kept_and_the_text_stays_whole() -> None:
    call = Call("echo", {"text": "a"})
    text = FORM.render(call) + "<tool_call>{"
    assert FORM.parse(text) == Said(text, (call,), FORM.parse("<tool_call>{").problem)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (Call("echo", {"text": "a"}), ""),
        (Call("echo", {"text": "a", "times": 2}), ""),
        (Call("clock", {}), ""),
        (Call("sing", {}), "there is no tool sing; there are: echo, clock"),
        (Call("echo", {}), "echo: 'text' is a required property"),
        (Call("echo", {"text": 1}), "echo: 1 is not of type 'string'"),
        (Call("echo", {"text": "a", "times": True}), "echo: True is not of type 'integer'"),
        (Call("echo", {"text": "a", "pitch": 1}), "echo: Additional properties are not allowed"),
        (Call("clock", {"zone": "x"}), "clock: Additional properties are not allowed"),
    ],
)
def test_a_call_is_checked_against_the_schema(call: Call, problem: str) -> None:
    found = check_call(call, TOOLS)
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_a_call_without_any_tools_says_so() -> None:
    assert check_call(Call("echo", {}), ()) == "there is no tool echo; there are: none"


@pytest.mark.parametrize("broken", [{"$ref": "#/nowhere"}, {"$ref": "http://localhost:9/x.json"}, {"pattern": "("}])
def test_a_schema_that_cannot_be_used_is_a_problem_and_fetches_nothing(broken: dict[str, str]) -> None:
    parameters = {"type": "object", "properties": {"text": broken}}
    schema = {"type": "function", "function": {"name": "odd", "description": "", "parameters": parameters}}
    tool = Tool("odd", schema, lambda _, __: "", "test")
    assert check_call(Call("odd", {"text": "a"}), [tool]).startswith("odd: its schema cannot be used")


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text()}), min_size=1
)


@settings(deadline=None, max_examples=30)
@given(messages=MESSAGES, reply=st.booleans())
def test_without_tools_our_template_renders_as_the_data_does(messages: list[dict[str, str]], reply: bool) -> None:
    ours, data = tokenizer_with("ours"), byte_tokenizer()
    data.chat_template = CHAT_TEMPLATE
    expected = data.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
    assert render(ours, messages, reply=reply) == expected


def test_tools_calls_and_results_are_rendered() -> None:
    messages = [ASKED, called({"text": "é"}), {"role": "tool", "name": "echo", "content": "é"}]
    assert render(tokenizer_with("ours"), messages, TOOLS, "You are Forge.") == (
        "<|system|>You are Forge. Tools: echo(text, times); clock().<|user|>x"
        '<|assistant|><tool_call>{"name": "echo", "arguments": {"text": "é"}}</tool_call><|endoftext|>'
        "<|user|><tool_response>é</tool_response><|assistant|>"
    )


def test_arguments_may_be_given_as_json_text() -> None:
    arguments = {"text": 'a "quote"', "times": 2}
    tokenizer = tokenizer_with("ours")
    assert render(tokenizer, [ASKED, called(json.dumps(arguments))]) == render(tokenizer, [ASKED, called(arguments)])


def test_the_first_system_message_takes_the_tools_and_later_ones_stay() -> None:
    messages = [{"role": "system", "content": "First."}, ASKED, {"role": "system", "content": "Later."}]
    text = render(tokenizer_with("ours"), messages, TOOLS[1:], reply=False)
    assert text == "<|system|>First. Tools: clock().<|user|>x<|system|>Later."
    assert render(tokenizer_with("ours"), [ASKED], TOOLS[1:], reply=False) == "<|system|>Tools: clock().<|user|>x"


def chat() -> list[dict[str, Any]]:
    answer = {"role": "assistant", "content": "It says é 漢."}
    return [ASKED, called({"text": "é"}), {"role": "tool", "name": "echo", "content": "é"}, answer, ASKED]


@pytest.mark.parametrize("trained", [False, True])
def test_only_what_the_assistant_writes_is_marked(trained: bool) -> None:
    texts = ["the call of a tool and what it says"] * 3
    tokenizer = with_tools(train_tokenizer(texts, 270)) if trained else tokenizer_with("ours")
    ids, ours = encode_chat(tokenizer, chat(), TOOLS, "You are Forge.")
    spans: list[list[int]] = [[]]
    for token, mine in zip(ids, ours, strict=True):
        if mine:
            spans[-1].append(token)
        elif spans[-1]:
            spans.append([])
    call = FORM.render(Call("echo", {"text": "é"}))
    assert [tokenizer.decode(span) for span in spans] == [f"{call}<|endoftext|>", "It says é 漢.<|endoftext|>"]
    assert ids == encode(tokenizer, render(tokenizer, chat()[:-1], TOOLS, "You are Forge.", reply=False))


def test_a_template_that_renders_earlier_turns_anew_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}" + HERMES
    with pytest.raises(ValueError, match="renders earlier turns anew"):
        encode_chat(tokenizer, chat())
