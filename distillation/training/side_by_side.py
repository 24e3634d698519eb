"""Student and baseline as jobs of a pool: trained side by side where it has several workers.

    (student, seconds), (baseline, _) = train_all([Job("student", …), Job("baseline", …)], pool, metrics)

Small models do not keep two threads busy, two processes of one thread do. A job has half of the cores wherever it is
trained, so that its bits do not depend on the pool. Other processes write their curves beside their states; they are
told, and drawn as one bar, while both train.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from distillation.training.strategies import Lesson
from distillation.training.train import train_student
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.phase import MetricsCallback, Pool, ignore_metrics, serial_pool
from phases.training.config import TrainingConfig

LOOK_SECONDS = 1.0
"""How often curves are looked at."""
Trained = tuple[Path, float]
"""The checkpoint, and the seconds that it took; those of a result that was there already are few."""


@dataclass(frozen=True)
class Job:
    """One training; it travels between processes."""

    name: str
    start: Checkpoint
    lesson: Lesson
    training: TrainingConfig
    out: Path
    work: Path
    agent: Checkpoint | None
    seed: int

    @property
    def curves(self) -> Path:
        """Its points, a line of JSON each, while another process trains."""
        return self.work / f"{self.name}.curves.jsonl"


def train_all(
    jobs: Sequence[Job], pool: Pool = serial_pool, metrics: MetricsCallback = ignore_metrics
) -> list[tuple[Checkpoint, float]]:
    """The trained checkpoints and the seconds of each, in the jobs' order. Raises what training raises."""
    if pool is serial_pool:
        done = [_train(job, metrics) for job in jobs]
    else:
        with _followed(jobs, metrics):
            done = pool(run_job, jobs)
    return [(open_checkpoint(path), seconds) for path, seconds in done]


def run_job(job: Job) -> Trained:
    """One training in a process that is not the caller's."""
    with open(job.curves, "a", encoding="utf-8", buffering=1) as curves, contextlib.redirect_stderr(_NoBars()):
        return _train(job, lambda step, values: print(json.dumps([step, dict(values)]), file=curves))


def _train(job: Job, metrics: MetricsCallback) -> Trained:
    began, before = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    try:
        made = train_student(
            job.start,
            job.lesson,
            job.training,
            job.out,
            job.work,
            agent=job.agent,
            seed=job.seed,
            metrics=metrics,
            name=job.name,
        )
    finally:
        torch.set_num_threads(before)
    return made.path, time.monotonic() - began


class _NoBars:
    """Stderr, but no terminal: bars of several processes would be drawn over each other."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.__stderr__, name)

    def isatty(self) -> bool:
        return False


class _Follower:
    """Tells what jobs write as they write it. What was there before has been told."""

    def __init__(self, jobs: Sequence[Job], metrics: MetricsCallback, bar: Any) -> None:
        self.metrics, self.bar = metrics, bar
        self.read = {job.curves: job.curves.stat().st_size if job.curves.is_file() else 0 for job in jobs}
        self.steps = dict.fromkeys(self.read, 0)

    def look(self) -> None:
        for path, begin in list(self.read.items()):
            if not path.is_file():
                continue
            with open(path, "rb") as file:
                file.seek(begin)
                whole = file.read().rpartition(b"\n")[0]  # the last line may be half written
            if not whole:
                continue
            self.read[path] = begin + len(whole) + 1
            for line in whole.splitlines():
                step, values = json.loads(line)
                self.steps[path] = step + 1
                self.metrics(step, values)
        self.bar.update(sum(self.steps.values()) - self.bar.n)


@contextlib.contextmanager
def _followed(jobs: Sequence[Job], metrics: MetricsCallback) -> Iterator[None]:
    names = " and ".join(job.name for job in jobs)
    with tqdm(total=sum(job.training.steps for job in jobs), desc=names, unit="step", leave=False, disable=None) as bar:
        follower, ended = _Follower(jobs, metrics, bar), threading.Event()

        def follow() -> None:
            while not ended.wait(LOOK_SECONDS):
                follower.look()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            follower.look()
    for job in jobs:
        job.curves.unlink(missing_ok=True)
