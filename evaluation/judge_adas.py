"""The judge of phase 7: is the agent at its found design really better than its parent, and than random search's?

    judge(checkpoint, [parent], data, EvaluationConfig())

The agent is opened from disk and plays at the design in its own `agent.json`, on the test split, which no search has
seen. Beside it play the parent as it was, the best design of random search at as many conversations, a uniform mixture
of the expert vectors, and ours without its experts or without its techniques. Promoted is an agent that is at least as
often right as its parent in every domain, better on their mean than random search's beyond two standard errors, and
within its latency budget, counted and on the clock; whose weights have forgotten nothing, and are on their lattice.
"""

from collections.abc import Sequence

from evaluation.adas_measures import (
    NAME,
    PARENT,
    RANDOM,
    UNIFORM,
    Field,
    Player,
    design_controls,
    design_metrics,
    measure_designs,
)
from evaluation.adas_report import adas_tables
from evaluation.config import EvaluationConfig
from evaluation.expert_size import expert_bytes
from evaluation.judgement import Judgement
from evaluation.lattice import lattice_gates
from evaluation.measured import Measured, measure, model_metrics
from evaluation.metric import Gate, Metric, Values, finite_check, gate
from evaluation.ratio import perplexity
from evaluation.specialities import held_out
from phases.adas.config import AdasConfig
from phases.adas.genome import Genome
from phases.adas.playing import CountingMinds
from phases.adas.pool import POOL
from phases.adas.report import AdasReport, read_report
from phases.adas.trials import Course, open_course
from phases.agent.design import Mixture
from phases.agent.library import read_library
from phases.agent.settings import read_settings
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset

WITHOUT_EXPERTS, WITHOUT_TECHNIQUES = "ours without experts", "ours without techniques"


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge an adas checkpoint. Raises `CheckpointError` when its report or vectors are missing."""
    found = read_report(checkpoint.path)
    made = AdasConfig.model_validate(found.config)
    units = held_out(data, config)
    ours, parent = checkpoint.model(), parents[0].model()
    measured = measure(ours, checkpoint.tokenizer(), units, config)
    finite, finite_gate = finite_check(measured.not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    before = measure(parent, parents[0].tokenizer(), units, config)
    with open_course(parents[0], data, (config.split,), 1) as course:
        players = _players(checkpoint, parents[0], found, course)
        trials = course.trials[config.split]
        field = measure_designs(players, course, trials, config.trials, config.timed_trials, config.batch)
    packed, lattice = lattice_gates(NAME, checkpoint, parents[0], ours)
    return Judgement(
        metrics=(
            finite,
            *design_metrics(field, config.split),
            _expert_bytes(checkpoint, config.split),
            *model_metrics(NAME, measured, units.split, before),
            *model_metrics(PARENT, before, units.split),
            *(() if packed is None else packed.metrics(units.split)),
        ),
        controls=tuple(design_controls(field, _budgets(found), config.resamples, config.seed)),
        gates=(
            finite_gate,
            *_gates(field, config, made.search.budget),
            _no_regression(measured, before, config),
            *lattice,
        ),
        tables=adas_tables(field, found, checkpoint.path),
    )


def _players(checkpoint: Checkpoint, parent: Checkpoint, found: AdasReport, course: Course) -> dict[str, Player]:
    """Ours from its own files; all others from the parent's weights and the vectors beside ours."""
    library, vectors = read_library(checkpoint.path), checkpoint.path
    minds = CountingMinds(parent, vectors)
    winner = found.winner.genome
    design = winner.design(POOL)
    genomes = {PARENT: Genome(), RANDOM: found.random.genome, UNIFORM: found.uniform.genome}
    designs = {name: genome.design(POOL) for name, genome in genomes.items()}
    if design.mixture != Mixture():
        designs[WITHOUT_EXPERTS] = design.model_copy(update={"mixture": Mixture()})
        designs[WITHOUT_TECHNIQUES] = designs[PARENT].model_copy(update={"mixture": design.mixture})
    others = {
        name: Player(minds, course.settings.model_copy(update={"design": one}), library)
        for name, one in designs.items()
    }
    return {NAME: Player(CountingMinds(checkpoint), read_settings(checkpoint.path), library), **others}


def _expert_bytes(checkpoint: Checkpoint, split: str) -> Metric:
    """What a design that chooses an expert a conversation needs besides the weights; it has no error."""
    size = expert_bytes(checkpoint.path)
    return Metric(name=f"{NAME}/expert_bytes", split=split, value=size, n=1, unit="bytes")


def _budgets(found: AdasReport) -> dict[str, str]:
    ours, control = found.evolution, found.control
    return {
        PARENT: "nothing",
        RANDOM: f"{control.units:,} conversations in {control.candidates} designs; ours {ours.units:,} in "
        f"{ours.candidates}",
        UNIFORM: "no search; the same vectors",
    }


def _gates(field: Field, config: EvaluationConfig, budget: float) -> list[Gate]:
    ours, parent = field.played[NAME], field.played[PARENT]
    by = field.against(RANDOM, config.resamples, config.seed)
    return [
        *(
            gate(f"{domain}: at least the parent", f"{NAME}/{domain}_right", _share(values), ">=", _share(theirs))
            for (domain, values), theirs in zip(ours.right.items(), parent.right.values(), strict=True)
        ),
        gate("better than random search", "difference of mean_right", by.difference, ">", config.sigmas * by.stderr),
        gate("work within the budget", f"{NAME}/work", field.over_parent(NAME), "<=", budget),
        gate("time within the budget", f"{NAME}/time", field.slower, "<=", budget),
    ]


def _share(values: Values) -> float:
    """Their mean. Thirds add up to other last digits in another order, and as much is not less."""
    return round(float(values.mean()), 12)


def _no_regression(ours: Measured, before: Measured, config: EvaluationConfig) -> Gate:
    after, parent = (perplexity(one.text, f"{NAME}/perplexity", config.split) for one in (ours, before))
    title = f"perplexity within {config.regression:.0%} of the parent's"
    return gate(title, after.name, after.value, "<=", (1 + config.regression) * parent.value)
