"""A night's trainings: student and control, what the control learns from, a search for both, a learning curve."""

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillation.record import GIVEN, Record, asked
from distillation.training.baseline import baseline_lesson, with_references
from distillation.training.data_curve import data_curve
from distillation.training.data_size import DataSizeConfig, subset
from distillation.training.distil import distil
from distillation.training.distil_config import DistilConfig
from distillation.training.learner import Learner, save_learner
from distillation.training.search_space import SearchConfig
from distillation.training.strategies import Tutor
from distillation.training.strategy_config import (
    Incremental,
    Logits,
    Rationale,
    Response,
    Strategy,
)
from distillation.training.student import Own, Pruned
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import Lattice
from phases.bitnet.storage import read_lattices
from phases.checkpoint import Checkpoint, Manifest
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError, InputError
from tests.distillation.small import BLOCK, QUICK, lesson_of, model, saved


def test_the_control_sees_the_same_rows_in_the_same_order(
    teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    lesson = lesson_of(Logits(), teachers[:1], records, tmp_path)
    plain = baseline_lesson(lesson, "answers", BLOCK, tmp_path)
    ours, theirs = (one.source(None, 5, 9).rows(3, 4) for one in (lesson, plain))
    assert torch.equal(ours.tokens_BT, theirs.tokens_BT) and torch.equal(ours.weight_BT, theirs.weight_BT)
    assert theirs.marks_BTC is None and not plain.tutors


def test_the_control_may_learn_the_references(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    lesson = lesson_of(Rationale(alpha=0.5), teachers[:1], records, tmp_path)
    plain = baseline_lesson(lesson, "references", BLOCK, tmp_path)
    assert plain is not None and plain.parts[0].rows.digest != lesson.parts[0].rows.digest


def test_the_control_has_what_one_has_without_a_teacher() -> None:
    came = asked("q", completion="steps #### c", reference="c")
    replaced = asked("q", completion="d", reference="c", teacher="t", more={GIVEN: "steps #### c"})
    right, unknown = asked("q", completion="d", reference="c", teacher="t"), asked("q", completion="d", teacher="t")
    own = with_references([came, replaced, right, unknown])
    assert [record.completion for record in own] == ["steps #### c", "steps #### c", "c"]


@pytest.mark.parametrize("strategy", [Response(), Rationale()])
def test_where_texts_are_all_that_a_teacher_gives_its_texts_are_not_the_controls(
    strategy: Strategy, records: list[Record], tmp_path: Path
) -> None:
    lesson = lesson_of(strategy, [], records, tmp_path)
    plain = baseline_lesson(lesson, "answers", BLOCK, tmp_path)
    assert plain is not None and [record.completion for record in plain.records] == [r.reference for r in records]
    taught = [replace(record, reference="") for record in records]
    assert baseline_lesson(lesson_of(strategy, [], taught, tmp_path), "answers", BLOCK, tmp_path) is None


def test_a_night_from_teacher_to_student_and_control(
    teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    config = DistilConfig(student=Pruned(ratio=0.7), training=QUICK, block_tokens=BLOCK)
    arguments = {"seed": 0, "validation": records[:5]}
    found = distil(teachers[:1], records[5:], config, tmp_path / "out", tmp_path / "work", **arguments)
    assert found.student.digest != found.baseline.digest
    assert found.student.manifest["parents"] == [found.initial.digest, teachers[0].checkpoint.digest]
    assert found.figures["student"]["n"] == 5 and "student - baseline" in found.figures
    again = distil(teachers[:1], records[5:], config, tmp_path / "again", tmp_path / "more", **arguments)
    assert again.student.digest == found.student.digest and again.baseline.digest == found.baseline.digest


def test_a_ternary_teacher_has_a_ternary_student_all_the_way(records: list[Record], tmp_path: Path) -> None:
    whole, tokenizer = model(260, 1), train_tokenizer(["the cat and the hat"] * 9, 260)
    learner = Learner(whole, tokenizer, Quantised(whole, Quantisation(group=32)))
    tutors = [Tutor("a", save_learner(learner, tmp_path / "teacher", Manifest("bitnet")))]
    config = DistilConfig(student=Pruned(ratio=0.7), training=QUICK, block_tokens=BLOCK)
    found = distil(tutors, records[5:], config, tmp_path / "out", tmp_path / "w", seed=0, validation=records[:5])
    for made in (found.student, found.baseline):
        changed = [a.codes_OI.ne(b.codes_OI).any() for a, b in zip(*map(lattices, (made, found.initial)), strict=True)]
        assert any(changed) and made.siblings["packed"].bytes_on_disk < made.bytes_on_disk


def lattices(checkpoint: Checkpoint) -> list[Lattice]:
    return list(read_lattices(checkpoint.path).values())


def test_a_night_goes_on_from_the_champion(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    champion = saved(tmp_path / "champion", seed=8, layers=2)
    config = DistilConfig(strategy=Incremental(champion=str(champion.path)), training=QUICK, block_tokens=BLOCK)
    arguments = {"seed": 0, "validation": records[:5]}
    found = distil(teachers[:1], records[5:], config, tmp_path / "out", tmp_path / "work", **arguments)
    initial, given = found.initial.tensors(), champion.tensors()
    assert all(torch.equal(initial[name], given[name]) for name in given)


def test_without_a_local_teacher_texts_are_learnt(records: list[Record], tmp_path: Path) -> None:
    own = saved(tmp_path / "own", seed=8, layers=2)
    config = DistilConfig(student=Own(path=str(own.path)), strategy=Response(), training=QUICK, block_tokens=BLOCK)
    found = distil((), records, config, tmp_path / "out", tmp_path / "work", seed=0, validation=records[:3])
    assert "teacher" not in found.figures and found.student.digest != found.initial.digest
    assert found.baseline.digest not in (found.student.digest, found.initial.digest)
    taught = [replace(record, reference="") for record in records]
    alone = distil((), taught, config, tmp_path / "b", tmp_path / "c", seed=0, validation=records[:3])
    assert alone.baseline.digest == alone.initial.digest and "as it is" in alone.figures["control_had"]
    with pytest.raises(ConfigError, match="nothing to cut"):
        wrong = config.model_copy(update={"student": Pruned()})
        distil((), records, wrong, tmp_path / "out", tmp_path / "work", seed=0, validation=records[:3])


def test_a_night_with_a_search(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    config = DistilConfig(
        student=Pruned(ratio=0.7),
        training=QUICK,
        block_tokens=BLOCK,
        search=SearchConfig(trials=3, steps=3, tau=(1.0,)),
    )
    arguments = {"seed": 0, "validation": records[:5]}
    found = distil(teachers[:1], records, config, tmp_path / "out", tmp_path / "w", **arguments)
    assert found.search is not None and len(found.search.trials) == 3
    chosen = found.student.manifest["config"]["training"]
    assert chosen["learning_rate"] == found.search.training.learning_rate and chosen["steps"] == 4
    # The control has had as many trials of its own.
    assert tried(tmp_path / "w" / "search.baseline") == 3
    with pytest.raises(InputError, match="late, so the night ends before training"):
        distil(teachers[:1], records, config, tmp_path / "l", tmp_path / "m", over=lambda: "late", **arguments)
    assert not (tmp_path / "l").exists()


def test_the_control_is_searched_for_as_long_as_the_student(
    teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    search = SearchConfig(trials=5, steps=3, tau=(1.0,), seconds=1e-9)
    config = DistilConfig(student=Pruned(ratio=0.7), training=QUICK, block_tokens=BLOCK, search=search)
    found = distil(teachers[:1], records, config, tmp_path / "o", tmp_path / "w", seed=0, validation=records[:5])
    assert found.search is not None and len(found.search.trials) == tried(tmp_path / "w" / "search.baseline") == 1


def tried(folder: Path) -> int:
    """Trials that a search has finished."""
    (study,) = folder.glob("*/search.sqlite")
    with contextlib.closing(sqlite3.connect(study)) as database:
        ((count,),) = database.execute("SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")
    return int(count)


def test_a_curve_of_short_trainings(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    config = DistilConfig(student=Pruned(ratio=0.7), training=QUICK, block_tokens=BLOCK)
    size = DataSizeConfig(shares=(0.3, 0.6, 1.0), steps=2, resamples=50)
    more, seen = [replace(record, group="all") for record in records], []

    def answered(share: float) -> list[Record]:
        seen.append(share)
        return subset(more, share, 0)

    given = (teachers[:1], answered, config, size, tmp_path)
    curve, share = data_curve(*given, seed=0, validation=records[:5])
    assert [point.records for point in curve.points] == [4, 7, 12] and share == 1 and seen == [0.3, 0.6, 1.0]
    assert data_curve(*given, seed=0, validation=records[:5]) == (curve, share)
    # Other questions to be examined on are other results, not a crash.
    assert data_curve(*given, seed=0, validation=records[:6])[0].points[0].loss != curve.points[0].loss
