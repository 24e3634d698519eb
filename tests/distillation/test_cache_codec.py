"""Stored distributions: bits there and back, their number, and draws against their probabilities."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.cache.codec import CODE_BITS, CODE_STEPS, Codec, Integers, ghost_codes
from distillation.cache.draw import draw, likeliest, strata, summary
from distillation.cache.storing import fitting_codec, store_row


def most_bytes(codec: Codec) -> float:
    """Of a position, whatever it holds: heads, low bits, a 1 for each gap, and a 0 for every 2^width of the whole."""
    head = codec.size * (1 if codec.kind == "sampled" else CODE_BITS)
    sizes = range(1, codec.size + 1) if codec.kind == "sampled" else (codec.size,)
    wide = [max(0, int(0.69 * codec.vocabulary / ids).bit_length() - 1) for ids in sizes]
    return (head + max(n * (w + 1) + (codec.vocabulary >> w) for n, w in zip(sizes, wide, strict=True))) / 8


def random_draws(positions: int, vocabulary: int, draws: int, peak: float, seed: int) -> tuple[Integers, ...]:
    """Sorted draws of each position as (sizes, ids, counts), by numpy alone."""
    generator = np.random.default_rng(seed)
    sizes, ids, counts = [], [], []
    for _ in range(positions):
        drawn = np.floor(vocabulary * generator.random(draws) ** peak).astype(np.int64)
        unique, count = np.unique(drawn, return_counts=True)
        sizes.append(len(unique))
        ids.append(unique)
        counts.append(count)
    return np.array(sizes), np.concatenate(ids), np.concatenate(counts)


@settings(deadline=None, max_examples=40)
@given(
    positions=st.integers(1, 30),
    vocabulary=st.sampled_from([1, 2, 23, 257, 2048, 32_000, 151_936, 262_144]),
    draws=st.sampled_from([1, 2, 7, 22, 64]),
    peak=st.sampled_from([0.1, 1.0, 3.0, 40.0]),
    seed=st.integers(0, 10**6),
)
def test_draws_come_back(positions: int, vocabulary: int, draws: int, peak: float, seed: int) -> None:
    sizes, ids, counts = random_draws(positions, vocabulary, draws, peak, seed)
    codec = Codec("sampled", vocabulary, draws)
    raw = codec.encode(sizes, ids, counts)
    ids_PK, share_PK = codec.decode(raw, positions)
    assert ids_PK[share_PK > 0].tolist() == ids.tolist()
    np.testing.assert_array_equal(share_PK[share_PK > 0], counts.astype(np.float32) / np.float32(draws))
    assert (share_PK > 0).sum(1).tolist() == sizes.tolist()
    assert len(raw) <= positions * most_bytes(codec) + 1


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.sampled_from([16, 2048, 151_936]), st.integers(1, 16), st.integers(0, 10**6))
def test_the_likeliest_come_back_within_a_percent(positions: int, vocabulary: int, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    probability = torch.softmax(3 * torch.randn(positions, vocabulary), 1)
    sizes, ids, codes = likeliest(probability, count)
    codec = Codec("ghost", vocabulary, count)
    raw = codec.encode(sizes, ids, codes)
    ids_PK, share_PK = codec.decode(raw, positions)
    assert ids_PK.reshape(-1).tolist() == ids.tolist()
    exact = probability.gather(1, torch.from_numpy(ids_PK)).clamp(min=np.exp(-1023 / CODE_STEPS))
    np.testing.assert_allclose(share_PK, exact, rtol=0.0079)
    assert sorted(ids_PK[0]) == sorted(probability[0].topk(count).indices.tolist())
    assert len(raw) <= positions * most_bytes(codec) + 1


def test_codes_of_probabilities_end_where_their_bits_do() -> None:
    assert ghost_codes(np.array([1.0, np.exp(-1.0), 1e-30, 0.0])).tolist() == [0, 64, 1023, 1023]


def test_a_position_never_takes_more_than_it_can() -> None:
    assert [most_bytes(Codec("sampled", v, 22)) for v in (100, 2048, 32_000, 151_936)] == [14.5, 26.0, 38.0, 43.125]


@pytest.mark.parametrize("kind", ["sampled", "ghost"])
@pytest.mark.parametrize("sharp", [0.0, 2.0, 50.0])
def test_as_many_are_stored_as_there_is_room_for(kind: Any, sharp: float) -> None:
    rows = [(row, torch.softmax(sharp * torch.randn(20, 2048), 1)) for row in range(4)]
    found = fitting_codec(kind, 2048, 60, 30.0, iter(rows), 0)

    def taken(size: int) -> float:
        return sum(len(store_row(Codec(kind, 2048, size), p, 0, row)) for row, p in rows) / 80

    assert taken(found.size) <= 30 and (found.size == 60 or taken(round(found.size / 0.94)) > 30)
    assert fitting_codec(kind, 2048, 60, 0.1, iter(rows), 0).size == 1
    assert fitting_codec(kind, 2048, 60, 1e9, iter(rows), 0).size == 60


def test_draws_are_those_of_numpy() -> None:
    probability, uniform = torch.softmax(torch.randn(9, 50), 1), strata([1], 9, 22)
    sizes, ids, counts = draw(probability, uniform)
    expected = []
    for p, u in zip(probability.double().numpy(), uniform.numpy(), strict=True):
        total = np.cumsum(p)
        expected.append(np.unique(np.searchsorted(total, u * total[-1], side="right"), return_counts=True))
    assert sizes.tolist() == [len(i) for i, _ in expected]
    assert ids.tolist() == [i for one, _ in expected for i in one]
    assert counts.tolist() == [c for _, one in expected for c in one]


def test_counts_are_unbiased_and_never_far_off() -> None:
    probability = torch.softmax(2 * torch.randn(1, 30), 1)
    probability[0, 5] = 0
    probability /= probability.sum()
    trials, n = 4000, 22
    sizes, ids, counts = draw(probability.expand(trials, -1), strata([0], trials, n))
    count_TV = np.zeros((trials, 30))
    count_TV[np.repeat(np.arange(trials), sizes), ids] = counts
    assert np.abs(count_TV - n * probability.numpy()).max() < 2
    mean = count_TV.mean(0) / n
    noise = np.sqrt(probability[0].numpy() / n / trials)  # more than stratified draws have
    assert (np.abs(mean - probability[0].numpy()) <= 4 * noise).all() and mean[5] == 0


@pytest.mark.parametrize("token", [0, 3, 6])
def test_a_certain_token_takes_all_draws(token: int) -> None:
    certain = torch.nn.functional.one_hot(torch.tensor([token]), 7).float()
    sizes, ids, counts = draw(certain, strata([0], 1, 22))
    assert (sizes.tolist(), ids.tolist(), counts.tolist()) == ([1], [token], [22])


def test_the_summary_is_entropy_and_mass() -> None:
    probability = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(summary(probability, (1, 2, 9)), [1.5 * np.log(2), 1.5, 1.75, 2.0], rtol=1e-6)
