"""Nothing sealed stays: leaks are found, two searches that share no code agree, wording that all share is excused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.curation.decontamination import Decontamination, decontaminate, leaking_texts, words
from distillation.curation.leaks import check_no_leak
from distillation.record import Message, Record, asked
from phases.data.leakage import overlaps
from phases.errors import LeakageError

STRICT = Decontamination(boilerplate=0)
FIFTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
TWELVE = " ".join(FIFTEEN.split()[:12])


def leaks(text: str, sealed: list[str], config: Decontamination = STRICT) -> bool:
    return decontaminate([asked(text)], sealed, config)[0] == []


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
    kept, step = decontaminate([*records, shared], [FIFTEEN], STRICT)
    assert kept == [shared]
    assert step.removed == {"in the sealed evaluation": 3}


def test_words_that_many_sealed_texts_share_are_wording() -> None:
    sealed = [f"{FIFTEEN} item {chr(97 + i) * 3}" for i in range(11)]
    config = Decontamination(boilerplate=10)
    kept, step = decontaminate([asked(f"{FIFTEEN} object"), asked(sealed[3])], sealed, config)
    assert [r.prompt for r in kept] == [f"{FIFTEEN} object"]
    assert step.figures == {"sealed texts": 11, "pieces that are boilerplate": 4}
    assert leaks(f"{FIFTEEN} object", sealed, Decontamination(boilerplate=11))
    assert leaks(f"{FIFTEEN} object", sealed, STRICT)


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
    kept = decontaminate([asked(text) for text in texts], sealed, STRICT)[0]
    assert 0 < len(kept) < len(texts)
    check_no_leak(kept, sealed, STRICT)
    assert overlaps(sealed, [r.prompt for r in kept], 13).max() == 0.0
    assert overlaps(sealed, texts, 13).max() > 0


@settings(max_examples=40)
@given(st.lists(st.text("ab +", max_size=40), max_size=6), st.lists(st.text("ab +", max_size=40), max_size=4))
def test_both_searches_find_the_same(texts: list[str], sealed: list[str]) -> None:
    config = Decontamination(ngram=6, boilerplate=2)
    found = leaking_texts(texts, texts, sealed, config)[0]
    again = []
    for i, text in enumerate(texts):
        try:
            check_no_leak([asked(text)], sealed, config)
        except LeakageError:
            again.append(i)
    assert found == again


def test_the_second_look_names_the_record() -> None:
    with pytest.raises(
        LeakageError, match=r"1 records repeat the sealed evaluation \(first: 'one two .*…' of a.csv:3\)"
    ):
        check_no_leak([asked(FIFTEEN, source="a.csv:3"), asked("x")], [FIFTEEN], STRICT)


def test_batches_do_not_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillation.curation.decontamination._AT_ONCE", 2)
    half = FIFTEEN.split()
    texts = [" ".join(half[:8]), " ".join(half[8:]), "x", FIFTEEN, ""]
    assert leaking_texts(texts, texts, [FIFTEEN], STRICT)[0] == [3]
    assert leaking_texts(texts, texts, [], STRICT) == ([], 0)
    assert words("Don't 3-4") == ["don", "t", "3", "-", "4"]
