"""Codec after codec at one budget: a stage that does not help leaves the weights of the one before, and proves it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from phases.checkpoint import Manifest, save_checkpoint
from phases.compression.calibration import Calibration
from phases.compression.config import CompressionConfig
from phases.compression.press import Press
from phases.compression.staging import Plan, Staging, Weights
from phases.dataset import Dataset
from phases.errors import CheckpointError

CONFIG = CompressionConfig.parse(
    {
        "codecs": {"thresholds": [0.5, 1.0], "vectors": [4, 8], "codebook_size": 16, "group": 16, "hyper_bits": [4]},
        "calibration_rows": 1,
        "standing_rows": 1,
    },
    "test",
)
BUDGET = 9_000
WORSE = (0.1, 0.2, 0.3, 0.4)
"""Divergences of stages of which only the first helps."""


@pytest.fixture
def staging(make_model: Any, tiny_data: Dataset, tmp_path: Path) -> Staging:
    parent = save_checkpoint(tmp_path / "parent", make_model("llama", 32), tiny_data.tokenizer, Manifest("cognate"))
    return Press(parent, tiny_data, CONFIG, tmp_path, lambda *_: None).staging()


def planned(staging: Staging, divergences: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, int]:
    """A plan whose models have these divergences, one after the other, and how many models were measured."""
    left = list(divergences)
    with monkeypatch.context() as patch:
        patch.setattr(Calibration, "divergence", lambda *_: left.pop(0))
        return staging.plan(BUDGET), len(divergences) - len(left)


def digest(model: Any) -> str:
    """Written anew: of all parameters in the order of their names."""
    found = hashlib.sha256()
    for _, param in sorted(model.named_parameters()):
        found.update(param.detach().numpy().tobytes())
    return found.hexdigest()


def test_what_is_rolled_back_is_the_weights_themselves(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the model after every stage, not from what the stage says of itself."""
    steps, after = staging._steps(), []
    for count in range(1, len(steps) + 1):
        monkeypatch.setattr(staging, "_steps", lambda count=count: steps[:count])
        plan, measured = planned(staging, WORSE, monkeypatch)
        after.append((digest(staging.model), plan.stages[-1], measured))
    assert [stage.kept for _, stage, _ in after] == [True, False, False, False]
    assert after[-1][2] > 1  # so other weights were there in between
    assert {found for found, _, _ in after} == {after[0][0]} == {stage.digest for _, stage, _ in after}
    weights = plan.stored.weights()
    assert all(torch.equal(param, weights[name]) for name, param in staging.model.named_parameters())
    assert plan.measured[0] == WORSE[0]


def test_a_stage_that_helps_changes_the_weights(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, measured = planned(staging, WORSE[::-1], monkeypatch)
    kept = [stage for stage in plan.stages if stage.kept]
    assert measured == len(kept) == len({stage.digest for stage in kept}) > 1
    assert digest(staging.model) == kept[-1].digest and plan.measured[0] == kept[-1].divergence


def test_bytes_before_are_those_of_the_last_stage_that_was_kept(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = planned(staging, WORSE, monkeypatch)
    first, *rest = plan.stages
    assert first.bytes_before == 4 * sum(param.numel() for param in staging.model.parameters())
    assert {stage.bytes_before for stage in rest} == {first.bytes}


def test_weights_that_do_not_come_back_are_an_error(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    put, last = Staging._put, []

    def broken(self: Staging, weights: Weights) -> None:
        """Puts back the parent's and any model's that is new; what was there before comes back damaged."""
        put(self, weights)
        if any(all(torch.equal(weights[n], known[n]) for n in known) for known in last[1:]):
            next(iter(self.params.values())).view(-1)[0] += 1
        last.append({name: tensor.clone() for name, tensor in weights.items()})

    monkeypatch.setattr(Staging, "_put", torch.no_grad()(broken))
    with pytest.raises(CheckpointError, match="compression: the weights before '.*' did not come back; run it again"):
        planned(staging, WORSE, monkeypatch)
