"""One design's score as an independent job, so that a pool (serial, Dask, Ray) can map over an iteration.

A job is a few strings and numbers; the parent, its vectors, tools and trials are opened once a process and kept until
`close`.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from phases.adas.archive import Scores
from phases.adas.genome import Genome
from phases.adas.playing import CountingMinds, play
from phases.adas.pool import POOL
from phases.adas.trials import Course, first, open_course
from phases.agent.library import Library
from phases.checkpoint import open_checkpoint
from phases.dataset import Split, open_dataset
from phases.errors import CheckpointError


@dataclass(frozen=True)
class Setting:
    """What all candidates of a run share."""

    parent: str
    """Its directory."""
    digest: str
    """Its digest: a process that is kept alive must not play yesterday's parent."""
    data: str
    vectors: str
    """Folder of the expert vectors."""
    seed: int
    """Of everything that is drawn while playing."""
    split: Split
    units: tuple[int, ...]
    """Conversations of each domain, by rung; the last one is that of the finals."""
    turns: int | None
    """Turns of a conversation at most, before the finals."""
    library: int
    """Solved examples of each domain that the agent has."""
    batch: int
    """Conversations that are written at the same time."""
    threads: int = 0
    """Torch threads in the process that plays; 0 leaves them alone."""


@dataclass(frozen=True)
class Job:
    """One candidate to play."""

    setting: Setting
    genome: str
    """JSON, so that the job travels to other processes and machines as plain text."""
    rung: int
    most: float | None = None
    """Work, in tokens a conversation, beyond which it is stopped."""


@dataclass(frozen=True)
class _Opened:
    course: Course
    minds: CountingMinds
    library: Library


_OPEN: dict[Setting, tuple[_Opened, contextlib.ExitStack]] = {}


def score_job(job: Job) -> Scores:
    """How right the candidate is in every domain, and its work: tokens through all layers, a conversation."""
    if job.setting.threads:
        torch.set_num_threads(job.setting.threads)
    here = _opened(job.setting)
    course = here.course
    design = Genome.model_validate_json(job.genome).design(POOL)
    settings = course.settings.model_copy(update={"design": design})
    last = job.rung == len(job.setting.units) - 1
    units, turns = job.setting.units[job.rung], None if last else job.setting.turns
    trials = first(course.trials[job.setting.split], course.domains, units, turns)
    played = play(here.minds, course, settings, trials, here.library, job.setting.batch, job.setting.seed, job.most)
    quality = {domain: float(values.mean()) for domain, values in played.right.items()}
    n = {domain: len(values) for domain, values in played.right.items()}
    return Scores(quality=quality, n=n, work=played.work, stopped=played.stopped)


def close() -> None:
    """Close what this process has opened."""
    for _, stack in _OPEN.values():
        stack.close()
    _OPEN.clear()


def _opened(setting: Setting) -> _Opened:
    if setting not in _OPEN:
        close()  # a process plays one run at a time
        parent = open_checkpoint(setting.parent)
        if parent.digest != setting.digest:
            raise CheckpointError(f"{setting.parent}: is not the checkpoint that the search began with; run it again")
        stack = contextlib.ExitStack()
        data = open_dataset(setting.data)
        course = stack.enter_context(open_course(parent, data, (setting.split,), max(1, setting.library)))
        minds = CountingMinds(parent, Path(setting.vectors))
        _OPEN[setting] = (_Opened(course, minds, course.library(setting.library)), stack)
    return _OPEN[setting][0]
