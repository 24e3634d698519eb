"""The verdict on a ternary model: real training on the tiny world, and models that were made to fail one gate each."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.config import EvaluationConfig
from evaluation.judge_bitnet import INT8, NAME, NF4, PARENT, ROUNDED, judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from evaluation.metric import Gate
from evaluation.packed_file import inspect_packed
from phases.bitnet.config import BitnetConfig
from phases.bitnet.run import FULL_PRECISION, NO_TEACHER, PACKED, run
from phases.checkpoint import MANIFEST, Checkpoint, Manifest, open_checkpoint, write_manifest
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.packed.file import pack_checkpoint

QUICK = EvaluationConfig(resamples=300, zero_shot_items=4, thought_positions=3)
CONFIG = {
    "quantisation": {"group": 16},
    "mix": {"text": 1.0, "reasoning": 0, "memory": 0, "copying": 0},
    "training": {"steps": 40, "batch_rows": 8, "precision": "fp32", "learning_rate": 0.003},
}


@pytest.fixture(scope="module")
def parent(family: Checkpoint) -> Checkpoint:
    """A branch that can do sums."""
    return family.siblings["reasoning"]


@pytest.fixture(scope="module")
def made(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([parent], BitnetConfig.parse(CONFIG, "test"), tmp_path_factory.mktemp("ternary") / "bitnet", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, parent: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["bitnet"](made, [parent], world, QUICK)


def altered(made: Checkpoint, out: Path, change: Callable[[Path], None]) -> Checkpoint:
    """The family with changed files and manifests that say that all is well."""
    copy = Path(shutil.copytree(made.path, out / "bitnet"))
    change(copy)
    for folder in (*(copy / "siblings").iterdir(), copy):
        (folder / MANIFEST).unlink()
        write_manifest(folder, Manifest("bitnet", metrics={"steps": 1, "tokens": 1}))
    return open_checkpoint(copy)


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def gates(judgement: Judgement) -> dict[str, Gate]:
    return {gate.name.split(":")[0].split(" within")[0]: gate for gate in judgement.gates}


def failed(judgement: Judgement) -> set[str]:
    return {name for name, gate in gates(judgement).items() if not gate.passed}


def test_a_real_run_is_measured_against_everything(judgement: Judgement, made: Checkpoint) -> None:
    names = {control.name for control in judgement.controls}
    assert names == {PARENT, ROUNDED, NO_TEACHER, FULL_PRECISION, NF4, INT8}
    for control in judgement.controls:
        assert control.n > 1 and control.stderr is not None and "bytes of weights" in control.budget
        assert control.difference == pytest.approx(control.ours - control.control)
    assert all("the same 40 steps" in c.budget for c in judgement.controls if c.name in (NO_TEACHER, FULL_PRECISION))
    rows = {row[0]: row for row in judgement.tables["rivals"].rows}
    assert rows[NAME][1] == rows[ROUNDED][1] == (made.siblings[PACKED].path / "model.safetensors").stat().st_size
    sizes = [int(rows[name][1] or 0) for name in (NAME, NF4, INT8, PARENT)]
    assert sizes == sorted(sizes)
    assert judgement.metric("bitnet/tasks_retention").stderr is not None
    assert len(judgement.tables["retention"].rows) == 3  # sum, recall, cloze


def test_what_training_regains_on_the_text(judgement: Judgement) -> None:
    """Rounding alone destroys what a model of two layers knew; forty steps bring most of it back."""
    rows = {str(row[0]): float(row[3] or 0) for row in judgement.tables["rivals"].rows}
    assert rows[NAME] < 0.9 * rows[ROUNDED]
    assert gates(judgement)["beats rounding at equal bytes"].passed


def test_retention_is_a_ratio_of_the_same_items(judgement: Judgement) -> None:
    ours, parent = (judgement.metric(f"{name}/reasoning_exact_match").value for name in (NAME, PARENT))
    assert judgement.metric("bitnet/reasoning_retention").value == pytest.approx(ours / parent)
    gate = gates(judgement)["reasoning"]
    assert (
        gate.value == pytest.approx(ours / parent) and gate.threshold == 0.95 and gate.passed == (ours / parent >= 0.95)
    )
    bits = judgement.metric(f"{PARENT}/bits_per_byte").value
    limits = [gate.threshold for gate in judgement.gates if "bits per byte within" in gate.name]
    assert limits == pytest.approx([1.05 * bits] * 2)  # of the ternary model, and of the packed one as it runs
    text = judgement.metric("bitnet/text_retention").value
    bits = [judgement.metric(f"{name}/bits_per_byte").value for name in (PARENT, NAME)]
    assert text == pytest.approx(bits[0] / bits[1])


def test_the_size_table_adds_up_to_the_file(judgement: Judgement, made: Checkpoint) -> None:
    *kinds, whole = judgement.tables["size"].rows
    assert (
        sum(int(row[2] or 0) for row in kinds)
        == whole[2]
        == (made.siblings[PACKED].path / "model.safetensors").stat().st_size
    )
    assert sum(int(row[1] or 0) for row in kinds) == whole[1] == sum(p.numel() for p in made.model().parameters())
    assert {row[0] for row in kinds} >= {"ternary codes", "embedding codes", "header"}


def test_questions_of_kinds_that_nothing_trained_on(judgement: Judgement, made: Checkpoint, parent: Checkpoint) -> None:
    table = judgement.tables["unseen"]
    assert {row[0] for row in table.rows} == {"lcm", "letter_counting"}
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        assert cells["items"] == QUICK.zero_shot_items and float(cells[NAME] or 0) > 0
        difference = float(cells[NAME] or 0) - float(cells[PARENT] or 0)
        assert cells[f"{NAME} − {PARENT}"] == pytest.approx(difference)
        assert cells[INT8] == pytest.approx(cells[PARENT], rel=0.05) and cells[ROUNDED] != cells[PARENT]


def test_the_lattice_table_counts_zeros_and_moves(judgement: Judgement) -> None:
    rows = {str(row[0]): row for row in judgement.tables["lattice"].rows}
    assert set(rows) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "all"}
    assert sum(int(row[1] or 0) for name, row in rows.items() if name != "all") == rows["all"][1]
    zeros, changed, flipped = (float(rows["all"][i] or 0) for i in (2, 7, 8))
    assert 0.2 < zeros < 0.5 and 0 < flipped < changed < 1


def test_a_weight_off_the_lattice_fails_its_gate(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"

    def nudge(path: Path) -> None:
        # The packed form is made before; with the nudge it could not be.
        change_weights(path, lambda weights: weights[name].view(-1)[:5].add_(0.01))

    verdict = judge(altered(made, tmp_path, nudge), [parent], world, QUICK)
    assert {"every linear weight is on the lattice", "unpacked weights are bit for bit the same"} <= failed(verdict)
    assert gates(verdict)["every linear weight is on the lattice"].value >= 5


def test_a_longer_packed_file_fails_its_gate(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluation.packed_file as module

    promise = module.predict_bytes
    less = lambda path, layout: type(found := promise(path, layout))(**{**vars(found), "header": found.header - 8})  # noqa: E731
    monkeypatch.setattr(module, "predict_bytes", less)
    assert failed(judge(made, [parent], world, QUICK)) >= {"packed bytes are at most as promised"}


def test_another_model_in_the_packed_file_fails_its_gate(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    def swap(path: Path) -> None:
        shutil.rmtree(path / "siblings" / PACKED)
        pack_checkpoint(made.siblings[NO_TEACHER], path / "siblings" / PACKED)

    verdict = judge(altered(made, tmp_path, swap), [parent], world, QUICK)
    assert failed(verdict) >= {"unpacked weights are bit for bit the same"}
    assert gates(verdict)["unpacked weights are bit for bit the same"].value > 100


def test_text_that_got_worse_fails_its_gate(
    made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    def flatten(path: Path) -> None:
        change_weights(path, lambda weights: weights["model.norm.weight"].mul_(0.1))

    verdict = judge(altered(made, tmp_path, flatten), [parent], world, QUICK)
    assert "bits per byte" in failed(verdict)


def test_nan_ends_the_judgement(made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    def poison(path: Path) -> None:
        change_weights(path, lambda weights: weights["model.norm.weight"].fill_(math.nan))

    verdict = judge(altered(made, tmp_path, poison), [parent], world, QUICK)
    assert [gate.name for gate in verdict.gates] == ["no NaN"] and not verdict.passed


def test_missing_siblings_are_named(made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    for number, name in enumerate((NO_TEACHER, PACKED)):
        gone = altered(made, tmp_path / str(number), lambda path, name=name: shutil.rmtree(path / "siblings" / name))
        with pytest.raises(CheckpointError, match="no_teacher is missing|packed form is missing"):
            judge(gone, [parent], world, QUICK)


def test_the_verdict_repeats(made: Checkpoint, parent: Checkpoint, world: Dataset, judgement: Judgement) -> None:
    assert judge(made, [parent], world, QUICK) == judgement


def test_packed_file_is_counted_once(made: Checkpoint) -> None:
    found = inspect_packed(made)
    assert found.bytes == found.promised and found.differing == 0
    assert found.parameters == sum(p.numel() for p in made.model().parameters())
    assert np.isclose(sum(size for _, size in found.by_kind.values()), found.bytes)
