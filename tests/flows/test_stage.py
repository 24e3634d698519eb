"""A stage runs once for the same inputs, and again when any of them changed or its result was damaged."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.config import EvaluationConfig
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from evaluation.metric import Gate, gate
from flows.gating import judge, judgement_key, settle
from flows.parameters import ForgeConfig
from flows.stage import Stage, reference
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.prepare import prepare_data
from phases.dataset import Dataset
from phases.phase import Phase, PhaseConfig, ignore_metrics, serial_pool


class SeedConfig(PhaseConfig):
    """Config of the phase below."""

    scale: float = 1.0
    """Factor on the weights."""


def write_llama(
    parents: Sequence[Checkpoint],
    config: SeedConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: Any = ignore_metrics,
    pool: Any = serial_pool,
) -> Checkpoint:
    """The smallest real phase: a Llama of this seed; it notes every time it runs."""
    torch.manual_seed(config.seed)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.vocabulary, **shape))
    with torch.no_grad():
        model.lm_head.weight.mul_(config.scale)
    with (out.parent / "times.txt").open("a") as file:
        file.write("ran\n")
    return save_checkpoint(out, model, data.tokenizer, Manifest("seed", config.model_dump(), config.seed))


@pytest.fixture(scope="session")
def data(text_file: Path, tmp_path_factory: pytest.TempPathFactory, tiny_values: dict[str, Any]) -> Dataset:
    config = ForgeConfig.parse(tiny_values, "test").data
    return prepare_data(config, None, tmp_path_factory.mktemp("stage") / "data")


@pytest.fixture
def stage(data: Dataset, tmp_path: Path) -> Stage:
    return Stage(Phase("seed", "a model of a seed", SeedConfig, write_llama), SeedConfig(), (), data, tmp_path / "seed")


def times(stage: Stage) -> int:
    return len((stage.out.parent / "times.txt").read_text().splitlines())


def test_finished_stage_is_taken_as_it_is(stage: Stage) -> None:
    assert stage.finished() is None
    made = stage.run()
    again = replace(stage).finished()
    assert again is not None and again.digest == made.digest and times(stage) == 1
    record = stage.record()
    assert record is not None and record.seconds is not None and record.seconds > 0


@pytest.mark.parametrize("changes", [{"seed": 1}, {"scale": 2.0}])
def test_changed_config_is_another_stage(stage: Stage, changes: dict[str, Any]) -> None:
    first = stage.run()
    other = replace(stage, config=stage.config.model_copy(update=changes))
    assert other.finished() is None
    assert other.run().digest != first.digest
    assert replace(stage).finished() is None


def test_policy_is_not_an_input(stage: Stage) -> None:
    stage.run()
    assert replace(stage, config=stage.config.model_copy(update={"on_fail": "retry"})).finished() is not None


def test_changed_parent_is_another_stage(stage: Stage, tmp_path: Path) -> None:
    parent = replace(stage, out=tmp_path / "parent").run()
    child = replace(stage, parents=(parent,))
    child.run()
    retrained = replace(stage, config=SeedConfig(seed=9), out=tmp_path / "parent2").run()
    assert replace(child, parents=(retrained,)).finished() is None
    assert replace(child, parents=(parent,)).finished() is not None


def test_changed_source_is_another_stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.run()
    monkeypatch.setattr("phases.phase.source_fingerprint", lambda module: "edited")
    assert replace(stage).finished() is None


def test_damaged_result_is_reported_and_made_again(stage: Stage) -> None:
    first, lines = stage.run(), []
    weights = stage.out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert stage.finished(lines.append) is None
    assert "model.safetensors: altered" in lines[0] and "making it again" in lines[0]
    assert stage.run().digest == first.digest


def test_killed_between_the_result_and_its_record(stage: Stage) -> None:
    made = stage.run()
    record = json.loads(stage.record_path.read_text())
    stage.record_path.write_text(json.dumps({"key": record["key"]}))  # as it stands while the phase runs
    found = stage.finished()
    assert found is not None and found.digest == made.digest


def test_checkpoint_without_record_is_not_trusted(stage: Stage) -> None:
    stage.run()
    stage.record_path.unlink()
    assert stage.finished() is None
    stage.record_path.write_text("half a rec")
    assert stage.finished() is None


def test_reference_covers_siblings(stage: Stage) -> None:
    made = stage.run()
    assert (reference(made).path, reference(made).digest) == (str(stage.out), made.family_digest)


def test_next_seed_goes_beside_the_first(stage: Stage) -> None:
    retry = stage.with_next_seed()
    first, second = stage.run(), retry.run()
    assert (retry.out.name, retry.config.seed) == ("seed.retry", 1)
    assert first.digest != second.digest and stage.finished() is not None


def verdict(passed: bool) -> Judgement:
    gates: tuple[Gate, ...] = (gate("g", "m", 1.0, "<", 2.0 if passed else 0.5),)
    return Judgement(gates=gates)


def test_verdict_is_reached_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = stage.run(), []

    def count(*arguments: Any) -> Judgement:
        calls.append(arguments)
        return verdict(True)

    monkeypatch.setitem(JUDGES, "seed", count)
    first, config = judge(stage, made, EvaluationConfig()), EvaluationConfig()
    assert judge(stage, made, config) == first and len(calls) == 1
    judge(stage, made, EvaluationConfig(sigmas=3.0))
    assert len(calls) == 2


def test_verdict_depends_on_checkpoint_data_config_and_code(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made, config = stage.run(), EvaluationConfig()
    other = replace(stage, config=SeedConfig(seed=4), out=stage.out.with_name("other")).run()
    keys = {judgement_key(stage, made, config), judgement_key(stage, other, config)}
    keys.add(judgement_key(replace(stage, data=replace(stage.data, digest="0")), made, config))
    keys.add(judgement_key(replace(stage, parents=(other,)), made, config))
    monkeypatch.setattr("flows.gating.source_fingerprint", lambda module: "edited")
    keys.add(judgement_key(stage, made, config))
    assert len(keys) == 5


def test_altered_verdict_is_reached_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "seed", lambda *arguments: verdict(True))
    made = stage.run()
    judge(stage, made, EvaluationConfig())
    path = stage.out.with_name("seed.judgement.json")
    path.write_text(path.read_text()[:40])
    monkeypatch.setitem(JUDGES, "seed", lambda *arguments: verdict(False))
    assert not judge(stage, made, EvaluationConfig()).passed


@pytest.mark.parametrize(
    ("on_fail", "passed", "parent", "status"),
    [
        ("stop", True, True, "passed"),
        ("rollback", True, True, "passed"),
        ("stop", False, True, "failed"),
        ("retry", False, True, "failed"),
        ("rollback", False, True, "rolled_back"),
        ("rollback", False, False, "failed"),
    ],
)
def test_what_stays(stage: Stage, tmp_path: Path, on_fail: str, passed: bool, parent: bool, status: str) -> None:
    before = replace(stage, config=SeedConfig(seed=7), out=tmp_path / "parent").run()
    config = stage.config.model_copy(update={"on_fail": on_fail})
    given = replace(stage, config=config, parents=(before,) if parent else ())
    made = given.run()
    outcome = settle(given, made, verdict(passed))
    kept = {"passed": made.digest, "rolled_back": before.digest, "failed": None}[status]
    assert (outcome.status, outcome.kept and outcome.kept.digest) == (status, kept)


def test_judgement_without_gates_does_not_pass(stage: Stage) -> None:
    made = stage.run()
    assert settle(stage, made, Judgement()).status == "failed"
