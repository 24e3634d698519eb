"""Each finding on a record that has it and on one that has not; scores, thresholds, advice."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.curation.findings import (
    _PLACEHOLDER,
    _REFUSAL,
    _SPEAKS_AS_MODEL,
    FINDINGS,
    repetition,
    same_answer,
    script,
    states,
)
from distillation.curation.quality import Quality, judge, keep_good
from distillation.record import asked
from phases.errors import ConfigError

SENTENCES = (
    "It rained all day. We stayed at home and read old books by the fire. Nobody came and nobody called, which suited "
    "us well. In the evening the sky cleared and a pale moon rose over the"
)


def findings(
    prompt: str = "What is the capital of France?", completion: str = "Paris.", **rest: Any
) -> tuple[str, ...]:
    return judge(
        asked(prompt, completion=completion, **rest), Quality(prompt_words=(2, 100), answer_words=(1, 60))
    ).findings


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("prompt too short", {"prompt": "Why?"}),
        ("prompt too long", {"prompt": " ".join(f"w{i}" for i in range(101))}),
        ("placeholder", {"prompt": "Dear {{name}}, what now?"}),
        ("placeholder", {"completion": "Send it to [YOUR ADDRESS]."}),
        ("encoding damage", {"completion": "cafÃ© au lait"}),
        ("encoding damage", {"prompt": "What does donâ€™t mean?"}),
        ("encoding damage", {"completion": "a \ufffd b"}),
        ("repetitive prompt", {"prompt": "say it again and " * 10}),
        ("answer too long", {"completion": " ".join(f"w{i}" for i in range(61))}),
        ("refusal", {"completion": "I’m sorry, but I can't help with that."}),
        ("refusal", {"completion": "I cannot provide that information."}),
        ("speaks as a model", {"completion": "Well, as a large language model I say Paris."}),
        ("repetition", {"completion": "the cat sat on the mat " * 5}),
        ("cut off", {"completion": "Paris is the", "more": {"finish": "length"}}),
        ("unfinished", {"completion": SENTENCES}),
        ("repeats the question", {"completion": "What is the capital of France?"}),
        ("other script", {"completion": "Столица Франции это Париж, конечно же."}),
        ("wrong answer", {"completion": "Lyon", "reference": "Paris"}),
        ("wrong answer", {"completion": "1 + 1 #### 3", "reference": "2"}),
    ],
)
def test_each_finding(name: str, record: dict[str, Any]) -> None:
    assert findings(**record) == (name,)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"completion": ""},
        {"prompt": "Sorry for that", "completion": "", "reference": "x", "more": {"finish": "length"}},
        {"completion": "He said that he was sorry."},
        {"completion": "La réponse est Á Paris, naïve façade Âge."},
        {"completion": SENTENCES + "."},
        {"completion": "So it is 1,000.", "reference": "1000"},
        {"completion": "It depends.", "reference": "a long text that no answer can be equal to at all"},
        {"completion": "Париж", "reference": "Париж"},
    ],
)
def test_nothing_is_found_where_nothing_is(record: dict[str, Any]) -> None:
    assert findings(**record) == ()


REFUSING = "I'm ;I am ;sorry;not able;I ;can;can't ;won't ;will not ;must decline to ;help;share;as an AI"
SPEAKING = "do not have access to;violates ;our policy;as a ;an ;large ;language model;my ;training data;openai"
UNFILLED = "{{a}};<|end|>;[INSERT x];[TODO;];todo:;lorem ipsum"
PHRASES = st.sampled_from(f"{REFUSING};{SPEAKING};{UNFILLED}".split(";"))


@given(
    st.lists(PHRASES, max_size=4).map("".join),
    st.sampled_from([str, str.upper, str.lower]),
)
def test_what_a_pattern_needs_is_in_every_text_that_has_it(text: str, case: Callable[[str], str]) -> None:
    found = findings(completion=(text := "So " + case(text)))
    for name, pattern in (
        ("placeholder", _PLACEHOLDER),
        ("refusal", _REFUSAL),
        ("speaks as a model", _SPEAKS_AS_MODEL),
    ):
        assert (name in found) == bool(pattern.search(text))


def test_answers_that_are_too_short() -> None:
    assert judge(asked("Explain it", completion="No."), Quality(answer_words=(2, 9))).findings == ("answer too short",)


@pytest.mark.parametrize(
    ("completion", "reference", "right"),
    [
        ("3 + 1 #### 4", "4", True),
        ("4.0", "4", True),
        ("There were 3, so there are 4 now.", "4", True),
        ("There are 4, not 5.", "4", False),
        ("The capital is paris.", "Paris", True),
        ("New York", "York", True),
        ("York, England", "York", False),
        ("anything", "+", False),
        ("", "4", False),
    ],
)
def test_what_an_answer_states(completion: str, reference: str, right: bool) -> None:
    assert states(completion, reference) is right


@given(st.lists(st.sampled_from("abc"), min_size=20, max_size=40) | st.permutations("abcdefghijklmnopqrstuvwxyz"))
def test_repetition_by_its_definition(words: list[str]) -> None:
    runs = ["".join(words[i : i + 5]) for i in range(len(words) - 4)]
    covered = [
        any(runs.count(runs[i]) > 1 for i in range(max(0, p - 4), min(p + 1, len(runs)))) for p in range(len(words))
    ]
    assert repetition(" ".join(words)) == sum(covered) / len(words)


def test_small_measures() -> None:
    assert repetition("a b c d e " * 4) == 1.0
    assert repetition(" ".join(map(str, range(40)))) == repetition("a a a a a a") == 0.0
    assert repetition("1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 16 17 18 19 20") == 0.5
    assert same_answer("-1,000.50", "-1000.5")
    assert not same_answer("1.2.3", "1.2")
    assert [script(t) for t in ("short", "a" * 30, "д" * 30, "東" * 30)] == ["", "LATIN", "CYRILLIC", "CJK"]


def test_a_fault_rejects_alone_and_signs_only_in_company() -> None:
    faults = [f for f in FINDINGS if f.points > 2]
    signs = [f for f in FINDINGS if f.points <= 2]
    assert all(10 - f.points < Quality().threshold for f in faults)
    assert all(10 - f.points >= Quality().threshold for f in signs)
    assert all(10 - a.points - b.points < 8 for a in signs for b in signs if a.points == b.points == 2)


def test_the_step_counts_reasons_with_advice_and_what_stays() -> None:
    good, sign = asked("Why is it so?", completion="Because."), asked("Why is it so?", completion="OpenAI says so.")
    bad = asked("Why is it so?", completion="I cannot help with that", more={"finish": "length"})
    kept, step = keep_good([good, bad, sign], Quality())
    assert kept == [good, sign]
    assert step.removed == {"refusal (ask another teacher)": 1}
    assert step.examples == {"refusal (ask another teacher)": ("Why is it so?",)}
    assert step.findings == {"speaks as a model": 1}
    assert step.figures["mean score"] == pytest.approx((10 + 1 + 8) / 3)


def test_own_points_and_answers_that_have_to_be_there() -> None:
    refused = asked("Why is it so?", completion="I cannot help with that")
    assert judge(refused, Quality(points={"refusal": 0})).score == 10
    assert judge(refused, Quality(points={"refusal": 12})).score == 0
    kept, step = keep_good([asked("Why is it so?")], Quality(answered=True))
    assert (kept, step.removed) == ([], {"no answer (ask a teacher)": 1})
    assert keep_good([], Quality())[0] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": {"rudeness": 3}}, "unknown finding 'rudeness' in points; there are: prompt too short"),
        ({"prompt_words": (5, 2)}, "give the fewest words first"),
        ({"threshold": 11}, "less than or equal to 10"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Quality.parse(settings, "quality")
