"""lm-evaluation-harness 0.4 over a model in memory: our own tasks, and any standard task by name.

    forge evaluate CHECKPOINT --tasks forge_reasoning,hellaswag

    forge evaluate CHECKPOINT --tasks forge_reasoning --thoughts on

Our tasks need no network (their items are the prepared data's). A standard task fetches its data from the hub on
first use. Only the results are kept; answers agree with `generation.exact_match` and `choice.multiple_choice` item by
item (tested).
"""

import contextlib
import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.harness_tasks import LOCAL, write_tasks
from evaluation.metric import Metric
from evaluation.thinking import open_model
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset, Split
from phases.errors import InputError
from phases.quiet_star.decoder import Mode

BOOTSTRAP = 100
"""Resamples for the few standard metrics that have no closed-form standard error (BLEU and the like)."""


def run_tasks(
    checkpoint: Checkpoint,
    tasks: Sequence[str],
    folder: Path,
    data: Dataset | None = None,
    split: Split = "test",
    batch: int = 64,
    limit: int | None = None,
    thoughts: Mode = "off",
    seed: int = 0,
) -> list[Metric]:
    """Metrics of the named tasks, with the model's thoughts as told; our own are written to `folder` first.

    Raises `InputError` for an unknown name, for one of ours without `data` or items, and when a task's data cannot be
    fetched; `CheckpointError` when the checkpoint cannot think.
    """
    tokenizer = checkpoint.tokenizer()
    own = [name for name in tasks if name in LOCAL]
    if own:
        _write_own(own, data, split, folder, tokenizer, limit)
    with quiet():
        manager = _manager(folder if own else None, standard=len(own) < len(tasks))
        check_names(tasks, manager)
        return _evaluate(open_model(checkpoint, thoughts, seed), tokenizer, tasks, manager, batch, limit)


def _write_own(
    own: Sequence[str], data: Dataset | None, split: Split, folder: Path, tokenizer: Any, limit: int | None
) -> None:
    if data is None:
        raise InputError(f"task {own[0]}: needs prepared data; give --data DIR")
    written = write_tasks(data, split, folder, tokenizer, limit)
    missing = [name for name in own if name not in written]
    if missing:
        raise InputError(
            f"task {missing[0]}: {data.path} has no {LOCAL[missing[0]]} items in its {split} split; it has those of "
            f"{', '.join(written) or 'none'}"
        )


def _manager(folder: Path | None, standard: bool) -> Any:
    """An index of tasks; the 14,000 standard ones take 10 s to read, so they are left out when none is asked for."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=standard)


def check_names(tasks: Sequence[str], manager: Any) -> None:
    """Raise `InputError` for the first unknown task, with the names that look like it."""
    if not tasks:
        raise InputError(f"no task named; choose from {', '.join(LOCAL)} or any standard lm-eval task")
    for name in tasks:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, [*LOCAL, *manager.all_tasks], n=3)
            hint = ", ".join(close or LOCAL)
            raise InputError(f"task {name}: unknown; did you mean {hint}? `lm-eval ls tasks` lists the standard ones")


def _evaluate(
    model: Any, tokenizer: Any, tasks: Sequence[str], manager: Any, batch: int, limit: int | None
) -> list[Metric]:
    from datasets.exceptions import DatasetsError
    from lm_eval import simple_evaluate

    from evaluation.harness_model import ThinkingLM

    wrapped = ThinkingLM(model, tokenizer, batch)
    try:
        # No seeds: the harness would set the process's global random state, and nothing here draws from it.
        results = simple_evaluate(
            wrapped,
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=False,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    except (OSError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"tasks {', '.join(tasks)}: their data could not be fetched ({reason}); connect to the network or choose "
            f"from {', '.join(LOCAL)}"
        ) from None
    return harness_metrics(results)


def harness_metrics(results: Any) -> list[Metric]:
    """`simple_evaluate`'s results as metrics called `lm-eval:<task>/<metric>`; groups' own rows are left out."""
    metrics = []
    for task, values in results["results"].items():
        counted = results["n-samples"].get(task)
        for key, value in values.items():
            name, _, which = key.partition(",")
            if counted is None or not which or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{name}_stderr,{which}")
            metrics.append(
                Metric(
                    name=f"lm-eval:{task}/{name}",
                    split="test",
                    value=float(value),
                    stderr=float(stderr) if isinstance(stderr, int | float) else None,
                    n=int(counted["effective"]),
                    unit="share" if name.startswith(("acc", "exact_match")) else name,
                )
            )
    return metrics


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The harness logs its defaults as warnings; errors still come through."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
