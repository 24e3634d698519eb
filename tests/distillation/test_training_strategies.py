"""Every strategy trains a student from start to end; a control sees the same rows; an interrupted run ends the same."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import Record, asked
from distillation.training.baseline import baseline_lesson, with_references
from distillation.training.data_size import DataSizeConfig
from distillation.training.distil import DistilConfig, distil
from distillation.training.held_out import HeldOut
from distillation.training.learner import Learner, save_learner
from distillation.training.on_policy import OWN
from distillation.training.search_space import SearchConfig
from distillation.training.strategies import Lesson, Tutor, pool_weights, prepare
from distillation.training.strategy_config import (
    CrossTokenizer,
    Incremental,
    Logits,
    MultiTeacher,
    OnPolicy,
    Rationale,
    Response,
    Strategy,
)
from distillation.training.student import Own, Pruned
from distillation.training.train import train_student
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import Lattice
from phases.bitnet.storage import read_lattices
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError, DataError
from phases.training.config import TrainingConfig

BLOCK = 48
QUICK = TrainingConfig(steps=4, batch_rows=4, save_seconds=0, warmup=0, decay=0)


def model(vocabulary: int, seed: int, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "intermediate_size": 64, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes, **heads, bos_token_id=0, eos_token_id=0)).eval()


def saved(path: Path, vocabulary: int = 260, seed: int = 1, layers: int = 3) -> Checkpoint:
    tokenizer = train_tokenizer(["the cat and the hat"] * 9, vocabulary)
    return save_checkpoint(path, model(vocabulary, seed, layers), tokenizer, Manifest("cognate"))


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Tutor]:
    folder = tmp_path_factory.mktemp("teachers")
    return [Tutor(name, saved(folder / name, seed=i), quality=0.5 + i / 4) for i, name in enumerate("ab")]


@pytest.fixture(scope="session")
def records() -> list[Record]:
    words = ["cat", "hat", "and", "the", "that", "hand"]
    return [
        asked(f"say {w}", completion=w, reference=w.upper(), rationale=f"it is {w}", teacher="ab"[i % 2], group=w)
        for i, w in enumerate(words * 2)
    ]


def lesson_of(strategy: Strategy, tutors: list[Tutor], records: list[Record], work: Path) -> Lesson:
    tokenizer = train_tokenizer(["the cat and the hat"] * 9, 260)
    return prepare(strategy, records, tutors, tokenizer, BLOCK, work)


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


def test_the_control_sees_the_same_rows_in_the_same_order(
    teachers: list[Tutor], records: list[Record], tmp_path: Path
) -> None:
    lesson = lesson_of(Logits(), teachers[:1], records, tmp_path)
    plain = baseline_lesson(lesson, "answers", BLOCK, tmp_path)
    ours, theirs = (one.source(None, 5, 9).rows(3, 4) for one in (lesson, plain))
    assert torch.equal(ours.tokens_BT, theirs.tokens_BT) and torch.equal(ours.weight_BT, theirs.weight_BT)
    assert theirs.marks_BTC is None and not plain.tutors


def test_the_control_may_learn_the_references(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    lesson = lesson_of(Rationale(), teachers[:1], records, tmp_path)
    plain = baseline_lesson(lesson, "references", BLOCK, tmp_path)
    assert with_references(records)[0].completion == "CAT" and plain.parts[0].rows.digest != lesson.parts[0].rows.digest
    assert with_references([asked("q", completion="c")])[0].completion == "c"


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
    with pytest.raises(ConfigError, match="nothing to cut"):
        wrong = config.model_copy(update={"student": Pruned()})
        distil((), records, wrong, tmp_path / "out", tmp_path / "work", seed=0, validation=records[:3])


def test_a_night_with_a_search_and_a_curve(teachers: list[Tutor], records: list[Record], tmp_path: Path) -> None:
    config = DistilConfig(
        student=Pruned(ratio=0.7),
        training=QUICK,
        block_tokens=BLOCK,
        search=SearchConfig(trials=2, steps=3, tau=(1.0,)),
        data_size=DataSizeConfig(shares=(0.3, 0.6, 1.0), steps=2, resamples=50),
    )
    more = [replace(record, group="all") for record in records]
    found = distil(teachers[:1], more, config, tmp_path / "out", tmp_path / "w", seed=0, validation=records[:5])
    assert found.search is not None and len(found.search.trials) == 2
    assert found.curve is not None and [point.records for point in found.curve.points] == [4, 7, 12]
    chosen = found.student.manifest["config"]["training"]
    assert chosen["learning_rate"] == found.search.training.learning_rate and chosen["steps"] == 4


def test_held_out_records_need_something_expected(records: list[Record]) -> None:
    tokenizer = train_tokenizer(["a"], 260)
    with pytest.raises(DataError, match="no held-out records"):
        HeldOut([], tokenizer)
    with pytest.raises(DataError, match="neither completion nor reference"):
        HeldOut([asked("q")], tokenizer)
