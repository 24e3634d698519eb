"""Complexity measures against closed forms."""

import math

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.forge.complexity import (
    activation_rank,
    effective_rank,
    matrices,
    mean_rank,
    weight_width,
)


def made(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_width_of_known_distributions() -> None:
    gauss = weight_width([3 * torch.randn(200, 1000, generator=made())])
    assert gauss.deviation == pytest.approx(math.sqrt(math.pi / 2), rel=0.01)
    assert gauss.interdecile == pytest.approx(2 * 1.28155 / math.sqrt(2 / math.pi), rel=0.01)
    even = weight_width([torch.linspace(-1, 0, 5001), torch.linspace(0, 1, 5001).view(3, -1)])
    assert even.deviation == pytest.approx(2 / math.sqrt(3), rel=0.001)
    assert even.interdecile == pytest.approx(3.2, rel=0.001)


def test_width_is_of_all_tensors_together() -> None:
    width = weight_width([torch.full((2, 2), 2.0), torch.zeros(4)])
    assert (width.deviation, width.interdecile) == (1, 2)


def test_effective_rank() -> None:
    turned = torch.linalg.qr(torch.randn(6, 6, generator=made()))[0]
    assert effective_rank(turned) == pytest.approx(6)
    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 8))) == pytest.approx(1, abs=1e-5)
    # Shares ½, ¼, ¼: entropy 1.5 ln 2.
    assert effective_rank(turned[:3] * torch.tensor([[2.0], [1.0], [1.0]])) == pytest.approx(2**1.5)
    assert effective_rank(torch.zeros(3, 4)) == 0
    assert mean_rank([torch.eye(4), torch.ones(4, 9)]) == pytest.approx((1 + 1 / 4) / 2)


def test_activations_are_ranked_around_their_mean() -> None:
    centre = 100 * torch.randn(5, generator=made())
    assert activation_rank(centre.expand(9, 5)) == 0
    cross = torch.cat([torch.eye(5), -torch.eye(5)])
    assert activation_rank(cross + centre) == pytest.approx(5, rel=1e-4)
    assert activation_rank(cross[[0, 1, 5, 6]] + centre) == pytest.approx(2, rel=1e-4)


def test_a_models_matrices(tiny_model: LlamaForCausalLM) -> None:
    kinds = matrices(tiny_model)
    assert {name: len(tensors) for name, tensors in kinds.items()} == {"layers": 21, "embeddings": 1, "all": 22}
