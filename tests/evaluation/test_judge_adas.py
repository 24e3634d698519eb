"""The verdict on a found design: a real run that finds nothing, and the measures and gates on made-up figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.adas_measures import NAME, PARENT, RANDOM, UNIFORM, Field, design_controls, design_metrics
from evaluation.adas_plots import archive_figures, gain_bars, pareto_plot
from evaluation.adas_report import _techniques
from evaluation.config import EvaluationConfig
from evaluation.judge_adas import _gates, judge
from evaluation.judgement import Judgement
from evaluation.metric import Gate
from phases.adas.archive import Candidate, Origin, Record, Scores
from phases.adas.config import AdasConfig
from phases.adas.genome import Genome
from phases.adas.playing import Played
from phases.adas.run import run
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError

QUICK = EvaluationConfig(resamples=300, zero_shot_items=4, trials=4, timed_trials=1)
CONFIG = {
    "lessons": 3,
    "library": 2,
    "experts": {"training": {"steps": 1, "batch_rows": 2, "precision": "fp32"}},
    "composition": {"iterations": 1, "population": 2, "trials": 1},
    "search": {"iterations": 2, "population": 2, "singles": 2, "rungs": [1], "max_techniques": 2},
    "finalists": 1,
    "final_units": 2,
}


@pytest.fixture(scope="module")
def made(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([parent], AdasConfig.parse(CONFIG, "test"), tmp_path_factory.mktemp("a") / "adas", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, parent: Checkpoint, world: Dataset) -> Judgement:
    return judge(made, [parent], world, QUICK)


def test_what_was_found_by_chance_does_not_pass(judgement: Judgement) -> None:
    gates = {gate.name: gate for gate in judgement.gates}
    assert {"reasoning: at least the parent", "recall: at least the parent"} <= set(gates)
    assert not gates["better than random search"].passed and not judgement.passed
    assert gates["work within the budget"].threshold == AdasConfig().search.budget


def test_every_figure_has_its_n_and_its_error(judgement: Judgement) -> None:
    for player in (NAME, PARENT, RANDOM, UNIFORM):
        metric = judgement.metric(f"{player}/mean_right")
        assert metric.n == 8 and metric.stderr is not None
    assert judgement.metric(f"{PARENT}/work").value == 1 and judgement.metric(f"{NAME}/time").n == 5
    assert {PARENT, RANDOM, UNIFORM} <= {control.name for control in judgement.controls}
    assert {"designs", "gains", "archive", "techniques", "vectors singular", "vectors task"} <= set(judgement.tables)


def test_pictures_are_drawn(judgement: Judgement, made: Checkpoint) -> None:
    assert set(archive_figures(made.path)) == {"pareto.png", "search.png"}
    assert len(gain_bars(judgement.tables["gains"]).axes[0].patches) == len(judgement.tables["gains"].rows)


def test_what_is_missing_is_said(made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adas.json: missing; give a checkpoint that the adas phase wrote"):
        judge(parent, [parent], world, QUICK)
    (tmp_path / "adas.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(CheckpointError, match="altered"):
        judge(Checkpoint(tmp_path, "", {}), [parent], world, QUICK)


def made_up(ours: dict[str, list[float]], random: list[float], times: float = 1.0, work: float = 1.0) -> Field:
    def played(right: dict[str, list[float]], done: float = 100.0) -> Played:
        return Played({domain: np.array(values) for domain, values in right.items()}, done)

    parent = {domain: [0.0, 1.0, 0.0, 0.0] * 8 for domain in ours}
    others = dict.fromkeys(ours, random)
    field = {NAME: played(ours, 100 * work), PARENT: played(parent), RANDOM: played(others)}
    return Field(field, {}, [(times, 1.0)] * 5)


def verdicts(field: Field) -> dict[str, bool]:
    found: list[Gate] = _gates(field, EvaluationConfig(resamples=300), budget=2.0)
    return {gate.name: gate.passed for gate in found}


def test_gates() -> None:
    good, same, bad = [1.0, 1.0, 1.0, 0.0] * 8, [0.0, 1.0, 0.0, 0.0] * 8, [0.0] * 32
    assert all(verdicts(made_up({"a": good, "b": same}, same)).values())  # equal to the parent is at least the parent
    assert not verdicts(made_up({"a": good, "b": bad}, same))["b: at least the parent"]
    assert not verdicts(made_up({"a": good, "b": good}, good))["better than random search"]
    assert not verdicts(made_up({"a": good}, same, times=2.1))["time within the budget"]
    assert not verdicts(made_up({"a": good}, same, work=2.1))["work within the budget"]


def test_as_much_is_not_less_whatever_the_last_digit() -> None:
    generator = np.random.default_rng(0)
    thirds = generator.integers(4, size=32)
    orders = [generator.permutation(thirds) / 3 for _ in range(200)]
    least, most = min(orders, key=np.mean), max(orders, key=np.mean)
    assert np.mean(least) < np.mean(most)
    field = made_up({"a": list(least)}, list(most))
    field.played[PARENT].right["a"][:] = most
    assert verdicts(field)["a: at least the parent"]


def test_figures_of_a_made_up_field() -> None:
    field = made_up({"a": [1.0] * 32}, [0.5] * 32, times=1.5, work=1.2)
    metrics = {metric.name: metric for metric in design_metrics(field, "test")}
    assert metrics["adas/a_right"].parent == 0.25 and metrics["adas/time"].value == 1.5
    assert metrics["adas/work"].value == pytest.approx(1.2)
    controls = {(c.name, c.metric): c for c in design_controls(field, {PARENT: "nothing"}, 300, 0)}
    assert controls[PARENT, "mean_right"].difference == 0.75 and controls[PARENT, "a_right"].budget == "nothing"
    assert controls[RANDOM, "mean_right"].budget == "an ablation of ours"


def test_of_who_was_stopped_no_quality_is_shown() -> None:
    def record(number: int, right: float, *techniques: str, stopped: bool = False, work: float = 1.0) -> Record:
        origin = Origin(operator="single" if techniques else "parent")
        genome = Genome(techniques=techniques)
        one = Candidate(id=number, iteration=0, seed=0, search="search", origin=origin, genome=genome)
        scores = Scores(quality={"x": right}, n={"x": 8}, work=work, stopped=stopped)
        return Record(**dict(one), rung=0, scores=scores, fitness=right, feasible=not stopped, rank=0)

    records = [
        record(0, 0.5),
        record(1, 0.0, "vote of 9", stopped=True, work=2.1),
        record(2, 0.25, "reread"),
        record(3, 0.75, "1 call"),
    ]
    rows = _techniques(records).rows
    assert [(row[0], row[2]) for row in rows] == [("1 call", 0.25), ("reread", -0.25), ("vote of 9", None)]
    axes = pareto_plot(records, records[:1]).axes[0]
    shown = [tuple(point) for drawn in axes.collections for point in drawn.get_offsets()]
    assert (1.0, 0.75) in shown and not any(work > 2 for work, _ in shown)
