"""Rows of fresh items: the data's own form, whole items, the wanted tasks and levels, and a state that resumes."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from phases.data.pack import pack_items
from phases.dataset import Dataset
from phases.forge.config import Chaos
from phases.forge.fresh import FreshRows, FreshTasks, nearby, solved_by_task
from phases.tasks.config import TasksConfig
from phases.tasks.item import Item, render_completion
from phases.tasks.reasoning import ReasoningTask, reasoning_items
from phases.tasks.recall import RecallConfig, recall_items
from phases.training.batches import Mixture

BLOCK, PROMPT_WEIGHT = 150, 0.1
LEVELS = (0.0, 0.5, 1.0)
SPECIALITY = {"a": "reasoning", "b": "reasoning", "m": "memory"}
EVEN = dict.fromkeys(SPECIALITY, 1.0)
FOUND = re.compile(r"Question: (.*?)\nAnswer: (.*?)<\|endoftext\|>", re.S)


def named(task: str, level: int, count: int) -> list[Item]:
    """Items whose prompt says where they come from; no two answers have the same length as a rule."""
    speciality = SPECIALITY[task]
    return [
        Item(task=task, speciality=speciality, prompt=f"{task}{level}.{n}", answer="x" * (1 + n % 5) + str(n))
        for n in range(count)
    ]


ITEMS = {task: [named(task, level, 12) for level in range(3)] for task in SPECIALITY}
BY_PROMPT = {item.prompt: item for cells in ITEMS.values() for cell in cells for item in cell}


@pytest.fixture
def fresh(tiny_data: Dataset) -> FreshTasks:
    return FreshTasks(ITEMS, LEVELS, tiny_data.tokenizer, BLOCK, PROMPT_WEIGHT)


def asked(tokenizer: object, rows: FreshRows) -> list[list[Item]]:
    """The items that can be read in each row."""
    texts = [tokenizer.decode(row) for row in rows.tokens_BT]  # type: ignore[attr-defined]
    return [[BY_PROMPT[prompt] for prompt, _ in FOUND.findall(text)] for text in texts]


def test_a_row_is_what_the_data_would_have_made_of_its_items(tiny_data: Dataset) -> None:
    items = named("a", 0, 12)
    rows = FreshTasks({"a": [items]}, [1.0], tiny_data.tokenizer, BLOCK, PROMPT_WEIGHT).rows(
        {"reasoning": 1}, {"a": 1.0}, {"a": 1.0}, 0, 0
    )
    packed = pack_items(tiny_data.tokenizer, items, BLOCK)
    data = SimpleNamespace(
        streams=lambda _: ["a"], blocks=lambda *_: packed.tokens_NT[:1], mask=lambda *_: packed.mask_NT[:1]
    )
    expected = Mixture(data, {"a": 1.0}, 0, PROMPT_WEIGHT).rows(0, 1)  # type: ignore[arg-type]
    assert torch.equal(rows.tokens_BT, expected.tokens_BT) and rows.tokens_BT.dtype == torch.int64
    assert torch.equal(rows.weight_BT, expected.weight_BT) and rows.weight_BT.dtype == torch.float32
    assert torch.equal(rows.item_BT >= 0, torch.from_numpy(packed.mask_NT[:1, 1:] == 1))


def test_items_that_fill_a_row_to_its_last_token_stand_in_it(tiny_data: Dataset) -> None:
    items = named("a", 0, 12)[:3]
    exact = int(pack_items(tiny_data.tokenizer, items, BLOCK).counts.sum()) - 1
    for block, expected in ((exact, 3), (exact - 1, 2)):
        tasks = FreshTasks({"a": [items]}, [1.0], tiny_data.tokenizer, block, PROMPT_WEIGHT)
        assert len(tasks.rows({"reasoning": 1}, {"a": 1.0}, {"a": 1.0}, 0, 0).task_I) == expected


def test_rows_have_whole_items_of_one_speciality_and_know_their_answers(fresh: FreshTasks, tiny_data: Dataset) -> None:
    rows = fresh.rows({"memory": 2, "reasoning": 3}, dict.fromkeys(SPECIALITY, 0.7), EVEN, 5, 3)
    read = asked(tiny_data.tokenizer, rows)
    assert rows.tokens_BT.shape == (5, BLOCK + 1) and rows.weight_BT.shape == rows.item_BT.shape == (5, BLOCK)
    assert [{item.speciality for item in row} for row in read] == [{"memory"}] * 2 + [{"reasoning"}] * 3
    assert any(len({item.task for item in row}) == 2 for row in read)
    torch.testing.assert_close(rows.weight_BT.sum(1), torch.ones(5))
    flat = [item for row in read for item in row]
    assert [fresh.tasks[k] for k in rows.task_I] == [item.task for item in flat]
    for number, item in enumerate(flat):
        tokens = rows.tokens_BT[:, 1:][rows.item_BT == number]
        assert tiny_data.tokenizer.decode(tokens) == render_completion(tiny_data.tokenizer, item)
    used = (rows.weight_BT > 0).sum(1) + 1
    longest = len("Question: a2.11\nAnswer: ") + len("xxxxx11") + 1
    assert int(used.min()) > BLOCK + 1 - longest  # no further item of the longest would fit


def test_every_item_comes_once_before_one_comes_again(fresh: FreshTasks, tiny_data: Dataset) -> None:
    seen: list[Item] = []
    for step in range(20):
        rows = fresh.rows({"reasoning": 2}, {"a": 0.25, "b": 0.0}, EVEN, step, 0)
        seen += [item for row in asked(tiny_data.tokenizer, rows) for item in row]
    for cell in (ITEMS["a"][0], ITEMS["a"][1], ITEMS["b"][0]):
        own = [item for item in seen if item.prompt[:2] == cell[0].prompt[:2]]
        assert len(own) > len(cell)
        assert own == (cell * 20)[: len(own)]


def test_a_difficulty_between_levels_draws_from_both_and_tasks_by_their_share(
    fresh: FreshTasks, tiny_data: Dataset
) -> None:
    seen = Counter[str]()
    for step in range(60):
        rows = fresh.rows({"reasoning": 4}, {"a": 0.6, "b": 0.25}, {"a": 0.3, "b": 0.1, "m": 0.6}, step, 1)
        seen.update(item.prompt[:2] for row in asked(tiny_data.tokenizer, rows) for item in row)
    share = {name: count / seen.total() for name, count in seen.items()}
    expected = {"a1": 0.75 * 0.8, "a2": 0.75 * 0.2, "b0": 0.25 * 0.5, "b1": 0.25 * 0.5}
    assert share == pytest.approx(expected, abs=0.04)


def test_the_neighbouring_level() -> None:
    levels = np.array([0.0, 0.5, 1.0])
    for difficulty, point, level in [
        (0, 0, 0),
        (0.5, 0.99, 1),
        (1, 0.99, 2),
        (1.7, 0, 2),
        (0.6, 0.19, 2),
        (0.6, 0.21, 1),
    ]:
        assert nearby(levels, difficulty, point) == level
    assert nearby(levels[:1], 0.8, 0.5) == nearby(levels[1:], 0.2, 0.5) == 0


def test_a_killed_run_goes_on_bit_for_bit(fresh: FreshTasks, tiny_data: Dataset) -> None:
    def rows(tasks: FreshTasks, step: int) -> FreshRows:
        return tasks.rows({"reasoning": 2, "memory": 1}, dict.fromkeys(SPECIALITY, 0.1 * step), EVEN, step, 7)

    for step in range(4):
        rows(fresh, step)
    state = fresh.state()
    expected = [vars(rows(fresh, step)) for step in range(4, 8)]
    for kept in (load(save(state)), state, state):
        second = FreshTasks(ITEMS, LEVELS, tiny_data.tokenizer, BLOCK, PROMPT_WEIGHT)
        second.load(kept)
        for step, one in enumerate(expected, start=4):
            two = vars(rows(second, step))
            assert all(torch.equal(one[name], two[name]) for name in one)
        assert torch.equal(fresh.state()["taken"], second.state()["taken"])
    other = fresh.rows({"reasoning": 2}, dict.fromkeys(SPECIALITY, 0.5), EVEN, 8, 8).tokens_BT
    assert not torch.equal(other, second.rows({"reasoning": 2}, dict.fromkeys(SPECIALITY, 0.5), EVEN, 8, 7).tokens_BT)


def test_empty_levels_and_items_longer_than_a_row_are_passed_over(tiny_data: Dataset) -> None:
    long = ITEMS["a"][0][0].model_copy(update={"prompt": "long" * 50})
    items = {"a": [[], [long, ITEMS["a"][1][0]], []], "b": [[], [long], []]}
    tasks = FreshTasks(items, LEVELS, tiny_data.tokenizer, BLOCK, PROMPT_WEIGHT)
    assert (tasks.tasks, tasks.specialities) == (("a",), ("reasoning",))
    for difficulty in LEVELS:
        read = asked(tiny_data.tokenizer, tasks.rows({"reasoning": 1}, {"a": difficulty}, {"a": 1.0}, 0, 0))
        assert {item.prompt for item in read[0]} == {"a1.0"}
    assert tasks.rows({"reasoning": 0, "memory": 0}, {"a": 1.0}, {"a": 1.0}, 0, 0).tokens_BT.shape == (0, BLOCK + 1)
    with pytest.raises(AssertionError, match="memory"):
        tasks.rows({"memory": 1}, {}, {}, 0, 0)


def test_an_item_is_solved_when_all_its_answer_tokens_are_guessed(fresh: FreshTasks) -> None:
    rows = fresh.rows({"reasoning": 3, "memory": 3}, dict.fromkeys(SPECIALITY, 1.0), EVEN, 0, 0)
    target_BT = rows.tokens_BT[:, 1:]
    torch.manual_seed(0)
    guess_BT = torch.where(torch.rand(target_BT.shape) < 0.93, target_BT, target_BT + 1)
    right, wanted = [0] * 4, [0] * 4
    for number, task in enumerate(rows.task_I.tolist()):
        places = (rows.item_BT == number).nonzero().tolist()
        wanted[task] += 1
        right[task] += all(guess_BT[b, t] == target_BT[b, t] for b, t in places)
    assert 0 < sum(right) < sum(wanted)
    got = solved_by_task(guess_BT, target_BT, rows.item_BT, rows.task_I, 4)
    assert [part.tolist() for part in got] == [right, wanted] and got[0].dtype == got[1].dtype == torch.int64
    parts = [solved_by_task(guess_BT[i::2], target_BT[i::2], rows.item_BT[i::2], rows.task_I, 4) for i in range(2)]
    assert [sum(part).tolist() for part in zip(*parts, strict=True)] == [right, wanted]  # type: ignore[attr-defined]


TASKS = TasksConfig(
    reasoning=(ReasoningTask(name="gcd", params={"min_value": 2, "max_value": 16}),), recall=RecallConfig(pairs=(1,))
)


def test_fresh_items_of_a_data_set_leave_out_what_it_holds_out(tiny_data: Dataset, tmp_path: Path) -> None:
    wanted = {"train": 0, "validation": 60, "test": 60}
    made = [reasoning_items(TASKS.reasoning[0], wanted, 0), recall_items(TASKS.recall, wanted, 0)]
    tiny_data.tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "items").mkdir()
    for split in ("validation", "test"):
        lines = "".join(item.model_dump_json() + "\n" for items in made for item in items[split])
        (tmp_path / "items" / f"{split}.jsonl").write_text(lines)
    data = Dataset(tmp_path, "", {"block_tokens": 60, "config": {"tasks": TASKS.model_dump(mode="json")}})
    tasks = FreshTasks.of(data, Chaos(), 0, PROMPT_WEIGHT)
    assert tasks.tasks == ("gcd", "recall") and tasks.specialities == ("reasoning", "memory")
    found, even = set[str](), dict.fromkeys(tasks.tasks, 1.0)
    for step in range(3):
        rows = tasks.rows({"reasoning": 40, "memory": 40}, even, even, step, 0)
        found |= {prompt for row in rows.tokens_BT for prompt, _ in FOUND.findall(data.tokenizer.decode(row))}
    held = {item.prompt for items in made for split in ("validation", "test") for item in items[split]}
    turned = {f"gcd {b} {a}" for a, b in (prompt.split()[1:] for prompt in held if prompt.startswith("gcd"))}
    assert len(found) > 50 and not found & (held | turned)
    assert FreshTasks.of(tiny_data, Chaos(), 0, PROMPT_WEIGHT).tasks == ()
