"""Phase 2: evolve a merge of the specialised models; random search at equal evaluations beside it.

    forge phase evomerge --input runs/a/cognate --out runs/a/evomerge

For each seed a search and its control run on the validation split, the best of each are scored again on a larger
part of it, and the fittest over the seeds is written
as a plain checkpoint with `search.json` (all findings as genomes), `lineage.jsonl` (every candidate) and, where
mergekit has the method, `mergekit.yaml`. Whether the winner is promoted is decided on the test split by its gates,
not here. Unfinished searches are kept beside the output and continue bit for bit.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from phases.bitnet.storage import refuse_ternary
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.errors import MergeError
from phases.evomerge.build import build_model
from phases.evomerge.config import EvomergeConfig as EvomergeConfig
from phases.evomerge.finals import hold_finals
from phases.evomerge.fitness import Job, Setting, parents_of, score_job
from phases.evomerge.genome import Genome
from phases.evomerge.lineage import Evaluate, Lineage, Record, Specialities
from phases.evomerge.parents import ParentSet
from phases.evomerge.recipe import mergekit_covers, recipe_text
from phases.evomerge.report import LINEAGE, RECIPE, SEARCH, SearchReport, report
from phases.evomerge.search import Budget, Progress, evolve, random_search
from phases.evomerge.space import families
from phases.phase import (
    MetricsCallback,
    Phase,
    Pool,
    ignore_metrics,
    serial_pool,
    work_directory,
)
from phases.probe import SPECIALITIES


def run(
    parents: Sequence[Checkpoint],
    config: EvomergeConfig,
    out: Path,
    *,
    data: Dataset,
    metrics: MetricsCallback = ignore_metrics,
    pool: Pool = serial_pool,
) -> Checkpoint:
    """Search, write the winner to `out`. `parents`: a cognate checkpoint, or [trunk, model, model, …].

    Raises `MergeError` when the parents do not fit together or a merge gives NaN.
    """
    started = time.monotonic()
    chosen = choose_parents(parents)
    work = work_directory(out, PHASE.key(parents, config, data))
    setting = _setting(chosen, config, data, pool)
    parent_set = parents_of(setting.paths, setting.names, setting.digests)
    searches = _search_all(parent_set, config, work, _evaluator(setting, pool), metrics)
    wide = replace(setting, items=config.final_items, blocks=config.final_blocks)
    last = Lineage(_evaluator(wide, pool), work / "lineage.finals.jsonl")
    finals = hold_finals(searches, setting.names, config.finalists, last)
    digests = [checkpoint.digest for checkpoint in chosen.values()]
    dump = config.model_dump(mode="json")
    found = report(dump, setting.names, digests, searches, finals)
    lines = [record for pair in searches.values() for lineage in pair for record in lineage.records]
    lines += last.records
    manifest = Manifest(
        phase="evomerge",
        config=dump,
        seed=config.seed,
        parents=tuple(digests),
        data=(data.digest,),
        metrics={
            "validation_fitness": found.winner.fitness,
            "evaluations": float(len(lines)),
            "seconds": time.monotonic() - started,
        },
    )
    return _write(out, manifest, found, lines, list(chosen.values()), parent_set)


def choose_parents(parents: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Name → checkpoint, the trunk first. The siblings of a single checkpoint are its specialities, not controls."""
    if len(parents) == 1:
        siblings = parents[0].siblings
        named = {name: siblings[name] for name in SPECIALITIES if name in siblings}
        chosen = {"trunk": parents[0], **named}
    else:
        chosen = {"trunk" if i == 0 else f"{i}-{c.path.name}": c for i, c in enumerate(parents)}
    if len(chosen) < 3:
        raise MergeError(
            f"{parents[0].path if parents else 'no input'}: a merge needs a trunk and at least two models; give a "
            "checkpoint of the cognate phase, or the trunk followed by the models"
        )
    for parent in chosen.values():
        refuse_ternary(parent, "evomerge")
    return chosen


def _setting(chosen: dict[str, Checkpoint], config: EvomergeConfig, data: Dataset, pool: Pool) -> Setting:
    return Setting(
        paths=tuple(str(c.path.resolve()) for c in chosen.values()),
        names=tuple(chosen),
        digests=tuple(c.digest for c in chosen.values()),
        data=str(data.path.resolve()),
        data_digest=data.digest,
        split="validation",
        items=config.validation_items,
        blocks=config.validation_blocks,
        # Several workers with all threads each fight over the cores: a 2 s merge took 40 s.
        threads=0 if pool is serial_pool else 1,
    )


def _evaluator(setting: Setting, pool: Pool) -> Evaluate:
    def evaluate(genomes: Sequence[Genome]) -> list[Specialities]:
        return pool(score_job, [Job(setting, genome.key) for genome in genomes])

    return evaluate


def _search_all(
    parents: ParentSet, config: EvomergeConfig, work: Path, evaluate: Evaluate, metrics: MetricsCallback
) -> dict[int, tuple[Lineage, Lineage]]:
    """(evolution, random) lineages by seed. Equal genomes share one measurement across seeds and searches."""
    budget = Budget(config.population, config.generations, config.patience, config.sigma)
    known: dict[str, Specialities] = {}
    searches = {}
    total = 2 * config.searches * config.population * config.generations
    with tqdm(total=total, desc="evomerge", unit="merge", leave=False, disable=None) as bar:
        for seed in range(config.seed, config.seed + config.searches):
            space = families(
                config.methods, parents.count, parents.layers, config.dare_rescale, seed, config.dfs_repeats
            )
            ours = Lineage(evaluate, work / f"lineage.seed{seed}.jsonl", known)
            evolve(space, parents.names, budget, seed, ours, _progress(ours, metrics, bar))
            control = Lineage(evaluate, work / f"lineage.seed{seed}.random.jsonl", known)
            count = len(ours.records)
            random_search(space, parents.names, budget, seed, control, count, _progress(control, metrics, bar))
            searches[seed] = (ours, control)
    return searches


def _progress(lineage: Lineage, metrics: MetricsCallback, bar: "tqdm[NoReturn]") -> Progress:
    """Per generation: best so far, mean, best of each speciality so far."""

    def progress(records: list[Record]) -> None:
        first = records[0]
        curve = f"{first.search}/seed{first.seed}"
        values = {
            f"{curve}/best": lineage.best.fitness,
            f"{curve}/mean": sum(r.fitness for r in records) / len(records),
        }
        for name in first.scores:
            values[f"{curve}/best_{name}"] = max(r.scores[name] for r in lineage.records)
        metrics(first.generation, values)
        bar.update(len(records))
        bar.set_postfix_str(f"{curve} best {lineage.best.fitness:.4f}")

    return progress


def _write(
    out: Path,
    manifest: Manifest,
    found: SearchReport,
    lines: Sequence[Record],
    chosen: Sequence[Checkpoint],
    parents: ParentSet,
) -> Checkpoint:
    """The winner as a checkpoint with its search, lineage and recipe."""
    genome = found.winner.genome
    texts = {
        SEARCH: found.model_dump_json(indent=2) + "\n",
        LINEAGE: "".join(record.model_dump_json() + "\n" for record in lines),
    }
    paths = [os.path.relpath(checkpoint.path.resolve(), out.resolve()) for checkpoint in chosen]
    recipe = recipe_text(genome, paths, found.digests)
    if recipe and mergekit_covers(parents.config, list(parents.shapes)):
        texts[RECIPE] = recipe
    return save_checkpoint(out, build_model(genome, parents), chosen[0].tokenizer(), manifest, texts=texts)


PHASE = Phase("evomerge", "Evolve a merge of the specialised models (linear … dfs), with controls", EvomergeConfig, run)
