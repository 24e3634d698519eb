"""The verdict on a compressed model: a real run on a tiny model, and what is kept on made-up figures."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluation.compression_measures import NAME, kept_metrics, what_is_kept
from evaluation.config import EvaluationConfig
from evaluation.judge_compression import _against_untrained, _gates, judge
from evaluation.judgement import Judgement
from phases.checkpoint import Checkpoint
from phases.compression.config import CompressionConfig
from phases.compression.press import AGENT, CONTROL, UNTRAINED
from phases.compression.report import REPORT, read_report
from phases.compression.run import run
from phases.dataset import Dataset
from phases.errors import CheckpointError

QUICK = EvaluationConfig(resamples=300, zero_shot_items=4, trials=4, blocks=8)
CONFIG = {
    "ratios": [4.0],
    "codecs": {"names": ["ternary", "vptq"], "vectors": [4], "codebook_size": 16, "thresholds": [0.5], "group": 32},
    "calibration_rows": 1,
    "standing_rows": 2,
    "mix": {"text": 1.0, "reasoning": 0.0, "memory": 0.0, "copying": 0.0},
    "training": {"steps": 2, "batch_rows": 2, "precision": "fp32"},
}


@pytest.fixture(scope="module")
def made(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([parent], CompressionConfig.parse(CONFIG, "test"), tmp_path_factory.mktemp("c") / "out", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, parent: Checkpoint, world: Dataset) -> Judgement:
    return judge(made, [parent], world, QUICK)


def test_the_gates_are_those_of_the_file_in_a_fresh_process(judgement: Judgement, made: Checkpoint) -> None:
    gates = {gate.name: gate for gate in judgement.gates}
    size = (made.siblings[AGENT].path / "model.safetensors").stat().st_size
    folder = sum(file.stat().st_size for file in made.siblings[AGENT].path.iterdir())
    assert gates["on disk"].value == folder > size and gates["on disk"].threshold == 100e6
    assert gates["retention"].threshold == 0.95
    assert gates["4× smaller than float32"].metric == f"{NAME}/smaller_than_float32"
    assert gates["a fresh process writes something else"].value == 0
    assert gates["milliseconds a token"].value > 0 and 1e8 < gates["peak memory"].value < 2e9
    numbers = sum(p.numel() for p in made.model().parameters())
    assert judgement.metric(f"{NAME}/smaller_than_float32").value == pytest.approx(4 * numbers / size)


def test_every_model_is_measured_and_every_table_is_there(judgement: Judgement) -> None:
    for name in (NAME, "parent", UNTRAINED, CONTROL):
        assert judgement.metric(f"{name}/bits_per_byte").value > 0
    assert {control.name for control in judgement.controls} == {"parent", UNTRAINED, CONTROL}
    assert set(judgement.tables) == {"ladder", "codecs", "carried", "file", "kept", "tasks"}
    joined = {str(row[1]): row for row in judgement.tables["codecs"].rows}
    assert list(joined) == ["ternary, of matrices", "vptq, of matrices", "hyper, of scales", "rANS, of indices"]
    assert joined["hyper, of scales"][2] == joined["hyper, of scales"][3]  # without hyper-compression they stay
    total = judgement.metric(f"{NAME}/bytes").value
    assert sum(row[1] for row in judgement.tables["file"].rows) == total  # type: ignore[misc]


def test_a_ratio_that_was_not_reached_is_in_the_name_of_the_gate(made: Checkpoint) -> None:
    found = read_report(made.path)
    rung = found.rungs[0].model_copy(update={"accepted": True})
    missed = rung.model_copy(update={"ratio": 8.0, "accepted": False, "retention": 0.942, "stderr": 0.008})
    config = {**found.config, "ratios": [16.0, 8.0, 4.0]}
    lower = found.model_copy(update={"config": config, "rungs": (missed, rung), "taken": 1})
    kept, fast = SimpleNamespace(mean=0.97, stderr=0.01), SimpleNamespace(ms_per_token_p50=1.0, peak_rss_bytes=1e8)
    fast.written = ""
    gates = _gates(kept, kept, lower, 100, 4.1, fast, fast, QUICK)  # type: ignore[arg-type]
    assert gates[0].passed and gates[0].threshold == 4.0
    assert gates[0].name == (
        "4× smaller than float32; 16× not reached: nothing fits; "
        "8× not reached: retention 0.942 ± 0.008, 0.95 and 2 standard errors asked"
    )


def test_a_missing_report_is_said(made: Checkpoint, parent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{REPORT}: missing or altered; run the compression phase again"):
        judge(replace(made, path=tmp_path), [parent], world, QUICK)


def measured(right: list[float], nats: list[float]) -> Any:
    scores = {"reasoning": np.array(right), "memory": np.array(right[::-1])}
    return SimpleNamespace(scores=scores, text=SimpleNamespace(nats_N=np.array(nats)))


def played(right: dict[str, list[float]], parents: dict[str, list[float]]) -> Any:
    pairs = ((NAME, right), ("parent", parents))
    return {player: SimpleNamespace(right={n: np.array(v) for n, v in found.items()}) for player, found in pairs}


def test_retention_is_the_mean_of_tasks_domains_and_text() -> None:
    ours, parent = measured([1, 0, 1, 0], [2.0, 2.0]), measured([1, 1, 1, 1], [1.0, 2.0])
    domains = played({"python": [1.0, 0.5], "nothing": [1.0, 1.0]}, {"python": [1.0, 1.0], "nothing": [0.0, 0.0]})
    kept = what_is_kept(ours, parent, domains, NAME)
    assert set(kept.pairs["domains"]) == {"python"}  # the parent has nothing right in the other to keep
    assert {group: share for group, (share, _) in kept.groups.items()} == {"tasks": 0.5, "domains": 0.75, "text": 0.75}
    assert kept.mean == pytest.approx((0.5 + 0.75 + 0.75) / 3)


def test_no_task_and_no_domain_pays_for_another() -> None:
    """What was learnt in one (shares of 2 and 3) hides nothing of what was lost elsewhere."""
    scores = {"reasoning": np.array([1.0, 1.0, 0.0, 0.0]), "memory": np.array([1.0, 0.0, 0.0, 0.0])}
    parents = {"reasoning": np.array([1.0, 0.0, 0.0, 0.0]), "memory": np.array([1.0, 1.0, 0.0, 0.0])}
    text = SimpleNamespace(nats_N=np.array([2.0, 2.0]))
    ours, parent = (SimpleNamespace(scores=found, text=text) for found in (scores, parents))
    domains = played({"python": [1.0, 1.0, 1.0], "facts": [0.0, 0.0]}, {"python": [1.0, 0.0, 0.0], "facts": [1.0, 1.0]})
    kept = what_is_kept(ours, parent, domains, NAME)  # type: ignore[arg-type]
    assert kept.groups["tasks"][0] == (1.0 + 0.5) / 2 and kept.groups["domains"][0] == (1.0 + 0.0) / 2
    assert kept.mean == pytest.approx((0.75 + 0.5 + 1.0) / 3)
    items = {"reasoning": [None] * 4, "memory": [None] * 4}
    units = SimpleNamespace(split="test", items=items, text_NT=np.zeros((2, 3)))
    shown = {m.name: m.value for m in kept_metrics(kept, NAME, ours, parent, units, domains)}  # type: ignore[arg-type]
    assert shown[f"{NAME}/tasks_retention"] == 0.75 and shown[f"{NAME}/reasoning_retention"] == 2.0
    assert shown[f"{NAME}/domains_retention"] == 0.5 and shown[f"{NAME}/python_domain_retention"] == 3.0


def test_a_model_that_is_no_agent_has_no_domains(judgement: Judgement) -> None:
    assert not [m for m in judgement.metrics if m.name.endswith("domains_retention")]


def test_training_has_to_help_only_where_something_was_lost() -> None:
    def retained(mean: float) -> Any:
        return SimpleNamespace(mean=mean, stderr=0.01)

    lost, whole = retained(0.6), retained(1.0)
    better = _against_untrained(retained(0.97), lost, 0.95, 2.0)
    assert better.passed and better.comparison == ">" and better.name.startswith("better")
    assert not _against_untrained(retained(0.61), lost, 0.95, 2.0).passed
    assert _against_untrained(whole, whole, 0.95, 2.0).passed
    worse = _against_untrained(retained(0.96), whole, 0.95, 2.0)
    assert not worse.passed and worse.name.startswith("no worse")


def test_n_of_a_retention_counts_what_was_measured(judgement: Judgement, world: Dataset) -> None:
    counts = {
        name: judgement.metric(f"{NAME}/{name}_retention").n for name in ("text", "tasks") if _has(judgement, name)
    }
    assert counts["text"] == QUICK.blocks
    assert judgement.metric(f"{NAME}/retention").n == sum(counts.values())


def _has(judgement: Judgement, name: str) -> bool:
    return any(metric.name == f"{NAME}/{name}_retention" for metric in judgement.metrics)
