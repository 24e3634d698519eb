"""The merge's verdict: a real search over the tiny family, judged on a split that it never saw."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.config import EvaluationConfig
from evaluation.evolution import search_curves
from evaluation.judge_evomerge import incumbent, judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.evomerge.report import SEARCH, read_report
from phases.evomerge.run import EvomergeConfig, run

QUICK = EvaluationConfig(resamples=500)


@pytest.fixture(scope="module")
def merged(family: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = EvomergeConfig(generations=2, searches=2, methods=("linear", "ties"), validation_items=12)
    return run([family], config, tmp_path_factory.mktemp("merge") / "evomerge", data=world)


@pytest.fixture(scope="module")
def judgement(merged: Checkpoint, family: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["evomerge"](merged, [family], world, QUICK)


def test_it_is_compared_with_everything_it_has_to_beat(judgement: Judgement) -> None:
    names = [control.name for control in judgement.controls]
    assert names[0] == "trunk" and names[1].startswith("best single parent (")
    assert names[2] == "uniform soup" and names[3].startswith("random search (seed ")
    assert names[4] == "random search, mean over 2 seeds"
    assert [g.name for g in judgement.gates[1:5]] == [f"better than {name}" for name in names[:4]]


def test_passed_means_strictly_better_than_all(judgement: Judgement) -> None:
    for control, gate in zip(judgement.controls, judgement.gates[1:5], strict=False):
        assert control.difference == pytest.approx(control.ours - control.control)
        assert gate.passed is (control.ours > control.control)
    assert judgement.passed is all(g.passed for g in judgement.gates)


def test_the_mean_is_over_specialities_not_units(judgement: Judgement) -> None:
    row = next(row for row in judgement.tables["matrix"].rows if row[0] == "evomerge")
    metric = judgement.metric("evomerge/mean_of_specialities")
    assert metric.value == pytest.approx(np.mean([row[1], row[3], row[5]]))  # type: ignore[list-item]
    assert metric.stderr == pytest.approx(np.sqrt(row[2] ** 2 + row[4] ** 2 + row[6] ** 2) / 3)  # type: ignore[operator]
    assert metric.n == 33 + 30 + 40


def test_the_winner_from_disk_is_the_searchs_winner(judgement: Judgement, merged: Checkpoint) -> None:
    seed = read_report(merged.path).winner_seed
    rows = {row[0]: row[1:] for row in judgement.tables["matrix"].rows}
    assert rows["evomerge"] == rows[f"evolution/{seed}"]


def test_rebuilt_parents_score_as_they_did_alone(judgement: Judgement, family: Checkpoint, world: Dataset) -> None:
    alone = JUDGES["cognate"](family, [], world, QUICK)
    ours = {row[0]: row for row in judgement.tables["matrix"].rows}
    theirs = {row[0]: row for row in alone.tables["matrix"].rows}
    for name in ("trunk", "reasoning", "memory", "adaptive"):
        assert ours[name] == theirs[name]


def test_every_gate_has_a_metric(judgement: Judgement) -> None:
    for gate in judgement.gates:
        assert judgement.metric(gate.metric).value == pytest.approx(gate.value)


def test_a_parent_as_winner_is_not_promoted(
    merged: Checkpoint, family: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    texts = {SEARCH: (merged.path / SEARCH).read_text()}
    model = family.siblings["memory"].model()
    copy = save_checkpoint(tmp_path / "copy", model, merged.tokenizer(), Manifest("evomerge"), texts=texts)
    result = judge(copy, [family], world, QUICK)
    assert not result.passed


def test_the_incumbent_is_the_best_parent_by_validation(merged: Checkpoint, family: Checkpoint) -> None:
    controls = read_report(merged.path).controls
    best = max(("reasoning", "memory", "adaptive"), key=lambda name: controls[name].fitness)
    assert incumbent(merged, [family]).digest == family.siblings[best].digest


def test_other_parents_are_refused(merged: Checkpoint, family: Checkpoint, world: Dataset) -> None:
    others = [family, *(family.siblings[name] for name in ("memory", "reasoning", "adaptive"))]
    with pytest.raises(CheckpointError, match="was merged from another"):
        judge(merged, others, world, QUICK)


def test_curves_of_every_seed(merged: Checkpoint) -> None:
    ours, random = search_curves(merged.path)
    found = read_report(merged.path)
    assert [len(c) for c in ours] == [len(c) for c in random] == [s.evaluations for s in found.seeds]
    assert [x for x, _ in ours[0]] == list(range(1, len(ours[0]) + 1))
    for curve in (*ours, *random):  # generation 0 holds the same baselines everywhere
        assert curve[:5] == ours[0][:5]


def test_curves_need_a_lineage(family: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"lineage\.jsonl: missing"):
        search_curves(family.path)
