"""An agent obeys its design: the default is the plain writer, and every setting of a single turn does something."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from phases.adas.vectors import ExpertIndex, weights_digest, write_index, write_vectors
from phases.agent.acting import Acting
from phases.agent.calls import Call, CallFormat, Message
from phases.agent.conversation import CallRecord, TurnLimits
from phases.agent.design import Design
from phases.agent.library import Example, Library
from phases.agent.minds import Minds
from phases.agent.playing import opening
from phases.agent.settings import AgentSettings
from phases.agent.template import CHAT_TEMPLATE
from phases.agent.tool import Tool, ToolContext, ToolError, built_in
from phases.agent.writing import BatchWriter
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.quiet_star.decoder import ThinkingDecoder
from phases.quiet_star.delimiters import add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, thinking_files
from phases.quiet_star.thinker import Thinker

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")


def tool(run: Callable[[Any, ToolContext], str], name: str = "echo") -> Tool:
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    function = {"name": name, "description": "", "parameters": parameters}
    return Tool(name, {"type": "function", "function": function}, run, "built-in")


ECHO = tool(lambda arguments, context: f"{context.session}: {arguments['text']}")


def user(*texts: str) -> list[list[Message]]:
    """Conversations of one question each."""
    return [[{"role": "user", "content": text}] for text in texts]


def call(text: str) -> str:
    return FORM.render(Call("echo", {"text": text}))


def results(prompt: str) -> list[str]:
    return [part.split("</tool_response>")[0] for part in prompt.split("<tool_response>")[1:]]


@pytest.fixture(scope="module")
def random_agent(make_model: Callable[..., Any]) -> SimpleNamespace:
    """Weights that nobody has trained: whatever they say, both ways have to say it."""
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.chat_template = CHAT_TEMPLATE
    model = make_model("llama", vocab_size=260, max_position_embeddings=400)
    return SimpleNamespace(tokenizer=tokenizer, experts=None, model=lambda *_: model)


SHORT = AgentSettings(tools=(), limits=TurnLimits(new_tokens=24), context_tokens=120)
LONG: Sequence[Sequence[Message]] = [
    *user("a", "bb" * 40),
    [{"role": ("user", "assistant")[i % 2], "content": f"Line {i} says {i * 7}."} for i in range(11)],
]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_the_default_design_is_the_plain_writer(random_agent: Any, temperature: float) -> None:
    """The same texts, and as many passes over as many tokens."""
    read: list[int] = []
    body = random_agent.model().base_model
    hook = body.register_forward_pre_hook(lambda *a: read.append(a[2]["input_ids"].numel()), with_kwargs=True)
    acting = Acting(random_agent, [ECHO], SHORT, temperature=temperature, seed=[3])
    ours = [acting.take_turns(LONG, ToolContext()) for _ in range(2)]
    counted = list(read)
    read.clear()
    options: dict[str, Any] = {"temperature": temperature, "seed": [3], "budget": 120}
    writer = BatchWriter(random_agent.model(), random_agent.tokenizer, [ECHO], SHORT.limits, **options)
    assert ours == [writer.take_turns(LONG, ToolContext()) for _ in range(2)] and counted == read
    assert (ours[0] == ours[1]) == (temperature == 0)
    hook.remove()


def test_a_temperature_of_zero_leaves_it_to_the_design(random_agent: Any) -> None:
    hot = SHORT.model_copy(update={"design": Design.model_validate({"decoding": {"temperature": 2.0}})})
    given, designed = (
        Acting(random_agent, [ECHO], settings, temperature=temperature).take_turns(LONG, ToolContext())
        for settings, temperature in ((SHORT, 2.0), (hot, 0.0))
    )
    assert given == designed != Acting(random_agent, [ECHO], SHORT).take_turns(LONG, ToolContext())


BUSY = {
    "voting": {"samples": 3},
    "prompting": {"decompose": True, "reflect": "always"},
    "calling": {"retries": 1, "copied": "all", "reply": "numbers"},
}


def counts(prompt: str) -> Any:
    """Calls as often as the first sign says."""
    wanted, done = int(prompt.removeprefix("<|user|>")[0]), len(results(prompt))
    return f"after {done}" if done >= wanted else call(f"{done}")


@pytest.mark.parametrize("design", [{}, BUSY])
def test_conversations_go_on_side_by_side_with_contexts_of_their_own(act: Callable[..., Any], design: Any) -> None:
    asked = user("0", "2: 1, 0. So.", "1: 0")
    contexts = [ToolContext(session=f"s{number}") for number in range(3)]
    together = act(counts, [ECHO], **design).take_turns(asked, contexts.__getitem__)
    alone = [act(counts, [ECHO], **design).take_turns([a], c)[0] for a, c in zip(asked, contexts, strict=True)]
    assert together == alone
    assert [[record.result for record in turn.calls] for turn in together] == [[], ["s1: 0", "s1: 1"], ["s2: 0"]]
    assert asked == user("0", "2: 1, 0. So.", "1: 0")


def picky(arguments: Any, _: ToolContext) -> str:
    if arguments["text"] != "good":
        raise ToolError("bad")
    return "fine"


def tries(prompt: str) -> Any:
    """Greedily calls badly; one draw of three calls well. Says what it has read."""
    if read := results(prompt):
        return " ".join(read)
    return [(call("bad"), 20.0), (call("good"), 19.6)]


def test_a_call_that_failed_is_drawn_anew_and_forgotten(act: Callable[..., Any]) -> None:
    seen: list[CallRecord] = []
    (turn,) = act(tries, [tool(picky)]).take_turns(user("?"), ToolContext())
    assert turn.text == "error: bad"
    (turn,) = act(tries, [tool(picky)], calling={"retries": 9}).take_turns(user("?"), ToolContext(), seen.append)
    assert turn.text == "fine" and seen == turn.calls == [CallRecord("done", "echo", {"text": "good"}, "fine")]
    assert [message["role"] for message in turn.messages] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize("text", [call("bad"), "<tool_call>", FORM.render(Call("sing", {"text": "x"}))])
def test_it_is_tried_so_often_and_then_stands(act: Callable[..., Any], text: str) -> None:
    acting = act(lambda p: "Well." if results(p) else text, [tool(picky)], calling={"retries": 3, "constrained": False})
    (turn,) = acting.take_turns(user("?"), ToolContext())
    assert len(turn.calls) == 1 and turn.text == "Well." and acting.writer().rounds == 1 + 3 + 1


def test_every_call_has_tries_of_its_own(act: Callable[..., Any]) -> None:
    """Both calls fail at first; with tries for one only, the second would fail for good."""
    failed: list[str] = []

    def run(arguments: Any, _: ToolContext) -> str:
        failed.append(arguments["text"])
        if failed.count(arguments["text"]) == 1:
            raise ToolError("bad")
        return "fine"

    script: Callable[[str], Any] = lambda p: call(str(n)) if (n := len(results(p))) < 2 else "Done."  # noqa: E731
    (turn,) = act(script, [tool(run)], calling={"retries": 1}).take_turns(user("?"), ToolContext())
    assert [record.verdict for record in turn.calls] == ["done", "done"] and failed == ["0", "0", "1", "1"]


def always(prompt: str) -> Any:
    """Calls as long as it may, and would then say something."""
    return [call(str(len(results(prompt)))), "Well."]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_calls_beyond_those_of_the_design_are_not_begun(act: Callable[..., Any], calls: int) -> None:
    (turn,) = act(always, [ECHO], calling={"calls": calls}).take_turns(user("?"), ToolContext())
    assert len(turn.calls) == calls and (turn.text, turn.ended) == ("Well.", "said")


def test_limits_of_the_agent_stop_as_they_did(act: Callable[..., Any]) -> None:
    (turn,) = act(always, [ECHO]).take_turns(user("?"), ToolContext())
    assert (turn.text, turn.ended) == ("(stopped after 4 calls)", "too many calls")


def test_so_many_characters_of_a_result_are_read(act: Callable[..., Any]) -> None:
    flood, script = tool(lambda *_: "word " * 30), lambda p: "".join(results(p)) or call("x")
    (turn,) = act(script, [flood], calling={"result_chars": 20}).take_turns(user("?"), ToolContext())
    assert turn.calls[0].result == turn.text == "word word word word … (130 characters more)"


def test_free_calls_may_be_malformed(act: Callable[..., Any]) -> None:
    def script(prompt: str) -> Any:
        return "Well." if results(prompt) else ["<tool_call>echo", call("x")]

    verdicts = [
        act(script, [ECHO], calling={"constrained": constrained})
        .take_turns(user("?"), ToolContext())[0]
        .calls[0]
        .verdict
        for constrained in (None, True, False)
    ]
    assert verdicts == ["done", "done", "malformed"]


TALK: list[Message] = [
    {"role": ("user", "assistant")[i % 2], "content": f"The {i}th line of it says {i * 7}."} for i in range(9)
]


def prompt_of(act: Callable[..., Any], **design: Any) -> str:
    read: list[str] = []
    act(lambda p: read.append(p) or "Yes.", context_tokens=500, **design).take_turns([TALK], ToolContext())
    return read[0]


def test_what_is_read_of_a_conversation_and_of_its_beginning(act: Callable[..., Any]) -> None:
    assert "Earlier: " not in (whole := prompt_of(act)) and "The 0th" in whole
    short = prompt_of(act, remembering={"context_tokens": 250})
    assert "Earlier: " in short and "The 8th" in short and len(short) < len(whole)
    cut = prompt_of(act, remembering={"context_tokens": 250, "summary": False})
    assert "Earlier: " not in cut and "The 8th" in cut and "The 0th" not in cut


def test_decoding_is_that_of_the_design(act: Callable[..., Any]) -> None:
    acting = act(lambda _: "aaaaaa", decoding={"no_repeat_ngram": 2}, limits=TurnLimits(new_tokens=6))
    assert acting.take_turns(user("?"), ToolContext())[0].text[:3] != "aaa"


def test_the_opening_of_a_call_ends_where_its_own_tokens_do() -> None:
    """With pairs of bytes, the token after the name begins within the forced text or right behind it."""
    text = FORM.render(Call("recall", {"key": "value"}))
    for made in (train_tokenizer(["a"], 260), train_tokenizer([text] * 9, 290)):
        whole = made(text, add_special_tokens=False)["input_ids"]
        tokens = list(opening(made, FORM, "recall"))
        assert tokens == whole[: len(tokens)] and len(tokens) > 1
        assert (FORM.opening + "recall").startswith(made.decode(tokens))


def test_all_settings_together_raise_nothing(random_agent: Any) -> None:
    design = {
        **BUSY,
        "decoding": {"temperature": 1.0, "top_p": 0.9, "beams": 2},
        "voting": {"samples": 3, "branch": True, "adaptive": True, "select": "executed"},
        "calling": {"retries": 1, "copied": "all", "reply": "numbers", "fallback": True, "route": "force"},
        "remembering": {"recall_first": 2, "keep": True, "summary": False},
        "retrieving": {"first": 2, "query": "quoted"},
        "mixture": {"dispatch": "few_shot"},
    }
    settings = SHORT.model_copy(update={"design": Design.model_validate(design)})
    tools = [ECHO, built_in("recall"), built_in("retrieve")]
    first, second = (Acting(random_agent, tools, settings).take_turns(LONG, ToolContext()) for _ in range(2))
    assert first == second and all(turn.messages[-1]["role"] == "assistant" for turn in first)


@pytest.fixture
def thinking(make_model: Callable[..., Any], tmp_path: Path) -> Any:
    model, tokenizer = make_model("llama", vocab_size=260), train_tokenizer(["a"], 260)
    start, end = add_delimiters(model, tokenizer, "a")
    thinker = Thinker(model, MixingHead(36), start, end)
    files = thinking_files(thinker, ThinkingFile(start=start, end=end, tokens=2))
    return save_checkpoint(tmp_path / "thinking", model, tokenizer, Manifest("quiet_star"), *files)


def test_minds_think_where_the_design_does(thinking: Any) -> None:
    minds, ids = Minds(thinking), torch.tensor([[5, 6, 7]])
    thoughtful = Design.model_validate({"thoughts": {"tokens": 2, "samples": 3, "pause": True}})
    model = minds.model(thoughtful)
    assert minds.thinks and isinstance(model.base_model, ThinkingDecoder)
    assert (model.base_model.thinking.tokens, model.base_model.thinking.samples) == (2, 3)
    plain = minds.model(Design())
    with torch.no_grad():
        assert plain(ids).logits.equal(thinking.model()(ids).logits)  # to the bit, though it could think
        assert not model(ids).logits.allclose(plain(ids).logits)


def test_minds_without_thoughts_or_experts_have_none(make_model: Callable[..., Any], tmp_path: Path) -> None:
    model, tokenizer = make_model("llama", vocab_size=260), train_tokenizer(["a"], 260)
    minds = Minds(save_checkpoint(tmp_path / "plain", model, tokenizer, Manifest("baking")))
    design = Design.model_validate({"thoughts": {"tokens": 2}, "mixture": {"recipe": "uniform"}})
    assert not minds.thinks and minds.experts is None and minds.model(design) is minds.model(Design(), "python")
    acting = Acting(minds, [], SHORT.model_copy(update={"design": design}))
    assert len(acting.take_turns(user("a"), ToolContext())) == 1 and math.isfinite(acting.writer().rounds)


def solved(domain: str, text: str) -> Example:
    return Example(domain=domain, messages=({"role": "user", "content": text}, {"role": "assistant", "content": "z"}))


@pytest.mark.parametrize("dispatch", ["keywords", "classifier", "few_shot"])
def test_real_experts_are_dispatched(make_model: Callable[..., Any], tmp_path: Path, dispatch: str) -> None:
    """Each conversation is written by the very weights of its expert, and by the base where there is none for it."""
    model, tokenizer = make_model("llama", vocab_size=260), train_tokenizer(["a"], 260)
    base = save_checkpoint(tmp_path / "base", model, tokenizer, Manifest("baking"))
    linear = {name: model.get_parameter(name).detach() for name in ternary_names(model)}
    torch.manual_seed(0)
    added = {name: {m: torch.randn_like(w) for m, w in linear.items()} for name in ("sums", "talk")}
    write_vectors(tmp_path, "task", added)
    write_index(tmp_path, ExpertIndex(names=("sums", "talk"), kinds=("task",), base=weights_digest(linear)))
    library = Library(examples=(solved("sums", "compute 3*4"), solved("talk", "hello there"), solved("z", "x y")))
    design = Design.model_validate({"mixture": {"kind": "task", "dispatch": dispatch}})
    minds = Minds(base, tmp_path)
    acting = Acting(minds, [], SHORT.model_copy(update={"design": design}), library=library)
    asked = user("hello you", "compute 1+1", "x y")
    texts = [turn.text for turn in acting.take_turns(asked, ToolContext())]
    plain = {
        name: BatchWriter(minds.model(design, name), tokenizer, [], SHORT.limits) for name in (None, "sums", "talk")
    }
    alone = {name: [one.text.strip() for one in write(asked)] for name, write in plain.items()}
    assert len({tuple(one) for one in alone.values()}) == 3
    if dispatch == "few_shot":
        assert all(text in (alone["sums"][i], alone["talk"][i]) for i, text in enumerate(texts))
    else:
        assert texts == [alone["talk"][0], alone["sums"][1], alone[None][2]]


def test_an_agent_that_knows_of_no_design_has_the_default_one() -> None:
    written = AgentSettings().model_dump(mode="json")
    del written["design"]
    assert AgentSettings.model_validate(written).design == Design()
