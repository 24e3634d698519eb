"""Shingles and true similarities against Python's sets, bands against their closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.curation.shingles import _TOKENS, Shingles, tokens
from distillation.curation.signatures import SLOTS, Banding, band_hashes, banding

TEXTS = st.lists(st.text("ab c+", max_size=30), min_size=2, max_size=6)


def as_set(text: str, size: int) -> set[tuple[str, ...]]:
    words = tokens(text)
    if 0 < len(words) < size:
        return {tuple(words)}
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@given(TEXTS, st.integers(1, 4))
def test_similarities_are_those_of_sets(texts: list[str], size: int) -> None:
    shingles = Shingles.of(texts, size)
    first, second = np.triu_indices(len(texts), 1)
    sets = [as_set(text, size) for text in texts]
    expected = [len(sets[a] & sets[b]) / (len(sets[a] | sets[b]) or 1) for a, b in zip(first, second, strict=True)]
    expected = [1.0 if not sets[a] | sets[b] else e for a, b, e in zip(first, second, expected, strict=True)]
    assert shingles.jaccard(first, second).tolist() == expected
    assert shingles.sizes.tolist() == [len(s) for s in sets]


@given(TEXTS)
def test_equal_sets_have_equal_hashes(texts: list[str]) -> None:
    sets, whole = [as_set(text, 2) for text in texts], Shingles.of(texts, 2).whole()
    assert all((sets[i] == sets[0]) == (whole[i] == whole[0]) for i in range(len(texts)))


def test_a_texts_shingles_do_not_depend_on_the_others() -> None:
    alone, among = Shingles.of(["d e f g"], 3), Shingles.of(["a b c", "d e f g"], 3)
    assert alone.values.tolist() == among.values[among.starts[1] :].tolist()


def test_no_texts_and_texts_without_words() -> None:
    assert len(Shingles.of([], 3)) == 0
    assert Shingles.of(["", " \n"], 3).sizes.tolist() == [0, 0]


def test_case_and_space_do_not_count_but_symbols_do() -> None:
    assert tokens("What's  3+4?") == tokens("what's 3 + 4 ?")
    assert tokens("3+4") != tokens("3-4")
    assert tokens("東京 tower") == ["東", "京", "tower"]


@given(st.text(st.characters(max_codepoint=300)))
def test_tokens_of_ascii_are_those_of_the_pattern(text: str) -> None:
    assert tokens(text) == _TOKENS.findall(text.casefold())


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_lose_at_most_what_they_may(threshold: float) -> None:
    cut = banding(threshold)
    assert cut.missed(threshold) <= 0.003
    assert cut.rows * cut.bands <= SLOTS
    assert Banding(cut.rows + 1, SLOTS // (cut.rows + 1)).missed(threshold) > 0.003 or cut.rows == SLOTS


def test_no_net_is_fine_enough_for_a_tiny_threshold() -> None:
    assert banding(0.001) == Banding(1, SLOTS)


def test_pairs_meet_as_often_as_the_closed_form_says() -> None:
    """Similarity 0.6: 1,000 pairs of 80 words with 60 in common."""
    rng = np.random.default_rng(0)
    texts = []
    for pair in range(1000):
        shared, own = [f"s{pair}x{i}" for i in range(60)], [f"o{pair}x{i}" for i in range(40)]
        texts += [" ".join(shared + own[:20]), " ".join(shared + own[20:])]
    keys = band_hashes(Shingles.of(texts, 1), cut := banding(0.8), seed=int(rng.integers(100)))
    met = (keys[:, ::2] == keys[:, 1::2]).any(axis=0).mean()
    assert met == pytest.approx(1 - cut.missed(0.6), abs=0.05)


def test_what_is_told_apart_never_meets() -> None:
    shingles = Shingles.of(["a b c d"] * 3, 2)
    keys = band_hashes(shingles, banding(0.8), 0, np.array([1, 1, 2], dtype=np.uint64))
    assert (keys[:, 0] == keys[:, 1]).all()
    assert not (keys[:, 0] == keys[:, 2]).any()
