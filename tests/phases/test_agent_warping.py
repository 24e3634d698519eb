"""Cuts of the distribution against transformers' own; draws against the distribution that is left."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from phases.agent import warping
from phases.agent.design import Decoding
from phases.agent.warping import warp
from phases.decoding import Sampler

Cut = Callable[[torch.Tensor], torch.Tensor]
CHI_SQUARE_3 = 16.27
"""Exceeded by chance once in a thousand (3 degrees of freedom)."""


def logits(rows: int = 60, words: int = 50) -> torch.Tensor:
    """Rows from flat to sharp, some of whose tokens are out of the question."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(rows, words, generator=generator, dtype=torch.float64)
    made *= torch.linspace(0.05, 6, rows, dtype=torch.float64)[:, None]
    made[::3, :20] = -torch.inf
    return made


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        *((lambda x, k=k: warping.top_k(x, k), theirs.TopKLogitsWarper(k)) for k in (1, 7, 500)),
        *((lambda x, p=p: warping.top_p(x, p), theirs.TopPLogitsWarper(p)) for p in (0.01, 0.5, 0.9, 1.0)),
        *((lambda x, p=p: warping.min_p(x, p), theirs.MinPLogitsWarper(p)) for p in (0.05, 0.5, 1.0)),
        *((lambda x, p=p: warping.typical(x, p), theirs.TypicalLogitsWarper(p)) for p in (0.05, 0.5, 0.9)),
        *((lambda x, e=e: warping.epsilon(x, e), theirs.EpsilonLogitsWarper(e)) for e in (0.001, 0.05, 0.9)),
        *((lambda x, e=e: warping.eta(x, e), theirs.EtaLogitsWarper(e)) for e in (0.001, 0.05, 0.9)),
    ],
)
def test_each_cut_is_that_of_transformers(ours: Cut, reference: Cut) -> None:
    before = logits()
    # One of them finds the entropy of what is out of the question to be no number.
    before = before.clamp(min=-200) if isinstance(reference, theirs.EtaLogitsWarper) else before
    expected = reference(torch.zeros(60, 1, dtype=torch.long), before.clone())  # type: ignore[call-arg]
    assert torch.equal(ours(before), expected)


def test_top_n_sigma_is_its_formula_on_the_logits_that_there_are() -> None:
    before = logits()
    for row, after in zip(before.numpy(), warping.top_n_sigma(before, 1.5).numpy(), strict=True):
        there = row[np.isfinite(row)]
        kept = row >= there.max() - 1.5 * there.std(ddof=1)
        assert np.array_equal(after, np.where(kept, row, -np.inf))


def test_top_n_sigma_keeps_the_same_tokens_at_any_temperature() -> None:
    before = logits()
    kept = warping.top_n_sigma(before, 1.0).isfinite()
    assert torch.equal(kept, warping.top_n_sigma(before / 3, 1.0).isfinite())
    assert 0 < kept.sum() < before.isfinite().sum()


def test_the_temperature_of_the_moment_is_its_formula_and_colder_where_the_model_is_sure() -> None:
    before = logits()
    found = warping.entropy_temperature(before, torch.full((60, 1), 0.7))[:, 0]
    for row, temperature in zip(before, found.tolist(), strict=True):
        entropy = float(torch.distributions.Categorical(logits=row.clamp(min=-1e9)).entropy())
        assert temperature == pytest.approx(0.7 * max(0.01, 0.8 ** (1.0 / entropy)))
    assert found[1] > found[40]  # flat, sharp
    sure = warping.entropy_temperature(torch.tensor([[0.0, 900.0]]), torch.ones(1, 1))
    assert float(sure) == pytest.approx(0.01)


def test_all_of_them_follow_each_other_as_in_transformers() -> None:
    decoding = Decoding(temperature=0.8, top_k=30, top_p=0.95, min_p=0.02, typical_p=0.9, epsilon=0.01, eta=0.02)
    chain = theirs.LogitsProcessorList(
        [
            theirs.TemperatureLogitsWarper(0.8),
            theirs.TopKLogitsWarper(30),
            theirs.TopPLogitsWarper(0.95),
            theirs.MinPLogitsWarper(0.02),
            theirs.TypicalLogitsWarper(0.9),
            theirs.EpsilonLogitsWarper(0.01),
        ]
    )
    expected = chain(torch.zeros(60, 1, dtype=torch.long), logits())
    expected = torch.where(expected.isfinite(), theirs.EtaLogitsWarper(0.02)(None, expected.clamp(min=-1e9)), expected)
    assert torch.equal(warp(decoding)(logits(), torch.full((60, 1), 0.8, dtype=torch.float64)), expected)


def test_nothing_set_is_the_temperature_only() -> None:
    temperature = torch.full((60, 1), 0.7, dtype=torch.float64)
    assert torch.equal(warp(Decoding())(logits(), temperature), logits() / temperature)


def test_draws_follow_what_is_left() -> None:
    row = torch.tensor([2.0, 1.0, 0.5, 0.0, -3.0, -4.0])
    count, decoding = 4000, Decoding(top_p=0.95)
    sampler = Sampler([1.3] * count, [1], warp(decoding))
    seen = np.bincount(sampler(row.expand(count, -1), range(count)).numpy(), minlength=6)
    chance = np.exp(row[:4].numpy() / 1.3) / np.exp(row[:4].numpy() / 1.3).sum()
    assert seen[4:].sum() == 0
    assert float(((seen[:4] - count * chance) ** 2 / (count * chance)).sum()) < CHI_SQUARE_3


def test_the_draw_is_the_one_that_the_noise_of_the_prompt_gives() -> None:
    before = logits(8)
    sampler = Sampler([0.5] * 8, [3, 1], warp(Decoding(top_k=5)))
    drawn = sampler(before, range(8)).tolist()
    for i, row in enumerate(before.numpy()):
        noise = np.random.default_rng([3, 1, i]).gumbel(size=len(row))
        kept = np.argsort(-row)[:5]
        assert drawn[i] == kept[np.argmax((row / 0.5 + noise)[kept])]


def test_entropy_is_in_nats() -> None:
    assert float(warping.entropy(torch.zeros(1, 8))) == pytest.approx(math.log(8))
