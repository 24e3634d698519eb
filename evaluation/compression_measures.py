"""What a compressed agent has kept of its parent: by task, by domain, and of text.

domains = play_domains({"compression": agent, "parent": parent}, parent, data, config)
kept = what_is_kept(ours, parents, units, domains, "compression")
kept.mean, kept.stderr
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.adas_measures import PARENT, Player
from evaluation.config import EvaluationConfig
from evaluation.judgement import Table
from evaluation.measured import Measured
from evaluation.metric import Metric, mean_metric
from evaluation.retention import retained, retention_metrics, task_retention, task_table, text_retention
from evaluation.specialities import Units
from phases.adas.playing import Played
from phases.adas.trials import LEFT_OUT, first, open_course
from phases.agent.settings import SETTINGS
from phases.checkpoint import Checkpoint
from phases.compression.report import CompressionReport
from phases.compression.sizes import sizes
from phases.compression.staging import Stage
from phases.dataset import Dataset

NAME = "compression"
Domains = Mapping[str, Played]
"""By player; empty for a model that is no agent."""


@dataclass(frozen=True)
class Kept:
    """Shares of the parent, each with its standard error."""

    tasks: Mapping[str, tuple[float, float]]
    domains: Mapping[str, tuple[float, float]]
    text: tuple[float, float]
    """The parent's bits per byte over ours."""

    @property
    def groups(self) -> dict[str, tuple[float, float]]:
        """Mean of the tasks, mean of the domains, text: as far as there are any."""
        found = {"tasks": _mean(self.tasks), "domains": _mean(self.domains), "text": self.text}
        return {name: share for name, share in found.items() if share is not None}

    @property
    def mean(self) -> float:
        """Over the groups, none of which counts more than 1: a gain in one does not pay for a loss in another."""
        return float(np.mean([min(1.0, share) for share, _ in self.groups.values()]))

    @property
    def stderr(self) -> float:
        """Of the mean: groups are of different items."""
        return math.hypot(*(error for _, error in self.groups.values())) / len(self.groups)


def play_domains(
    players: Mapping[str, Checkpoint], parent: Checkpoint, data: Dataset, config: EvaluationConfig
) -> Domains:
    """Every player's conversations at its own design, the same ones of every domain."""
    if not (parent.path / SETTINGS).is_file():
        return {}
    with open_course(parent, data, (config.split,), 1) as course:
        names = tuple(name for name in course.trials[config.split] if name != LEFT_OUT)
        trials = first(course.trials[config.split], names, config.trials)
        found = {}
        for name, one in players.items():
            found[name] = Player.of(one).play(course, trials, config.batch)
    return found


def what_is_kept(ours: Measured, parent: Measured, units: Units, domains: Domains, name: str) -> Kept:
    """Shares of the parent's; tasks and domains in which it has nothing right are left out."""
    shares = {}
    if domains:
        for domain, values in domains[name].right.items():
            share = retained(values, domains[PARENT].right[domain])
            if share is not None:
                shares[domain] = _exact(share)
    tasks = {task: _exact(share) for task, share in task_retention(ours, parent).items()}
    return Kept(tasks, shares, _exact(text_retention(ours, parent)))


def kept_metrics(
    kept: Kept, name: str, ours: Measured, parent: Measured, units: Units, domains: Domains
) -> list[Metric]:
    """The mean, its groups, and each task and domain; n counts items, conversations and blocks of text."""
    metrics = retention_metrics(name, ours, parent, units)
    played = {domain: len(domains[name].right[domain]) for domain in kept.domains}
    found = {f"{domain}_domain": (*share, played[domain]) for domain, share in kept.domains.items()}
    if "domains" in kept.groups:
        found["domains"] = (*kept.groups["domains"], sum(played.values()))
    metrics += [_kept(name, f"{what}_retention", units.split, *values) for what, values in found.items()]
    counts = {metric.name: metric.n for metric in metrics}
    n = sum(counts[f"{name}/{group}_retention"] for group in kept.groups)
    return [_kept(name, "retention", units.split, kept.mean, kept.stderr, n), *metrics]


def _kept(name: str, what: str, split: str, value: float, error: float, n: int) -> Metric:
    return Metric(name=f"{name}/{what}", split=split, value=value, stderr=error, n=n, unit="of the parent")


def domain_metrics(domains: Domains, split: str) -> list[Metric]:
    """Every player's share right by domain."""
    return [
        mean_metric(f"{name}/{domain}_right", split, values)
        for name, played in domains.items()
        for domain, values in played.right.items()
    ]


def compression_tables(
    found: CompressionReport,
    agent: Checkpoint,
    kept: Kept,
    ours: Measured,
    others: Mapping[str, Measured],
    units: Units,
) -> dict[str, Table]:
    """The ladder, what every codec brought, what carries the weights, where the bytes are, what was kept."""
    ladder = [
        (
            rung.ratio,
            rung.bytes,
            rung.untrained,
            rung.trained,
            rung.retention_untrained,
            rung.retention,
            _yes(rung.accepted),
        )
        for rung in found.rungs
    ]
    tried = {rung.ratio for rung in found.rungs}
    passed_over = [r for r in found.config["ratios"] if r not in tried and r > found.rungs[0].ratio]
    ladder = [*((ratio, *[None] * 5, "nothing fits") for ratio in passed_over), *ladder]
    columns = ("ratio", "bytes", "KL untrained", "KL trained", "retention untrained", "retention", "accepted")
    stages = [
        (rung.ratio, s.name, s.bytes_before, s.bytes if s.fits else None, s.divergence, s.retention, _verdict(s))
        for rung in found.rungs
        for s in rung.stages
    ]
    carried = [(c.codec, c.matrices, c.weights, c.bytes, 8 * c.bytes / c.weights) for c in found.carried]
    spent = sizes(agent.path)
    kinds = [(kind, getattr(spent, kind), getattr(spent, kind) / spent.total) for kind in spent.__dataclass_fields__]
    groups = [(name, share, error) for name, (share, error) in kept.groups.items()]
    groups += [(task, share, error) for task, (share, error) in kept.tasks.items()]
    groups += [(f"{domain} (domain)", share, error) for domain, (share, error) in kept.domains.items()]
    return {
        "ladder": Table(title="Ratios that were tried (validation split)", columns=columns, rows=tuple(ladder)),
        "codecs": Table(
            title="Codec after codec at one budget, before training (validation split)",
            columns=("ratio", "codec joins", "bytes before", "bytes", "KL", "retention", "verdict"),
            rows=tuple(stages),
        ),
        "carried": Table(
            title="What carries the weights",
            columns=("codec", "matrices", "weights", "bytes", "bits a weight"),
            rows=tuple(carried),
        ),
        "file": Table(title="Bytes of the file", columns=("kind", "bytes", "share"), rows=tuple(kinds)),
        "kept": Table(title="What is kept of the parent", columns=("what", "share", "share ±"), rows=tuple(groups)),
        "tasks": task_table(units, ours, others[PARENT], NAME),
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _verdict(stage: Stage) -> str:
    if not stage.fits:
        return "does not fit"
    return "kept" if stage.kept else "did not help: rolled back"


def _exact(share: tuple[float, float | None]) -> tuple[float, float]:
    return share[0], share[1] or 0.0


def _mean(shares: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
    if not shares:
        return None
    return (
        float(np.mean([share for share, _ in shares.values()])),
        math.hypot(*(error for _, error in shares.values())) / len(shares),
    )
