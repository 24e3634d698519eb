"""Nothing sealed stays: leaks are found, two searches that share no code agree, wording that all share is excused."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.curation.decontamination import (
    _WORDS,
    Decontamination,
    Sealed,
    decontaminate,
    leaking_questions,
    words,
)
from distillation.curation.leaks import check_no_leak
from distillation.record import Message, Record, asked
from phases.data.leakage import overlaps
from phases.errors import LeakageError
from phases.tasks.reasoning import ReasoningTask, reasoning_draws

DEFAULT = Decontamination()
STRICT = Decontamination(boilerplate=0)
FIFTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
TWELVE = " ".join(FIFTEEN.split()[:12])


def leaks(text: str, sealed: list[str], config: Decontamination = STRICT) -> bool:
    return decontaminate([asked(text)], alone(sealed), config)[0] == []


def alone(texts: list[str]) -> list[Sealed]:
    """Sealed questions of one wording."""
    return [(text,) for text in texts]


def caught(records: list[Record], sealed: Sequence[Sealed], config: Decontamination) -> list[int]:
    """Indices of the records that leak, by both searches."""
    kept = decontaminate(records, sealed, config)[0]
    check_no_leak(kept, sealed, config, among=records)
    found = []
    for i, record in enumerate(records):
        try:
            check_no_leak([record], sealed, config, among=records)
        except LeakageError:
            found.append(i)
    assert [record for i, record in enumerate(records) if i not in found] == kept
    return found


@pytest.mark.parametrize(
    ("text", "sealed", "leaking"),
    [
        (f"before {FIFTEEN} after", FIFTEEN, True),
        (f"x {' '.join(FIFTEEN.split()[1:14])} y", FIFTEEN, True),
        (f"x {TWELVE} y", FIFTEEN, False),
        (FIFTEEN.upper().replace(" ", ",\n"), FIFTEEN, True),
        (f"x {TWELVE} y", TWELVE, True),
        ("Tell me: what is the capital of France?", "What is the capital of France?", True),
        ("What is the capital of Spain?", "What is the capital of France?", False),
        ("Solve 3 + 4 - 1 = now", "3 + 4 - 1 =", True),
        ("Solve 3 - 4 + 1 = now", "3 + 4 - 1 =", False),
        ("Why not?", "why not", True),
        ("But why not?", "why not", False),
        ("?!", "...", False),
    ],
)
def test_what_leaks(text: str, sealed: str, leaking: bool) -> None:
    assert leaks(text, [sealed]) is leaking


def test_answers_and_earlier_turns_count_and_system_prompts_do_not() -> None:
    turns = (Message("user", FIFTEEN), Message("assistant", "yes"), Message("user", "and now?"))
    records = [asked("x", completion=FIFTEEN), asked("y", rationale=FIFTEEN), Record(turns)]
    shared = Record((Message("system", FIFTEEN), Message("user", "z")))
    kept, step = decontaminate([*records, shared], [(FIFTEEN,)], STRICT)
    assert kept == [shared]
    assert step.removed == {"in the sealed evaluation": 3}


def items(start: int, count: int) -> list[str]:
    """Different words of letters."""
    return [
        "item " + np.base_repr(1000 + i, 4).translate(str.maketrans("0123", "abcd"))
        for i in range(start, start + count)
    ]


@pytest.mark.parametrize(
    ("sealed", "trained", "leaking"), [(11, 11, False), (10, 11, True), (11, 10, True), (40, 40, False), (0, 40, False)]
)
def test_wording_stands_in_many_questions_of_both_kinds(sealed: int, trained: int, leaking: bool) -> None:
    held = alone([f"{FIFTEEN} {item}" for item in items(0, sealed)])
    records = [asked(f"{FIFTEEN} object {item}") for item in items(50, trained)]
    assert caught(records, held, DEFAULT) == (list(range(trained)) if leaking else [])
    assert caught(records, held, STRICT) == (list(range(trained)) if sealed else [])


def test_the_wordings_of_a_question_count_once() -> None:
    held = [(f"{FIFTEEN} {item}", f"{FIFTEEN} {item} answer", f"{FIFTEEN} {item} [EMAIL]") for item in items(0, 6)]
    records = [asked(f"{FIFTEEN} object {item}") for item in items(50, 20)]
    assert caught(records, held, DEFAULT) == list(range(20))
    assert decontaminate(records, [*held, *held], DEFAULT)[1].figures["sealed questions"] == 6
    assert caught(records, [*held, *held], DEFAULT) == list(range(20))


def test_completions_of_one_question_count_once() -> None:
    held = alone([f"{FIFTEEN} {item}" for item in items(0, 20)])
    records = [asked("Say it!", completion=f"{FIFTEEN} {item}") for item in items(50, 40)]
    assert caught(records, held, DEFAULT) == list(range(40))


def test_a_passage_that_many_sealed_questions_share_is_no_wording() -> None:
    """At the default setting: three records hold a passage that twelve sealed questions ask about."""
    passage = "It was in the year of the flood that the miller's third daughter left for the coast with a grey horse."
    held = [(f"{passage} Who has {item}?", f"{passage} Who has {item}? Nobody.") for item in items(0, 12)]
    clear = [asked(f"Who else has {item}, and why?") for item in items(50, 30)]
    leaking = [asked(f"Translate: {passage}"), asked("Go on", completion=passage), asked("Why?", rationale=passage)]
    assert caught([*clear, *leaking], held, DEFAULT) == [30, 31, 32]
    copies = [asked(wordings[0]) for wordings in held]
    assert caught([*copies, *clear, *leaking], held, DEFAULT) == [*range(12), 42, 43, 44]


def test_the_instruction_of_a_real_task_is_excused() -> None:
    """Reasoning-gym's own wording, as the forge asks it: 50 words of instruction before each question."""
    drawn = [draw.train for draw in reasoning_draws(ReasoningTask(name="isomorphic_strings"), 80, seed=1)]
    held = [(item.prompt, f"{item.prompt} {item.answer}") for item in drawn[:40]]
    records = [asked(item.prompt, completion=item.answer) for item in drawn[40:]]
    kept, step = decontaminate(records, held, DEFAULT)
    assert (kept, step.figures["pieces that are boilerplate"] > 20) == (records, True)
    assert caught([*records, asked(held[3][0]), asked(f"Now: {held[5][0]}")], held, DEFAULT) == [40, 41]
    assert caught(records, held, STRICT) == list(range(40))


def corpus(seed: int) -> tuple[list[str], list[str]]:
    """Texts of 5 to 60 words over few words, a third of them with a piece of a sealed text."""
    rng = np.random.default_rng(seed)
    sealed = [" ".join(f"w{i}" for i in rng.integers(0, 40, rng.integers(1, 40))) for _ in range(40)]
    texts = []
    for _ in range(150):
        found = [f"w{i}" for i in rng.integers(0, 40, rng.integers(5, 60))]
        if rng.random() < 0.4:
            source = sealed[rng.integers(40)].split()
            start = int(rng.integers(len(source)))
            found[3:3] = source[start : start + int(rng.integers(1, 30))]
        texts.append(" ".join(found))
    return sealed, texts


@pytest.mark.parametrize("seed", range(3))
def test_zero_leakage_by_two_independent_checks(seed: int) -> None:
    """By the string search of `leaks.py`, and by the corpus' own check, which has other hashes."""
    sealed, texts = corpus(seed)
    kept = decontaminate([asked(text) for text in texts], alone(sealed), DEFAULT)[0]
    assert 0 < len(kept) < len(texts)
    check_no_leak(kept, alone(sealed), STRICT, among=kept)
    assert overlaps(sealed, [r.prompt for r in kept], 13).max() == 0.0
    assert overlaps(sealed, texts, 13).max() > 0


SPELT = st.text("ab +", max_size=40)


@settings(max_examples=60)
@given(st.lists(SPELT, max_size=8), st.lists(SPELT, max_size=6), st.integers(0, 2))
def test_both_searches_find_the_same(texts: list[str], sealed: list[str], boilerplate: int) -> None:
    config = Decontamination(ngram=6, boilerplate=boilerplate)
    found = caught([asked(text) for text in texts], alone(sealed), config)
    assert found == leaking_questions(texts, [], alone(sealed), config)


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_the_pattern(text: str) -> None:
    assert words(text) == _WORDS.findall(text.casefold())


def test_other_questions_tell_what_is_wording() -> None:
    held = alone([f"{FIFTEEN} {item}" for item in items(0, 20)])
    new, known = [f"{FIFTEEN} {item}" for item in items(50, 3)], [f"{FIFTEEN} {item}" for item in items(60, 9)]
    assert leaking_questions(new, known, held, DEFAULT) == []
    assert leaking_questions(new, known[:7], held, DEFAULT) == [0, 1, 2]


def test_the_second_look_names_the_record() -> None:
    with pytest.raises(
        LeakageError, match=r"1 records repeat the sealed evaluation \(first: 'one two .*…' of a.csv:3\)"
    ):
        records = [asked(FIFTEEN, source="a.csv:3"), asked("x")]
        check_no_leak(records, [(FIFTEEN,)], STRICT, among=records)


def test_batches_do_not_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillation.curation.decontamination._AT_ONCE", 2)
    half = FIFTEEN.split()
    texts = [" ".join(half[:8]), " ".join(half[8:]), "x", FIFTEEN, ""]
    assert leaking_questions(texts, [], [(FIFTEEN,)], STRICT) == [3]
    assert leaking_questions(texts, [], [], STRICT) == []
    assert words("Don't 3-4") == ["don", "t", "3", "-", "4"]
