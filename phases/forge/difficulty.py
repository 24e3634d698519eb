"""Tasks at a difficulty of one's own choosing: a generator's limits move between its easiest questions and beyond.

Level 1 is the task as the data has it, level 0 its easiest form, above 1 lies what the data never asks. For every pair
`min_X`, `max_X` of a generator's parameters (those that the run does not give have the generator's defaults) `max_X`
moves on a straight line through its easiest value at level 0 and its own value at level 1:

- the easiest value leaves a fifth of the range above `min_X`, rounded down: a count (terms, digits, letters) with a
  short range goes to `min_X`, a value keeps enough distinct questions;
- of `value` and `n`, which hold the values themselves, at least 10 remain (a narrower range does not move): with 1 and
  2 alone nothing is left to ask; and never more than 300, for a fifth of 2³¹ is as hard as all of it;
- a range with zero inside (`min_value=-100`, `max_value=100`) shrinks from both sides towards zero, to a fifth.

A pair of equal limits, and a generator without pairs, stay as they are. Every generator of reasoning-gym takes the
limits of levels 0 to 1; a few refuse those beyond. 25 cells of 300 items cost about half a second.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from phases.dataset import Dataset
from phases.errors import ConfigError
from phases.tasks.collect import Draw, seeded, unordered
from phases.tasks.config import TasksConfig
from phases.tasks.item import Item
from phases.tasks.reasoning import ReasoningTask, reasoning_draws
from phases.tasks.recall import KEYS, RecallConfig, recall_draws

EASIEST = 0.2
"""Share of a range that is left at level 0."""
VALUES = ("value", "n")
"""Limits of the asked values themselves."""
FEWEST, ENOUGH = 10, 300
"""Widths between which the values of level 0 stay."""


def tasks_of(data: Dataset) -> TasksConfig:
    """The generators that a data set was made with; none where its card does not know them."""
    config = data.card.get("config")
    if config is None:
        return TasksConfig(reasoning=(), memory_train_items=0)
    return TasksConfig.parse(config["tasks"], "data.tasks")


def task_weights(tasks: TasksConfig) -> dict[str, float]:
    """The tasks that fresh items are made of, with their weight among those of their speciality."""
    reasoning = tasks.reasoning if tasks.reasoning_train_items else ()
    memory = {"recall": 1.0} if tasks.memory_train_items and tasks.needle.share < 1 else {}
    return {task.name: task.weight for task in reasoning} | memory


def at_level(task: ReasoningTask, level: float) -> ReasoningTask:
    """The task at a difficulty (0 easiest, 1 as it is). Raises `ConfigError` for an unknown generator."""
    if level == 1:
        return task
    limits = _defaults(task.name) | task.params
    moved: dict[str, Any] = {}
    for low_name, low in limits.items():
        name = low_name.removeprefix("min_")
        high: Any = limits.get(f"max_{name}")
        kinds = {type(low), type(high)}
        if name != low_name and kinds <= {int, float} and low < high:
            whole = kinds == {int}
            new_low, new_high = _range(low, high, name in VALUES, whole, level)
            moved |= {f"max_{name}": new_high} | ({low_name: new_low} if new_low != low else {})
    return task.model_copy(update={"params": task.params | moved})


def _range(low: float, high: float, values: bool, whole: bool, level: float) -> tuple[float, float]:
    """The limits of one parameter at a level."""
    if low < 0 < high:
        scale = EASIEST + (1 - EASIEST) * level
        limits = low * scale, high * scale
        return (round(limits[0]), round(limits[1])) if whole else limits
    width = EASIEST * (high - low)
    if values:
        width = min(max(width, FEWEST), ENOUGH, high - low)
    easiest = low + (int(width) if whole else width)
    moved = easiest + (high - easiest) * level
    return low, round(moved) if whole else moved


def _defaults(name: str) -> dict[str, Any]:
    """A generator's parameters with their defaults. Raises `ConfigError` when there is no such generator."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        raise ConfigError(f"tasks.reasoning '{name}': reasoning-gym has no such generator; prepare the data again")
    return {field.name: field.default for field in dataclasses.fields(DATASETS[name][1])}


def recall_at_level(config: RecallConfig, level: float) -> RecallConfig:
    """Recall with the smaller of its numbers of pairs below level 1, and with further ones above it.

    Level 0 has the smallest only. Above 1 the numbers go on as the last two differ, as many more of them in a level as
    there are steps between the given ones; what exceeds the number of keys is left out.
    """
    if level == 1:
        return config
    pairs = sorted(config.pairs)
    steps = max(len(pairs) - 1, 1)
    apart = max(pairs[-1] - pairs[-2], 1) if len(pairs) > 1 else 1
    beyond = [pairs[-1] + apart * (i + 1) for i in range(round((level - 1) * steps))]
    kept = pairs[: 1 + round(level * steps)] + [number for number in beyond if number <= len(KEYS)]
    return config.model_copy(update={"pairs": tuple(kept)})


def content(item: Item) -> str:
    """What is asked, whatever its order: `Draw.group` without the task's name, so that equal questions of two tasks
    (a file of the user's may repeat a generator's) are equal here."""
    if item.task != "recall":
        return unordered(item.prompt)
    context = item.prompt.partition("?")[0]
    return " ".join(sorted(part for part in context.split(";") if "=" in part))


def fresh_items(
    tasks: TasksConfig, levels: Sequence[float], count: int, seed: int, held_out: Iterable[Item]
) -> dict[str, list[list[Item]]]:
    """Up to `count` distinct training items of each task (by name) at each level, from draws of their own.

    No item shares its content, in any order, with an item of `held_out` (those of validation and test). A generator
    that refuses the limits of a level above 1 has no items there. Raises `ConfigError` as `reasoning_items` does.
    """
    guarded = {content(item) for item in held_out}
    result: dict[str, list[list[Item]]] = {}
    for name in task_weights(tasks):
        # A seed of each cell's own: with the data's, level 1 would repeat the data's own items.
        seeds = [seeded(seed, "fresh", name, index).randrange(2**31) for index in range(len(levels))]
        draws = [_draws(tasks, name, level, 4 * count + 100, own) for level, own in zip(levels, seeds, strict=True)]
        result[name] = [_distinct(cell, guarded, count) for cell in draws]
    return result


def _draws(tasks: TasksConfig, name: str, level: float, count: int, seed: int) -> Iterator[Draw]:
    if name == "recall":
        return recall_draws(recall_at_level(tasks.recall, level), count, seed)
    task = next(task for task in tasks.reasoning if task.name == name)
    try:
        return reasoning_draws(at_level(task, level), count, seed)
    except ConfigError:
        if level <= 1:
            raise
        return iter(())


def _distinct(draws: Iterator[Draw], guarded: set[str], count: int) -> list[Item]:
    """The first `count` different training items whose content is not guarded."""
    found: dict[str, Item] = {}
    for draw in draws:
        if content(draw.train) not in guarded:
            found.setdefault(draw.train.key, draw.train)
        if len(found) == count:
            break
    return list(found.values())
