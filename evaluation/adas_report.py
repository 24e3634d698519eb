"""Tables of the adas phase: designs side by side, gains by domain, the archive, single techniques, the vectors."""

import math
from pathlib import Path

import numpy as np

from evaluation.adas_measures import NAME, PARENT, Field
from evaluation.judgement import Cell, Table
from evaluation.metric import Values, standard_error
from phases.adas.archive import Record
from phases.adas.genome import PARENT as PARENT_GENOME
from phases.adas.report import ARCHIVE, AdasReport
from phases.adas.trials import LEFT_OUT
from phases.json_lines import read_lines

SHOWN = 20
"""Designs of the archive that the report shows."""


def adas_tables(field: Field, found: AdasReport, path: Path) -> dict[str, Table]:
    """All of them; `path`: the checkpoint, for its archive."""
    records = read_lines(path / ARCHIVE, Record.model_validate)
    return {
        "designs": _designs(field, found),
        "gains": _gains(field),
        "archive": _archive(records),
        "techniques": _techniques(records),
        **_vectors(found),
    }


def _cells(values: Values) -> tuple[Cell, Cell]:
    return float(np.mean(values)), standard_error(values)


def _designs(field: Field, found: AdasReport) -> Table:
    """Every player: right on the mean, in each domain, its work."""
    domains = list(field.played[PARENT].right)
    rows: list[tuple[Cell, ...]] = []
    for name, played in field.played.items():
        left_out = float(field.transfer[name].mean) if name in field.transfer else None
        shares = [float(np.mean(played.right[domain])) for domain in domains]
        rows.append((name, played.mean, *shares, left_out, field.over_parent(name), _words(name, found)))
    columns = ("design", "mean", *domains, f"{LEFT_OUT} (left out)", "work", "in words")
    return Table(title="Designs on held-out conversations", columns=columns, rows=tuple(rows))


def _words(name: str, found: AdasReport) -> str:
    known = {
        NAME: found.winner,
        PARENT: found.parent,
        "random search": found.random,
        "uniform mixture": found.uniform,
    }
    return known[name].description if name in known else ""


def _gains(field: Field) -> Table:
    """Ours over the parent, paired, by domain; the one that was left out last."""
    rows: list[tuple[Cell, ...]] = []
    for played in (field.played, field.transfer):
        for domain in played[PARENT].right if PARENT in played else ():
            ours, parent = (np.asarray(played[name].right[domain], dtype=np.float64) for name in (NAME, PARENT))
            rows.append((domain, len(ours), float(parent.mean()), float(ours.mean()), *_cells(ours - parent)))
    columns = ("domain", "n", "parent", "adas", "gain", "gain ±")
    return Table(title="Gain over the parent by domain", columns=columns, rows=tuple(rows))


def _archive(records: list[Record]) -> Table:
    """The best of the archive on the highest rung that was played."""
    latest = {one.id: one for one in records}.values()
    best = sorted(latest, key=lambda one: (-one.rung, -one.fitness, one.id))[:SHOWN]
    rows: list[tuple[Cell, ...]] = [
        (
            one.id,
            one.iteration,
            one.rung,
            None if one.scores.stopped else one.scores.mean,
            one.fitness,
            one.scores.work,
            one.origin.operator,
            one.genome.describe(),
        )
        for one in best
    ]
    columns = ("id", "iteration", "rung", "mean", "fitness", "work", "came by", "design")
    return Table(title=f"The best of {len(latest)} designs (validation)", columns=columns, rows=tuple(rows))


def _techniques(records: list[Record]) -> Table:
    """Techniques that were played alone, on the lowest rung, against the parent there; no gain of who was stopped."""
    lowest = [one for one in records if one.rung == 0]
    alone = [one for one in lowest if len(one.genome.techniques) == 1 and len(one.genome.parts) == 1]
    base = next(one for one in lowest if one.genome == PARENT_GENOME)
    rows: list[tuple[Cell, ...]] = [
        (
            one.genome.techniques[0],
            sum(one.scores.n.values()),
            None if one.scores.stopped else one.scores.mean - base.scores.mean,
            one.scores.work,
        )
        for one in alone
    ]
    rows.sort(key=lambda row: -math.inf if row[2] is None else float(row[2]), reverse=True)
    columns = ("technique", "n", "over the parent", "work")
    return Table(title="Techniques by themselves (validation, lowest rung)", columns=columns, rows=tuple(rows))


def _vectors(found: AdasReport) -> dict[str, Table]:
    """By kind: what every expert does to every domain's held-out answers, and the weights that were found."""
    tables = {}
    for kind, losses in found.losses.items():
        domains = list(next(iter(losses.values())))
        rows: list[tuple[Cell, ...]] = [
            (name, found.found.get(kind, {}).get(name), *(by_domain[domain] for domain in domains))
            for name, by_domain in losses.items()
        ]
        title = f"{kind.capitalize()} vectors: nats a token of held-out answers (validation)"
        tables[f"vectors {kind}"] = Table(title=title, columns=("expert", "found weight", *domains), rows=tuple(rows))
    return tables
