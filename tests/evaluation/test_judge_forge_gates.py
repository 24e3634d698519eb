"""Which gate a figure fails: made-up answers and losses instead of measured ones, so that every difference is known."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import judge_forge
from evaluation.config import EvaluationConfig
from evaluation.judge_forge import judge
from evaluation.judgement import Judgement
from evaluation.measured import Measured
from evaluation.metric import Values
from evaluation.ratio import BlockLosses
from evaluation.specialities import Units, held_out
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.forge.history import HISTORY, History
from phases.forge.run import PLAIN

CONFIG = EvaluationConfig(resamples=1000, zero_shot_items=4, thought_positions=3)
BETTER = {f"{what}: better than the parent" for what in ("text", "answers")}
EQUAL = {f"{what}: no worse than the control" for what in ("text", "answers", "tasks")}
TASKS, BITS = "tasks: no worse than the parent", "bits per byte within 5% of the parent's"
SUMS, RECALL = (f"{what}: 95% of the parent's right answers" for what in ("reasoning", "memory"))
BUDGET = {f"the control had as many {what}" for what in ("tokens", "passes")}
SINGLE = "no single task below 95% of the parent's right answers by 2 standard errors"
SPENT = {"tokens": 1000.0, "passes": 3500.0}
WOBBLE = np.tile([1.0, -1.0], 20)
"""Of 40 text blocks: noise of standard deviation 1 around any difference."""


@dataclass(frozen=True)
class Figures:
    """A model's: right answers of 33 sums and 30 recalls, nats of 40 text blocks and of every answer."""

    sums: int = 15
    recalls: int = 20
    text: Values | float = 30.0
    answers: Values | float = 1.0


class Judging:
    """Judges made-up figures in the place of three models."""

    def __init__(self, made: Checkpoint, parent: Checkpoint, world: Dataset, patch: pytest.MonkeyPatch) -> None:
        self.made, self.parent, self.world, self.patch = made, parent, world, patch
        self.units: Units = held_out(world, CONFIG)

    def __call__(self, ours: Figures, parent: Figures, plain: Figures, sigmas: float = 2.0) -> Judgement:
        paths = (self.made.path, self.parent.path, self.made.siblings[PLAIN].path)
        by_path = dict(zip(map(str, paths), (ours, parent, plain), strict=True))

        def measure(model: Any, *_: object) -> Measured:
            return self.measured(by_path[model.name_or_path])

        def answers(model: Any, batches: Any) -> tuple[Values, Values]:
            size = sum(len(batch.index) for batch in batches)
            return np.resize(by_path[model.name_or_path].answers, size).astype(float), np.zeros(size)

        self.patch.setattr(judge_forge, "measure", measure)
        self.patch.setattr(judge_forge, "answer_losses", answers)
        return judge(self.made, [self.parent], self.world, CONFIG.model_copy(update={"sigmas": sigmas}))

    def measured(self, figures: Figures) -> Measured:
        sizes = {"reasoning": (figures.sums, 33), "memory": (figures.recalls, 30), "adaptive": (0, 40)}
        scores = {name: np.arange(size) < right for name, (right, size) in sizes.items()}
        assert {name: len(self.units.items[name]) for name in ("reasoning", "memory")} == {
            "reasoning": 33,
            "memory": 30,
        }
        blocks = BlockLosses(np.resize(figures.text, 40).astype(float), np.full(40, 10.0), 24)
        return Measured(text=blocks, half=blocks, scores=scores, choices=None, copied=None)


def save(family: Checkpoint, world: Dataset, root: Path, spent: dict[str, float]) -> Checkpoint:
    """A forge checkpoint and a control that was given what `spent` says; what they can do is made up."""
    history, model = {HISTORY: History().model_dump_json()}, family.model()
    for name, metrics, texts in (("root", SPENT, history), (PLAIN, spent, {})):
        save_checkpoint(root / name, model, world.tokenizer, Manifest(name, metrics=metrics), texts=texts)
    return save_family(root / "forge", root / "root", {PLAIN: root / PLAIN})


@pytest.fixture(scope="module")
def made(family: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A control of the very same cost."""
    return save(family, world, tmp_path_factory.mktemp("made"), SPENT)


@pytest.fixture
def judging(made: Checkpoint, family: Checkpoint, world: Dataset, monkeypatch: pytest.MonkeyPatch) -> Judging:
    return Judging(made, family, world, monkeypatch)


GOOD, USUAL = Figures(25, 29, 27.0, 0.5), Figures()


def failed(judgement: Judgement) -> set[str]:
    return {gate.name for gate in judgement.gates if not gate.passed}


def value(judgement: Judgement, name: str) -> float:
    return next(gate.value for gate in judgement.gates if gate.name == name)


def test_a_model_better_at_everything_passes(judging: Judging) -> None:
    verdict = judging(GOOD, USUAL, USUAL)
    assert verdict.passed and {gate.name for gate in verdict.gates} == {
        "no NaN", TASKS, BITS, SUMS, RECALL, SINGLE, *BETTER, *EQUAL, *BUDGET,
    }  # fmt: skip
    for name in ("text: better than the parent", "text: no worse than the control"):
        assert value(verdict, name) == pytest.approx(3 / 10 / np.log(2))
    for name in ("answers: better than the parent", "answers: no worse than the control"):
        assert value(verdict, name) == pytest.approx(0.5)
    for name in (TASKS, "tasks: no worse than the control"):
        assert value(verdict, name) == pytest.approx((10 / 33 + 9 / 30) / 2)


def test_with_the_scores_of_model_and_control_swapped_it_fails(judging: Judging) -> None:
    assert failed(judging(USUAL, USUAL, GOOD)) == BETTER | EQUAL


def test_with_the_scores_of_model_and_parent_swapped_it_fails(judging: Judging) -> None:
    assert failed(judging(USUAL, GOOD, USUAL)) == {*BETTER, TASKS, BITS, SUMS, RECALL, SINGLE}


def test_each_comparison_with_the_control_is_its_own(judging: Judging) -> None:
    """Ours beat the parent; the control is better in one thing."""
    for what, plain in (
        ("text", Figures(text=26.0)), ("answers", Figures(answers=0.4)), ("tasks", Figures(33, 30)),
    ):  # fmt: skip
        assert failed(judging(GOOD, USUAL, plain)) == {f"{what}: no worse than the control"}


def test_each_comparison_with_the_parent_is_its_own(judging: Judging) -> None:
    for what, ours in (("text", Figures(25, 29, 30.0, 0.5)), ("answers", Figures(25, 29, 27.0, 1.0))):
        assert failed(judging(ours, USUAL, USUAL)) == {f"{what}: better than the parent"}


def test_the_control_may_be_better_within_two_errors(judging: Judging) -> None:
    """Of the text 1/√40 nats of 10 bytes a block is one; one sum more is about one, too."""
    error = 1 / np.sqrt(39)
    near = Figures(26, 29, 27.0 - 1.9 * error + WOBBLE, 0.5)
    assert judging(GOOD, USUAL, near).passed
    far = Figures(26, 29, 27.0 - 2.1 * error + WOBBLE, 0.5)
    assert failed(judging(GOOD, USUAL, far)) == {"text: no worse than the control"}
    assert failed(judging(GOOD, USUAL, near, sigmas=0)) == {
        f"{x}: no worse than the control" for x in ("text", "tasks")
    }


def test_better_than_the_parent_by_two_errors(judging: Judging) -> None:
    error = 1 / np.sqrt(39)
    near = Figures(25, 29, 30.0 - 1.9 * error + WOBBLE, 0.5)
    assert failed(judging(near, USUAL, USUAL)) == {"text: better than the parent"}
    assert judging(Figures(25, 29, 30.0 - 2.1 * error + WOBBLE, 0.5), USUAL, USUAL).passed
    assert judging(near, USUAL, USUAL, sigmas=0).passed
    # Of answers, the bootstrap's error of a mean over two tasks of 33 and 30 items, whose differences are ± 1.
    error = np.sqrt(1 / 33 + 1 / 30) / 2
    for factor, fails in ((1.5, {"answers: better than the parent"}), (2.5, set())):
        ours = Figures(25, 29, 27.0, 1.0 - factor * error + WOBBLE[:30])
        assert failed(judging(ours, USUAL, Figures(answers=2.0))) == fails


def test_as_good_as_the_parent_is_not_better_but_as_good_as_the_control_will_do(judging: Judging) -> None:
    assert failed(judging(USUAL, USUAL, USUAL)) == BETTER
    assert judging(GOOD, USUAL, GOOD).passed


def test_a_share_lost_fails_whatever_its_error(judging: Judging) -> None:
    """Of 20 recalls one is 5 %; two are 10 %, within two errors of a single task and not of the speciality's gate."""
    assert judging(Figures(25, 19, 27.0, 0.5), USUAL, USUAL).passed
    verdict = judging(Figures(25, 18, 27.0, 0.5), USUAL, USUAL)
    assert failed(verdict) == {RECALL} and value(verdict, RECALL) == pytest.approx(0.9)
    verdict = judging(Figures(25, 8, 27.0, 0.5), USUAL, Figures(0, 0))
    assert failed(verdict) == {RECALL, SINGLE}
    assert [gate.metric for gate in verdict.gates if gate.name == SINGLE] == ["recall"]


def test_text_may_rise_by_a_twentieth(judging: Judging) -> None:
    others = {"text: better than the parent", "text: no worse than the control"}
    assert failed(judging(Figures(25, 29, 31.4, 0.5), USUAL, USUAL)) == others
    assert failed(judging(Figures(25, 29, 31.6, 0.5), USUAL, USUAL)) == {*others, BITS}


@pytest.mark.parametrize(
    ("spent", "short"),
    [
        ({"tokens": 999.0, "passes": 3500.0}, {"the control had as many tokens"}),
        ({"tokens": 1000.0, "passes": 3499.0}, {"the control had as many passes"}),
        ({"tokens": 1200.0, "passes": 3600.0}, set()),
    ],
)
def test_a_control_that_was_given_less_shows_nothing(
    judging: Judging, family: Checkpoint, world: Dataset, tmp_path: Path, spent: dict[str, float], short: set[str]
) -> None:
    judging.made = save(family, world, tmp_path, spent)
    verdict = judging(GOOD, USUAL, USUAL)
    assert failed(verdict) == short
    assert {value(verdict, f"the control had as many {name}") for name in SPENT} == set(spent.values())


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_ours_is_compared_with_must_be_finite(judging: Judging, broken: float) -> None:
    """Nothing is worse than NaN, so that a broken control would let everything pass."""
    bad = Figures(text=np.array([broken] + 39 * [30.0]))
    with pytest.raises(CheckpointError, match="its control has NaN or infinite losses"):
        judging(GOOD, USUAL, bad)
    with pytest.raises(CheckpointError, match="its parent has NaN or infinite losses"):
        judging(GOOD, bad, USUAL)
    assert failed(judging(bad, bad, bad)) == {"no NaN"}
