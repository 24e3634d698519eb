"""Working memory: budgets, order and pairs over any conversation; centrality against eigenvectors and closed forms."""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phases.agent.summary import ALIKE, JUMP, by_centrality, centrality, cosines, distinct, split_sentences
from phases.agent.working import EARLIER, Fitted, fit

Message = dict[str, Any]


def count(messages: Sequence[Message]) -> int:
    """Tokens of a crude tokenizer: three characters each, and four for a message's frame."""
    return sum(4 + len(json.dumps(one, ensure_ascii=False)) // 3 for one in messages)


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def called(number: int, result: str) -> list[Message]:
    call = {"type": "function", "function": {"name": "python", "arguments": {"code": str(number)}}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "python", "content": result},
    ]


def conversation(turns: int, seed: int = 0, system: bool = True) -> list[Message]:
    """Questions, some answered with calls; every text has a number of its own."""
    rng = random.Random(seed)
    chat = [said("system", "You are Forge.")] if system else []
    for turn in range(turns):
        chat.append(said("user", f"Question {turn} on {rng.choice(['boats', 'rain', 'maps'])}. It matters."))
        for call in range(rng.randrange(3)):
            chat += called(100 * turn + call, f"result {turn} {call} " + "x" * rng.randrange(40))
        chat.append(said("assistant", f"Answer {turn} of the {rng.choice(['boats', 'rain', 'maps'])}."))
    return chat


def unsummarised(messages: Sequence[Message]) -> list[Message]:
    return [one for one in messages if not str(one["content"]).startswith(EARLIER)]


def check(fitted: Fitted, messages: Sequence[Message]) -> None:
    """The system messages and the newest turns, whole and in order, and one summary at most."""
    kept, before = unsummarised(fitted.messages), unsummarised(messages)
    systems = [one for one in before if one["role"] == "system"]
    spoken = [one for one in kept if one["role"] != "system"]
    assert [one for one in kept if one["role"] == "system"] == systems
    assert spoken == [one for one in before if one["role"] != "system"][-len(spoken) :]
    assert spoken[0]["role"] == "user"
    assert len(fitted.messages) - len(kept) == bool(fitted.summary)


def test_what_fits_is_left_as_it_is() -> None:
    chat = conversation(3)
    assert fit(chat, count(chat), count) == Fitted(chat, "", 0)
    assert fit([], 0, count) == fit([], 10, count) == Fitted([], "", 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 10**6), st.integers(100, 900), st.floats(0, 0.5), st.booleans())
def test_the_budget_holds_and_turns_stay_whole(turns: int, seed: int, budget: int, share: float, system: bool) -> None:
    chat = conversation(turns, seed, system)
    last = max(index for index, one in enumerate(chat) if one["role"] == "user")
    assume(count([*chat[: int(system)], *chat[last:]]) <= budget)
    fitted = fit(chat, budget, count, share)
    assert count(fitted.messages) <= budget
    check(fitted, chat)
    users = sum(one["role"] == "user" for one in fitted.messages)
    assert users + fitted.dropped == turns


def test_as_many_turns_stay_as_leave_room_for_the_summary() -> None:
    chat = conversation(30)
    fitted = fit(chat, 500, count, share=0.2)
    kept = unsummarised(fitted.messages)
    starts = [index for index, one in enumerate(chat) if one["role"] == "user"]
    more = [chat[0], *chat[starts[fitted.dropped - 1] :]]
    assert count(kept) <= 400 < count(more)
    assert count(fitted.messages) - count(kept) <= 100


def test_the_summary_is_made_of_sentences_that_were_said_and_follows_the_system_message() -> None:
    chat = conversation(30)
    fitted = fit(chat, 500, count)
    assert fitted.messages[0] == chat[0]
    assert fitted.messages[1] == said("system", EARLIER + fitted.summary)
    every = [sentence for one in chat for sentence in split_sentences(one["content"])]
    places = [every.index(sentence) for sentence in fitted.summary.split("\n")]
    assert len(places) > 1 and places == sorted(places)


def test_without_a_system_message_the_summary_leads() -> None:
    fitted = fit(conversation(30, system=False), 500, count)
    assert fitted.messages[0]["content"].startswith(EARLIER)


def test_no_share_no_summary() -> None:
    fitted = fit(conversation(30), 500, count, share=0.0)
    assert fitted.summary == "" and fitted.dropped > 0


def test_rolling_over_two_hundred_turns_stays_in_the_budget() -> None:
    kept: list[Message] = [said("system", "You are Forge.")]
    whole = conversation(200)[1:]
    summaries = set()
    for message in whole:
        kept.append(message)
        if message["role"] == "assistant" and "tool_calls" not in message:
            fitted = fit(kept, 400, count)
            assert count(fitted.messages) <= 400
            check(fitted, [kept[0], *whole[: whole.index(message) + 1]])
            kept = fitted.messages
            summaries.add(fitted.summary)
    assert len(summaries) > 20  # it changes as it rolls
    assert max(len(summary.split("\n")) for summary in summaries) > 2
    assert set(fitted.summary.split("\n")) <= {s for one in whole for s in split_sentences(one["content"])}


def test_an_earlier_summary_is_summarised_along() -> None:
    chat = [
        said("system", EARLIER + "My boat is called Zumi."),
        *conversation(2, system=False),
        said("user", "z" * 300),
    ]
    fitted = fit(chat, 200, count, share=0.4)
    assert fitted.dropped == 2
    assert "My boat is called Zumi." in fitted.summary.split("\n")


def test_it_is_deterministic_and_pure() -> None:
    chat = conversation(40)
    copy = json.loads(json.dumps(chat))
    assert fit(chat, 400, count) == fit(chat, 400, count)
    assert chat == copy


def test_fitting_again_changes_nothing() -> None:
    fitted = fit(conversation(40), 400, count)
    assert fit(fitted.messages, 400, count) == Fitted(fitted.messages, fitted.summary, 0)


def test_long_results_of_the_last_turn_are_cut_in_their_middle_alone() -> None:
    last = [said("user", "Read it. " + "please " * 5), *called(1, "begin" + "x" * 5000 + "end"), *called(2, "short")]
    fitted = fit([*conversation(3), *last], 300, count)
    ask, call, cut, second, short = unsummarised(fitted.messages)[1:]
    assert [ask, call, second, short] == [last[0], last[1], last[3], last[4]]
    assert cut["content"].startswith("beginx") and cut["content"].endswith("xend") and " … " in cut["content"]
    assert cut["name"] == "python"
    assert 290 <= count(fitted.messages) <= 300  # no more is cut than has to be


def test_other_texts_are_cut_when_results_are_not_enough() -> None:
    chat = [said("system", "You are Forge."), said("user", "a" * 2000 + "?"), *called(1, "x" * 500)]
    fitted = fit(chat, 130, count)
    assert 125 <= count(fitted.messages) <= 130
    assert fitted.messages[0] == chat[0]
    assert fitted.messages[1]["content"].startswith("aa") and fitted.messages[1]["content"].endswith("a?")


def test_what_cannot_fit_is_made_as_short_as_it_goes() -> None:
    chat = [said("system", "s" * 300), *conversation(4, system=False)]
    fitted = fit(chat, 20, count)
    assert fitted.dropped == 3 and fitted.summary == ""
    assert fitted.messages[0] == chat[0]
    assert fit(chat[:1], 20, count) == Fitted(chat[:1], "", 0)


def test_a_greeting_before_the_first_question_is_a_turn_and_later_system_messages_stay() -> None:
    chat = [said("assistant", "Welcome."), *conversation(9, system=False), said("system", "Be brief.")]
    chat += conversation(9, seed=1, system=False)
    fitted = fit(chat, 300, count)
    assert fitted.messages[:2] == [said("system", "Be brief."), said("system", EARLIER + fitted.summary)]
    check(fitted, chat)


def test_contents_that_are_none_or_in_parts_are_read() -> None:
    parts = [{"type": "text", "text": "My boat is called Zumi."}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}, *conversation(9, system=False)]
    assert count(fit(chat, 300, count, share=0.5).messages) <= 300
    alone = fit([*chat[:2], said("user", "and? " * 40)], 115, count, share=0.5)
    assert alone.summary == "My boat is called Zumi."


@pytest.mark.parametrize("size", [2, 5, 30])
def test_centrality_is_the_eigenvector_of_the_walk(size: int) -> None:
    random_NN = np.random.default_rng(size).random((size, size))
    similarity = (random_NN + random_NN.T) / 2
    walk = (1 - JUMP) * similarity / similarity.sum(axis=1, keepdims=True) + JUMP / size
    values, vectors = np.linalg.eig(walk.T)
    leading = np.real(vectors[:, np.argmax(np.real(values))])
    assert centrality(similarity) == pytest.approx(leading / leading.sum())


def test_the_centre_of_a_star_has_its_closed_form() -> None:
    leaves, s = 6, 0.3
    similarity = np.eye(leaves + 1)
    similarity[0, 1:] = similarity[1:, 0] = s
    # p = d/N + (1-d)(p/(1+ns) + (1-p)s/(1+s)), solved for the centre's p
    d, stay, come = JUMP, 1 / (1 + leaves * s), s / (1 + s)
    centre = (d / (leaves + 1) + (1 - d) * come) / (1 - (1 - d) * (stay - come))
    found = centrality(similarity)
    assert found[0] == pytest.approx(centre)
    assert found.sum() == pytest.approx(1.0)
    assert found[1:] == pytest.approx((1 - centre) / leaves)


def test_the_central_sentence_wins() -> None:
    sentences = [
        "apples grow slowly",
        "pears taste sweet",
        "apples pears plums figs",
        "plums stain shirts",
        "figs dry fast",
    ]
    assert by_centrality(sentences)[0] == 2
    chat = [one for text in sentences for one in (said("user", text), said("assistant", ""))]
    fitted = fit([*chat, said("user", "z" * 60)], 70, count, share=0.4)
    assert fitted.summary == "apples pears plums figs"


def test_cosines_are_those_of_tf_idf() -> None:
    # idf: boat ln(3/2), red ln 3, fast ln 3, rain ln 3
    found = cosines(["red boat", "boat boat fast", "rain"])
    a, b = np.log(1.5), np.log(3)
    expected = 2 * a * a / (np.hypot(a, b) * np.hypot(2 * a, b))
    assert found == pytest.approx(np.array([[1, expected, 0], [expected, 1, 0], [0, 0, 1]]))


def test_near_copies_are_said_once() -> None:
    copies = ["the red boat sails far today", "the red boat sails far now", "rain", "snow", "hail", "fog"]
    assert cosines(copies)[0, 1] < ALIKE  # not near enough: both stay
    assert len(by_centrality(copies)) == 6
    assert len(by_centrality([*copies, "the red boat sails far today today"])) == 6


def test_empty_and_alike_sentences() -> None:
    assert by_centrality([]) == split_sentences(" \n ") == []
    assert by_centrality(["the same words", "words the same", "🙂"]) == [2, 1]  # the first two have one vector
    assert distinct(["My boat.", "rain", "my  boat"]) == ["rain", "my  boat"]


def test_sentences_end_at_stops_and_lines() -> None:
    assert split_sentences("It is 3.5 m. Is it?  Yes!\nnew   line\n") == ["It is 3.5 m.", "Is it?", "Yes!", "new line"]
