"""All task items of a run: reasoning, memory, copying, choice and the user's files, in splits that share no question.

The order within a split is shuffled, so that any prefix of it is a fair sample of all tasks. About 2 s for the
default counts on one core.
"""

from collections.abc import Mapping, Sequence

from phases.dataset import SPLITS, Split
from phases.errors import ConfigError
from phases.tasks.choice import choice_items
from phases.tasks.collect import Counts, Items, apportion, require_enough, seeded, without_shared
from phases.tasks.config import TasksConfig
from phases.tasks.copying import copying_items
from phases.tasks.files import file_items
from phases.tasks.item import Item
from phases.tasks.needle import needle_items
from phases.tasks.reasoning import reasoning_items
from phases.tasks.recall import recall_items


def make_items(config: TasksConfig, passages: Mapping[Split, Sequence[str]], seed: int) -> dict[Split, list[Item]]:
    """The items of each split; deterministic in config, passages and seed.

    `passages` is each split's text, for needles and cloze. No `Item.key` stands in two splits or twice in one.
    Raises `ConfigError` for a wrong generator, `DataError` when a split would have fewer than half its items.
    """
    made = [
        *_reasoning(config, seed),
        *_memory(config, passages, seed),
        *_copying(config, passages, seed),
        choice_items(config.choice, passages, config.choice_items, seed),
        *(file_items(file) for file in config.files),
    ]
    merged: Items = {split: [item for part in made for item in part[split]] for split in SPLITS}
    items = without_shared(merged)
    for split in SPLITS:
        seeded(seed, "order", split).shuffle(items[split])
    return {split: items[split] for split in SPLITS}


def _counts(config: TasksConfig, train: int) -> dict[Split, int]:
    return {"train": train, "validation": config.validation_items, "test": config.test_items}


def _reasoning(config: TasksConfig, seed: int) -> list[Items]:
    """Each generator's share of the reasoning items."""
    names = [task.name for task in config.reasoning]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"tasks.reasoning: '{repeated[0]}' stands there twice; keep one and widen its parameters")
    wanted = _counts(config, config.reasoning_train_items) if names else {}
    weights = [task.weight for task in config.reasoning]
    shares = {split: apportion(count, weights) for split, count in wanted.items()}
    got = {
        task.name: reasoning_items(task, {split: share[i] for split, share in shares.items()}, seed)
        for i, task in enumerate(config.reasoning)
    }
    require_enough("tasks.reasoning", wanted, got)
    return list(got.values())


def _memory(config: TasksConfig, passages: Mapping[Split, Sequence[str]], seed: int) -> list[Items]:
    """Recall items and needles in the configured proportion."""
    wanted: Counts = _counts(config, config.memory_train_items)
    needles = {split: round(count * config.needle.share) for split, count in wanted.items()}
    rest = {split: count - needles[split] for split, count in wanted.items()}
    got = {
        "recall": recall_items(config.recall, rest, seed),
        "needle": needle_items(config.needle, passages, needles, seed),
    }
    require_enough("tasks.memory", wanted, got)
    return list(got.values())


def _copying(config: TasksConfig, passages: Mapping[Split, Sequence[str]], seed: int) -> list[Items]:
    """Copying items; none at all, held out neither, when there are none to train on."""
    if not config.copying_train_items:
        return []
    wanted = _counts(config, config.copying_train_items)
    got = {"copy": copying_items(config.copying, passages, wanted, seed)}
    require_enough("tasks.copying", wanted, got)
    return list(got.values())
