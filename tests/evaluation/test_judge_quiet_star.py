"""The verdict on thoughts: real training on the tiny world, and models that were made to fail one gate each."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.config import EvaluationConfig
from evaluation.judge_quiet_star import judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from evaluation.metric import Gate
from evaluation.thought_family import Losses, open_family, thinking_places
from evaluation.thought_units import answer_places, mean_where, text_places
from evaluation.thoughts import ThoughtLosses, plain_losses, thought_losses
from evaluation.zero_shot import unseen_items
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.decoder import Thinking
from phases.quiet_star.run import run
from phases.quiet_star.storage import ThinkingFile, load_thinker, thinking_files
from phases.quiet_star.thinker import Sampled, Thinker
from phases.quiet_star.threads import Text

QUICK = EvaluationConfig(
    resamples=300, thought_rows=16, thought_positions=4, thought_items=6, thought_lengths=(0, 3), zero_shot_items=3
)
CONFIG = {
    "thoughts": {"tokens": 2, "positions": 6, "ahead": 2},
    "mix": {"text": 1.0, "reasoning": 0, "memory": 0, "copying": 0},
}
STEPS = {"training": {"steps": 6, "batch_rows": 8, "precision": "fp32"}}


@pytest.fixture(scope="module")
def made(family: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = QuietStarConfig.parse({**CONFIG, **STEPS}, "test")
    return run([family], config, tmp_path_factory.mktemp("quiet") / "quiet_star", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, family: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["quiet_star"](made, [family], world, QUICK)


def altered(made: Checkpoint, out: Path, change: Callable[[Thinker], None]) -> Checkpoint:
    """The checkpoint with a changed thinker and the same controls."""
    thinker, trained = load_thinker(made.path)
    change(thinker)
    settings = ThinkingFile(start=trained.start, end=trained.end, tokens=trained.tokens)
    files = thinking_files(thinker, settings)
    root = out / "root"
    save_checkpoint(root, thinker.model, made.tokenizer(), Manifest("quiet_star"), tensors=files[0], texts=files[1])
    return save_family(out / "quiet_star", root, {name: c.path for name, c in made.siblings.items()})


def gates(judgement: Judgement) -> dict[str, Gate]:
    return {gate.name.split(" (")[0]: gate for gate in judgement.gates}


def test_gates_are_about_thoughts_and_about_their_absence(judgement: Judgement) -> None:
    named = gates(judgement)
    for rival, title in (("off", "no thoughts"), ("shuffled", "those of other positions")):
        metric = judgement.metric(f"quiet_star/gain_over_{rival}")
        gate = named[f"thoughts beat {title}"]
        assert (metric.split, metric.value) == ("validation", gate.value)  # the first of that name decides
        assert gate.threshold == pytest.approx(2 * (metric.stderr or 0)) and gate.passed is (
            gate.value > gate.threshold
        )
    assert {"no worse than the parent without thoughts", "thoughts are not constant", "no NaN"} <= named.keys()
    assert "with thoughts no worse than the parent" in named


def test_every_control_is_there_for_losses_and_for_answers(judgement: Judgement) -> None:
    names = [control.name for control in judgement.controls]
    assert names == ["parent", "plain control", "pause control", "off", "shuffled"] * 2
    for control in judgement.controls:
        assert control.difference == pytest.approx(control.ours - control.control, abs=1e-9)
    assert "the same 6 steps" in judgement.controls[1].budget and judgement.controls[5].n == 6


def test_tables_for_the_report(judgement: Judgement) -> None:
    tables = judgement.tables
    assert [row[0] for row in tables["thought_length"].rows] == [0, 2, 3]
    assert {row[0] for row in tables["zero_shot"].rows} == {"lcm", "letter_counting", "cloze on held-out text"}
    assert len(tables["thoughts"].rows) == 2 * 3 * 2  # splits, kinds, all and hard
    helped, hurt = (tables[f"thoughts_{name}"] for name in ("helped", "hurt"))
    off, on = (helped.columns.index(name) for name in ("nats off", "nats on"))
    worst = [float(r[off]) - float(r[on]) for r in hurt.rows]  # type: ignore[arg-type]
    best = [float(r[off]) - float(r[on]) for r in helped.rows]  # type: ignore[arg-type]
    assert len(best) == 9 and min(best[:3]) >= max(worst[:3])


def test_hard_positions_are_the_parents(made: Checkpoint, family: Checkpoint, world: Dataset) -> None:
    models = open_family(made, [family])
    where = thinking_places(world, models.tokenizer, "test", QUICK)["text"]
    parent_NP = plain_losses(models.parent, where)
    zeros = ThoughtLosses(*[np.zeros_like(parent_NP)] * 4, np.zeros((*parent_NP.shape, 1), dtype=np.int64), 0.0)
    found = Losses(where, zeros, zeros, parent_NP, parent_NP)
    assert found.hard_rows()["parent"].mean() > found.rows()["parent"].mean()
    assert (parent_NP >= np.quantile(parent_NP, 0.75)).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("bias", "title"),
    [(-20.0, "0"), (20.0, "1")],
)
def test_a_collapsed_mixing_weight_is_named(
    bias: float, title: str, made: Checkpoint, family: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    def collapse(thinker: Thinker) -> None:
        thinker.head.mlp[-1].weight.data.zero_()  # type: ignore[union-attr, operator]
        thinker.head.mlp[-1].bias.data.fill_(bias)  # type: ignore[union-attr, operator]

    found = judge(altered(made, tmp_path, collapse), [family], world, QUICK)
    failed = [name for name, gate in gates(found).items() if not gate.passed]
    assert f"text: mixing weight has not collapsed to {title}" in failed and not found.passed


def test_constant_thoughts_are_named(
    made: Checkpoint, family: Checkpoint, world: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(
        thinker: Thinker, text: Text, anchor_BR: torch.Tensor, length: int, *_: object
    ) -> tuple[Sampled, None]:
        return Sampled(torch.full((*anchor_BR.shape, length), 7), 0.0), None

    monkeypatch.setattr("evaluation.thoughts.sample_thoughts", constant)
    found = judge(made, [family], world, QUICK)
    assert not gates(found)["thoughts are not constant"].passed and not found.passed


def test_nan_is_named_and_nothing_else_is_judged(
    made: Checkpoint, family: Checkpoint, world: Dataset, tmp_path: Path
) -> None:
    def spoil(thinker: Thinker) -> None:
        thinker.head.mlp[0].weight.data.fill_(math.nan)  # type: ignore[union-attr, operator]

    found = judge(altered(made, tmp_path, spoil), [family], world, QUICK)
    assert [gate.name for gate in found.gates] == ["no NaN"] and not found.passed


def test_missing_controls_or_parents_are_explained(made: Checkpoint, family: Checkpoint, world: Dataset) -> None:
    with pytest.raises(CheckpointError, match="no sibling pause, plain"):
        judge(family.siblings["memory"], [family], world, QUICK)
    with pytest.raises(CheckpointError, match="2 parents instead of one"):
        judge(made, [family, family], world, QUICK)


def test_positions_are_shared_and_their_means_are_plain(world: Dataset) -> None:
    again = [text_places(world, "test", 5, 4, seed=1) for _ in range(2)]
    assert torch.equal(again[0].anchor_NP, again[1].anchor_NP) and again[0].tokens_NT.shape[0] == 5
    items = world.items("test", "reasoning")[:3]
    places = answer_places(world.tokenizer, items, 2)
    for row, item, anchors in zip(places.tokens_NT, items, places.anchor_NP, strict=True):
        first = world.tokenizer.decode(row[anchors[0] + 1])
        assert (" " + item.answer).startswith(first) or item.answer.startswith(first)
    values = np.array([[1.0, 3.0], [5.0, 7.0], [9.0, 9.0]])
    chosen = np.array([[True, True], [False, True], [False, False]])
    assert mean_where(values, chosen).tolist() == [2.0, 7.0]


def test_losses_without_thoughts_are_the_models_own(made: Checkpoint, world: Dataset) -> None:
    thinker, _ = load_thinker(made.path)
    where = text_places(world, "test", 4, 3, seed=0)
    found = thought_losses(thinker, where, Thinking(tokens=2), batch=3)
    np.testing.assert_allclose(found.off_NP, plain_losses(made.model(), where), atol=1e-5)
    again = thought_losses(thinker, where, Thinking(tokens=2), batch=3)
    assert np.array_equal(found.on_NP, again.on_NP) and not np.array_equal(found.on_NP, found.shuffled_NP)


def test_unseen_kinds_leave_out_what_was_trained_on(world: Dataset) -> None:
    assert set(unseen_items(world, QUICK)) == {"lcm", "letter_counting"}
    trained = EvaluationConfig.parse({"zero_shot": [{"name": "sum"}, {"name": "lcm"}]}, "test")
    assert set(unseen_items(world, trained)) == {"lcm"}
