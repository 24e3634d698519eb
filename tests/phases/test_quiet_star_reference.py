"""Our Quiet-STaR step against the reference algorithm: the same thoughts give the same loss and gradients."""

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.quiet_star import objective
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.thinker import Sampled, Thinker
from tests.benchmarks.quiet_star_reference import QuietStarReference

ROWS, TIME, SAMPLES, LENGTH, AHEAD = 2, 12, 2, 3, 3
PLACES = TIME - AHEAD + 1
START, END = 255, 256
PROGRESS = 1.0
"""Past any warm-up of the mixing head."""
PAPER: dict[str, Any] = {}
OTHER: dict[str, Any] = {"positive_only": False, "temperature": 3.0, "weight": 5.0}


@pytest.fixture
def thinker(tiny_model: LlamaForCausalLM) -> Thinker:
    head = MixingHead(tiny_model.config.hidden_size, start=0.3)
    # A head that says the same everywhere would hide a wrong input to it.
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Thinker(tiny_model, head, START, END)


def loss_and_gradients(made: torch.nn.Module, tokens_BT: torch.Tensor, weight_BT: torch.Tensor) -> dict[str, Any]:
    loss, (names, parameters) = made(tokens_BT, weight_BT, PROGRESS), zip(*made.named_parameters(), strict=True)
    return {"loss": loss} | dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("reinforce", [PAPER, OTHER])
def test_a_step_is_that_of_the_reference(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch, even: bool, reinforce: dict[str, Any]
) -> None:
    thoughts = {"tokens": LENGTH, "samples": SAMPLES, "positions": None, "ahead": AHEAD}
    config = QuietStarConfig.parse(
        {"thoughts": thoughts, "reinforce": reinforce, "fluency": 0.0, "alone_after": 0.0}, "quiet_star"
    )
    ours, reference = QuietStar(thinker, config), QuietStarReference(thinker, config)
    tokens_BT = torch.randint(0, START, (ROWS, TIME + 1))
    weight_BT = torch.ones(ROWS, TIME) if even else torch.rand(ROWS, TIME)
    weight_BT = weight_BT / weight_BT.sum(1, keepdim=True)
    # The same thoughts: (sample, place) within a row here, (row, sample) and places that think in vain there.
    thought_BSTn = torch.randint(0, START, (ROWS, SAMPLES, TIME, LENGTH))
    sampled = Sampled(thought_BSTn[:, :, :PLACES].flatten(1, 2), entropy=0.0)
    monkeypatch.setattr(objective, "sample_thoughts", lambda *_: (sampled, None))
    pinned = iter(thought_BSTn.flatten(0, 1).unbind(-1))
    monkeypatch.setattr(reference, "draw", lambda _: next(pinned))

    expected = loss_and_gradients(reference, tokens_BT, weight_BT)
    for name, value in loss_and_gradients(ours, tokens_BT, weight_BT).items():
        assert (value - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
