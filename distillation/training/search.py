"""Which learning rate, share and temperature: a seeded search on the validation split, within a budget of trials.

    found = search(start, strategy, training, lesson_of, exam, SearchConfig(trials=8), folder, seed=0)

Tree-structured Parzen estimator with median pruning (optuna). The first trial is the config as it was given; each is
one shorter training, scored by the held-out nats a token, and nothing but validation records is looked at. Trials lie
in a SQLite file of the run's folder. Proposals are a function of the seed and of what was finished, and an interrupted
trial goes on from its training state, so a killed search ends as an uninterrupted one does. A limit in seconds depends
on the machine, and so does then the number of trials.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distillation.training.held_out import HeldOut
from distillation.training.learner import open_learner
from distillation.training.search_space import RUNGS, Parameters, SearchConfig, Space, apply
from distillation.training.strategies import Lesson
from distillation.training.strategy_config import Strategy
from distillation.training.time_limit import Over, never
from distillation.training.train import fit, training_key
from phases.checkpoint import Checkpoint
from phases.phase import MetricsCallback, ignore_metrics
from phases.storage import sha256_json, write_json
from phases.training.config import TrainingConfig
from phases.training.loop import Span
from phases.training.schedule import warmup_stable_decay

FILE, STUDY, OUTCOME = "search.sqlite", "search", "outcome"
STARTUP = 4
"""Trials before the estimator takes over from chance."""


@dataclass(frozen=True)
class TrialResult:
    """One trial."""

    parameters: Parameters
    looks: tuple[tuple[int, float], ...]
    """(step, held-out nats a token)."""
    accuracy: float
    pruned: bool
    seconds: float

    @property
    def loss(self) -> float:
        """At its last look."""
        return self.looks[-1][1]


@dataclass(frozen=True)
class Found:
    """What the search chose."""

    strategy: Strategy
    training: TrainingConfig
    """With the steps of the run, not of a trial."""
    best: int
    """Index of the trial; 0 is the config as it was given."""
    trials: tuple[TrialResult, ...]


def search(
    start: Checkpoint,
    strategy: Strategy,
    training: TrainingConfig,
    lesson_of: Callable[[Strategy], Lesson],
    exam: HeldOut,
    config: SearchConfig,
    folder: Path,
    *,
    seed: int,
    metrics: MetricsCallback = ignore_metrics,
    over: Over = never,
) -> Found:
    """Search, or go on searching in `folder`, and take the best of the trials that were not pruned.

    The config as it was given is always tried; no other trial begins once `over` says so.
    """
    given = training_key(start, lesson_of(strategy), training, seed)
    folder /= sha256_json([given, exam.digest, config.model_dump(mode="json", exclude={"trials", "seconds"})])[:16]
    folder.mkdir(parents=True, exist_ok=True)
    space = Space.of(strategy, config)
    with _study(folder / FILE) as study:
        results = _finished(study)
        while len(results) < config.trials and not _late(results, config) and not (results and over()):
            trial = _ask(study, space, seed + len(results)) if results else None
            parameters = trial.params if trial else space.given
            tried, faster = apply(strategy, training, parameters)
            short = faster.model_copy(update={"steps": config.steps})
            state = folder / f"trial.{sha256_json(parameters)[:16]}"
            result = _run(start, lesson_of(tried), short, exam, state, seed, parameters, trial)
            _tell(study, space, trial, result)
            shutil.rmtree(state, ignore_errors=True)
            metrics(len(results), {"search/loss": result.loss, "search/accuracy": result.accuracy})
            results = _finished(study)
    whole = [index for index, result in enumerate(results) if not result.pruned]
    best = min(whole, key=lambda index: (results[index].loss, index))
    return Found(*apply(strategy, training, results[best].parameters), best, tuple(results))


def _run(
    start: Checkpoint,
    lesson: Lesson,
    training: TrainingConfig,
    exam: HeldOut,
    state: Path,
    seed: int,
    parameters: Parameters,
    trial: Any,
) -> TrialResult:
    """Train in `RUNGS` parts with a look after each; a trial that is worse than the median of the others ends there."""
    began, looks, pruned = time.monotonic(), [], False
    stops = [round(training.steps * (rung + 1) / RUNGS) for rung in range(RUNGS)]
    learner = open_learner(start)

    def rate(step: int) -> float:
        return warmup_stable_decay(step, training.steps, training.warmup, training.decay, training.final_rate)

    for rung, (first, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        # An interrupted trial's state may be further than a look of it that was taken: looks are kept as well.
        look = state / f"look.{rung}.json"
        if not look.is_file():
            fit(learner, lesson, training, state, seed=seed, name="trial", span=Span(first, stop, rate))
            seen = exam.measure(learner.model)
            write_json(look, [seen.loss, seen.accuracy])
        loss, accuracy = json.loads(look.read_text())
        looks.append((stop, loss))
        if trial is not None:
            trial.report(loss, stop)
            pruned = stop < training.steps and bool(trial.should_prune())
        if pruned:
            break
    return TrialResult(parameters, tuple(looks), accuracy, pruned, time.monotonic() - began)


@contextmanager
def _study(path: Path) -> Iterator[Any]:
    """The study in a file; what was running when a process ended is given up, and proposed again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
        study = optuna.create_study(storage=storage, study_name=STUDY, pruner=pruner, load_if_exists=True)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _ask(study: Any, space: Space, seed: int) -> Any:
    """The next trial: a function of the seed and of the finished trials, whatever process asks."""
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
    return study.ask(fixed_distributions=space.distributions())


def _tell(study: Any, space: Space, trial: Any, result: TrialResult) -> None:
    import optuna

    states, outcome = optuna.trial.TrialState, asdict(result)
    if trial is None:  # the config as it was given, which nobody proposed
        study.add_trial(
            optuna.trial.create_trial(
                value=result.loss,
                params=result.parameters,
                distributions=space.distributions(),
                user_attrs={OUTCOME: outcome},
                intermediate_values=dict(result.looks),
            )
        )
        return
    trial.set_user_attr(OUTCOME, outcome)
    if result.pruned:
        study.tell(trial, state=states.PRUNED)
    else:
        study.tell(trial, result.loss)


def _finished(study: Any) -> list[TrialResult]:
    """Results in their order, read back from the file so that a resumed search sees what this one sees."""
    found = [trial.user_attrs[OUTCOME] for trial in study.get_trials(deepcopy=False) if trial.state.name in _DONE]
    return [TrialResult(**{**one, "looks": tuple((int(s), float(v)) for s, v in one["looks"])}) for one in found]


_DONE = ("COMPLETE", "PRUNED")


def _late(results: list[TrialResult], config: SearchConfig) -> bool:
    return config.seconds is not None and sum(result.seconds for result in results) >= config.seconds
