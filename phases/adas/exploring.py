"""What the phase does before it writes: experts, their mixture, the search, its control, and the finals of both.

    found = explore(parent, data, AdasConfig(), work, metrics, serial_pool)      # AdasReport

Everything is a pure function of the config and of scores that are written down before it goes on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from phases.adas.archive import Archive, Record, Scores
from phases.adas.composition import compose
from phases.adas.config import AdasConfig
from phases.adas.finals import Finals, Scorer, searched
from phases.adas.genome import PARENT, Genome
from phases.adas.learning import learn_experts
from phases.adas.pool import POOL
from phases.adas.report import ARCHIVE, CONTROL, AdasReport
from phases.adas.scoring import Setting
from phases.adas.search import Progress, random_search, search
from phases.adas.technique import Need, Technique, usable
from phases.adas.trials import Course, Messages, first, open_course
from phases.adas.vectors import read_index
from phases.agent.library import LIBRARY
from phases.agent.template import encode_chat, with_tools
from phases.baking.rows import Encoded
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.phase import MetricsCallback, Pool, serial_pool
from phases.quiet_star.storage import thinks

UNIFORM = "uniform experts"
"""The technique that is the mixture's control."""
Domains = Mapping[str, Sequence[Encoded]]


def explore(
    parent: Checkpoint, data: Dataset, config: AdasConfig, work: Path, metrics: MetricsCallback, pool: Pool
) -> AdasReport:
    """Learn, compose, search; what is finished is kept in the work directory."""
    with open_course(parent, data, ("validation",), config.lessons) as course:
        lessons = encode_domains(parent, course.lessons)
        trials = first(course.trials["validation"], course.domains, config.composition.trials)
        held_out = encode_domains(parent, {domain: [one.solved for one in found] for domain, found in trials.items()})
        techniques = usable(POOL, _abilities(parent, course, config))
        library = course.library(config.library).model_dump_json(indent=1)
    (work / LIBRARY).write_text(library + "\n", encoding="utf-8")
    vectors = learn_experts(parent, data, lessons, config.experts, work, metrics, config.seed)
    losses = compose(parent, vectors, held_out, config.composition, config.seed, metrics)
    scorer = Scorer(_setting(parent, data, config, vectors, pool), pool, config.search.budget)
    ours, control = _search(techniques, tuple(lessons), scorer, config, work, metrics)
    finals, index = Finals(scorer, config), read_index(vectors)
    names = index.names
    return AdasReport(
        config=config.model_dump(mode="json"),
        experts=names,
        found={kind: dict(weights) for kind, weights in index.found.items()},
        losses=losses,
        cosines={
            kind: {name: dict(zip(names, row, strict=True)) for name, row in zip(names, rows, strict=True)}
            for kind, rows in index.cosine.items()
        },
        left_out=tuple(sorted(set(POOL) - set(techniques))),
        parent=finals.finding(PARENT),
        winner=finals.best(ours),
        random=finals.best(control),
        uniform=finals.finding(Genome(techniques=(UNIFORM,))),
        evolution=searched(ours),
        control=searched(control),
    )


def _search(
    techniques: Mapping[str, Technique],
    experts: tuple[str, ...],
    scorer: Scorer,
    config: AdasConfig,
    work: Path,
    metrics: MetricsCallback,
) -> tuple[Archive, Archive]:
    """(ours, random search at as many conversations); equal genomes are played once for both."""
    known: dict[tuple[int, str], Scores] = {}
    ours, control = Archive(work / ARCHIVE, known), Archive(work / CONTROL, known)
    with tqdm(desc="adas", unit="design", leave=False, disable=None) as bar:
        search(techniques, experts, scorer, config.search, config.seed, ours, _watch(ours, "evolution", metrics, bar))
        watch = _watch(control, "random", metrics, bar)
        random_search(techniques, experts, scorer, config.search, config.seed, control, ours.units, watch)
    return ours, control


def _watch(archive: Archive, name: str, metrics: MetricsCallback, bar: "tqdm[NoReturn]") -> Progress:
    """Per iteration: fitness of the best so far on the lowest rung, and the mean of the newest."""

    def progress(records: list[Record]) -> None:
        new = [record for record in records if record.rung == 0]
        if not new:
            return
        best = max(record.fitness for record in archive.on(0) if record.feasible)
        metrics(
            new[0].iteration,
            {f"adas/{name}/best": best, f"adas/{name}/mean": sum(record.fitness for record in new) / len(new)},
        )
        bar.update(len(new))
        bar.set_postfix_str(f"{name} best {best:.3f}")

    return progress


def _abilities(parent: Checkpoint, course: Course, config: AdasConfig) -> list[Need]:
    """What this agent has, so that techniques change something."""
    tools = {tool.name for tool in course.tools}
    there: dict[Need, bool] = {
        "thoughts": thinks(parent.path),
        "experts": True,
        "documents": course.context.documents is not None and bool(tools & {"retrieve", "search"}),
        "memory": bool(tools & {"remember", "recall"}),
        "python": "python" in tools,
        "library": config.library > 0,
        "tools": bool(tools),
    }
    return [need for need, there_is in there.items() if there_is]


def encode_domains(parent: Checkpoint, conversations: Mapping[str, Sequence[Messages]]) -> Domains:
    """Conversations in the parent's tokens, with what the assistant says marked."""
    tokenizer = with_tools(parent.tokenizer())
    found: dict[str, list[Encoded]] = {}
    for domain, every in conversations.items():
        pairs = [encode_chat(tokenizer, messages) for messages in every]
        found[domain] = [Encoded(tokens, ours, [-1] * len(tokens)) for tokens, ours in pairs]
    return found


def _setting(parent: Checkpoint, data: Dataset, config: AdasConfig, vectors: Path, pool: Pool) -> Setting:
    return Setting(
        parent=str(parent.path.resolve()),
        digest=parent.digest,
        data=str(data.path.resolve()),
        vectors=str(vectors.resolve()),
        seed=config.seed,
        split="validation",
        units=(*config.search.rungs, config.final_units),
        turns=config.search_turns,
        library=config.library,
        batch=config.batch,
        # Several workers with all threads each fight over the cores.
        threads=0 if pool is serial_pool else 1,
    )
