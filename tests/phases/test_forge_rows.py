"""Which rows a stage trains on: the mixture's own, fresh tasks at the loop's difficulty, dreams with marks."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from phases.dataset import Dataset
from phases.forge.config import ForgeStage, ForgeTrainingConfig
from phases.forge.difficulty import content
from phases.forge.dreams import Dream, Prompt
from phases.forge.rows import DREAM, ITEM, LABEL, StageRows, open_mixture
from phases.tasks.item import Item
from phases.training.batches import Mixture, Rows

BLOCK, COUNT = 64, 8
TASKS = {
    "reasoning": [{"name": "chain_sum", "params": {"min_digits": 1, "max_digits": 1, "min_terms": 2, "max_terms": 4}}],
    "recall": {"pairs": [2, 4], "max_queries": 1},
    "needle": {"share": 0.0},
    "reasoning_train_items": 40,
    "memory_train_items": 40,
    "validation_items": 30,
    "test_items": 30,
    "choice_items": 0,
}
FOUND = re.compile(r"Question: (.*?)\nAnswer: (.*?)<\|endoftext\|>", re.S)
PLAIN, EDGE, DREAMS, SELF = (
    ForgeStage(name=name, **{name: True} if name != "plain" else {})
    for name in ("plain", "control", "dreams", "self_model")
)


@pytest.fixture(scope="module")
def data(make_task_data: Callable[[Mapping[str, Any], int], Dataset]) -> Dataset:
    return make_task_data(TASKS, BLOCK)


def config(**changes: Any) -> ForgeTrainingConfig:
    values = {
        "stages": [stage.model_dump() for stage in (PLAIN, EDGE, DREAMS, SELF)],
        "training": {"steps": 40, "batch_rows": COUNT},
        "mix": {"text": 0.5, "reasoning": 0.4, "memory": 0.1, "copying": 0.0},
        "chaos": {"items": 60, "levels": 3, "tilt_gain": 0.0, "focus": False},
    }
    merged: dict[str, Any] = {**values, **changes}
    on = {name: {"enabled": True, **merged.get(name, {})} for name in ("chaos", "dreams", "self_model")}
    return ForgeTrainingConfig.parse({**merged, **on}, "test")


def dreams(count: int = 6) -> list[Dream]:
    """Each of twelve bytes of its own; the first seven were the prompt."""
    texts = [tuple(range(20 * n + 1, 20 * n + 13)) for n in range(1, count + 1)]
    return [Dream(Prompt(t[:7], None, (1,)), t[7:], n % 2, 1.0 + n, False, None) for n, t in enumerate(texts)]


def at_difficulty(source: StageRows, value: float) -> None:
    state = source.loop.state()
    source.loop.load({**state, "difficulty": torch.full_like(state["difficulty"], value)})


def read(data: Dataset, rows: torch.Tensor) -> list[list[tuple[str, str]]]:
    return [FOUND.findall(data.tokenizer.decode(row)) for row in rows]


def same(ours: Rows, theirs: Rows, at: Any = slice(None)) -> bool:
    tokens = torch.equal(ours.tokens_BT[at], theirs.tokens_BT[at])
    return tokens and torch.equal(ours.weight_BT[at], theirs.weight_BT[at])


@pytest.mark.parametrize("stage", [PLAIN, DREAMS, SELF, EDGE], ids=lambda stage: stage.name)
def test_with_nothing_to_add_rows_are_the_mixtures_without_marks(stage: ForgeStage, data: Dataset) -> None:
    settings = config(chaos={"enabled": False})
    source, mixture = StageRows(data, settings), open_mixture(data, settings)
    source.enter(stage, 0)
    for step in range(5):
        rows = source.rows(step, COUNT)
        assert rows.marks_BTC is None and same(rows, mixture.rows(step, COUNT))
    assert source.fresh is None and source.tasks == ()


def test_the_order_is_another_than_the_one_that_earlier_phases_began_with(data: Dataset) -> None:
    settings = config()
    theirs, ours = Mixture(data, settings.mix.model_dump(), 0, 0.05), open_mixture(data, settings)
    seen = [{tuple(row) for s in range(2) for row in one.rows(s, COUNT).tokens_BT.tolist()} for one in (theirs, ours)]
    assert len(seen[1]) == 2 * COUNT > 2 * len(seen[0] & seen[1])
    first, other = (open_mixture(data, config(seed=seed)).rows(0, COUNT) for seed in (0, 1))
    assert same(first, ours.rows(0, COUNT)) and not same(first, other)


def test_rows_of_tasks_give_way_to_fresh_ones_and_text_stays(data: Dataset) -> None:
    source, mixture = StageRows(data, config()), open_mixture(data, config())
    source.enter(EDGE, 0)
    known = {tuple(row) for name in ("reasoning", "memory") for row in data.blocks("train", name).tolist()}
    held_out = {content(item) for split in ("validation", "test") for item in data.items(split)}  # type: ignore[arg-type]
    new: list[str] = []
    for step in range(12):
        rows, plain = source.rows(step, COUNT), mixture.rows(step, COUNT)
        text = torch.from_numpy(np.array(mixture.names)[mixture.choices(step, COUNT)] == "text")
        assert rows.marks_BTC is not None and rows.marks_BTC.shape == (COUNT, BLOCK, 3)
        assert same(rows, plain, text) and 0 < int(text.sum()) < COUNT
        assert (rows.marks_BTC[text][..., ITEM] == -1).all() and (rows.marks_BTC[..., LABEL] == -1).all()
        assert (rows.marks_BTC[..., DREAM] == 0).all()
        torch.testing.assert_close(rows.weight_BT.sum(1), torch.ones(COUNT))
        assert not {tuple(row.tolist()) for row in rows.tokens_BT[~text]} & known
        asked = [found for row in read(data, rows.tokens_BT) for found in row]
        answers = [rows.tokens_BT[:, 1:][rows.marks_BTC[..., ITEM] == n] for n in range(len(asked))]
        texts = sorted(data.tokenizer.decode(answer) for answer in answers)
        assert texts == sorted(f" {answer}<|endoftext|>" for _, answer in asked)
        tasks = ["recall" if re.fullmatch(r" \w=\d<.*>", data.tokenizer.decode(a)) else "chain_sum" for a in answers]
        assert [source.tasks[k] for k in source.task_I] == tasks
        new += [prompt for prompt, _ in asked]
    made = [Item(task="recall" if "?" in p else "chain_sum", speciality="", prompt=p, answer="") for p in new]
    assert len(new) > 60 and not {content(item) for item in made} & held_out


@pytest.mark.parametrize(("difficulty", "terms", "pairs"), [(0.0, {2}, {2}), (1.0, {2, 3, 4}, {2, 4})])
def test_fresh_items_are_as_hard_as_the_loop_says(
    difficulty: float, terms: set[int], pairs: set[int], data: Dataset
) -> None:
    source = StageRows(data, config())
    source.enter(EDGE, 0)
    at_difficulty(source, difficulty)
    asked = [p for s in range(10) for row in read(data, source.rows(s, COUNT).tokens_BT) for p, _ in row]
    assert {p.count("=") for p in asked if "?" in p} == pairs
    assert {len(re.findall(r"\d", p)) for p in asked if "?" not in p} == terms


def test_a_share_of_rows_are_dreams_with_marks(data: Dataset) -> None:
    settings = config(dreams={"share": 0.4})
    source, mixture = StageRows(data, settings), open_mixture(data, settings)
    source.enter(DREAMS, 3, dreams())
    whole = {dream.tokens: dream for dream in dreams()}
    places, middles = [], set()
    for step in (3, 4, 5, 6):
        rows, marks = (made := source.rows(step, COUNT)), made.marks_BTC
        assert marks is not None
        dreamt = marks[:, 0, DREAM] == 1
        places.append(dreamt.tolist())
        assert int(dreamt.sum()) == 3 and (marks[..., DREAM] == dreamt[:, None]).all()
        assert same(rows, mixture.rows(step, COUNT), ~dreamt) and (marks[..., ITEM] == -1).all()
        torch.testing.assert_close(rows.weight_BT.sum(1), torch.ones(COUNT))
        for row, label in zip(rows.tokens_BT[dreamt], marks[dreamt][..., LABEL], strict=True):
            ends = [t for t in range(BLOCK) if label[t] >= 0]
            assert len(ends) == 5  # of 12 tokens, and one of padding after each
            for end in ends:
                assert whole[tuple(row[end - 11 : end + 1].tolist())].label == int(label[end])
        for row, label in zip(rows.tokens_BT[~dreamt], marks[~dreamt][..., LABEL], strict=True):
            ends = {t for t in range(BLOCK) if row[t] == 0 and row[t + 1] != 0}
            marked = {t for t in range(BLOCK) if label[t] == 2}
            assert ends <= marked and (label == -1).sum() == BLOCK - len(marked) and len(marked - ends) <= 1
            middles |= marked - ends
    assert len({tuple(place) for place in places}) > 1
    assert len(middles) > 9 and min(middles) < BLOCK // 3 < 2 * BLOCK // 3 < max(middles)  # cut anywhere
    assert source.buffer.kept == 6 and source.buffer.used == 4 * 3 * 5


def test_dreams_arrive_with_the_first_step_only(data: Dataset) -> None:
    source, resumed = StageRows(data, config()), StageRows(data, config())
    source.enter(DREAMS, 3, dreams())
    assert not source.dreaming
    source.rows(3, COUNT)
    kept = source.memory()
    resumed.enter(DREAMS, 3, dreams())
    assert resumed.rows(4, COUNT).marks_BTC is None
    resumed.remember(kept)
    assert same(resumed.rows(4, COUNT), source.rows(4, COUNT)) and resumed.buffer.kept == 6


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, True), ({"temperature": 0.0}, False), ({"enabled": False}, False)]
)
def test_dreams_are_shown_to_be_recognised_only_where_that_is_learnt(
    settings: dict[str, Any], expected: bool, data: Dataset
) -> None:
    source = StageRows(data, config(self_model=settings))
    source.enter(DREAMS, 0, dreams())
    source.rows(0, COUNT)
    source.enter(SELF, 1)
    rows, plain = source.rows(1, COUNT), source.mixture.rows(1, COUNT)
    assert (rows.marks_BTC is not None) == expected
    if rows.marks_BTC is not None:  # one row, and nothing else is learnt from it
        dreamt = rows.marks_BTC[:, 0, DREAM] == 1
        assert dreamt.sum() == 1 and same(rows, plain, ~dreamt) and not rows.weight_BT[dreamt].any()
    source.enter(PLAIN, 2)
    assert source.rows(2, COUNT).marks_BTC is None


def test_fresh_items_under_dreams_are_not_asked(data: Dataset) -> None:
    both = ForgeStage(name="both", control=True, dreams=True)
    source = StageRows(data, config(stages=[both.model_dump()], dreams={"share": 0.5}))
    source.enter(both, 0, dreams())
    rows, marks = (made := source.rows(0, COUNT)), made.marks_BTC
    assert marks is not None
    dreamt = marks[:, 0, DREAM] == 1
    assert (marks[dreamt][..., ITEM] == -1).all() and (marks[~dreamt][..., ITEM] >= 0).any()
    present = marks[..., ITEM][marks[..., ITEM] >= 0].unique()
    assert len(present) < len(source.task_I)
    assert {len(row) for row in read(data, rows.tokens_BT[dreamt])} == {0}
    assert (marks[~dreamt][..., LABEL] == 2).any(1).all()


def test_what_is_remembered_continues_the_rows(data: Dataset) -> None:
    both = ForgeStage(name="both", control=True, dreams=True)
    source, resumed, other = (StageRows(data, config(stages=[both.model_dump()])) for _ in range(3))
    for one, arrivals in ((source, dreams()), (resumed, []), (other, dreams())):
        one.enter(both, 0, arrivals)
    for step in range(4):
        source.rows(step, COUNT)
        source.loop.observe_success(torch.tensor([1, 3]), torch.tensor([4, 4]))
    memory = {name: tensor.clone() for name, tensor in source.memory().items()}
    other.buffer.offer(dreams())
    resumed.remember(memory)
    assert resumed.loop.difficulty == source.loop.difficulty
    ours, theirs, naive = (one.rows(4, COUNT) for one in (source, resumed, other))
    assert same(ours, theirs) and not same(ours, naive)
    assert ours.marks_BTC is not None and theirs.marks_BTC is not None
    assert torch.equal(ours.marks_BTC, theirs.marks_BTC) and torch.equal(source.task_I, resumed.task_I)
    after = [one.memory() for one in (source, resumed)]
    assert all(torch.equal(after[0][n].nan_to_num(), after[1][n].nan_to_num()) for n in after[0])
