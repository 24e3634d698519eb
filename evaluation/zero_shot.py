"""Questions of kinds that no training row had: generators of reasoning-gym that the run's data did not draw from."""

from evaluation.config import EvaluationConfig
from phases.dataset import Dataset, Split
from phases.tasks.item import Item
from phases.tasks.reasoning import reasoning_items

SEED = 7_000_003
"""Far from a run's own seeds; there is nothing to leak, since the kinds differ."""


def unseen_items(data: Dataset, config: EvaluationConfig) -> dict[str, list[Item]]:
    """Items of each of `config.zero_shot` whose name the data's training items do not have."""
    trained = {item.task for item in data.items("train")}
    wanted: dict[Split, int] = {"train": 0, "validation": 0, "test": config.zero_shot_items}
    chosen = [task for task in config.zero_shot if task.name not in trained]
    return {task.name: list(reasoning_items(task, wanted, SEED)["test"]) for task in chosen}
