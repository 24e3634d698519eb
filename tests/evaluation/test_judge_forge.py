"""The verdict on a forged model: real runs on the tiny world, models damaged for one gate each, and made-up figures."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.config import EvaluationConfig
from evaluation.judge_forge import NAME, PARENT, judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from phases.bitnet.config import BitnetConfig
from phases.bitnet.run import run as run_bitnet
from phases.bitnet.storage import SETTINGS, read_settings
from phases.checkpoint import MANIFEST, Checkpoint, Manifest, open_checkpoint, write_manifest
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.forge.config import ForgeTrainingConfig
from phases.forge.history import HISTORY, read_history
from phases.forge.run import PACKED, PLAIN, run

QUICK = EvaluationConfig(resamples=300, zero_shot_items=4, thought_positions=3)
TEXT = {"text": 1.0, "reasoning": 0, "memory": 0, "copying": 0}
TRAINING = {"batch_rows": 8, "precision": "fp32", "learning_rate": 0.001}
CONFIG = {
    "training": {**TRAINING, "steps": 9},
    "stages": [{"name": "adapt"}, {"name": "dream", "dreams": True}, {"name": "self", "self_model": True}],
    "dreams": {
        "enabled": True, "prompts": 8, "prompt_tokens": 8, "new_tokens": 8, "validity": 0, "diversity": 0, "harm": 9,
    },
    "self_model": {"enabled": True},
    "mix": TEXT,
    "validation_items": 8,
    "validation_blocks": 4,
}  # fmt: skip
BETTER = {"text: better than the parent", "answers: better than the parent"}
BUDGET = {f"the control had as many {what}" for what in ("tokens", "passes")}
EQUAL = {f"{what}: no worse than the control" for what in ("text", "answers", "tasks")}
SUMS, RECALL = (f"{what}: 95% of the parent's right answers" for what in ("reasoning", "memory"))
TASKS, BITS = "tasks: no worse than the parent", "bits per byte within 5% of the parent's"
SINGLE = "no single task below 95% of the parent's right answers by 2 standard errors"
SAME_LATTICE = "on the parent's lattice"
LATTICE = {"every linear weight is on the lattice", "unpacked weights are bit for bit the same"}
SIZE = {"packed bytes are at most as promised", "packed bytes are at least as promised"}


@pytest.fixture(scope="module")
def parent(family: Checkpoint) -> Checkpoint:
    """A branch that can do sums."""
    return family.siblings["reasoning"]


@pytest.fixture(scope="module")
def made(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([parent], ForgeTrainingConfig.parse(CONFIG, "test"), tmp_path_factory.mktemp("f") / "forge", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, parent: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["forge"](made, [parent], world, QUICK)


def altered(made: Checkpoint, out: Path, change: Callable[[Path], None]) -> Checkpoint:
    """The family with changed files and manifests that say that all is well."""
    copy = Path(shutil.copytree(made.path, out / "forge"))
    change(copy)
    for folder in (*(copy / "siblings").iterdir(), copy):
        (folder / MANIFEST).unlink()
        write_manifest(folder, Manifest("forge", metrics={"passes": 3, "tokens": 1}))
    return open_checkpoint(copy)


def change_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        change(weights)
        save_file(weights, path / "model.safetensors", {"format": "pt"})

    return written


def failed(judgement: Judgement) -> set[str]:
    return {gate.name for gate in judgement.gates if not gate.passed}


def test_a_real_run_is_held_against_parent_and_control(judgement: Judgement, made: Checkpoint) -> None:
    assert {gate.name for gate in judgement.gates} == {
        "no NaN", TASKS, BITS, SINGLE, SUMS, *BETTER, *EQUAL, *BUDGET,
    }  # fmt: skip
    assert len(judgement.controls) == 10 and {control.name for control in judgement.controls} == {PARENT, PLAIN}
    for control in judgement.controls:
        assert control.n > 1 and control.stderr is not None
        assert control.difference == pytest.approx(control.ours - control.control)
    bits = {name: judgement.metric(f"{name}/bits_per_byte").value for name in (NAME, PARENT, PLAIN)}
    found = {gate.name: gate.value for gate in judgement.gates}
    assert found["text: better than the parent"] == pytest.approx(bits[PARENT] - bits[NAME], abs=1e-9)
    assert found["text: no worse than the control"] == pytest.approx(bits[PLAIN] - bits[NAME], abs=1e-9)
    text = {control.name: control.ours for control in judgement.controls if control.metric == "−bits per byte"}
    assert text == {PARENT: pytest.approx(-bits[NAME]), PLAIN: pytest.approx(-bits[NAME])}


def test_the_control_had_our_tokens_and_our_passes(judgement: Judgement, made: Checkpoint) -> None:
    ours, plain = made.manifest["metrics"], made.siblings[PLAIN].manifest["metrics"]
    assert plain["tokens"] >= ours["tokens"] > 0 and plain["passes"] >= ours["passes"] > 3 * ours["tokens"]
    assert read_history(made.path).cost == ours["passes"]
    budget = next(control.budget for control in judgement.controls if control.name == PLAIN)
    assert budget.startswith(f"{plain['tokens']:,.0f} tokens ({plain['passes']:,.0f} passes over one), ours")
    gates = {gate.name: gate for gate in judgement.gates if gate.name in BUDGET}
    assert all(gate.passed for gate in gates.values())
    for name in ("tokens", "passes"):
        found = gates[f"the control had as many {name}"]
        assert (found.value, found.comparison, found.threshold) == (plain[name], ">=", ours[name])


def test_tables_and_metrics_come_from_the_history(judgement: Judgement, made: Checkpoint) -> None:
    history = read_history(made.path)
    assert [row[0] for row in judgement.tables["stages"].rows] == [stage.name for stage in history.stages]
    (cycle,) = (stage.dreams for stage in history.stages if stage.dreams)
    assert judgement.metric("forge/dreams_written").value == cycle.written == 8
    assert history.self_knowledge and judgement.metric("forge/self_r2").value == history.self_knowledge.r2
    assert {"complexity", "retention", "unseen", "matrix", "reasoning", "dreams"} <= judgement.tables.keys()
    assert "loop" not in judgement.tables


def test_the_verdict_repeats(made: Checkpoint, parent: Checkpoint, world: Dataset, judgement: Judgement) -> None:
    assert judge(made, [parent], world, QUICK) == judgement


def test_the_parent_itself_is_no_better_than_the_parent(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    def restore(path: Path) -> None:
        shutil.copy(parent.path / "model.safetensors", path / "model.safetensors")

    verdict = judge(altered(made, tmp_path, restore), [parent], world, QUICK)
    assert failed(verdict) - EQUAL == BETTER
    assert all(gate.value == 0 for gate in verdict.gates if gate.name in BETTER)
    assert verdict.metric("forge/reasoning_retention").value == 1


def test_a_damaged_model_fails_what_it_lost(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    damage = change_weights(lambda weights: weights["model.norm.weight"].mul_(0.1))
    verdict = judge(altered(made, tmp_path, damage), [parent], world, QUICK)
    assert failed(verdict) >= {"text: better than the parent", "text: no worse than the control", BITS}
    broken = change_weights(lambda weights: weights["model.norm.weight"].neg_())
    verdict = judge(altered(made, tmp_path / "broken", broken), [parent], world, QUICK)
    assert failed(verdict) >= {*BETTER, BITS, TASKS, SINGLE, SUMS}
    assert [gate.metric for gate in verdict.gates if gate.name == SINGLE] == ["sum, cloze"]  # of every kind


def test_nan_ends_the_judgement(made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    poison = change_weights(lambda weights: weights["model.norm.weight"].fill_(math.nan))
    verdict = judge(altered(made, tmp_path, poison), [parent], world, QUICK)
    assert [gate.name for gate in verdict.gates] == ["no NaN"] and not verdict.passed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: shutil.rmtree(path / "siblings" / PLAIN), "its control plain is missing"),
        (lambda path: (path / HISTORY).unlink(), "history.json: missing"),
        (lambda path: (path / HISTORY).write_text('{"stages": [{'), "history.json: missing, truncated"),
        (lambda path: (path / HISTORY).write_text('{"stages": [], "praise": 1}'), "history.json: missing, truncated"),
    ],
)
def test_what_is_missing_is_named(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        judge(altered(made, tmp_path, damage), [parent], world, QUICK)


@pytest.fixture(scope="module")
def ternary(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    settings = {"quantisation": {"group": 16}, "mix": TEXT, "training": {**TRAINING, "steps": 2}}
    return run_bitnet([parent], BitnetConfig.parse(settings, "t"), tmp_path_factory.mktemp("t") / "bitnet", data=world)


@pytest.fixture(scope="module")
def ternary_made(ternary: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = ForgeTrainingConfig.parse({**CONFIG, "training": {**TRAINING, "steps": 3}}, "test")
    return run([ternary], config, tmp_path_factory.mktemp("g") / "forge", data=world)


def test_a_ternary_model_stays_on_its_lattice(ternary: Checkpoint, ternary_made: Checkpoint, world: Dataset) -> None:
    verdict = judge(ternary_made, [ternary], world, QUICK)
    found = LATTICE | SIZE | {SAME_LATTICE}
    assert {gate.name for gate in verdict.gates} >= found and not failed(verdict) & found
    bytes_on_disk = (ternary_made.siblings[PACKED].path / "model.safetensors").stat().st_size
    assert verdict.metric("packed/bytes").value == bytes_on_disk


def test_a_weight_off_the_lattice_fails_its_gate(
    ternary: Checkpoint, ternary_made: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    nudge = change_weights(lambda weights: weights[name].view(-1)[:5].add_(0.01))
    verdict = judge(altered(ternary_made, tmp_path, nudge), [ternary], world, QUICK)
    assert failed(verdict) & (LATTICE | SIZE | {SAME_LATTICE}) == LATTICE
    assert next(gate.value for gate in verdict.gates if gate.name == "every linear weight is on the lattice") >= 5


def test_another_group_than_the_parent_s_is_another_lattice(
    ternary: Checkpoint, ternary_made: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    """Weights on the lattice of groups of 16 are on that of 8 as well: nothing but the settings tells."""

    def regroup(path: Path) -> None:
        settings = read_settings(path)
        finer = settings.quantisation.model_copy(update={"group": 8})
        (path / SETTINGS).write_text(settings.model_copy(update={"quantisation": finer}).model_dump_json())

    verdict = judge(ternary_made, [altered(ternary, tmp_path, regroup)], world, QUICK)
    assert failed(verdict) & (LATTICE | SIZE | {SAME_LATTICE}) == {SAME_LATTICE}
    verdict = judge(altered(ternary_made, tmp_path / "ours", regroup), [ternary], world, QUICK)
    assert failed(verdict) & (LATTICE | {SAME_LATTICE}) == {SAME_LATTICE}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: shutil.rmtree(path / "siblings" / PACKED), "packed form is missing"),
        (lambda path: (path / SETTINGS).unlink(), "not ternary"),
    ],
)
def test_the_child_of_a_ternary_model_must_be_one(
    ternary: Checkpoint,
    ternary_made: Checkpoint,
    world: Dataset,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    with pytest.raises(CheckpointError, match=message):
        judge(altered(ternary_made, tmp_path, damage), [ternary], world, QUICK)
