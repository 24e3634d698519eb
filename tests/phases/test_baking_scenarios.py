"""What a model learns from: conversations whose calls really ran, split by content, and their rows."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from phases.agent.documents import Document, build_store
from phases.agent.memory import Memory
from phases.agent.persona import MANNERS, Persona, answer_in_manner, persona_prompt, shown, small_talk
from phases.agent.sandbox.sandbox import Sandbox
from phases.agent.search import LocalSearch
from phases.agent.tool import BUILT_IN, ToolContext, built_in
from phases.baking.config import BakingConfig
from phases.baking.items import make_conversations
from phases.baking.memories import Memories
from phases.baking.questions import PythonTask, first_words, opening, python_scenarios
from phases.baking.rows import SCAFFOLD, BakingRows, Encoded, pack_conversations
from phases.baking.scenario import GoldCall, Scenario, ScriptedTurn, holds, play
from phases.dataset import SPLITS
from phases.errors import ConfigError

TOOLS = tuple(built_in(name) for name in BUILT_IN)
TRAIN = {"python": 12, "retrieve": 12, "search": 6, "memory": 8, "persona": 12}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolContext]:
    generator = random.Random(0)
    words = ["red", "blue", "stone", "river", "wheel", "house", "bird", "tree", "cloud", "lamp", "door", "field"]
    texts = [f"{words[i % 12]}{i} note\nis about {' '.join(generator.choices(words, k=8))}." for i in range(160)]
    path = tmp_path_factory.mktemp("store") / "documents.sqlite"
    documents = [Document(f"title {i}", text) for i, text in enumerate(texts)]
    with build_store(path, documents) as store, Sandbox() as sandbox, Memory(None) as memory:
        yield ToolContext(store, memory, sandbox, (LocalSearch(store),))


def config(**changes: object) -> BakingConfig:
    return BakingConfig.model_validate({"scenarios": {"train": TRAIN, "held_out": 4, **changes}})


def test_every_call_ran_and_the_answer_stands_in_its_result(context: ToolContext) -> None:
    made = make_conversations(config(), TOOLS, context, 3)
    for kind, count in TRAIN.items():
        assert len(made.by_split["train"][kind]) == count and len(made.by_split["test"][kind]) == 4
    for one in made.of("train", ("python", "retrieve", "search", "memory")):
        results = [m["content"] for m in one.played.messages if m["role"] == "tool"]
        assert any(holds(result, one.scenario.turns[-1].answer) for result in results)
        assert one.played.messages[-1] == {"role": "assistant", "content": one.scenario.turns[-1].reply}


def test_facts_are_asked_for_after_turns_and_after_a_restart(context: ToolContext) -> None:
    found = make_conversations(config(distractors=[0, 2]), TOOLS, context, 3).of("train", ("memory",))
    assert {len(one.scenario.turns) for one in found} == {1, 2, 4}
    later = [one for one in found if one.scenario.known]
    for one in later:
        asked = one.scenario.turns[-1]
        assert len(one.scenario.turns) == 1 and asked.answer not in asked.user
        assert one.played.messages[2] == {"role": "tool", "name": "recall", "content": one.scenario.known[0]}
    assert len(later) > 1
    none = make_conversations(config(restarts=False), TOOLS, context, 3).of("train", ("memory",))
    assert not any(one.scenario.known for one in none)


def test_a_conversation_has_a_memory_of_its_own(context: ToolContext) -> None:
    asked = ScriptedTurn(user="what is my cat called?")
    told = [Scenario(kind="memory", task="t", turns=(asked,), known=(f"my cat is called {n}",)) for n in ("Bo", "Mu")]
    with Memories(context, told) as memories:
        found = [memories.of(i).memory for i in (0, 1, 0)]
        assert found[0] is found[2] and all(found)
        assert [memory.recall("my cat")[0].text for memory in found if memory] == [
            "my cat is called Bo", "my cat is called Mu", "my cat is called Bo"
        ]  # fmt: skip
    assert context.memory is not None and not context.memory.recall("my cat")
    with Memories(ToolContext(None, None, None, ()), told) as memories:
        assert memories.of(0).memory is None
    assert told[0].key != told[1].key


def test_no_question_stands_in_two_splits_and_a_seed_gives_the_same(context: ToolContext) -> None:
    made, again = (make_conversations(config(), TOOLS, context, 3) for _ in range(2))
    assert made == again
    asked = {
        split: {(*c.scenario.known, *(t.user for t in c.scenario.turns)) for c in made.of(split, tuple(TRAIN))}
        for split in SPLITS
    }
    assert not asked["train"] & asked["test"] and not asked["validation"] & (asked["train"] | asked["test"])
    names = {split: {c.scenario.turns[-1].answer for c in made.of(split, ("memory",))} for split in SPLITS}
    assert not names["train"] & names["test"]


def test_one_split_alone_is_the_same_as_with_the_others(context: ToolContext) -> None:
    whole, test = (
        make_conversations(config(), TOOLS, context, 3),
        make_conversations(config(), TOOLS, context, 3, ("test",)),
    )
    assert test.by_split["test"] == whole.by_split["test"] and not test.by_split["train"]


def test_what_a_tool_does_not_bear_out_is_rejected_and_counted(context: ToolContext) -> None:
    wrong = ScriptedTurn(
        user="compute 2*3", calls=(GoldCall(name="python", arguments={"code": "2*3"}),), reply="7", answer="7"
    )
    broken = wrong.model_copy(update={"calls": (GoldCall(name="python", arguments={"code": "2*"}),)})
    limits = config().tools.limits
    for turn, reason in ((wrong, "the answer is not in the result"), (broken, "failed")):
        played = play(Scenario(kind="python", task="x", turns=(turn,)), TOOLS, context, limits)
        assert reason in played.rejected and not played.messages


def test_arithmetic_answers_are_the_generators_not_the_tools(context: ToolContext) -> None:
    for task in ("products", "chain_sum", "gcd", "lcm", "count_bits"):
        for scenario in python_scenarios(PythonTask(name=task), 5, 1):
            assert not play(scenario, TOOLS, context, config().tools.limits).rejected


def test_an_unknown_generator_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'sudoku': choose from products"):
        next(python_scenarios(PythonTask(name="sudoku"), 5, 1))


def test_a_kind_whose_tools_are_missing_is_left_out(context: ToolContext) -> None:
    tools = tuple(built_in(name) for name in ("python",))
    made = make_conversations(config(), tools, context, 3)
    assert set(made.by_split["train"]) == {"python", "persona"}


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [("It is 42.", "42", True), ("142", "42", False), ("4 2", "42", False), ("x  y", "x y", True), ("", "", True)],
)
def test_an_answer_holds_as_whole_words(reply: str, answer: str, right: bool) -> None:
    assert holds(reply, answer) is right


def test_traits_show_as_often_as_they_are_strong() -> None:
    rng = random.Random(0)
    said = [answer_in_manner("Hello.", {"helpful": 0.75, "creative": 0.0, "precise": 1.0}, rng) for _ in range(2000)]
    shares = {trait: np.mean([shown(text, trait) for text in said]) for trait in ("helpful", "creative", "precise")}
    assert shares["helpful"] == pytest.approx(0.75, abs=0.04) and shares["creative"] == 0 and shares["precise"] == 1


def test_phrases_belong_to_one_trait_and_no_answer_shows_one_by_itself() -> None:
    for trait, manner in MANNERS.items():
        for phrase in manner.phrases:
            assert [other for other in MANNERS if shown(phrase, other)] == [trait]
        assert not any(shown(one.base, trait) for one in small_talk("Forge"))


def test_the_prompt_says_how_strong_each_trait_is() -> None:
    persona = Persona(name="Ada", traits={"helpful": 1.0, "creative": 0.0})
    assert persona_prompt(persona) == "You are Ada: extremely helpful, not creative."
    assert persona_prompt(Persona(prompt="You are a pirate.")) == "You are a pirate."


def test_bad_settings_are_one_line() -> None:
    for wrong, message in (
        ({"persona": {"traits": {"helpful": 2.0}}}, "must lie between 0 and 1"),
        ({"persona": {"traits": {"grumpy": 0.5}}}, "small talk cannot show 'grumpy'"),
        ({"bakes": [{"name": "a", "prompt": "text", "kinds": ["persona"]}]}, "give both, or neither"),
        ({"bakes": [{"name": "a", "prompt": "tools", "kinds": ["python"]}] * 2}, "stands there twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            BakingConfig.parse(wrong, "baking")


def test_headings_and_first_words() -> None:
    assert opening("math.gcd\n\nGreatest common divisor.") == ("math.gcd", "Greatest common divisor.")
    assert opening("Stones lie in the river.") == ("Stones", "lie in the river.")
    assert opening("x = {1: 2}") == ("", "")
    assert first_words(": Greatest one. And more.") == "Greatest one."
    assert first_words("one two three four five six seven eight") == "one two three"


def encoded(*lengths: int) -> list[Encoded]:
    return [Encoded([i + 1] * n, [k >= n // 2 for k in range(n)], [-1] * n) for i, n in enumerate(lengths)]


def test_conversations_are_packed_whole_and_long_ones_are_counted() -> None:
    packed = pack_conversations(encoded(6, 5, 30, 4), 15, 0, "x")
    assert packed.left_out == 1 and packed.tokens_NT.tolist() == [[1] * 6 + [2] * 5 + [4] * 4 + [0]]
    np.testing.assert_allclose(packed.weight_NT.sum(1), 1.0)
    counted = packed.weight_NT[0] > 0
    assert counted.tolist() == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
        True,
        True,
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(ConfigError, match="the shortest has 30"):
        pack_conversations(encoded(30), 15, 0, "x")


def test_what_always_comes_next_counts_little() -> None:
    """A call's form is the same in all calls; how a turn begins, what differs and what is rare count in full."""

    def shares(count: int) -> list[float]:
        said = [
            Encoded([1, 2, 3, 10, 11, 12, 13, 100 + n, 14], [False] * 3 + [True] * 6, [-1] * 9) for n in range(count)
        ]
        weight = pack_conversations(said, 8, 0, "x").weight_NT[0]
        return [float(value / weight.max()) for value in weight]

    np.testing.assert_allclose(shares(25), [0, 0, 1, SCAFFOLD, SCAFFOLD, SCAFFOLD, 1, 1], atol=1e-6)
    np.testing.assert_allclose(shares(5), [0, 0, 1, 1, 1, 1, 1, 1])


def test_rows_are_a_function_of_the_step_and_every_one_comes_once_an_epoch() -> None:
    rows = BakingRows(pack_conversations(encoded(*[12] * 10), 12, 0, "x"), None, 0.0, 5, 0)
    first = [int(t[0]) for step in range(5) for t in rows.rows(step, 2).tokens_BT]
    assert sorted(first) == list(range(1, 11))
    again = BakingRows(rows.packed, None, 0.0, 5, 0)
    assert again.rows(3, 2).tokens_BT.equal(rows.rows(3, 2).tokens_BT) and rows.rows(0, 2).marks_BTC is None


def test_a_kind_of_which_there_is_too_little_is_left_out_and_counted(tmp_path: Path) -> None:
    with build_store(tmp_path / "d.sqlite", [Document("t", "- - -")]) as store, Memory(None) as memory:
        made = make_conversations(config(), TOOLS[1:2], ToolContext(store, memory), 0)
        assert made.rejected["retrieve"] == {"too few for every split": 0} and "retrieve" not in made.by_split["train"]
        with pytest.raises(ConfigError, match="no kind has enough conversations"):
            make_conversations(config(train={**TRAIN, "persona": 0}), TOOLS[1:2], ToolContext(store), 0)
