"""Grokfast-EMA against sums written out by hand."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phases.forge.config import Grokfast
from phases.forge.grokfast import GradientFilter

SETTINGS = Grokfast(enabled=True, alpha=0.75, amplify=2.0)


def module(*names: str) -> torch.nn.ParameterDict:
    return torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(2)) for name in names})


def filtered(filter: GradientFilter, parameter: torch.nn.Parameter, gradient: list[float]) -> list[float]:
    parameter.grad = torch.tensor(gradient)
    filter.apply()
    return parameter.grad.tolist()


def test_four_steps_by_hand() -> None:
    held = module("a")
    made = GradientFilter(held, SETTINGS)
    # μ: 4; 0.75 · 4 + 0.25 · 0 = 3; 0.75 · 3 − 0.25 · 8 = 0.25; 0.75 · 0.25 + 0.25 · 1 = 0.4375
    assert filtered(made, held["a"], [4.0, -1.0]) == [4 + 2 * 4, -1 - 2]
    assert filtered(made, held["a"], [0.0, -1.0]) == [0 + 2 * 3, -3]
    assert filtered(made, held["a"], [-8.0, -1.0]) == [-8 + 2 * 0.25, -3]
    assert filtered(made, held["a"], [1.0, -1.0]) == [1 + 2 * 0.4375, -3]


def test_the_slow_part_is_amplified_and_the_fast_part_is_not() -> None:
    held = module("a")
    made = GradientFilter(held, Grokfast(alpha=0.98, amplify=5.0))
    for step in range(600):
        slow, fast = filtered(made, held["a"], [1.0, (-1.0) ** step])
    assert slow == pytest.approx(6)
    assert fast == pytest.approx(-1, abs=0.06)  # an alternating gradient passes as it is: 5 · 0.02 / 1.98 of it added


def test_amplify_0_changes_nothing() -> None:
    held = module("a")
    made = GradientFilter(held, Grokfast(amplify=0.0))
    for gradient in ([0.3, -7.0], [2.0, 1e-8]):
        assert torch.equal(torch.tensor(filtered(made, held["a"], gradient)), torch.tensor(gradient))


def test_a_parameter_without_gradient_is_left_out_and_starts_at_its_own_first() -> None:
    held = module("a", "b")
    made = GradientFilter(held, SETTINGS)
    filtered(made, held["a"], [4.0, 4.0])
    assert held["b"].grad is None and list(made.state()) == ["a"]
    held["a"].grad = None
    assert filtered(made, held["b"], [1.0, 2.0]) == [3, 6]
    assert made.state()["a"].tolist() == [4, 4]


def test_a_resumed_filter_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 2, generator=generator).tolist()
    held = module("a", "b")
    made = GradientFilter(held, SETTINGS)
    for gradient in gradients[:3]:
        filtered(made, held["a"], gradient)
    saved = made.state()
    save_file(saved, tmp_path / "state.safetensors")
    whole = [filtered(made, held["a"], gradient) for gradient in gradients[3:]]
    again = module("a", "b")
    resumed = GradientFilter(again, SETTINGS)
    resumed.load(saved)
    filtered(resumed, again["a"], gradients[3])  # what was saved is a copy, going in and coming out
    assert torch.equal(saved["a"], load_file(tmp_path / "state.safetensors")["a"])
    resumed.load(saved)
    assert [filtered(resumed, again["a"], gradient) for gradient in gradients[3:]] == whole
    with pytest.raises(KeyError):
        resumed.load({"c": torch.zeros(2)})
