"""Which tool is due, which expert answers: against scikit-learn's naive Bayes, and with models that differ."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from phases.agent.calls import Call, CallFormat, Message, Said
from phases.agent.library import EMPTY, LIBRARY, Example, Library, Nearest, features, in_turn, read_library
from phases.agent.routing import Classifier, Dispatcher, NaiveBayes, reply_loss
from phases.agent.template import CHAT_TEMPLATE, encode_chat
from phases.agent.tool import ToolContext, built_in
from phases.data.tokenizer import train_tokenizer
from phases.errors import CheckpointError

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")


def solved(domain: str, *turns: tuple[str, str]) -> Example:
    """A conversation: what the user says, and the tool that is called, if any."""
    messages: list[Message] = []
    for said, tool in turns:
        messages.append({"role": "user", "content": said})
        if tool:
            messages += [Said("", (Call(tool, {"query": "x"}),)).message(), {"role": "tool", "content": "y"}]
        messages.append({"role": "assistant", "content": "z"})
    return Example(domain=domain, messages=tuple(messages))


LIBRARY_OF = Library(
    examples=(
        solved("sums", ("compute 3*4", "python")),
        solved("sums", ("what is 12+5?", "python")),
        solved("sums", ("work out 6-1", "python")),
        solved("facts", ("my boat is called Zumi", "remember"), ("hello", ""), ("what is my boat called?", "recall")),
        solved("facts", ("my dog is called Rex", "remember"), ("what is my dog called?", "recall")),
        solved("facts", ("what is my cow called?", "recall")),
        solved("talk", ("hello there", "")),
        solved("talk", ("do you like tea?", ""), ("tell me of rain", "")),
        solved("talk", ("are you fond of rain?", "")),
    )
)


def test_questions_are_told_by_words_numbers_quotes_and_signs() -> None:
    assert features("What is 37*28, and “the x”?") == ["what", "is", "0", "*", "0", "and", '"', "?"]


def test_naive_bayes_is_that_of_scikit_learn() -> None:
    labels = ["a", "b", "a", "c", "b", "b"]
    texts = ["x y z", "x x w", "y", "v w", "w", "z z y"]
    ours = NaiveBayes((label, text.split()) for label, text in zip(labels, texts, strict=True))
    vectors = CountVectorizer(token_pattern=r"\S+").fit(texts)
    theirs = MultinomialNB(alpha=1.0).fit(vectors.transform(texts), labels)
    asked = ["x", "y z", "w w v", "never seen", "x v", "z x w y"]
    assert [ours.best(text.split()) for text in asked] == theirs.predict(vectors.transform(asked)).tolist()
    expected = dict(zip(vectors.get_feature_names_out(), theirs.feature_log_prob_[0], strict=True))
    assert all(ours.log_chance("a", word) == pytest.approx(value) for word, value in expected.items())


def test_the_classifier_knows_what_was_asked_in_other_words() -> None:
    classifier = Classifier(LIBRARY_OF)
    asked = ["compute 7-2", "my cat is called Bo", "what is my cat called?", "hello friend"]
    assert [classifier.tool(text) for text in asked] == ["python", "remember", "recall", ""]
    assert [classifier.domain(text) for text in asked] == ["sums", "facts", "facts", "talk"]
    assert classifier.by_keywords("my 3") == "facts" and classifier.by_keywords("so be it") == ""


def test_small_talk_between_calls_says_nothing_of_the_domain() -> None:
    assert solved("facts", ("a", ""), ("b", "recall")).questions == ["b"] and solved("talk", ("a", "")).questions == [
        "a"
    ]


def test_without_a_library_nothing_is_known() -> None:
    assert Classifier(EMPTY).tool("x") == Classifier(EMPTY).domain("x") == Classifier(EMPTY).by_keywords("x") == ""


def test_a_library_is_read_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert read_library(tmp_path) == EMPTY
    (tmp_path / LIBRARY).write_text(LIBRARY_OF.model_dump_json())
    assert read_library(tmp_path) == LIBRARY_OF
    (tmp_path / LIBRARY).write_text(LIBRARY_OF.model_dump_json()[:-9])
    with pytest.raises(CheckpointError, match=r"library.json: truncated or altered"):
        read_library(tmp_path)


def test_examples_come_from_every_domain_in_turn() -> None:
    assert [one.domain for one in in_turn(LIBRARY_OF, 4)] == ["facts", "sums", "talk", "facts"]
    assert len(in_turn(LIBRARY_OF, 99)) == 9 and in_turn(EMPTY, 2) == []


def test_the_nearest_examples_are_those_of_bm25() -> None:
    """By hand, with k₁ = 1.2, b = .75 and idf = ln(1 + (N − n + ½)/(n + ½))."""
    texts = ["a b", "b c c d", "a a a e f g"]
    nearest = Nearest(Library(examples=tuple(solved("x", (text, "")) for text in texts)))

    def score(text: str) -> float:
        words, total = text.split(), 0.0
        for word in "ac":
            holders = sum(word in other.split() for other in texts)
            count = words.count(word)
            idf = math.log(1 + (3 - holders + 0.5) / (holders + 0.5))
            total += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(words) / 4))
        return total

    assert nearest.scores("a c") == pytest.approx([score(text) for text in texts])
    assert nearest.places("e", 2) == [2, 0] and nearest.to("c d", 1)[0].messages[0]["content"] == "b c c d"


def loss(expert: str, example: Example) -> float:
    return float(example.domain != expert)


@pytest.mark.parametrize("dispatch", ["keywords", "classifier", "few_shot"])
def test_every_dispatch_finds_the_expert(dispatch: Any) -> None:
    dispatcher = Dispatcher(dispatch, LIBRARY_OF, ("facts", "sums", "talk"), loss)
    asked = ["compute 8*9", "what is my cat called?", "do you like rain?"]
    assert dispatcher.experts_for(asked) == ["sums", "facts", "talk"]


def test_without_an_expert_for_it_the_mixture_answers() -> None:
    assert Dispatcher("classifier", LIBRARY_OF, ("facts",), loss).experts_for(["compute 8*9"]) == [None]
    assert Dispatcher("keywords", LIBRARY_OF, ("facts", "sums"), loss).experts_for(["so"]) == [None]
    assert Dispatcher("few_shot", EMPTY, ("facts",), loss).experts_for(["so"]) == [None]


def test_each_example_is_read_once_by_each_expert() -> None:
    read: list[tuple[str, Example]] = []

    def counted(expert: str, example: Example) -> float:
        read.append((expert, example))
        return loss(expert, example)

    dispatcher = Dispatcher("few_shot", LIBRARY_OF, ("facts", "sums"), counted)
    for _ in range(3):
        dispatcher.experts_for(["compute 8*9", "compute 7*1"])
    assert [expert for expert, _ in read] == ["facts"] * 4 + ["sums"] * 4  # one after the other, none twice
    assert len(read) == 2 * 4 == len({(expert, example.messages[0]["content"]) for expert, example in read})


def test_the_loss_is_that_of_transformers(make_model: Callable[..., Any]) -> None:
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.chat_template = CHAT_TEMPLATE
    model, example = make_model("llama", vocab_size=260), solved("x", ("hello", "recall"))
    tokens, ours = encode_chat(tokenizer, example.messages)
    tokens, ours = tokens[:128], ours[:128]  # the model's context
    labels = torch.tensor([[t if mine else -100 for t, mine in zip(tokens, ours, strict=True)]])
    expected = model(input_ids=torch.tensor([tokens]), labels=labels).loss.item()
    assert reply_loss(model, tokenizer, example) == pytest.approx(expected, rel=1e-5)


TOOLS = [built_in("recall"), built_in("retrieve")]


def unwilling(prompt: str) -> Any:
    """Never calls by itself, and once it does, asks for x."""
    if "tool_response" in prompt:
        return "Done."
    return ["Hello.", *(FORM.render(Call(tool, {"query": "x"})) for tool in ("retrieve", "recall"))]


def test_the_tool_that_is_due_is_called(act: Callable[..., Any]) -> None:
    asked: list[list[Message]] = [[{"role": "user", "content": text}] for text in ("what is my cat called?", "hello")]
    free = act(unwilling, TOOLS, LIBRARY_OF).take_turns(asked, ToolContext())
    assert [turn.text for turn in free] == ["Hello.", "Hello."]
    forced = act(unwilling, TOOLS, LIBRARY_OF, calling={"route": "force"}).take_turns(asked, ToolContext())
    assert [[(call.name, call.arguments) for call in turn.calls] for turn in forced] == [
        [("recall", {"query": "x"})],
        [],
    ]
    assert [turn.text for turn in forced] == ["Done.", "Hello."]


def test_a_tool_that_is_not_there_is_not_called(act: Callable[..., Any]) -> None:
    asked = [[{"role": "user", "content": "compute 3*4"}]]
    assert act(unwilling, TOOLS, LIBRARY_OF, calling={"route": "force"}).take_turns(asked, ToolContext())[0].calls == []


def willing(prompt: str) -> Any:
    return "Done." if "tool_response" in prompt else [FORM.render(Call("recall", {"query": "x"})), "Hello."]


def test_none_is_called_where_none_is_due(act: Callable[..., Any]) -> None:
    asked: list[list[Message]] = [[{"role": "user", "content": text}] for text in ("what is my cat called?", "hello")]
    free = act(willing, TOOLS, LIBRARY_OF).take_turns(asked, ToolContext())
    assert [len(turn.calls) for turn in free] == [1, 1]
    routed = act(willing, TOOLS, LIBRARY_OF, calling={"route": "forbid"}).take_turns(asked, ToolContext())
    assert [len(turn.calls) for turn in routed] == [1, 0] and routed[1].text == "Hello."


def names_itself(expert: str, prompt: str = "") -> str:
    return f"I am {expert}." if prompt else "I am all."


def test_conversations_are_answered_by_their_experts_together(act: Callable[..., Any]) -> None:
    asked: list[list[Message]] = [
        [{"role": "user", "content": text}]
        for text in ("compute 1+1", "hello", "compute 2*2", "what is my cat called?")
    ]
    acting = act(names_itself, (), LIBRARY_OF, experts=("facts", "sums"), mixture={"dispatch": "classifier"})
    texts = [turn.text for turn in acting.take_turns(asked, ToolContext())]
    assert texts == ["I am sums.", "I am all.", "I am sums.", "I am facts."]
    assert set(acting.writer("sums").model.widths) == {2} and set(acting.writer("facts").model.widths) == {1}


def test_an_expert_that_is_spared_leaves_its_questions_to_the_weights(act: Callable[..., Any]) -> None:
    asked: list[list[Message]] = [
        [{"role": "user", "content": text}] for text in ("compute 1+1", "what is my cat called?")
    ]
    mixture = {"dispatch": "classifier", "spared": ["facts"]}
    acting = act(names_itself, (), LIBRARY_OF, experts=("facts", "sums"), mixture=mixture)
    assert [turn.text for turn in acting.take_turns(asked, ToolContext())] == ["I am sums.", "I am all."]
