"""What a compressed agent has kept of its parent: by task, by domain, and of text.

domains = play_domains({"compression": agent, "parent": parent}, parent, data, config)
kept = what_is_kept(ours, parents, domains, "compression")
kept.mean, kept.stderr
"""

from collections.abc import Mapping

import numpy as np

from evaluation.adas_measures import PARENT, Player
from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Table
from evaluation.measured import Measured
from evaluation.metric import Metric, Values, mean_metric
from evaluation.ratio import ratio
from evaluation.retention import TASKS, retention_metrics, task_table
from evaluation.specialities import Units
from phases.adas.playing import Played
from phases.adas.trials import LEFT_OUT, first, open_course
from phases.agent.settings import SETTINGS
from phases.checkpoint import Checkpoint
from phases.compression.kept import Kept, Pair
from phases.compression.report import CompressionReport, Rung
from phases.compression.sizes import sizes
from phases.compression.squeezes import Squeeze
from phases.compression.staging import Stage
from phases.compression.thoughts import thoughts_of
from phases.dataset import Dataset

NAME = "compression"
Domains = Mapping[str, Played]
"""By player; empty for a model that is no agent."""


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


def what_is_kept(ours: Measured, parent: Measured, domains: Domains, name: str) -> Kept:
    """Ours beside the parent's: right answers of tasks, conversations of domains, and nats of text."""
    tasks = {task: _pair(ours.scores[task], parent.scores[task]) for task in TASKS}
    played = domains[name].right if domains else {}
    each = {domain: _pair(values, domains[PARENT].right[domain]) for domain, values in played.items()}
    return Kept(tasks, each, _pair(parent.text.nats_N, ours.text.nats_N))


def kept_metrics(
    kept: Kept, name: str, ours: Measured, parent: Measured, units: Units, domains: Domains
) -> list[Metric]:
    """The mean and its groups, no share above 1; and each task and domain, as it is.

    n counts items, conversations and blocks of text.
    """
    counts = {group: sum(len(pair[0]) for pair in pairs.values()) for group, pairs in kept.pairs.items()}
    means = {"retention": (kept.mean, kept.stderr, sum(counts.values()))}
    means |= {f"{group}_retention": (*kept.groups[group], n) for group, n in counts.items() if group != "text"}
    each = kept.pairs.get("domains", {})
    means |= {f"{domain}_domain_retention": (*_share(pair), len(pair[0])) for domain, pair in each.items()}
    metrics = [
        Metric(name=f"{name}/{what}", split=units.split, value=value, stderr=error, n=n, unit="of the parent")
        for what, (value, error, n) in means.items()
    ]
    known = {metric.name for metric in metrics}
    return [*metrics, *(m for m in retention_metrics(name, ours, parent, units) if m.name not in known)]


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
    tried = {rung.ratio: rung for rung in found.rungs}
    shown = [r for r in found.config["ratios"] if r in tried or r > found.rungs[0].ratio]
    columns = ("ratio", "bytes", "KL untrained", "KL trained", "retention untrained", "retention", "retention ±")
    stages = [
        row
        for rung in found.rungs
        for row in (
            *(_stage(rung.ratio, stage) for stage in rung.stages),
            *(_coded(rung.ratio, one) for one in rung.squeezed),
        )
    ]
    carried = [(c.codec, c.matrices, c.weights, c.bytes, 8 * c.bytes / c.weights) for c in found.carried]
    spent = sizes(agent.path)
    kinds = {kind: getattr(spent, kind) for kind in spent.__dataclass_fields__}
    if head := thoughts_of(agent.path).size:
        kinds["mixing head"] = head
    groups = [(f"{name}, each 1 at most", *share) for name, share in kept.groups.items()]
    groups += [(name, *_share(pair)) for group in ("tasks", "text") for name, pair in kept.pairs.get(group, {}).items()]
    groups += [(f"{name} (domain)", *_share(pair)) for name, pair in kept.pairs.get("domains", {}).items()]
    return {
        "ladder": Table(
            title="; ".join(("Ratios that were tried (validation split)", *found.missed)),
            columns=(*columns, "verdict"),
            rows=tuple(_tried(ratio, tried.get(ratio)) for ratio in shown),
        ),
        "codecs": Table(
            title="Codec after codec at one budget, before training (validation split); coding, after it",
            columns=("ratio", "what joins", "bytes before", "bytes", "KL", "retention", "verdict"),
            rows=tuple(stages),
        ),
        "carried": Table(
            title="What carries the weights",
            columns=("codec", "matrices", "weights", "bytes", "bits a weight"),
            rows=tuple(carried),
        ),
        "file": Table(
            title="Bytes of the weights",
            columns=("kind", "bytes", "share"),
            rows=tuple((kind, size, size / sum(kinds.values())) for kind, size in kinds.items()),
        ),
        "kept": Table(title="What is kept of the parent", columns=("what", "share", "share ±"), rows=tuple(groups)),
        "tasks": task_table(units, ours, others[PARENT], NAME),
    }


def _tried(ratio: float, rung: Rung | None) -> tuple[Cell, ...]:
    if rung is None:
        return ratio, *[None] * 6, "nothing fits"
    divergences, kept = (rung.untrained, rung.trained), (rung.retention_untrained, rung.retention, rung.stderr)
    return ratio, rung.bytes, *divergences, *kept, "accepted" if rung.accepted else "too little is kept"


def _stage(ratio: float, stage: Stage) -> tuple[Cell, ...]:
    name = f"{stage.name}, of matrices"
    if not stage.fits:
        return ratio, name, stage.bytes_before, None, None, None, "does not fit"
    verdict = "kept" if stage.kept else "did not help: rolled back"
    return ratio, name, stage.bytes_before, stage.bytes, stage.divergence, stage.retention, verdict


def _coded(ratio: float, one: Squeeze) -> tuple[Cell, ...]:
    """Nothing but bytes: indices are exact, and rounded scales are in every stage's figures."""
    name = {"scales": "hyper, of scales", "indices": "rANS, of indices"}[one.name]
    return ratio, name, one.bytes_before, one.bytes, None, None, "kept" if one.helped else "nothing to gain"


def _pair(ours: Values, theirs: Values) -> Pair:
    return np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)


def _share(pair: Pair) -> tuple[float, float]:
    """Σ ours / Σ theirs, more than 1 where there is more, and its standard error."""
    share, error = ratio(*pair)
    return share, error or 0.0
