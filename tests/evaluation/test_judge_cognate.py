"""The verdict on a family: passes when the branches are specialised, fails for each reason that it should."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.config import EvaluationConfig
from evaluation.judge_cognate import judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError, InputError
from phases.exits import exit_hidden_states

QUICK = EvaluationConfig(resamples=500)


@pytest.fixture(scope="module")
def judgement(family: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["cognate"](family, [], world, QUICK)


def rebuilt(family: Checkpoint, out: Path, **models: Any) -> Checkpoint:
    """The family with some siblings replaced."""
    paths = {name: sibling.path for name, sibling in family.siblings.items()}
    for name, model in models.items():
        paths[name] = save_checkpoint(out / name, model, family.tokenizer(), Manifest(name)).path
    shutil.copytree(family.path, out / "root", ignore=shutil.ignore_patterns("siblings"))
    manifest = save_checkpoint(out / "trunk", family.model(), family.tokenizer(), Manifest("cognate"))
    return save_family(out / "family", manifest.path, paths)


def test_a_specialised_family_passes(judgement: Judgement) -> None:
    assert judgement.passed, [g for g in judgement.gates if not g.passed]
    assert len(judgement.gates) == 8  # NaN, four floors, three diagonals


def test_every_metric_has_n_and_stderr(judgement: Judgement) -> None:
    for metric in judgement.metrics:
        assert metric.n >= 2
        assert metric.stderr is not None or metric.name == "not_finite_blocks"


def test_each_branch_beats_the_control_at_its_own(judgement: Judgement) -> None:
    assert [c.metric.split("/")[0] for c in judgement.controls] == ["reasoning", "memory", "adaptive"]
    for control in judgement.controls:
        assert control.difference > 2 * (control.stderr or 0)
        assert control.budget.endswith("tokens each")


def test_branch_metrics_stand_next_to_the_trunk(judgement: Judgement) -> None:
    trunk = judgement.metric("trunk/bits_per_byte")
    assert trunk.parent is None
    assert judgement.metric("memory/bits_per_byte").parent == trunk.value


def test_half_depth_metric_is_next_token_accuracy(judgement: Judgement, family: Checkpoint, world: Dataset) -> None:
    model = family.siblings["adaptive"].model()
    text = torch.from_numpy(np.asarray(world.blocks("test", "text")).astype(np.int64))
    logits = model.lm_head(exit_hidden_states(model, text[:, :-1], (1,))[0])
    expected = (logits.argmax(-1) == text[:, 1:]).double().mean().item()
    assert judgement.metric("adaptive/half_depth_accuracy").value == pytest.approx(expected)


def test_adaptive_leaves_earlier_than_the_trunk(judgement: Judgement) -> None:
    ours, trunk = (judgement.metric(f"{name}/exit_depth") for name in ("adaptive", "trunk"))
    assert ours.value < trunk.value - 0.5


def test_every_gate_has_a_metric_with_n(judgement: Judgement) -> None:
    for gate in judgement.gates:
        assert judgement.metric(gate.metric).value == gate.value


def test_tables_cover_models_and_groups(judgement: Judgement) -> None:
    assert [row[0] for row in judgement.tables["matrix"].rows] == [
        "trunk",
        "reasoning",
        "memory",
        "adaptive",
        "control",
    ]
    assert [row[:2] for row in judgement.tables["recall"].rows] == [(1, 15), (2, 15)]


def test_judging_twice_is_equal(judgement: Judgement, family: Checkpoint, world: Dataset) -> None:
    assert judge(family, [], world, QUICK) == judgement


def test_swapped_branches_fail_their_gates(family: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    models = {name: c.model() for name, c in family.siblings.items()}
    swapped = rebuilt(family, tmp_path, reasoning=models["memory"], memory=models["reasoning"])
    failed = [g.name for g in judge(swapped, [], world, QUICK).gates if not g.passed]
    assert len(failed) == 2 and failed[0].startswith("reasoning is") and failed[1].startswith("memory is")


def test_a_nan_model_fails_and_nothing_else_is_claimed(family: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    broken = family.siblings["adaptive"].model()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    result = judge(rebuilt(family, tmp_path, adaptive=broken), [], world, QUICK)
    assert not result.passed and len(result.metrics) == len(result.gates) == 1 and result.gates[0].value == 80


def test_a_checkpoint_without_siblings_is_refused(family: Checkpoint, world: Dataset) -> None:
    with pytest.raises(CheckpointError, match="no sibling reasoning, memory, adaptive, control"):
        judge(family.siblings["memory"], [], world, QUICK)


def test_a_model_of_another_vocabulary_is_refused(world: Dataset, tmp_path: Path, family: Checkpoint) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    )
    with pytest.raises(InputError, match="vocabulary ends at 49"):
        judge(rebuilt(family, tmp_path, memory=small.eval()), [], world, QUICK)
