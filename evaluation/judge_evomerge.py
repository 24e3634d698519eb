"""The judge of phase 2: the evolved merge against everything it has to beat, on a split the search never saw.

    judge(checkpoint, [cognate], data, EvaluationConfig())

The rivals are built again in memory from the genomes in `search.json` and answer the same test units as the winner,
which was reloaded from disk. Promoted is only a winner whose mean of the three specialities is above the trunk's,
every single parent's, the uniform soup's and random search's (its best by validation, as ours was chosen), with bits
per byte no more than 5 % over the trunk's. Every difference comes with its paired standard error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Judgement, Table
from evaluation.measured import (
    Measured,
    floor_metrics,
    item_tables,
    mean_of_specialities,
    measure,
    model_metrics,
    text_floors,
)
from evaluation.metric import Control, Gate, Metric, finite_check, gate, standard_error
from evaluation.ratio import bits_per_byte
from evaluation.significance import stratified_bootstrap
from evaluation.specialities import Scores, Units, held_out, matrix_table
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.evomerge.build import build_model
from phases.evomerge.genome import Genome
from phases.evomerge.parents import load_parents
from phases.evomerge.report import SearchReport, read_report
from phases.evomerge.run import choose_parents
from phases.probe import Probe, encode_items

MEAN = "evomerge/mean_of_specialities"
SOUP = "uniform soup"


@dataclass(frozen=True)
class _Field:
    """Per-unit test scores of the winner and its rivals."""

    winner: Scores
    rivals: dict[str, Scores]
    """The trunk, each parent, the soup, and `evolution/<seed>` and `random/<seed>`."""

    def best_parent(self, found: SearchReport) -> str:
        """The single parent with the highest mean on the test split: the hardest one to beat."""
        return max(found.names[1:], key=lambda name: mean_of_specialities(self.rivals[name]))


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge an evomerge checkpoint; `parents` are those that the phase was given.

    Raises `CheckpointError` when they are not.
    """
    found = read_report(checkpoint.path)
    chosen = _chosen(checkpoint, parents, found)
    units = held_out(data, config)
    field = _field(checkpoint, chosen, found, units)
    best = field.best_parent(found)
    judged = {"evomerge": checkpoint, "trunk": chosen["trunk"], best: chosen[best]}
    tokenizer = checkpoint.tokenizer()
    measured = {name: measure(c.model(), tokenizer, units, config) for name, c in judged.items()}
    finite, finite_gate = finite_check(measured["evomerge"].not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    rivals = _rivals(found, best)
    controls = tuple(_control(label, field, name, config, _budget(found, label)) for label, name in rivals.items())
    return Judgement(
        metrics=(finite, *_metrics(field, measured, units), *floor_metrics(data, units, text_floors(data, units))),
        controls=(*controls, *_seed_control(field, found)),
        gates=(finite_gate, *_gates(controls), _regression(measured, config)),
        tables={
            "matrix": matrix_table({"evomerge": field.winner, **field.rivals}),
            "evolution": _evolution_table(field, found),
            **item_tables(units, {name: m.scores for name, m in measured.items()}),
        },
    )


def incumbent(checkpoint: Checkpoint, parents: Sequence[Checkpoint]) -> Checkpoint:
    """What stays when the winner is not promoted: the best single parent by validation."""
    found = read_report(checkpoint.path)
    best = max(found.names[1:], key=lambda name: found.controls[name].fitness)
    return _chosen(checkpoint, parents, found)[best]


def _chosen(checkpoint: Checkpoint, parents: Sequence[Checkpoint], found: SearchReport) -> dict[str, Checkpoint]:
    chosen = choose_parents(parents)
    for (name, parent), expected in zip(chosen.items(), found.digests, strict=False):
        if parent.digest != expected:
            raise CheckpointError(
                f"{checkpoint.path}: was merged from another {name} ({expected[:12]}, not {parent.digest[:12]}); give "
                "the parents of this merge or run the phase again"
            )
    if len(chosen) != len(found.digests):
        raise CheckpointError(f"{checkpoint.path}: has {len(found.digests)} parents, {len(chosen)} given; give all")
    return dict(zip(found.names, chosen.values(), strict=True))


def _field(checkpoint: Checkpoint, chosen: Mapping[str, Checkpoint], found: SearchReport, units: Units) -> _Field:
    """Score everyone by the probe: the same measure that the search maximised, on the test units."""
    tokenizer = checkpoint.tokenizer()
    encoded = {name: encode_items(tokenizer, units.items[name]) for name in ("reasoning", "memory")}
    probe = Probe(encoded, units.text_NT)
    genomes: dict[str, Genome] = {name: control.genome for name, control in found.controls.items()}
    for result in found.seeds:
        genomes[f"evolution/{result.seed}"] = result.evolution.genome
        genomes[f"random/{result.seed}"] = result.random.genome
    parents = load_parents([c.path for c in chosen.values()], found.names)
    known: dict[str, Scores] = {}
    for genome in genomes.values():
        if genome.key not in known:  # searches often end at the same genome
            known[genome.key] = dict(probe.score(build_model(genome, parents)))
    winner: Scores = dict(probe.score(checkpoint.model()))
    return _Field(winner, {name: known[genome.key] for name, genome in genomes.items()})


def _rivals(found: SearchReport, best_parent: str) -> dict[str, str]:
    """What a gate is called, and whose scores it takes."""
    strongest = max(found.seeds, key=lambda result: (result.random.fitness, -result.seed))
    return {
        "trunk": found.names[0],
        f"best single parent ({best_parent})": best_parent,
        SOUP: SOUP,
        f"random search (seed {strongest.seed})": f"random/{strongest.seed}",
    }


def _budget(found: SearchReport, label: str) -> str:
    searches = f"{len(found.seeds)} searches of {found.seeds[0].evaluations} evaluations each"
    return searches if label.startswith("random") else "no search; equal inference cost"


def _control(label: str, field: _Field, rival: str, config: EvaluationConfig, budget: str) -> Control:
    pairs = [(field.winner[name], field.rivals[rival][name]) for name in field.winner]
    by = stratified_bootstrap(pairs, config.resamples, config.seed)
    return Control(
        name=label,
        metric=MEAN,
        ours=mean_of_specialities(field.winner),
        control=mean_of_specialities(field.rivals[rival]),
        difference=by.difference,
        stderr=by.stderr,
        n=by.n,
        budget=budget,
    )


def _seed_control(field: _Field, found: SearchReport) -> list[Control]:
    """Evolution against random search, the seeds as units: the mean over them and its paired standard error."""
    ours, random = (
        np.array([mean_of_specialities(field.rivals[f"{kind}/{r.seed}"]) for r in found.seeds])
        for kind in ("evolution", "random")
    )
    return [
        Control(
            name=f"random search, mean over {len(ours)} seeds",
            metric=MEAN,
            ours=float(ours.mean()),
            control=float(random.mean()),
            difference=float((ours - random).mean()),
            stderr=standard_error(ours - random),
            n=len(ours),
            budget=f"{found.seeds[0].evaluations} evaluations a seed",
        )
    ]


def _gates(controls: Sequence[Control]) -> list[Gate]:
    return [gate(f"better than {c.name}", c.metric, c.ours, ">", c.control) for c in controls]


def _regression(measured: Mapping[str, Measured], config: EvaluationConfig) -> Gate:
    ours = bits_per_byte(measured["evomerge"].text, "evomerge/bits_per_byte", config.split)
    trunk = bits_per_byte(measured["trunk"].text, "trunk/bits_per_byte", config.split)
    return gate(
        "bits per byte no worse than the trunk's", ours.name, ours.value, "<=", (1 + config.regression) * trunk.value
    )


def _metrics(field: _Field, measured: Mapping[str, Measured], units: Units) -> list[Metric]:
    """The means, then each judged model's figures next to the trunk's."""
    trunk = mean_of_specialities(field.rivals["trunk"])
    everyone = {"evomerge": field.winner, **field.rivals}
    metrics = [_mean_metric(name, scores, units.split, trunk) for name, scores in everyone.items()]
    for name, m in measured.items():
        metrics += model_metrics(name, m, units.split, None if name == "trunk" else measured["trunk"])
    return metrics


def _mean_metric(name: str, scores: Scores, split: str, trunk: float) -> Metric:
    """Mean over the specialities; they are independent samples, so the errors add as squares."""
    errors = [standard_error(values) for values in scores.values()]
    known = [error for error in errors if error is not None]
    stderr = float(np.sqrt(np.square(known).sum())) / len(scores) if len(known) == len(errors) else None
    n = sum(len(values) for values in scores.values())
    value = mean_of_specialities(scores)
    return Metric(
        name=f"{name}/mean_of_specialities", split=split, value=value, stderr=stderr, n=n, unit="share", parent=trunk
    )


def _evolution_table(field: _Field, found: SearchReport) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for result in found.seeds:
        for kind, finding in (("evolution", result.evolution), ("random", result.random)):
            test = mean_of_specialities(field.rivals[f"{kind}/{result.seed}"])
            rows.append((result.seed, kind, result.evaluations, finding.fitness, test, finding.description))
    columns = ("seed", "search", "evaluations", "validation", "test", "best merge")
    return Table(title="Evolution and random search at equal evaluations", columns=columns, rows=tuple(rows))
