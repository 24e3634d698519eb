"""Every strategy trains a student from start to end; a control sees the same rows; an interrupted run ends the same."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillation.record import Record, asked
from distillation.training.distil_config import DistilConfig
from distillation.training.held_out import HeldOut
from distillation.training.on_policy import OWN
from distillation.training.strategies import Tutor, pool_weights
from distillation.training.strategy_config import (
    CrossTokenizer,
    Logits,
    MultiTeacher,
    OnPolicy,
    Rationale,
    Response,
)
from distillation.training.train import train_student
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError, DataError
from tests.distillation.small import QUICK, lesson_of, model, saved

STRATEGIES: Mapping[str, Any] = {
    "response": Response(),
    "logits": Logits(),
    "ghost": Logits(cache={"method": "ghost", "tau": 2.0}, trust=1),
    "jsd": Logits(loss="jsd"),
    "reverse": Logits(loss="reverse", warmup=0.5),
    "hidden": Logits(hidden=0.1),
    "rationale": Rationale(alpha=0.5),
    "on_policy": OnPolicy(max_tokens=6, start=0.0),
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_student_learns_by_each_strategy(
    name: str, teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    lesson = lesson_of(STRATEGIES[name], teachers[:1], records, tmp_path)
    start, curves = saved(tmp_path / "start", seed=7, layers=2), []
    training = QUICK.model_copy(update={"steps": 40, "learning_rate": 0.01, "matrix_learning_rate": 0.02})
    done = train_student(
        start,
        lesson,
        training,
        tmp_path / "out",
        tmp_path / "work",
        agent=start,
        seed=0,
        metrics=lambda step, values: curves.append(values["student/loss"]),
    )
    exam = HeldOut(records, lesson.tokenizer)
    assert exam.measure(done.model()).loss < exam.measure(start.model()).loss - 0.5
    assert done.manifest["phase"] == "distillation" and not list((tmp_path / "work").iterdir())


def test_an_interrupted_run_ends_in_the_same_bits(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    lesson = lesson_of(OnPolicy(max_tokens=6, start=0.5), teachers[:1], records, tmp_path)
    start = saved(tmp_path / "start", seed=7, layers=2)
    training = QUICK.model_copy(update={"steps": 22})

    def killed(step: int, values: Mapping[str, float]) -> None:
        if step == 20:
            raise KeyboardInterrupt

    def run(out: str, metrics: Any) -> str:
        arguments = {"agent": start, "seed": 3, "metrics": metrics}
        return train_student(start, lesson, training, tmp_path / out, tmp_path / f"{out}.work", **arguments).digest

    whole = run("whole", lambda step, values: None)
    with pytest.raises(KeyboardInterrupt):
        run("cut", killed)
    assert list((tmp_path / "cut.work").rglob("*.safetensors"))
    assert run("cut", lambda step, values: None) == whole
    assert run("cut", killed) == whole  # finished: nothing is trained


def test_each_record_goes_to_the_teacher_that_answered_it(
    teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    foreign = [*records, replace(records[0], teacher="somebody else")]
    lesson = lesson_of(MultiTeacher(), teachers, foreign, tmp_path)
    assert [part.rows.card["records"] for part in lesson.parts] == [6, 7]  # the better one has the foreign record too
    assert [cache.card["teacher"] for cache in lesson.caches] == [t.checkpoint.digest for t in teachers]


def test_teachers_are_pooled_by_quality(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    lesson = lesson_of(MultiTeacher(combine="pool", sharpness=1), teachers, records, tmp_path)
    assert [weight for _, weight in lesson.parts[0].teachers] == pytest.approx([0.4, 0.6])
    assert pool_weights([0.5, 0.0, 1.0], 2) == pytest.approx([0.2, 0, 0.8])
    with pytest.raises(DataError, match="none of the teachers"):
        pool_weights([0.0, 0.0], 1)


def test_a_teacher_with_other_tokens(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    other = [Tutor("other", saved(tmp_path / "other", vocabulary=264))]
    lesson = lesson_of(CrossTokenizer(), other, records, tmp_path)
    start = saved(tmp_path / "start", seed=7, layers=2)
    done = train_student(start, lesson, QUICK, tmp_path / "out", tmp_path / "work", agent=start, seed=0)
    assert done.digest != start.digest
    with pytest.raises(ConfigError, match="other has another tokenizer.*cross_tokenizer"):
        lesson_of(Logits(), other, records, tmp_path)
    with pytest.raises(ConfigError, match="one vocabulary"):
        lesson_of(CrossTokenizer(), teachers[:1], records, tmp_path)


def test_what_does_not_go_together_is_refused(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no endpoint gives"):
        lesson_of(Logits(), [], records, tmp_path)
    with pytest.raises(ConfigError, match="one teacher, not 2 .a, b."):
        lesson_of(Logits(), teachers, records, tmp_path)
    with pytest.raises(ValueError, match="reverse KL on given texts"):
        Logits(loss="reverse")
    with pytest.raises(ConfigError, match=r"out\.strategy"):
        DistilConfig.parse({"strategy": {"kind": "logits", "alhpa": 1}}, "out.strategy")


def test_the_students_own_texts(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    strategy = OnPolicy(share=0.3, max_tokens=8, start=0.5)
    lesson, own = lesson_of(strategy, teachers[:1], records, tmp_path), model(260, 3)
    source = lesson.source(own, 0, steps=20)
    counts = [int((source.rows(step, 4).marks_BTC[:, 0, 0] == OWN).sum()) for step in range(20)]
    assert counts[:10] == [0] * 10 and sum(counts) == 12
    step = 10 + counts[10:].index(2) if 2 in counts else 10 + counts[10:].index(1)
    batch, again = source.rows(step, 4), lesson.source(own, 0, steps=20).rows(step, 4)
    assert torch.equal(batch.tokens_BT, again.tokens_BT)
    torch.testing.assert_close(batch.weight_BT[-1].sum(), torch.tensor(1.0))
    # Only what the student wrote is learnt from: greedy or not, no prompt's token has weight.
    prompt = lesson.tokenizer("<|assistant|>", add_special_tokens=False)["input_ids"][0]
    written = batch.tokens_BT[-1, 1:][batch.weight_BT[-1] > 0]
    first = int((batch.weight_BT[-1] > 0).nonzero()[0])
    assert batch.tokens_BT[-1, first] == prompt and len(written) >= 1


def test_no_room_for_own_texts(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    lesson = lesson_of(OnPolicy(max_tokens=60), teachers[:1], records, tmp_path)
    with pytest.raises(DataError, match="max_tokens=60"):
        lesson.source(model(260, 3), 0, steps=4)


def test_held_out_records_need_something_expected(records: list[Record]) -> None:
    tokenizer = train_tokenizer(["a"], 260)
    with pytest.raises(DataError, match="no held-out records"):
        HeldOut([], tokenizer)
    with pytest.raises(DataError, match="neither completion nor reference"):
        HeldOut([asked("q")], tokenizer)
