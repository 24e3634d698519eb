"""Of several answers one is taken: compared with closed forms and SciPy."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import beta

from phases.agent.calls import Call, CallFormat
from phases.agent.conversation import CallRecord, Turn
from phases.agent.memory import Memory
from phases.agent.tool import Tool, ToolContext, built_in
from phases.agent.voting import answer_of, choose, least_to_settle, likeness, majority_chance, settled

FORM = CallFormat('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
ONE: list[list[float]] = [[-1.0], [-0.9, -0.3], [-0.5, -0.1, -0.9]]
RAN = [True] * 3


def test_the_most_frequent_answer_is_taken_and_of_equals_the_first() -> None:
    assert choose(["a", "b", "b"], ONE, RAN, "vote") == 1
    assert choose(["a", "b", "c"], ONE, RAN, "vote") == 0
    assert choose(["b", "a", "a", "b"], [*ONE, []], [*RAN, True], "vote") == 0


def test_the_likeliest_answer_in_all_or_a_token() -> None:
    assert choose(["a", "b", "c"], ONE, RAN, "likelihood") == 0  # −1, −1.2, −1.5
    assert choose(["a", "b", "c"], ONE, RAN, "mean_likelihood") == 2  # −1, −.6, −.5


def test_what_ran_comes_before_what_is_likelier() -> None:
    assert choose(["a", "b", "c"], ONE, [False, True, True], "executed") == 1
    assert choose(["a", "b", "c"], ONE, [False] * 3, "executed") == 0


def test_the_answer_most_like_the_others() -> None:
    """By hand: F₁ of `a b` and `b c` is 2·1/4, of `a b c` and each of them 2·2/5."""
    assert likeness("a b", "b c") == 0.5 and likeness("a b c", "A, b.") == 0.8
    assert likeness("+", "+") == 1 and likeness("+", "-") == 0
    assert choose(["a b", "x", "b c", "a b c"], [[]] * 4, [True] * 4, "agreement") == 3


def test_answers_are_compared_without_mark_and_white_space() -> None:
    def said(text: str) -> str:
        return answer_of(Turn([{"role": "assistant", "content": text}]))

    assert said("3 and 4: #### 12 ") == said("12") == "12" != said("1 2")
    assert said("a  b") == said("a b")


@pytest.mark.parametrize("votes", [(0, 0), (3, 1), (4, 0), (7, 6)])
def test_the_chance_of_a_majority_is_the_beta_integral(votes: tuple[int, int]) -> None:
    first, second = votes
    assert majority_chance(first, second) == pytest.approx(beta.sf(0.5, first + 1, second + 1), abs=1e-12)


def vote(answers: list[str]) -> str:
    return answers[choose(answers, [[]] * len(answers), [True] * len(answers), "vote")]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 6])
def test_settled_is_exactly_when_no_further_answer_could_change_it(most: int) -> None:
    """Against all continuations; where the paper's 95 % come first, the leader has at least those."""
    for done in range(1, most + 1):
        for answers in itertools.product("abc", repeat=done):
            after = {vote([*answers, *more]) for more in itertools.product("abcd", repeat=most - done)}
            top = [count for _, count in Counter(answers).most_common(2)] + [0]
            sure = beta.sf(0.5, top[0] + 1, top[1] + 1) >= 0.95
            assert settled(answers, most) == (len(after) == 1 or sure), answers


def test_no_vote_is_looked_at_before_it_can_be_settled() -> None:
    assert [least_to_settle(most) for most in (1, 2, 3, 5, 9, 99)] == [1, 1, 2, 3, 4, 4]


def drawn(*others: str) -> Callable[[str], Any]:
    """Greedily it says 13; most of what it draws says 12, in so many words."""
    return lambda _: [("13", 20.0), *((f"{sign}#### 12", 19.9) for sign in "abcdefgh")]


def test_a_vote_gives_what_most_samples_say(act: Callable[..., Any]) -> None:
    asked = [[{"role": "user", "content": "3*4"}]]
    assert act(drawn()).take_turns(asked, ToolContext())[0].text == "13"
    voted = act(drawn(), voting={"samples": 9}).take_turns(asked, ToolContext())[0]
    assert voted.text.endswith("#### 12") and len(voted.messages) == 1


def test_the_first_sample_is_the_answer_without_a_vote(act: Callable[..., Any]) -> None:
    """Two samples that differ are a tie, which the first wins."""
    turns = act(drawn(), voting={"samples": 2}).take_turns([[{"role": "user", "content": "x"}]] * 20, ToolContext())
    assert {turn.text for turn in turns} == {"13"}


def test_samples_are_rows_of_the_same_batches(act: Callable[..., Any]) -> None:
    acting = act(lambda _: "no", voting={"samples": 5})
    acting.take_turns([[{"role": "user", "content": "x"}]] * 3, ToolContext())
    # One batch of what is written as without a vote, one of what is drawn: three passes each.
    assert acting.writer().model.widths == [3, 3, 3, 12, 12, 12]


def test_an_adaptive_vote_stops_when_the_majority_is_sure(act: Callable[..., Any]) -> None:
    acting = act(lambda _: "no", voting={"samples": 9, "adaptive": True})
    assert acting.take_turns([[{"role": "user", "content": "x"}]], ToolContext())[0].text == "no"
    assert sum(acting.writer().model.widths) == least_to_settle(9) * len("no.")


def test_branches_begin_with_the_likeliest_tokens_and_go_on_greedily(act: Callable[..., Any]) -> None:
    script = {"select": "mean_likelihood", "samples": 3, "branch": True}
    replies = [("x, I think, or y", 6.0), ("yes", 5.5), ("no", 1.0)]

    def logits(prompt: str) -> Any:
        return replies

    acting = act(logits, voting=script)
    samples: list[str] = []
    player, play = acting._player, acting._player.play
    player.play = lambda rows, watch: (play(rows, watch), samples.extend(row.result().text for row in rows))[0]
    acting.take_turns([[{"role": "user", "content": "x"}]], ToolContext())
    assert samples == ["x, I think, or y", "yes", "no"]


def remembers(prompt: str) -> Any:
    """Keeps something, then says which; greedily the worse thing."""
    if "kept" in prompt:
        return "bad" if '"bad"' in prompt else "good"
    calls = [FORM.render(Call("remember", {"fact": "bad"})), FORM.render(Call("remember", {"fact": "good"}))]
    return [(calls[0], 20.0), (calls[1], 19.999)]


def test_only_what_the_chosen_sample_remembers_is_kept(act: Callable[..., Any]) -> None:
    tools = [built_in("remember"), built_in("recall")]
    seen: list[CallRecord] = []
    with Memory(None) as memory:
        acting = act(remembers, tools, voting={"samples": 9}, calling={"constrained": False})
        (turn,) = acting.take_turns([[{"role": "user", "content": "x"}]], ToolContext(memory=memory), seen.append)
        assert [fact.text for fact in memory.facts()] == [turn.text] == [turn.calls[0].arguments["fact"]]
    assert seen == turn.calls and len(seen) == 1


@pytest.mark.parametrize("samples", [1, 9])
def test_a_fact_is_of_use_once_however_many_samples_recalled_it(act: Callable[..., Any], samples: int) -> None:
    """Which of those that were not chosen used it does not matter to what is forgotten."""

    def script(prompt: str) -> Any:
        return "Zumi" if "<tool_response>" in prompt else FORM.render(Call("recall", {"query": "boat"}))

    with Memory(None) as memory:
        memory.remember("my boat is called Zumi", "before")
        acting = act(script, [built_in("recall")], voting={"samples": samples})
        acting.take_turns([[{"role": "user", "content": "x"}]], ToolContext(memory=memory))
        assert [fact.uses for fact in memory.facts()] == [1]


def test_what_was_looked_up_before_the_samples_is_shown_once(act: Callable[..., Any]) -> None:
    seen: list[CallRecord] = []
    with Memory(None) as memory:
        memory.remember("my boat is called Zumi", "before")
        acting = act(lambda _: "Zumi", [built_in("recall")], voting={"samples": 3}, remembering={"recall_first": 1})
        asked = [[{"role": "user", "content": "what is my boat called?"}]]
        (turn,) = acting.take_turns(asked, ToolContext(memory=memory), seen.append)
    assert seen == turn.calls and len(seen) == 1


@pytest.mark.parametrize("samples", [1, 5])
def test_a_tool_of_the_users_own_runs_once(act: Callable[..., Any], samples: int) -> None:
    sent: list[str] = []

    def send(arguments: Any, _: ToolContext) -> str:
        sent.append(arguments["text"])
        return "sent"

    parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    schema = {"type": "function", "function": {"name": "send", "description": "", "parameters": parameters}}
    call = FORM.render(Call("send", {"text": "hi"}))
    acting = act(
        lambda prompt: "Done." if "sent" in prompt else call, [Tool("send", schema, send, "own.py")],
        voting={"samples": samples},
    )  # fmt: skip
    (turn,) = acting.take_turns([[{"role": "user", "content": "x"}]], ToolContext())
    assert sent == ["hi"] and [record.result for record in turn.calls] == ["sent"] and turn.text == "Done."


def test_the_likeliest_is_chosen_by_what_the_model_thinks_of_it(act: Callable[..., Any]) -> None:
    """All first tokens are equally likely; then one answer is sure, the greedy one is not."""

    def script(_: str) -> Any:
        unsure = [(f"a{sign}", 20.0 - index * 1e-3) for index, sign in enumerate("bcdefgh")]
        return [("z", math.log(sum(math.exp(value) for _, value in unsure)) - 1e-3), *unsure]

    asked = [[{"role": "user", "content": "x"}]]
    assert act(script).take_turns(asked, ToolContext())[0].text == "ab"
    assert act(script, voting={"samples": 9, "select": "likelihood"}).take_turns(asked, ToolContext())[0].text == "z"


def test_a_sample_whose_calls_ran_is_taken_before_a_likelier_one(act: Callable[..., Any]) -> None:
    def fails(arguments: Any, _: ToolContext) -> str:
        if arguments["text"] == "x":
            raise ValueError
        return "fine"

    parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    schema = {"type": "function", "function": {"name": "try", "description": "", "parameters": parameters}}
    tool = Tool("try", schema, fails, "built-in")
    calls = [(FORM.render(Call("try", {"text": text})), 20.0 - place / 10) for place, text in enumerate("xy")]
    script: Callable[[str], Any] = lambda prompt: "Done." if "fine" in prompt or "error" in prompt else calls  # noqa: E731
    asked = [[{"role": "user", "content": "?"}]]
    assert act(script, [tool]).take_turns(asked, ToolContext())[0].calls[0].verdict == "failed"
    for select, verdict in (("likelihood", "failed"), ("executed", "done")):
        (turn,) = act(script, [tool], voting={"samples": 8, "select": select}).take_turns(asked, ToolContext())
        assert turn.calls[0].verdict == verdict
