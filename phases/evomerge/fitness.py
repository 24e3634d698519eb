"""One candidate's score as an independent job, so that a pool (serial, Dask, Ray) can map over a population.

A job is a few strings and numbers; parents, data and probe are opened once a process and kept.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from phases.dataset import Split, open_dataset
from phases.evomerge.build import build_model
from phases.evomerge.genome import Genome
from phases.evomerge.parents import ParentSet, load_parents
from phases.probe import Probe, build_probe
from phases.training.processes import device


@dataclass(frozen=True)
class Setting:
    """What all candidates of a run share."""

    paths: tuple[str, ...]
    """Checkpoint directories, the trunk's first."""
    names: tuple[str, ...]
    digests: tuple[str, ...]
    """The checkpoints' digests: a process that is kept alive must not score with yesterday's parents."""
    data: str
    data_digest: str
    split: Split
    items: int
    """Items of each task speciality."""
    blocks: int
    """Text blocks."""
    threads: int = 0
    """Torch threads in the process that scores; 0 leaves them alone."""


@dataclass(frozen=True)
class Job:
    """One candidate to build and score."""

    setting: Setting
    genome: str
    """JSON, so that the job travels to other processes and machines as plain text."""


def score_job(job: Job) -> dict[str, float]:
    """Mean of each speciality of the candidate on the setting's probe."""
    if job.setting.threads:
        torch.set_num_threads(job.setting.threads)
    parents = parents_of(job.setting.paths, job.setting.names, job.setting.digests)
    # Of several workers each would want a share of the GPU's memory for itself.
    where = torch.device("cpu") if job.setting.threads else device()
    model = build_model(Genome.model_validate_json(job.genome), parents).to(where)
    return {name: float(np.mean(values)) for name, values in probe_of(job.setting).score(model).items()}


@lru_cache(maxsize=1)
def parents_of(paths: tuple[str, ...], names: tuple[str, ...], digests: tuple[str, ...]) -> ParentSet:
    """The parents of a setting, loaded and checked once a process; the digests only tell old from new."""
    return load_parents([Path(path) for path in paths], names)


@lru_cache(maxsize=2)
def probe_of(setting: Setting) -> Probe:
    """The probe of a setting, made once a process."""
    return build_probe(open_dataset(setting.data), setting.split, setting.items, setting.blocks)
