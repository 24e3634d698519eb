"""Steps of Muon a second: ours against `torch.optim.Muon`, on the matrices of a preset.

PyTorch's iterates in bfloat16, which a processor without instructions for it has to emulate: on such a one ours should
be many times as fast, on others as fast.
"""

import torch
from transformers import LlamaForCausalLM

from phases.cognate.shape import PRESETS, Preset, llama_config
from phases.training.muon import Muon
from phases.training.optimizer import is_layer_matrix
from tests.benchmarks.pairs import Comparison, compare


def matrices(preset: Preset) -> list[torch.nn.Parameter]:
    """The matrices that Muon trains, with gradients."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config(PRESETS[preset], 2048, 0))
    chosen = [parameter for name, parameter in model.named_parameters() if is_layer_matrix(name, parameter)]
    for parameter in chosen:
        parameter.grad = torch.randn_like(parameter)
    return chosen


def steps(optimizer: torch.optim.Optimizer, count: int) -> None:
    """So many steps with the gradients that are there."""
    for _ in range(count):
        optimizer.step()


def run(preset: Preset, count: int, pairs: int) -> Comparison:
    """One comparison at one size."""
    ours, theirs = Muon(matrices(preset), 1e-4, 0.01), torch.optim.Muon(matrices(preset), lr=1e-4, weight_decay=0.01)
    return compare(
        f"Muon, {preset}",
        "steps/s",
        count,
        lambda: steps(ours, count),
        "torch.optim.Muon",
        lambda: steps(theirs, count),
        target=1.0,
        pairs=pairs,
    )
